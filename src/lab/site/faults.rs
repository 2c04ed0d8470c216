//! What goes wrong on a site, by name: with every node, or with the one named before a colon.

use super::for_nodes::ForNodes;
use crate::error::{Error, Kind, Result};
use crate::lab::ilo::Fault;
use crate::lab::node::NodeFault;
use crate::suggest::near;
use std::collections::BTreeSet;

/// The faults of a site.
#[derive(Debug)]
pub(super) struct Faults(ForNodes<What>);

#[derive(Debug, Clone, Copy)]
enum What {
    Ilo(Fault),
    Node(NodeFault),
    /// The object store has no space for the node's objects.
    StoreFull,
}

const STORE_FULL: [&str; 3] = [
    "store.put=full",
    "uploads for the node are refused with 507",
    "Swift: RFC 4918 507 of full object servers",
];

/// Every fault: name, description, source.
pub(super) fn list() -> Vec<[&'static str; 3]> {
    let ilo = Fault::ALL.iter().map(|f| [f.name, f.what, f.source]);
    let node = NodeFault::ALL.iter();
    let node = node.map(|(_, name, what)| [*name, *what, "failures of deployed servers"]);
    ilo.chain(node).chain([STORE_FULL]).collect()
}

fn names() -> Vec<&'static str> {
    list().into_iter().map(|[name, ..]| name).collect()
}

impl Faults {
    pub(super) fn parse(texts: &[String]) -> Result<Self> {
        ForNodes::parse(texts, What::parse).map(Self)
    }

    /// Refuses faults of nodes that do not run.
    pub(super) fn check_nodes(&self, running: &[&str]) -> Result<()> {
        self.0.check("a fault", running)
    }

    pub(super) fn of_ilo(&self, node: &str) -> BTreeSet<Fault> {
        let ilo = self.0.of(node).filter_map(|what| match what {
            What::Ilo(fault) => Some(fault),
            What::Node(_) | What::StoreFull => None,
        });
        ilo.collect()
    }

    pub(super) fn of_node(&self, node: &str) -> BTreeSet<NodeFault> {
        let own = self.0.of(node).filter_map(|what| match what {
            What::Node(fault) => Some(fault),
            What::Ilo(_) | What::StoreFull => None,
        });
        own.collect()
    }

    pub(super) fn fills_store(&self, node: &str) -> bool {
        self.0.of(node).any(|what| matches!(what, What::StoreFull))
    }
}

impl What {
    fn parse(name: &str) -> Result<Self> {
        let ilo = name.parse().ok().map(Self::Ilo);
        let node_fault = || NodeFault::parse(name).map(Self::Node);
        let store = || (name == STORE_FULL[0]).then_some(Self::StoreFull);
        let what = ilo.or_else(node_fault).or_else(store);
        what.ok_or_else(|| {
            let known = "`flowrun lab faults` lists them";
            let hint = match near(name, &names()) {
                Some(meant) => format!("did you mean {meant}? {known}"),
                None => known.to_owned(),
            };
            Error::new(Kind::Invalid, format!("no fault is called {name:?}")).hint(hint)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_and_goes_to_whom_it_is_for() {
        for name in names() {
            let faults = Faults::parse(&[name.to_owned()]).unwrap();
            let store = usize::from(faults.fills_store("a"));
            assert_eq!(
                faults.of_ilo("a").len() + faults.of_node("a").len() + store,
                1
            );
        }
        let texts = ["lab-2:ilo.power=ignored", "node.ramdisk=silent"].map(str::to_owned);
        let faults = Faults::parse(&texts).unwrap();
        assert_eq!(faults.of_ilo("lab-1"), BTreeSet::new());
        assert_eq!(faults.of_ilo("lab-2"), [Fault::PowerIgnored].into());
        assert_eq!(faults.of_node("lab-1"), [NodeFault::RamdiskSilent].into());
        assert!(faults.check_nodes(&["lab-1", "lab-2"]).is_ok());
        assert_eq!(
            faults.check_nodes(&["lab-1"]).unwrap_err().kind(),
            Kind::Invalid
        );
        for (mistyped, hint) in [
            (
                "node.power=lost-in-wirte",
                "did you mean node.power=lost-in-write?",
            ),
            ("node.x=y", "`flowrun lab faults` lists them"),
        ] {
            let error = Faults::parse(&[mistyped.to_owned()]).unwrap_err();
            assert!(error.advice().unwrap().contains(hint), "{error:?}");
        }
    }
}
