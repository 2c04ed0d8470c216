//! What RIBCL's status codes and texts mean.

use crate::ilo::failure::Class;

/// Codes that are certain. Those for a missing licence, a medium in the way and a server in POST
/// are in no source that could be read: their texts decide.
const CODES: [(u16, Class); 9] = [
    (0x0001, Class::Unsupported),
    (0x0004, Class::BadRequest),
    (0x000A, Class::Login),
    (0x0023, Class::Permission),
    (0x002A, Class::Unsupported),
    (0x0035, Class::BadRequest),
    (0x0039, Class::NoMedia),
    (0x003C, Class::Unsupported),
    (0x005F, Class::Login),
];

/// Parts of texts in lower case; the first that fits decides.
const TEXTS: [(&str, Class); 13] = [
    ("licens", Class::Unlicensed),
    ("licenc", Class::Unlicensed),
    ("already connected", Class::MediaPresent),
    ("already in use", Class::MediaPresent),
    ("post in progress", Class::Busy),
    ("in post", Class::Busy),
    ("open for writing", Class::Busy),
    ("privilege", Class::Permission),
    ("powered off", Class::WrongState),
    ("not supported", Class::Unsupported),
    ("syntax error", Class::Unsupported),
    ("ribcli is disabled", Class::Unsupported),
    ("login", Class::Login),
];

/// The meaning of a status that is not 0, if it is known.
pub(super) fn class(status: u16, text: &str) -> Option<Class> {
    let code = CODES.iter().find(|(known, _)| *known == status);
    let text = text.to_lowercase();
    let said = || {
        TEXTS
            .iter()
            .find(|(part, _)| text.contains(part))
            .map(|(_, c)| *c)
    };
    code.map(|(_, class)| *class).or_else(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_texts() {
        let cases = [
            (0x005F, "Login failed.", Some(Class::Login)),
            (
                0x0039,
                "No image present in the Virtual Media drive",
                Some(Class::NoMedia),
            ),
            (
                0x003C,
                "Feature not supported - GET_PENDING_BOOT_MODE",
                Some(Class::Unsupported),
            ),
            (
                0x0001,
                "Error: Line #11: syntax error near \"GET_X\".",
                Some(Class::Unsupported),
            ),
            (
                0x1234,
                "This feature requires an iLO Advanced license.",
                Some(Class::Unlicensed),
            ),
            (
                0x1234,
                "User does NOT have correct privilege for action. RESET_SERVER_PRIV required.",
                Some(Class::Permission),
            ),
            (
                0x1234,
                "Server is currently powered off.",
                Some(Class::WrongState),
            ),
            (0x1234, "Novelty", None),
        ];
        for (status, text, expected) in cases {
            assert_eq!(class(status, text), expected, "{text}");
        }
    }
}
