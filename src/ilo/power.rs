//! Power of the server.

use super::client::Client;
use super::deadline::{Deadline, POLL};
use super::failure::Class;
use super::model::{PowerState, PowerTarget};
use crate::error::{Error, Kind, Result};

/// How often the state is read anew after the iLO said that it does not fit.
const WRONG_STATE_RETRIES: u32 = 3;

impl PowerTarget {
    /// The state that the server shall end in.
    fn state(self) -> PowerState {
        match self {
            Self::On | Self::Reset => PowerState::On,
            Self::Off | Self::ForceOff => PowerState::Off,
        }
    }
}

impl Client {
    pub(super) async fn set_power(
        &self,
        target: PowerTarget,
        deadline: Deadline,
    ) -> Result<PowerState> {
        let mut wrong_states = 0;
        loop {
            let state = self.settled(deadline).await?;
            if state == target.state() && target != PowerTarget::Reset {
                return Ok(state);
            }
            if target == PowerTarget::Reset && state == PowerState::Off {
                return Err(
                    Error::new(Kind::Conflict, "the server is off and cannot be reset")
                        .hint("power it on instead"),
                );
            }
            match self.press(target, deadline).await {
                Ok(()) => return self.reached(target, deadline).await,
                // A read decides whether it had an effect.
                Err(failure) if failure.is_in_doubt() && target != PowerTarget::Reset => {
                    tracing::warn!(%failure, "the answer to a power action is lost");
                    return self.reached(target, deadline).await;
                }
                Err(failure) if failure.is_in_doubt() => {
                    let lost = Error::from(failure);
                    return Err(Error::new(Kind::InDoubt, "the answer to a reset is lost")
                        .hint("look whether the server is in POST")
                        .caused_by(&lost));
                }
                // What was read before it was out of date.
                Err(failure)
                    if failure.class() == Some(Class::WrongState)
                        && wrong_states < WRONG_STATE_RETRIES =>
                {
                    wrong_states += 1;
                    if !deadline.pause(POLL.max).await {
                        return Err(failure.into());
                    }
                }
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    /// Waits until power is not in transition.
    async fn settled(&self, deadline: Deadline) -> Result<PowerState> {
        let mut looks = 0;
        loop {
            let state = self.power(Some(deadline)).await?;
            if state.is_settled() {
                return Ok(state);
            }
            looks += 1;
            if !deadline
                .pause(POLL.pause_after(looks).unwrap_or(POLL.max))
                .await
            {
                let message = format!("power is still {state:?} after {:?}", deadline.timeout());
                return Err(Error::new(Kind::Timeout, message).retryable(true));
            }
        }
    }

    /// Waits until the iLO shows the state. Right after an action it may still show the old one,
    /// which for a reset is the wanted one: the first look does not count.
    async fn reached(&self, target: PowerTarget, deadline: Deadline) -> Result<PowerState> {
        let mut looks = 0;
        loop {
            looks += 1;
            let in_time = deadline
                .pause(POLL.pause_after(looks).unwrap_or(POLL.max))
                .await;
            let state = match in_time {
                true => self.power(Some(deadline)).await?,
                false => return Err(not_reached(target, deadline)),
            };
            if looks > 1 && state == target.state() {
                return Ok(target.state());
            }
        }
    }
}

fn not_reached(target: PowerTarget, deadline: Deadline) -> Error {
    let state = target.state();
    let message = format!(
        "power did not become {state:?} within {:?}",
        deadline.timeout()
    );
    let hint = match target {
        PowerTarget::Off => "the operating system did not shut down: force it off",
        _ => "look at the server's event log in the iLO",
    };
    Error::new(Kind::Timeout, message)
        .retryable(true)
        .hint(hint)
}
