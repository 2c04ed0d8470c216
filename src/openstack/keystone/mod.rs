//! A client of Keystone's v3 API: tokens and the catalogue of services.
//!
//! A token is used until a quarter of its life is left, counted by this machine's clock from when
//! it came: the clocks of the two need not agree. Who gets a 401 with it gives it back
//! ([`Keystone::renew`]) and asks again.

mod token;

pub use token::{Place, Token};

use super::answer::{self, refused};
use crate::backoff::Backoff;
use crate::error::{Error, Kind, Result};
use crate::http::attempt::{Doing, Tries};
use crate::http::status::later;
use crate::http::{self, Trust};
use crate::secret::Secret;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

const SERVICE: &str = "Keystone";

/// A name or an id, as Keystone takes for users, projects and domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// By name.
    Name(String),
    /// By id.
    Id(String),
}

impl Named {
    fn to_json(&self) -> Value {
        match self {
            Self::Name(name) => json!({ "name": name }),
            Self::Id(id) => json!({ "id": id }),
        }
    }
}

/// Who logs in.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Login {
    /// A user with a password, for one project.
    Password {
        /// The user's name.
        user: String,
        /// The domain of the user.
        user_domain: Named,
        /// The password.
        password: Secret,
        /// The project in which it works.
        project: Named,
        /// The domain of a project given by name.
        project_domain: Named,
    },
    /// An application credential, which belongs to a project.
    ApplicationCredential {
        /// Its id.
        id: String,
        /// Its secret.
        secret: Secret,
    },
}

/// How to reach Keystone, and the services through it.
#[derive(Debug, Clone)]
pub struct KeystoneOptions {
    /// `https://host:5000/v3`; the version may be left out.
    pub auth_url: String,
    /// Who logs in.
    pub login: Login,
    /// Where the services that are used are.
    pub place: Place,
    /// Whose certificates are accepted.
    pub trust: Trust,
    /// Deadline of a request.
    pub request_timeout: Duration,
    /// After lost connections and answers that say "later".
    pub retries: Backoff,
}

impl KeystoneOptions {
    /// With public endpoints of any region, 60 s for a request, and four attempts.
    #[must_use]
    pub fn new(auth_url: impl Into<String>, login: Login, trust: Trust) -> Self {
        Self {
            auth_url: auth_url.into(),
            login,
            place: Place::default(),
            trust,
            request_timeout: Duration::from_secs(60),
            retries: Backoff {
                times: 4,
                delay: Duration::from_millis(500),
                factor: 2.0,
                max: Duration::from_secs(5),
            },
        }
    }
}

/// A client with its token, which is obtained at first use.
#[derive(Debug)]
pub struct Keystone {
    options: KeystoneOptions,
    /// With `/v3`.
    auth_url: String,
    client: Client,
    held: Mutex<Option<Arc<Token>>>,
}

impl Keystone {
    /// Makes a client. Nothing is sent yet.
    ///
    /// # Errors
    /// `invalid` if the CA text holds no certificate; `unsupported` for the v2 API.
    pub fn new(options: KeystoneOptions) -> Result<Self> {
        Ok(Self {
            client: http::client(&options.trust, options.request_timeout)?,
            auth_url: versioned(&options.auth_url)?,
            options,
            held: Mutex::default(),
        })
    }

    /// How it was made.
    #[must_use]
    pub fn options(&self) -> &KeystoneOptions {
        &self.options
    }

    /// A token that is good for a while. Whoever finds none logs in while the others wait.
    ///
    /// # Errors
    /// `auth` if Keystone does not accept the login; otherwise as any request.
    pub async fn token(&self) -> Result<Arc<Token>> {
        let mut held = self.held.lock().await;
        if let Some(token) = held.as_ref().filter(|token| token.is_fresh()) {
            return Ok(Arc::clone(token));
        }
        let token = Arc::new(self.log_in().await?);
        *held = Some(Arc::clone(&token));
        Ok(token)
    }

