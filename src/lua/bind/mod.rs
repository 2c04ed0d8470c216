//! The primitives: one thin file a module. Each decodes arguments, calls a facade below, encodes
//! what came back, and holds the documentation of what it binds.

mod data;
mod log;
mod time;

use super::spec::Registry;

/// Declares every primitive.
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    data::register(&mut registry);
    log::register(&mut registry);
    time::register(&mut registry);
    registry
}

/// The primitives that need no site, for tests of the host.
#[cfg(test)]
pub(super) fn data_only() -> Registry {
    let mut registry = Registry::default();
    data::register(&mut registry);
    log::register(&mut registry);
    time::register(&mut registry);
    registry
}
