//! Reads RIBCL answers: several XML documents, one after another, some of them malformed.
//!
//! Firmware writes what no XML parser takes: `<RIBCL VERSION="2.22"/>` followed by content and
//! `</RIBCL>` (iLO 3), bytes 0x01 and such that are not UTF-8, quotes within quotes of the same
//! kind, text behind the last document. This scanner knows elements, attributes and text, takes
//! everything else as noise, and passes over each byte a bounded number of times.

use crate::error::{Error, Kind, Result};

/// Elements read of one answer; the longest seen has some 3000.
const MAX_ELEMENTS: usize = 20_000;
/// Nesting; the deepest seen is 6.
const MAX_DEPTH: usize = 32;
/// Longest name of an element or attribute.
const MAX_NAME: usize = 64;
/// Longest value of an attribute, in bytes, and how many of its own quotes it may hold.
const MAX_VALUE: usize = 8 << 10;
const MAX_QUOTES: usize = 64;

/// An element of any of the documents, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Element {
    pub(super) name: String,
    pub(super) attributes: Vec<(String, String)>,
    /// The text up to the next tag.
    pub(super) text: String,
    /// Names of what it stands in, outermost first.
    within: Vec<String>,
}

impl Element {
    /// The attribute's value; empty if there is none. Names are compared without case.
    pub(super) fn attribute(&self, name: &str) -> &str {
        let found = self
            .attributes
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// In how many elements of the answer it stands; the documents' own do not count.
    pub(super) fn depth(&self) -> usize {
        self.within.iter().filter(|outer| *outer != "RIBCL").count()
    }

    /// Whether it stands in an element of this name.
    pub(super) fn is_within(&self, name: &str) -> bool {
        self.within.iter().any(|outer| outer == name)
    }
}

/// An answer: what the iLO said about the request, and what it brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The first status that is not 0.
    pub(super) status: u16,
    /// The text of that status, or what a success had to say besides.
    pub(super) message: String,
    pub(super) elements: Vec<Element>,
    /// The documents as they came.
    pub(super) text: String,
}

impl Answer {
    /// # Errors
    /// `protocol` if nothing in it tells a status, `limit` if it is absurdly large.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        let elements = scan(bytes)?;
        let mut statuses = elements.iter().filter(|e| e.name == "RESPONSE").map(|e| {
            let digits = e.attribute("STATUS").trim();
            let digits = digits.strip_prefix("0x").unwrap_or(digits);
            // Old text names the attribute MSG.
            let message = match e.attribute("MESSAGE") {
                "" => e.attribute("MSG"),
                message => message,
            };
            (u16::from_str_radix(digits, 16).ok(), message)
        });
        let mut seen = None;
        let failed = statuses.find(|(status, message)| {
            if *message != "No error" && !message.is_empty() || seen.is_none() {
                seen = Some(*message);
            }
            *status != Some(0)
        });
        let (status, message) = match (failed, seen) {
            (Some((Some(status), message)), _) => (status, message),
            (Some((None, _)), _) | (None, None) => {
                return Err(Error::new(Kind::Protocol, "the answer is not RIBCL"));
            }
            (None, Some(message)) => (0, message),
        };
        let informs = elements
            .iter()
            .filter(|e| e.name == "INFORM" && !e.text.is_empty());
        let inform = informs.map(|e| e.text.as_str()).next();
        let message = match inform {
            Some(inform) if status == 0 && message == "No error" => inform,
            _ => message,
        };
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Self {
            status,
            message,
            elements,
            text: String::from_utf8_lossy(bytes).into_owned(),
        })
    }

    /// The first element of this name.
    pub(super) fn element(&self, name: &str) -> Option<&Element> {
        self.elements.iter().find(|e| e.name == name)
    }

    /// What stands in elements of this name.
    pub(super) fn below<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.elements.iter().filter(move |e| e.is_within(name))
    }
}

/// The elements of concatenated documents.
///
/// # Errors
/// `limit` if there are too many.
pub(super) fn scan(bytes: &[u8]) -> Result<Vec<Element>> {
    let text = String::from_utf8_lossy(bytes);
    let mut elements: Vec<Element> = Vec::new();
    let mut open: Vec<String> = Vec::new();
    let mut rest = &*text;
    while let Some((before, tag)) = rest.split_once('<') {
        if let Some(last) = elements.last_mut()
            && last.text.is_empty()
        {
            last.text = value(before.trim());
        }
        rest = if let Some(instruction) = tag.strip_prefix('?') {
            // The next document; whatever was left open is not.
            open.clear();
            after(instruction, "?>")
        } else if let Some(comment) = tag.strip_prefix("!--") {
            after(comment, "-->")
        } else if let Some(text) = tag.strip_prefix("![CDATA[") {
            let (text, rest) = text.split_once("]]>").unwrap_or((text, ""));
            if let Some(last) = elements.last_mut() {
                last.text = text.trim().to_owned();
            }
            rest
        } else if let Some(close) = tag.strip_prefix('/') {
            let (name, rest) = split_name(close);
            if let Some(at) = open.iter().rposition(|o| o == name) {
                open.truncate(at);
            }
            after(rest, ">")
        } else {
            let (element, closed, rest) = start_tag(tag);
            if !element.name.is_empty() {
                if elements.len() == MAX_ELEMENTS || open.len() == MAX_DEPTH {
                    let message = "the answer has too many elements";
                    return Err(Error::new(Kind::Limit, message));
                }
                let name = element.name.clone();
                elements.push(Element {
                    within: open.clone(),
                    ..element
                });
                if !closed {
                    open.push(name);
                }
            }
            rest
        };
    }
    Ok(elements)
}

