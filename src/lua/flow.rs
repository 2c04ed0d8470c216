//! What a flow says about itself, and its parameters.

use super::spec;
use crate::error::{Error, Kind, Result};
use crate::suggest::near;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A loaded flow.
#[derive(Debug, Clone, Serialize)]
pub struct FlowInfo {
    /// Its name.
    pub name: String,
    /// One line.
    pub summary: String,
    /// Its actions.
    pub actions: Vec<String>,
    /// The action that runs when none is named.
    pub default: Option<String>,
    /// Its parameters.
    pub params: BTreeMap<String, ParamInfo>,
}

/// A parameter of a flow.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParamInfo {
    /// `string integer boolean enum duration size`.
    #[serde(rename = "type")]
    pub ty: String,
    /// What it means.
    #[serde(default)]
    pub help: String,
    /// Used when not given.
    #[serde(default)]
    pub default: Value,
    /// Whether it must be given.
    #[serde(default)]
    pub required: bool,
    /// The words of an `enum`.
    #[serde(default)]
    pub values: Vec<String>,
}

/// Whether a quirk applies to a node, and why or why not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QuirkVerdict {
    /// Its id.
    pub id: String,
    /// What the hardware does.
    pub why: String,
    /// `file:line` of its declaration.
    pub at: String,
    /// Whether it applies.
    pub applies: bool,
    /// Each condition with what the iLO reports.
    pub reasons: Vec<String>,
    /// What it changes: `wrap ilo.attach_vmedia, set instance_info.root_gb`.
    pub changes: String,
    /// The steps that it surrounds.
    #[serde(deserialize_with = "list")]
    pub around: Vec<String>,
    /// The day after which somebody should look whether it is still needed.
    pub expires: Option<String>,
    /// Whether that day has passed.
    pub expired: bool,
}

/// A list from Lua, where an empty one is an empty table.
fn list<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Vec<String>, D::Error> {
    let value = Value::deserialize(from)?;
    let list = Some(value)
        .filter(Value::is_array)
        .unwrap_or_else(|| Value::Array(Vec::new()));
    serde_json::from_value(list).map_err(serde::de::Error::custom)
}

impl FlowInfo {
    /// The action of this name, or the default one.
    ///
    /// # Errors
    /// `not_found` with the near miss, `invalid` if there is no default.
    pub fn action(&self, wanted: Option<&str>) -> Result<String> {
        let known: Vec<_> = self.actions.iter().map(String::as_str).collect();
        match wanted {
            Some(name) if known.contains(&name) => Ok(name.to_owned()),
            Some(name) => {
                let message = format!("the flow {} has no action {name}", self.name);
                let hint = match near(name, &known) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("it has {}", known.join(", ")),
                };
                Err(Error::new(Kind::NotFound, message).hint(hint))
            }
            None => self.default.clone().ok_or_else(|| {
                Error::new(
                    Kind::Invalid,
                    format!("the flow {} has no default action", self.name),
                )
                .hint(format!("name one of {}", known.join(", ")))
            }),
        }
    }

    /// `--param` texts → typed parameters, defaults filled in.
    ///
    /// # Errors
    /// `invalid` with the parameter, what is allowed and the near miss.
    pub fn params(&self, given: &BTreeMap<String, String>) -> Result<Value> {
        let known: Vec<_> = self.params.keys().map(String::as_str).collect();
        for name in given.keys() {
            if !self.params.contains_key(name) {
                let message = format!("the flow {} has no parameter {name}", self.name);
                return Err(
                    Error::new(Kind::Invalid, message).hint(match near(name, &known) {
                        Some(near) => format!("did you mean {near}?"),
                        None => format!("it has {}", known.join(", ")),
                    }),
                );
            }
        }
        let mut typed = Map::new();
        for (name, param) in &self.params {
            let value = match given.get(name) {
                Some(text) => parse(param, text).ok_or_else(|| self.bad(name, param, text))?,
                None if param.required => {
                    return Err(
                        Error::new(Kind::Invalid, format!("--param {name} is missing"))
                            .hint(param.help.clone()),
                    );
                }
                None => param.default.clone(),
            };
            if !value.is_null() {
                typed.insert(name.clone(), value);
            }
        }
        Ok(Value::Object(typed))
    }

    /// Parameters to try the flow with where nobody gave any.
    #[must_use]
    pub(super) fn sample(&self) -> Value {
        let value = |name: &str, param: &ParamInfo| match param.ty.as_str() {
            _ if !param.default.is_null() => param.default.clone(),
            "integer" => Value::from(1),
            "boolean" => Value::from(true),
            "enum" => param
                .values
                .first()
                .map_or(Value::Null, |v| Value::from(v.as_str())),
            "duration" => Value::from("60s"),
            "size" => Value::from(1_u64 << 30),
            _ => Value::from(format!("<{name}>")),
        };
        self.params
            .iter()
            .map(|(name, param)| (name.clone(), value(name, param)))
            .collect()
    }

    fn bad(&self, name: &str, param: &ParamInfo, text: &str) -> Error {
        let wanted = match param.ty.as_str() {
            "enum" => format!("one of {}", param.values.join(", ")),
            other => format!("of type {other}"),
        };
        Error::new(
            Kind::Invalid,
            format!("--param {name} must be {wanted}, not {text:?}"),
        )
        .target(self.name.clone())
    }
}

