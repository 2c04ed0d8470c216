//! `inventory`: what runs learn about their nodes.

use super::site::Site;
use crate::engine::{Call, Class, Reply};
use crate::error::{Error, Kind, Result};
use crate::journal::lay_over;
use crate::lua::spec::{FnSpec, Registry, Ty};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) fn register(registry: &mut Registry, site: &Arc<Site>) {
    registry.add(
        FnSpec::new(
            "inventory",
            "update",
            Class::Effect,
            "Keeps what a run learned of its node; from the next run on it overlays flowrun.toml.",
        )
        .subject("node", Ty::Node, "the server")
        .optional(
            "provision_state",
            Ty::String,
            "Ironic's word for where it stands: `active`, `deploy failed`, …",
        )
        .optional("last_error", Ty::String, "why it failed")
        .optional(
            "instance_info",
            Ty::Map(&Ty::Any),
            "fields that are added to it or replaced",
        )
        .optional("driver_internal_info", Ty::Map(&Ty::Any), "likewise")
        .optional(
            "forget",
            Ty::List(&Ty::String),
            "fields that are taken away: `last_error`, `instance_info.boot_iso`",
        )
        .error(Kind::Conflict, "the run has another owner now")
        .example("inventory.update(node, { provision_state = \"active\" })")
        .run(|call| async move { update(&call).await }),
    );
    let site = site.clone();
    registry.add(
        FnSpec::new(
            "inventory",
            "node",
            Class::Read,
            "Tells a node as it is now, what runs learned included.",
        )
        .subject("node", Ty::Node, "the server")
        .returns(Ty::Any, "as the `node` that actions get")
        .example("inventory.node(node).provision_state   --> active")
        .run(move |call| {
            let site = site.clone();
            async move {
                #[derive(Deserialize)]
                struct Args {
                    node: String,
                }
                let Args { node } = call.decode()?;
                let mut view = site.node(&node)?.view(&node);
                lay_over(&mut view, &call.run.journal().learned(&node).await?);
                Ok(view.into()) as Result<Reply>
            }
        }),
    );
}

#[derive(Deserialize)]
struct Update {
    node: String,
    provision_state: Option<String>,
    last_error: Option<String>,
    #[serde(default)]
    instance_info: Map<String, Value>,
    #[serde(default)]
    driver_internal_info: Map<String, Value>,
    #[serde(default)]
    forget: Vec<String>,
}

async fn update(call: &Call) -> Result<Reply> {
    let args: Update = call.decode()?;
    let mut facts: BTreeMap<String, Option<Value>> = BTreeMap::new();
    for path in args.forget {
        facts.insert(path, None);
    }
    let texts = [
        ("provision_state", args.provision_state),
        ("last_error", args.last_error),
    ];
    for (path, text) in texts {
        if let Some(text) = text {
            facts.insert(path.to_owned(), Some(text.into()));
        }
    }
    let sections = [
        ("instance_info", args.instance_info),
        ("driver_internal_info", args.driver_internal_info),
    ];
    for (section, fields) in sections {
        for (key, value) in fields {
            if key.contains('.') {
                let message = format!("{section}: {key:?} is not a field's name");
                return Err(Error::new(Kind::Invalid, message));
            }
            facts.insert(format!("{section}.{key}"), Some(value));
        }
    }
    let run = &call.run;
    run.journal()
        .learn(&run.id, run.fence, &args.node, facts)
        .await?;
    Ok(Reply::default())
}
