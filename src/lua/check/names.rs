//! What a flow can name, and what is wrong with what it does to it.

use super::facts::{Fact, Known};
use crate::error::{Error, Kind, Result};
use crate::journal::Bundle;
use crate::lua::host::Host;
use crate::lua::spec::{self, FnSpec, Registry};
use crate::lua::vm::{Vm, internal};
use crate::suggest::near;
use mlua::{Table, Value as LuaValue};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The environment of the files of one folder.
pub(super) struct Names {
    registry: Arc<Registry>,
    vm: Vm,
    environment: Table,
    /// Globals, and the fields of those that are tables.
    globals: BTreeMap<String, Option<BTreeSet<String>>>,
    /// The position of a control function's options, and their names.
    controls: BTreeMap<String, (usize, BTreeSet<String>)>,
}

/// The name of a step, where a fact is one.
pub(super) fn step_of(fact: &Fact) -> Option<String> {
    let Fact::Called { path, args, .. } = fact else {
        return None;
    };
    let name = args
        .first()
        .filter(|_| path.as_slice() == ["step"])?
        .data()?;
    name.as_str().map(str::to_owned)
}

impl Names {
    /// What the file at `path` of a bundle can name.
    pub(super) fn new(registry: &Arc<Registry>, bundle: &Arc<Bundle>, path: &str) -> Result<Self> {
        let host = Host {
            registry: registry.clone(),
            bundle: bundle.clone(),
            entry: path.to_owned(),
            run: None,
        };
        let vm = Vm::new(&host)?;
        let built = || {
            let environment: Table = vm
                .prelude
                .get::<mlua::Function>("whole_environment")?
                .call(())?;
            let mut globals: BTreeMap<String, Option<BTreeSet<String>>> = BTreeMap::new();
            environment.for_each(|name: String, value: LuaValue| {
                let fields = value.as_table().map(keys).transpose()?;
                globals.insert(name, fields);
                Ok(())
            })?;
            for spec in registry.iter().filter(|spec| !spec.module.is_empty()) {
                let fields = globals.entry(spec.module.to_owned()).or_default();
                let fields = fields.get_or_insert_default();
                fields.insert(spec.name.to_owned());
            }
            let mut controls = BTreeMap::new();
            let declared: Table = vm.prelude.raw_get("controls")?;
            declared.for_each(|name: String, control: Table| {
                let options: Table = control.raw_get(2)?;
                controls.insert(name, (control.raw_get(1)?, keys(&options)?));
                Ok(())
            })?;
            Ok((environment, globals, controls))
        };
        let (environment, globals, controls) = built().map_err(|e: mlua::Error| internal(&e))?;
        Ok(Self {
            registry: registry.clone(),
            vm,
            environment,
            globals,
            controls,
        })
    }

    /// Tells what is wrong with a fact, if something is.
    pub(super) fn judge(&self, fact: &Fact, mut found: impl FnMut(u32, Error)) {
        match fact {
            Fact::Read { path, line } => self.exists(path, *line, &mut found),
            Fact::Assigned { name, line } => {
                let message = format!("assignment to the global {name}");
                found(
                    *line,
                    invalid(message).hint(format!("write `local {name}`")),
                );
            }
            Fact::ModuleField { module, name, line } => {
                if let Some(error) = self.module_field(module, name) {
                    found(*line, error);
                }
            }
            Fact::Method { path, line } if self.registry.get(&path.join(".")).is_ok() => {
                let (dot, colon) = (path.join("."), path.join(":"));
                let error = invalid(format!("{colon} passes the module as an argument"));
                found(*line, error.hint(format!("call it with a dot: {dot}")));
            }
            Fact::Method { .. } => {}
            Fact::Called {
                path,
                args,
                open,
                line,
            } => {
                let name = path.join(".");
                if let Ok(spec) = self.registry.get(&name) {
                    primitive(spec, args, *open, *line, &mut found);
                } else {
                    self.control(&name, args, *line, &mut found);
                }
            }
        }
    }

    fn exists(&self, path: &[String], line: u32, found: &mut impl FnMut(u32, Error)) {
        let missing = |name: &str, among: Vec<&str>, prefix: &str| {
            let error = invalid(format!("there is no {}", path.join(".")));
            match near(name, &among) {
                Some(near) => error.hint(format!("did you mean {prefix}{near}?")),
                None => error,
            }
        };
        match (path, path.first().map(|name| self.globals.get(name))) {
            ([name], Some(None)) => {
                let known = self.globals.keys().map(String::as_str).collect();
                found(line, missing(name, known, ""));
            }
            ([module, name], Some(Some(Some(fields)))) if !fields.contains(name) => {
                let known = fields.iter().map(String::as_str).collect();
                found(line, missing(name, known, &format!("{module}.")));
            }
            _ => {}
        }
    }

