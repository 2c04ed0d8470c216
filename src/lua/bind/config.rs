//! `config` and `secrets`: what the site configured.

use super::site::Site;
use crate::engine::{Class, LiveValue, Reply};
use crate::error::{Error, Kind, Result};
use crate::lua::spec::{FnSpec, Registry, Ty};
use crate::suggest::near;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Deserialize)]
struct Name {
    name: String,
}

pub(super) fn register(registry: &mut Registry, site: &Arc<Site>) {
    let config = site.clone();
    registry.add(
        FnSpec::new(
            "config",
            "get",
            Class::Read,
            "Reads an option of flowrun.toml.",
        )
        .subject(
            "name",
            Ty::String,
            "`swift_ilo_container` or `deploy_helper_images_ttl`",
        )
        .returns(Ty::Any, "its value, the default if it is not configured")
        .error(Kind::NotFound, "there is no such option for flows")
        .example("config.get(\"deploy_helper_images_ttl\")   --> 10m")
        .inert()
        .run(move |call| {
            let site = config.clone();
            async move {
                let Name { name } = call.decode()?;
                option(&site, &name).map(Reply::from)
            }
        }),
    );
    let secrets = site.clone();
    registry.add(
        FnSpec::new(
            "secrets",
            "get",
            Class::Live,
            "Gives a secret that flowrun.toml names.",
        )
        .subject("name", Ty::String, "a name in [secrets]")
        .returns(
            Ty::Live("secret"),
            "it can be passed to a primitive, not read",
        )
        .error(Kind::NotFound, "there is no such secret")
        .example("http.request { url = url, bearer = secrets.get(\"cmdb\") }")
        .run(move |call| {
            let site = secrets.clone();
            async move {
                let Name { name } = call.decode()?;
                let known = &site.config().secrets;
                let names: Vec<_> = known.keys().map(String::as_str).collect();
                let source = known
                    .get(&name)
                    .ok_or_else(|| missing("secret", &name, &names))?;
                let mut reply = Reply::default();
                reply.value = reply.hold(LiveValue::Secret(source.read()?));
                Ok(reply)
            }
        }),
    );
}

fn option(site: &Site, name: &str) -> Result<Value> {
    let config = site.config();
    let options = [
        ("swift_ilo_container", json!(config.swift_ilo_container.0)),
        (
            "deploy_helper_images_ttl",
            json!(format!("{}m", config.deploy_helper_images_ttl.0)),
        ),
    ];
    let found = options
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value.clone());
    found.ok_or_else(|| missing("option", name, &options.each_ref().map(|(known, _)| *known)))
}

fn missing(what: &str, name: &str, known: &[&str]) -> Error {
    let error = Error::new(Kind::NotFound, format!("there is no {what} {name}"));
    match near(name, known) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None if known.is_empty() => error.hint("flowrun.toml names none"),
        None => error.hint(format!("there are {}", known.join(", "))),
    }
}
