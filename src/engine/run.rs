//! One run: what it owns, and how its calls are recorded, replayed, bounded and cancelled.

use super::event::{Event, Events, What};
use super::live::{self, Handle, LiveRef, LiveTable, LiveValue};
use super::owner::LEASE;
use super::primitive::{Call, Class, Primitive, Primitives, Probe, Reply};
use super::watch::Watch;
use super::{canonical, derive};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::journal::{Entry, EntryState, Journal};
use crate::secret::Secret;
use serde_json::Value;
use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A run while this process owns it.
#[derive(Debug)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// Its node's name.
    pub node: String,
    /// Grows with each owner; part of the initiator name, so that a disk refuses an older owner.
    pub fence: u64,
    /// Cancelled when the operator wants it unwound.
    pub cancel: CancellationToken,
    /// Cancelled when the process stops; nothing unwinds.
    pub stop: CancellationToken,
    /// What Lua is busy with; tells a flow that loops for ever.
    pub watch: Watch,
    pub(super) journal: Journal,
    pub(super) events: Events,
    pub(super) primitives: Arc<dyn Primitives>,
    pub(super) site_key: Secret,
    pub(super) downtime_ms: u64,
    pub(super) replay: Mutex<HashMap<String, Entry>>,
    pub(super) live: LiveTable,
    pub(super) shared: Mutex<HashMap<String, Arc<dyn Handle>>>,
    pub(super) seq: AtomicU64,
    pub(super) fatal: OnceLock<Error>,
    pub(super) alive: Mutex<Instant>,
}

/// A call as the script made it.
#[derive(Debug, Clone)]
pub struct CallRequest {
    /// `module.function`.
    pub name: String,
    /// Step path, primitive and count.
    pub key: String,
    /// `file:line` of the flow.
    pub site: String,
    /// Checked arguments.
    pub args: Value,
    /// When the step around it gives up, and which step that is.
    pub deadline: Option<(u64, String)>,
    /// Whether it is part of a clean-up, which cancelling does not touch.
    pub shielded: bool,
    /// Cancelled when a sibling branch of `parallel` failed.
    pub branch: Option<CancellationToken>,
}

impl Run {
    /// Makes a call: answers it from the journal, or executes it and records what came back.
    ///
    /// # Errors
    /// The primitive's; `cancelled`, `timeout` of the step around it, or `conflict` when the flow
    /// leaves the path that the journal recorded.
    pub async fn call(self: &Arc<Self>, request: CallRequest) -> Result<Value> {
        let primitive = self
            .primitives
            .find(&request.name)
            .ok_or_else(|| Error::new(Kind::Invalid, format!("there is no {}", request.name)))?;
        if let Some(fatal) = self.fatal.get() {
            return Err(fatal.clone());
        }
        let args = canonical::text(&request.args);
        let args_hash = canonical::hash(&args);
        let earlier = self.replayed(&request.key);
        if let Some(entry) = &earlier {
            self.same_path(entry, &request, &args_hash)?;
            match entry.state {
                EntryState::Ok if self.still_holds(&primitive, &request, entry).await => {
                    return Ok(entry.result.clone().unwrap_or(Value::Null));
                }
                EntryState::Failed => return Err(recorded_error(entry)),
                EntryState::Ok | EntryState::Started => {}
            }
        }
        self.may_begin(&request)?;
        let entry = self.entry_for(&request, earlier, primitive.class(), args, args_hash);
        self.perform(primitive, request, entry).await
    }

    /// Executes, or asks the device in doubt, and records.
    async fn perform(
        self: &Arc<Self>,
        primitive: Arc<dyn Primitive>,
        request: CallRequest,
        mut entry: Entry,
    ) -> Result<Value> {
        let class = primitive.class();
        if class.starts_durably() {
            // On the heap: it is over when the wait begins.
            let begun = Box::pin(self.journal.begin(&self.id, self.fence, entry.clone()));
            self.owned(begun.await)?;
        }
        let call = self.call_of(&request, &entry);
        let in_doubt = entry.attempt > 1 && class == Class::EffectProbe;
        let work = async {
            if in_doubt && let Probe::Done(reply) = primitive.probe(call.clone()).await? {
                return Ok(reply);
            }
            primitive.execute(call.clone()).await
        };
        let started = clock::instant();
        let outcome = self.bounded(work, &request, call.deadline_ms).await;
        let outcome = outcome.map(|reply| self.keep(&request.key, reply));
        self.told(&request, started, &outcome);
        if primitive.recorded() {
            self.record(&mut entry, &outcome);
        }
        outcome.map_err(|e| e.op(request.name))
    }