    /// A field that the module does not have. One that cannot be loaded is reported as a file.
    fn module_field(&self, module: &str, name: &str) -> Option<Error> {
        let require: mlua::Function = self.environment.raw_get("require").ok()?;
        let LuaValue::Table(table) = require.call(module).ok()? else {
            return None;
        };
        let fields = keys(&table).ok().filter(|_| table.metatable().is_none())?;
        if fields.contains(name) {
            return None;
        }
        let error = invalid(format!("the module {module} has no {name}"));
        let known: Vec<_> = fields.iter().map(String::as_str).collect();
        Some(match near(name, &known) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error,
        })
    }

    fn control(&self, name: &str, args: &[Known], line: u32, found: &mut impl FnMut(u32, Error)) {
        let text = |n: usize| args.get(n).and_then(Known::data).and_then(text_of);
        match (name, text(0)) {
            ("require", Some(module)) => {
                if let Some(error) = self.missing_module(&module) {
                    found(line, error);
                }
            }
            ("fail", Some(kind)) if Kind::parse(&kind).is_none() => {
                let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
                let error = invalid(format!("fail: there is no error kind {kind:?}"));
                found(
                    line,
                    match near(&kind, &known) {
                        Some(near) => error.hint(format!("did you mean {near:?}?")),
                        None => error.hint(format!("there are {}", known.join(", "))),
                    },
                );
            }
            _ => {}
        }
        if let Some((position, _)) = self.controls.get(name)
            && let Some(given) = args.get(position - 1)
        {
            self.options(name, given, found);
        }
    }

    /// The options of `step`, `retry`, `parallel` or `each`.
    fn options(&self, name: &str, given: &Known, found: &mut impl FnMut(u32, Error)) {
        let (Known::Table(table), Some((_, known))) = (given, self.controls.get(name)) else {
            return;
        };
        for (key, value, line) in &table.fields {
            if !known.contains(key) {
                let known: Vec<_> = known.iter().map(String::as_str).collect();
                let error = invalid(format!("{name} has no option `{key}`"));
                found(
                    *line,
                    match near(key, &known) {
                        Some(near) => error.hint(format!("did you mean {near}?")),
                        None => error.hint(format!("it has {}", known.join(", "))),
                    },
                );
            } else if key == "retry" {
                self.options(key, value, found);
            } else if let (true, Some(value)) = (is_duration(key), value.data())
                && let Err(why) = spec::parse_duration(&value)
            {
                found(*line, invalid(format!("{name}: {key} {why}")));
            }
        }
    }

    fn missing_module(&self, name: &str) -> Option<Error> {
        let host: mlua::Function = self.vm.prelude.raw_get("find_module").ok()?;
        let (path, near): (Option<String>, Option<String>) = host.call(name).ok()?;
        if path.is_some() {
            return None;
        }
        let error = Error::new(Kind::NotFound, format!("there is no module {name:?}"));
        Some(match near.filter(|_| path.is_none()) {
            Some(near) => error.hint(format!("did you mean {near}?")),
            None => error,
        })
    }
}

fn is_duration(key: &str) -> bool {
    matches!(key, "timeout" | "delay" | "max")
}

fn text_of(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn invalid(message: String) -> Error {
    Error::new(Kind::Invalid, message)
}

fn keys(table: &Table) -> mlua::Result<BTreeSet<String>> {
    let mut keys = BTreeSet::new();
    table.for_each(|key: LuaValue, _: LuaValue| {
        keys.insert(key.to_string()?);
        Ok(())
    })?;
    Ok(keys)
}

/// The arguments of a primitive, as far as they are spelled out.
fn primitive(
    spec: &FnSpec,
    args: &[Known],
    open: bool,
    line: u32,
    found: &mut impl FnMut(u32, Error),
) {
    if spec.formats {
        return;
    }
    let mut given = args.iter();
    if let Some(subject) = &spec.subject {
        match given.next().map(Known::data) {
            None if !open => found(line, spec.missing(subject)),
            Some(Some(value)) if !value.is_null() => {
                if let Err(error) = spec.fit(subject, value) {
                    found(line, error);
                }
            }
            _ => {}
        }
    }
    let required: Vec<_> = spec
        .options
        .iter()
        .filter(|option| option.required)
        .collect();
    match given.next() {
        Some(Known::Table(table)) => {
            for (name, value, line) in &table.fields {
                let wrong = match spec.options.iter().find(|option| option.name == name) {
                    None => Some(spec.unknown(name)),
                    Some(option) => {
                        let value = value.data().filter(|value| !value.is_null());
                        value.and_then(|value| spec.fit(option, value).err())
                    }
                };
                wrong.into_iter().for_each(|error| found(*line, error));
            }
            let has = |name: &str| table.fields.iter().any(|(field, ..)| field == name);
            let mut missing = required
                .iter()
                .filter(|option| !table.open && !has(option.name));
            missing
                .by_ref()
                .for_each(|option| found(line, spec.missing(option)));
        }
        Some(Known::Data(value)) if !value.is_null() => {
            let positional = args
                .iter()
                .map(|arg| arg.data().unwrap_or_default())
                .collect();
            spec.name_arguments(positional)
                .err()
                .into_iter()
                .for_each(|e| found(line, e));
        }
        None | Some(Known::Data(_)) if !open => {
            required
                .iter()
                .for_each(|option| found(line, spec.missing(option)));
        }
        _ => {}
    }
    if let Some(Known::Data(_) | Known::Table(_)) = given.next() {
        found(
            line,
            invalid("too many arguments".to_owned())
                .op(spec.full_name())
                .hint(spec.usage()),
        );
    }
}
