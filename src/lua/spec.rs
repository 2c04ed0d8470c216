//! Declarations of primitives: each is declared once, with its types, class and documentation.
//!
//! The declaration checks arguments (from Lua and from `flowrun call` alike) and is what help,
//! manual and editor types are printed from.

use crate::engine::{Call, Class, Primitive, Probe, Reply};
use crate::error::{Error, Kind, Result};
use crate::suggest::near;
use coerce::{Wrong, coerce, show};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;

pub(super) use coerce::{parse_duration, parse_size};
pub use registry::Registry;

mod coerce;
mod registry;

/// The type of an argument or result.
#[derive(Debug, Clone, PartialEq)]
pub enum Ty {
    /// A node of the inventory; Lua passes the `node` it was given, JSON its name.
    Node,
    /// Text.
    String,
    /// Text, or a secret that a primitive returned.
    Text,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// `"90s"`, `"15m"`, `"2h"` or seconds; arrives as seconds.
    Duration,
    /// `"10GiB"` or bytes; arrives as bytes.
    Size,
    /// One of these words.
    Enum(&'static [&'static str]),
    /// A list.
    List(&'static Self),
    /// Free-form named values.
    Map(&'static Self),
    /// Named fields, documented under a type name.
    Record(&'static Record),
    /// A session or secret of this kind, as a primitive returned it.
    Live(&'static str),
    /// Anything that is data.
    Any,
    /// No result.
    Nothing,
}

/// A table with known fields.
#[derive(Debug, PartialEq)]
pub struct Record {
    /// Its name in the types (`Image`).
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Name, type, what it means. Values from primitives may carry more.
    pub fields: &'static [(&'static str, Ty, &'static str)],
}

/// A named argument.
#[derive(Debug, Clone)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub ty: Ty,
    /// Whether it must be given.
    pub required: bool,
    /// What it is when not given.
    pub default: Option<Value>,
    /// What it means.
    pub doc: &'static str,
}

impl Param {
    /// Whether a checked value is what stands for it when nothing is given.
    #[must_use]
    pub fn is_default(&self, checked: &Value) -> bool {
        let default = self.default.clone().map(|value| coerce(&self.ty, value));
        matches!(default, Some(Ok(default)) if default == *checked)
    }
}

pub(super) type Simulated = Arc<dyn Fn(&Value) -> Value + Send + Sync>;
type Execute = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Reply>> + Send + Sync>;
type Holds = Arc<dyn Fn(Call, Value) -> BoxFuture<'static, bool> + Send + Sync>;
type ProbeFn = Arc<dyn Fn(Call) -> BoxFuture<'static, Result<Probe>> + Send + Sync>;

/// A primitive's declaration.
#[derive(Clone)]
pub struct FnSpec {
    /// Its module; empty for a global function.
    pub module: &'static str,
    /// Its name in the module.
    pub name: &'static str,
    /// Its crash class.
    pub class: Class,
    /// First line of the documentation, present tense.
    pub summary: &'static str,
    /// The positional argument.
    pub subject: Option<Param>,
    /// What the table takes.
    pub options: Vec<Param>,
    /// What comes back.
    pub returns: (Ty, &'static str),
    /// Kinds and when.
    pub errors: Vec<(Kind, &'static str)>,
    /// A line or two of Lua, with what they print.
    pub example: &'static str,
    /// More than one argument after a text is formatted into it, as by `string.format`.
    pub formats: bool,
    /// Whether the journal keeps results.
    pub recorded: bool,
    /// Whether it touches nothing outside of its run: a dry run executes it.
    pub inert: bool,
    /// What a change sets, and a read of the same name shows, in a dry run.
    pub(super) fact: Option<&'static str>,
    /// What a dry run answers to these arguments, where the result's type does not say it all.
    pub(super) simulated: Option<Simulated>,
    execute: Execute,
    probe: Option<ProbeFn>,
    holds: Option<Holds>,
}

impl fmt::Debug for FnSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnSpec")
            .field("name", &self.full_name())
            .finish_non_exhaustive()
    }
}

impl FnSpec {
    /// Begins a declaration.
    pub fn new(
        module: &'static str,
        name: &'static str,
        class: Class,
        summary: &'static str,
    ) -> Self {
        let missing: Execute = Arc::new(|call| {
            Box::pin(async move {
                Err(Error::new(
                    Kind::Internal,
                    format!("{} has no body", call.name),
                ))
            })
        });
        Self {
            module,
            name,
            class,
            summary,
            subject: None,
            options: Vec::new(),
            returns: (Ty::Nothing, ""),
            errors: Vec::new(),
            example: "",
            formats: false,
            recorded: true,
            inert: false,
            fact: None,
            simulated: None,
            execute: missing,
            probe: None,
            holds: None,
        }
    }

    /// Takes a positional argument.
    #[must_use]
    pub fn subject(mut self, name: &'static str, ty: Ty, doc: &'static str) -> Self {
        self.subject = Some(Param {
            name,
            ty,
            required: true,
            default: None,
            doc,
        });
        self
    }

    /// Takes a named argument that must be given.
    #[must_use]
    pub fn required(mut self, name: &'static str, ty: Ty, doc: &'static str) -> Self {
        self.options.push(Param {
            name,
            ty,
            required: true,
            default: None,
            doc,
        });
        self
    }

    /// Takes a named argument that may be left out.
    #[must_use]
    pub fn optional(mut self, name: &'static str, ty: Ty, doc: &'static str) -> Self {
        self.options.push(Param {
            name,
            ty,
            required: false,
            default: None,
            doc,
        });
        self
    }

    /// Takes a named argument with a default.
    #[must_use]
    pub fn default(
        mut self,
        name: &'static str,
        ty: Ty,
        value: impl Into<Value>,
        doc: &'static str,
    ) -> Self {
        self.options.push(Param {
            name,
            ty,
            required: false,
            default: Some(value.into()),
            doc,
        });
        self
    }

    /// Says what comes back.
    #[must_use]
    pub fn returns(mut self, ty: Ty, doc: &'static str) -> Self {
        self.returns = (ty, doc);
        self
    }

    /// Says when it fails with this kind.
    #[must_use]
    pub fn error(mut self, kind: Kind, when: &'static str) -> Self {
        self.errors.push((kind, when));
        self
    }

    /// Shows it in use.
    #[must_use]
    pub fn example(mut self, lua: &'static str) -> Self {
        self.example = lua;
        self
    }

    /// Formats further arguments into the first.
    #[must_use]
    pub fn formats(mut self) -> Self {
        self.formats = true;
        self
    }

    /// Computes again at a replay instead of recording; for cheap `pure` functions.
    #[must_use]
    pub fn unrecorded(mut self) -> Self {
        self.recorded = false;
        self
    }

    /// Executes in a dry run too: it touches nothing outside of its run.
    #[must_use]
    pub fn inert(mut self) -> Self {
        self.inert = true;
        self
    }

    /// In a dry run a change with this fact is what a read with it shows.
    #[must_use]
    pub fn fact(mut self, name: &'static str) -> Self {
        self.fact = Some(name);
        self
    }

    /// Gives what a dry run answers to these arguments, laid over what the type of the result says:
    /// the answer with which a deploy goes on. Fields that it leaves out, and states that a loop
    /// waits for, come from the type.
    #[must_use]
    pub fn simulated(mut self, answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        self.simulated = Some(Arc::new(answer));
        self
    }

    /// Gives the function that asks the device whether an earlier execution took effect.
    #[must_use]
    pub fn probe<F>(mut self, probe: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Probe>> + Send + 'static,
    {
        self.probe = Some(Arc::new(move |call| Box::pin(probe(call))));
        self
    }

    /// Gives the function that takes up what a recorded result needs in a resumed run, and says
    /// whether the result holds.
    #[must_use]
    pub fn holds<F>(mut self, holds: impl Fn(Call, Value) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.holds = Some(Arc::new(move |call, result| Box::pin(holds(call, result))));
        self
    }

    /// Gives the body and ends the declaration.
    #[must_use]
    pub fn run<F>(mut self, execute: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Reply>> + Send + 'static,
    {
        self.execute = Arc::new(move |call| Box::pin(execute(call)));
        self
    }

    /// `ilo.attach_vmedia`, or `sleep`.
    #[must_use]
    pub fn full_name(&self) -> String {
        if self.module.is_empty() {
            self.name.to_owned()
        } else {
            format!("{}.{}", self.module, self.name)
        }
    }

    /// Positional arguments as Lua gave them → named arguments.
    ///
    /// # Errors
    /// `invalid` if there are too many, or the options are not a table.
    pub fn name_arguments(&self, positional: Vec<Value>) -> Result<Map<String, Value>> {
        let mut given = positional.into_iter();
        let mut named = Map::new();
        let subject = self
            .subject
            .as_ref()
            .and_then(|param| Some((param, given.next()?)));
        match given.next() {
            None | Some(Value::Null) => {}
            Some(Value::Object(options)) => named = options,
            Some(Value::Array(items)) if items.is_empty() => {}
            Some(other) => {
                return Err(self
                    .invalid(format!("the options must be a table, not {}", show(&other)))
                    .hint(self.usage()));
            }
        }
        if given.any(|extra| !extra.is_null()) {
            return Err(self
                .invalid("too many arguments".to_owned())
                .hint(self.usage()));
        }
        if let Some((param, value)) = subject {
            if named.contains_key(param.name) {
                let message = format!("`{}` is the first argument, not an option", param.name);
                return Err(self.invalid(message).hint(self.usage()));
            }
            named.insert(param.name.to_owned(), value);
        }
        Ok(named)
    }

    /// Checks names and types, fills defaults, and reads durations and sizes.
    ///
    /// # Errors
    /// `invalid` with the name, what came, what is allowed and the near miss.
    pub fn check(&self, mut named: Map<String, Value>) -> Result<Value> {
        let mut checked = Map::new();
        for param in self.subject.iter().chain(&self.options) {
            let value = named.remove(param.name).filter(|value| !value.is_null());
            let value = match value.or_else(|| param.default.clone()) {
                Some(value) => self.fit(param, value)?,
                None if param.required => return Err(self.missing(param)),
                None => continue,
            };
            checked.insert(param.name.to_owned(), value);
        }
        match named.keys().next() {
            Some(unknown) => Err(self.unknown(unknown)),
            None => Ok(Value::Object(checked)),
        }
    }

    /// Checks one value, and brings it to its one form.
    pub(super) fn fit(&self, param: &Param, value: Value) -> Result<Value> {
        coerce(&param.ty, value).map_err(|wrong| self.wrong_value(param.name, &wrong))
    }

    pub(super) fn missing(&self, param: &Param) -> Error {
        self.invalid(format!("`{}` is missing", param.name))
            .hint(self.usage())
    }

    pub(super) fn unknown(&self, option: &str) -> Error {
        let names: Vec<_> = self.options.iter().map(|param| param.name).collect();
        let error = self.invalid(format!("there is no option `{option}`"));
        match near(option, &names) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(self.usage()),
        }
    }

    fn wrong_value(&self, name: &str, wrong: &Wrong) -> Error {
        let error = self.invalid(format!("`{name}{}` {}", wrong.path, wrong.message));
        match &wrong.hint {
            Some(hint) => error.hint(hint.clone()),
            None => error,
        }
    }

    fn invalid(&self, message: String) -> Error {
        Error::new(Kind::Invalid, message).op(self.full_name())
    }

    /// `ilo.attach_vmedia(node, { device = …, url = … })`.
    #[must_use]
    pub fn usage(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.subject.iter().map(|param| param.name.to_owned()));
        if self.formats {
            parts.push("...".to_owned());
        }
        if !self.options.is_empty() {
            let names: Vec<_> = self
                .options
                .iter()
                .map(|p| {
                    if p.required {
                        format!("{} = …", p.name)
                    } else {
                        format!("[{}]", p.name)
                    }
                })
                .collect();
            parts.push(format!("{{ {} }}", names.join(", ")));
        }
        format!("{}({})", self.full_name(), parts.join(", "))
    }
}

impl Primitive for FnSpec {
    fn class(&self) -> Class {
        self.class
    }

    fn recorded(&self) -> bool {
        self.recorded
    }

    fn execute(&self, call: Call) -> BoxFuture<'static, Result<Reply>> {
        (self.execute)(call)
    }

    /// An artifact has to be there; anything else holds unless its primitive knows better.
    fn still_holds(&self, call: Call, result: Value) -> BoxFuture<'static, bool> {
        if let Some(holds) = &self.holds {
            return holds(call, result);
        }
        let path = result.get("path").and_then(Value::as_str);
        let path = path.filter(|_| self.class == Class::Pure);
        let there = path.is_none_or(|path| std::path::Path::new(path).exists());
        Box::pin(std::future::ready(there))
    }

    fn probe(&self, call: Call) -> BoxFuture<'static, Result<Probe>> {
        match &self.probe {
            Some(probe) => probe(call),
            None => Box::pin(async { Ok(Probe::NotDone) }),
        }
    }
}