fn parse(param: &ParamInfo, text: &str) -> Option<Value> {
    match param.ty.as_str() {
        "integer" => text.parse::<i64>().ok().map(Value::from),
        "boolean" => text.parse::<bool>().ok().map(Value::from),
        "enum" => param
            .values
            .iter()
            .any(|v| v == text)
            .then(|| Value::from(text)),
        "duration" => spec::parse_duration(&Value::from(text))
            .ok()
            .map(|_| Value::from(text)),
        "size" => spec::parse_size(text).map(Value::from),
        _ => Some(Value::from(text)),
    }
}

/// Reads the table that `flow { … }` made, as JSON without its functions.
pub(super) fn read(
    name: String,
    fields: &Map<String, Value>,
    actions: Vec<String>,
) -> Result<FlowInfo> {
    let text = |field: &str| fields.get(field).and_then(Value::as_str).map(str::to_owned);
    if let Some(wanted) = text("api") {
        check_api(&wanted)?;
    }
    let params: BTreeMap<String, ParamInfo> = match fields.get("params") {
        None => BTreeMap::new(),
        Some(params) => serde_json::from_value(params.clone()).map_err(|e| {
            Error::new(Kind::Invalid, format!("flow: params: {e}"))
                .hint("name = { type = \"string\", default = …, help = \"…\" }")
        })?,
    };
    const TYPES: [&str; 6] = ["string", "integer", "boolean", "enum", "duration", "size"];
    for (param, info) in &params {
        if !TYPES.contains(&info.ty.as_str()) {
            let message = format!(
                "flow: the parameter {param} has the unknown type {:?}",
                info.ty
            );
            return Err(
                Error::new(Kind::Invalid, message).hint(format!("types are {}", TYPES.join(", ")))
            );
        }
    }
    let default = text("default")
        .or_else(|| actions.iter().find(|a| *a == "deploy").cloned())
        .or_else(|| {
            (actions.len() == 1)
                .then(|| actions.first().cloned())
                .flatten()
        });
    Ok(FlowInfo {
        summary: text("summary").unwrap_or_default(),
        name,
        actions,
        default,
        params,
    })
}

/// `api = ">= 0.1"`: refused at load, not at minute 30.
fn check_api(wanted: &str) -> Result<()> {
    let ours = (
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
    );
    let number = |text: &str| text.parse::<u32>().ok();
    let asked = wanted.trim().strip_prefix(">=").and_then(|version| {
        let (major, minor) = version.trim().split_once('.')?;
        Some((number(major)?, number(minor)?))
    });
    let Some(asked) = asked else {
        return Err(Error::new(
            Kind::Invalid,
            format!("flow: api = {wanted:?} is not understood"),
        )
        .hint("write api = \">= 0.1\""));
    };
    let ours = (number(ours.0).unwrap_or(0), number(ours.1).unwrap_or(0));
    if asked <= ours {
        return Ok(());
    }
    let message = format!(
        "the flow wants api {wanted}, this flowrun has {}.{}",
        ours.0, ours.1
    );
    Err(Error::new(Kind::Unsupported, message).hint("use a newer flowrun"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn info() -> FlowInfo {
        let fields = json!({ "params": {
            "boot_option": { "type": "enum", "values": ["local", "netboot"], "default": "local" },
            "tries": { "type": "integer", "required": true, "help": "how often" },
        }});
        let Value::Object(fields) = fields else {
            unreachable!()
        };
        read(
            "f".into(),
            &fields,
            vec!["deploy".into(), "tear_down".into()],
        )
        .unwrap()
    }

    #[test]
    fn parameters_are_typed_and_defaulted() {
        let given = [("tries".to_owned(), "3".to_owned())].into();
        assert_eq!(
            info().params(&given).unwrap(),
            json!({ "boot_option": "local", "tries": 3 })
        );
        assert!(info().params(&BTreeMap::new()).is_err());
        let typo = [("tires".to_owned(), "3".to_owned())].into();
        assert_eq!(
            info().params(&typo).unwrap_err().advice(),
            Some("did you mean tries?")
        );
    }

    #[test]
    fn deploy_is_the_default_action() {
        assert_eq!(info().action(None).unwrap(), "deploy");
        assert_eq!(
            info().action(Some("teardown")).unwrap_err().advice(),
            Some("did you mean tear_down?")
        );
    }

    #[test]
    fn a_newer_api_is_refused_at_load() {
        assert!(check_api(">= 0.1").is_ok());
        assert_eq!(check_api(">= 9.0").unwrap_err().kind(), Kind::Unsupported);
        assert_eq!(check_api("soon").unwrap_err().kind(), Kind::Invalid);
    }
}
