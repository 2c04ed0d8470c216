//! Power and restarts.

use super::super::args::Seconds;
use super::super::site::Site;
use super::{look, spec};
use crate::engine::{Call, Class, Probe, Reply};
use crate::error::{Kind, Result};
use crate::ilo::model::{PowerState, PowerTarget};
use crate::lua::spec::{Registry, Ty};
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

pub(super) const POWER_STATE: Ty = Ty::Enum(&[
    "on",
    "off",
    "powering_on",
    "powering_off",
    "reset",
    "unknown",
]);

#[derive(Deserialize)]
struct SetPower {
    node: String,
    state: PowerTarget,
    timeout: Seconds,
}

pub(super) fn register(registry: &mut Registry, site: &Arc<Site>) {
    look!(
        registry,
        site,
        spec(
            "power_state",
            Class::Read,
            "Tells whether the server is powered."
        )
        .returns(POWER_STATE, "what it is now")
        .fact("power")
        .example("ilo.power_state(node)   --> off"),
        |ilo| Reply::of(&ilo.power_state().await?)?
    );
    let (run, probe) = (site.clone(), site.clone());
    registry.add(
        spec(
            "set_power",
            Class::EffectProbe,
            "Switches or restarts the server and waits until the iLO shows that it happened.",
        )
        .required(
            "state",
            Ty::Enum(&["on", "off", "force_off", "reset", "restart", "cold_boot"]),
            "`off` and `restart` ask the operating system, `force_off` holds the button, `reset` \
             restarts at once, `cold_boot` takes the power away for some seconds. What the \
             firmware has no action for is done as off and on. A server that is off is switched \
             on by `restart` and `cold_boot`",
        )
        .default(
            "timeout",
            Ty::Duration,
            "3m",
            "how long the change may take",
        )
        .returns(
            POWER_STATE,
            "the power state now. After a restart POST has only begun; over RIBCL, which does \
             not tell POST, the iLO's word is all that was seen",
        )
        .error(Kind::Conflict, "a `reset` of a server that is off")
        .error(
            Kind::Timeout,
            "the server did not follow, or was not seen to restart",
        )
        .error(Kind::Unsupported, "the firmware has no such action")
        .error(
            Kind::InDoubt,
            "the answer to a restart was lost and nothing showed it",
        )
        .example("ilo.set_power(node, { state = \"force_off\" })   --> off")
        .fact("power")
        .simulated(|args| match args.get("state").and_then(Value::as_str) {
            Some("off" | "force_off") => Value::from("off"),
            _ => Value::from("on"),
        })
        .probe(move |call| {
            let site = probe.clone();
            async move { power_reached(&site, &call).await }
        })
        .run(move |call| {
            let site = run.clone();
            async move {
                let args: SetPower = call.decode()?;
                let ilo = site.ilo(&call, &args.node).await?;
                let timeout = args.timeout.duration();
                Reply::of(&ilo.set_power(args.state, timeout).await?)
            }
        }),
    );
}

/// On and off can be seen; whether a restart happened cannot, and one more does no harm that the
/// first did not do.
async fn power_reached(site: &Arc<Site>, call: &Call) -> Result<Probe> {
    let SetPower { node, state, .. } = call.decode()?;
    let now = site.ilo(call, &node).await?.power_state().await?;
    let reached = matches!(
        (state, now),
        (PowerTarget::On, PowerState::On)
            | (PowerTarget::Off | PowerTarget::ForceOff, PowerState::Off)
    );
    if reached {
        Ok(Probe::Done(Reply::of(&now)?))
    } else {
        Ok(Probe::NotDone)
    }
}