    /// Runs `work` until it ends, the deadline passes, or the run is cancelled or stopped.
    async fn bounded(
        &self,
        work: impl Future<Output = Result<Reply>>,
        request: &CallRequest,
        deadline_ms: Option<u64>,
    ) -> Result<Reply> {
        let busy = self.watch.call_begins();
        // A primitive that watches its deadline names the cause; this is for those that do not.
        let deadline = sleep_until_ms(deadline_ms.map(|at| at.saturating_add(GRACE_MS)));
        let branch = request.branch.clone().unwrap_or_default();
        let outcome = tokio::select! {
            biased;
            () = self.stop.cancelled() => std::future::pending().await,
            outcome = work => outcome,
            () = self.cancel.cancelled(), if !request.shielded => Err(cancelled()),
            () = branch.cancelled(), if !request.shielded => Err(branch_cancelled()),
            () = deadline => Err(overdue(request)),
        };
        drop(busy);
        outcome
    }

    fn record(&self, entry: &mut Entry, outcome: &Result<Value>) {
        entry.t1_ms = Some(clock::unix_ms());
        match outcome {
            Ok(value) => {
                entry.state = EntryState::Ok;
                entry.result = Some(value.clone());
            }
            Err(error) => {
                entry.state = EntryState::Failed;
                entry.result = serde_json::to_value(error).ok();
            }
        }
        self.journal.finish(&self.id, self.fence, entry.clone());
    }

    fn told(&self, request: &CallRequest, started: Instant, outcome: &Result<Value>) {
        self.tell(What::CallFinished {
            key: request.key.clone(),
            name: request.name.clone(),
            site: request.site.clone(),
            ok: outcome.is_ok(),
            seconds: started.elapsed().as_secs_f64(),
        });
    }

    fn keep(&self, key: &str, mut reply: Reply) -> Value {
        live::bind(&mut reply.value, key);
        if !reply.live.is_empty() {
            self.live.put(key, reply.live);
        }
        reply.value
    }

