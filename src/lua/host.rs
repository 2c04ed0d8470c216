//! The Rust half of the prelude: what `host.*` is there. Flows never see it.

use super::spec::{self, Registry};
use super::value::{self};
use super::{chunk, failure, pattern};
use crate::engine::{CallRequest, Class, Run};
use crate::error::{Error, Kind, Result};
use crate::journal::Bundle;
use futures_util::stream::{FuturesUnordered, StreamExt};
use mlua::{Function, Lua, MultiValue, Table, UserData, Value as LuaValue};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What the host functions of one VM work on.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub(super) registry: Arc<Registry>,
    pub(super) bundle: Arc<Bundle>,
    /// Path of the flow file inside the bundle.
    pub(super) entry: String,
    /// Absent while a flow is only looked at.
    pub(super) run: Option<Arc<Run>>,
}

/// A branch's cancel token.
#[derive(Debug, Clone)]
struct Token(CancellationToken);

impl UserData for Token {}

impl Host {
    /// The table `host` for the prelude.
    pub(super) fn table(&self, lua: &Lua) -> mlua::Result<Table> {
        let host = lua.create_table()?;
        add_basics(lua, &host)?;
        self.add_registry(lua, &host)?;
        add_text(lua, &host)?;
        self.add_modules(lua, &host)?;
        self.add_scopes(lua, &host)?;
        self.add_call(lua, &host)?;
        // What few flows need is added when it is first asked for.
        let this = self.clone();
        let rest = move |lua: &Lua, (host, name): (Table, String)| {
            match name.as_str() {
                "near" | "duration" | "is_kind" | "today" | "syntax" | "is_test" => {
                    add_words(lua, &host)?;
                }
                "matches" | "gsub_template" => add_matches(lua, &host)?,
                "token" | "join" => this.add_join(lua, &host)?,
                _ => {}
            }
            host.raw_get::<LuaValue>(name)
        };
        let meta = lua.create_table_with_capacity(0, 1)?;
        meta.raw_set("__index", lua.create_function(rest)?)?;
        host.set_metatable(Some(meta))?;
        Ok(host)
    }

    fn run(&self) -> mlua::Result<Arc<Run>> {
        self.run
            .clone()
            .ok_or_else(|| mlua::Error::runtime("no run"))
    }

    fn add_modules(&self, lua: &Lua, host: &Table) -> mlua::Result<()> {
        let this = self.clone();
        host.raw_set(
            "module",
            lua.create_function(move |_, name: String| Ok(this.module(&name)))?,
        )?;
        let this = self.clone();
        let chunk = move |lua: &Lua, (path, environment): (String, Table)| {
            let text = this.bundle.files.get(&path);
            let text = text.ok_or_else(|| mlua::Error::runtime("the file is not in its bundle"))?;
            match chunk::load(lua, &path, text, environment) {
                Ok(function) => Ok((Some(function), None)),
                Err(mlua::Error::SyntaxError { message, .. }) => Ok((None, Some(message))),
                Err(other) => Err(other),
            }
        };
        host.raw_set("chunk", lua.create_function(chunk)?)
    }

    /// `require`: beside the flow first, then the standard library. Answers the path, or on a miss
    /// nothing and the near name.
    fn module(&self, name: &str) -> (Option<String>, Option<String>) {
        let folder = self
            .entry
            .rsplit_once('/')
            .map_or(String::new(), |(dir, _)| format!("{dir}/"));
        let (stock_only, name) = match name.strip_prefix("stock:") {
            Some(stock) => (true, stock),
            None => (false, name),
        };
        let file = format!("{}.lua", name.replace('.', "/"));
        let site = (!stock_only).then(|| format!("{folder}{file}"));
        for path in site
            .into_iter()
            .chain([format!("{}{file}", super::stdlib::FOLDER)])
        {
            if self.bundle.files.contains_key(&path) {
                return (Some(path), None);
            }
        }
        let names: Vec<_> = self
            .bundle
            .files
            .keys()
            .filter_map(|path| path.rsplit('/').next()?.strip_suffix(".lua"))
            .collect();
        (None, crate::suggest::near(name, &names).map(str::to_owned))
    }

