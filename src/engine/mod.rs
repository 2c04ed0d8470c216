//! Runs: started, recorded, resumed, cancelled. Sees Lua through one trait, [`FlowRuntime`].
//!
//! A run has a thread of its own, since a script may compute without giving it back. Its calls
//! go through [`Run::call`], which answers from the journal what an earlier owner finished. A
//! process that dies leaves its runs to whoever resumes them; a process that is told to stop
//! leaves them likewise, and unwinds nothing.

mod bundle;
mod canonical;
mod derive;
mod event;
mod interrupt;
mod live;
mod meter;
mod owner;
mod place;
mod primitive;
mod run;
mod watch;

pub use bundle::{
    Files, Folder, QUIRKS, add_quirks, collect as collect_bundle, is_quirk, is_test, read_folder,
    read_folders, seal as seal_bundle,
};
pub use event::{CONSOLE, Event, Events, What};
pub use interrupt::{Hang, Interrupted, Point, Side};
pub use live::{Handle, LiveRef, LiveValue};
pub use meter::{BOUNDS, Latency, Meter};
pub use owner::{LEASE, is_alive, status_of, this_process};
pub use place::{excerpt, place};
pub use primitive::{Call, Class, Primitive, Primitives, Probe, Reply};
pub use run::{CallRequest, Run, cancelled, step_of};
pub use watch::Watch;

use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::journal::{Bundle, Entry, Journal, NewRun, NodeLock, NodeOwner, RunRecord, RunStatus};
use crate::secret::Secret;
use futures_util::future::LocalBoxFuture;
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Runs the Lua of a flow.
pub trait FlowRuntime: Send + Sync + std::fmt::Debug {
    /// Runs an action to its end, clean-ups included. Polled on the run's own thread.
    fn run(&self, script: Script, run: Arc<Run>) -> LocalBoxFuture<'static, Outcome>;
}

/// What a run executes.
#[derive(Debug, Clone)]
pub struct Script {
    /// The flow and its modules.
    pub bundle: Arc<Bundle>,
    /// Path of the flow file inside the bundle.
    pub entry: String,
    /// The action's name.
    pub action: String,
    /// Parameters by name.
    pub params: Value,
    /// The node, without secrets.
    pub node: Value,
}

/// How a script ended.
#[derive(Debug)]
pub struct Outcome {
    /// What the action returned, or the first failure.
    pub result: Result<Value>,
    /// Clean-ups that failed.
    pub cleanup_errors: Vec<Error>,
}

/// A run that is wanted.
#[derive(Debug, Clone)]
pub struct NewScript {
    /// The flow's name.
    pub flow: String,
    /// What to execute.
    pub script: Script,
    /// The node's name.
    pub node: String,
}

/// How a run ended in this process.
#[derive(Debug, Clone)]
pub struct RunEnd {
    /// The run.
    pub id: String,
    /// Its node.
    pub node: String,
    /// Where it stands now.
    pub status: RunStatus,
    /// The first failure.
    pub error: Option<Error>,
    /// What the action returned.
    pub result: Value,
}

/// A run that goes on; [`Started::end`] waits for it.
#[derive(Debug)]
pub struct Started {
    /// The run's id.
    pub id: String,
    done: oneshot::Receiver<RunEnd>,
}

impl Started {
    /// Waits until the run ended or stopped.
    ///
    /// # Errors
    /// `internal` if its thread died.
    pub async fn end(self) -> Result<RunEnd> {
        self.done.await.map_err(|_| died(self.id))
    }
}

fn died(run: String) -> Error {
    Error::new(Kind::Internal, "the run's thread died").target(run)
}

/// Starts runs and holds those of this process.
#[derive(Debug, Clone)]
pub struct Engine {
    journal: Journal,
    events: Events,
    primitives: Arc<dyn Primitives>,
    runtime: Arc<dyn FlowRuntime>,
    site_key: Secret,
    active: Arc<Mutex<HashMap<String, Arc<Run>>>>,
    stop: CancellationToken,
}

