//! Primitives that hang at a chosen call, so that a crash or a cancel can be tried there.

use super::primitive::{Call, Class, Primitive, Primitives, Probe, Reply};
use crate::error::Result;
use futures_util::future::BoxFuture;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::Notify;

/// On which side of its effect a call hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Begun, and nothing done.
    Before,
    /// Done, and not recorded.
    After,
}

/// The primitives, one call of which never returns.
#[derive(Debug, Clone)]
pub struct Interrupted {
    inner: Arc<dyn Primitives>,
    key: String,
    side: Side,
    reached: Arc<Notify>,
}

impl Interrupted {
    /// `key` is the call's key, or its end: `iscsi.login#1`.
    #[must_use]
    pub fn new(inner: Arc<dyn Primitives>, key: &str, side: Side) -> Self {
        Self {
            inner,
            key: key.to_owned(),
            side,
            reached: Arc::default(),
        }
    }

    /// Ends when the call has come to where it hangs.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    fn is_meant(&self, key: &str) -> bool {
        let before = key.strip_suffix(&self.key);
        before.is_some_and(|before| before.is_empty() || before.ends_with('/'))
    }
}

impl Primitives for Interrupted {
    fn find(&self, name: &str) -> Option<Arc<dyn Primitive>> {
        let inner = self.inner.find(name)?;
        let at = self.clone();
        Some(Arc::new(Hanging { inner, at }))
    }
}

struct Hanging {
    inner: Arc<dyn Primitive>,
    at: Interrupted,
}

impl Primitive for Hanging {
    fn class(&self) -> Class {
        self.inner.class()
    }

    fn recorded(&self) -> bool {
        self.inner.recorded()
    }

    fn execute(&self, call: Call) -> BoxFuture<'static, Result<Reply>> {
        if !self.at.is_meant(&call.key) {
            return self.inner.execute(call);
        }
        let (inner, at) = (self.inner.clone(), self.at.clone());
        Box::pin(async move {
            if at.side == Side::After {
                drop(inner.execute(call).await);
            }
            at.reached.notify_one();
            std::future::pending().await
        })
    }

    fn still_holds(&self, call: Call, result: Value) -> BoxFuture<'static, bool> {
        self.inner.still_holds(call, result)
    }

    fn probe(&self, call: Call) -> BoxFuture<'static, Result<Probe>> {
        self.inner.probe(call)
    }
}