    /// What can be called, for what the prelude makes of it.
    fn add_registry(&self, lua: &Lua, host: &Table) -> mlua::Result<()> {
        let this = self.registry.clone();
        let is_module = move |_: &Lua, name: LuaValue| {
            let name = name.as_string().map(|name| name.to_string_lossy());
            Ok(name.is_some_and(|name| this.has_module(&name)))
        };
        host.raw_set("is_module", lua.create_function(is_module)?)?;
        let this = self.registry.clone();
        let formats = move |_: &Lua, (module, name): (String, LuaValue)| {
            let name = name.to_string()?;
            let spec = this.get(&format!("{module}.{name}"));
            Ok(spec.ok().map(|spec| spec.formats))
        };
        host.raw_set("formats", lua.create_function(formats)?)?;
        let this = self.registry.clone();
        let primitives = move |lua: &Lua, ()| {
            let all = lua.create_table()?;
            for spec in this.iter() {
                let module: Table = match all.raw_get(spec.module)? {
                    Some(module) => module,
                    None => {
                        let module = lua.create_table()?;
                        all.raw_set(spec.module, &module)?;
                        module
                    }
                };
                module.raw_set(spec.name, spec.formats)?;
            }
            Ok(all)
        };
        host.raw_set("primitives", lua.create_function(primitives)?)
    }

    fn add_scopes(&self, lua: &Lua, host: &Table) -> mlua::Result<()> {
        let this = self.clone();
        let begins =
            move |_: &Lua, (path, site, seconds): (String, Option<String>, Option<f64>)| {
                let run = this.run()?;
                let timeout = seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
                let at = run.step_begins(&path, site.as_deref().unwrap_or_default(), timeout);
                if let Some(at) = at {
                    run.watch.bounded(&path, at);
                }
                Ok(at.and_then(|at| i64::try_from(at).ok()))
            };
        host.raw_set("step_begins", lua.create_function(begins)?)?;
        let this = self.clone();
        let ends = move |_: &Lua, (path, error): (String, LuaValue)| {
            let run = this.run()?;
            run.watch.released(&path);
            run.step_ends(&path, (!error.is_nil()).then(|| failure::from_lua(&error)));
            Ok(())
        };
        host.raw_set("step_ends", lua.create_function(ends)?)?;
        let this = self.clone();
        let unwinding = move |_: &Lua, kind: String| {
            if kind == Kind::Cancelled.as_str() {
                this.run()?.watch.unwinding();
            }
            Ok(())
        };
        host.raw_set("unwinding", lua.create_function(unwinding)?)?;
        let this = self.clone();
        let lost = move |_: &Lua, ()| Ok(this.run()?.fatal().is_some());
        host.raw_set("lost", lua.create_function(lost)?)?;
        let this = self.clone();
        let note = move |_: &Lua, (level, path, text): (String, String, String)| {
            this.run()?.log(&level, &path, &text);
            Ok(())
        };
        host.raw_set("note", lua.create_function(note)?)
    }

    fn add_call(&self, lua: &Lua, host: &Table) -> mlua::Result<()> {
        type Arguments = (
            String,
            String,
            Option<String>,
            Option<i64>,
            Option<String>,
            bool,
            LuaValue,
            Table,
        );
        let this = self.clone();
        let call = move |lua: Lua, arguments: Arguments| {
            let this = this.clone();
            async move {
                let (name, key, site, at, step, shielded, branch, packed) = arguments;
                let deadline = at
                    .and_then(|at| u64::try_from(at).ok())
                    .map(|at| (at, step.unwrap_or_default()));
                let outcome = match this.arguments(&name, &packed) {
                    Ok(args) => {
                        let spec = this.registry.get(&name);
                        if spec.is_ok_and(|spec| spec.class == Class::Wait) {
                            // Hours may pass, and a thousand others wait too.
                            lua.gc_collect()?;
                        }
                        let request = CallRequest {
                            name,
                            key,
                            site: site.unwrap_or_default(),
                            args,
                            deadline,
                            shielded,
                            branch: token_of(&branch),
                        };
                        this.run()?.call(request).await
                    }
                    Err(error) => Err(error),
                };
                match outcome {
                    Ok(value) => Ok((true, value::from_json(&lua, &value)?)),
                    Err(error) => Ok((false, LuaValue::Table(failure::to_table(&lua, &error)?))),
                }
            }
        };
        host.raw_set("call", lua.create_async_function(call)?)
    }

