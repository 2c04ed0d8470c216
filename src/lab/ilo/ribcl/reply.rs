//! Writes what an iLO answers to a RIBCL script: one XML document for every step of the script,
//! one after the other, in the layout of python-hpilo's recordings.

use super::super::refusal::Refusal;
use std::fmt::Write;

/// The code in the place of those that nobody wrote down: clients go by the text.
const UNDOCUMENTED: u16 = 0x00FF;

/// How one step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: u16,
    pub(super) message: String,
}

impl Status {
    pub(super) fn ok() -> Self {
        Self::new(0, "No error")
    }

    pub(super) fn new(code: u16, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(super) fn undocumented(message: impl Into<String>) -> Self {
        Self::new(UNDOCUMENTED, message)
    }

    pub(super) fn syntax_error(line: usize, near: &str) -> Self {
        Self::new(
            0x0001,
            format!("Syntax error: Line #{line}: syntax error near \"{near}\" in the line: \"\""),
        )
    }

    pub(super) fn not_supported(command: &str) -> Self {
        Self::new(0x003C, format!("Feature not supported - {command}"))
    }

    /// The privilege that the guide names for the command.
    pub(super) fn no_privilege(block: &str, command: &str) -> Self {
        let privilege = match (block, command) {
            ("SERVER_INFO", _) => "RESET_SERVER_PRIV",
            (_, "RESET_RIB") => "CONFIG_ILO_PRIV",
            _ => "VIRTUAL_MEDIA_PRIV",
        };
        let message = "User does NOT have correct privilege for action.";
        Self::new(0x0023, format!("{message} {privilege} required."))
    }

    pub(super) fn refused(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::WrongPower => Self::undocumented("Server is currently powered off."),
            Refusal::NotOff => Self::undocumented("Server is currently powered on."),
            Refusal::InPost(_) => Self::undocumented("POST in progress, EMS available."),
            Refusal::NotLicensed => {
                Self::undocumented("This feature requires an iLO Advanced license to be installed.")
            }
            Refusal::Busy => Self::undocumented("The device is busy. Try again later."),
            Refusal::DriveTaken | Refusal::DriveHeld => {
                Self::undocumented("Virtual Media is already connected by a console user.")
            }
            Refusal::DriveEmpty => Self::new(0x0039, "No image present in the Virtual Media drive"),
            Refusal::BadUrl(_) | Refusal::NotInList { .. } | Refusal::NotWritable(_) => {
                Self::new(0x0035, "An invalid Virtual Media option has been given.")
            }
            Refusal::Unsupported => Self::new(0x003C, "Feature not supported"),
            Refusal::NotInLegacyMode => Self::not_supported("UEFI"),
        }
    }
}

/// The documents of an answer.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) text: String,
    /// As firmware that closes the element before it has begun.
    pub(super) is_malformed: bool,
}

impl Reply {
    pub(super) fn document(&mut self, status: &Status, payload: &str) {
        let end = if self.is_malformed { "/" } else { "" };
        let Status { code, message } = status;
        // The quote in a syntax error's text does not end the attribute: it is the other kind.
        write!(
            self.text,
            "<?xml version=\"1.0\"?>\r\n<RIBCL VERSION=\"2.23\"{end}>\n<RESPONSE\n    \
             STATUS=\"0x{code:04X}\"\n    MESSAGE='{message}'\n     />\n{payload}</RIBCL>\n"
        )
        .unwrap_or_default();
    }
}

/// A value inside of a quoted attribute.
pub(super) fn quoted(value: &str) -> String {
    value
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

/// The value that [`quoted`] wrote.
pub(super) fn unquoted(value: &str) -> String {
    value
        .replace("&quot;", "\"")
        .replace("&lt;", "<")
        .replace("&amp;", "&")
}
