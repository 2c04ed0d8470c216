//! Writes RIBCL requests.

use super::document;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// What follows in a write of its own: old firmware wants it apart.
pub(super) const PROLOGUE: &str = "<?xml version=\"1.0\"?>\r\n";

/// The block that a command stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    /// The server.
    Server,
    /// The iLO.
    Rib,
}

/// One command: no request of ours carries two.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub(super) name: &'static str,
    /// Whether it changes something, for which the iLO's database is opened for writing.
    pub(super) writes: bool,
    /// With the block around it.
    element: Secret,
}

impl Command {
    /// `<NAME A="v"/>` that looks.
    pub(super) fn look(block: Block, name: &'static str) -> Self {
        Self::within(block, false, name, &format!("<{name}/>"))
    }

    fn within(block: Block, writes: bool, name: &'static str, element: &str) -> Self {
        let block = match block {
            Block::Server => "SERVER_INFO",
            Block::Rib => "RIB_INFO",
        };
        let mode = if writes { "write" } else { "read" };
        let element = format!("<{block} MODE=\"{mode}\">{element}</{block}>");
        Self {
            name,
            writes,
            element: Secret::new(element),
        }
    }

    /// A block of the caller's, with whatever commands it has.
    ///
    /// # Errors
    /// `invalid` for what is no block: the login around it is ours.
    pub(super) fn raw(block: &Secret) -> Result<Self> {
        let text = block.expose().trim();
        let wrong = |message: &str| {
            Error::new(Kind::Invalid, format!("the RIBCL {message}"))
                .hint("<SERVER_INFO MODE=\"read\"><GET_PRODUCT_NAME/></SERVER_INFO>")
        };
        let upper = text.to_uppercase();
        let ours = ["<?XML", "<RIBCL", "<LOGIN", "</LOGIN"];
        if ours.iter().any(|tag| upper.contains(tag)) {
            return Err(wrong(
                "must be a block alone: declaration and login are added to it",
            ));
        }
        let [tag] = &document::scan(text.split_inclusive('>').next().unwrap_or("").as_bytes())?[..]
        else {
            return Err(wrong("must begin with a block"));
        };
        if !text.starts_with('<') || !text.ends_with(&format!("</{}>", tag.name)) {
            return Err(wrong("must be one block, from tag to tag"));
        }
        Ok(Self {
            name: "RIBCL",
            writes: tag.attribute("MODE").eq_ignore_ascii_case("write"),
            element: Secret::new(text),
        })
    }

    /// `<NAME A="v"/>` that looks or changes.
    pub(super) fn with(
        block: Block,
        writes: bool,
        name: &'static str,
        attributes: &[(&str, &str)],
    ) -> Result<Self> {
        Self::nested(block, writes, name, attributes, &[])
    }

    /// `<NAME A="v"><CHILD VALUE="v"/>…</NAME>`.
    pub(super) fn nested(
        block: Block,
        writes: bool,
        name: &'static str,
        attributes: &[(&str, &str)],
        children: &[(&str, &str)],
    ) -> Result<Self> {
        let mut element = format!("<{name}");
        for (attribute, value) in attributes {
            write_attribute(&mut element, attribute, value)?;
        }
        if children.is_empty() {
            element.push_str("/>");
        } else {
            element.push('>');
            for (child, value) in children {
                element.push('<');
                element.push_str(child);
                write_attribute(&mut element, "VALUE", value)?;
                element.push_str("/>");
            }
            element.push_str(&format!("</{name}>"));
        }
        Ok(Self::within(block, writes, name, &element))
    }

    /// The document behind [`PROLOGUE`].
    pub(super) fn document(&self, username: &str, password: &Secret) -> Result<Secret> {
        let login = login(username, password)?;
        Ok(Secret::new(format!(
            "<RIBCL VERSION=\"2.0\">{}{}</LOGIN></RIBCL>\r\n",
            login.expose(),
            self.element.expose()
        )))
    }
}

/// iLOs do not decode entities in a password: it goes out as it is, in the quotes that fit.
fn login(username: &str, password: &Secret) -> Result<Secret> {
    let mut login = "<LOGIN".to_owned();
    write_attribute(&mut login, "USER_LOGIN", username)?;
    let text = password.expose();
    let quote = quote_of(text)
        .filter(|_| !text.contains('<'))
        .ok_or_else(|| {
            Error::new(
                Kind::Invalid,
                "RIBCL cannot carry a password with `<` or with both kinds of quotes",
            )
            .hint("change the password of the iLO account")
        })?;
    login.push_str(&format!(" PASSWORD={quote}{text}{quote}>"));
    Ok(Secret::new(login))
}

