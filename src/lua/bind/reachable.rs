//! Whether what a deployment needs is there and answers, before anything is touched.

use super::args::blocking;
use super::openstack::trust;
use super::site::{Site, read_text};
use crate::engine::{Class, Reply};
use crate::error::{Error, Kind, Result};
use crate::http::{self, Trust, kind_of_status};
use crate::imagecache::Origin;
use crate::lua::spec::{FnSpec, Record, Registry, Ty};
use reqwest::header::CONTENT_LENGTH;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// How long a server may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

const SOURCE: Record = Record {
    name: "Source",
    doc: "Something that can be fetched.",
    fields: &[("bytes", Ty::Integer, "its size, if it is told")],
};

pub(super) fn register(registry: &mut Registry, site: &Arc<Site>) {
    let head = site.clone();
    registry.add(
        FnSpec::new(
            "image",
            "head",
            Class::Read,
            "Asks whether an image or ISO is there, without fetching it.",
        )
        .subject("source", Ty::String, super::image::SOURCES)
        .returns(Ty::Record(&SOURCE), "what is told of it")
        .error(Kind::NotFound, "there is no such thing")
        .error(Kind::Unreachable, "who should have it does not answer")
        .example("image.head(node.driver_info.deploy_iso).bytes   --> 41943040")
        .run(move |call| {
            let site = head.clone();
            async move {
                #[derive(Deserialize)]
                struct Args {
                    source: String,
                }
                let Args { source } = call.decode()?;
                let bytes = look(&site, &source)
                    .await
                    .map_err(|e| e.target(shown(&source)))?;
                Ok(json!({ "bytes": bytes }).into()) as Result<Reply>
            }
        }),
    );
    let api = site.clone();
    registry.add(
        FnSpec::new(
            "ramdisk",
            "check_api",
            Class::Read,
            "Asks the address at which deploy ramdisks call whether somebody listens.",
        )
        .subject("node", Ty::Node, "the server that will call")
        .returns(Ty::String, "[api] public_url")
        .error(Kind::Invalid, "it is not configured, or not a URL")
        .error(Kind::Unreachable, "nobody answers there")
        .example("ramdisk.check_api(node)   --> https://deploy.example:6385")
        .run(move |_call| {
            let site = api.clone();
            async move { Reply::of(&check_api(&site).await?) }
        }),
    );
}

/// A source without what may be signed in it.
fn shown(source: &str) -> &str {
    source.split(['?', '#']).next().unwrap_or_default()
}

async fn look(site: &Site, source: &str) -> Result<Option<u64>> {
    match Origin::parse(source)? {
        Origin::Glance(name) => {
            let image = site.glance()?.image(&name).await?;
            if image.status != "active" {
                let message = format!("Glance has no data of it yet: it is {}", image.status);
                return Err(Error::new(Kind::Conflict, message));
            }
            Ok(image.size)
        }
        Origin::Swift { container, object } => {
            let found = site.swift()?.head(&container, &object).await?;
            let missing = || Error::new(Kind::NotFound, "there is no such object");
            Ok(Some(found.ok_or_else(missing)?.bytes))
        }
        Origin::Http(url) => {
            let client = http::client(
                &trust(site.config().http.ca_file.as_deref(), false)?,
                ANSWER,
            )?;
            let answer = client.head(url).send().await.map_err(http::no_answer)?;
            let status = answer.status();
            if !status.is_success() {
                let message = format!("the web server answers {status}");
                return Err(Error::new(kind_of_status(status), message));
            }
            let length = answer.headers().get(CONTENT_LENGTH);
            Ok(length.and_then(|length| length.to_str().ok()?.parse().ok()))
        }
        Origin::File { path, .. } => {
            let about = blocking(move || {
                std::fs::metadata(&path).map_err(|e| Error::io(&path, "find", &e))
            });
            Ok(Some(about.await?.len()))
        }
    }
}

async fn check_api(site: &Site) -> Result<String> {
    let api = &site.config().api;
    let url = api.public_url.clone().ok_or_else(|| {
        Error::new(Kind::Invalid, "api.public_url is not configured")
            .hint("[api] public_url = \"https://…\" tells ramdisks where to call")
    })?;
    let root = url.trim_end_matches('/');
    let parsed = reqwest::Url::parse(root).ok();
    let is_http = |url: &reqwest::Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    if !parsed.as_ref().is_some_and(is_http) {
        let message = format!("api.public_url is {url:?}, not an HTTP URL");
        return Err(Error::new(Kind::Invalid, message));
    }
    let trust = match &api.ca_file {
        Some(path) => Trust::Ca(read_text(path)?),
        None => Trust::System,
    };
    let asked = http::client(&trust, ANSWER)?.get(format!("{root}/healthz"));
    let hint = "ramdisks call [api] public_url: it must lead to [api] listen of a flowrun";
    let unreachable = |e: Error| e.target(url.clone()).hint(hint);
    let answer = asked
        .send()
        .await
        .map_err(http::no_answer)
        .map_err(unreachable)?;
    if !answer.status().is_success() {
        let message = format!("what listens there answers {}", answer.status());
        return Err(unreachable(Error::new(Kind::Unreachable, message)));
    }
    Ok(url)
}
