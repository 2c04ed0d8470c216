//! Finds mistakes in flows before a server pays for them: reads how each file compiled, and
//! dry-runs every action.

mod facts;
mod listing;
mod names;

use super::dry_run::{DryRun, Simulate, dry_run, is_cleanup};
use super::failure;
use super::spec::Registry;
use super::stdlib;
use super::{FlowInfo, LuaRuntime};
use crate::config::Node;
use crate::engine::{Script, is_quirk, is_test, place};
use crate::error::{Error, Kind, Result};
use crate::journal::Bundle;
use facts::Fact;
use names::Names;
use serde::Serialize;
use serde_json::Value;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A run that comes here fails.
    Error,
    /// Worth a look: it may be meant so, or the check could not tell.
    Warning,
}

/// A mistake, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The file, as its bundle names it.
    pub path: String,
    /// The line; 0 if it is the whole file.
    pub line: u32,
    /// How bad it is.
    pub level: Level,
    /// What is wrong.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Finding {
    fn error(path: &str, line: u32, error: &Error) -> Self {
        let message = match error.operation() {
            "" => error.message().to_owned(),
            op => format!("{op}: {}", error.message()),
        };
        Self {
            path: path.to_owned(),
            line,
            level: Level::Error,
            message,
            hint: error.advice().map(str::to_owned),
        }
    }

    /// At the place that an error names, else in `path`.
    fn placed(path: &str, error: &Error) -> Self {
        let named = place(error);
        let place = named.as_deref().and_then(|place| {
            let (file, line) = place.rsplit_once(':')?;
            Some((file, line.parse().ok()?))
        });
        let (path, line) = place.unwrap_or((path, 0));
        Self::error(path, line, error)
    }

    /// As an error at its place.
    #[must_use]
    pub fn as_error(&self) -> Error {
        let place = Value::from(format!("{}:{}", self.path, self.line));
        let error = Error::new(Kind::Invalid, self.message.clone()).detail("at", vec![place]);
        match &self.hint {
            Some(hint) => error.hint(hint.clone()),
            None => error,
        }
    }

    fn warning(mut self, hint: Option<String>) -> Self {
        self.level = Level::Warning;
        self.hint = hint.or(self.hint);
        self
    }
}

/// Checks every file of a bundle: its flows, their modules, its quirks. Sorted by file and line.
pub async fn check(registry: &Arc<Registry>, bundle: &Arc<Bundle>) -> Vec<Finding> {
    let runtime = LuaRuntime::new(registry.clone());
    let (mut flows, mut broken) = (BTreeMap::new(), Vec::new());
    for path in bundle.files.keys().filter(|path| may_be_flow(path)) {
        match runtime.file(bundle, path).await {
            Ok(Some(info)) => drop(flows.insert(path.clone(), info)),
            // A module beside a flow.
            Ok(None) => {}
            Err(error) => broken.push(Finding::placed(path, &error)),
        }
    }
    checked(&runtime, bundle, &flows, broken).await
}

/// The same, of a bundle that was loaded: these are its flows.
pub(super) async fn checked(
    runtime: &LuaRuntime,
    bundle: &Arc<Bundle>,
    flows: &BTreeMap<String, FlowInfo>,
    mut seen: Vec<Finding>,
) -> Vec<Finding> {
    let (mut findings, steps) = read(&runtime.registry, bundle);
    for (path, info) in flows {
        seen.extend(flow(runtime, bundle, path, info, &steps).await);
    }
    for finding in seen {
        let known = findings.iter().any(|f: &Finding| {
            f.path == finding.path && (f.message == finding.message || f.line == finding.line)
        });
        if !known {
            findings.push(finding);
        }
    }
    findings.sort();
    findings
}

fn may_be_flow(path: &str) -> bool {
    !is_quirk(path) && !path.starts_with(stdlib::FOLDER) && !is_test(path)
}

/// What the files themselves tell, and the names of all steps.
fn read(registry: &Arc<Registry>, bundle: &Arc<Bundle>) -> (Vec<Finding>, BTreeSet<String>) {
    let (mut findings, mut steps) = (Vec::new(), BTreeSet::new());
    let mut compiled = Vec::new();
    for (path, text) in &bundle.files {
        match compile(path, text) {
            Ok(facts) => compiled.push((path, facts)),
            Err(error) => findings.push(Finding::placed(path, &error)),
        }
    }
    // What `require` finds depends on the folder.
    let mut known: BTreeMap<&str, Names> = BTreeMap::new();
    for (path, facts) in compiled {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let names = match known.entry(folder) {
            Entry::Occupied(names) => names.into_mut(),
            Entry::Vacant(place) => match Names::new(registry, bundle, path) {
                Ok(names) => place.insert(names),
                Err(error) => {
                    findings.push(Finding::placed(path, &error));
                    continue;
                }
            },
        };
        for fact in &facts {
            steps.extend(names::step_of(fact));
            names.judge(fact, |line, error| {
                findings.push(Finding::error(path, line, &error));
            });
        }
    }
    (findings, steps)
}

