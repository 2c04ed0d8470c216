//! `http`: requests to hosts that the configuration allows.

use super::args::{Seconds, Text};
use super::site::{Site, read_text};
use crate::engine::{Call, Class, Reply};
use crate::error::{Error, Kind, Result};
use crate::http::{self, Trust};
use crate::lua::spec::{FnSpec, Registry, Ty};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longest answer that a flow gets to see.
const MAX_ANSWER_BYTES: usize = 1 << 20;

#[derive(Deserialize)]
struct Request {
    url: String,
    method: String,
    #[serde(default)]
    headers: BTreeMap<String, Text>,
    bearer: Option<Text>,
    json: Option<Value>,
    body: Option<Text>,
    timeout: Seconds,
    ok: Option<Vec<u16>>,
}

pub(super) fn register(registry: &mut Registry, site: &Arc<Site>) {
    let site = site.clone();
    registry.add(
        FnSpec::new(
            "http",
            "request",
            Class::Effect,
            "Sends a request to a host of [http] allow.",
        )
        .required(
            "url",
            Ty::String,
            "http:// or https://; certificates are verified",
        )
        .default(
            "method",
            Ty::Enum(&["GET", "POST", "PUT", "PATCH", "DELETE"]),
            "GET",
            "method",
        )
        .optional("headers", Ty::Map(&Ty::Text), "header fields")
        .optional("bearer", Ty::Text, "sent as `Authorization: Bearer …`")
        .optional("json", Ty::Any, "sent as JSON")
        .optional("body", Ty::Text, "sent as it is")
        .default(
            "timeout",
            Ty::Duration,
            "30s",
            "how long the whole request may take",
        )
        .optional(
            "ok",
            Ty::List(&Ty::Integer),
            "statuses that are no error; default 2xx",
        )
        .returns(
            Ty::Any,
            "`status`, `body`, and `json` if the answer is JSON",
        )
        .error(
            Kind::Refused,
            "the host is not allowed, or answers with another status",
        )
        .simulated(|_| serde_json::json!({ "status": 200, "body": "", "json": {} }))
        .example("http.request { url = \"https://cmdb.example/nodes/7\" }.json.rack   --> B12")
        .run(move |call| {
            let site = site.clone();
            async move { request(&site, &call).await }
        }),
    );
}

async fn request(site: &Site, call: &Call) -> Result<Reply> {
    let args: Request = call.decode()?;
    let url = reqwest::Url::parse(&args.url)
        .map_err(|e| Error::new(Kind::Invalid, format!("`url`: {e}")))?;
    let host = allowed(site, &url)?;
    let trust = match &site.config().http.ca_file {
        Some(path) => Trust::Ca(read_text(path)?),
        None => Trust::System,
    };
    let method = reqwest::Method::from_bytes(args.method.as_bytes())
        .map_err(|_| Error::new(Kind::Invalid, "`method`"))?;
    let mut request = http::client(&trust, args.timeout.duration())?.request(method, url);
    for (name, value) in &args.headers {
        request = request.header(name, value.read(call).await?.expose());
    }
    if let Some(bearer) = &args.bearer {
        request = request.bearer_auth(bearer.read(call).await?.expose());
    }
    request = match (&args.json, &args.body) {
        (Some(json), _) => request.json(json),
        (None, Some(body)) => request.body(body.read(call).await?.expose().to_owned()),
        (None, None) => request,
    };
    let response = request
        .send()
        .await
        .map_err(|e| http::no_answer(e).target(host.clone()))?;
    answer(response, args.ok.as_deref())
        .await
        .map_err(|e| e.target(host))
}

fn allowed(site: &Site, url: &reqwest::Url) -> Result<String> {
    let host = url.host_str().unwrap_or_default();
    let full = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let allow = &site.config().http.allow;
    if allow.iter().any(|entry| *entry == host || *entry == full) {
        return Ok(full);
    }
    Err(Error::new(Kind::Refused, "flows may not call this host")
        .target(full.clone())
        .hint(format!(
            "[http] allow = [\"{full}\"] in flowrun.toml allows it"
        )))
}

async fn answer(mut response: reqwest::Response, ok: Option<&[u16]>) -> Result<Reply> {
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(http::no_answer)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER_BYTES {
            return Err(Error::new(Kind::Limit, "the answer is longer than 1 MiB"));
        }
    }
    let text = String::from_utf8_lossy(&body).into_owned();
    let fine = ok.map_or_else(|| status.is_success(), |ok| ok.contains(&status.as_u16()));
    if !fine {
        let excerpt: String = text.chars().take(200).collect();
        return Err(Error::new(
            http::kind_of_status(status),
            format!("the answer is {status}"),
        )
        .retryable(status.is_server_error())
        .detail("status", status.as_u16())
        .cause(excerpt));
    }
    let json: Option<Value> = serde_json::from_str(&text).ok();
    Ok(json!({ "status": status.as_u16(), "body": text, "json": json }).into())
}
