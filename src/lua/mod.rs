//! The Lua host: the only folder that names mlua.
//!
//! A flow runs in a VM of its own, whose environment holds nothing of the outside but
//! primitives. [`spec`] is the registry they are declared in, [`bind`] declares them, one thin
//! file a module; `prelude/` holds what surrounds a flow (steps, clean-ups, branches).

pub mod bind;
pub mod check;
mod chunk;
pub mod docs;
pub mod dry_run;
mod failure;
mod flow;
mod host;
mod pattern;
mod simulate;
pub mod spec;
pub mod stdlib;
mod survey;
mod value;
mod vm;

pub use flow::{FlowInfo, ParamInfo, QuirkVerdict};
pub use simulate::SimulatedCall;

use crate::engine::{FlowRuntime, Outcome, Run, Script, cancelled, is_quirk};
use crate::error::{Error, Kind, Result};
use crate::journal::Bundle;
use futures_util::future::LocalBoxFuture;
use host::Host;
use mlua::{MultiValue, Table, Value as LuaValue};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use vm::{Vm, internal};

/// So many runs load their flow at the same time, since what is garbage after loading is of use to
/// those that come next: a room of servers at once would need all of it at once.
static LOADING: Semaphore = Semaphore::const_new(4);
/// How long a run waits for that; one whose flow loads without end holds up nobody.
const TURN: Duration = Duration::from_secs(2);

/// Runs flows with the primitives of a registry.
#[derive(Debug)]
pub struct LuaRuntime {
    registry: Arc<spec::Registry>,
}

impl LuaRuntime {
    /// A runtime over these primitives.
    #[must_use]
    pub fn new(registry: Arc<spec::Registry>) -> Self {
        Self { registry }
    }

    /// Loads a flow without running it.
    ///
    /// # Errors
    /// `invalid` with the place of the mistake.
    pub fn inspect(&self, bundle: &Arc<Bundle>, entry: &str) -> Result<FlowInfo> {
        let (_, info, _) = self.load(bundle, entry, None)?;
        Ok(info)
    }

    /// What `flowrun check` says of a bundle whose flows are these, as [`Self::survey`] found them.
    pub async fn check(
        &self,
        bundle: &Arc<Bundle>,
        flows: &BTreeMap<String, FlowInfo>,
    ) -> Vec<check::Finding> {
        check::checked(self, bundle, flows, Vec::new()).await
    }

    /// What the flow says this action destroys on this node.
    ///
    /// # Errors
    /// As [`Self::inspect`], and those of the flow's own function.
    pub fn destroys(
        &self,
        bundle: &Arc<Bundle>,
        entry: &str,
        action: &str,
        node: &Value,
        params: &Value,
    ) -> Result<Vec<String>> {
        let (vm, _, def) = self.load(bundle, entry, None)?;
        let node = value::from_json(&vm.lua, node).map_err(|e| internal(&e))?;
        let params = value::from_json(&vm.lua, params).map_err(|e| internal(&e))?;
        let (ok, list): (bool, LuaValue) = vm
            .function("destroys")?
            .call((def, node, params, action))
            .map_err(|e| internal(&e))?;
        if !ok {
            return Err(failure::from_lua(&list));
        }
        let list = value::to_json(&list)?;
        Ok(serde_json::from_value(list).unwrap_or_default())
    }

    /// Whether a quirk of the bundle is matched on what the iLO reports.
    ///
    /// # Errors
    /// As [`Self::inspect`].
    pub fn quirks_need_info(&self, bundle: &Arc<Bundle>, entry: &str) -> Result<bool> {
        let (vm, _, _) = self.load(bundle, entry, None)?;
        vm.function("quirks_need_info")?
            .call(())
            .map_err(|e| internal(&e))
    }

    /// The tests of a file `*_test.lua`: name and `file:line` of each, in their order.
    ///
    /// # Errors
    /// As [`Self::inspect`].
    pub fn tests(&self, bundle: &Arc<Bundle>, entry: &str) -> Result<Vec<(String, String)>> {
        let (vm, _, _) = self.load(bundle, entry, None)?;
        let list: Table = vm.function("tests")?.call(()).map_err(|e| internal(&e))?;
        let read = |test: mlua::Result<Table>| {
            let test = test?;
            Ok((test.raw_get("name")?, test.raw_get("at")?))
        };
        let tests = list.sequence_values().map(read);
        tests.collect::<mlua::Result<_>>().map_err(|e| internal(&e))
    }

    /// The bundle's quirks, and whether they apply where the iLO answers `ilo.info` so.
    ///
    /// # Errors
    /// As [`Self::inspect`].
    pub fn judge_quirks(
        &self,
        bundle: &Arc<Bundle>,
        entry: &str,
        info: &Value,
    ) -> Result<Vec<QuirkVerdict>> {
        let (vm, _, _) = self.load(bundle, entry, None)?;
        let info = value::from_json(&vm.lua, info).map_err(|e| internal(&e))?;
        let list: LuaValue = vm
            .function("judge_quirks")?
            .call(info)
            .map_err(|e| internal(&e))?;
        let list = match value::to_json(&list)? {
            // An empty Lua table.
            Value::Object(_) => return Ok(Vec::new()),
            list => list,
        };
        serde_json::from_value(list)
            .map_err(|e| Error::new(Kind::Internal, "the prelude's verdicts").caused_by(&e))
    }

