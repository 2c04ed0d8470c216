//! Root device hints: which of the disks is meant.
//!
//! Source: Ironic, install/advanced.html#specifying-the-disk-for-deployment-root-device-hints, and
//! `ironic_lib.utils.match_root_device_hints`.

use super::sysfs::Drive;
use crate::error::{Error, Kind, Result};
use percent_encoding::percent_decode_str;

/// Smaller disks are taken only if they are hinted at.
const MIN_BYTES: u64 = 4 << 30;

/// What is asked of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hints(Vec<Hint>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Hint {
    name: String,
    test: Test,
}

/// A comparison with what a disk says, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Number(Order, u64),
    Text(Order, String),
    /// `<in>`
    Contains(String),
    /// `<all-in>`
    ContainsAll(Vec<String>),
    /// `<or>`
    OneOf(Vec<String>),
    Is(bool),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    fn holds(self, found: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => found.is_eq(),
            Self::NotEqual => found.is_ne(),
            Self::Less => found.is_lt(),
            Self::LessOrEqual => found.is_le(),
            Self::Greater => found.is_gt(),
            Self::GreaterOrEqual => found.is_ge(),
        }
    }
}

/// Operators by their spelling; `=` of a number means at least, as in OpenStack's flavors.
const NUMBERS: [(&str, Order); 7] = [
    ("==", Order::Equal),
    ("!=", Order::NotEqual),
    (">=", Order::GreaterOrEqual),
    ("<=", Order::LessOrEqual),
    (">", Order::Greater),
    ("<", Order::Less),
    ("=", Order::GreaterOrEqual),
];
const TEXTS: [(&str, Order); 6] = [
    ("s==", Order::Equal),
    ("s!=", Order::NotEqual),
    ("s>=", Order::GreaterOrEqual),
    ("s<=", Order::LessOrEqual),
    ("s>", Order::Greater),
    ("s<", Order::Less),
];

impl Hints {
    /// Reads `name=value,name=value`, the values percent-encoded.
    ///
    /// # Errors
    /// `invalid` for a hint that is not known, or a value that it cannot have.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let hints = text.split(',').filter(|hint| !hint.is_empty()).map(|hint| {
            let (name, value) = hint.split_once('=').unwrap_or((hint, ""));
            let value = percent_decode_str(value)
                .decode_utf8_lossy()
                .trim()
                .to_lowercase();
            let name = name.trim().to_lowercase();
            let bad = || {
                Error::new(
                    Kind::Invalid,
                    format!("root device hint {name} is {value:?}"),
                )
            };
            let test = Test::of(&name, &value).ok_or_else(bad)?;
            Ok(Hint { name, test })
        });
        Ok(Self(hints.collect::<Result<_>>()?))
    }

    /// The disk that is meant: the smallest of those that fit, without hints of at least 4 GiB; of
    /// equal ones the first by its path.
    ///
    /// # Errors
    /// `not_found`, with what every drive lacks.
    pub(super) fn choose(&self, drives: &[Drive]) -> Result<Drive> {
        let mut lacking = Vec::new();
        let mut fitting = Vec::new();
        for drive in drives {
            match self.why_not(drive) {
                None => fitting.push(drive),
                Some(why) => lacking.push(format!("{} {why}", drive.name)),
            }
        }
        let order = |drive: &&&Drive| (drive.bytes, drive.by_path.clone(), drive.name.clone());
        fitting
            .iter()
            .min_by_key(order)
            .map(|drive| (**drive).clone())
            .ok_or_else(|| {
                let seen = match lacking.is_empty() {
                    true => "there is none at all".to_owned(),
                    false => lacking.join("; "),
                };
                Error::new(Kind::NotFound, format!("no disk fits: {seen}"))
            })
    }

    fn why_not(&self, drive: &Drive) -> Option<String> {
        if let Some(why) = drive.why_not() {
            return Some(format!("is {why}"));
        }
        let wrong = self.0.iter().find(|hint| !hint.fits(drive));
        if let Some(hint) = wrong {
            let values = hint.values(drive).join(" or ");
            return Some(format!("has {} {values:?}", hint.name));
        }
        (self.0.is_empty() && drive.bytes < MIN_BYTES)
            .then(|| format!("has {} MiB, less than 4 GiB", drive.bytes >> 20))
    }
}

