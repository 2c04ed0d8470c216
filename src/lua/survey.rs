//! Looks at every file of a flow folder, as a reload must before it lets new runs use them.

use super::host::Host;
use super::vm::{Vm, internal};
use super::{FlowInfo, LuaRuntime, describe, failure};
use crate::engine::is_quirk;
use crate::error::{Error, Kind, Result};
use crate::journal::Bundle;
use mlua::{MultiValue, Value as LuaValue};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a file may take to load; it declares functions and does nothing.
const LOAD: Duration = Duration::from_secs(10);

impl LuaRuntime {
    /// The flows among the files of `folder` in the bundle, by path. Every file is loaded, modules
    /// and quirks too; none is run.
    ///
    /// # Errors
    /// All mistakes, each with its place.
    pub async fn survey(
        &self,
        bundle: &Arc<Bundle>,
        folder: &str,
    ) -> Result<BTreeMap<String, FlowInfo>, Vec<Error>> {
        let (mut flows, mut faults) = (BTreeMap::new(), Vec::new());
        for (path, text) in &bundle.files {
            let outcome = if is_quirk(path) {
                self.quirk(bundle, path).await.map(|()| None)
            } else if Path::new(path).parent() == Some(Path::new(folder)) {
                self.file(bundle, path).await
            } else {
                continue;
            };
            match outcome {
                Ok(Some(info)) => drop(flows.insert(path.clone(), info)),
                Ok(None) => {}
                Err(error) => faults.push(placed(error, path, text)),
            }
        }
        if faults.is_empty() {
            Ok(flows)
        } else {
            Err(faults)
        }
    }

    /// What a file declares; `None` for a module.
    pub(super) async fn file(&self, bundle: &Arc<Bundle>, path: &str) -> Result<Option<FlowInfo>> {
        let name = Path::new(path).file_stem().and_then(|stem| stem.to_str());
        let vm = self.vm(bundle, path)?;
        let call = vm.call("look", (path, name.unwrap_or_default()))?;
        match loaded(call).await? {
            LuaValue::Table(def) => describe(&def).map(Some),
            _ => Ok(None),
        }
    }

    async fn quirk(&self, bundle: &Arc<Bundle>, path: &str) -> Result<()> {
        let vm = self.vm(bundle, path)?;
        loaded(vm.call("load_quirk", path)?).await.map(drop)
    }

    fn vm(&self, bundle: &Arc<Bundle>, entry: &str) -> Result<Vm> {
        Vm::new(&Host {
            registry: self.registry.clone(),
            bundle: bundle.clone(),
            entry: entry.to_owned(),
            run: None,
        })
    }
}

/// What a function of the prelude answers with `true`, within [`LOAD`].
async fn loaded(call: impl Future<Output = mlua::Result<MultiValue>>) -> Result<LuaValue> {
    let late = |_| {
        Error::new(
            Kind::Timeout,
            "the file computes without end while it is loaded",
        )
    };
    let results = tokio::time::timeout(LOAD, call).await.map_err(late)?;
    let mut results = results.map_err(|e| internal(&e))?.into_iter();
    let ok = matches!(results.next(), Some(LuaValue::Boolean(true)));
    let value = results.next().unwrap_or(LuaValue::Nil);
    if ok {
        Ok(value)
    } else {
        Err(failure::from_lua(&value))
    }
}

/// An error that knows no line is about the file as a whole: its end.
fn placed(error: Error, path: &str, text: &str) -> Error {
    let known = error.details().get("at").and_then(|at| at.as_array());
    if known.is_some_and(|frames| !frames.is_empty()) {
        return error;
    }
    let line = text.lines().count().max(1);
    error.detail(
        "at",
        vec![serde_json::Value::from(format!("{path}:{line}"))],
    )
}
