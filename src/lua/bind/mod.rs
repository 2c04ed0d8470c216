//! The primitives: one thin file a module. Each decodes arguments, calls a facade below, encodes
//! what came back, and holds the documentation of what it binds.

mod args;
mod boot_iso;
mod config;
mod data;
mod disk;
mod glance;
mod http;
mod ilo;
mod image;
mod inventory;
mod iscsi;
mod iso;
mod keystone;
mod log;
mod openstack;
mod ramdisk;
mod reachable;
mod site;
mod swift;
mod time;
mod trust;

pub use ramdisk::CALLBACK;
pub use site::Site;
pub use time::hasten;
pub use trust::TrustSource;

use super::spec::Registry;
use std::sync::Arc;

/// Declares every primitive, over this site.
#[must_use]
pub fn registry(site: &Arc<Site>) -> Registry {
    let mut registry = data_only();
    config::register(&mut registry, site);
    disk::register(&mut registry, site);
    glance::register(&mut registry, site);
    http::register(&mut registry, site);
    ilo::register(&mut registry, site);
    image::register(&mut registry, site);
    boot_iso::register(&mut registry, site);
    inventory::register(&mut registry, site);
    iscsi::register(&mut registry);
    iso::register(&mut registry, site);
    keystone::register(&mut registry, site);
    ramdisk::register(&mut registry, site);
    reachable::register(&mut registry, site);
    swift::register(&mut registry, site);
    registry
}

/// The primitives that need no site.
#[must_use]
pub fn data_only() -> Registry {
    let mut registry = Registry::default();
    data::register(&mut registry);
    log::register(&mut registry);
    time::register(&mut registry);
    registry
}
