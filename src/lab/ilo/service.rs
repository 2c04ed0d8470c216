//! The web service: who may ask, for what, and in which form.

use super::Machine;
use super::answer::Answer;
use super::documents::{MEDIA, ROOT, SESSIONS, SYSTEM, device_of};
use super::fault::Fault;
use super::state::{EventKind, Session};
use crate::clock;
use crate::secret::Secret;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, LOCATION};
use axum::http::{HeaderName, Method, Response, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Sessions that may be open at a time.
const MAX_SESSIONS: usize = 8;

/// After which a session that is not used ends.
const SESSION_IDLE: Duration = Duration::from_secs(30 * 60);

/// How long the answer to wrong credentials takes; ten seconds on a real one.
const LOGIN_FAILURE_DELAY: Duration = Duration::from_millis(200);

/// Longest request body.
const MAX_BODY_BYTES: usize = 64 << 10;

const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// Answers every request.
pub(super) async fn serve(State(machine): State<Arc<Machine>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let slash = parts.uri.path().ends_with('/');
    let answer = machine
        .answer(&parts.method, parts.uri.path(), &parts.headers, body)
        .await;
    match slash {
        true => answer.with_slashes().send(),
        false => answer.send(),
    }
}

impl Machine {
    async fn answer(&self, method: &Method, path: &str, headers: &HeaderMap, body: Body) -> Answer {
        if let Some(rest) = path.strip_prefix("/rest/v1") {
            return Answer::moved(&format!("{ROOT}{}/", rest.trim_end_matches('/')));
        }
        let plain = path.trim_end_matches('/');
        if !path.ends_with('/') && self.shared.state().has(Fault::RedirectMissingSlash) {
            return Answer::moved(&format!("{path}/"));
        }
        let reading = *method == Method::GET;
        let logging_in = *method == Method::POST && plain == SESSIONS;
        let open = logging_in || (reading && matches!(plain, "/redfish" | ROOT));
        if !open && !self.is_authenticated(headers) {
            return Answer::message(StatusCode::UNAUTHORIZED, "Base.NoValidSession", &[]);
        }
        if reading && plain != ROOT && self.shared.state().is_unavailable_read() {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Answer::message(status, "Base.ServiceTemporarilyUnavailable", &["1"]);
        }
        match *method {
            Method::GET => self
                .document(plain)
                .map_or_else(|| Answer::missing(path), Answer::document),
            Method::DELETE => self.delete(plain),
            Method::POST | Method::PATCH => match json_object(headers, body).await {
                Err(refused) => refused,
                Ok(body) if logging_in => self.log_in(&body).await,
                Ok(body) if *method == Method::POST => self.post(plain, &body),
                Ok(body) => self.patch(plain, &body),
            },
            _ => Answer::method_not_allowed(method.as_str(), "GET, POST, PATCH, DELETE"),
        }
    }

    fn is_authenticated(&self, headers: &HeaderMap) -> bool {
        if let Some(token) = headers.get(&AUTH_TOKEN).and_then(|v| v.to_str().ok()) {
            let mut state = self.shared.state();
            state.drop_idle_sessions(SESSION_IDLE);
            let session = state.sessions.iter_mut().find(|s| s.token.matches(token));
            return session.is_some_and(|session| {
                session.used = clock::instant();
                true
            });
        }
        let basic = headers
            .get(AUTHORIZATION)
            .and_then(|v| v.to_str().ok()?.strip_prefix("Basic "));
        let decoded = basic.and_then(|text| String::from_utf8(STANDARD.decode(text).ok()?).ok());
        let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
        pair.is_some_and(|(user, password)| self.knows(user, password))
    }

    fn knows(&self, username: &str, password: &str) -> bool {
        let config = &self.shared.config;
        username == config.username && config.password.matches(password)
    }

    async fn log_in(&self, body: &Map<String, Value>) -> Answer {
        let given = |name: &str| body.get(name).and_then(Value::as_str);
        let (Some(username), Some(password)) = (given("UserName"), given("Password")) else {
            return Answer::refused("Base.PropertyMissing", &["UserName"]);
        };
        if !self.knows(username, password) {
            self.shared.state().note(EventKind::LoginRefused);
            tokio::time::sleep(LOGIN_FAILURE_DELAY).await;
            return Answer::refused("iLO.UnauthorizedLoginAttempt", &[]);
        }
        let mut state = self.shared.state();
        state.drop_idle_sessions(SESSION_IDLE);
        if state.sessions.len() >= MAX_SESSIONS {
            return Answer::message(
                StatusCode::SERVICE_UNAVAILABLE,
                "Base.SessionLimitExceeded",
                &[],
            );
        }
        let digits = Uuid::new_v4().simple().to_string();
        let id = format!("{username}{}", digits.get(..16).unwrap_or_default());
        let token = Uuid::new_v4().simple().to_string();
        let location = format!("https://{SESSIONS}/{id}/");
        state.sessions.push(Session {
            id,
            token: Secret::new(token.as_str()),
            used: clock::instant(),
        });
        state.note(EventKind::LoggedIn);
        Answer::message(StatusCode::CREATED, "Base.Created", &[])
            // The host is missing, as on a real one.
            .with(LOCATION, location)
            .with(AUTH_TOKEN, token)
    }

    fn delete(&self, path: &str) -> Answer {
        let mut state = self.shared.state();
        let id = path
            .strip_prefix(SESSIONS)
            .and_then(|rest| rest.strip_prefix('/'));
        let known = id.and_then(|id| state.sessions.iter().position(|s| s.id == id));
        match known {
            Some(index) => {
                state.sessions.remove(index);
                state.note(EventKind::LoggedOut);
                Answer::success()
            }
            None if id.is_some() => Answer::missing(path),
            None => Answer::method_not_allowed("DELETE", "GET"),
        }
    }

    fn post(&self, path: &str, body: &Map<String, Value>) -> Answer {
        let done = path.split_once("/Actions/").and_then(|(resource, action)| {
            if resource == SYSTEM {
                return self.system_action(action, body);
            }
            self.drive_action(device_of(resource)?, action, body)
        });
        done.unwrap_or_else(|| self.not_allowed(path, "POST"))
    }

    fn patch(&self, path: &str, body: &Map<String, Value>) -> Answer {
        match device_of(path) {
            Some(device) => self.patch_drive(device, body),
            None if path == SYSTEM => self.patch_system(body),
            None => self.not_allowed(path, "PATCH"),
        }
    }

    fn not_allowed(&self, path: &str, method: &str) -> Answer {
        match self.document(path) {
            Some(_) if path == SYSTEM || path.starts_with(MEDIA) => {
                Answer::method_not_allowed(method, "GET, PATCH")
            }
            Some(_) => Answer::method_not_allowed(method, "GET"),
            None => Answer::missing(path),
        }
    }
}

/// The JSON object that every POST and PATCH needs, `{}` at least.
async fn json_object(headers: &HeaderMap, body: Body) -> Result<Map<String, Value>, Answer> {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if !kind.starts_with("application/json") {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Answer::message(status, "Base.UnrecognizedRequestBody", &[]));
    }
    let Ok(bytes) = to_bytes(body, MAX_BODY_BYTES).await else {
        return Err(Answer::message(
            StatusCode::PAYLOAD_TOO_LARGE,
            "Base.MalformedJSON",
            &[],
        ));
    };
    serde_json::from_slice(&bytes).map_err(|_| Answer::refused("Base.MalformedJSON", &[]))
}
