//! Options that are for every node, or for the one that is named before a colon.

use crate::error::{Error, Kind, Result};

/// The options of one kind, in the order in which they were given.
#[derive(Debug)]
pub(super) struct ForNodes<T>(Vec<(Option<String>, T)>);

impl<T: Copy> ForNodes<T> {
    /// Reads `value` and `node:value`.
    pub(super) fn parse(texts: &[String], parse: impl Fn(&str) -> Result<T>) -> Result<Self> {
        let entries = texts.iter().map(|text| match text.split_once(':') {
            Some((node, value)) => Ok((Some(node.to_owned()), parse(value)?)),
            None => Ok((None, parse(text)?)),
        });
        entries.collect::<Result<_>>().map(Self)
    }

    /// Refuses options of nodes that do not run; `what` an option is, as in `a fault`.
    pub(super) fn check(&self, what: &str, running: &[&str]) -> Result<()> {
        let mut named = self.0.iter().filter_map(|(node, _)| node.as_deref());
        match named.find(|name| !running.contains(name)) {
            None => Ok(()),
            Some(name) => Err(Error::new(
                Kind::Invalid,
                format!("{what} is for {name:?}, which is no node of this lab"),
            )
            .hint(format!("the nodes are {}", running.join(", ")))),
        }
    }

    /// What is for this node: first what is for all, then its own.
    pub(super) fn of(&self, node: &str) -> impl Iterator<Item = T> {
        let general = self.0.iter().filter(|(owner, _)| owner.is_none());
        let own = self.0.iter();
        let own = own.filter(move |(owner, _)| owner.as_deref() == Some(node));
        general.chain(own).map(|(_, value)| *value)
    }
}
