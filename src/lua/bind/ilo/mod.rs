//! `ilo`: the management processor of a node. A file an idea: what can be read of it, `power`,
//! `vmedia`, `boot`, and `raw` requests for quirks.

mod boot;
mod drift;
mod power;
mod raw;
mod vmedia;

use super::site::Site;
use crate::engine::{Class, Reply, Run};
use crate::error::Kind;
use crate::lua::spec::{FnSpec, Record, Registry, Ty};
use boot::BOOT_MODE;
use power::POWER_STATE;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use vmedia::VMEDIA;

const POST_STATE: Ty = Ty::Enum(&[
    "finished_post",
    "power_off",
    "reset",
    "in_post",
    "in_post_discovery_start",
    "in_post_discovery_complete",
    "unknown",
]);

const NODE_DOC: &str = "the server";

const INFO: Record = Record {
    name: "IloInfo",
    doc: "What an iLO tells about itself and its server.",
    fields: &[
        ("generation", Ty::Integer, "5 for iLO 5"),
        (
            "dialect",
            Ty::Enum(&["redfish", "rest", "ribcl"]),
            "what is spoken with it",
        ),
        ("firmware", Ty::String, "its version"),
        ("model", Ty::String, "the server's product name"),
        ("serial", Ty::String, "the server's serial number"),
        ("uuid", Ty::String, "the server's UUID"),
        ("bios_version", Ty::String, "version of the system ROM"),
        ("license", Ty::String, "the iLO licence"),
        ("power_state", POWER_STATE, "whether the server is powered"),
        (
            "post_state",
            POST_STATE,
            "how far its power-on self test is",
        ),
        ("boot_mode", BOOT_MODE, "how it boots"),
        ("health", Ty::String, "`OK`, `Warning` or `Critical`"),
        (
            "media",
            Ty::List(&Ty::Record(&VMEDIA)),
            "what the virtual drives hold; URLs are masked",
        ),
    ],
};

#[derive(Deserialize)]
struct Node {
    node: String,
}

pub(super) fn register(registry: &mut Registry, site: &Arc<Site>) {
    looking(registry, site);
    power::register(registry, site);
    vmedia::register(registry, site);
    boot::register(registry, site);
    raw::register(registry, site);
    let (site, resumed) = (site.clone(), site.clone());
    registry.on_resumed(move |run| Box::pin(drift::compare(resumed.clone(), run)));
    registry.on_left(move |run| Box::pin(close_left(site.clone(), run)));
}

/// The sessions of owners that died, on iLOs that no call of this owner went to: connecting ends
/// them.
async fn close_left(site: Arc<Site>, run: Arc<Run>) {
    let names = run.journal().sessions(&run.id).await.unwrap_or_default();
    for node in names.iter().filter_map(|name| name.strip_prefix("ilo ")) {
        if let Err(error) = site.ilo_of(&run, node).await {
            tracing::warn!(node, %error, "a session of an earlier owner stays open on its iLO");
        }
    }
}

/// Declares a primitive that takes a node and looks at its iLO.
macro_rules! look {
    ($registry:expr, $site:expr, $spec:expr, |$ilo:ident| $answer:expr) => {{
        let site = $site.clone();
        $registry.add($spec.run(move |call| {
            let site = site.clone();
            async move {
                let $crate::lua::bind::ilo::Node { node } = call.decode()?;
                let $ilo = site.ilo(&call, &node).await?;
                Ok($answer)
            }
        }));
    }};
}
use look;

fn spec(name: &'static str, class: Class, summary: &'static str) -> FnSpec {
    FnSpec::new("ilo", name, class, summary)
        .subject("node", Ty::Node, NODE_DOC)
        .error(
            Kind::Auth,
            "user or password is wrong, or the user lacks the privilege",
        )
        .error(Kind::Unreachable, "the iLO does not answer")
}

fn looking(registry: &mut Registry, site: &Arc<Site>) {
    look!(
        registry,
        site,
        spec(
            "info",
            Class::Read,
            "Tells generation, firmware, model, power and health."
        )
        .returns(Ty::Record(&INFO), "what the iLO reports")
        .example("log.info(ilo.info(node).model)   --> ProLiant DL360 Gen10 Plus")
        .simulated(|_| json!({
            "generation": 5,
            "firmware": "2.70",
            "model": "ProLiant DL360 Gen10 Plus",
            "bios_version": "U46 v1.60",
            "license": "iLO Advanced",
            "health": "OK",
        })),
        |ilo| Reply::of(&ilo.info().await?)?
    );
    look!(
        registry,
        site,
        spec(
            "check_vmedia_license",
            Class::Read,
            "Checks that the iLO's licence allows media by URL."
        )
        .returns(Ty::String, "the licence's name")
        .error(
            Kind::Unsupported,
            "the licence does not; the message names it"
        )
        .example("ilo.check_vmedia_license(node)   --> iLO Advanced")
        .simulated(|_| Value::from("iLO Advanced")),
        |ilo| Value::from(ilo.check_vmedia_license().await?.name).into()
    );
    look!(
        registry,
        site,
        spec(
            "post_state",
            Class::Read,
            "Tells how far the power-on self test is."
        )
        .returns(POST_STATE, "how far it is; RIBCL does not tell")
        .example("ilo.post_state(node)   --> finished_post"),
        |ilo| Reply::of(&ilo.post_state().await?)?
    );
}
