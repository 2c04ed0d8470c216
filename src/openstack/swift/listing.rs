//! Listings, page by page.

use super::{Doing, SERVICE, Swift, check_container};
use crate::error::{Error, Kind, Result};
use crate::openstack::answer::{self, refused};
use crate::openstack::temp_url::{quote_path, quote_query};
use serde::Deserialize;
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// Rows asked for at a time.
const PAGE: usize = 1000;
/// Most rows of a listing in all.
const MOST: usize = 1_000_000;

/// What of a container to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Only names that begin with it.
    pub prefix: Option<String>,
    /// Names that have it after the prefix collapse into one [`Entry::Subdir`] each.
    pub delimiter: Option<String>,
    /// Only names after this one.
    pub marker: Option<String>,
    /// At most so many rows; absent: all, up to a million.
    pub limit: Option<usize>,
}

/// One row of a listing, in the order of their names' bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An object.
    Object {
        /// Its name.
        name: String,
        /// Its length.
        bytes: u64,
        /// MD5 of its bytes in hex, unless it is made of segments.
        etag: String,
        /// Its media type.
        content_type: String,
        /// When it was uploaded or its metadata set.
        last_modified: Option<SystemTime>,
    },
    /// What several names begin with, delimiter included.
    Subdir(String),
}

impl Entry {
    /// The object's name, or the beginning.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Object { name, .. } | Self::Subdir(name) => name,
        }
    }

    /// Whether it is an object that was uploaded at `seconds` since 1970, or before.
    pub(super) fn is_older_than(&self, seconds: u64) -> bool {
        let Self::Object { last_modified, .. } = self else {
            return false;
        };
        let age = last_modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        age.is_some_and(|age| age.as_secs() <= seconds)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    Subdir {
        subdir: String,
    },
    Object {
        name: String,
        bytes: u64,
        hash: String,
        #[serde(default)]
        content_type: String,
        #[serde(default)]
        last_modified: String,
    },
}

impl From<Row> for Entry {
    fn from(row: Row) -> Self {
        match row {
            Row::Subdir { subdir } => Self::Subdir(subdir),
            Row::Object {
                name,
                bytes,
                hash,
                content_type,
                last_modified,
            } => Self::Object {
                name,
                bytes,
                etag: hash,
                content_type,
                // Swift leaves out the Z.
                last_modified: humantime::parse_rfc3339(&format!("{last_modified}Z")).ok(),
            },
        }
    }
}

impl Swift {
    /// Lists a container.
    ///
    /// # Errors
    /// `not_found` if there is no such container; `limit` if it has over a million rows;
    /// `protocol` if the server's pages make no sense; otherwise as any request.
    pub async fn list(&self, container: &str, options: ListOptions) -> Result<Vec<Entry>> {
        check_container(container)?;
        let doing = Doing {
            op: "swift.list",
            target: container,
        };
        let mut entries: Vec<Entry> = Vec::new();
        let mut marker = options.marker.clone().unwrap_or_default();
        let limit = options.limit.unwrap_or(MOST);
        while entries.len() < limit {
            let rows = PAGE.min(limit - entries.len());
            let page = self.page(doing, &options, &marker, rows).await?;
            let Some(last) = page.last() else {
                return Ok(entries);
            };
            if page.len() > rows || last.name() <= marker.as_str() {
                let error = Error::new(
                    Kind::Protocol,
                    "the pages of the listing do not follow one another",
                );
                return Err(doing.name(error));
            }
            last.name().clone_into(&mut marker);
            entries.extend(page);
        }
        if options.limit.is_none() {
            let error = Error::new(Kind::Limit, format!("more than {MOST} rows"));
            return Err(doing.name(error.hint("list with a prefix, a delimiter or a limit")));
        }
        Ok(entries)
    }

    async fn page(
        &self,
        doing: Doing<'_>,
        options: &ListOptions,
        marker: &str,
        rows: usize,
    ) -> Result<Vec<Entry>> {
        let mut query = format!("{}?format=json&limit={rows}", quote_path(doing.target));
        let parameters = [
            ("marker", Some(marker)),
            ("prefix", options.prefix.as_deref()),
            ("delimiter", options.delimiter.as_deref()),
        ];
        for (name, value) in parameters {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                query.push_str(&format!("&{name}={}", quote_query(value)));
            }
        }
        let response = self
            .call(doing, |client, session| client.get(session.url(&query)))
            .await?;
        if !response.status().is_success() {
            return Err(doing.name(refused(SERVICE, response).await));
        }
        if response.status() == reqwest::StatusCode::NO_CONTENT {
            return Ok(Vec::new());
        }
        let page = answer::json(SERVICE, response)
            .await
            .map_err(|e| doing.name(e))?;
        entries(page).map_err(|e| doing.name(e))
    }
}

fn entries(page: Value) -> Result<Vec<Entry>> {
    let rows: Vec<Row> = serde_json::from_value(page).map_err(|e| {
        Error::new(Kind::Protocol, "the listing is not what Swift answers").caused_by(&e)
    })?;
    Ok(rows.into_iter().map(Entry::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn reads_what_swift_answers() {
        let page = json!([
            {"bytes": 1, "hash": "7694", "name": "d\u{fc}", "content_type": "text/x",
             "last_modified": "2017-07-14T02:40:00.500000"},
            {"subdir": "a/b/"},
        ]);
        let object = Entry::Object {
            name: "dü".to_owned(),
            bytes: 1,
            etag: "7694".to_owned(),
            content_type: "text/x".to_owned(),
            last_modified: Some(UNIX_EPOCH + Duration::from_millis(1_500_000_000_500)),
        };
        assert_eq!(
            entries(page).unwrap(),
            [object, Entry::Subdir("a/b/".to_owned())]
        );
        for broken in [json!({}), json!([1]), json!([{"name": "x"}]), json!(null)] {
            assert_eq!(entries(broken).unwrap_err().kind(), Kind::Protocol);
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let key = "name|bytes|hash|subdir|last_modified|x";
        let leaf = prop_oneof![
            any::<u64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            "\\PC{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn never_panics(page in any_json()) {
            drop(entries(page));
        }

        #[test]
        fn keeps_names_and_sizes(name in "\\PC{1,40}", bytes: u64) {
            let page = json!([{"name": name, "bytes": bytes, "hash": "x"}, {"subdir": name}]);
            let read = entries(page).unwrap();
            prop_assert_eq!(read[0].name(), &name);
            prop_assert_eq!(read[1].name(), &name);
            let size = if let Entry::Object { bytes, .. } = &read[0] { *bytes } else { 0 };
            prop_assert_eq!(size, bytes);
        }
    }
}
