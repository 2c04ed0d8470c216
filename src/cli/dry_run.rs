//! `--dry-run`: what a flow would do, call by call.

use super::args::{Cli, Run};
use super::render::cleans_up;
use super::site::unopened;
use super::start::{find_flow, pairs};
use super::{Exit, format};
use crate::cli::output::{out, put};
use crate::engine::{Class, LiveRef, Script, step_of};
use crate::error::Result;
use crate::journal::Bundle;
use crate::lua::bind::{Site, registry};
use crate::lua::dry_run::{DryRun, Simulate, dry_run};
use crate::lua::spec::{FnSpec, Param, Registry, Ty};
use crate::lua::{LuaRuntime, SimulatedCall};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Longer tables are shown as `{…}`; `--json` has them.
const MAX_TABLE: usize = 60;

pub(super) async fn run(cli: &Cli, args: &Run) -> Result<Exit> {
    let given = pairs(&args.param)?;
    let mut config = unopened(cli, &args.node)?;
    for name in &args.node {
        config.node(name)?;
        if let Some(node) = config.nodes.get_mut(name) {
            args.set
                .iter()
                .try_for_each(|assignment| node.set(assignment))?;
        }
    }
    let registry = Arc::new(registry(&Arc::new(Site::new(config.clone()))));
    let (bundle, entry) = find_flow(&args.flow, &config.site.flows)?;
    let placed = |e| format::with_lines(e, &bundle);
    let info = LuaRuntime::new(registry.clone())
        .inspect(&bundle, &entry)
        .map_err(placed)?;
    let (action, params) = (info.action(args.action.as_deref())?, info.params(&given)?);
    if !cli.json {
        let hash = bundle.hash.get(..12).unwrap_or_default();
        out!("dry run of {action} in {entry} ({hash}): answers are simulated, nothing is touched");
    }
    let mut worst = Exit::Done;
    for name in &args.node {
        let script = Script {
            bundle: bundle.clone(),
            entry: entry.clone(),
            action: action.clone(),
            params: params.clone(),
            node: config.node(name)?.view(name),
        };
        let dry = dry_run(&registry, script, Simulate::default())
            .await
            .map_err(placed)?;
        match cli.json {
            true => lines(name, &action, &entry, &dry),
            false => story(name, &registry, &bundle, &dry),
        }
        worst = worst.max(Exit::of_status(dry.end.status));
    }
    Ok(worst)
}

fn lines(node: &str, action: &str, entry: &str, dry: &DryRun) {
    let started = json!({
        "event": "dry_run_started", "node": node, "action": action, "source": entry,
        "destroys": dry.destroys, "quirks": dry.quirks,
    });
    out!("{started}");
    for call in &dry.calls {
        let mut line = json!(call);
        if let Some(fields) = line.as_object_mut() {
            fields.insert("event".to_owned(), Value::from("dry_run_call"));
            fields.insert("node".to_owned(), Value::from(node));
            fields.insert("step".to_owned(), Value::from(step_of(&call.key)));
        }
        out!("{line}");
    }
    let finished = json!({
        "event": "dry_run_finished", "node": node, "status": dry.end.status,
        "error": dry.end.error, "result": dry.end.result,
    });
    out!("{finished}");
}

fn story(node: &str, registry: &Registry, bundle: &Bundle, dry: &DryRun) {
    for what in &dry.destroys {
        out!(
            "{node}: {} {what}",
            format::paint("destroys", "1;31", format::colours())
        );
    }
    for quirk in &dry.quirks {
        out!("{node}: {quirk}");
    }
    let mut step = None;
    let shown = dry
        .calls
        .iter()
        .filter(|call| !call.executed || call.name.starts_with("log."));
    for call in shown {
        let path = step_of(&call.key);
        if step != Some(path) {
            out!("\n{}", heading(path));
            step = Some(path);
        }
        out!("{}", line(call, registry));
    }
    let count = |wanted: fn(&SimulatedCall) -> bool| dry.calls.iter().filter(|c| wanted(c)).count();
    out!(
        "\n{node}: {} on simulated answers; {} reads, {} changes, {} waits",
        dry.end.status.as_str(),
        count(|call| call.class == Class::Read && !call.executed),
        count(is_change),
        count(|call| call.class == Class::Wait),
    );
    if let Some(error) = &dry.end.error {
        put!("{}", format::error(error, Some(bundle), format::colours()));
    }
}

fn heading(path: &str) -> String {
    match (path, cleans_up(path)) {
        ("", _) => "(outside of steps)".to_owned(),
        (_, Some(of)) => of,
        (path, None) => path.to_owned(),
    }
}

fn is_change(call: &SimulatedCall) -> bool {
    matches!(call.class, Class::Effect | Class::EffectProbe)
}

fn line(call: &SimulatedCall, registry: &Registry) -> String {
    let word = match call.class {
        _ if call.executed => "log",
        Class::Read => "read",
        Class::Effect | Class::EffectProbe => "CHANGE",
        Class::Pure => "make",
        Class::Live => "open",
        Class::Wait => "wait",
    };
    let quirk = call.quirk.as_ref().map(|id| format!("  quirk {id}"));
    let text = registry.get(&call.name).map_or_else(
        |_| call.name.clone(),
        |spec| format!("{}({})", call.name, arguments(spec, &call.args)),
    );
    format!(
        "  {word:<6}  {text}  {}{}",
        call.site,
        quirk.unwrap_or_default()
    )
}

/// As a flow would write them, without what is the default anyway.
fn arguments(spec: &FnSpec, args: &Value) -> String {
    let mut parts = Vec::new();
    if let Some(subject) = &spec.subject {
        parts.push(shown(
            subject,
            args.get(subject.name).unwrap_or(&Value::Null),
        ));
    }
    let mut options = Vec::new();
    for option in &spec.options {
        let given = args.get(option.name);
        if let Some(given) = given.filter(|given| !option.is_default(given)) {
            options.push(format!("{} = {}", option.name, shown(option, given)));
        }
    }
    if !options.is_empty() {
        parts.push(braced(&options));
    }
    parts.join(", ")
}

/// As a flow would write an argument of this type.
fn shown(param: &Param, value: &Value) -> String {
    match (&param.ty, value) {
        (Ty::Node, Value::String(name)) => name.clone(),
        (Ty::Duration, value) => value
            .as_f64()
            .map_or_else(|| lua(value), |s| format!("\"{s}s\"")),
        _ => lua(value),
    }
}

fn lua(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(lua).collect();
            short(braced(&items))
        }
        Value::Object(fields) => match LiveRef::from_value(value) {
            Some(made) => {
                let (key, _) = &made.origin;
                format!("<{}>", key.rsplit('/').next().unwrap_or(key))
            }
            None => short(table(fields)),
        },
        data => data.to_string(),
    }
}

fn table(fields: &Map<String, Value>) -> String {
    let fields: Vec<_> = fields
        .iter()
        .map(|(k, v)| format!("{k} = {}", lua(v)))
        .collect();
    braced(&fields)
}

fn braced(parts: &[String]) -> String {
    match parts {
        [] => "{}".to_owned(),
        parts => format!("{{ {} }}", parts.join(", ")),
    }
}

fn short(table: String) -> String {
    if table.chars().count() > MAX_TABLE {
        return "{…}".to_owned();
    }
    table
}
