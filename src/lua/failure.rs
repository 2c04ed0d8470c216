//! Errors between Rust and Lua: the same fields on both sides.

use super::value;
use crate::error::{Error, Kind};
use mlua::{Lua, Table, Value as LuaValue};
use serde_json::Value;

/// The error as the table that flows see; the prelude gives it its metatable.
pub(super) fn to_table(lua: &Lua, error: &Error) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("kind", error.kind().as_str())?;
    table.raw_set("op", error.operation())?;
    table.raw_set("target", error.on())?;
    table.raw_set("message", error.message())?;
    table.raw_set("hint", error.advice())?;
    table.raw_set("retryable", error.is_retryable())?;
    let mut details = error.details().clone();
    if let Some(frames) = details.remove("at") {
        table.raw_set("at", value::from_json(lua, &frames)?)?;
    }
    table.raw_set("detail", value::from_json(lua, &Value::Object(details))?)?;
    table.raw_set(
        "causes",
        lua.create_sequence_from(error.causes().iter().map(String::as_str))?,
    )?;
    Ok(table)
}

/// The error behind a table that the prelude made; `at` becomes the detail of that name.
pub(super) fn from_lua(thrown: &LuaValue) -> Error {
    let LuaValue::Table(table) = thrown else {
        return Error::new(
            Kind::Internal,
            "the flow ended with something that is not an error",
        );
    };
    let text = |field: &str| table.raw_get::<Option<String>>(field).ok().flatten();
    let kind = text("kind")
        .and_then(|kind| Kind::parse(&kind))
        .unwrap_or(Kind::Invalid);
    let retryable = table.raw_get::<bool>("retryable").unwrap_or_default();
    let mut error = Error::new(kind, text("message").unwrap_or_default()).retryable(retryable);
    if let Some(op) = text("op").filter(|op| !op.is_empty()) {
        error = error.op(op);
    }
    if let Some(target) = text("target").filter(|target| !target.is_empty()) {
        error = error.target(target);
    }
    if let Some(hint) = text("hint") {
        error = error.hint(hint);
    }
    let field = |name: &str| {
        let value = table.raw_get::<LuaValue>(name).ok()?;
        value::to_json(&value).ok().filter(|value| !value.is_null())
    };
    if let Some(Value::Object(details)) = field("detail") {
        for (key, detail) in details {
            error = error.detail(&key, detail);
        }
    }
    if let Some(Value::Array(frames)) = field("at") {
        error = error.detail("at", frames);
    }
    let Some(Value::Array(causes)) = field("causes") else {
        return error;
    };
    causes
        .iter()
        .filter_map(Value::as_str)
        .fold(error, Error::cause)
}

/// Lua's own complaint about a chunk, with its place.
pub(super) fn syntax(message: &str) -> Error {
    let error = |text: &str| Error::new(Kind::Invalid, text);
    // `path:line: what`
    let split = message.split_once(": ").and_then(|(place, what)| {
        let (_, line) = place.rsplit_once(':')?;
        line.parse::<u32>().ok()?;
        Some((place, what))
    });
    match split {
        Some((place, what)) => error(what).detail("at", vec![Value::from(place)]),
        None => error(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_trip() {
        let lua = Lua::new();
        let error = Error::new(Kind::Conflict, "media connected")
            .op("ilo.attach_vmedia")
            .target("lab-1")
            .hint("eject first")
            .retryable(true)
            .detail("status", 400)
            .detail("at", vec![Value::from("flows/a.lua:3")])
            .cause("iLO.2.15.X");
        let table = to_table(&lua, &error).unwrap();
        assert_eq!(from_lua(&LuaValue::Table(table)), error);
    }

    #[test]
    fn a_syntax_error_keeps_its_place() {
        let error = syntax("flows/x.lua:12: '=' expected near 'foo'");
        assert_eq!(error.message(), "'=' expected near 'foo'");
        assert_eq!(error.details()["at"][0], "flows/x.lua:12");
    }
}