impl Engine {
    /// An engine over the journal in `state_dir`.
    ///
    /// # Errors
    /// Those of the journal and the site key.
    pub fn new(
        state_dir: &Path,
        primitives: Arc<dyn Primitives>,
        runtime: Arc<dyn FlowRuntime>,
    ) -> Result<Self> {
        let (journal, key) = (Journal::open(state_dir)?, derive::site_key(state_dir)?);
        Ok(Self::over(journal, key, primitives, runtime))
    }

    /// An engine that leaves nothing behind: its journal is gone with it.
    ///
    /// # Errors
    /// Those of the journal.
    pub fn in_memory(
        primitives: Arc<dyn Primitives>,
        runtime: Arc<dyn FlowRuntime>,
    ) -> Result<Self> {
        let key = Secret::new(uuid::Uuid::new_v4().simple().to_string());
        Ok(Self::over(Journal::in_memory()?, key, primitives, runtime))
    }

    fn over(
        journal: Journal,
        site_key: Secret,
        primitives: Arc<dyn Primitives>,
        runtime: Arc<dyn FlowRuntime>,
    ) -> Self {
        Self {
            journal,
            events: Events::default(),
            primitives,
            runtime,
            site_key,
            active: Arc::default(),
            stop: CancellationToken::new(),
        }
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What the runs of this process tell.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Adds a line to the log of a run of this process; of others there is nothing to add to.
    pub fn log(&self, run: &str, level: &str, text: &str) {
        let run = self.held().get(run).cloned();
        if let Some(run) = run {
            run.log(level, "", text);
        }
    }

    /// Adds a line to the log of the run of this process that has the node, if there is one.
    pub fn log_of_node(&self, node: &str, level: &str, text: &str) {
        let run = self.held().values().find(|run| run.node == node).cloned();
        if let Some(run) = run {
            run.log(level, "", text);
        }
    }

    /// Runs to the end, and cancels what takes longer than `limit`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn run_within(&self, new: NewScript, limit: Duration) -> Result<RunEnd> {
        let started = self.start(new).await?;
        let id = started.id.clone();
        let end = started.end();
        tokio::pin!(end);
        tokio::select! {
            end = &mut end => end,
            () = tokio::time::sleep(limit) => {
                self.cancel(&id).await?;
                end.await
            }
        }
    }

    /// Starts a run.
    ///
    /// # Errors
    /// `conflict` if another run holds the node.
    pub async fn start(&self, new: NewScript) -> Result<Started> {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let owner = this_process();
        let mut script = new.script;
        let row = NewRun {
            id: id.clone(),
            node: new.node.clone(),
            flow: new.flow.clone(),
            action: script.action.clone(),
            entry: script.entry.clone(),
            params: script.params.clone(),
            node_view: script.node.clone(),
            owner,
        };
        match self
            .journal
            .create_run(row, (*script.bundle).clone())
            .await?
        {
            NodeLock::Taken(view) => script.node = view,
            NodeLock::Held(holder) => return Err(node_held(&new.node, &holder)),
        }
        let run = self.own(id, new.node, 1, 0, Vec::new());
        self.spawn(run, new.flow, script, false)
    }

    /// Continues a run whose owner died or stopped. With `cancel` it is unwound instead.
    ///
    /// # Errors
    /// `conflict` if it ended or its owner lives.
    pub async fn resume(&self, record: RunRecord, cancel: bool) -> Result<Started> {
        if record.status.is_final() {
            let message = format!("the run has ended: {}", record.status.as_str());
            return Err(Error::new(Kind::Conflict, message).target(record.id));
        }
        if record.status == RunStatus::Running && is_alive(&record.owner, record.alive_ms) {
            let message = format!("the run is going on in {}", record.owner);
            return Err(Error::new(Kind::Conflict, message)
                .target(record.id)
                .hint("stop that process first, or `flowrun cancel` the run"));
        }
        if cancel {
            self.journal.request_cancel(&record.id).await?;
        }
        let bundle = self.journal.bundle(&record.bundle).await?;
        let taken = self
            .journal
            .take_over(&record.id, this_process(), record.fence)
            .await?;
        let record = taken.run;
        let run = self.own(
            record.id,
            record.node,
            record.fence,
            record.downtime_ms,
            taken.entries,
        );
        if record.cancel {
            run.cancel.cancel();
        }
        let script = Script {
            bundle: Arc::new(bundle),
            entry: record.entry,
            action: record.action,
            params: record.params,
            node: record.node_view,
        };
        self.spawn(run, record.flow, script, true)
    }