fn after<'a>(text: &'a str, end: &str) -> &'a str {
    text.split_once(end).map_or("", |(_, rest)| rest)
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':')
}

fn split_name(text: &str) -> (&str, &str) {
    let end = text
        .char_indices()
        .take(MAX_NAME)
        .find(|(_, c)| !is_name(*c));
    let end = end.map_or_else(|| text.len().min(MAX_NAME), |(at, _)| at);
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// Behind `<`: the element, whether it closes itself, and what follows.
fn start_tag(text: &str) -> (Element, bool, &str) {
    let (name, mut rest) = split_name(text);
    let mut element = Element {
        name: name.to_owned(),
        ..Element::default()
    };
    if name.is_empty() {
        return (element, true, text);
    }
    loop {
        rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix("/>") {
            return (element, true, rest);
        }
        if let Some(rest) = rest.strip_prefix('>') {
            return (element, false, rest);
        }
        let (name, behind) = split_name(rest);
        let quoted = behind.trim_start().strip_prefix('=').map(str::trim_start);
        let quote = quoted
            .and_then(|q| q.chars().next())
            .filter(|c| matches!(c, '"' | '\''));
        match (quoted, quote) {
            (Some(quoted), Some(quote)) if !name.is_empty() => {
                let (text, behind) = quoted_value(quoted.get(1..).unwrap_or(""), quote);
                element.attributes.push((name.to_owned(), value(text)));
                rest = behind;
            }
            _ if rest.is_empty() || rest.starts_with('<') => return (element, true, rest),
            // Noise: on to what may be the next attribute.
            _ => {
                let step = rest
                    .chars()
                    .next()
                    .map_or(0, char::len_utf8)
                    .max(name.len());
                rest = rest.get(step..).unwrap_or("");
            }
        }
    }
}

/// A value up to its quote. The same quote may stand in it: it ends the value only where the tag
/// ends or another attribute begins. A value never spans tags, or a lost quote would swallow what
/// follows.
fn quoted_value(text: &str, quote: char) -> (&str, &str) {
    let mut looked_at = 0;
    for (at, _) in text.match_indices(quote).take(MAX_QUOTES) {
        let (value, rest) = (
            text.get(..at).unwrap_or(""),
            text.get(at + 1..).unwrap_or(""),
        );
        let new = value.get(looked_at..).unwrap_or("");
        if at > MAX_VALUE || new.contains("/>") || new.contains("<?xml") {
            break;
        }
        looked_at = at;
        if ends_value(rest) {
            return (value, rest);
        }
    }
    let end = text.find(['>', '<']).unwrap_or(text.len());
    let (value, rest) = text.split_at(end);
    (value.trim_end_matches(['/', ' ']), rest)
}

fn ends_value(rest: &str) -> bool {
    let spaces = rest
        .chars()
        .take(MAX_NAME)
        .take_while(|c| c.is_whitespace());
    let next = rest.get(spaces.map(char::len_utf8).sum()..).unwrap_or("");
    if next.is_empty() || next.starts_with(['>', '<', '?']) || next.starts_with("/>") {
        return true;
    }
    let (name, behind) = split_name(next);
    let spaces = behind
        .chars()
        .take(MAX_NAME)
        .take_while(|c| c.is_whitespace());
    let behind = behind.get(spaces.map(char::len_utf8).sum()..).unwrap_or("");
    next.len() < rest.len() && !name.is_empty() && behind.starts_with('=')
}

/// Without control characters, and with the entities decoded.
fn value(text: &str) -> String {
    let plain: String = text
        .chars()
        .map(|c| {
            if matches!(c, '\n' | '\r' | '\t') {
                ' '
            } else {
                c
            }
        })
        .filter(|c| !c.is_control())
        .collect();
    let entities = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&amp;", "&"),
    ];
    entities
        .iter()
        .fold(plain, |text, (entity, c)| text.replace(entity, c))
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
