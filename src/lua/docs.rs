//! `flowrun help` and the editor's types, printed from the registry.

use super::spec::{FnSpec, Param, Record, Registry, Ty};
use crate::error::{Error, Kind, Result};
use crate::suggest::near;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The page of a primitive or module, or the list of all.
///
/// # Errors
/// `not_found` with the near miss.
pub fn help(registry: &Registry, topic: Option<&str>) -> Result<String> {
    let Some(topic) = topic else {
        return Ok(overview(registry));
    };
    if topic == "quirk" {
        return Ok(QUIRK.to_owned());
    }
    if let Ok(spec) = registry.get(topic) {
        return Ok(page(spec));
    }
    let module: Vec<_> = registry
        .iter()
        .filter(|spec| spec.module == topic)
        .collect();
    if !module.is_empty() {
        return Ok(module.iter().map(|spec| line(spec)).collect());
    }
    let mut names: Vec<String> = registry.iter().map(|spec| spec.full_name()).collect();
    names.extend(registry.iter().map(|spec| spec.module.to_owned()));
    names.push("quirk".to_owned());
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let error = Error::new(Kind::NotFound, format!("there is no help on {topic}"));
    Err(match near(topic, &names) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error.hint("`flowrun help` lists what there is"),
    })
}

fn overview(registry: &Registry) -> String {
    let mut text =
        String::from("Primitives that a flow can call; `flowrun help NAME` shows one.\n");
    let mut module = None;
    for spec in registry.iter() {
        if module != Some(spec.module) {
            module = Some(spec.module);
            text.push('\n');
        }
        text.push_str(&line(spec));
    }
    text.push_str(
        "\nControl: step, retry, defer, at_end, undo, parallel, each, try, fail, require, flow.\n\
         Quirks of particular hardware: `flowrun help quirk`.\n",
    );
    text
}

fn line(spec: &FnSpec) -> String {
    format!("  {:<30} {}\n", spec.full_name(), spec.summary)
}

fn page(spec: &FnSpec) -> String {
    let mut text = format!("{}\n\n{}\n", spec.usage(), spec.summary);
    for param in spec.subject.iter().chain(&spec.options) {
        if text.ends_with(".\n") || text.ends_with("\n\n") {
            text.push('\n');
        }
        _ = writeln!(text, "  {:<14} {}", param.name, describe(param));
    }
    if spec.returns.0 != Ty::Nothing {
        _ = write!(
            text,
            "\nReturns {}: {}\n",
            spec.returns.0.describe(),
            spec.returns.1
        );
        if let Ty::Record(record) = &spec.returns.0 {
            for (name, ty, doc) in record.fields {
                _ = writeln!(text, "  {name:<14} {doc} ({})", ty.describe());
            }
        }
    }
    if !spec.errors.is_empty() {
        text.push_str("\nFails with\n");
        for (kind, when) in &spec.errors {
            _ = writeln!(text, "  {:<14} {when}", kind.as_str());
        }
    }
    _ = write!(
        text,
        "\nClass {}: {}\n",
        spec.class.as_str(),
        class_note(spec)
    );
    if !spec.example.is_empty() {
        text.push_str("\nExample\n");
        for each in spec.example.lines() {
            _ = writeln!(text, "  {each}");
        }
    }
    text
}

fn describe(param: &Param) -> String {
    let default = match (&param.default, param.required) {
        (Some(value), _) => format!("; default {value}"),
        (None, true) => String::new(),
        (None, false) => "; optional".to_owned(),
    };
    format!("{} ({}{default})", param.doc, param.ty.describe())
}

fn class_note(spec: &FnSpec) -> &'static str {
    use crate::engine::Class::{Effect, EffectProbe, Live, Pure, Read, Wait};
    match spec.class {
        Read => "looks only; a resumed run sees the answer it saw before.",
        Effect => "changes something; after a crash in the middle it is done again.",
        EffectProbe => "changes something; after a crash in the middle the device is asked first.",
        Pure => "a function of its arguments.",
        Live => "a session or secret; never recorded, opened again when a resumed run uses it.",
        Wait => "waits; its deadline survives a crash.",
    }
}

