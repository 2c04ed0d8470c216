//! Reads RIBCL scripts as an iLO does: tags and quoted attributes, nothing else of XML. Entities
//! are left to who knows the attribute: in passwords they are none.

/// An element with what is in it. Text between elements is ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) name: String,
    pub(super) attributes: Vec<(String, String)>,
    pub(super) children: Vec<Self>,
}

/// Where a script could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) near: String,
}

/// Deepest nesting of a script.
const MAX_DEPTH: usize = 16;

impl Element {
    /// An attribute's value.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut attributes = self.attributes.iter();
        attributes
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value that commands give their argument, in either case.
    pub(super) fn value(&self) -> Option<&str> {
        self.get("VALUE").or_else(|| self.get("value"))
    }
}

/// Reads the one element of a script.
pub(super) fn parse(script: &str) -> Result<Element, SyntaxError> {
    let mut reader = Reader { script, at: 0 };
    reader.skip_to_tag();
    if reader.rest().starts_with("<?") {
        let end = reader.rest().find("?>").ok_or_else(|| reader.error("<?"))?;
        reader.at += end + 2;
        reader.skip_to_tag();
    }
    reader.element(0)
}

#[derive(Debug)]
struct Reader<'a> {
    script: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.script.get(self.at..).unwrap_or_default()
    }

    fn error(&self, near: &str) -> SyntaxError {
        let before = self.script.get(..self.at).unwrap_or_default();
        SyntaxError {
            line: before.matches('\n').count() + 1,
            near: near.chars().take(32).collect(),
        }
    }

    fn skip_to_tag(&mut self) {
        self.at += self.rest().find('<').unwrap_or_else(|| self.rest().len());
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn take(&mut self, what: &str) -> bool {
        let found = self.rest().starts_with(what);
        self.at += if found { what.len() } else { 0 };
        found
    }

    fn name(&mut self) -> String {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let rest = self.rest();
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let name = rest.get(..end).unwrap_or_default().to_owned();
        self.at += end;
        name
    }

    fn element(&mut self, depth: usize) -> Result<Element, SyntaxError> {
        if depth > MAX_DEPTH || !self.take("<") {
            return Err(self.error("<"));
        }
        let name = self.name();
        if name.is_empty() {
            return Err(self.error("<"));
        }
        let mut element = Element {
            name,
            attributes: Vec::new(),
            children: Vec::new(),
        };
        loop {
            self.skip_blanks();
            if self.take("/>") {
                return Ok(element);
            }
            if self.take(">") {
                break;
            }
            element.attributes.push(self.attribute()?);
        }
        loop {
            self.skip_to_tag();
            if self.rest().starts_with("</") {
                self.at += 2;
                let closed = self.name();
                self.skip_blanks();
                return match closed == element.name && self.take(">") {
                    true => Ok(element),
                    false => Err(self.error(&closed)),
                };
            }
            if self.rest().is_empty() {
                return Err(self.error(&element.name));
            }
            element.children.push(self.element(depth + 1)?);
        }
    }

    /// `NAME="value"` or `NAME='value'`.
    fn attribute(&mut self) -> Result<(String, String), SyntaxError> {
        let name = self.name();
        self.skip_blanks();
        let has_value = !name.is_empty() && self.take("=");
        self.skip_blanks();
        let quote = self
            .rest()
            .chars()
            .next()
            .filter(|c| matches!(c, '"' | '\''));
        let Some(quote) = quote.filter(|_| has_value) else {
            return Err(self.error(&name));
        };
        self.at += 1;
        let Some(end) = self.rest().find(quote) else {
            return Err(self.error(&name));
        };
        let value = self.rest().get(..end).unwrap_or_default().to_owned();
        self.at += end + 1;
        Ok((name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_and_entities_stay_as_they_are() {
        let script = "<?xml version=\"1.0\"?>\r\n<RIBCL VERSION=\"2.0\"><LOGIN USER_LOGIN=\"a\" \
            PASSWORD='p\"&lt;'>\n<RIB_INFO MODE = \"read\"><GET_FW_VERSION/></RIB_INFO></LOGIN></RIBCL>";
        let ribcl = parse(script).unwrap();
        let login = &ribcl.children[0];
        assert_eq!(login.get("PASSWORD"), Some("p\"&lt;"));
        assert_eq!(login.children[0].get("MODE"), Some("read"));
        assert_eq!(login.children[0].children[0].name, "GET_FW_VERSION");
    }

    #[test]
    fn errors_name_the_line() {
        let error = parse("<RIBCL>\n<A B=c/></RIBCL>").unwrap_err();
        assert_eq!((error.line, error.near.as_str()), (2, "B"));
        for bad in ["", "<", "<A", "<A>", "<A></B>", "<A B=\"c/>", "<A B>"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&"<A>".repeat(100_000)).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(script in "[<>/='\"A-C\u{e9} \n?]{0,200}") {
            let _read = parse(&script);
        }
    }
}
