//! The front for REST and Redfish: who may ask, for what, and in which form.

mod answer;
mod changes;
mod documents;
mod resource;
mod style;

use super::Machine;
use super::fault::Fault;
use super::generation::Web;
use super::state::{EventKind, Session};
use crate::clock;
use crate::secret::Secret;
use answer::{Answer, Packing};
use axum::body::{Body, to_bytes};
use axum::http::header::{
    ACCEPT_ENCODING, ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderMap, LOCATION,
};
use axum::http::request::Parts;
use axum::http::{HeaderName, Method, Response, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use resource::{REST_ROOT, ROOT, Resource};
use serde_json::{Map, Value};
use std::time::Duration;
use style::Style;
use uuid::Uuid;

/// Sessions that may be open at a time.
const MAX_SESSIONS: usize = 8;

/// After which a session that is not used ends.
const SESSION_IDLE: Duration = Duration::from_secs(30 * 60);

/// Requests that a session lives if sessions expire.
const EXPIRING_REQUESTS: u32 = 8;

/// Longest request body.
const MAX_BODY_BYTES: usize = 64 << 10;

const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

impl Machine {
    /// Answers a request to REST or Redfish.
    pub(super) async fn web(&self, parts: &Parts, body: Body) -> Response<Body> {
        let style = self.style(parts);
        let answer = self.answer(parts, body).await;
        let reading = parts.method == Method::GET;
        let cut = reading && self.shared.state().strikes(Fault::ReadCut);
        let answer = if cut { answer.cut() } else { answer };
        answer.send(self.traits(), style, self.packing(&parts.headers))
    }

    fn packing(&self, headers: &HeaderMap) -> Packing {
        let asked = headers
            .get(ACCEPT_ENCODING)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.contains("gzip"));
        match asked {
            _ if self.shared.state().has(Fault::EncodingUnasked) => Packing::Silent,
            true => Packing::Asked,
            false => Packing::None,
        }
    }

    /// Whether an encoding was named that this iLO does not take.
    fn refuses_encoding(&self, headers: &HeaderMap) -> bool {
        headers.get(ACCEPT_ENCODING).is_some_and(|named| {
            // Gen10 Plus and newer.
            let identity = named == "identity" && self.traits().base == "Base.1.18";
            identity || self.shared.state().has(Fault::EncodingRefused)
        })
    }

    fn style(&self, parts: &Parts) -> Style {
        let path = parts.uri.path();
        match self.traits().web {
            Web::Redfish => Style::Redfish {
                slashes: path.ends_with('/') || self.traits().redirects_to_slash,
            },
            _ if path.starts_with(REST_ROOT) => Style::Rest,
            _ if parts.headers.contains_key("odata-version") => Style::Redfish1,
            _ => Style::Mixed,
        }
    }

    async fn answer(&self, parts: &Parts, body: Body) -> Answer {
        let path = parts.uri.path();
        if let Some(elsewhere) = self.elsewhere(path) {
            return elsewhere;
        }
        let (method, headers) = (&parts.method, &parts.headers);
        let resource = Resource::at(path, self.traits());
        let reading = *method == Method::GET || *method == Method::HEAD;
        let logging_in = *method == Method::POST && resource == Some(Resource::Sessions);
        let is_open = reading && resource.as_ref().is_some_and(Resource::is_open);
        if !is_open && !logging_in && !self.is_authenticated(headers) {
            return Answer::message(StatusCode::UNAUTHORIZED, "Base.NoValidSession", &[]);
        }
        if self.refuses_encoding(headers) {
            return Answer::message(StatusCode::NOT_ACCEPTABLE, "Base.GeneralError", &[]);
        }
        if reading && !is_open && self.shared.state().strikes(Fault::ReadUnavailable) {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Answer::message(status, "Base.ServiceTemporarilyUnavailable", &["1"]);
        }
        let answer = match *method {
            _ if reading => resource.as_ref().and_then(|r| {
                let mut document = self.document(r)?;
                if self.shared.state().has(Fault::NoRedfish) {
                    style::below_rest(&mut document);
                }
                Some(Answer::document(document).with(ALLOW, r.allowed()))
            }),
            Method::DELETE => resource.as_ref().and_then(|r| self.delete(r)),
            Method::POST | Method::PATCH => match json_object(headers, body).await {
                Err(refused) => Some(refused),
                Ok(body) if logging_in => Some(self.log_in(&body).await),
                Ok(_) if self.shared.state().has(Fault::PrivilegesMissing) => {
                    let status = StatusCode::FORBIDDEN;
                    Some(Answer::message(status, "Base.InsufficientPrivilege", &[]))
                }
                Ok(body) if *method == Method::POST => self
                    .action_at(path.trim_end_matches('/'), &body)
                    .or_else(|| self.named_action(resource.as_ref()?, &body)),
                Ok(body) => resource.as_ref().and_then(|r| self.change(r, &body)),
            },
            _ => None,
        };
        answer.unwrap_or_else(|| match resource.filter(|r| self.document(r).is_some()) {
            Some(resource) => Answer::method_not_allowed(method.as_str(), resource.allowed()),
            None => Answer::missing(path),
        })
    }

    /// Where another path has to be asked, or nothing is at all.
    fn elsewhere(&self, path: &str) -> Option<Answer> {
        let is_rest = path.starts_with(REST_ROOT);
        match self.traits().web {
            Web::None => return Some(Answer::missing(path)),
            Web::Rest if !is_rest && self.shared.state().has(Fault::NoRedfish) => {
                return Some(Answer::missing(path));
            }
            Web::Rest => return None,
            Web::Redfish => {}
        }
        if let Some(rest) = path.strip_prefix(REST_ROOT) {
            return Some(Answer::moved(&format!(
                "{ROOT}{}/",
                rest.trim_end_matches('/')
            )));
        }
        let redirects = self.traits().redirects_to_slash
            || self.shared.state().has(Fault::RedirectMissingSlash);
        (redirects && !path.ends_with('/')).then(|| Answer::moved(&format!("{path}/")))
    }

    fn is_authenticated(&self, headers: &HeaderMap) -> bool {
        if let Some(token) = headers.get(&AUTH_TOKEN).and_then(|v| v.to_str().ok()) {
            let mut state = self.shared.state();
            state.drop_idle_sessions(SESSION_IDLE);
            if state.has(Fault::SessionsExpire) {
                state.sessions.retain(|s| s.requests < EXPIRING_REQUESTS);
            }
            let session = state.sessions.iter_mut().find(|s| s.token.matches(token));
            return session.is_some_and(|session| {
                session.used = clock::instant();
                session.requests += 1;
                true
            });
        }
        // The scheme has no case (RFC 9110, 11.1); proliantutils says BASIC.
        let given = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
        let basic = given
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"));
        let decoded = basic
            .map(|(_, text)| text)
            .and_then(|text| String::from_utf8(STANDARD.decode(text).ok()?).ok());
        let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
        pair.is_some_and(|(user, password)| self.knows(user, password))
    }

    async fn log_in(&self, body: &Map<String, Value>) -> Answer {
        let given = |name: &str| body.get(name).and_then(Value::as_str);
        let (Some(username), Some(password)) = (given("UserName"), given("Password")) else {
            return Answer::refused("Base.PropertyMissing", &["UserName"]);
        };
        if !self.check_login(username, password).await {
            return Answer::refused("iLO.UnauthorizedLoginAttempt", &[]);
        }
        let mut state = self.shared.state();
        state.drop_idle_sessions(SESSION_IDLE);
        if state.sessions.len() >= MAX_SESSIONS || state.has(Fault::SessionsTaken) {
            return Answer::message(
                StatusCode::SERVICE_UNAVAILABLE,
                "Base.SessionLimitExceeded",
                &[],
            );
        }
        let digits = Uuid::new_v4().simple().to_string();
        let id = format!("{username}{}", digits.get(..16).unwrap_or_default());
        let token = Uuid::new_v4().simple().to_string();
        // The host is missing, as on a real one.
        let root = match state.has(Fault::NoRedfish) {
            true => REST_ROOT,
            false => ROOT,
        };
        let location = format!("https://{root}/SessionService/Sessions/{id}/");
        state.sessions.push(Session {
            id,
            token: Secret::new(token.as_str()),
            used: clock::instant(),
            requests: 0,
        });
        state.note(EventKind::LoggedIn);
        Answer::message(StatusCode::CREATED, "Base.Created", &[])
            .with(LOCATION, location)
            .with(AUTH_TOKEN, token)
    }

    fn delete(&self, resource: &Resource) -> Option<Answer> {
        let Resource::Session(id) = resource else {
            return None;
        };
        let mut state = self.shared.state();
        let index = state.sessions.iter().position(|s| s.id == *id)?;
        state.sessions.remove(index);
        state.note(EventKind::LoggedOut);
        Some(Answer::success())
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