    /// Gives up a token that was refused, unless somebody did so already. The next one is new.
    pub async fn renew(&self, refused: &Arc<Token>) {
        let mut held = self.held.lock().await;
        if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, refused)) {
            *held = None;
        }
    }

    /// The URL of a service (`object-store`, `image`) in the configured place, without a slash at
    /// its end.
    ///
    /// # Errors
    /// `not_found` if the catalogue has none there; `refused` if Keystone is asked over TLS and
    /// the service would get the token without.
    pub fn endpoint(&self, token: &Token, service: &str) -> Result<String> {
        let url = token
            .endpoint(service, &self.options.place)
            .map_err(|e| e.op("keystone.endpoint").target(&self.auth_url))?;
        if self.auth_url.starts_with("https:") && !url.starts_with("https:") {
            let message = format!("Keystone is asked over TLS, but its {service} endpoint is not");
            return Err(Error::new(Kind::Refused, message)
                .target(url)
                .hint("choose another `interface`, or correct the catalogue"));
        }
        Ok(url)
    }

    async fn log_in(&self) -> Result<Token> {
        let doing = Doing {
            op: "keystone.log_in",
            target: &self.auth_url,
        };
        let url = format!("{}/auth/tokens", self.auth_url);
        let body = request(&self.options.login);
        let mut tries = Tries::new(self.options.retries);
        loop {
            let sent = self.client.post(&url).json(&body).send().await;
            let error = match sent {
                Err(error) => http::no_answer(error),
                Ok(answer) if answer.status() == StatusCode::CREATED => {
                    return read_token(answer).await.map_err(|e| doing.name(e));
                }
                Ok(answer) if later(answer.status()) => refused(SERVICE, answer).await,
                Ok(answer) => {
                    let error = refused(SERVICE, answer).await;
                    return Err(doing.name(match error.kind() {
                        Kind::Auth => error.hint("check user, secret, project and their domains"),
                        _ => error.hint("check auth_url; it should end in /v3"),
                    }));
                }
            };
            tries.pause(doing, error).await?;
        }
    }
}

async fn read_token(answer: Response) -> Result<Token> {
    let received = crate::clock::instant();
    let value = answer.headers().get("x-subject-token").cloned();
    let body: Value = answer::json(SERVICE, answer).await?;
    let value = value.ok_or_else(|| {
        Error::new(Kind::Protocol, "the answer has no X-Subject-Token")
            .hint("check auth_url; it should end in /v3")
    })?;
    Token::read(value, &body, received)
}

/// Sites write the address with and without a version.
fn versioned(auth_url: &str) -> Result<String> {
    let url = auth_url.trim_end_matches('/');
    if url.ends_with("/v3") {
        return Ok(url.to_owned());
    }
    if url.ends_with("/v2.0") {
        return Err(
            Error::new(Kind::Unsupported, "Keystone's v2 API is not spoken")
                .target(auth_url)
                .hint("let auth_url end in /v3"),
        );
    }
    Ok(format!("{url}/v3"))
}

/// Source: Identity API v3, "Password authentication with scoped authorization" and
/// "Authenticating with an Application Credential".
fn request(login: &Login) -> Value {
    let (identity, scope) = match login {
        Login::Password {
            user,
            user_domain,
            password,
            project,
            project_domain,
        } => {
            let user = json!({
                "name": user,
                "domain": user_domain.to_json(),
                "password": password.expose(),
            });
            let mut scope = project.to_json();
            if let (Named::Name(_), Some(fields)) = (project, scope.as_object_mut()) {
                fields.insert("domain".to_owned(), project_domain.to_json());
            }
            let identity = json!({ "methods": ["password"], "password": { "user": user } });
            (identity, Some(json!({ "project": scope })))
        }
        Login::ApplicationCredential { id, secret } => {
            let credential = json!({ "id": id, "secret": secret.expose() });
            let identity = json!({
                "methods": ["application_credential"],
                "application_credential": credential,
            });
            (identity, None)
        }
    };
    let mut auth = json!({ "identity": identity });
    if let (Some(scope), Some(fields)) = (scope, auth.as_object_mut()) {
        fields.insert("scope".to_owned(), scope);
    }
    json!({ "auth": auth })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_as_the_api_wants_it() {
        let domain = Named::Id("default".into());
        let password = Login::Password {
            user: "u".into(),
            user_domain: Named::Name("Default".into()),
            password: Secret::new("p"),
            project: Named::Name("service".into()),
            project_domain: domain.clone(),
        };
        let expected = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": {
                "name": "u", "domain": { "name": "Default" }, "password": "p" } } },
            "scope": { "project": { "name": "service", "domain": { "id": "default" } } },
        } });
        assert_eq!(request(&password), expected);
        let credential = Login::ApplicationCredential {
            id: "i".into(),
            secret: Secret::new("s"),
        };
        let expected = json!({ "auth": { "identity": {
            "methods": ["application_credential"],
            "application_credential": { "id": "i", "secret": "s" } } } });
        assert_eq!(request(&credential), expected);
    }

    #[test]
    fn an_address_gets_its_version() {
        for given in ["https://h:5000", "https://h:5000/", "https://h:5000/v3/"] {
            assert_eq!(versioned(given).unwrap(), "https://h:5000/v3");
        }
        let error = versioned("https://h:5000/v2.0").unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
    }
}
