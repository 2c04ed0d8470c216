//! The call that tells the deployer where the disk is.

use super::deploy::{Caller, Log};
use crate::backoff::Backoff;
use crate::error::{Error, Kind, Result};
use crate::http::{self, Trust};
use crate::secret::Secret;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for one answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks for new lines of the log, and the longest wait until they are taken.
const LOG_PAUSE: Duration = Duration::from_secs(2);
const LOG_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time spent on reporting a failure.
const REPORT_DEADLINE: Duration = Duration::from_secs(60);

/// A clear no is taken for an answer when it was heard this often.
const REFUSALS: u32 = 3;

/// How much of a refusal is shown.
const MAX_REFUSAL_BYTES: usize = 1024;

const PAUSES: Backoff = Backoff {
    times: u32::MAX,
    delay: Duration::from_secs(1),
    factor: 1.5,
    max: Duration::from_secs(30),
};

/// `pass_deploy_info` of one node.
#[derive(Debug)]
pub(super) struct Callback {
    client: Client,
    url: String,
    log_url: String,
    token: Option<Secret>,
    key: Secret,
    address: IpAddr,
    iqn: String,
    has_chap: bool,
    log: Arc<dyn Log>,
}

/// Why one call did not succeed.
#[derive(Debug)]
struct Failure {
    error: Error,
    /// The deployer understood and said no.
    refused: bool,
}

impl Callback {
    /// With a CA, nobody else's certificate is accepted.
    pub(super) fn new(caller: Caller, log: Arc<dyn Log>) -> Result<Self> {
        let Caller {
            parameters,
            token,
            ca_pem,
            address,
        } = caller;
        let trust = match ca_pem {
            Some(ca_pem) => Trust::Ca(ca_pem),
            // No TLS is spoken, and an initramfs has no authorities that could be loaded.
            None if parameters.ironic_api_url.starts_with("http:") => Trust::Insecure,
            None => Trust::System,
        };
        let node = format!(
            "{}/v1/nodes/{}/vendor_passthru",
            parameters.ironic_api_url, parameters.deployment_id
        );
        Ok(Self {
            client: http::client(&trust, REQUEST_TIMEOUT)?,
            url: format!("{node}/pass_deploy_info"),
            log_url: format!("{node}/ramdisk_log"),
            token,
            address: parameters.deploy_address.unwrap_or(address),
            has_chap: parameters.chap.is_some(),
            key: parameters.deployment_key,
            iqn: parameters.iscsi_target_iqn,
            log,
        })
    }

    /// Sends the log for as long as it is polled. A deployer that does not take it, as Ironic, is
    /// not bothered again.
    pub(super) async fn send_log(&self) {
        loop {
            tokio::time::sleep(LOG_PAUSE).await;
            if !self.send_log_once().await {
                return std::future::pending().await;
            }
        }
    }

    /// Sends what was logged since the last time; false if the deployer does not take it.
    pub(super) async fn send_log_once(&self) -> bool {
        let lines = self.log.take();
        if lines.is_empty() {
            return true;
        }
        let body = json!({ "key": self.key.expose(), "lines": lines });
        let response = self
            .post(&self.log_url, &body)
            .timeout(LOG_TIMEOUT)
            .send()
            .await;
        // Lines that are lost on the way are on the console all the same.
        response.map_or(true, |response| {
            response.status().is_success() || is_passing(response.status())
        })
    }

    fn post(&self, url: &str, body: &Value) -> RequestBuilder {
        let request = self.client.post(url).json(body);
        match &self.token {
            Some(token) => request.header("X-Auth-Token", token.expose()),
            None => request,
        }
    }

    /// Says why the disk cannot be written, if that is heard soon.
    pub(super) async fn report(&self, failure: &Error) -> Result<()> {
        self.send_log_once().await;
        self.deliver(&failure.to_string(), REPORT_DEADLINE).await
    }

    /// Says that the disk is ready (`error` empty), or why it is not, until that is accepted.
    pub(super) async fn deliver(&self, error: &str, deadline: Duration) -> Result<()> {
        let mut last = None;
        let tries = self.try_until_heard(error, &mut last);
        match tokio::time::timeout(deadline, tries).await {
            Ok(heard) => heard,
            Err(_) => {
                let seconds = deadline.as_secs();
                let late = Error::new(
                    Kind::Timeout,
                    format!("the callback was not accepted within {seconds} seconds"),
                );
                Err(match last {
                    Some(last) => late.cause(last.to_string()),
                    None => late,
                })
            }
        }
        .map_err(|e| e.op("ramdisk.callback").target(self.url.clone()))
    }

    async fn try_until_heard(&self, error: &str, last: &mut Option<Error>) -> Result<()> {
        let (mut attempt, mut refusals) = (0, 0);
        loop {
            attempt += 1;
            let failure = match self.call(error).await {
                Ok(status) => {
                    self.log.line(&format!("{}: {status}", self.url));
                    return Ok(());
                }
                Err(failure) => failure,
            };
            self.log
                .line(&format!("{}: {}", self.url, failure.error.message()));
            refusals += u32::from(failure.refused);
            let pause = PAUSES.pause_after(attempt);
            let (false, Some(pause)) = (refusals >= REFUSALS, pause) else {
                return Err(failure.error);
            };
            *last = Some(failure.error);
            tokio::time::sleep(pause).await;
        }
    }

    async fn call(&self, error: &str) -> Result<StatusCode, Failure> {
        let request = self.post(&self.url, &self.body(error));
        let response = request.send().await.map_err(|e| Failure {
            error: http::no_answer(e),
            refused: false,
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(status);
        }
        let said = beginning(response).await;
        let error = Error::new(
            http::kind_of_status(status),
            format!("answered {status}: {said}"),
        );
        Err(Failure {
            error: error.detail("status", status.as_u16()),
            refused: !is_passing(status),
        })
    }

    /// Ironic's ramdisk sends every key, always as a string. It knows no CHAP, so who asked for it
    /// is told that the target insists.
    fn body(&self, error: &str) -> Value {
        let mut body = json!({
            "address": self.address.to_string(),
            "key": self.key.expose(),
            "iqn": self.iqn,
            "error": error,
        });
        if let (true, Some(fields)) = (self.has_chap, body.as_object_mut()) {
            fields.insert("chap".into(), "true".into());
        }
        body
    }
}

/// Whether the same request may be accepted later: the node is locked, no worker is free, a
/// proxy is in the way.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 409 | 425 | 429)
}

/// The first printable characters of a body.
async fn beginning(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() >= MAX_REFUSAL_BYTES {
            bytes.truncate(MAX_REFUSAL_BYTES);
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    text.chars().filter(|c| !c.is_control()).collect()
}
