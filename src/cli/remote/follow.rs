//! Following runs of a server: a stream of events each, opened again where it broke.

use super::client::{self, Client};
use crate::api::wire::RunView;
use crate::backoff::Backoff;
use crate::clock;
use crate::engine::{Event, RunEnd, What};
use crate::error::{Error, Kind, Result};
use reqwest::Response;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::Sender;

/// A stream that is silent for longer is dead: the server sends a heartbeat every 15 seconds.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a server may be away; its runs go on when it is back.
const AWAY: Duration = Duration::from_secs(600);
const PAUSES: Backoff = Backoff {
    times: u32::MAX,
    delay: Duration::from_millis(250),
    factor: 1.5,
    max: Duration::from_secs(10),
};
/// Longest event: what a flow returns, or its error.
const MAX_EVENT_BYTES: usize = 16 << 20;

/// What the operator says to the client. Listened to before a run is asked for: the run begins at
/// the server before the client hears of it.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(super) fn listen() -> Result<Self> {
        let no_signals = |e| Error::new(Kind::Io, "no signals").caused_by(&e);
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(no_signals)?,
            terminate: signal(SignalKind::terminate()).map_err(no_signals)?,
        })
    }
}

/// Waits for all runs. Ctrl-C once cancels them; twice, or SIGTERM, ends the following alone: then
/// there are no ends.
pub(super) async fn to_the_end(
    client: &Client,
    signals: &mut Signals,
    events: &Sender<Event>,
    runs: &[(String, String)],
) -> Result<Option<Vec<RunEnd>>> {
    let all = runs
        .iter()
        .map(|(id, node)| follow(client, events, id, node));
    let all = futures_util::future::try_join_all(all);
    tokio::pin!(all);
    let mut cancelled = false;
    loop {
        tokio::select! {
            ends = &mut all => return ends.map(Some),
            _ = signals.interrupt.recv() => {
                if cancelled {
                    break;
                }
                cancelled = true;
                eprintln!("cancelling; Ctrl-C again ends the following, not the runs");
                for (id, _) in runs {
                    let path = client::path(&["runs", id, "cancel"]);
                    match client.post::<RunView>(&path).await {
                        // It has ended meanwhile.
                        Err(error) if error.kind() == Kind::Conflict => {}
                        answer => drop(answer?),
                    }
                }
            }
            _ = signals.terminate.recv() => break,
        }
    }
    eprintln!("the runs go on at the server; `flowrun runs --server …` tells how far they are");
    Ok(None)
}

async fn follow(client: &Client, events: &Sender<Event>, id: &str, node: &str) -> Result<RunEnd> {
    let mut follower = Follower {
        events,
        last: None,
        end: None,
    };
    let (mut attempt, mut heard) = (0, clock::instant());
    loop {
        let before = follower.last.clone();
        let broken = match client.events(id, before.as_deref()).await {
            Ok(stream) => follower.read(stream).await,
            Err(error) => Err(error),
        };
        if let Some((status, error, result)) = follower.end.take() {
            return Ok(RunEnd {
                id: id.to_owned(),
                node: node.to_owned(),
                status,
                error,
                result,
            });
        }
        if follower.last != before {
            (attempt, heard) = (0, clock::instant());
        }
        if let Err(error) = broken
            && (!error.is_retryable() || heard.elapsed() > AWAY)
        {
            return Err(error.hint(format!("the run may go on: `flowrun show {id} --server …`")));
        }
        attempt += 1;
        let pause = PAUSES.pause_after(attempt).unwrap_or(PAUSES.max);
        tokio::time::sleep(pause).await;
    }
}

type End = (crate::journal::RunStatus, Option<Error>, serde_json::Value);

struct Follower<'a> {
    events: &'a Sender<Event>,
    /// Number of the last event.
    last: Option<String>,
    end: Option<End>,
}

impl Follower<'_> {
    /// Until the stream ends.
    async fn read(&mut self, mut stream: Response) -> Result<()> {
        let mut lines = Lines::default();
        loop {
            let chunk = tokio::time::timeout(SILENCE, stream.chunk()).await;
            let silent = |_| Error::new(Kind::Timeout, "the server is silent").retryable(true);
            let chunk = chunk.map_err(silent)?.map_err(crate::http::no_answer)?;
            let Some(chunk) = chunk else { return Ok(()) };
            for message in lines.add(&chunk)? {
                self.take(message)?;
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<()> {
        let event: Event = serde_json::from_str(&message.data)
            .map_err(|e| Error::new(Kind::Protocol, "an event is not flowrun's").caused_by(&e))?;
        if message.id.is_some() {
            self.last = message.id;
        }
        // A run that stopped with its server goes on with it.
        if let What::RunFinished {
            status,
            error,
            result,
            ..
        } = &event.what
            && status.is_final()
        {
            self.end = Some((*status, error.clone(), result.clone()));
        }
        drop(self.events.send(event));
        Ok(())
    }
}

/// One event of a stream.
#[derive(Debug, Default, PartialEq)]
struct Message {
    id: Option<String>,
    data: String,
}

/// Splits a stream of Server-Sent Events (WHATWG HTML §9.2) as this server sends them: lines end
/// with a line feed.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    message: Message,
}

impl Lines {
    fn add(&mut self, chunk: &[u8]) -> Result<Vec<Message>> {
        self.rest.extend_from_slice(chunk);
        let mut messages = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            match line.split_once(':') {
                None if line.is_empty() && !self.message.data.is_empty() => {
                    messages.push(std::mem::take(&mut self.message));
                }
                None if line.is_empty() => self.message = Message::default(),
                Some(("id", value)) => self.message.id = Some(value.trim_start().to_owned()),
                Some(("data", value)) => {
                    if !self.message.data.is_empty() {
                        self.message.data.push('\n');
                    }
                    self.message
                        .data
                        .push_str(value.strip_prefix(' ').unwrap_or(value));
                }
                _ => {}
            }
        }
        if self.rest.len() + self.message.data.len() > MAX_EVENT_BYTES {
            return Err(Error::new(Kind::Protocol, "an event without end"));
        }
        Ok(messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: &str = ": heartbeat\n\nevent: log\nid: 7\ndata: {\"a\":1}\n\n\
        event: progress\ndata: {}\n\nid: 8\ndata: un";

    #[test]
    fn a_stream_is_split_into_messages() {
        let mut lines = Lines::default();
        let message = |id: Option<&str>, data: &str| Message {
            id: id.map(str::to_owned),
            data: data.to_owned(),
        };
        let wanted = [message(Some("7"), "{\"a\":1}"), message(None, "{}")];
        assert_eq!(lines.add(STREAM.as_bytes()).unwrap(), wanted);
        let rest = lines.add(b"finished\n\n").unwrap();
        assert_eq!(rest, [message(Some("8"), "unfinished")]);
    }

    proptest! {
        #[test]
        fn a_stream_may_be_cut_anywhere(cuts in prop::collection::vec(0..STREAM.len(), 0..6)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let mut lines = Lines::default();
            let pieces = cuts.windows(2).map(|cut| &STREAM.as_bytes()[cut[0]..cut[1]]);
            let count: usize = pieces.map(|piece| lines.add(piece).unwrap().len()).sum();
            prop_assert_eq!(count, 2);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _messages = Lines::default().add(&bytes);
        }
    }
}
