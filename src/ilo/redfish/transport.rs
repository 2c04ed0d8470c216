//! One iLO over HTTPS: its session, its redirects, and what is tried again.

use super::body;
use crate::backoff::Backoff;
use crate::error::{Error, Kind, Result};
use crate::http;
use crate::ilo::address::Address;
use crate::ilo::deadline::Deadline;
use crate::ilo::failure::{Class, Failure, Message, Refusal};
use crate::ilo::{IloOptions, mask};
use crate::secret::Secret;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// Redirects followed for one request.
const MAX_REDIRECTS: usize = 5;

/// Pauses between attempts at a request that certainly had no effect.
const TRANSIENT: Backoff = Backoff {
    times: 4,
    delay: Duration::from_secs(1),
    factor: 1.5,
    max: Duration::from_secs(3),
};

/// Pauses while the iLO is busy or the server is in POST; the deadline ends them.
const BUSY: Backoff = Backoff {
    times: u32::MAX,
    delay: Duration::from_millis(300),
    factor: 1.5,
    max: Duration::from_secs(10),
};

/// How a service without sessions answers a login although its root has a link for it.
const NO_SESSIONS: [StatusCode; 3] = [
    StatusCode::NOT_FOUND,
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::NOT_IMPLEMENTED,
];

/// Requests to one iLO, one at a time, within one session.
pub(super) struct Transport {
    client: Client,
    /// `https://host:port`, without a path.
    base: String,
    username: String,
    password: Secret,
    /// Whether the iLO refused to talk about encodings.
    takes_no_encoding: AtomicBool,
    session: Mutex<Session>,
}

/// Held while a request is on its way, so that the iLO never has two of ours.
struct Session {
    /// Where sessions are created; services without sessions take the password each time.
    collection: Option<String>,
    open: Option<OpenSession>,
}

impl Session {
    fn who(&self) -> Who<'_> {
        match &self.open {
            Some(open) => Who::Session(&open.token),
            None => Who::Account,
        }
    }
}

/// In whose name a request is sent.
#[derive(Clone, Copy)]
enum Who<'a> {
    Nobody,
    Session(&'a Secret),
    Account,
}

struct OpenSession {
    token: Secret,
    /// Where it is deleted; unknown if the iLO did not say.
    path: Option<String>,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("base", &self.base)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Transport {
    pub(super) fn new(options: IloOptions) -> Result<Self> {
        Ok(Self {
            client: http::client(&options.trust, options.timeout)?,
            base: format!("https://{}", Address::parse(&options.base_url)?.authority),
            username: options.username,
            password: options.password,
            takes_no_encoding: AtomicBool::new(false),
            session: Mutex::new(Session {
                collection: None,
                open: None,
            }),
        })
    }

    /// Reads the service root, which needs no session.
    pub(super) async fn service_root(&self, path: &str) -> Result<Value, Failure> {
        self.read(path, false).await
    }

    /// Sets where sessions are created. The first request that needs one creates it.
    pub(super) async fn create_sessions_at(&self, collection: &str) {
        self.session.lock().await.collection = Some(collection.to_owned());
    }

    /// Deletes the session, if one is open.
    pub(super) async fn log_out(&self) -> Result<(), Failure> {
        let mut session = self.session.lock().await;
        let Some(OpenSession {
            token,
            path: Some(path),
        }) = session.open.take()
        else {
            return Ok(());
        };
        let reply = self
            .exchange(Who::Session(&token), &Method::DELETE, &path, None)
            .await?;
        match self.accept(&Method::DELETE, &path, reply) {
            // It expired, which is what was wanted.
            Err(f) if matches!(f.class(), Some(Class::Login | Class::NotFound)) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Reads a resource; tries again when the iLO does not answer or has a hiccup.
    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.read(path, true).await
    }

    /// Reads a resource within a call that waits for something: tries again until `deadline`.
    pub(super) async fn get_until(&self, path: &str, deadline: Deadline) -> Result<Value, Failure> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let Some(answer) = deadline
                .bound_look(self.send(&Method::GET, path, None))
                .await
            else {
                let message = format!("no answer to GET {path} before the deadline");
                let error = Error::new(Kind::Timeout, message).retryable(true);
                return Err(Failure::NoAnswer { error, sent: true });
            };
            let failure = match answer {
                Err(failure) if failure.is_transient() => failure,
                done => return done,
            };
            let pause = BUSY.pause_after(attempt).unwrap_or(BUSY.max);
            tracing::debug!(base = self.base, path, %failure, "reading again");
            if !deadline.pause(pause).await {
                return Err(failure);
            }
        }
    }

