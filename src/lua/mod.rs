//! The Lua host: the only folder that names mlua.