    fn own(
        &self,
        id: String,
        node: String,
        fence: u64,
        downtime_ms: u64,
        entries: Vec<Entry>,
    ) -> Arc<Run> {
        let next = entries.iter().map(|e| e.seq + 1).max().unwrap_or(1);
        let run = Arc::new(Run {
            id,
            node,
            fence,
            cancel: CancellationToken::new(),
            stop: self.stop.child_token(),
            watch: Watch::default(),
            journal: self.journal.clone(),
            events: self.events.clone(),
            primitives: self.primitives.clone(),
            site_key: self.site_key.clone(),
            downtime_ms,
            replay: Mutex::new(entries.into_iter().map(|e| (e.key.clone(), e)).collect()),
            live: live::LiveTable::default(),
            shared: Mutex::default(),
            seq: AtomicU64::new(next),
            fatal: OnceLock::new(),
            alive: Mutex::new(clock::instant()),
        });
        self.held().insert(run.id.clone(), run.clone());
        run
    }

    fn spawn(&self, run: Arc<Run>, flow: String, script: Script, resumed: bool) -> Result<Started> {
        let (done, end) = oneshot::channel();
        let id = run.id.clone();
        let engine = self.clone();
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new()
            .name(format!("run {}", run.node))
            .spawn(move || {
                // On the heap: what moves through a thread's stack stays resident there.
                let life = Box::pin(engine.drive(run, flow, script, resumed));
                let ended = runtime.block_on(life);
                drop(done.send(ended));
            })
            .map_err(|e| Error::new(Kind::Limit, "no thread for the run").caused_by(&e))?;
        Ok(Started { id, done: end })
    }

    /// Lives on the run's thread from its start to its end.
    async fn drive(&self, run: Arc<Run>, flow: String, script: Script, resumed: bool) -> RunEnd {
        let began = clock::instant();
        run.tell(What::RunStarted {
            flow,
            action: script.action.clone(),
            source: script.entry.clone(),
            resumed,
        });
        let heart = tokio_util::task::AbortOnDropHandle::new(self.heart(&run));
        let work = async {
            if resumed {
                compare(&run).await;
            }
            self.runtime.run(script, run.clone()).await
        };
        let outcome = tokio::select! {
            biased;
            () = run.stop.cancelled() => None,
            outcome = work => Some(outcome),
        };
        // On the heap: what it needs shall not be held while the script waits.
        Box::pin(self.conclude(run, outcome, resumed, began, heart)).await
    }

    /// Closes what is open and records how the run ended.
    async fn conclude(
        &self,
        run: Arc<Run>,
        outcome: Option<Outcome>,
        resumed: bool,
        began: std::time::Instant,
        heart: tokio_util::task::AbortOnDropHandle<()>,
    ) -> RunEnd {
        if resumed && outcome.is_some() {
            close_left(&run).await;
        }
        close_handles(&run).await;
        drop(heart);
        let (status, error, result) = verdict(&run, outcome);
        let shown = (status.is_final()).then(|| result.clone());
        let seconds = began.elapsed().as_secs_f64();
        let finished = |error: &Option<Error>| {
            run.event(What::RunFinished {
                status,
                seconds,
                error: error.clone(),
                result: result.clone(),
            })
        };
        // One transaction: who follows the run must not see it ended without a word.
        let last = finished(&error);
        let last = (last.what.name(), last.text());
        let written = self
            .journal
            .end_run(&run.id, run.fence, status, error.clone(), shown, last)
            .await;
        let error = error.or_else(|| written.err());
        self.events.send(finished(&error));
        self.held().remove(&run.id);
        RunEnd {
            id: run.id.clone(),
            node: run.node.clone(),
            status,
            error,
            result,
        }
    }