/// File name → text of the LuaLS/EmmyLua stubs, one file a module.
#[must_use]
pub fn types(registry: &Registry) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    files.insert("control.lua".to_owned(), CONTROL.to_owned());
    let mut modules: BTreeMap<&str, Vec<&FnSpec>> = BTreeMap::new();
    for spec in registry.iter() {
        modules.entry(spec.module).or_default().push(spec);
    }
    for (module, specs) in modules {
        let name = if module.is_empty() { "globals" } else { module };
        files.insert(format!("{name}.lua"), stub(module, &specs));
    }
    files
}

fn stub(module: &str, specs: &[&FnSpec]) -> String {
    let mut text = String::from(
        "---@meta\n-- Written by `flowrun types`; edits are lost. Types for editors, not run.\n",
    );
    let mut records: BTreeMap<&str, &Record> = BTreeMap::new();
    for spec in specs {
        let types = spec.subject.iter().chain(&spec.options).map(|p| &p.ty);
        types
            .chain([&spec.returns.0])
            .for_each(|ty| collect(ty, &mut records));
    }
    for record in records.values() {
        _ = write!(text, "\n---{}\n---@class {}\n", record.doc, record.name);
        for (name, ty, doc) in record.fields {
            _ = writeln!(text, "---@field {name} {} {doc}", lua_type(ty));
        }
    }
    if !module.is_empty() {
        _ = write!(text, "\n{module} = {{}}\n");
    }
    for spec in specs {
        text.push_str(&function(spec));
    }
    text
}

fn collect<'a>(ty: &'a Ty, records: &mut BTreeMap<&'a str, &'a Record>) {
    match ty {
        Ty::Record(record) => {
            records.insert(record.name, record);
            record
                .fields
                .iter()
                .for_each(|(_, ty, _)| collect(ty, records));
        }
        Ty::List(item) | Ty::Map(item) => collect(item, records),
        _ => {}
    }
}

fn function(spec: &FnSpec) -> String {
    let mut text = format!("\n---{}\n", spec.summary);
    for each in spec.example.lines() {
        _ = writeln!(text, "---    {each}");
    }
    let mut names: Vec<&str> = Vec::new();
    if let Some(subject) = &spec.subject {
        names.push(subject.name);
        _ = writeln!(
            text,
            "---@param {} {} {}",
            subject.name,
            lua_type(&subject.ty),
            subject.doc
        );
    }
    if spec.formats {
        names.push("...");
        text.push_str("---@param ... any formatted into the text\n");
    }
    if !spec.options.is_empty() {
        let optional = spec.options.iter().all(|p| !p.required);
        let fields: Vec<_> = spec
            .options
            .iter()
            .map(|p| {
                let mark = if p.required { "" } else { "?" };
                format!("{}{mark}: {}", p.name, lua_type(&p.ty))
            })
            .collect();
        let name = if optional { "o?" } else { "o" };
        _ = writeln!(text, "---@param {name} {{ {} }}", fields.join(", "));
        names.push("o");
    }
    if spec.returns.0 != Ty::Nothing {
        _ = writeln!(
            text,
            "---@return {} # {}",
            lua_type(&spec.returns.0),
            spec.returns.1
        );
    }
    _ = writeln!(
        text,
        "function {}({}) end",
        spec.full_name(),
        names.join(", ")
    );
    text
}

fn lua_type(ty: &Ty) -> String {
    match ty {
        Ty::Node => "Node".into(),
        Ty::String => "string".into(),
        Ty::Text => "string|Secret".into(),
        Ty::Integer => "integer".into(),
        Ty::Boolean => "boolean".into(),
        Ty::Duration | Ty::Size => "string|number".into(),
        Ty::Enum(words) => words
            .iter()
            .map(|word| format!("{word:?}"))
            .collect::<Vec<_>>()
            .join("|"),
        Ty::List(item) => format!("({})[]", lua_type(item)),
        Ty::Map(item) => format!("table<string, {}>", lua_type(item)),
        Ty::Record(record) => record.name.into(),
        Ty::Live("secret") => "Secret".into(),
        Ty::Live(_) => "Session".into(),
        Ty::Any => "any".into(),
        Ty::Nothing => "nil".into(),
    }
}

/// The control structures are Lua (the prelude), so their types are written by hand.
const CONTROL: &str = include_str!("control_types.lua");

/// The page on quirks.
const QUIRK: &str = include_str!("quirk.txt");
