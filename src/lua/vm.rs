//! One Lua state per run: limits, hook, prelude.

use super::host::Host;
use crate::engine::Run;
use crate::error::{Error, Kind, Result};
use mlua::chunk::ChunkMode;
use mlua::{
    Function, HookTriggers, IntoLuaMulti, Lua, LuaOptions, MultiValue, StdLib, Table, VmState,
};
use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

/// Memory of one script; a flow handles names and numbers, never images.
const MEMORY_BYTES: usize = 64 << 20;
/// How many instructions a script runs before it gives its thread back: 0.2 to 0.5 ms.
const SLICE: u32 = 100_000;

/// A VM with its prelude loaded.
#[derive(Debug)]
pub(super) struct Vm {
    pub(super) lua: Lua,
    pub(super) prelude: Table,
    /// Counts how often the runtime got its thread back.
    turns: Rc<Cell<u64>>,
}

impl Vm {
    pub(super) fn new(host: &Host) -> Result<Self> {
        Self::build(host).map_err(|e| internal(&e))
    }

    fn build(host: &Host) -> mlua::Result<Self> {
        let libraries =
            StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::COROUTINE | StdLib::UTF8;
        let lua = Lua::new_with(libraries, LuaOptions::new())?;
        lua.set_memory_limit(MEMORY_BYTES)?;
        let turns = Rc::new(Cell::new(0_u64));
        lua.set_global_hook(
            HookTriggers::new().every_nth_instruction(SLICE),
            slice_ends(host.run.clone(), turns.clone()),
        )?;
        let prelude: Table = part(&lua, "init")?.call(host.table(&lua)?)?;
        Ok(Self {
            lua,
            prelude,
            turns,
        })
    }

    /// A function of the prelude.
    pub(super) fn function(&self, name: &str) -> Result<Function> {
        self.prelude.get(name).map_err(|e| internal(&e))
    }

    /// Calls a function of the prelude in a coroutine, so that it may wait.
    pub(super) fn call<A: IntoLuaMulti>(
        &self,
        name: &str,
        arguments: A,
    ) -> Result<impl Future<Output = mlua::Result<MultiValue>> + use<A>> {
        let mut future = Box::pin(self.function(name)?.call_async::<MultiValue>(arguments));
        let turns = self.turns.clone();
        Ok(std::future::poll_fn(move |context| {
            turns.set(turns.get() + 1);
            future.as_mut().poll(context)
        }))
    }
}

/// The files of `prelude/`, by their names.
const PARTS: [(&str, &str); 11] = [
    ("init", include_str!("prelude/init.lua")),
    ("errors", include_str!("prelude/errors.lua")),
    ("tables", include_str!("prelude/tables.lua")),
    ("text", include_str!("prelude/text.lua")),
    ("library", include_str!("prelude/library.lua")),
    ("scopes", include_str!("prelude/scopes.lua")),
    ("control", include_str!("prelude/control.lua")),
    ("branches", include_str!("prelude/branches.lua")),
    ("loading", include_str!("prelude/loading.lua")),
    ("quirk", include_str!("prelude/quirk.lua")),
    ("test", include_str!("prelude/test.lua")),
];

/// A part of the Lua around flows, compiled once: a VM a run is not the place to parse it, nor to
/// keep its lines and the names of its locals.
pub(super) fn part(lua: &Lua, name: &str) -> mlua::Result<Function> {
    static COMPILED: OnceLock<HashMap<&str, Vec<u8>>> = OnceLock::new();
    let compiled = match COMPILED.get() {
        Some(compiled) => compiled,
        None => {
            let compile =
                |(name, text)| Ok((name, Lua::new().load(text).into_function()?.dump(true)));
            let parts = PARTS
                .into_iter()
                .map(compile)
                .collect::<mlua::Result<_>>()?;
            COMPILED.get_or_init(|| parts)
        }
    };
    let chunk = compiled
        .get(name)
        .ok_or_else(|| mlua::Error::runtime("no such part"))?;
    let chunk = lua.load(chunk.as_slice()).set_mode(ChunkMode::Binary);
    chunk.into_function()
}

/// The hook gives the thread back after every slice. Where Lua cannot yield (a metamethod called
/// by a library function) no turn passes between two slices, and an overdue script gets an error.
fn slice_ends(
    run: Option<Arc<Run>>,
    turns: Rc<Cell<u64>>,
) -> impl Fn(&Lua, &mlua::debug::Debug<'_>) -> mlua::Result<VmState> + 'static {
    let seen = Cell::new(u64::MAX);
    move |_, _| {
        let stuck = seen.replace(turns.get()) == turns.get();
        if stuck
            && run
                .as_ref()
                .is_some_and(|run| run.watch.overdue().is_some())
        {
            return Err(mlua::Error::runtime("the script computes without end"));
        }
        Ok(VmState::Yield)
    }
}

/// An error that reached Rust, which those of flows do not.
pub(super) fn internal(error: &mlua::Error) -> Error {
    let text = error.to_string();
    // Out of memory also inside the error handler: Lua wraps it in whatever it was doing.
    if text.contains("not enough memory") || text.contains("error in error handling") {
        return Error::new(Kind::Limit, "the flow's memory limit is reached");
    }
    Error::new(Kind::Internal, "the Lua host failed").cause(text)
}