    /// Says that the run lives, and hears whether it is to be cancelled or has another owner.
    fn heart(&self, run: &Arc<Run>) -> tokio::task::JoinHandle<()> {
        let (run, journal) = (run.clone(), self.journal.clone());
        tokio::runtime::Handle::current().spawn(async move {
            loop {
                let sent = clock::instant();
                match Box::pin(journal.heartbeat(&run.id, run.fence)).await {
                    Ok(cancel) => {
                        *run.alive.lock().unwrap_or_else(PoisonError::into_inner) = sent;
                        if cancel {
                            run.cancel.cancel();
                        }
                    }
                    Err(error) if error.kind() == Kind::Conflict => {
                        drop(run.fatal.set(error));
                        run.stop.cancel();
                    }
                    Err(error) => tracing::warn!(run = run.id, %error, "no heartbeat"),
                }
                tokio::select! {
                    () = tokio::time::sleep(owner::HEARTBEAT) => {}
                    () = run.cancel.cancelled(), if !run.cancel.is_cancelled() => {}
                }
                if run.cancel.is_cancelled() {
                    run.watch.cancelled();
                }
            }
        })
    }

    /// Cancels a run of this process, or asks the process that owns it.
    ///
    /// # Errors
    /// Only the journal's.
    pub async fn cancel(&self, id: &str) -> Result<()> {
        self.journal.request_cancel(id).await?;
        if let Some(run) = self.held().get(id) {
            run.watch.cancelled();
            run.cancel.cancel();
        }
        Ok(())
    }

    /// Stops every run of this process where it is, resumable.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Run>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends sessions that the run still holds; a dead peer must not keep the run from ending.
async fn close_handles(run: &Run) {
    let handles = run.drain_handles();
    let closing = handles.iter().map(|handle| async move {
        let limit = Duration::from_secs(10);
        if tokio::time::timeout(limit, handle.close()).await.is_err() {
            tracing::warn!(?handle, "did not close in time");
        }
    });
    futures_util::future::join_all(closing).await;
}

/// How long a run that goes on looks at its node first.
const COMPARE: Duration = Duration::from_secs(30);

/// Before the run goes on: its first call may change what is compared.
async fn compare(run: &Arc<Run>) {
    let compared = run.primitives.compare(run.clone());
    if tokio::time::timeout(COMPARE, compared).await.is_err() {
        run.log(
            "warn",
            "",
            "the node did not tell in time how it is; it is not compared",
        );
    }
}

/// Sessions of owners that died end with the run, even if it did not need what they were for.
async fn close_left(run: &Arc<Run>) {
    let closing = run.primitives.close_left(run.clone());
    if tokio::time::timeout(LEASE, closing).await.is_err() {
        tracing::warn!(
            run = run.id,
            "what an earlier owner left did not close in time"
        );
    }
}

fn verdict(run: &Run, outcome: Option<Outcome>) -> (RunStatus, Option<Error>, Value) {
    if let Some(fatal) = run.fatal() {
        return (RunStatus::Stuck, Some(fatal.clone()), Value::Null);
    }
    let Some(outcome) = outcome else {
        return (RunStatus::Stopped, None, Value::Null);
    };
    let clean = outcome.cleanup_errors.is_empty();
    match outcome.result {
        Ok(value) if clean => (RunStatus::Done, None, value),
        Ok(value) => (
            RunStatus::Stuck,
            outcome.cleanup_errors.into_iter().next(),
            value,
        ),
        Err(error) if !clean => {
            let error = outcome.cleanup_errors.iter().fold(error, |error, failed| {
                error.cause(format!("clean-up failed: {failed}"))
            });
            (RunStatus::Stuck, Some(error), Value::Null)
        }
        Err(error) if error.kind() == Kind::Cancelled && run.cancel.is_cancelled() => {
            (RunStatus::Cancelled, Some(error), Value::Null)
        }
        Err(error) => (RunStatus::Failed, Some(error), Value::Null),
    }
}

fn node_held(node: &str, holder: &NodeOwner) -> Error {
    let id: String = holder.run.chars().take(12).collect();
    let goes_on = holder.status == RunStatus::Running && is_alive(&holder.owner, holder.alive_ms);
    let error = Error::new(Kind::Conflict, format!("run {id} holds this node")).target(node);
    if goes_on {
        error.hint(format!(
            "it is going on in {}; `flowrun show {id}` tells how far",
            holder.owner
        ))
    } else {
        error.hint(format!(
            "nobody works on it: `flowrun resume {id}` continues it, `flowrun cancel {id}` unwinds it"
        ))
    }
}
