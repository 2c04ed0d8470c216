//! Runs, calls and replay; sees Lua through one trait.
