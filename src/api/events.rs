//! `/v1/runs/{id}/events`: what a run tells, as Server-Sent Events.
//!
//! Events come from the journal, numbered, so that a follower that says which was its last one
//! (`Last-Event-ID`) misses none, whatever died meanwhile. Progress is not kept: it is told to who
//! listens, without a number. The stream ends with the run; a stopped run goes on with its next
//! owner, and so does the stream.

use super::Api;
use super::failure::Answer;
use super::runs::{find, invalid};
use crate::clock;
use crate::engine::{Event, What};
use crate::error::Result;
use crate::journal::RunRecord;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// How often a comment shows that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often the journal is asked about runs that another process owns.
const GLANCE: Duration = Duration::from_secs(1);
/// Events read at once.
const PAGE: u32 = 500;

pub(super) async fn follow(
    State(api): State<Api>,
    id: std::result::Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Answer<Sse<impl Stream<Item = std::result::Result<sse::Event, Infallible>>>> {
    let after = match headers.get("last-event-id") {
        None => 0,
        Some(value) => {
            let number = value
                .to_str()
                .ok()
                .and_then(|text| text.trim().parse().ok());
            number.ok_or_else(|| invalid("Last-Event-ID is not the number of an event"))?
        }
    };
    let run = find(&api, id).await?;
    let follower = Follower {
        live: api.engine.events().subscribe(),
        run: run.id,
        after,
        ready: VecDeque::new(),
        ended: false,
        api,
    };
    let events = stream::unfold(follower, |mut follower| async {
        let event = follower.next().await?;
        Some((Ok(event), follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT).text("heartbeat")))
}

struct Follower {
    api: Api,
    run: String,
    live: Receiver<Event>,
    /// The newest event that was read from the journal.
    after: u64,
    ready: VecDeque<sse::Event>,
    ended: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ended || self.api.stopping.is_cancelled() {
                return None;
            }
            if let Err(error) = self.read().await {
                tracing::warn!(run = self.run, %error, "no events");
                return None;
            }
            if self.ready.is_empty() && !self.ended {
                self.wait().await;
            }
        }
    }

    /// What the journal has beyond the last one. A run that ended before there were events is
    /// given its last one.
    async fn read(&mut self) -> Result<()> {
        self.read_told().await?;
        if !self.ready.is_empty() {
            return Ok(());
        }
        let run = self.api.engine.journal().run(&self.run).await?;
        let Some(run) = run.filter(|run| run.status.is_final()) else {
            return Ok(());
        };
        // It may have ended, with its word, after what was told was read.
        self.read_told().await?;
        if self.ready.is_empty() {
            self.ended = true;
            self.ready.push_back(last_event(&run));
        }
        Ok(())
    }

    async fn read_told(&mut self) -> Result<()> {
        let journal = self.api.engine.journal();
        for (number, body) in journal.told(&self.run, self.after, PAGE).await? {
            self.after = number;
            let Ok(event) = serde_json::from_str::<Event>(&body) else {
                continue;
            };
            self.ended = matches!(&event.what,
                What::RunFinished { status, .. } if status.is_final());
            let named = sse::Event::default().event(event.what.name());
            self.ready
                .push_back(named.id(number.to_string()).data(body));
        }
        Ok(())
    }

    /// Until there may be more.
    async fn wait(&mut self) {
        let glance = tokio::time::sleep(GLANCE);
        tokio::pin!(glance);
        loop {
            tokio::select! {
                event = self.live.recv() => match event {
                    Ok(event) if event.run != self.run => {}
                    Ok(event) => {
                        if !matches!(event.what, What::Progress { .. }) {
                            return;
                        }
                        let named = sse::Event::default().event(event.what.name());
                        return self.ready.push_back(named.data(event.text()));
                    }
                    Err(RecvError::Lagged(_)) => return,
                    Err(RecvError::Closed) => return self.ended = true,
                },
                () = &mut glance => return,
                () = self.api.stopping.cancelled() => return,
            }
        }
    }
}

fn last_event(run: &RunRecord) -> sse::Event {
    let ended_ms = run.ended_ms.unwrap_or_else(clock::unix_ms);
    let took = Duration::from_millis(ended_ms.saturating_sub(run.created_ms));
    let what = What::RunFinished {
        status: run.status,
        seconds: took.as_secs_f64(),
        error: run.error.clone(),
        result: run.result.clone().unwrap_or_default(),
    };
    let named = sse::Event::default().event(what.name());
    let event = Event {
        t_ms: ended_ms,
        run: run.id.clone(),
        node: run.node.clone(),
        what,
    };
    named.data(event.text())
}
