//! Takes signatures, credentials and keys out of what an iLO says.
//!
//! An iLO shows the URL of an inserted medium to everybody who asks, signature included.

use serde_json::Value;

const HIDDEN: &str = "***";

/// Names of JSON members whose text is never shown.
const SECRET_MEMBERS: [&str; 5] = [
    "password",
    "x-auth-token",
    "token",
    "licensekey",
    "privatekey",
];

/// Names of URL parameters that sign or identify, for texts that hold a URL in pieces.
const SIGNING_PARAMETERS: [&str; 4] = ["temp_url_sig", "temp_url_expires", "signature", "x-amz-"];

/// Hides user information and query of every URL in `input`, and what signs a part of one.
pub(crate) fn text(input: &str) -> String {
    let mut output = String::with_capacity(input.len());
    let mut rest = input;
    while let Some((before, after)) = rest.split_once("://") {
        output.push_str(before);
        output.push_str("://");
        let (url, following) = split_at_first(after, ends_url);
        output.push_str(&url_without_secrets(url));
        rest = following;
    }
    output.push_str(rest);
    without_signatures(&output)
}

/// Applies [`text`] to every string below `value`, and hides members that hold secrets.
pub(crate) fn json(value: &mut Value) {
    match value {
        Value::String(string) => *string = text(string),
        Value::Array(items) => items.iter_mut().for_each(json),
        Value::Object(members) => {
            for (name, member) in members {
                let secret = SECRET_MEMBERS
                    .iter()
                    .any(|known| name.eq_ignore_ascii_case(known));
                if secret && member.is_string() {
                    *member = Value::from(HIDDEN);
                } else {
                    json(member);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn ends_url(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '<' | '>')
}

fn split_at_first(input: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    input.split_at(input.find(ends).unwrap_or(input.len()))
}

/// `user:password@host/path?query` becomes `***@host/path?***`.
fn url_without_secrets(url: &str) -> String {
    let (address, query) = split_at_first(url, |c| c == '?' || c == '#');
    let (authority, path) = split_at_first(address, |c| c == '/');
    let (user, host) = match authority.rsplit_once('@') {
        Some((_, host)) => ("***@", host),
        None => ("", authority),
    };
    let query = if query.is_empty() { "" } else { "?***" };
    format!("{user}{host}{path}{query}")
}

/// Hides the values of [`SIGNING_PARAMETERS`] outside complete URLs.
fn without_signatures(input: &str) -> String {
    // ASCII lower-casing keeps byte positions.
    let lower = input.to_ascii_lowercase();
    let mut names: Vec<usize> = SIGNING_PARAMETERS
        .iter()
        .flat_map(|name| lower.match_indices(name))
        .map(|(at, name)| (at + name.len(), name.ends_with('-')))
        .filter(|(end, open_ended)| {
            let value = lower.get(*end..).unwrap_or("");
            *open_ended || value.starts_with('=') || value.starts_with("%3d")
        })
        .map(|(end, _)| end)
        .collect();
    names.sort_unstable();
    let (mut output, mut shown) = (String::with_capacity(input.len()), 0);
    for end in names.into_iter() {
        // A name within what is hidden already.
        let Some(kept) = input.get(shown..end) else {
            continue;
        };
        output.push_str(kept);
        output.push_str(HIDDEN);
        let hidden = input.get(end..).unwrap_or("");
        shown = end + split_at_first(hidden, ends_url).0.len();
    }
    output.push_str(input.get(shown..).unwrap_or(""));
    output
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn hides_what_signs_a_url() {
        let cases = [
            ("plain words", "plain words"),
            ("http://h:8080/a/b.iso", "http://h:8080/a/b.iso"),
            (
                "bad https://u:p@w@h/v1/os.iso?temp_url_sig=ab&temp_url_expires=9 seen",
                "bad https://***@h/v1/os.iso?*** seen",
            ),
            (
                "\"http://h/x?a=b\" and http://k/y#f",
                "\"http://h/x?***\" and http://k/y?***",
            ),
            (
                "/v1/os.iso?temp_url_sig=0f&x=1 is bad",
                "/v1/os.iso?temp_url_sig*** is bad",
            ),
            (
                "os.iso%3Ftemp_url_sig%3D0f%26temp_url_expires%3D1",
                "os.iso%3Ftemp_url_sig***",
            ),
            ("x?X-Amz-Credential=k&X-Amz-Signature=s", "x?X-Amz-***"),
        ];
        for (input, shown) in cases {
            assert_eq!(text(input), shown);
        }
    }

    #[test]
    fn hides_members_of_documents() {
        let mut document = json!({
            "LicenseKey": "AAAAA", "Password": "pw", "UserName": "root",
            "Nested": [{ "Image": "http://h/i?temp_url_sig=s", "Token": null }],
        });
        json(&mut document);
        assert_eq!(
            document,
            json!({
                "LicenseKey": "***", "Password": "***", "UserName": "root",
                "Nested": [{ "Image": "http://h/i?***", "Token": null }],
            })
        );
    }

    /// What would take hours if each value were looked for from the start.
    #[test]
    fn many_signatures_are_hidden_in_a_moment() {
        let many = "/a?temp_url_sig=5ec4e7 b://h?x ".repeat(50_000);
        assert!(!text(&many).contains("5ec4e7"));
    }

    proptest! {
        #[test]
        fn never_shows_a_signature(before in ".{0,20}", path in "[a-z/.]{0,20}", after in ".{0,20}") {
            let shown = text(&format!("{before}http://host/{path}?temp_url_sig=5ec4e7&e=1 {after}"));
            prop_assert!(!shown.contains("5ec4e7"));
        }
    }
}
