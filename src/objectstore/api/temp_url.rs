//! Temporary URLs: whether one holds, and how an answer to one is dressed.

use super::{Place, Refusal, reads, set};
use crate::clock;
use crate::objectstore::Store;
use crate::objectstore::listing::Params;
use crate::objectstore::range::http_date;
use crate::openstack::temp_url::{Claim, Digest, quote_path};
use crate::secret::Secret;
use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use std::net::{IpAddr, SocketAddr};
use std::time::UNIX_EPOCH;

/// The digests that are accepted, as `/info` lists them. SHA-1 only where the site asks for it:
/// Swift gave it up in 2.30.
pub(super) fn digests(store: &Store) -> &'static [&'static str] {
    if store.options.sha1_temp_urls {
        &["sha1", "sha256", "sha512"]
    } else {
        &["sha256", "sha512"]
    }
}

/// What may be signed. A HEAD is allowed by the signature of any of them.
pub(super) const METHODS: [&str; 3] = ["GET", "HEAD", "PUT"];

/// A temporary URL that holds.
pub(super) struct Grant {
    expires: u64,
    filename: Option<String>,
    inline: bool,
    /// Signed with the container's key, so that it opens nothing in another one.
    pub(super) container_only: bool,
}

/// Whether the request says that it comes with a temporary URL.
pub(super) fn is_one(params: &Params) -> bool {
    params.has("temp_url_sig") || params.has("temp_url_expires")
}

/// Checks the temporary URL; `None` if the request is not one.
pub(super) fn check(
    store: &Store,
    parts: &Parts,
    params: &Params,
    place: &Place,
) -> Result<Option<Grant>, Refusal> {
    if !is_one(params) {
        return Ok(None);
    }
    match verify(store, parts, params, place) {
        Some(grant) => Ok(Some(grant)),
        None => Err(Refusal::TempUrl),
    }
}

fn verify(store: &Store, parts: &Parts, params: &Params, place: &Place) -> Option<Grant> {
    let value = |name| params.get(name).ok().flatten();
    let claim = Claim::parse(value("temp_url_sig")?)?;
    if claim.digest() == Digest::Sha1 && !store.options.sha1_temp_urls {
        return None;
    }
    let expires = expiry(value("temp_url_expires")?)?;
    if expires < clock::unix_seconds() || place.account != store.options.account {
        return None;
    }
    let (container, object) = (place.container.as_ref()?, place.object.as_ref()?);
    let path = match value("temp_url_prefix") {
        Some(prefix) if object.starts_with(prefix) => {
            format!("prefix:/v1/{}/{container}/{prefix}", place.account)
        }
        Some(_) => return None,
        None => format!("/v1/{}/{container}/{object}", place.account),
    };
    let ip_range = value("temp_url_ip_range");
    if let Some(range) = ip_range {
        let ConnectInfo(peer): ConnectInfo<SocketAddr> = *parts.extensions.get()?;
        if !contains(range, peer.ip())? {
            return None;
        }
    }
    let methods: &[&str] = match parts.method.as_str() {
        "GET" => &["GET"],
        "HEAD" => &METHODS,
        "PUT" => &["PUT"],
        _ => return None,
    };
    let keys = keys(store, container);
    let (_, container_only) = keys.into_iter().find(|(key, _)| {
        methods
            .iter()
            .any(|method| claim.verify(key, ip_range, method, &path, expires))
    })?;
    Some(Grant {
        container_only,
        expires,
        filename: value("filename")
            .filter(|name| !name.is_empty())
            .map(str::to_owned),
        inline: params.has("inline"),
    })
}

/// Refuses the upload of a pointer: it could open what the signer did not mean to.
pub(super) fn check_headers(headers: &HeaderMap, method: &Method) -> Result<(), Refusal> {
    let pointers = ["X-Object-Manifest", "X-Symlink-Target", "X-Copy-From"];
    match pointers.iter().find(|name| headers.contains_key(**name)) {
        Some(name) if !reads(method) => Err(Refusal::bad_request(format!(
            "The header '{name}' is not allowed in this tempurl"
        ))),
        _ => Ok(()),
    }
}

/// Whether an address lies in a network (`10.0.0.0/24`, or a single address).
fn contains(range: &str, address: IpAddr) -> Option<bool> {
    let (network, bits) = match range.split_once('/') {
        Some((network, bits)) => (network, Some(bits.parse::<u32>().ok()?)),
        None => (range, None),
    };
    let wide = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let (network, most) = wide(network.parse().ok()?);
    let (address, of) = wide(address.to_canonical());
    let bits = bits.unwrap_or(most);
    if bits > most {
        return None;
    }
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    Some(most == of && (network ^ address) & mask == 0)
}

