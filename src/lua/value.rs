//! Plain data between Lua and JSON. References to live values travel as opaque userdata.

use crate::engine::LiveRef;
use crate::error::{Error, Kind, Result};
use mlua::{Lua, MetaMethod, Table, UserData, UserDataMethods, Value as LuaValue};
use serde_json::{Map, Number, Value};

/// Deepest nesting that is data and not a loop.
const MAX_DEPTH: usize = 64;

/// A secret or handle as a flow holds it: it can be passed on, not read.
#[derive(Debug, Clone)]
pub(super) struct Live(pub(super) LiveRef);

impl UserData for Live {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_meta_method(MetaMethod::ToString, |_, live, ()| {
            Ok(format!("<{}>", live.0.origin.0))
        });
    }
}

/// Lua to JSON.
pub(super) fn to_json(value: &LuaValue) -> Result<Value> {
    convert(value, 0)
}

fn convert(value: &LuaValue, depth: usize) -> Result<Value> {
    if depth > MAX_DEPTH {
        return Err(invalid(
            "a table nested deeper than 64 levels, or one that holds itself",
        ));
    }
    match value {
        LuaValue::Nil => Ok(Value::Null),
        LuaValue::Boolean(flag) => Ok(Value::Bool(*flag)),
        LuaValue::Integer(number) => Ok(Value::from(*number)),
        LuaValue::Number(number) => Number::from_f64(*number)
            .map(Value::Number)
            .ok_or_else(|| invalid("a number that is not finite")),
        LuaValue::String(text) => text
            .to_str()
            .map(|text| Value::String(text.to_owned()))
            .map_err(|_| invalid("a string that is not UTF-8")),
        LuaValue::Table(table) => convert_table(table, depth),
        LuaValue::UserData(data) => match data.borrow::<Live>() {
            Ok(live) => serde_json::to_value(&live.0)
                .map_err(|e| Error::new(Kind::Internal, "reference").caused_by(&e)),
            Err(_) => Err(invalid("a value that cannot be passed on")),
        },
        other => Err(invalid(&format!(
            "a {}, where data is expected",
            other.type_name()
        ))),
    }
}

fn convert_table(table: &Table, depth: usize) -> Result<Value> {
    let table = unfrozen(table);
    let length = table.raw_len();
    let mut items = Vec::new();
    let mut fields = Map::new();
    let mut failure = None;
    let walked = table.for_each(|key: LuaValue, value: LuaValue| {
        let converted = convert(&value, depth + 1);
        match (key, converted) {
            (_, Err(error)) => failure = Some(error),
            (LuaValue::String(key), Ok(value)) => match key.to_str() {
                Ok(key) => drop(fields.insert(key.to_owned(), value)),
                Err(_) => failure = Some(invalid("a key that is not UTF-8")),
            },
            (LuaValue::Integer(index), Ok(value)) => items.push((index, value)),
            (key, Ok(_)) => {
                failure = Some(invalid(&format!("a {} as key of a table", key.type_name())));
            }
        }
        Ok(())
    });
    if let Some(error) = failure {
        return Err(error);
    }
    walked.map_err(|e| invalid(&e.to_string()))?;
    if items.is_empty() {
        return Ok(Value::Object(fields));
    }
    if !fields.is_empty() || items.len() != length {
        return Err(invalid(
            "a table that is neither a list nor a set of named fields",
        ));
    }
    items.sort_by_key(|(index, _)| *index);
    Ok(Value::Array(
        items.into_iter().map(|(_, value)| value).collect(),
    ))
}

/// The table behind a frozen one.
fn unfrozen(table: &Table) -> Table {
    table
        .metatable()
        .and_then(|meta| meta.raw_get::<Table>("__raw").ok())
        .unwrap_or_else(|| table.clone())
}

/// JSON to Lua. `null` is nil.
pub(super) fn from_json(lua: &Lua, value: &Value) -> mlua::Result<LuaValue> {
    Ok(match value {
        Value::Null => LuaValue::Nil,
        Value::Bool(flag) => LuaValue::Boolean(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => LuaValue::Integer(integer),
            None => LuaValue::Number(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => LuaValue::String(lua.create_string(text)?),
        Value::Array(items) => {
            let table = lua.create_table_with_capacity(items.len(), 0)?;
            for item in items {
                table.raw_push(from_json(lua, item)?)?;
            }
            LuaValue::Table(table)
        }
        Value::Object(fields) => match LiveRef::from_value(value) {
            Some(reference) => LuaValue::UserData(lua.create_userdata(Live(reference))?),
            None => {
                let table = lua.create_table_with_capacity(0, fields.len())?;
                for (key, field) in fields {
                    table.raw_set(key.as_str(), from_json(lua, field)?)?;
                }
                LuaValue::Table(table)
            }
        },
    })
}

fn invalid(what: &str) -> Error {
    Error::new(Kind::Invalid, format!("cannot pass on {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(code: &str) -> Result<Value> {
        to_json(&Lua::new().load(code).eval::<LuaValue>().unwrap())
    }

    #[test]
    fn plain_data_goes_both_ways() {
        let value =
            json!({ "a": [1, 2.5, "x"], "b": { "c": true }, "big": 9_007_199_254_740_993_i64 });
        let lua = Lua::new();
        let there = from_json(&lua, &value).unwrap();
        assert_eq!(to_json(&there).unwrap(), value);
    }

    #[test]
    fn references_stay_opaque() {
        let value = json!({ "url": { "$live": ["step/swift.temp_url#1", 0] } });
        let lua = Lua::new();
        let there = from_json(&lua, &value).unwrap();
        lua.globals().set("v", &there).unwrap();
        let shown: String = lua.load("return tostring(v.url)").eval().unwrap();
        assert_eq!(shown, "<step/swift.temp_url#1>");
        assert_eq!(to_json(&there).unwrap(), value);
    }

    #[test]
    fn what_is_not_data_is_refused() {
        for code in [
            "return print",
            "return {1, a = 2}",
            "return {[1]=1,[3]=3}",
            "return 0/0",
            "local t = {} t.t = t return t",
            "return '\\xff'",
            "return {[true]=1}",
        ] {
            assert_eq!(of(code).unwrap_err().kind(), Kind::Invalid, "{code}");
        }
    }
}
