//! Listings: which names of a sorted set a query shows, and how the query string is read.

use percent_encoding::percent_decode;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Most rows of one listing; a client asks for more with `marker`.
pub(super) const LIMIT: usize = 10_000;

/// The parameters of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// Only names after this one.
    pub(super) marker: String,
    /// Only names before this one.
    pub(super) end_marker: String,
    pub(super) prefix: String,
    /// Names that have it after the prefix collapse into one row each.
    pub(super) delimiter: String,
    pub(super) limit: usize,
    /// From the last to the first; then `marker` is above and `end_marker` below.
    pub(super) reverse: bool,
}

/// One line of a listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Row<'a, T> {
    Item(&'a str, &'a T),
    Subdir(&'a str),
}

impl<T> Row<'_, T> {
    /// What the plain format shows, and what a `marker` compares with.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Item(name, _) | Self::Subdir(name) => name,
        }
    }
}

/// The rows that `query` shows of what is `visible` in `names`.
pub(super) fn list<'a, T>(
    names: &'a BTreeMap<String, T>,
    query: &Query,
    visible: impl Fn(&T) -> bool,
) -> Vec<Row<'a, T>> {
    let prefix = query.prefix.as_str();
    if query.reverse {
        let above = match query.marker.as_str() {
            "" => Bound::Unbounded,
            marker => Bound::Excluded(marker),
        };
        let names = names
            .range::<str, _>((Bound::Unbounded, above))
            .rev()
            .skip_while(|(name, _)| name.as_str() > prefix && !name.starts_with(prefix))
            .take_while(|(name, _)| name.as_str() > query.end_marker.as_str());
        collapse(names, query, visible)
    } else {
        let from = if query.marker.as_str() < prefix {
            Bound::Included(prefix)
        } else {
            Bound::Excluded(query.marker.as_str())
        };
        let end = query.end_marker.as_str();
        let names = names
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(name, _)| end.is_empty() || name.as_str() < end);
        collapse(names, query, visible)
    }
}

fn collapse<'a, T: 'a>(
    names: impl Iterator<Item = (&'a String, &'a T)>,
    query: &Query,
    visible: impl Fn(&T) -> bool,
) -> Vec<Row<'a, T>> {
    let prefix = query.prefix.as_str();
    let mut rows: Vec<Row<'a, T>> = Vec::new();
    let names = names
        .take_while(|(name, _)| name.starts_with(prefix))
        .filter(|(_, item)| visible(item));
    for (name, item) in names {
        let row = match subdir(name, prefix, &query.delimiter) {
            None => Row::Item(name, item),
            // A marker that is a subdir says that the client has seen it.
            Some(dir) if dir == query.marker => continue,
            Some(dir) => match rows.last() {
                Some(Row::Subdir(last)) if *last == dir => continue,
                _ => Row::Subdir(dir),
            },
        };
        if rows.len() == query.limit {
            break;
        }
        rows.push(row);
    }
    rows
}

/// The name up to the first delimiter after the prefix, delimiter included.
fn subdir<'a>(name: &'a str, prefix: &str, delimiter: &str) -> Option<&'a str> {
    if delimiter.is_empty() {
        return None;
    }
    let at = name.get(prefix.len()..)?.find(delimiter)?;
    name.get(..prefix.len() + at + delimiter.len())
}

/// A query string taken apart. Of a parameter given twice the first counts, as in Swift.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, Vec<u8>)>);

/// The parameter of this name is not valid UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotUtf8(pub(super) &'static str);