    /// Positional Lua arguments → checked arguments.
    fn arguments(&self, name: &str, packed: &Table) -> Result<Value> {
        let spec = self.registry.get(name)?;
        let count = packed.raw_get::<i64>("n").unwrap_or_default();
        let positional = (1..=count)
            .map(|i| value::to_json(&packed.raw_get(i).unwrap_or(LuaValue::Nil)))
            .collect::<Result<Vec<_>>>()
            .map_err(|e| e.op(name))?;
        spec.check(spec.name_arguments(positional)?)
    }

    fn add_join(&self, lua: &Lua, host: &Table) -> mlua::Result<()> {
        let token = |_: &Lua, parent: LuaValue| {
            Ok(Token(
                token_of(&parent).map_or_else(CancellationToken::new, |t| t.child_token()),
            ))
        };
        host.raw_set("token", lua.create_function(token)?)?;
        let this = self.clone();
        type Arguments = (Vec<Function>, Vec<LuaValue>, usize, bool, String);
        let join = move |lua: Lua, (bodies, tokens, limit, collect, path): Arguments| {
            let this = this.clone();
            async move {
                let tokens: Vec<_> = tokens.iter().filter_map(token_of).collect();
                this.join(
                    &lua,
                    bodies,
                    &tokens,
                    limit.max(1),
                    collect,
                    &format!("{path}/~failed"),
                )
                .await
            }
        };
        host.raw_set("join", lua.create_async_function(join)?)
    }

    /// Runs branches side by side. The branch that failed first is a decision: a replay must see
    /// the same one, whatever order its branches happen to end in.
    async fn join(
        &self,
        lua: &Lua,
        bodies: Vec<Function>,
        tokens: &[CancellationToken],
        limit: usize,
        collect: bool,
        decision: &str,
    ) -> mlua::Result<(Table, Table, Option<i64>)> {
        let run = self.run()?;
        let (values, errors) = (lua.create_table()?, lua.create_table()?);
        let mut first = run.decided(decision).and_then(|value| value.as_i64());
        if let Some(index) = first {
            cancel_others(tokens, index);
        }
        let mut waiting = bodies.into_iter().zip(1_i64..);
        let mut going = FuturesUnordered::new();
        loop {
            while going.len() < limit
                && let Some((body, index)) = waiting.next()
            {
                let thread = lua.create_thread(body)?.into_async::<MultiValue>(())?;
                going.push(async move { (index, thread.await) });
            }
            let Some((index, outcome)) = going.next().await else {
                break;
            };
            let mut results = outcome?.into_iter();
            let ok = matches!(results.next(), Some(LuaValue::Boolean(true)));
            let value = results.next().unwrap_or(LuaValue::Nil);
            if ok {
                values.raw_set(index, value)?;
                continue;
            }
            errors.raw_set(index, value)?;
            if !collect && first.is_none() {
                let decided = run.decide(decision, Value::from(index)).await;
                first = decided
                    .ok()
                    .and_then(|value| value.as_i64())
                    .or(Some(index));
                cancel_others(tokens, index);
            }
        }
        Ok((values, errors, first))
    }
}

fn cancel_others(tokens: &[CancellationToken], failed: i64) {
    for (token, index) in tokens.iter().zip(1_i64..) {
        if index != failed {
            token.cancel();
        }
    }
}

fn token_of(value: &LuaValue) -> Option<CancellationToken> {
    let LuaValue::UserData(data) = value else {
        return None;
    };
    data.borrow::<Token>().ok().map(|token| token.0.clone())
}

fn add_basics(lua: &Lua, host: &Table) -> mlua::Result<()> {
    host.raw_set("frames", lua.create_function(|lua, ()| Ok(frames(lua)))?)?;
    host.raw_set(
        "metatable",
        lua.create_function(|lua, value| metatable(lua, &value))?,
    )?;
    let part = |lua: &Lua, name: String| super::vm::part(lua, &name);
    host.raw_set("part", lua.create_function(part)?)
}