impl Test {
    fn of(name: &str, value: &str) -> Option<Self> {
        match name {
            "size" => {
                let found = NUMBERS
                    .iter()
                    .find_map(|(op, order)| Some((*order, value.strip_prefix(op)?)));
                let (order, number) = found.unwrap_or((Order::Equal, value));
                Some(Self::Number(order, number.trim().parse().ok()?))
            }
            "rotational" => match value {
                "true" | "1" | "yes" | "on" | "t" | "y" => Some(Self::Is(true)),
                "false" | "0" | "no" | "off" | "f" | "n" => Some(Self::Is(false)),
                _ => None,
            },
            "model"
            | "vendor"
            | "serial"
            | "wwn"
            | "wwn_with_extension"
            | "wwn_vendor_extension"
            | "name"
            | "hctl"
            | "by_path" => Self::of_text(value),
            _ => None,
        }
    }

    fn of_text(value: &str) -> Option<Self> {
        let after = |word: &str| -> Option<Vec<String>> {
            let mut parts = value.split(word);
            let begins = parts.next()?.trim().is_empty();
            let parts: Vec<String> = parts.map(|part| part.trim().to_owned()).collect();
            (begins && !parts.is_empty()).then_some(parts)
        };
        if let Some(words) = after("<all-in>") {
            let words = words.iter().flat_map(|part| part.split_whitespace());
            return Some(Self::ContainsAll(words.map(str::to_owned).collect()));
        }
        if let Some(words) = after("<or>") {
            return Some(Self::OneOf(words));
        }
        if let Some(words) = after("<in>") {
            return words.into_iter().next().map(Self::Contains);
        }
        let found = TEXTS
            .iter()
            .find_map(|(op, order)| Some((*order, value.strip_prefix(op)?)));
        let (order, text) = found.unwrap_or((Order::Equal, value));
        let text = text.trim();
        (!text.is_empty()).then(|| Self::Text(order, text.to_owned()))
    }

    fn holds(&self, found: &str) -> bool {
        match self {
            Self::Number(order, wanted) => found
                .parse::<u64>()
                .is_ok_and(|found| order.holds(found.cmp(wanted))),
            Self::Text(order, wanted) => order.holds(found.cmp(wanted.as_str())),
            Self::Contains(part) => found.contains(part.as_str()),
            Self::ContainsAll(parts) => parts.iter().all(|part| found.contains(part.as_str())),
            Self::OneOf(texts) => texts.iter().any(|text| text == found),
            Self::Is(wanted) => found == wanted.to_string(),
        }
    }
}

impl Hint {
    /// One of the spellings of what the disk says has to fit; `!=` is against all of them.
    fn fits(&self, drive: &Drive) -> bool {
        let values = self.values(drive);
        match self.test {
            Test::Text(Order::NotEqual, _) => values.iter().all(|value| self.test.holds(value)),
            _ => values.iter().any(|value| self.test.holds(value)),
        }
    }

