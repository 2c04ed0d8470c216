//! Who may use the API: whoever has the operator's token, or a certificate of the client CA.
//!
//! The token is 256 random bits that `flowrun serve token` makes, so that its SHA-256 in the
//! configuration tells nothing about it; what makes hashes of passwords slow is of no use here.
//! Hashes are compared in constant time. Several may be configured, for rotation.

use super::Api;
use super::attempts::Attempts;
use super::failure::Failure;
use crate::config::ApiSection;
use crate::error::{Error, Kind, Result};
use crate::http::server::Peer;
use crate::secret::Secret;
use axum::extract::{Extension, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// What tokens begin with, so that they are known where they should not be.
const PREFIX: &str = "flowrun_";

/// Who is let in.
#[derive(Debug, Default)]
pub(super) struct Access {
    token_hashes: Vec<[u8; 32]>,
    certificates: bool,
    failed: Attempts,
}

/// A token for `Authorization: Bearer`, and its hash for `[api] token_sha256`.
///
/// # Errors
/// `internal` if the system has no random numbers.
pub fn make_token() -> Result<(Secret, String)> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|e| Error::new(Kind::Internal, "no random numbers").caused_by(&e))?;
    let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
    let hash = hex::encode(Sha256::digest(token.as_bytes()));
    Ok((Secret::new(token), hash))
}

impl Access {
    pub(super) fn new(config: &ApiSection) -> Result<Self> {
        let read = |text: &String| {
            let mut hash = [0; 32];
            hex::decode_to_slice(text, &mut hash).map_err(|_| {
                Error::new(Kind::Invalid, "api.token_sha256 is not a SHA-256")
                    .hint("`flowrun serve token` makes a token and prints its line")
            })?;
            Ok(hash)
        };
        Ok(Self {
            token_hashes: config
                .token_sha256
                .iter()
                .map(read)
                .collect::<Result<_>>()?,
            certificates: config.client_ca.is_some(),
            failed: Attempts::default(),
        })
    }

    /// Whether anybody who reaches the port may do everything.
    pub(super) fn is_open(&self) -> bool {
        self.token_hashes.is_empty() && !self.certificates
    }

    fn check(&self, peer: &Peer, headers: &HeaderMap) -> Result<(), Failure> {
        if self.is_open() || (self.certificates && peer.certified) {
            return Ok(());
        }
        let from = peer.address.ip();
        if self.failed.are_spent(from) {
            let error = Error::new(Kind::Limit, "too many wrong tokens from this address");
            return Err(error.retryable(true).into());
        }
        let token = bearer(headers);
        if token.is_some_and(|token| self.knows(token)) {
            return Ok(());
        }
        self.failed.add(from);
        let why = match token {
            Some(_) => "the token is not the operator's",
            None => "this needs the operator's token",
        };
        tracing::warn!(%from, why, "not let in");
        let error = Error::new(Kind::Auth, why);
        Err(error
            .hint("Authorization: Bearer TOKEN, or `--token-file`")
            .into())
    }

    fn knows(&self, token: &str) -> bool {
        let shown: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let found = self.token_hashes.iter().map(|hash| hash.ct_eq(&shown));
        found.fold(Choice::from(0), |any, one| any | one).into()
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// In front of every route that is the operator's.
pub(super) async fn guard(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if api.stopping.is_cancelled() {
        let error = Error::new(Kind::Unreachable, "the server is stopping").retryable(true);
        return Failure::with(StatusCode::SERVICE_UNAVAILABLE, error).into_response();
    }
    match api.access.check(&peer, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_hash_alone() {
        let (token, hash) = make_token().unwrap();
        let (other, _) = make_token().unwrap();
        let access = |hashes: &[&str]| {
            Access::new(&ApiSection {
                token_sha256: hashes.iter().map(|h| (*h).to_owned()).collect(),
                ..ApiSection::default()
            })
        };
        let rotated = access(&[&"0".repeat(64), &hash]).unwrap();
        assert!(rotated.knows(token.expose()));
        assert!(!rotated.knows(other.expose()) && !rotated.knows("") && !rotated.knows(&hash));
        assert!(!rotated.is_open() && access(&[]).unwrap().is_open());
        assert_eq!(access(&["abc"]).unwrap_err().kind(), Kind::Invalid);
        assert!(token.expose().len() > 40 && token.expose().starts_with(PREFIX));
    }

    #[test]
    fn a_bearer_is_read_as_rfc_6750_has_it() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(of("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("bearer abc").as_deref(), Some("abc"));
        assert_eq!(of("Basic abc"), None);
        assert_eq!(of("abc"), None);
    }
}