fn add_words(lua: &Lua, host: &Table) -> mlua::Result<()> {
    let near = |_: &Lua, (word, known, module): (String, Table, Option<String>)| {
        let names: Vec<String> = known
            .pairs::<LuaValue, LuaValue>()
            .filter_map(|pair| pair.ok()?.0.to_string().ok())
            .collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let prefix = module.filter(|m| !m.is_empty()).map(|m| format!("{m}."));
        Ok(crate::suggest::near(&word, &names)
            .map(|n| format!("{}{n}", prefix.unwrap_or_default())))
    };
    host.raw_set("near", lua.create_function(near)?)?;
    let duration = |_: &Lua, value: LuaValue| {
        let parsed = value::to_json(&value).map_err(|e| e.message().to_owned());
        Ok(
            match parsed.and_then(|value| spec::parse_duration(&value)) {
                Ok(seconds) => (Some(seconds), None),
                Err(why) => (None, Some(why)),
            },
        )
    };
    host.raw_set("duration", lua.create_function(duration)?)?;
    let is_kind = |_: &Lua, kind: LuaValue| {
        Ok(kind
            .as_string()
            .and_then(|k| k.to_str().ok().and_then(|k| Kind::parse(&k)))
            .is_some())
    };
    host.raw_set("is_kind", lua.create_function(is_kind)?)?;
    let today = |_: &Lua, ()| {
        let now = humantime::format_rfc3339_seconds(crate::clock::now()).to_string();
        Ok(now.get(..10).unwrap_or_default().to_owned())
    };
    host.raw_set("today", lua.create_function(today)?)?;
    let syntax = |lua: &Lua, why: String| failure::to_table(lua, &failure::syntax(&why));
    host.raw_set("syntax", lua.create_function(syntax)?)?;
    let is_test = |_: &Lua, path: String| Ok(crate::engine::is_test(&path));
    host.raw_set("is_test", lua.create_function(is_test)?)
}

/// The Lua frames of the caller, innermost first, as `path:line`. The prelude's own are left out.
fn frames(lua: &Lua) -> Vec<String> {
    let mut found = Vec::new();
    for level in 1..64 {
        let frame = lua.inspect_stack(level, |debug| {
            let source = debug.source();
            let path = source.source.as_deref()?.strip_prefix('@')?.to_owned();
            let line = debug.current_line()?;
            Some(format!("{path}:{line}"))
        });
        match frame {
            None => break,
            Some(frame) => found.extend(frame),
        }
    }
    found
}

/// The metatable of a table or string, past `__metatable`.
fn metatable(lua: &Lua, value: &LuaValue) -> mlua::Result<Option<Table>> {
    Ok(match value {
        LuaValue::Table(table) => table.metatable(),
        LuaValue::String(_) => lua.type_metatable::<mlua::LuaString>(),
        _ => None,
    })
}

fn add_text(lua: &Lua, host: &Table) -> mlua::Result<()> {
    type Find = (mlua::LuaString, mlua::LuaString, Option<i64>, Option<bool>);
    let find = |lua: &Lua, (s, p, init, plain): Find| -> mlua::Result<MultiValue> {
        let (s, p) = (s.as_bytes(), p.as_bytes());
        let Some(from) = start_of(init, s.len()) else {
            return nil(lua);
        };
        let found = if plain.unwrap_or_default() {
            find_plain(&s, &p, from)
        } else {
            pattern::find(&s, &p, from).map_err(|e| thrown(&e))?
        };
        let Some(found) = found else { return nil(lua) };
        let mut values = vec![index(found.start + 1), index(found.end)];
        values.extend(captures(lua, &s, &found, false)?);
        Ok(values.into_iter().collect())
    };
    host.raw_set("find", lua.create_function(find)?)?;
    let matched = |lua: &Lua, (s, p, init, _): Find| -> mlua::Result<MultiValue> {
        let (s, p) = (s.as_bytes(), p.as_bytes());
        let Some(from) = start_of(init, s.len()) else {
            return nil(lua);
        };
        let Some(found) = pattern::find(&s, &p, from).map_err(|e| thrown(&e))? else {
            return nil(lua);
        };
        Ok(captures(lua, &s, &found, true)?.into_iter().collect())
    };
    host.raw_set("match", lua.create_function(matched)?)
}

