//! What iLOs tell everybody who asks for `/xmldata?item=all`, unless that is switched off.

use super::document;

/// Where it is.
pub(super) const PATH: &str = "/xmldata?item=all";

/// The page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    /// `Integrated Lights-Out 4 (iLO 4)`
    pub(super) processor: String,
    pub(super) firmware: String,
    /// Product name of the server.
    pub(super) product: String,
    /// Serial number of the server.
    pub(super) serial: String,
    /// UUID of the server.
    pub(super) uuid: String,
}

impl Shown {
    /// `None` for a page of something else.
    pub(super) fn parse(page: &[u8]) -> Option<Self> {
        let elements = document::scan(page).ok()?;
        elements.iter().find(|e| e.name == "RIMP")?;
        // A blade has a second UUID, of what the enclosure makes it be.
        let text = |block: &str, name: &str| {
            let mut of_block = elements
                .iter()
                .filter(|e| e.is_within(block) && !e.is_within("VIRTUAL"));
            let found = of_block.find(|e| e.name == name);
            found.map(|e| e.text.clone()).unwrap_or_default()
        };
        let processor = text("MP", "PN");
        (!processor.is_empty()).then(|| Self {
            firmware: text("MP", "FWRI"),
            product: text("HSI", "SPN"),
            serial: text("HSI", "SBSN"),
            uuid: text("HSI", "cUUID"),
            processor,
        })
    }

    /// 4 for iLO 4; the first had no number. `None` for an enclosure's manager and the like.
    pub(super) fn generation(&self) -> Option<u8> {
        let name = self.processor.strip_prefix("Integrated Lights-Out")?;
        let digits: String = name
            .trim()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        match digits.is_empty() {
            true => Some(1),
            false => digits.parse().ok(),
        }
    }
}

/// As an operator knows it.
impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            processor,
            firmware,
            product,
            ..
        } = self;
        write!(f, "{processor} {firmware} of a {product}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(processor: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?>\r\n<RIMP>\r\n<HSI>\r\n<SBSN>CZ31</SBSN>\r\n\
             <SPN>ProLiant BL460c</SPN>\r\n<VIRTUAL><VID><cUUID>not this</cUUID></VID></VIRTUAL>\
             <cUUID>3035</cUUID>\r\n</HSI>\r\n<MP>\r\n<ST>1</ST><PN>{processor}</PN>\r\n\
             <FWRI>2.54</FWRI>\r\n</MP>\r\n</RIMP>\r\n"
        )
    }

    #[test]
    fn generations_by_name() {
        for (processor, generation) in [
            ("Integrated Lights-Out 4 (iLO 4)", Some(4)),
            ("Integrated Lights-Out 3 (iLO 3)", Some(3)),
            ("Integrated Lights-Out 2 (iLO 2)", Some(2)),
            ("Integrated Lights-Out", Some(1)),
            (
                "BladeSystem c7000 DDR2 Onboard Administrator with KVM",
                None,
            ),
        ] {
            let shown = Shown::parse(page(processor).as_bytes()).unwrap();
            assert_eq!(shown.generation(), generation, "{processor}");
            assert_eq!(
                (shown.serial.as_str(), shown.uuid.as_str()),
                ("CZ31", "3035")
            );
            assert_eq!(
                shown.to_string(),
                format!("{processor} 2.54 of a ProLiant BL460c")
            );
        }
        for other in ["", "<html><PN>x</PN></html>", "<RIMP></RIMP>"] {
            assert_eq!(Shown::parse(other.as_bytes()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(Shown::parse(&bytes).map(|shown| (shown.generation(), shown)));
        }
    }
}