    fn replayed(&self, key: &str) -> Option<Entry> {
        self.replay
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    /// A replayed call must be the one that was recorded under its key.
    fn same_path(&self, entry: &Entry, request: &CallRequest, args_hash: &str) -> Result<()> {
        if entry.name == request.name && entry.args_hash == args_hash {
            return Ok(());
        }
        let error = Error::new(
            Kind::Conflict,
            format!(
                "the flow does not repeat what its journal holds at {}",
                request.key
            ),
        )
        .op(request.name.clone())
        .detail("recorded", entry.args.clone())
        .detail("now", request.args.clone())
        .hint("nothing was done; look at the node, then `flowrun cancel` this run and start anew");
        // Sticky: a `pcall` must not carry a flow on that lost its way.
        Err(self.fatal.get_or_init(|| error).clone())
    }

    /// A recorded artifact or image may be gone from the disk; then the call brings it again,
    /// unless nothing may begin any more: who unwinds needs the path of the flow, not the file.
    async fn still_holds(
        self: &Arc<Self>,
        primitive: &Arc<dyn Primitive>,
        request: &CallRequest,
        entry: &Entry,
    ) -> bool {
        if self.may_begin(request).is_err() {
            return true;
        }
        let call = self.call_of(request, entry);
        let result = entry.result.clone().unwrap_or(Value::Null);
        primitive.still_holds(call, result).await
    }

    fn call_of(self: &Arc<Self>, request: &CallRequest, entry: &Entry) -> Call {
        Call {
            run: self.clone(),
            key: request.key.clone(),
            name: request.name.clone(),
            site: request.site.clone(),
            args: request.args.clone(),
            began_ms: entry.t0_ms,
            attempt: entry.attempt,
            deadline_ms: self.deadline_of(request, entry),
        }
    }

    /// What forbids a call that the journal does not answer.
    fn may_begin(&self, request: &CallRequest) -> Result<()> {
        if !request.shielded && self.cancel.is_cancelled() {
            return Err(cancelled());
        }
        if !request.shielded
            && request
                .branch
                .as_ref()
                .is_some_and(CancellationToken::is_cancelled)
        {
            return Err(branch_cancelled());
        }
        match &request.deadline {
            Some((at, _)) if *at <= clock::unix_ms() => Err(overdue(request)),
            _ => Ok(()),
        }
    }

    fn entry_for(
        &self,
        request: &CallRequest,
        earlier: Option<Entry>,
        class: Class,
        args: String,
        args_hash: String,
    ) -> Entry {
        if let Some(mut entry) = earlier {
            entry.attempt += 1;
            entry.state = EntryState::Started;
            return entry;
        }
        let now = clock::unix_ms();
        let timeout = request.args.get("timeout").and_then(Value::as_f64);
        let deadline_ms = timeout
            .filter(|_| class == Class::Wait)
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .map(|wait| now.saturating_add(millis(wait)));
        Entry {
            key: request.key.clone(),
            seq: self.next_seq(),
            name: request.name.clone(),
            class: class.as_str().to_owned(),
            site: request.site.clone(),
            args,
            args_hash,
            state: EntryState::Started,
            result: None,
            attempt: 1,
            t0_ms: now,
            t1_ms: None,
            deadline_ms,
            downtime_ms: self.downtime_ms,
        }
    }

    /// The earlier of the call's own deadline and the step's. The host's downtime is given back
    /// to a wait: nobody was listening.
    fn deadline_of(&self, request: &CallRequest, entry: &Entry) -> Option<u64> {
        let own = entry
            .deadline_ms
            .map(|at| at.saturating_add(self.downtime_ms.saturating_sub(entry.downtime_ms)));
        let step = request.deadline.as_ref().map(|(at, _)| *at);
        own.into_iter().chain(step).min()
    }

    pub(super) fn next_seq(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn owned<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.inspect_err(|error| {
            if error.kind() == Kind::Conflict {
                drop(self.fatal.set(error.clone()));
            }
        })
    }

    /// Begins a step: records it with its absolute deadline, which a crash does not move.
    /// Answers the deadline in milliseconds since 1970.
    pub fn step_begins(&self, path: &str, site: &str, timeout: Option<Duration>) -> Option<u64> {
        let credit = |entry: &Entry| self.downtime_ms.saturating_sub(entry.downtime_ms);
        if let Some(entry) = self.replayed(path) {
            if entry.state == EntryState::Started {
                self.tell(What::StepStarted {
                    step: path.to_owned(),
                });
            }
            return entry
                .deadline_ms
                .map(|at| at.saturating_add(credit(&entry)));
        }
        let now = clock::unix_ms();
        let entry = Entry {
            key: path.to_owned(),
            seq: self.next_seq(),
            name: "step".into(),
            class: "step".into(),
            site: site.to_owned(),
            args: String::new(),
            args_hash: String::new(),
            state: EntryState::Started,
            result: None,
            attempt: 1,
            t0_ms: now,
            t1_ms: None,
            deadline_ms: timeout.map(|limit| now.saturating_add(millis(limit))),
            downtime_ms: self.downtime_ms,
        };
        let deadline = entry.deadline_ms;
        self.remember(entry.clone());
        self.journal.finish(&self.id, self.fence, entry);
        self.tell(What::StepStarted {
            step: path.to_owned(),
        });
        deadline
    }

    /// Ends a step.
    pub fn step_ends(&self, path: &str, error: Option<Error>) {
        let Some(mut entry) = self.replayed(path) else {
            return;
        };
        if entry.state != EntryState::Started {
            return;
        }
        let now = clock::unix_ms();
        let seconds = Duration::from_millis(now.saturating_sub(entry.t0_ms)).as_secs_f64();
        self.record(&mut entry, &error.clone().map_or(Ok(Value::Null), Err));
        let step = path.to_owned();
        self.tell(What::StepFinished {
            step,
            ok: error.is_none(),
            seconds,
            error,
        });
    }

    fn remember(&self, entry: Entry) {
        let mut replay = self.replay.lock().unwrap_or_else(PoisonError::into_inner);
        replay.insert(entry.key.clone(), entry);
    }

    /// A decision that a replay must repeat: answers the one recorded under `key`, else records
    /// `decision` durably.
    ///
    /// # Errors
    /// `conflict` if the run has another owner now.
    pub async fn decide(&self, key: &str, decision: Value) -> Result<Value> {
        if let Some(entry) = self.replayed(key) {
            return Ok(entry.result.unwrap_or(Value::Null));
        }
        let now = clock::unix_ms();
        let entry = Entry {
            key: key.to_owned(),
            seq: self.next_seq(),
            name: "decision".into(),
            class: "decision".into(),
            site: String::new(),
            args: String::new(),
            args_hash: String::new(),
            state: EntryState::Ok,
            result: Some(decision.clone()),
            attempt: 1,
            t0_ms: now,
            t1_ms: Some(now),
            deadline_ms: None,
            downtime_ms: self.downtime_ms,
        };
        self.owned(self.journal.begin(&self.id, self.fence, entry).await)?;
        Ok(decision)
    }

    /// The decision recorded under `key` by an earlier owner.
    #[must_use]
    pub fn decided(&self, key: &str) -> Option<Value> {
        self.replayed(key).and_then(|entry| entry.result)
    }

    /// What a reference stands for; its call is executed again if this process does not hold it.
    pub(super) async fn live_value(self: &Arc<Self>, reference: &LiveRef) -> Result<LiveValue> {
        if let Some(value) = self.live.get(reference) {
            return Ok(value);
        }
        let (key, _) = &reference.origin;
        let lost = || Error::new(Kind::Internal, format!("nothing made the value of {key}"));
        let entry = self.replayed(key).ok_or_else(lost)?;
        let primitive = self.primitives.find(&entry.name).ok_or_else(lost)?;
        // Boxed: a reopened call may itself use live values.
        let reply = Box::pin(async {
            let args = serde_json::from_str(&entry.args).unwrap_or(Value::Null);
            let call = Call {
                run: self.clone(),
                key: key.clone(),
                name: entry.name.clone(),
                site: entry.site.clone(),
                args,
                began_ms: entry.t0_ms,
                attempt: entry.attempt,
                deadline_ms: None,
            };
            primitive.execute(call).await
        })
        .await
        .map_err(|e| e.op(entry.name.clone()))?;
        if self.live.get(reference).is_none() {
            self.keep(key, reply);
        }
        self.live.get(reference).ok_or_else(lost)
    }

    /// What several calls of the run share under `name`, made by the first of them; it is closed
    /// when the run ends.
    pub fn share(&self, name: &str, make: impl FnOnce() -> Arc<dyn Handle>) -> Arc<dyn Handle> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = shared.entry(name.to_owned()).or_insert_with(make);
        Arc::clone(handle)
    }