fn compile(path: &str, text: &str) -> Result<Vec<Fact>> {
    let lua = mlua::Lua::new();
    let chunk = lua
        .load(text)
        .set_name(format!("@{path}"))
        .set_mode(mlua::chunk::ChunkMode::Text);
    let function = chunk.into_function().map_err(|e| match e {
        mlua::Error::SyntaxError { message, .. } => at(path, &failure::syntax(&message)),
        other => super::vm::internal(&other),
    })?;
    Ok(facts::of(&listing::read(&function.dump(false))?))
}

/// Lua shortens long paths; the line is right.
fn at(path: &str, error: &Error) -> Error {
    let frame = error.details().get("at").and_then(|at| at.get(0)?.as_str());
    let line = frame.and_then(|frame| frame.rsplit(':').next());
    let place = format!("{path}:{}", line.unwrap_or("0"));
    error.clone().detail("at", vec![Value::from(place)])
}

/// What loading a flow with its quirks, and dry-running its actions, tell.
async fn flow(
    runtime: &LuaRuntime,
    bundle: &Arc<Bundle>,
    entry: &str,
    info: &FlowInfo,
    steps: &BTreeSet<String>,
) -> Vec<Finding> {
    if let Err(error) = runtime.inspect(bundle, entry) {
        return vec![Finding::placed(entry, &error)];
    }
    let mut findings = quirks_around(runtime, bundle, entry, steps);
    let node = match Node::sample() {
        Ok(node) => node.view("sample"),
        Err(error) => return vec![Finding::placed(entry, &error)],
    };
    for action in &info.actions {
        let script = Script {
            bundle: bundle.clone(),
            entry: entry.to_owned(),
            action: action.clone(),
            params: info.sample(),
            node: node.clone(),
        };
        match tried(&runtime.registry, script).await {
            Ok(found) => findings.extend(found),
            Err(error) => findings.push(Finding::placed(entry, &error)),
        }
    }
    findings
}

/// Dry-runs an action on a few sites, until it comes to its end on one; and with its last call
/// failing there, for what unwinds it.
async fn tried(registry: &Arc<Registry>, script: Script) -> Result<Vec<Finding>> {
    let mut deployed = script.clone();
    if let Some(fields) = deployed.node.as_object_mut() {
        fields.insert("provision_state".to_owned(), "active".into());
    }
    let mut first = None;
    for (script, shift) in [(&script, 0), (&deployed, 0), (&script, 1)] {
        let how = Simulate {
            shift,
            fails_at: None,
        };
        let whole = dry_run(registry, script.clone(), how).await?;
        let found = mistakes(&whole, script);
        if whole.end.error.is_some() {
            let is_sure = found.iter().any(|f| f.level == Level::Error);
            if is_sure {
                return Ok(found);
            }
            first.get_or_insert(found);
            continue;
        }
        let mut calls = whole.calls.iter();
        let last = calls.rposition(|call| !call.executed && !is_cleanup(&call.key));
        let how = Simulate {
            shift,
            fails_at: last,
        };
        let broken = dry_run(registry, script.clone(), how).await?;
        let unwound = broken.cleanup_errors.iter().filter(|e| !is_simulated(e));
        let unwound = unwound.map(|error| Finding::placed(&script.entry, error));
        return Ok(unwound.chain(found).collect());
    }
    Ok(first.unwrap_or_default())
}

fn is_simulated(error: &Error) -> bool {
    error.details().contains_key("simulated")
}

fn mistakes(dry: &DryRun, script: &Script) -> Vec<Finding> {
    let errors = dry.end.error.iter().chain(&dry.cleanup_errors);
    let found = errors.map(|error| {
        let finding = Finding::placed(&script.entry, error);
        let what = format!(
            "the dry run of {} ends here: {}",
            script.action, finding.message
        );
        let ended = Finding {
            message: what,
            ..finding.clone()
        };
        if error.details().contains_key("raised") {
            return ended.warning(Some(
                "on simulated results; `--dry-run` shows how".to_owned(),
            ));
        }
        match (&dry.shapeless, error.kind()) {
            (Some(name), Kind::Invalid) if error.message().starts_with("attempt to ") => ended
                .warning(Some(format!(
                    "the dry run answers {name} with an empty table"
                ))),
            (_, Kind::Limit | Kind::NotFound) => ended.warning(None),
            _ => finding,
        }
    });
    found.collect()
}

/// Quirks around steps that no file names.
fn quirks_around(
    runtime: &LuaRuntime,
    bundle: &Arc<Bundle>,
    entry: &str,
    steps: &BTreeSet<String>,
) -> Vec<Finding> {
    let nothing = serde_json::json!({});
    let verdicts = runtime
        .judge_quirks(bundle, entry, &nothing)
        .unwrap_or_default();
    let mut findings = Vec::new();
    for quirk in &verdicts {
        for name in quirk.around.iter().filter(|name| !steps.contains(*name)) {
            let known: Vec<_> = steps.iter().map(String::as_str).collect();
            let message = format!("quirk {}: no flow has a step {name:?}", quirk.id);
            let error = Error::new(Kind::NotFound, message)
                .detail("at", vec![Value::from(quirk.at.clone())]);
            let hint = crate::suggest::near(name, &known).map(|n| format!("did you mean {n:?}?"));
            findings.push(Finding::placed(entry, &error).warning(hint));
        }
    }
    findings
}

#[cfg(test)]
mod tests;
