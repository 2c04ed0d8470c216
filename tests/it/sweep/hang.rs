//! Primitives, one call of which never returns.

use flowrun::engine::{Call, Class, Primitive, Primitives, Probe, Reply, RunEnd, Started};
use flowrun::error::Result;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// On which side of what a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Side {
    /// Begun, and nothing done.
    Before,
    /// Done, and not recorded.
    After,
}

/// Where a run is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Point {
    pub(super) key: String,
    pub(super) side: Side,
}

/// The primitives; on each node one call hangs.
#[derive(Debug, Clone)]
pub(super) struct Hanging {
    inner: Arc<dyn Primitives>,
    points: Arc<BTreeMap<String, (Point, Notify)>>,
}

/// How far a run came.
pub(super) enum Hang {
    /// It never came to its point.
    Ended,
    /// It hangs there; this is its end.
    Hangs(BoxFuture<'static, Result<RunEnd>>),
}

impl Hanging {
    pub(super) fn new(inner: Arc<dyn Primitives>, points: &BTreeMap<String, Point>) -> Self {
        let points = points.iter();
        let points = points.map(|(node, at)| (node.clone(), (at.clone(), Notify::new())));
        Self {
            inner,
            points: Arc::new(points.collect()),
        }
    }

    pub(super) async fn to_point(&self, node: &str, run: Started) -> Hang {
        let mut end = run.end().boxed();
        tokio::select! {
            _ = &mut end => Hang::Ended,
            () = self.points[node].1.notified() => Hang::Hangs(end),
        }
    }
}

impl Primitives for Hanging {
    fn find(&self, name: &str) -> Option<Arc<dyn Primitive>> {
        let inner = self.inner.find(name)?;
        let all = self.clone();
        Some(Arc::new(One { inner, all }))
    }
}

struct One {
    inner: Arc<dyn Primitive>,
    all: Hanging,
}

impl Primitive for One {
    fn class(&self) -> Class {
        self.inner.class()
    }

    fn recorded(&self) -> bool {
        self.inner.recorded()
    }

    fn execute(&self, call: Call) -> BoxFuture<'static, Result<Reply>> {
        let (inner, all) = (self.inner.clone(), self.all.clone());
        async move {
            let Some((point, reached)) = all.points.get(&call.run.node) else {
                return inner.execute(call).await;
            };
            if point.key != call.key {
                return inner.execute(call).await;
            }
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