fn add_matches(lua: &Lua, host: &Table) -> mlua::Result<()> {
    type All = (mlua::LuaString, mlua::LuaString, bool, Option<usize>);
    let matches = |lua: &Lua, (s, p, anchors, max): All| {
        let (s, p) = (s.as_bytes(), p.as_bytes());
        let found = pattern::find_all(&s, &p, anchors, max.unwrap_or(usize::MAX))
            .map_err(|e| thrown(&e))?;
        let list = lua.create_table_with_capacity(found.len(), 0)?;
        for each in found {
            let item = lua.create_sequence_from(captures(lua, &s, &each, true)?)?;
            item.raw_set("n", item.raw_len())?;
            item.raw_set("first", index(each.start + 1))?;
            item.raw_set("last", index(each.end))?;
            list.raw_push(item)?;
        }
        Ok(list)
    };
    host.raw_set("matches", lua.create_function(matches)?)?;
    host.raw_set("gsub_template", lua.create_function(template)?)
}

fn nil(lua: &Lua) -> mlua::Result<MultiValue> {
    mlua::IntoLuaMulti::into_lua_multi(LuaValue::Nil, lua)
}

fn thrown(error: &Error) -> mlua::Error {
    mlua::Error::runtime(error.message().to_owned())
}

fn index(at: usize) -> LuaValue {
    LuaValue::Integer(i64::try_from(at).unwrap_or(i64::MAX))
}

/// Lua's `init`: from 1, negative from the end; `None` when past the end.
fn start_of(init: Option<i64>, length: usize) -> Option<usize> {
    let length_signed = i64::try_from(length).ok()?;
    let from = match init.unwrap_or(1) {
        0 => 0,
        positive @ 1.. => positive - 1,
        negative => (length_signed + negative).max(0),
    };
    usize::try_from(from).ok().filter(|from| *from <= length)
}

fn find_plain(s: &[u8], wanted: &[u8], from: usize) -> Option<pattern::Match> {
    let rest = s.get(from..)?;
    let offset = if wanted.is_empty() {
        Some(0)
    } else {
        rest.windows(wanted.len())
            .position(|window| window == wanted)
    }?;
    let start = from + offset;
    Some(pattern::Match {
        start,
        end: start + wanted.len(),
        captures: Vec::new(),
    })
}

/// The captures as Lua values; with `whole`, the whole match where there are none.
fn captures(
    lua: &Lua,
    s: &[u8],
    found: &pattern::Match,
    whole: bool,
) -> mlua::Result<Vec<LuaValue>> {
    let text = |from: usize, to: usize| {
        lua.create_string(s.get(from..to).unwrap_or_default())
            .map(LuaValue::String)
    };
    if found.captures.is_empty() && whole {
        return Ok(vec![text(found.start, found.end)?]);
    }
    found
        .captures
        .iter()
        .map(|capture| match *capture {
            pattern::Capture::Text(from, to) => text(from, to),
            pattern::Capture::Position(at) => Ok(index(at)),
        })
        .collect()
}

/// A `gsub` replacement text: `%0` the whole match, `%1`… captures, `%%` a percent sign.
fn template(
    lua: &Lua,
    (text, found, whole): (mlua::LuaString, Table, mlua::LuaString),
) -> mlua::Result<mlua::LuaString> {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut rest = bytes.iter();
    while let Some(&byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'0') => out.extend_from_slice(&whole.as_bytes()),
            Some(digit @ b'1'..=b'9') => {
                let capture: LuaValue = found.raw_get(i64::from(digit - b'0'))?;
                if capture.is_nil() {
                    return Err(mlua::Error::runtime("invalid capture index in replacement"));
                }
                out.extend_from_slice(capture.to_string()?.as_bytes());
            }
            Some(b'%') => out.push(b'%'),
            _ => return Err(mlua::Error::runtime("invalid use of `%` in replacement")),
        }
    }
    lua.create_string(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_counts_like_lua() {
        assert_eq!(start_of(None, 3), Some(0));
        assert_eq!(start_of(Some(-2), 3), Some(1));
        assert_eq!(start_of(Some(-9), 3), Some(0));
        assert_eq!(start_of(Some(4), 3), Some(3));
        assert_eq!(start_of(Some(5), 3), None);
    }
}
