//! Following runs: events to the screen, signals to the runs.

use super::args::Cli;
use super::format;
use super::render::{Json, Lines, Renderer, Terminal};
use super::site::Ground;
use crate::engine::{Event, RunEnd, Started};
use crate::error::{Error, Kind, Result};
use std::io::IsTerminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// More nodes than this are shown as lines: bars beyond the terminal's height fall apart.
const MAX_BARS: usize = 12;

/// What is shown while runs go on.
pub(super) struct Story {
    task: JoinHandle<()>,
    over: CancellationToken,
}

impl Story {
    /// Begins to show the runs that these events are of.
    pub(super) fn begin(cli: &Cli, events: Receiver<Event>, nodes: usize) -> Self {
        let renderer: Box<dyn Renderer> = if cli.json {
            Box::new(Json)
        } else if std::io::stderr().is_terminal() && nodes <= MAX_BARS {
            Box::new(Terminal::new())
        } else {
            Box::new(Lines)
        };
        let over = CancellationToken::new();
        let task = tokio::runtime::Handle::current().spawn(tell(renderer, events, over.clone()));
        Self { task, over }
    }

    /// Shows what is left and ends.
    pub(super) async fn end(self) {
        self.over.cancel();
        drop(self.task.await);
    }
}

async fn tell(
    mut renderer: Box<dyn Renderer>,
    mut events: Receiver<Event>,
    over: CancellationToken,
) {
    loop {
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Ok(event) => renderer.event(&event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break,
            },
            () = over.cancelled() => break,
        }
    }
    renderer.end();
}

/// Waits for all runs. Ctrl-C once cancels and unwinds them, twice stops them resumable; SIGTERM
/// stops them.
pub(super) async fn to_the_end(ground: &Ground, started: Vec<Started>) -> Result<Vec<RunEnd>> {
    let no_signals = |e| Error::new(Kind::Io, "no signals").caused_by(&e);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let ids: Vec<String> = started.iter().map(|run| run.id.clone()).collect();
    let all = futures_util::future::join_all(started.into_iter().map(Started::end));
    tokio::pin!(all);
    let mut cancelled = false;
    loop {
        tokio::select! {
            ends = &mut all => return ends.into_iter().collect(),
            _ = interrupt.recv() => {
                if cancelled {
                    eprintln!("stopping; nothing is unwound");
                    ground.engine.stop();
                    continue;
                }
                cancelled = true;
                eprintln!("cancelling; Ctrl-C again stops without clean-up, resumable");
                for id in &ids {
                    ground.engine.cancel(id).await?;
                }
            }
            _ = terminate.recv() => {
                let first = ids.first().map(|id| format::short(id)).unwrap_or_default();
                eprintln!("stopping; `flowrun resume {first}` continues");
                ground.engine.stop();
            }
        }
    }
}