    fn values(&self, drive: &Drive) -> Vec<String> {
        // A name of NAA 6 has the vendor's extension behind the first 16 digits, as udev has it.
        let (wwn, extension) = drive.wwn.split_at_checked(16).unwrap_or((&drive.wwn, ""));
        let wide = |digits: &str| match digits.is_empty() {
            true => vec![String::new()],
            false => vec![format!("0x{digits}"), digits.to_owned()],
        };
        let values = match self.name.as_str() {
            "size" => vec![(drive.bytes >> 30).to_string()],
            "rotational" => vec![drive.is_rotational.to_string()],
            "model" => vec![drive.model.clone()],
            "vendor" => vec![drive.vendor.clone()],
            "serial" => vec![drive.serial.clone()],
            "hctl" => vec![drive.hctl.clone()],
            "wwn" => wide(wwn),
            "wwn_vendor_extension" => wide(extension),
            "wwn_with_extension" => wide(&drive.wwn),
            "by_path" => {
                vec![
                    format!("/dev/disk/by-path/{}", drive.by_path),
                    drive.by_path.clone(),
                ]
            }
            _ => vec![drive.device().display().to_string(), drive.name.clone()],
        };
        values
            .into_iter()
            .map(|value| value.to_lowercase())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drives() -> Vec<Drive> {
        let drive = |name: &str, gib: u64, by_path: &str| Drive {
            name: name.into(),
            bytes: gib << 30,
            by_path: by_path.into(),
            model: "LOGICAL VOLUME".into(),
            vendor: "HP".into(),
            serial: format!("SN-{name}"),
            wwn: "600508b1001c4d41a6bd9c5c6a3a7b01".into(),
            is_rotational: true,
            ..Drive::default()
        };
        vec![
            Drive {
                is_usb: true,
                ..drive("sdu", 8, "pci-0000:00:14.0-usb")
            },
            drive("sda", 2000, "pci-0000:03:00.0-scsi-0:1:0:1"),
            drive("sdb", 500, "pci-0000:03:00.0-scsi-0:1:0:2"),
            drive("sdc", 500, "pci-0000:03:00.0-scsi-0:1:0:0"),
            drive("sdd", 1, "pci-0000:03:00.0-scsi-0:1:0:3"),
            Drive {
                is_rotational: false,
                model: "SAMSUNG MZ1LB960".into(),
                ..drive("nvme0n1", 894, "pci-0000:84:00.0-nvme-1")
            },
        ]
    }

    fn chosen(hints: &str) -> String {
        let chosen = Hints::parse(hints).and_then(|hints| hints.choose(&drives()));
        chosen.map_or_else(|e| e.message().to_owned(), |drive| drive.name)
    }

    #[test]
    fn the_disk_that_is_meant_is_taken() {
        for (hints, expected) in [
            // The smallest that is large enough, and of two the first by path.
            ("", "sdc"),
            ("size=500", "sdc"),
            ("size=%3D%3D%20500,name=%2Fdev%2Fsdb", "sdb"),
            ("size=%3E%3D%20800", "nvme0n1"),
            ("size=%3E%20900", "sda"),
            ("size=%3C%20500", "sdd"),
            ("rotational=false", "nvme0n1"),
            ("model=s%3D%3D%20SAMSUNG%20MZ1LB960", "nvme0n1"),
            ("model=samsung%20mz1lb960", "nvme0n1"),
            ("model=%3Cin%3E%20Samsung", "nvme0n1"),
            ("model=%3Call-in%3E%20mz1lb%20samsung", "nvme0n1"),
            ("model=s!%3D%20logical%20volume", "nvme0n1"),
            ("serial=%3Cor%3E%20SN-sdb%20%3Cor%3E%20SN-x", "sdb"),
            ("name=sda", "sda"),
            ("by_path=pci-0000%3A84%3A00.0-nvme-1", "nvme0n1"),
            (
                "by_path=%2Fdev%2Fdisk%2Fby-path%2Fpci-0000%3A84%3A00.0-nvme-1",
                "nvme0n1",
            ),
            ("wwn=0x600508b1001c4d41,name=sda", "sda"),
            ("wwn_vendor_extension=0xa6bd9c5c6a3a7b01,name=sda", "sda"),
            (
                "wwn_with_extension=0x600508B1001C4D41A6BD9C5C6A3A7B01,name=sda",
                "sda",
            ),
        ] {
            assert_eq!(chosen(hints), expected, "{hints}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let none = chosen("name=sdu");
        assert!(
            none.contains("sdu is connected by USB; sda has name \"/dev/sda or sda\""),
            "{none}"
        );
        let none = chosen("size=77");
        assert!(none.contains("sda has size \"2000\""), "{none}");
        for wrong in ["size=big", "colour=red", "rotational=maybe", "model="] {
            let error = Hints::parse(wrong).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{wrong}");
        }
        let small = Hints::parse("")
            .unwrap()
            .choose(&drives()[4..5])
            .unwrap_err();
        assert!(
            small.message().contains("1024 MiB, less than 4 GiB"),
            "{small}"
        );
        let none = Hints::parse("").unwrap().choose(&[]).unwrap_err();
        assert!(none.message().contains("none at all"), "{none}");
    }

    proptest! {
        #[test]
        fn never_panics(text in "(size|model|name|wwn)=[%<>=a-z0-9 -]{0,30}") {
            if let Ok(hints) = Hints::parse(&text) {
                drop(hints.choose(&drives()));
            }
        }
    }
}