    /// Takes every open session out, for closing.
    pub(super) fn drain_handles(&self) -> Vec<Arc<dyn Handle>> {
        let mut handles = self.live.drain_handles();
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        handles.extend(shared.drain().map(|(_, handle)| handle));
        handles
    }

    /// A secret bound to this run, a call and a label; stored nowhere.
    #[must_use]
    pub fn derive(&self, key: &str, label: &str) -> Secret {
        derive::secret(&self.site_key, &[&self.id, key, label])
    }

    /// Whether this process may still write to the node's disk: its last sign of life, counted
    /// from before it was sent, is younger than four fifths of the lease.
    ///
    /// # Errors
    /// `conflict` if the lease may have passed to somebody else.
    pub fn guard(&self) -> Result<()> {
        let alive = *self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fatal) = self.fatal.get() {
            return Err(fatal.clone());
        }
        if alive.elapsed() < LEASE * 4 / 5 {
            return Ok(());
        }
        Err(Error::new(
            Kind::Conflict,
            "this process was silent for longer than its lease",
        )
        .target(self.id.clone())
        .hint("`flowrun resume` continues the run if nobody else did"))
    }

    /// Reports bytes of a long call.
    pub fn progress(&self, key: &str, what: &str, done_bytes: u64, total_bytes: u64) {
        let step = step_of(key).to_owned();
        self.tell(What::Progress {
            step,
            what: what.to_owned(),
            done_bytes,
            total_bytes,
        });
    }

    /// Adds a line to the run's log.
    pub fn log(&self, level: &str, step: &str, text: &str) {
        self.tell(What::Log {
            level: level.to_owned(),
            step: step.to_owned(),
            text: text.to_owned(),
        });
    }

    /// What earlier owners recorded, in the order it began.
    #[must_use]
    pub fn recorded(&self) -> Vec<Entry> {
        let replay = self.replay.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries: Vec<_> = replay.values().cloned().collect();
        drop(replay);
        entries.sort_by_key(|entry| entry.seq);
        entries
    }

    /// Tells that the node is not as the journal has it.
    pub fn drift(&self, what: &str, recorded: &str, found: &str) {
        tracing::warn!(
            run = self.id,
            node = self.node,
            what,
            recorded,
            found,
            "drift"
        );
        self.tell(What::Drift {
            what: what.to_owned(),
            recorded: recorded.to_owned(),
            found: found.to_owned(),
        });
    }

    /// Tells listeners, and the journal what a late one must not miss.
    pub(super) fn tell(&self, what: What) {
        let event = self.event(what);
        if !matches!(event.what, What::Progress { .. }) {
            let name = event.what.name();
            self.journal.tell(&self.id, self.fence, name, event.text());
        }
        self.events.send(event);
    }

    pub(super) fn event(&self, what: What) -> Event {
        Event {
            t_ms: clock::unix_ms(),
            run: self.id.clone(),
            node: self.node.clone(),
            what,
        }
    }

    /// The journal, for primitives that wait for messages.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Gives the run up where it is: its calls fail from now on, and nothing is unwound.
    pub fn abandon(&self, error: Error) {
        drop(self.fatal.set(error));
    }

    /// What stopped the run for good, if something did.
    #[must_use]
    pub fn fatal(&self) -> Option<&Error> {
        self.fatal.get()
    }
}

