//! Which iLO each node has, by name: every node, or the one named before a colon.

use crate::error::{Error, Kind, Result};
use crate::lab::ilo::Generation;

/// What was asked for; a later word wins.
#[derive(Debug)]
pub(super) struct Generations(Vec<(Option<String>, Generation)>);

impl Generations {
    pub(super) fn parse(texts: &[String]) -> Result<Self> {
        let entries = texts.iter().map(|text| match text.split_once(':') {
            Some((node, name)) => Ok((Some(node.to_owned()), name.parse()?)),
            None => Ok((None, text.parse()?)),
        });
        entries.collect::<Result<_>>().map(Self)
    }

    /// Refuses iLOs of nodes that do not run.
    pub(super) fn check_nodes(&self, running: &[&str]) -> Result<()> {
        let mut named = self.0.iter().filter_map(|(node, _)| node.as_deref());
        match named.find(|name| !running.contains(name)) {
            None => Ok(()),
            Some(name) => Err(Error::new(
                Kind::Invalid,
                format!("an iLO is for {name:?}, which is no node of this lab"),
            )
            .hint(format!("the nodes are {}", running.join(", ")))),
        }
    }

    /// What the node has; counted from 0.
    pub(super) fn of(&self, index: usize, name: &str) -> Generation {
        let own = |own: bool| {
            let mut fitting = self
                .0
                .iter()
                .rev()
                .filter(|(node, _)| node.is_some() == own);
            fitting.find(|(node, _)| node.as_deref().is_none_or(|node| node == name))
        };
        let found = own(true).or_else(|| own(false));
        found.map_or_else(|| Generation::of_node(index), |(_, generation)| *generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_s_own_word_wins() {
        let texts = ["lab-2:ilo4-rest", "ilo6"].map(str::to_owned);
        let generations = Generations::parse(&texts).unwrap();
        assert_eq!(generations.of(0, "lab-1"), Generation::Ilo6);
        assert_eq!(generations.of(1, "lab-2"), Generation::Ilo4Rest);
        assert!(generations.check_nodes(&["lab-1", "lab-2"]).is_ok());
        assert!(generations.check_nodes(&["lab-1"]).is_err());
        let standard = Generations::parse(&[]).unwrap();
        assert_eq!(standard.of(0, "lab-1"), Generation::Ilo5);
        assert_eq!(standard.of(5, "lab-6"), Generation::Ilo4Ribcl);
        assert!(Generations::parse(&["lab-1:ilo3".to_owned()]).is_err());
    }
}
