//! `call`: one primitive by hand, as a run like any other.

use super::args::{CallArgs, Cli};
use super::site::Ground;
use super::{Exit, follow, format};
use crate::cli::output::out;
use crate::engine::{NewScript, RunEnd, Script, seal_bundle};
use crate::error::{Error, Kind, Result};
use crate::lua::spec::{FnSpec, Ty};
use serde_json::{Map, Value, json};
use std::sync::Arc;

pub(super) async fn call(cli: &Cli, args: &CallArgs) -> Result<Exit> {
    let nodes: Vec<String> = args.node.iter().cloned().collect();
    let ground = Ground::open(cli, &nodes, &args.set).await?;
    let spec = ground.registry.get(&args.primitive)?;
    let named = arguments(spec, args)?;
    // Checked here, so that a mistake is told before a node is locked.
    spec.check(named.clone())?;
    let end = perform(&ground, spec, named, args.node.clone()).await?;
    if let Some(error) = &end.error {
        if cli.json {
            out!("{}", json!({ "event": "error", "error": error }));
        }
        eprint!("{}", format::error(error, None, format::colours()));
        return Ok(Exit::of_status(end.status));
    }
    out!("{:#}", typed(spec, end.result));
    Ok(Exit::of_status(end.status))
}

/// Lua has the same empty table for a list and for named fields.
fn typed(spec: &FnSpec, result: Value) -> Value {
    match (&spec.returns.0, result) {
        (Ty::List(_), Value::Object(fields)) if fields.is_empty() => Value::Array(Vec::new()),
        (_, result) => result,
    }
}

/// Makes the call in a run of its own.
pub(super) async fn perform(
    ground: &Ground,
    spec: &FnSpec,
    named: Map<String, Value>,
    node: Option<String>,
) -> Result<RunEnd> {
    if let Some(node) = &node {
        // Nothing shows the log of this run.
        ground.warn(node).await?;
    }
    let new = NewScript {
        flow: format!("call {}", spec.full_name()),
        script: script(spec, named),
        // A call without a node locks nothing that a deploy needs.
        node: node.unwrap_or_else(|| format!("(call {})", std::process::id())),
    };
    let started = ground.engine.start(new).await?;
    let mut ends = follow::to_the_end(ground, vec![started]).await?;
    ground.engine.journal().sync().await?;
    ends.pop()
        .ok_or_else(|| Error::new(Kind::Internal, "the run had no end"))
}

/// The JSON object, with the node filled in where the primitive takes one.
fn arguments(spec: &FnSpec, args: &CallArgs) -> Result<Map<String, Value>> {
    let text = args.arguments.as_deref().unwrap_or("{}");
    let parsed: Value = serde_json::from_str(text).map_err(|e| {
        Error::new(Kind::Invalid, format!("the arguments are not JSON: {e}")).hint(format!(
            "flowrun call {} '{{\"name\": \"value\"}}'",
            args.primitive
        ))
    })?;
    let Value::Object(mut named) = parsed else {
        return Err(
            Error::new(Kind::Invalid, "the arguments must be a JSON object").hint(spec.usage()),
        );
    };
    let takes_node = spec
        .subject
        .as_ref()
        .filter(|subject| subject.ty == Ty::Node);
    match (takes_node, &args.node) {
        (Some(subject), Some(node)) => {
            named.insert(subject.name.to_owned(), Value::from(node.clone()));
        }
        (Some(_), None) => {
            return Err(Error::new(
                Kind::Invalid,
                format!("{} needs --node", args.primitive),
            ));
        }
        (None, _) => {}
    }
    Ok(named)
}

/// A flow of one line.
fn script(spec: &FnSpec, mut named: Map<String, Value>) -> Script {
    let subject = spec
        .subject
        .as_ref()
        .map(|s| (s.ty.clone(), named.remove(s.name)));
    let mut inputs = Vec::new();
    if let Some((_, Some(_))) = &subject {
        inputs.push("p.subject");
    }
    if !named.is_empty() {
        if inputs.is_empty() && spec.subject.is_some() {
            inputs.push("nil");
        }
        inputs.push("p.options");
    }
    let text = format!(
        "-- One primitive, called by hand.\nreturn flow {{ name = \"call\", actions = {{\n  \
         call = function(_, _, p) return {}({}) end,\n}} }}\n",
        spec.full_name(),
        inputs.join(", ")
    );
    let entry = "call.lua".to_owned();
    let files = [(entry.clone(), text)].into();
    Script {
        bundle: Arc::new(seal_bundle(files)),
        entry,
        action: "call".to_owned(),
        params: json!({ "subject": subject.and_then(|(_, value)| value), "options": named }),
        node: json!({ "name": "call", "ports": [], "driver_info": {}, "instance_info": {} }),
    }
}
