//! Checks an argument against its type and brings it to its one form.

use super::{Record, Ty, one_of};
use crate::engine::LiveRef;
use crate::suggest::near;
use serde_json::{Map, Value};

/// Why a value does not fit.
pub(super) struct Wrong {
    pub(super) path: String,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

fn wrong(expected: &str, value: &Value) -> Wrong {
    Wrong {
        path: String::new(),
        message: format!("must be {expected}, not {}", show(value)),
        hint: None,
    }
}

fn inside(path: &str, mut wrong: Wrong) -> Wrong {
    wrong.path.insert_str(0, path);
    wrong
}

/// Checks `value` against `ty` and brings it to its one form.
pub(super) fn coerce(ty: &Ty, value: Value) -> Result<Value, Wrong> {
    match (ty, value) {
        (Ty::Any, value) | (Ty::Boolean, value @ Value::Bool(_)) => Ok(value),
        (Ty::String | Ty::Text, Value::String(text)) => Ok(Value::String(text)),
        (Ty::Text | Ty::Live(_), value) if LiveRef::from_value(&value).is_some() => Ok(value),
        (Ty::Integer, Value::Number(n)) if n.is_i64() || n.is_u64() => Ok(Value::Number(n)),
        (Ty::Node, value) => node_name(value),
        (Ty::Duration, value) => duration(&value).map(Value::from),
        (Ty::Size, value) => size(&value).map(Value::from),
        (Ty::Enum(words), Value::String(word)) => enumerated(words, word),
        (Ty::List(item), Value::Array(items)) => items
            .into_iter()
            .enumerate()
            .map(|(i, value)| coerce(item, value).map_err(|w| inside(&format!("[{}]", i + 1), w)))
            .collect::<Result<_, _>>()
            .map(Value::Array),
        (Ty::List(_), Value::Object(fields)) if fields.is_empty() => Ok(Value::Array(Vec::new())),
        (Ty::Map(item), Value::Object(fields)) => fields
            .into_iter()
            .map(|(key, value)| {
                let value = coerce(item, value).map_err(|w| inside(&format!(".{key}"), w))?;
                Ok((key, value))
            })
            .collect::<Result<Map<_, _>, _>>()
            .map(Value::Object),
        (Ty::Record(record), Value::Object(fields)) => coerce_record(record, fields),
        (ty, value) => Err(wrong(&ty.describe(), &value)),
    }
}

fn node_name(value: Value) -> Result<Value, Wrong> {
    match value {
        Value::String(name) => Ok(Value::String(name)),
        Value::Object(mut fields) => match fields.remove("name") {
            Some(Value::String(name)) => Ok(Value::String(name)),
            _ => Err(wrong("a node", &Value::Object(fields))),
        },
        other => Err(wrong("a node", &other)),
    }
}

fn enumerated(words: &[&str], word: String) -> Result<Value, Wrong> {
    if words.contains(&word.as_str()) {
        return Ok(Value::String(word));
    }
    let hint = near(&word, words).map(|near| format!("did you mean {near:?}?"));
    Err(Wrong {
        hint,
        ..wrong(&one_of(words), &Value::String(word))
    })
}

fn coerce_record(record: &Record, mut fields: Map<String, Value>) -> Result<Value, Wrong> {
    for (name, ty, _) in record.fields {
        if let Some(value) = fields.remove(*name).filter(|value| !value.is_null()) {
            let value = coerce(ty, value).map_err(|w| inside(&format!(".{name}"), w))?;
            fields.insert((*name).to_owned(), value);
        }
    }
    Ok(Value::Object(fields))
}

/// A duration in seconds: `"90s"`, `"15m"`, `"2h"`, `"250ms"`, or a number of seconds.
pub(in crate::lua) fn parse_duration(value: &Value) -> Result<f64, String> {
    duration(value).map_err(|wrong| wrong.message)
}

fn duration(value: &Value) -> Result<f64, Wrong> {
    let parsed = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => humantime::parse_duration(text)
            .ok()
            .map(|d| d.as_secs_f64()),
        _ => None,
    };
    parsed
        .filter(|seconds| (0.0..=366.0 * 86400.0).contains(seconds))
        .ok_or_else(|| wrong("a duration such as \"90s\", \"15m\" or \"2h\"", value))
}

fn size(value: &Value) -> Result<u64, Wrong> {
    let parsed = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => parse_size(text),
        _ => None,
    };
    parsed.ok_or_else(|| wrong("a size such as \"10GiB\", \"512MiB\" or bytes", value))
}

/// `10GiB`, `512 MiB`, `1000MB` or bytes.
pub(in crate::lua) fn parse_size(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "KB" | "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A value as an error shows it: short, and no secret since references are opaque.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Array(_) => "a list".into(),
        Value::Object(_) if LiveRef::from_value(value).is_some() => "a secret or session".into(),
        Value::Object(_) => "a table".into(),
        Value::String(text) if text.chars().count() > 40 => "a long text".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("10GiB"), Some(10 << 30));
        assert_eq!(parse_size("5 MB"), Some(5_000_000));
        assert_eq!(parse_size("5 parsecs"), None);
        assert_eq!(parse_size("99999999TiB"), None);
    }
}
