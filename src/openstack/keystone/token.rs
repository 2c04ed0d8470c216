//! A token: how long it is good, and the catalogue that comes with it.

use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The life of a token that does not say when it ends.
const UNKNOWN_LIFE: Duration = Duration::from_secs(300);

/// Which of a service's endpoints is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The region; absent: any, if they agree.
    pub region: Option<String>,
    /// `public`, `internal` or `admin`.
    pub interface: String,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            region: None,
            interface: "public".to_owned(),
        }
    }
}

/// A token with what Keystone told of it.
#[derive(Debug)]
pub struct Token {
    value: HeaderValue,
    /// From here on it is renewed rather than used.
    renew_at: Instant,
    /// The project it is for.
    pub project_id: Option<String>,
    catalog: Vec<Service>,
}

#[derive(Debug, Deserialize)]
struct Body {
    token: Fields,
}

#[derive(Debug, Deserialize)]
struct Fields {
    issued_at: Option<String>,
    expires_at: Option<String>,
    project: Option<Project>,
    #[serde(default)]
    catalog: Vec<Service>,
}

#[derive(Debug, Deserialize)]
struct Project {
    id: String,
}

#[derive(Debug, Deserialize)]
struct Service {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    interface: String,
    url: String,
    #[serde(default)]
    region_id: Option<String>,
}

impl Endpoint {
    fn region(&self) -> &str {
        self.region_id.as_deref().unwrap_or("none")
    }
}

impl Token {
    /// Reads the answer to a login that came at `received`.
    pub(super) fn read(mut value: HeaderValue, body: &Value, received: Instant) -> Result<Self> {
        value.set_sensitive(true);
        let body = Body::deserialize(body).map_err(|e| {
            Error::new(Kind::Protocol, "the answer to the login is no token").caused_by(&e)
        })?;
        let fields = body.token;
        let life = life(&fields).unwrap_or(UNKNOWN_LIFE);
        Ok(Self {
            value,
            renew_at: received + life - life / 4,
            project_id: fields.project.map(|project| project.id),
            catalog: fields.catalog,
        })
    }

    /// What is sent in `X-Auth-Token`; it is not printed.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        self.value.clone()
    }

    /// The token itself.
    #[must_use]
    pub fn secret(&self) -> Secret {
        Secret::new(self.value.to_str().unwrap_or_default())
    }

    pub(super) fn is_fresh(&self) -> bool {
        clock::instant() < self.renew_at
    }

    /// The endpoint of a service, without a slash at its end.
    pub(super) fn endpoint(&self, service: &str, place: &Place) -> Result<String> {
        let all = || {
            let services = self.catalog.iter().filter(|found| found.kind == service);
            services.flat_map(|found| &found.endpoints)
        };
        let fitting: BTreeSet<&str> = all()
            .filter(|endpoint| endpoint.interface == place.interface)
            .filter(|endpoint| {
                let region = place.region.as_deref();
                region.is_none_or(|region| endpoint.region() == region)
            })
            .map(|endpoint| endpoint.url.trim_end_matches('/'))
            .collect();
        let offered = || {
            let offered: BTreeSet<String> = all()
                .map(|endpoint| format!("{} in {}", endpoint.interface, endpoint.region()))
                .collect();
            offered.into_iter().collect::<Vec<_>>().join(", ")
        };
        let region = place.region.as_deref().unwrap_or("any region");
        match (fitting.len(), fitting.first()) {
            (1, Some(url)) => Ok((*url).to_owned()),
            (0, _) => {
                let message = format!(
                    "the catalogue has no {} endpoint of {service} in {region}",
                    place.interface
                );
                let error = Error::new(Kind::NotFound, message);
                Err(match offered() {
                    offered if offered.is_empty() => error.hint(format!(
                        "this site has no {service} service for this project"
                    )),
                    offered => {
                        error.hint(format!("set region_name and interface; it has {offered}"))
                    }
                })
            }
            (count, _) => {
                let message = format!("the catalogue has {count} endpoints of {service}");
                Err(Error::new(Kind::Invalid, message)
                    .hint(format!("set region_name; there are {}", offered())))
            }
        }
    }
}

/// Times are compared with each other only: the server's clock may be wrong.
fn life(fields: &Fields) -> Option<Duration> {
    let time = |text: &Option<String>| humantime::parse_rfc3339(text.as_deref()?).ok();
    time(&fields.expires_at)?
        .duration_since(time(&fields.issued_at)?)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn token(life_seconds: u64) -> Token {
        let endpoint = |interface: &str, region: &str, url: &str| {
            json!({
            "interface": interface, "region_id": region, "region": region, "url": url, "id": "x" })
        };
        let body = json!({ "token": {
            "issued_at": "2020-01-01T00:00:00.000000Z",
            "expires_at": format!("2020-01-01T00:00:{life_seconds:02}.000000Z"),
            "project": { "id": "p" },
            "catalog": [{ "type": "image", "endpoints": [
                endpoint("public", "one", "https://one/"),
                endpoint("internal", "one", "https://inside.one"),
                endpoint("public", "two", "https://two"),
            ] }],
        } });
        Token::read(HeaderValue::from_static("t0ken"), &body, clock::instant()).unwrap()
    }

    #[test]
    fn is_used_for_three_quarters_of_its_life_whatever_the_servers_clock_says() {
        let token = token(40);
        assert!(token.is_fresh());
        let left = token.renew_at - clock::instant();
        assert!((20..=30).contains(&left.as_secs()), "{left:?}");
        assert!(!format!("{token:?}").contains("t0ken"));
    }

    #[test]
    fn finds_the_endpoint_of_a_region() {
        let token = token(40);
        let find = |region: Option<&str>, interface: &str| {
            let place = Place {
                region: region.map(str::to_owned),
                interface: interface.to_owned(),
            };
            token.endpoint("image", &place)
        };
        assert_eq!(find(Some("one"), "public").unwrap(), "https://one");
        assert_eq!(find(Some("two"), "public").unwrap(), "https://two");
        assert_eq!(find(None, "internal").unwrap(), "https://inside.one");
        let error = find(None, "public").unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "two regions differ");
        let error = find(Some("two"), "internal").unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        let hint = error.advice().unwrap();
        assert!(
            hint.contains("internal in one, public in one, public in two"),
            "{hint}"
        );
        let error = token.endpoint("volume", &Place::default()).unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
    }

    proptest! {
        #[test]
        fn broken_answers_give_errors(text in "\\PC{0,60}", number: i64) {
            for body in [json!(text), json!({ "token": text }), json!({ "token": {
                "expires_at": text, "issued_at": text, "catalog": number } })] {
                let read = Token::read(HeaderValue::from_static("t"), &body, clock::instant());
                prop_assert!(read.is_err());
            }
            let odd = json!({ "token": { "expires_at": text, "catalog": [{ "type": text }] } });
            Token::read(HeaderValue::from_static("t"), &odd, clock::instant()).unwrap();
        }
    }
}
