//! `keystone`: tokens for ramdisks that talk to OpenStack themselves.
//!
//! Configure an account under `[keystone.ramdisk]`: whoever reads a floppy can do what the token
//! on it allows, for as long as Keystone lets tokens live, and a callback needs no role at all.
//! Our own ramdisk needs neither: the token of `ramdisk.expect` opens the callback of one run.

use super::openstack::keystone_options;
use super::site::Site;
use crate::engine::{Class, LiveValue, Reply};
use crate::error::{Kind, Result};
use crate::lua::spec::{FnSpec, Registry, Ty};
use crate::openstack::keystone::Keystone;
use std::sync::Arc;

pub(super) fn register(registry: &mut Registry, site: &Arc<Site>) {
    let site = site.clone();
    registry.add(
        FnSpec::new(
            "keystone",
            "token",
            Class::Live,
            "Gives a token of [keystone.ramdisk], or without that section of the configured user.",
        )
        .returns(
            Ty::Live("secret"),
            "for a floppy: who reads it can do what the token may, so configure a ramdisk account",
        )
        .error(Kind::Auth, "Keystone does not accept the login")
        .error(Kind::Invalid, "no Keystone is configured")
        .example("image.make_vfat { parameters = p, token = keystone.token{} }")
        .run(move |_| {
            let site = site.clone();
            async move {
                let mut reply = Reply::default();
                reply.value = reply.hold(LiveValue::Secret(token(&site).await?));
                Ok(reply)
            }
        }),
    );
}

/// A new login each time: the token begins its life now, and is nobody else's.
async fn token(site: &Site) -> Result<crate::secret::Secret> {
    let section = site.keystone_section()?.resolved()?;
    let account = section.ramdisk.as_deref().unwrap_or(&section);
    let keystone = Keystone::new(keystone_options(account)?)?;
    Ok(keystone.token().await?.secret())
}
