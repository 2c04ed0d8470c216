//! Commands of the caller's, for what has no method.

use super::Ribcl;
use super::document::{Answer, Element};
use super::request::Command;
use crate::error::Result;
use crate::ilo::deadline::Deadline;
use crate::ilo::failure::Failure;
use crate::secret::Secret;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::iter::Peekable;

const HIDDEN: &str = "***";

/// Parts of the names of elements and attributes whose values are never shown.
const SECRETS: [&str; 6] = [
    "PASSWORD",
    "PASSPHRASE",
    "LICENSE_KEY",
    "PRIVATE_KEY",
    "COMMUNITY",
    "TOKEN",
];

/// Each is looked for in all of the answer.
const MAX_SECRETS: usize = 100;

impl Ribcl {
    /// Runs a block of commands; its elements in the order and nesting of the answer, names of
    /// attributes in capitals.
    pub(in crate::ilo) async fn run(&self, block: &Secret, deadline: Deadline) -> Result<Value> {
        let command = Command::raw(block).map_err(Failure::Unable)?;
        let answer = self.transport.call(&command, Some(deadline)).await?;
        let envelope = ["RIBCL", "RESPONSE"];
        let payload = answer
            .elements
            .iter()
            .filter(|element| !envelope.contains(&element.name.as_str()));
        let elements = self.nested(&mut payload.peekable(), 0);
        let text = without_secrets(&answer).map(|text| self.transport.masked(&text));
        Ok(json!({
            "message": self.transport.masked(&answer.message),
            "elements": elements,
            "text": text,
        }))
    }

    /// The elements from this depth on, up to one that stands further out.
    fn nested<'a>(
        &self,
        rest: &mut Peekable<impl Iterator<Item = &'a Element>>,
        depth: usize,
    ) -> Vec<Value> {
        let mut siblings = Vec::new();
        while let Some(element) = rest.next_if(|element| element.depth() >= depth) {
            let children = self.nested(rest, element.depth() + 1);
            let shown = |name: &str, value: &str| match element.hides(name) {
                true if !value.is_empty() => Value::from(HIDDEN),
                _ => Value::from(self.transport.masked(value)),
            };
            let attributes = element.attributes.iter();
            let attributes: Map<String, Value> = attributes
                .map(|(name, value)| (name.to_uppercase(), shown(name, value)))
                .collect();
            siblings.push(json!({
                "name": element.name,
                "attributes": attributes,
                "text": shown("", &element.text),
                "children": children,
            }));
        }
        siblings
    }
}

impl Element {
    /// Whether the value of this attribute is never shown, nor the text if it has no name.
    fn hides(&self, attribute: &str) -> bool {
        let names = [self.name.to_uppercase(), attribute.to_uppercase()];
        let is_secret = |name: &String| SECRETS.iter().any(|part| name.contains(part));
        names.iter().any(is_secret)
    }

    fn secrets(&self) -> impl Iterator<Item = &str> {
        let attributes = self.attributes.iter();
        let attributes = attributes.map(|(name, value)| (name.as_str(), value.as_str()));
        let all = attributes.chain([("", self.text.as_str())]);
        all.filter(|(name, value)| !value.is_empty() && self.hides(name))
            .map(|(_, value)| value)
    }
}

/// The documents with every secret hidden; `None` if one was read that cannot be found in them, or
/// there are more than any iLO has.
fn without_secrets(answer: &Answer) -> Option<String> {
    let secrets = answer.elements.iter().flat_map(Element::secrets);
    let secrets: BTreeSet<&str> = secrets.collect();
    if secrets.len() > MAX_SECRETS {
        return None;
    }
    let mut text = answer.text.clone();
    for secret in secrets {
        let written = secret.replace('&', "&amp;").replace('<', "&lt;");
        let written = written.replace('>', "&gt;").replace('"', "&quot;");
        let found = [secret, &written]
            .into_iter()
            .find(|form| text.contains(form));
        text = text.replace(found?, HIDDEN);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_in_the_documents() {
        let read = |payload: &str| {
            let text = format!(
                "<?xml version=\"1.0\"?>\r\n<RIBCL VERSION=\"2.23\">\n<RESPONSE STATUS=\"0x0000\" \
                 MESSAGE='No error' />\n{payload}</RIBCL>"
            );
            without_secrets(&Answer::parse(text.as_bytes()).unwrap())
        };
        let shown = read(
            "<LICENSE><LICENSE_KEY VALUE=\"35DRP-7B3TX\"/><NAME VALUE=\"x\"/></LICENSE>\
             <SNMP TRAP_COMMUNITY='a&lt;b' OTHER=\"35DRP-7B3TX\"/><LOM_PASSWORD>pw1</LOM_PASSWORD>",
        );
        let shown = shown.unwrap();
        for secret in ["35DRP", "a&lt;b", "pw1"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.contains("<NAME VALUE=\"x\"/>") && shown.contains("VALUE=\"***\""));
        let many = (0..200).map(|n| format!("<A PASSWORD='pw{n:03}'/>"));
        assert_eq!(read(&many.collect::<String>()), None);
        // A control character that the reader left out.
        assert_eq!(read("<A PASSWORD=\"p\u{1}w\"/>"), None);
    }
}