    fn load(
        &self,
        bundle: &Arc<Bundle>,
        entry: &str,
        run: Option<Arc<Run>>,
    ) -> Result<(Vm, FlowInfo, Table)> {
        if !bundle.files.contains_key(entry) {
            let message = format!("{entry} is not in its bundle");
            return Err(Error::new(Kind::NotFound, message));
        }
        let host = Host {
            registry: self.registry.clone(),
            bundle: bundle.clone(),
            entry: entry.to_owned(),
            run,
        };
        let vm = Vm::new(&host)?;
        let (ok, def): (bool, LuaValue) =
            vm.function("load")?.call(entry).map_err(|e| internal(&e))?;
        let LuaValue::Table(def) = def else {
            return Err(Error::new(Kind::Internal, "the prelude returned no table"));
        };
        if !ok {
            return Err(failure::from_lua(&LuaValue::Table(def)));
        }
        load_quirks(&vm, bundle, entry)?;
        let info = describe(&def)?;
        // What only loading needed is used again by the next VM.
        vm.lua.gc_collect().map_err(|e| internal(&e))?;
        Ok((vm, info, def))
    }

    async fn execute(&self, script: Script, run: Arc<Run>) -> Result<Outcome> {
        let turn = tokio::time::timeout(TURN, LOADING.acquire()).await;
        let (vm, _, def) = self.load(&script.bundle, &script.entry, Some(run.clone()))?;
        drop(turn);
        let context = json!({
            "run": run.id, "action": script.action, "node": run.node, "flow": script.entry,
        });
        let lua = &vm.lua;
        let data = |value: &Value| value::from_json(lua, value).map_err(|e| internal(&e));
        let arguments = (
            def,
            script.action.as_str(),
            data(&context)?,
            data(&script.node)?,
            data(&script.params)?,
        );
        let main = vm.call("run", arguments)?;
        let (error, overdue) = tokio::select! {
            results = main => match results {
                Ok(results) => return Ok(outcome(results)),
                Err(broken) => (internal(&broken), String::new()),
            },
            overdue = computes_for_ever(&run) => (stuck(&overdue), overdue),
        };
        // The script is gone from its thread (out of memory, or dropped in a loop without end):
        // what it left open is unwound by a coroutine of its own.
        unwind(&vm, &run, error, &overdue).await
    }
}

impl FlowRuntime for LuaRuntime {
    fn run(&self, script: Script, run: Arc<Run>) -> LocalBoxFuture<'static, Outcome> {
        let this = Self::new(self.registry.clone());
        Box::pin(async move {
            this.execute(script, run)
                .await
                .unwrap_or_else(|error| Outcome {
                    result: Err(error),
                    cleanup_errors: Vec::new(),
                })
        })
    }
}

async fn unwind(vm: &Vm, run: &Arc<Run>, error: Error, overdue: &str) -> Result<Outcome> {
    let mut failures = Vec::new();
    run.watch.unwinding();
    run.watch.released(overdue);
    loop {
        let table = failure::to_table(&vm.lua, &error).map_err(|e| internal(&e))?;
        let abort = vm.call("abort", table)?;
        let stuck_again = tokio::select! {
            results = abort => {
                let mut ended = outcome(results.map_err(|e| internal(&e))?);
                ended.cleanup_errors.append(&mut failures);
                return Ok(ended);
            }
            again = computes_for_ever(run) => again,
        };
        // A clean-up loops too: it is dropped as well, and the next one gets its turn.
        failures.push(stuck(&stuck_again));
        run.watch.released(&stuck_again);
    }
}

fn stuck(path: &str) -> Error {
    match path {
        "" => cancelled(),
        "(flow)" => Error::new(
            Kind::Timeout,
            "the flow computes without end and ran out of time",
        ),
        path => Error::new(
            Kind::Timeout,
            format!("step '{path}' computes without end and ran out of time"),
        ),
    }
}

/// Ends when the script should have ended and is still computing.
async fn computes_for_ever(run: &Run) -> String {
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if let Some(path) = run.watch.overdue() {
            return path;
        }
    }
}

fn outcome(results: MultiValue) -> Outcome {
    let mut results = results.into_iter();
    let ok = matches!(results.next(), Some(LuaValue::Boolean(true)));
    let value = results.next().unwrap_or(LuaValue::Nil);
    let cleanup_errors = match results.next() {
        Some(LuaValue::Table(list)) => list
            .sequence_values::<LuaValue>()
            .filter_map(|item| item.ok().map(|item| failure::from_lua(&item)))
            .collect(),
        _ => Vec::new(),
    };
    let result = if ok {
        value::to_json(&value)
    } else {
        Err(failure::from_lua(&value))
    };
    Outcome {
        result,
        cleanup_errors,
    }
}

/// Runs the quirk files, in the order of their names.
fn load_quirks(vm: &Vm, bundle: &Bundle, entry: &str) -> Result<()> {
    let quirks = bundle.files.iter().filter(|(path, _)| is_quirk(path));
    for (path, _) in quirks.filter(|(path, _)| *path != entry) {
        let (ok, error): (bool, LuaValue) = vm
            .function("load_quirk")?
            .call(path.as_str())
            .map_err(|e| internal(&e))?;
        if !ok {
            return Err(failure::from_lua(&error));
        }
    }
    Ok(())
}

/// Reads the fields that are data; functions are only named.
fn describe(def: &Table) -> Result<FlowInfo> {
    let name: String = def.raw_get("name").map_err(|e| internal(&e))?;
    let mut fields = Map::new();
    for field in ["summary", "api", "default", "params"] {
        let value: LuaValue = def.raw_get(field).map_err(|e| internal(&e))?;
        if !value.is_nil() {
            fields.insert(field.to_owned(), value::to_json(&value)?);
        }
    }
    let actions: Table = def.raw_get("actions").map_err(|e| internal(&e))?;
    let mut names: Vec<String> = actions
        .pairs::<String, LuaValue>()
        .filter_map(|pair| Some(pair.ok()?.0))
        .collect();
    names.sort();
    flow::read(name, &fields, names)
}

#[cfg(test)]
mod tests;
