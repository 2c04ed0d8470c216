//! Power of the server.

use super::client::Client;
use super::deadline::{Deadline, POLL};
use super::failure::{Class, Failure};
use super::model::{PostState, PowerState, PowerTarget};
use crate::error::{Error, Kind, Result};

/// How often the state is read anew after the iLO said that it does not fit.
const WRONG_STATE_RETRIES: u32 = 3;

/// The server at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) power: PowerState,
    pub(super) post: PostState,
}

/// Looks for the proof that a server which was on, and is on, was reset in between: power that was
/// not on, or a self test that went back.
#[derive(Debug)]
struct Restart {
    /// How far the self test was at the last look.
    step: Option<u8>,
    is_seen: bool,
}

impl Restart {
    /// An iLO that does not tell the self test cannot show it, nor a test that had only begun: its
    /// first step may be over before the next look.
    fn after(before: Sample) -> Self {
        let step = before.post.step();
        let begun = PostState::InPost.step();
        Self {
            step,
            is_seen: step <= begun,
        }
    }

    fn look(&mut self, now: Sample) {
        let step = now.post.step();
        self.is_seen |= now.power != PowerState::On || (step.is_some() && step < self.step);
        self.step = step.or(self.step);
    }
}

impl PowerTarget {
    /// The state that the server shall end in.
    fn state(self) -> PowerState {
        match self {
            Self::On | Self::Reset | Self::Restart | Self::ColdBoot => PowerState::On,
            Self::Off | Self::ForceOff => PowerState::Off,
        }
    }

    /// Whether it acts although the server is on.
    fn restarts(self) -> bool {
        matches!(self, Self::Reset | Self::Restart | Self::ColdBoot)
    }
}

impl Client {
    pub(super) async fn set_power(
        &self,
        target: PowerTarget,
        deadline: Deadline,
    ) -> Result<PowerState> {
        let off = match target {
            PowerTarget::Restart => PowerTarget::Off,
            PowerTarget::ColdBoot => PowerTarget::ForceOff,
            _ => return self.switch(target, deadline).await,
        };
        // A server that is off is where the first of the two steps leads: a call that died
        // between them can be made again.
        if self.settled(deadline).await?.power != PowerState::Off {
            if self.offers(target, deadline).await? {
                return self.switch(target, deadline).await;
            }
            self.switch(off, deadline).await?;
        }
        self.switch(PowerTarget::On, deadline).await
    }

    /// One action, and its effect.
    async fn switch(&self, target: PowerTarget, deadline: Deadline) -> Result<PowerState> {
        let mut wrong_states = 0;
        loop {
            let before = self.settled(deadline).await?;
            check_on(target, before)?;
            if before.power == target.state() && !target.restarts() {
                return Ok(before.power);
            }
            let failure = match self.press(target, deadline).await {
                Ok(()) => return self.reached(target, before, deadline).await,
                Err(failure) => failure,
            };
            // A look decides whether it had an effect.
            if failure.is_in_doubt() {
                tracing::warn!(%failure, "the answer to a power action is lost");
                if !target.restarts() {
                    return self.reached(target, before, deadline).await;
                }
                return match Restart::after(before).is_seen {
                    true => Err(in_doubt(failure)),
                    false => self
                        .reached(target, before, deadline)
                        .await
                        .map_err(|_| in_doubt(failure)),
                };
            }
            // What was read before it was out of date.
            let again = failure.class() == Some(Class::WrongState);
            wrong_states += 1;
            if !again || wrong_states > WRONG_STATE_RETRIES || !deadline.pause(POLL.max).await {
                return Err(failure.into());
            }
        }
    }

    /// Waits until power is not in transition.
    async fn settled(&self, deadline: Deadline) -> Result<Sample> {
        let mut looks = 0;
        loop {
            let now = self.sample(Some(deadline)).await?;
            if now.power.is_settled() {
                return Ok(now);
            }
            looks += 1;
            if !deadline
                .pause(POLL.pause_after(looks).unwrap_or(POLL.max))
                .await
            {
                let message = format!(
                    "power is still {:?} after {:?}",
                    now.power,
                    deadline.timeout()
                );
                return Err(Error::new(Kind::Timeout, message).retryable(true));
            }
        }
    }

    /// Waits until the iLO shows the state. Right after an action it may still show the old one:
    /// of a restart it must have shown that it happened, where it can.
    async fn reached(
        &self,
        target: PowerTarget,
        before: Sample,
        deadline: Deadline,
    ) -> Result<PowerState> {
        let mut restart = Restart::after(before);
        let mut looks = 0;
        loop {
            let now = self.sample(Some(deadline)).await?;
            restart.look(now);
            looks += 1;
            // Where nothing else shows it, the first look is of before.
            let happened = !target.restarts() || (restart.is_seen && looks > 1);
            if happened && now.power == target.state() {
                return Ok(now.power);
            }
            let pause = POLL.pause_after(looks).unwrap_or(POLL.max);
            if !deadline.pause(pause).await {
                return Err(not_reached(target, restart.is_seen, deadline));
            }
        }
    }
}

fn check_on(target: PowerTarget, now: Sample) -> Result<()> {
    if now.power != PowerState::Off || !target.restarts() {
        return Ok(());
    }
    let message = "the server is off and cannot be restarted";
    Err(Error::new(Kind::Conflict, message).hint("power it on instead"))
}

fn in_doubt(failure: Failure) -> Error {
    let lost = Error::from(failure);
    Error::new(Kind::InDoubt, "the answer to a restart is lost")
        .hint("look whether the server is in POST")
        .caused_by(&lost)
}

fn not_reached(target: PowerTarget, happened: bool, deadline: Deadline) -> Error {
    let timeout = deadline.timeout();
    let message = match target.restarts() && !happened {
        true => format!("the iLO took the restart, and the server did not within {timeout:?}"),
        false => format!(
            "power did not become {:?} within {timeout:?}",
            target.state()
        ),
    };
    let hint = match target {
        PowerTarget::Off => "the operating system did not shut down: force it off",
        PowerTarget::Restart => "the operating system did not restart: reset the server",
        _ => "look at the server's event log in the iLO",
    };
    Error::new(Kind::Timeout, message)
        .retryable(true)
        .hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_proven_by_what_only_a_restart_shows() {
        use PostState as P;
        let sample = |power, post| Sample { power, post };
        let on = |post| sample(PowerState::On, post);
        let cases: [(&[Sample], bool); 9] = [
            (&[on(P::FinishedPost), on(P::FinishedPost)], false),
            (&[on(P::FinishedPost), on(P::InPost)], true),
            (&[on(P::FinishedPost), on(P::Reset)], true),
            (
                &[
                    on(P::InPostDiscoveryComplete),
                    on(P::InPostDiscoveryComplete),
                    on(P::FinishedPost),
                ],
                false,
            ),
            (&[on(P::InPostDiscoveryComplete), on(P::InPost)], true),
            // What is not told in between proves nothing.
            (&[on(P::FinishedPost), on(P::Unknown)], false),
            (
                &[on(P::FinishedPost), sample(PowerState::Off, P::PowerOff)],
                true,
            ),
            // Nothing more can come than the iLO's yes.
            (&[on(P::Unknown)], true),
            (&[on(P::InPost)], true),
        ];
        for (samples, expected) in cases {
            let mut restart = Restart::after(samples[0]);
            samples[1..].iter().for_each(|now| restart.look(*now));
            assert_eq!(restart.is_seen, expected, "{samples:?}");
        }
    }
}
