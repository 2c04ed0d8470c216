//! Follows the flow folders: a thread that waits for changes, lets them settle, checks, and flips.

use super::check;
use super::places::{Places, is_remote};
use super::{BrokenEdit, Noticed, Snapshot, State, Times, edit_of};
use crate::clock;
use crate::config::{FlowWatch, SiteSection};
use crate::error::{Error, Kind, Result};
use crate::journal::Journal;
use crate::lua::LuaRuntime;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher, event};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A folder in which something is always being written is taken after so many readings anyway, if
/// the last two agree: what counts has settled.
const PATIENCE: u32 = 10;

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Follower(#[expect(dead_code, reason = "dropped with it")] DropGuard);

/// Starts the thread and waits for its first state.
pub(super) async fn begin(
    site: &SiteSection,
    times: Times,
    runtime: LuaRuntime,
    journal: Journal,
) -> Result<(watch::Receiver<Arc<State>>, Follower)> {
    let stop = CancellationToken::new();
    let (ready, begun) = oneshot::channel();
    let eyes = Eyes::new(site, times);
    let until = stop.clone();
    std::thread::Builder::new()
        .name("flows".into())
        .spawn(move || {
            let local = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build();
            let Ok(local) = local else { return };
            local.block_on(until.run_until_cancelled_owned(async move {
                match Thread::begin(eyes, runtime, journal).await {
                    Ok((mut thread, state)) => {
                        drop(ready.send(Ok(state)));
                        thread.follow().await;
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            }));
        })
        .map_err(|e| Error::new(Kind::Limit, "no thread for the flow folders").caused_by(&e))?;
    let lost = |_| Error::new(Kind::Internal, "the flow folders' thread died");
    let state = begun.await.map_err(lost)??;
    Ok((state, Follower(stop.drop_guard())))
}

struct Thread {
    eyes: Eyes,
    runtime: LuaRuntime,
    journal: Journal,
    /// What was checked last, good or broken.
    seen: Snapshot,
    state: watch::Sender<Arc<State>>,
}

impl Thread {
    async fn begin(
        mut eyes: Eyes,
        runtime: LuaRuntime,
        journal: Journal,
    ) -> Result<(Self, watch::Receiver<Arc<State>>)> {
        let before = check::last_good(&runtime, &journal).await?;
        let seen = eyes.settled().await;
        let first = State {
            edition: Arc::new(before),
            since_ms: clock::unix_ms(),
            broken: None,
            noticed: eyes.noticed,
        };
        let (state, told) = watch::channel(Arc::new(first));
        let mut this = Self {
            eyes,
            runtime,
            journal,
            seen,
            state,
        };
        this.judge().await;
        Ok((this, told))
    }

    async fn follow(&mut self) {
        loop {
            self.eyes.change().await;
            let now = self.eyes.settled().await;
            if now != self.seen {
                self.seen = now;
                self.judge().await;
            }
        }
    }

    /// Checks what was seen: flips, or tells what is wrong with it.
    async fn judge(&mut self) {
        let before = self.state.borrow().clone();
        let checked = check::check_folders(&self.runtime, &self.seen, &before.edition).await;
        let noticed = self.eyes.noticed;
        let next = match checked {
            Ok(edition) => State {
                since_ms: match edition.version == before.edition.version {
                    true => before.since_ms,
                    false => clock::unix_ms(),
                },
                edition: Arc::new(edition),
                broken: None,
                noticed,
            },
            Err(broken) => State {
                broken: Some(broken),
                noticed,
                ..(*before).clone()
            },
        };
        tell(&next);
        if next.edition.version != before.edition.version || next.broken != before.broken {
            self.record(&next).await;
        }
        self.state.send_replace(Arc::new(next));
    }

    async fn record(&self, next: &State) {
        let mut bundles: Vec<_> = next.edition.flows.values().map(|f| &*f.version).collect();
        bundles.dedup_by_key(|bundle| &bundle.hash);
        let bundles = bundles.into_iter().cloned().collect();
        let written = self.journal.record_edit(edit_of(next), bundles).await;
        if let Err(error) = written {
            tracing::error!(%error, "an edit of the flows is not recorded");
        }
    }
}

fn tell(state: &State) {
    let version = state.edition.version.get(..12).unwrap_or_default();
    match &state.broken {
        None => tracing::info!(version, flows = state.edition.flows.len(), "flows are good"),
        Some(BrokenEdit { faults, .. }) => {
            for fault in faults {
                tracing::error!("broken edit of a flow; new runs keep {version}: {fault}");
            }
        }
    }
}

/// Notices changes, and tells when they have settled.
struct Eyes {
    folders: Vec<PathBuf>,
    wanted: FlowWatch,
    times: Times,
    noticed: Noticed,
    kernel: Option<RecommendedWatcher>,
    sender: mpsc::UnboundedSender<()>,
    events: mpsc::UnboundedReceiver<()>,
}

impl Eyes {
    fn new(site: &SiteSection, times: Times) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        Self {
            folders: site.flows.clone(),
            wanted: site.flow_watch,
            times,
            noticed: Noticed::Polled,
            kernel: None,
            sender,
            events,
        }
    }

    /// Waits until something changed, or it is time to look anyway.
    async fn change(&mut self) {
        let patience = match self.noticed {
            Noticed::Told => self.times.patrol,
            Noticed::Polled => self.times.poll,
        };
        drop(tokio::time::timeout(patience, self.events.recv()).await);
    }

    /// What the folders hold once nothing changes any more and two readings agree.
    async fn settled(&mut self) -> Snapshot {
        let mut patience = PATIENCE;
        loop {
            // Anew each time, since a folder that was swapped is another one; before reading, so
            // that nothing between the two is missed.
            self.watch();
            while self.events.try_recv().is_ok() {}
            tokio::time::sleep(self.times.quiet).await;
            let first = Snapshot::read(&self.folders);
            tokio::time::sleep(self.times.quiet).await;
            let agree = first == Snapshot::read(&self.folders);
            patience = patience.saturating_sub(1);
            if agree && (self.events.is_empty() || patience == 0) {
                return first;
            }
        }
    }

    fn watch(&mut self) {
        self.noticed = Noticed::Polled;
        if self.wanted == FlowWatch::Poll {
            return;
        }
        match self.kernel_watch() {
            Ok(watcher) => {
                self.kernel = Some(watcher);
                if !self.folders.iter().any(|folder| is_remote(folder)) {
                    self.noticed = Noticed::Told;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "flow folders are polled: the kernel does not watch them");
            }
        }
    }

    /// Watches every place. A link that was swapped after its target was looked up and before the
    /// link was watched is told by nobody: the places are looked up again until they agree.
    fn kernel_watch(&self) -> notify::Result<RecommendedWatcher> {
        let mut places = Places::of(&self.folders);
        for _ in 0..PATIENCE {
            let watcher = self.watch_places(places.clone())?;
            let now = Places::of(&self.folders);
            if now == places {
                return Ok(watcher);
            }
            places = now;
        }
        // Swapped without end: what comes next is told, or found by the patrol.
        self.watch_places(places)
    }

    fn watch_places(&self, places: Places) -> notify::Result<RecommendedWatcher> {
        let places = Arc::new(places);
        let (sender, concerned) = (self.sender.clone(), places.clone());
        let mut watcher =
            notify::recommended_watcher(move |told: notify::Result<notify::Event>| {
                let matters = match &told {
                    Ok(event) if is_reading(event.kind) => false,
                    Ok(event) if event.need_rescan() || event.paths.is_empty() => true,
                    Ok(event) => event.paths.iter().any(|path| concerned.concern(path)),
                    Err(_) => true,
                };
                if matters {
                    // Nobody listens any more when the catalogue is dropped.
                    sender.send(()).ok();
                }
            })?;
        for (folder, names) in &places.0 {
            let watched = watcher.watch(folder, RecursiveMode::NonRecursive);
            // A folder on the way may be closed to us; what is in the flow folder must be seen.
            if names.is_none() {
                watched?;
            }
        }
        Ok(watcher)
    }
}

/// Looking at a file changes nothing.
fn is_reading(kind: EventKind) -> bool {
    use event::{AccessKind, AccessMode};
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    }
}
