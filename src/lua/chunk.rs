//! Lua files of bundles, compiled once a process: each run has a VM of its own, and a thousand
//! that wait shall not each have parsed the standard library, nor hold what parsing left.

use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, Table};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Files that are kept; a site has some dozens, and edits them.
const MAX_FILES: usize = 1024;

/// Bytecode, lines and names included, by the hash of path and text.
static COMPILED: Mutex<Option<Files>> = Mutex::new(None);
type Files = HashMap<[u8; 32], Arc<[u8]>>;

/// The file as a function of this VM, with `environment` as its globals.
///
/// # Errors
/// Lua's `SyntaxError`.
pub(super) fn load(
    lua: &Lua,
    path: &str,
    text: &str,
    environment: Table,
) -> mlua::Result<Function> {
    let key = key(path, text);
    if let Some(code) = known(&key) {
        // Made by ourselves below: bytecode of others is never loaded.
        let chunk = lua.load(&*code).set_mode(ChunkMode::Binary);
        return chunk.set_environment(environment).into_function();
    }
    let chunk = lua.load(text).set_name(format!("@{path}"));
    let chunk = chunk.set_mode(ChunkMode::Text).set_environment(environment);
    let function = chunk.into_function()?;
    keep(key, function.dump(false));
    Ok(function)
}

fn key(path: &str, text: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(path.as_bytes()).update(&[0]);
    *hasher.update(text.as_bytes()).finalize().as_bytes()
}

fn known(key: &[u8; 32]) -> Option<Arc<[u8]>> {
    let compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    compiled.as_ref()?.get(key).cloned()
}

fn keep(key: [u8; 32], code: Vec<u8>) {
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let compiled = compiled.get_or_insert_default();
    if compiled.len() >= MAX_FILES {
        compiled.clear();
    }
    compiled.insert(key, code.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_compiled_before_is_the_same_file() {
        let text = "local a = 1\n\nlocal function f() return x + a end\nreturn f() .. missing.y";
        let says = |path: &str, x: i64| {
            let lua = Lua::new();
            let globals = lua.create_table().unwrap();
            globals.set("x", x).unwrap();
            let function = load(&lua, path, text, globals).unwrap();
            function.call::<String>(()).unwrap_err().to_string()
        };
        let first = says("dir/a.lua", 1);
        assert!(
            first.contains("dir/a.lua:4:") && first.contains("'missing'"),
            "{first}"
        );
        assert_eq!(says("dir/a.lua", 2), first);
        assert!(
            says("dir/b.lua", 1).contains("dir/b.lua:4:"),
            "the path is in it"
        );
    }

    #[test]
    fn bytecode_is_not_taken_for_a_file() {
        let lua = Lua::new();
        let code = lua.load("return 1").into_function().unwrap().dump(true);
        let text = String::from_utf8_lossy(&code);
        assert!(load(&lua, "x.lua", &text, lua.globals()).is_err());
    }
}