/// The step path of a call's key.
#[must_use]
pub fn step_of(key: &str) -> &str {
    key.rsplit_once('/').map_or("", |(step, _)| step)
}

fn recorded_error(entry: &Entry) -> Error {
    entry
        .result
        .clone()
        .and_then(|value| serde_json::from_value(value).ok())
        .unwrap_or_else(|| Error::new(Kind::Internal, "the journal's error is unreadable"))
        .op(entry.name.clone())
}

/// The error that unwinds a cancelled run.
#[must_use]
pub fn cancelled() -> Error {
    Error::new(Kind::Cancelled, "the run was cancelled")
}

fn branch_cancelled() -> Error {
    Error::new(Kind::Cancelled, "another branch failed first")
}

/// How long a call may take to say what it waited for in vain.
const GRACE_MS: u64 = 1000;

fn overdue(request: &CallRequest) -> Error {
    let what = match &request.deadline {
        Some((at, step)) if *at <= clock::unix_ms() => format!("step '{step}' ran out of time"),
        _ => "no end before the deadline".to_owned(),
    };
    Error::new(Kind::Timeout, what).op(request.name.clone())
}

async fn sleep_until_ms(deadline_ms: Option<u64>) {
    match deadline_ms {
        Some(at) => {
            let left = Duration::from_millis(at.saturating_sub(clock::unix_ms()));
            tokio::time::sleep(left).await;
        }
        None => std::future::pending().await,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
