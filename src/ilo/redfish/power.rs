//! Power of the server.

use super::failure::Failure;
use super::message::Class;
use super::{POLL, Redfish, documents};
use crate::error::{Error, Kind, Result};
use crate::ilo::deadline::Deadline;
use crate::ilo::model::{PowerState, PowerTarget};
use reqwest::Method;
use serde_json::{Value, json};

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

    /// Redfish's name of the action, of those that this firmware has.
    fn reset_type(self, system: &Value) -> &'static str {
        let place = "/Actions/#ComputerSystem.Reset/ResetType@Redfish.AllowableValues";
        let has = |name: &str| documents::texts(system, place).any(|value| value == name);
        match self {
            Self::On => "On",
            Self::ForceOff => "ForceOff",
            Self::Reset => "ForceRestart",
            Self::Off if has("GracefulShutdown") => "GracefulShutdown",
            // iLO 5 before 2.10. The button toggles: only ever pressed while the server is on.
            Self::Off => "PushPowerButton",
        }
    }
}

impl Redfish {
    pub(in crate::ilo) async fn set_power(
        &self,
        target: PowerTarget,
        deadline: Deadline,
    ) -> Result<PowerState> {
        let mut wrong_states = 0;
        loop {
            let (state, system) = self.settled(deadline).await?;
            if state == target.state() && target != PowerTarget::Reset {
                return Ok(state);
            }
            if target == PowerTarget::Reset && state == PowerState::Off {
                return Err(
                    Error::new(Kind::Conflict, "the server is off and cannot be reset")
                        .hint("power it on instead"),
                );
            }
            match self.reset(target, &system, deadline).await {
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
    async fn settled(&self, deadline: Deadline) -> Result<(PowerState, Value)> {
        let mut looks = 0;
        loop {
            let system = self.transport.get_until(&self.system, deadline).await?;
            let state = documents::power_state(&system);
            if state.is_settled() {
                return Ok((state, system));
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

    async fn reset(
        &self,
        target: PowerTarget,
        system: &Value,
        deadline: Deadline,
    ) -> Result<(), Failure> {
        let action = documents::action(system, "/Actions/#ComputerSystem.Reset");
        let path = action.ok_or_else(|| Failure::protocol("the iLO offers no reset action"))?;
        let body = json!({ "ResetType": target.reset_type(system) });
        self.transport
            .write(&Method::POST, path, Some(&body), deadline)
            .await
            .map(drop)
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
                true => self.transport.get_until(&self.system, deadline).await?,
                false => return Err(not_reached(target, deadline)),
            };
            if looks > 1 && documents::power_state(&state) == target.state() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_firmware_has_only_the_power_button() {
        let capture = include_str!("../../../tests/data/ilo5/1.30/rbsu_systems_1_response.http");
        let (_, body) = capture
            .replace("\r\n", "\n")
            .split_once("\n\n")
            .map(|(h, b)| (h.to_owned(), b.to_owned()))
            .unwrap();
        let old: Value = serde_json::from_str(&body).unwrap();
        let new: Value =
            serde_json::from_str(include_str!("../../../tests/data/ilo5/3.11/Systems_1.json"))
                .unwrap();
        assert_eq!(PowerTarget::Off.reset_type(&old), "PushPowerButton");
        assert_eq!(PowerTarget::Off.reset_type(&new), "GracefulShutdown");
        for target in [PowerTarget::On, PowerTarget::ForceOff, PowerTarget::Reset] {
            assert_eq!(target.reset_type(&old), target.reset_type(&new));
        }
    }
}
