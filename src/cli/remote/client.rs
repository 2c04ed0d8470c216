//! Requests to a server, and its errors as they were there.

use crate::api::wire::ErrorBody;
use crate::cli::args::Cli;
use crate::config::SecretSource;
use crate::error::{Error, Kind, Result};
use crate::http::{self, Trust};
use crate::secret::Secret;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::ACCEPT;
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// Longest wait for an answer.
const REQUEST: Duration = Duration::from_secs(90);
/// As good as no deadline: a run is followed for as long as it takes.
const FOLLOW: Duration = Duration::from_secs(10 * 365 * 86_400);

#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<Secret>,
}

/// A path below `/v1`.
pub(super) fn path(parts: &[&str]) -> String {
    let parts = parts
        .iter()
        .map(|part| utf8_percent_encode(part, NON_ALPHANUMERIC));
    parts.fold("/v1".to_owned(), |path, part| format!("{path}/{part}"))
}

impl Client {
    pub(super) fn new(cli: &Cli) -> Result<Self> {
        let base = cli.server.clone().unwrap_or_default();
        if cli.token_file.is_some() {
            hides_tokens(&base)?;
        }
        let (ca, token) = (cli.ca_file.as_deref(), cli.token_file.as_deref());
        let trust = ca.map(read).transpose()?.map_or(Trust::System, Trust::Ca);
        let token = token.map(|path| SecretSource::File(path.to_owned()).read());
        let identity = cli.client_cert.as_deref().map(read).transpose()?;
        Ok(Self {
            http: http::client_as(&trust, identity.map(Secret::new).as_ref(), REQUEST)?,
            base: base.trim_end_matches('/').to_owned(),
            token: token.transpose()?,
        })
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.answer(self.request(Method::GET, path)).await
    }

    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.answer(self.request(Method::POST, path)).await
    }

    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        self.answer(self.request(Method::POST, path).json(body))
            .await
    }

    /// Opens a stream of events after the one of this number.
    pub(super) async fn events(&self, run: &str, after: Option<&str>) -> Result<Response> {
        let request = self.request(Method::GET, &path(&["runs", run, "events"]));
        let mut request = request.header(ACCEPT, "text/event-stream").timeout(FOLLOW);
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        self.heard(request).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    async fn answer<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let response = self.heard(request).await?;
        response.json().await.map_err(|e| {
            let error = http::no_answer(e);
            error.target(self.base.clone())
        })
    }

    /// An error of the server is told as it is.
    async fn heard(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await;
        let response = response.map_err(|e| http::no_answer(e).target(self.base.clone()))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let error = match response.json::<ErrorBody>().await {
            Ok(body) => body.error,
            Err(_) => Error::new(
                http::kind_of_status(status),
                format!("answered {status}, and not as flowrun does"),
            ),
        };
        let passing = status.is_server_error() || status.as_u16() == 429;
        let retryable = error.is_retryable() || passing;
        Err(error.retryable(retryable).target(self.base.clone()))
    }
}

/// A token is worth every server: it travels encrypted, or not beyond this host.
fn hides_tokens(base: &str) -> Result<()> {
    let url = Url::parse(base)
        .map_err(|e| Error::new(Kind::Invalid, format!("{base:?} is not an URL")).caused_by(&e))?;
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    if url.scheme() == "https" || here {
        return Ok(());
    }
    Err(Error::new(Kind::Invalid, "a token is not sent without TLS")
        .target(base)
        .hint("--server https://…"))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::new(Kind::NotFound, "there is no such file").target(path.display().to_string())
        }
        _ => Error::io(path, "read", &e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_do_not_travel_in_the_clear() {
        let fine = [
            "https://deploy.example:6385",
            "http://127.0.0.1:1",
            "http://[::1]:1",
        ];
        assert!(fine.iter().all(|base| hides_tokens(base).is_ok()));
        let bare = [
            "http://deploy.example:6385",
            "http://10.0.0.1",
            "deploy.example",
            "",
        ];
        assert!(bare.iter().all(|base| hides_tokens(base).is_err()));
    }

    #[test]
    fn an_id_is_one_segment_of_a_path() {
        assert_eq!(path(&["runs", "0a", "logs"]), "/v1/runs/0a/logs");
        assert_eq!(path(&["runs", "../x?y"]), "/v1/runs/%2E%2E%2Fx%3Fy");
    }
}