impl Ty {
    /// What an operator calls it.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Node => "a node".into(),
            Self::String => "a text".into(),
            Self::Text => "a text or secret".into(),
            Self::Integer => "a whole number".into(),
            Self::Boolean => "true or false".into(),
            Self::Duration => "a duration such as \"90s\", \"15m\" or \"2h\"".into(),
            Self::Size => "a size such as \"10GiB\" or bytes".into(),
            Self::Enum(words) => one_of(words),
            Self::List(item) => format!("a list ({})", item.describe()),
            Self::Map(_) => "a table of named values".into(),
            Self::Record(record) => format!("a table ({})", record.name),
            Self::Live(what) => format!("a {what}"),
            Self::Any => "any data".into(),
            Self::Nothing => "nothing".into(),
        }
    }
}

fn one_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => "nothing".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn attach() -> FnSpec {
        FnSpec::new("ilo", "attach_vmedia", Class::Effect, "Inserts.")
            .subject("node", Ty::Node, "")
            .required("device", Ty::Enum(&["cdrom", "floppy"]), "")
            .required("url", Ty::Text, "")
            .default("timeout", Ty::Duration, "30s", "")
    }

    fn check(positional: Value) -> Result<Value> {
        let Value::Array(positional) = positional else {
            panic!("a list")
        };
        let spec = attach();
        spec.check(spec.name_arguments(positional)?)
    }

    #[test]
    fn brings_arguments_to_one_form() {
        let given =
            json!([{ "name": "lab-1", "uuid": "x" }, { "device": "cdrom", "url": "http://x" }]);
        let wanted =
            json!({ "node": "lab-1", "device": "cdrom", "url": "http://x", "timeout": 30.0 });
        assert_eq!(check(given).unwrap(), wanted);
    }

    #[test]
    fn names_what_is_wrong_and_the_near_miss() {
        let cases = [
            (
                json!(["n", { "device": "cdrom", "url": "u", "tiemout": 3 }]),
                "there is no option `tiemout`",
                Some("did you mean `timeout`?"),
            ),
            (
                json!(["n", { "device": "cdron", "url": "u" }]),
                "`device` must be \"cdrom\" or \"floppy\", not \"cdron\"",
                Some("did you mean \"cdrom\"?"),
            ),
            (
                json!(["n", { "device": "cdrom" }]),
                "`url` is missing",
                None,
            ),
            (
                json!(["n", { "device": "cdrom", "url": 7 }]),
                "`url` must be a text or secret, not 7",
                None,
            ),
            (
                json!(["n", "cdrom"]),
                "the options must be a table, not \"cdrom\"",
                None,
            ),
            (json!(["n", {}, 3]), "too many arguments", None),
        ];
        for (given, message, hint) in cases {
            let error = check(given).unwrap_err();
            assert_eq!((error.kind(), error.message()), (Kind::Invalid, message));
            if hint.is_some() {
                assert_eq!(error.advice(), hint);
            }
        }
    }
}