fn write_attribute(output: &mut String, name: &str, value: &str) -> Result<()> {
    let quote = quote_of(value).ok_or_else(|| {
        let message = format!("{name} must not hold control characters or both kinds of quotes");
        Error::new(Kind::Invalid, message)
    })?;
    // Elsewhere than in passwords the entities of XML are understood.
    let value = value.replace('&', "&amp;").replace('<', "&lt;");
    output.push_str(&format!(" {name}={quote}{value}{quote}"));
    Ok(())
}

/// The quote that `value` does not hold.
fn quote_of(value: &str) -> Option<char> {
    let plain = !value.chars().any(char::is_control);
    ['"', '\'']
        .into_iter()
        .find(|q| plain && !value.contains(*q))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(command: &Command, password: &str) -> String {
        let document = command.document("admin", &Secret::new(password)).unwrap();
        document.expose().to_owned()
    }

    #[test]
    fn an_insert_on_the_wire() {
        let attributes = [
            ("DEVICE", "CDROM"),
            ("IMAGE_URL", "http://h/os.iso?a=1&b=2"),
        ];
        let command = Command::with(Block::Rib, true, "INSERT_VIRTUAL_MEDIA", &attributes).unwrap();
        assert_eq!(
            written(&command, "p&w"),
            "<RIBCL VERSION=\"2.0\"><LOGIN USER_LOGIN=\"admin\" PASSWORD=\"p&w\">\
             <RIB_INFO MODE=\"write\"><INSERT_VIRTUAL_MEDIA DEVICE=\"CDROM\" \
             IMAGE_URL=\"http://h/os.iso?a=1&amp;b=2\"/></RIB_INFO></LOGIN></RIBCL>\r\n"
        );
        assert!(!format!("{command:?}").contains("os.iso"));
    }

    #[test]
    fn children_carry_values() {
        let options = [("VM_BOOT_OPTION", "CONNECT"), ("VM_WRITE_PROTECT", "YES")];
        let command = Command::nested(
            Block::Rib,
            true,
            "SET_VM_STATUS",
            &[("DEVICE", "FLOPPY")],
            &options,
        );
        assert!(written(&command.unwrap(), "p").contains(
            "<SET_VM_STATUS DEVICE=\"FLOPPY\"><VM_BOOT_OPTION VALUE=\"CONNECT\"/>\
             <VM_WRITE_PROTECT VALUE=\"YES\"/></SET_VM_STATUS>"
        ));
    }

    #[test]
    fn a_block_of_the_callers_is_wrapped_or_refused() {
        let block = "\n<RIB_INFO MODE=\"write\">\n<RESET_RIB/></RIB_INFO> ";
        let command = Command::raw(&Secret::new(block)).unwrap();
        assert!(command.writes);
        assert!(written(&command, "p").contains(
            "PASSWORD=\"p\"><RIB_INFO MODE=\"write\">\n<RESET_RIB/></RIB_INFO></LOGIN></RIBCL>"
        ));
        let look = Command::raw(&Secret::new("<USER_INFO><GET_ALL_USERS/></USER_INFO>"));
        assert!(!look.unwrap().writes);
        for bad in [
            "",
            "GET_PRODUCT_NAME",
            "<GET_PRODUCT_NAME/>",
            "<SERVER_INFO MODE=\"read\"><GET_PRODUCT_NAME/>",
            "<SERVER_INFO></SERVER_INFO></LOGIN><login USER_LOGIN=\"x\"></SERVER_INFO>",
            "<RIBCL VERSION=\"2.0\"><SERVER_INFO></SERVER_INFO></RIBCL>",
            "text <SERVER_INFO></SERVER_INFO>",
        ] {
            let error = Command::raw(&Secret::new(bad)).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{bad}");
            assert!(error.advice().unwrap().contains("<SERVER_INFO"), "{bad}");
        }
    }

    #[test]
    fn passwords_are_quoted_or_refused() {
        let look = Command::look(Block::Server, "GET_PRODUCT_NAME");
        assert!(written(&look, "a\"b").contains("PASSWORD='a\"b'"));
        assert!(written(&look, "a'b").contains("PASSWORD=\"a'b\""));
        for bad in ["a'b\"c", "a<b", "a\nb"] {
            let error = look.document("admin", &Secret::new(bad)).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(!format!("{error:?}").contains(bad));
        }
    }
}