    /// Changes something; tries again while the iLO is busy, until `deadline`, and when it
    /// certainly got nothing.
    pub(super) async fn write(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
        deadline: Deadline,
    ) -> Result<Value, Failure> {
        let (mut busy, mut unsent) = (0, 0);
        loop {
            let failure = match self.send(method, path, body).await {
                Err(failure) => failure,
                answered => return answered,
            };
            let pause = if failure.class() == Some(Class::Busy) {
                busy += 1;
                BUSY.pause_after(busy)
            } else if failure.is_transient() && !failure.is_in_doubt() {
                unsent += 1;
                TRANSIENT.pause_after(unsent)
            } else {
                None
            };
            let Some(pause) = pause else {
                return Err(failure);
            };
            tracing::debug!(base = self.base, %method, path, %failure, "trying again");
            if !deadline.pause(pause).await {
                return Err(failure);
            }
        }
    }

    async fn read(&self, path: &str, in_session: bool) -> Result<Value, Failure> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let answer = match in_session {
                true => self.send(&Method::GET, path, None).await,
                false => self.send_openly(&Method::GET, path).await,
            };
            let failure = match answer {
                Err(failure) if failure.is_transient() => failure,
                done => return done,
            };
            let Some(pause) = TRANSIENT.pause_after(attempt) else {
                return Err(failure);
            };
            tracing::debug!(base = self.base, path, %failure, "reading again");
            tokio::time::sleep(pause).await;
        }
    }

    async fn send_openly(&self, method: &Method, path: &str) -> Result<Value, Failure> {
        let _turn = self.session.lock().await;
        let reply = self.exchange(Who::Nobody, method, path, None).await?;
        self.accept(method, path, reply)
    }

    /// One request within the session; logs in first if there is none, and once again if the
    /// iLO forgot it.
    async fn send(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let mut session = self.session.lock().await;
        let fresh = session.open.is_none();
        if fresh {
            self.open(&mut session).await?;
        }
        let reply = self.exchange(session.who(), method, path, body).await?;
        if reply.status != StatusCode::UNAUTHORIZED || fresh {
            return self.accept(method, path, reply);
        }
        tracing::info!(base = self.base, "session is gone, logging in again");
        session.open = None;
        self.open(&mut session).await?;
        let reply = self.exchange(session.who(), method, path, body).await?;
        self.accept(method, path, reply)
    }

    /// Where the open session can be deleted, by whoever may log in.
    pub(super) async fn session_path(&self) -> Option<String> {
        self.session.lock().await.open.as_ref()?.path.clone()
    }

    /// Opens a session, unless the service has none: then each request carries the password.
    async fn open(&self, session: &mut Session) -> Result<(), Failure> {
        let Some(path) = session.collection.as_deref() else {
            return Ok(());
        };
        let body = json!({ "UserName": self.username, "Password": self.password.expose() });
        let reply = self
            .exchange(Who::Nobody, &Method::POST, path, Some(&body))
            .await?;
        if NO_SESSIONS.contains(&reply.status) {
            tracing::info!(
                base = self.base,
                "no sessions here, using Basic authentication"
            );
            session.collection = None;
            return Ok(());
        }
        let token = reply
            .headers
            .get("x-auth-token")
            .and_then(|v| v.to_str().ok());
        let token = token.filter(|t| !t.is_empty()).map(Secret::new);
        let location = header(&reply.headers, LOCATION.as_str());
        let path_of_session = location.and_then(|location| self.local_path(location));
        let body = self.accept(&Method::POST, path, reply)?;
        let Some(token) = token else {
            // Two-factor mode says so with a success.
            return Err(match Message::of(&body) {
                Some(message) => Failure::Broken(
                    Error::new(
                        Kind::Unsupported,
                        "the iLO opens no session with a password alone",
                    )
                    .detail("message_id", message.id),
                ),
                None => Failure::protocol("the iLO opened a session without a token"),
            });
        };
        let linked = || body.get("@odata.id")?.as_str().map(str::to_owned);
        session.open = Some(OpenSession {
            token,
            path: path_of_session.or_else(linked),
        });
        Ok(())
    }

    /// One request with its redirects: same method, same body, same host.
    async fn exchange(
        &self,
        who: Who<'_>,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Reply, Failure> {
        let mut path = path.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let reply = self.round_trip(who, method, &path, body).await?;
            tracing::trace!(base = self.base, %method, path, status = reply.status.as_u16());
            let refused = reply.status == StatusCode::NOT_ACCEPTABLE;
            if refused && !self.takes_no_encoding.swap(true, Ordering::Relaxed) {
                continue;
            }
            if !matches!(reply.status.as_u16(), 301 | 302 | 307 | 308) {
                return Ok(reply);
            }
            let location = header(&reply.headers, LOCATION.as_str()).unwrap_or_default();
            path = self.local_path(location).ok_or_else(|| {
                let place = mask::text(location);
                Failure::protocol(format!(
                    "the iLO redirects {path} to {place:?}, another host"
                ))
            })?;
        }
        Err(Failure::protocol(format!(
            "more than {MAX_REDIRECTS} redirects, the last to {path}"
        )))
    }

    async fn round_trip(
        &self,
        who: Who<'_>,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Reply, Failure> {
        let no_answer = |error: reqwest::Error| Failure::NoAnswer {
            sent: !error.is_connect(),
            error: http::no_answer(error),
        };
        let mut request = self
            .client
            .request(method.clone(), format!("{}{path}", self.base))
            .header("OData-Version", "4.0");
        if !self.takes_no_encoding.load(Ordering::Relaxed) {
            request = request.header(ACCEPT_ENCODING, "gzip");
        }
        request = match who {
            Who::Nobody => request,
            Who::Session(token) => request.header("X-Auth-Token", token.expose()),
            Who::Account => request.basic_auth(&self.username, Some(self.password.expose())),
        };
        if let Some(body) = body {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        let mut response = request.send().await.map_err(no_answer)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = body::read(&mut response).await.map_err(|error| {
            let error = error.detail("request", format!("{method} {}", mask::text(path)));
            match error.is_retryable() {
                true => Failure::NoAnswer { error, sent: true },
                false => Failure::Broken(error),
            }
        })?;
        let bytes = body::unpacked(bytes).map_err(Failure::Broken)?;
        let body = match serde_json::from_slice(&bytes) {
            Ok(body) => body,
            Err(_) if bytes.is_empty() || !status.is_success() => Value::Null,
            Err(_) => {
                let message = format!("the answer to {method} {path} is not JSON");
                return Err(Failure::protocol(message));
            }
        };
        Ok(Reply {
            status,
            headers,
            body,
        })
    }

    /// The body of a success; a failure otherwise, without our credentials in it.
    fn accept(&self, method: &Method, path: &str, reply: Reply) -> Result<Value, Failure> {
        if reply.status.is_success() {
            return Ok(reply.body);
        }
        let message = Message::of(&reply.body).map(|m| Message {
            args: m
                .args
                .iter()
                .map(|arg| self.without_password(arg))
                .collect(),
            text: self.without_password(&m.text),
            ..m
        });
        Err(Failure::Refused(Box::new(Refusal {
            request: format!("{method} {}", mask::text(path)),
            status: reply.status,
            message,
        })))
    }

    fn without_password(&self, text: &str) -> String {
        match self.password.expose() {
            "" => text.to_owned(),
            password => text.replace(password, "***"),
        }
    }

    /// The path of a location on this iLO. iLO 5 sends `https:///redfish/…`, without a host.
    fn local_path(&self, location: &str) -> Option<String> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Some(location.to_owned());
        }
        let rest = location.strip_prefix("https://")?;
        let (host, path) = rest.split_at(rest.find('/')?);
        let ours = self.base.strip_prefix("https://")?;
        let same = host.is_empty() || host.eq_ignore_ascii_case(ours);
        same.then(|| path.to_owned())
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transport(base_url: &str) -> Transport {
        Transport::new(IloOptions {
            base_url: base_url.to_owned(),
            username: "root".to_owned(),
            password: Secret::new("hunter2"),
            trust: http::Trust::Insecure,
            legacy_tls: false,
            timeout: Duration::from_secs(1),
        })
        .unwrap()
    }

    #[test]
    fn locations_stay_on_the_host() {
        let ilo = transport("https://ilo:8443");
        let path = Some("/redfish/v1/x/".to_owned());
        assert_eq!(ilo.local_path("/redfish/v1/x/"), path);
        assert_eq!(ilo.local_path("https:///redfish/v1/x/"), path);
        assert_eq!(ilo.local_path("https://ILO:8443/redfish/v1/x/"), path);
        for elsewhere in [
            "https://other/x",
            "https://ilo/x",
            "//other/x",
            "http://ilo:8443/x",
            "",
            "x",
        ] {
            assert_eq!(ilo.local_path(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn captured_session_location_has_no_host() {
        let capture = include_str!(
            "../../../tests/data/ilo/redfish/ilo5-1.30-raw-http/login_login_response.http"
        );
        let location = capture
            .lines()
            .find_map(|l| l.strip_prefix("Location: "))
            .unwrap();
        assert_eq!(
            transport("https://ilo").local_path(location).as_deref(),
            Some("/redfish/v1/SessionService/Sessions/username000000005aa0eba421cac083/")
        );
    }

    #[test]
    fn is_printed_without_the_password() {
        let ilo = transport("https://ilo");
        assert!(!format!("{ilo:?}").contains("hunter2"));
        assert_eq!(ilo.without_password("bad hunter2"), "bad ***");
    }
}
