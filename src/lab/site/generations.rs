//! Which iLO each node has, by name: every node, or the one named before a colon.

use super::for_nodes::ForNodes;
use crate::error::Result;
use crate::lab::ilo::Generation;

/// What was asked for; a later word wins.
#[derive(Debug)]
pub(super) struct Generations(ForNodes<Generation>);

impl Generations {
    pub(super) fn parse(texts: &[String]) -> Result<Self> {
        ForNodes::parse(texts, str::parse).map(Self)
    }

    /// Refuses iLOs of nodes that do not run.
    pub(super) fn check_nodes(&self, running: &[&str]) -> Result<()> {
        self.0.check("an iLO", running)
    }

    /// What the node has; counted from 0.
    pub(super) fn of(&self, index: usize, name: &str) -> Generation {
        let asked = self.0.of(name).last();
        asked.unwrap_or_else(|| Generation::of_node(index))
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
