//! Primitives that hang at a chosen call, so that a crash or a cancel can be tried there.

use super::primitive::{Call, Class, Primitive, Primitives, Probe, Reply};
use super::run::Run;
use super::{RunEnd, Started, died};
use crate::error::Result;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// On which side of its effect a call hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Begun, and nothing done.
    Before,
    /// Done, and not recorded.
    After,
}

/// Where a run hangs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// The call's key, or its end: `iscsi.login#1`.
    pub key: String,
    /// On which side of it.
    pub side: Side,
}

impl Point {
    fn is_at(&self, key: &str) -> bool {
        let before = key.strip_suffix(&self.key);
        before.is_some_and(|before| before.is_empty() || before.ends_with('/'))
    }
}

/// The primitives; on each of these nodes one call never returns.
#[derive(Debug, Clone)]
pub struct Interrupted {
    inner: Arc<dyn Primitives>,
    points: Arc<BTreeMap<String, (Point, Notify)>>,
}

/// How far a run came.
#[derive(Debug)]
pub enum Hang {
    /// It ended, and never came to its point.
    Ended(Result<RunEnd>),
    /// It hangs there.
    Hangs(Started),
}

impl Interrupted {
    /// `points` by the names of their nodes.
    #[must_use]
    pub fn new(inner: Arc<dyn Primitives>, points: &BTreeMap<String, Point>) -> Self {
        let points = points.iter();
        let points = points.map(|(node, at)| (node.clone(), (at.clone(), Notify::new())));
        Self {
            inner,
            points: Arc::new(points.collect()),
        }
    }

    /// Waits until the run hangs, or ends.
    pub async fn to_point(&self, node: &str, mut run: Started) -> Hang {
        let reached = async {
            match self.points.get(node) {
                Some((_, reached)) => reached.notified().await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            end = &mut run.done => Some(end),
            () = reached => None,
        };
        match ended {
            Some(end) => Hang::Ended(end.map_err(|_| died(run.id))),
            None => Hang::Hangs(run),
        }
    }
}

impl Primitives for Interrupted {
    fn find(&self, name: &str) -> Option<Arc<dyn Primitive>> {
        let inner = self.inner.find(name)?;
        let all = self.clone();
        Some(Arc::new(Hanging { inner, all }))
    }

    fn compare(&self, run: Arc<Run>) -> BoxFuture<'static, ()> {
        self.inner.compare(run)
    }

    fn close_left(&self, run: Arc<Run>) -> BoxFuture<'static, ()> {
        self.inner.close_left(run)
    }
}

struct Hanging {
    inner: Arc<dyn Primitive>,
    all: Interrupted,
}

impl Primitive for Hanging {
    fn class(&self) -> Class {
        self.inner.class()
    }

    fn recorded(&self) -> bool {
        self.inner.recorded()
    }

    fn execute(&self, call: Call) -> BoxFuture<'static, Result<Reply>> {
        let (inner, all) = (self.inner.clone(), self.all.clone());
        async move {
            let here = all.points.get(&call.run.node);
            let Some((point, reached)) = here.filter(|(point, _)| point.is_at(&call.key)) else {
                return inner.execute(call).await;
            };
            let cancel = call.run.cancel.clone();
            // A clean-up goes on when the run is cancelled; every other call is given up.
            let until = async {
                reached.notify_one();
                cancel.cancelled().await;
                if !call.key.starts_with('~') {
                    std::future::pending::<()>().await;
                }
            };
            if point.side == Side::Before {
                until.await;
                return inner.execute(call).await;
            }
            let reply = inner.execute(call.clone()).await;
            until.await;
            reply
        }
        .boxed()
    }

    fn still_holds(&self, call: Call, result: Value) -> BoxFuture<'static, bool> {
        self.inner.still_holds(call, result)
    }

    fn probe(&self, call: Call) -> BoxFuture<'static, Result<Probe>> {
        self.inner.probe(call)
    }
}
