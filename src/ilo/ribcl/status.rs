//! What RIBCL's status codes and texts mean.

use crate::ilo::failure::Class;

/// Codes that are certain. Those for a missing licence, a medium in the way and a server in POST
/// are in no source that could be read: their texts decide.
const CODES: [(u16, Class); 11] = [
    (0x0001, Class::Unsupported),
    (0x0004, Class::BadRequest),
    (0x000A, Class::Login),
    (0x0023, Class::Permission),
    (0x002A, Class::Unsupported),
    (0x002E, Class::Unlicensed),
    (0x0035, Class::BadRequest),
    (0x0039, Class::NoMedia),
    (0x003C, Class::Unsupported),
    (0x005F, Class::Login),
    (0x0088, Class::Busy),
];

/// Parts of texts in lower case; the first that fits decides.
const TEXTS: [(&str, Class); 15] = [
    ("licens", Class::Unlicensed),
    ("licenc", Class::Unlicensed),
    ("already connected", Class::MediaPresent),
    ("already in use", Class::MediaPresent),
    ("post in progress", Class::Busy),
    ("in post", Class::Busy),
    ("open for writing", Class::Busy),
    ("read-only access", Class::BadRequest),
    ("busy", Class::Busy),
    ("privilege", Class::Permission),
    ("powered off", Class::WrongState),
    ("not supported", Class::Unsupported),
    ("syntax error", Class::Unsupported),
    ("ribcli is disabled", Class::Disabled),
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
    use Class as C;

    const NOT_PRIVILEGED: &str =
        "User does NOT have correct privilege for action. RESET_SERVER_PRIV required.";
    const OPENED: &str = "The database is open for writing by another application.";
    const READ_ONLY: &str =
        "Database is open for read-only access. Write access is required for this operation.";

    /// The documented codes and texts, and what an operator's error is of each.
    const CASES: [(u16, &str, C, &str); 22] = [
        (
            0x0001,
            "Error: Line #11: syntax error near \"GET_X\".",
            C::Unsupported,
            "unsupported",
        ),
        (0x0004, "Password is too short.", C::BadRequest, "invalid"),
        (0x000A, "User login name was not found.", C::Login, "auth"),
        (0x0023, "", C::Permission, "auth"),
        (0x002A, "", C::Unsupported, "unsupported"),
        (0x002E, "License key error", C::Unlicensed, "unsupported"),
        (
            0x0035,
            "An invalid Virtual Media option has been given",
            C::BadRequest,
            "invalid",
        ),
        (
            0x0039,
            "No image present in the Virtual Media drive",
            C::NoMedia,
            "conflict",
        ),
        (
            0x003C,
            "Feature not supported - GET_PENDING_BOOT_MODE",
            C::Unsupported,
            "unsupported",
        ),
        (0x005F, "Login failed.", C::Login, "auth"),
        (0x005F, "Login credentials rejected.", C::Login, "auth"),
        (0x0088, "", C::Busy, "conflict"),
        // Codes that no source names.
        (
            0x1234,
            "This feature requires an iLO Advanced license.",
            C::Unlicensed,
            "unsupported",
        ),
        (
            0x1234,
            "Virtual media is already connected.",
            C::MediaPresent,
            "conflict",
        ),
        (0x1234, "The server is in POST.", C::Busy, "conflict"),
        (0x1234, "POST in progress", C::Busy, "conflict"),
        (0x1234, OPENED, C::Busy, "conflict"),
        (0x1234, READ_ONLY, C::BadRequest, "invalid"),
        (0x1234, NOT_PRIVILEGED, C::Permission, "auth"),
        (
            0x1234,
            "Server is currently powered off.",
            C::WrongState,
            "conflict",
        ),
        (
            0x1234,
            "Error: RIBCLI is disabled.",
            C::Disabled,
            "unsupported",
        ),
        (
            0x1234,
            "Virtual Power Button feature is not supported on this server.",
            C::Unsupported,
            "unsupported",
        ),
    ];

    #[test]
    fn codes_and_texts() {
        for (status, text, expected, kind) in CASES {
            assert_eq!(class(status, text), Some(expected), "{text}");
            assert_eq!(expected.kind().as_str(), kind, "{text}");
        }
        assert_eq!(class(0x1234, "Novelty"), None);
    }
}