impl Params {
    /// Reads `a=1&b=two+words`. A query string is at most as long as hyper lets a header block be.
    pub(super) fn parse(query: &str) -> Self {
        let decode = |text: &str| -> Vec<u8> {
            let spaced = text.replace('+', " ");
            Cow::from(percent_decode(spaced.as_bytes())).into_owned()
        };
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (name.to_owned(), decode(value)))
                .collect(),
        )
    }

    /// The value, if the parameter is there.
    pub(super) fn get(&self, name: &'static str) -> Result<Option<&str>, NotUtf8> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found
            .map(|(_, value)| std::str::from_utf8(value).map_err(|_| NotUtf8(name)))
            .transpose()
    }

    /// Whether the parameter is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// Reads the parameters of a listing; a `limit` that is no number means the default.
    pub(super) fn listing(&self) -> Result<Query, NotUtf8> {
        let text = |name| Ok(self.get(name)?.unwrap_or_default().to_owned());
        let limit = self.get("limit")?.and_then(|limit| limit.parse().ok());
        let reverse = self
            .get("reverse")?
            .unwrap_or_default()
            .to_ascii_lowercase();
        Ok(Query {
            marker: text("marker")?,
            end_marker: text("end_marker")?,
            prefix: text("prefix")?,
            delimiter: text("delimiter")?,
            limit: limit.unwrap_or(LIMIT),
            reverse: ["true", "1", "yes", "on", "t", "y"].contains(&reverse.as_str()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn listed(query: &str) -> String {
        let names = [
            "a", "a/1", "a/2", "a/b/3", "b", "c/x", "dü", "e%", "z z", "..", "/lead", "tr/", "x//y",
        ];
        let names: BTreeMap<String, ()> = names.map(|n| (n.to_owned(), ())).into();
        let query = Params::parse(query).listing().unwrap();
        let rows = list(&names, &query, |()| true);
        rows.iter().map(Row::name).collect::<Vec<_>>().join(" | ")
    }

    // What Swift 2.38 answers; if these fail do not change the test.
    #[test]
    fn lists_as_swift_does() {
        let all = ".. | /lead | a | a/1 | a/2 | a/b/3 | b | c/x | dü | e% | tr/ | x//y | z z";
        for (query, expected) in [
            ("", all),
            ("limit=x", all),
            ("limit=-1", all),
            ("marker=&prefix=&delimiter=", all),
            ("delimiter=xx", all),
            ("limit=2", ".. | /lead"),
            ("limit=0", ""),
            ("limit=2&marker=a/1", "a/2 | a/b/3"),
            ("marker=b", "c/x | dü | e% | tr/ | x//y | z z"),
            ("end_marker=b", ".. | /lead | a | a/1 | a/2 | a/b/3"),
            ("marker=a&end_marker=b", "a/1 | a/2 | a/b/3"),
            ("prefix=a", "a | a/1 | a/2 | a/b/3"),
            ("prefix=a/", "a/1 | a/2 | a/b/3"),
            ("prefix=d%C3%BC", "dü"),
            ("prefix=z+z", "z z"),
            ("prefix=nothing", ""),
            ("marker=zzz", ""),
            (
                "delimiter=/",
                ".. | / | a | a/ | b | c/ | dü | e% | tr/ | x/ | z z",
            ),
            ("prefix=a/&delimiter=/", "a/1 | a/2 | a/b/"),
            ("prefix=a/&delimiter=/&marker=a/b/", ""),
            ("delimiter=/&limit=2", ".. | /"),
            ("delimiter=/&marker=a/", "b | c/ | dü | e% | tr/ | x/ | z z"),
            ("delimiter=/&marker=a/&limit=1", "b"),
            (
                "delimiter=/&marker=a/1",
                "a/ | b | c/ | dü | e% | tr/ | x/ | z z",
            ),
            ("delimiter=/&end_marker=a/1", ".. | / | a"),
            (
                "reverse=true",
                "z z | x//y | tr/ | e% | dü | c/x | b | a/b/3 | a/2 | a/1 | a | /lead | ..",
            ),
            (
                "reverse=true&marker=c/x&end_marker=a",
                "b | a/b/3 | a/2 | a/1",
            ),
            ("reverse=on&delimiter=/&marker=c/", "b | a/ | a | / | .."),
            ("reverse=1&prefix=a/", "a/b/3 | a/2 | a/1"),
        ] {
            assert_eq!(listed(query), expected, "?{query}");
        }
    }

    #[test]
    fn hides_what_is_not_visible() {
        let names: BTreeMap<String, u8> = [("a/1".into(), 0), ("b".into(), 1)].into();
        let query = Params::parse("delimiter=/").listing().unwrap();
        assert_eq!(list(&names, &query, |n| *n == 1), [Row::Item("b", &1)]);
    }

    #[test]
    fn refuses_what_is_not_utf8() {
        assert_eq!(
            Params::parse("prefix=%ff").listing(),
            Err(NotUtf8("prefix"))
        );
        assert_eq!(
            Params::parse("delimiter=%ff").listing(),
            Err(NotUtf8("delimiter"))
        );
    }

    proptest! {
        #[test]
        fn never_panics(
            query in "\\PC{0,60}|(marker|end_marker|prefix|delimiter|limit)=[%a-f0-9/&=]{0,40}",
        ) {
            let names = ["a", "ab", "é/é"].map(|name| (name.to_owned(), ()));
            if let Ok(query) = Params::parse(&query).listing() {
                list(&names.into(), &query, |()| true);
            }
        }

        /// Paging by the last row's name shows every row once, with and without a delimiter.
        #[test]
        fn pages_add_up(
            names in prop::collection::btree_set("[ab/]{1,4}", 0..30),
            prefix in "[ab/]{0,2}",
            delimiter in "/?",
            limit in 1usize..5,
            reverse: bool,
        ) {
            let names: BTreeMap<String, ()> = names.into_iter().map(|n| (n, ())).collect();
            let whole = Query { prefix, delimiter, limit: LIMIT, reverse, ..Query::default() };
            let texts = |rows: Vec<Row<'_, ()>>| -> Vec<String> {
                rows.iter().map(|row| row.name().to_owned()).collect()
            };
            let expected = texts(list(&names, &whole, |()| true));
            let mut paged = Vec::new();
            let mut query = Query { limit, ..whole };
            loop {
                let page = texts(list(&names, &query, |()| true));
                let Some(last) = page.last() else { break };
                query.marker = last.clone();
                paged.extend(page);
            }
            prop_assert_eq!(paged, expected);
        }
    }
}