/// The expiry in Unix seconds, as a number or as Swift's form of ISO 8601.
fn expiry(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let time = humantime::parse_rfc3339(text).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// The keys that sign URLs into a container, and whether they are its own.
fn keys(store: &Store, container: &str) -> Vec<(Secret, bool)> {
    let index = store.index();
    let container = index
        .containers
        .get(container)
        .map(|c| &c.container.metadata);
    let account = Some(&index.account.metadata);
    let set = [
        (account, "x-account", false),
        (container, "x-container", true),
    ];
    let set = set.into_iter().flat_map(|(metadata, kind, own)| {
        ["", "-2"].iter().filter_map(move |which| {
            let key = metadata?
                .0
                .get(&format!("{kind}-meta-temp-url-key{which}"))?;
            Some((Secret::new(key.as_str()), own))
        })
    });
    let configured = store.options.temp_url_keys.iter();
    configured
        .map(|key| (key.clone(), false))
        .chain(set)
        .filter(|(key, _)| !key.expose().is_empty())
        .collect()
}

impl Grant {
    /// Hides what is not for the bearer, and says under which name to keep the body.
    pub(super) fn dress(&self, method: &Method, path: &str, mut response: Response) -> Response {
        let success = response.status().is_success();
        let headers = response.headers_mut();
        let hidden: Vec<_> = headers
            .keys()
            .filter(|name| is_hidden(name.as_str()))
            .cloned()
            .collect();
        for name in hidden {
            headers.remove(name);
        }
        if !success || !reads(method) {
            return response;
        }
        let kind = if self.inline { "inline" } else { "attachment" };
        let disposition = match (&self.filename, self.inline) {
            (Some(name), _) => Some(disposition(kind, name)),
            (None, true) => Some(kind.to_owned()),
            (None, false) if headers.contains_key(header::CONTENT_DISPOSITION) => None,
            (None, false) => {
                let name = path.trim_end_matches('/').rsplit('/').next();
                Some(disposition(kind, name.unwrap_or_default()))
            }
        };
        if let Some(disposition) = disposition {
            set(headers, "content-disposition", &disposition);
        }
        set(headers, "expires", &http_date(self.expires));
        response
    }
}

/// Metadata is for the account's users, but for what its name declares public.
fn is_hidden(header: &str) -> bool {
    header.starts_with("x-object-meta-") && !header.starts_with("x-object-meta-public-")
}

/// RFC 6266, with the name twice as Swift writes it.
fn disposition(kind: &str, filename: &str) -> String {
    let quoted = quote_path(filename);
    let spaced = quoted.replace("%20", " ");
    format!("{kind}; filename=\"{spaced}\"; filename*=UTF-8''{quoted}")
}

#[cfg(test)]
mod tests {
    use super::*;

    // What Swift 2.38 answers; if this fails do not change the test.
    #[test]
    fn names_files_as_swift_does() {
        assert_eq!(
            disposition("attachment", "boot a.iso"),
            "attachment; filename=\"boot a.iso\"; filename*=UTF-8''boot%20a.iso"
        );
        assert_eq!(
            disposition("attachment", "grün\"/x.iso"),
            "attachment; filename=\"gr%C3%BCn%22/x.iso\"; filename*=UTF-8''gr%C3%BCn%22/x.iso"
        );
    }

    #[test]
    fn networks_contain_their_addresses() {
        let within = |range, address: &str| contains(range, address.parse().unwrap());
        for (range, address, expected) in [
            ("10.1.2.0/24", "10.1.2.255", true),
            ("10.1.2.0/24", "10.1.3.0", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.1.2.3", "::ffff:10.1.2.3", true),
            ("0.0.0.0/0", "10.1.2.3", true),
            ("0.0.0.0/0", "fe80::1", false),
            ("fe80::/10", "fe80::1", true),
        ] {
            assert_eq!(within(range, address), Some(expected), "{range} {address}");
        }
        for range in ["", "10.1.2.0/33", "10.1.2/24", "a/1", "10.1.2.3/"] {
            assert_eq!(within(range, "10.1.2.3"), None, "{range}");
        }
    }

    #[test]
    fn reads_both_forms_of_expiry() {
        assert_eq!(expiry("1500000900"), Some(1_500_000_900));
        assert_eq!(expiry("2017-07-14T02:55:00Z"), Some(1_500_000_900));
        assert_eq!(expiry("-1"), None);
        assert_eq!(expiry("soon"), None);
    }
}
