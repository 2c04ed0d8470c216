//! The kernel modules of the image: which device wants which, and what has to be there before.
//!
//! The image is built with this index, so nothing has to be worked out on the node: for every
//! device there is, the kernel's own name of it (`modalias`) is looked up, and what is needed is
//! inserted in the order of the index. Drivers of other hardware stay out of memory, and a driver
//! that fails concerns only those who have its hardware.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where the index is in the image.
pub(super) const INDEX: &str = "modules/index.json";

/// Where the module of this name is in the image.
pub(super) fn file_of(module: &str) -> String {
    format!("modules/{module}.ko")
}

/// One module.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Driver {
    /// Modules that are inserted before it, in this order.
    pub(super) needs: Vec<String>,
    /// Patterns of the devices that want it.
    pub(super) aliases: Vec<String>,
}

/// All modules by name; names have `_` where files may have `-`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Drivers(pub(super) BTreeMap<String, Driver>);

impl Drivers {
    /// The modules that a device of this name wants.
    pub(super) fn wanted_by<'a>(&'a self, modalias: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter_map(move |(name, driver)| {
            let mut aliases = driver.aliases.iter();
            aliases
                .any(|pattern| fits(pattern.as_bytes(), modalias.as_bytes()))
                .then_some(name.as_str())
        })
    }

    /// The module and all that it needs, in the order to insert them.
    pub(super) fn in_order<'a>(&'a self, module: &'a str) -> impl Iterator<Item = &'a str> {
        let needs = self.0.get(module).map(|driver| driver.needs.iter());
        let needs = needs.into_iter().flatten().map(String::as_str);
        needs.chain(std::iter::once(module))
    }
}

/// Whether a text fits a pattern of `*`, `?` and `[0-9A-F]`, as fnmatch(3) has it.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where to go on when what followed the last star did not fit.
    let mut star = None;
    while let Some(byte) = text.get(from) {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at + 1, from));
            at += 1;
        } else if let Some(length) = fits_one(pattern.get(at..).unwrap_or_default(), *byte) {
            at += length;
            from += 1;
        } else if let Some((after, matched)) = star {
            star = Some((after, matched + 1));
            at = after;
            from = matched + 1;
        } else {
            return false;
        }
    }
    pattern.iter().skip(at).all(|byte| *byte == b'*')
}

/// Length of the pattern's first element, if the byte fits it.
fn fits_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern.first()? {
        b'?' => Some(1),
        b'[' => {
            let end = pattern.iter().position(|c| *c == b']')?;
            let set = pattern.get(1..end)?;
            let mut ranges = set.windows(3).filter(|range| range.get(1) == Some(&b'-'));
            let in_range = ranges.any(|range| match range {
                [low, _, high] => (low..=high).contains(&&byte),
                _ => false,
            });
            (in_range || set.contains(&byte)).then_some(end + 1)
        }
        literal => (*literal == byte).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_of_real_drivers_fit_real_devices() {
        let nvme = "pci:v0000144Dd0000A808sv0000144Dsd0000A801bc01sc08i02";
        let virtio = "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00";
        let stick = "usb:v46F4p0001d0000dc00dsc00dp00ic08isc06ip50in00";
        for (pattern, text, expected) in [
            ("pci:v*d*sv*sd*bc01sc08i02*", nvme, true),
            ("pci:v*d*sv*sd*bc01sc06i01*", nvme, false),
            ("pci:v00001AF4d*sv*sd*bc*sc*i*", virtio, true),
            ("pci:v00001AF4d*sv*sd*bc*sc*i*", nvme, false),
            ("usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*", stick, true),
            ("usb:v46F4p0001d[0-9]*dc*dsc*dp*ic*isc*ip*in*", stick, true),
            ("usb:v46F4p0001d[1-9A-F]00?dc*", stick, false),
            ("scsi:t-0x00*", "scsi:t-0x00", true),
            ("", "", true),
            ("*", "", true),
            ("a", "", false),
            ("[", "[", false),
        ] {
            assert_eq!(
                fits(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn what_is_needed_comes_first() {
        let driver = |needs: &[&str], aliases: &[&str]| Driver {
            needs: needs.iter().map(ToString::to_string).collect(),
            aliases: aliases.iter().map(ToString::to_string).collect(),
        };
        let drivers = Drivers(BTreeMap::from([
            ("a".to_owned(), driver(&[], &[])),
            ("b".to_owned(), driver(&["a"], &["x:*"])),
            ("c".to_owned(), driver(&["a", "b"], &["x:1*", "y:*"])),
        ]));
        assert_eq!(drivers.wanted_by("x:12").collect::<Vec<_>>(), ["b", "c"]);
        assert_eq!(drivers.wanted_by("y:").collect::<Vec<_>>(), ["c"]);
        assert_eq!(drivers.in_order("c").collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    proptest! {
        #[test]
        fn any_pattern_ends(pattern in "[*?\\[\\]a-c-]{0,20}", text in "[a-c]{0,20}") {
            fits(pattern.as_bytes(), text.as_bytes());
        }
    }
}
