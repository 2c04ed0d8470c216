//! Why a request to the iLO failed, by blame.

use crate::error::{Error, Kind};
use crate::http;
use reqwest::StatusCode;

/// A request that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No answer came.
    #[error("{error}")]
    NoAnswer {
        /// As the HTTP layer names it.
        error: Error,
        /// Whether the request may have reached the iLO.
        sent: bool,
    },
    /// The iLO understood and said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The iLO cannot do it, which is known without asking it.
    #[error("{0}")]
    Unable(Error),
    /// The iLO broke the protocol, or a limit of ours was reached.
    #[error("{0}")]
    Broken(Error),
}

/// An answer that is a no.
#[derive(Debug)]
pub(super) struct Refusal {
    /// `POST /redfish/…`, or the name of a RIBCL command.
    pub(super) request: String,
    /// Of the HTTP answer; RIBCL always has 200.
    pub(super) status: StatusCode,
    pub(super) message: Option<Message>,
}

/// What a caller has to do about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Done, or accepted for later.
    Success,
    /// The credentials or the session are not accepted.
    Login,
    /// The account lacks a privilege.
    Permission,
    /// Too many sessions are open.
    SessionLimit,
    /// The licence does not cover this.
    Unlicensed,
    /// This firmware or server does not have it.
    Unsupported,
    /// RIBCL is switched off.
    Disabled,
    /// No such resource.
    NotFound,
    /// Power is not as the action needs it.
    WrongState,
    /// The same request may succeed later.
    Busy,
    /// A medium is in the drive already.
    MediaPresent,
    /// No medium is in the drive.
    NoMedia,
    /// The request is wrong.
    BadRequest,
}

impl Class {
    /// The kind of error that this class becomes.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Login | Self::Permission => Kind::Auth,
            Self::SessionLimit => Kind::Limit,
            Self::Unlicensed | Self::Unsupported | Self::Disabled => Kind::Unsupported,
            Self::NotFound => Kind::NotFound,
            Self::WrongState | Self::Busy | Self::MediaPresent | Self::NoMedia => Kind::Conflict,
            Self::BadRequest => Kind::Invalid,
            // Only reached when an iLO says "done" with a failing status.
            Self::Success => Kind::Protocol,
        }
    }

    /// What the operator can do about it.
    pub(super) fn hint(self) -> Option<&'static str> {
        Some(match self {
            Self::Login => "check user name and password; the iLO delays logins after a failed one",
            Self::Permission => "give the account the privilege in the iLO's user administration",
            Self::SessionLimit => "close open sessions of the iLO, or wait until idle ones expire",
            Self::Unlicensed => "install an iLO Advanced licence",
            Self::Unsupported => {
                "this firmware or server does not have it: update the firmware, or do without"
            }
            Self::NotFound => "look what this firmware has: its resources are found by links",
            Self::Disabled => "switch RIBCL on in the iLO's access settings",
            Self::WrongState => "read the power state and act on what it is now",
            Self::Busy => "the server may be in POST; try again when it is off or has finished",
            Self::MediaPresent => "a medium is connected, perhaps from a remote console: eject it",
            _ => return None,
        })
    }
}

/// One message of an answer. Signatures and credentials are masked already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// As it was sent (`iLO.2.15.UnableToModifyDuringSystemPOST`; RIBCL: `0x0039`).
    pub(super) id: String,
    /// Arguments of the text.
    pub(super) args: Vec<String>,
    /// The text, if the iLO sent one or the key is known.
    pub(super) text: String,
    /// What it means, if it is known.
    pub(super) class: Option<Class>,
}

/// Text first: the key alone where the iLO has no words for it.
impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.text.trim().trim_end_matches('.');
        match text.is_empty() {
            true => f.write_str(&self.id),
            false => write!(f, "{}: {text}", self.id),
        }
    }
}

impl Failure {
    pub(super) fn protocol(message: impl Into<String>) -> Self {
        Self::Broken(Error::new(Kind::Protocol, message))
    }

    /// The class of the iLO's message, if there is one and it is known.
    pub(super) fn class(&self) -> Option<Class> {
        match self {
            Self::Refused(refusal) => refusal.class(),
            Self::NoAnswer { .. } | Self::Unable(_) | Self::Broken(_) => None,
        }
    }

    /// Whether the iLO is there but could not serve the request now, or was not reached.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::NoAnswer { error, .. } => error.is_retryable(),
            Self::Refused(refusal) => refusal.status.is_server_error() && !refusal.is_final(),
            Self::Unable(_) | Self::Broken(_) => false,
        }
    }

    /// Whether the request may have had an effect although it failed.
    pub(super) fn is_in_doubt(&self) -> bool {
        match self {
            Self::NoAnswer { sent, .. } => *sent,
            Self::Refused(refusal) => refusal.status.is_server_error() && !refusal.is_final(),
            Self::Unable(_) => false,
            Self::Broken(_) => true,
        }
    }
}

impl Refusal {
    /// What the message means; without a known one the status has a say.
    pub(super) fn class(&self) -> Option<Class> {
        let said = self.message.as_ref().and_then(|m| m.class);
        match (said, self.status.as_u16()) {
            (None | Some(Class::Success), 401) => Some(Class::Login),
            (None | Some(Class::Success), 403) => Some(Class::Permission),
            (None | Some(Class::Success), 404) => Some(Class::NotFound),
            (said, _) => said,
        }
    }

    /// Whether the iLO gave a reason that time does not cure.
    fn is_final(&self) -> bool {
        matches!(self.class(), Some(class) if class != Class::Busy)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            request,
            status,
            message,
        } = self;
        match message {
            Some(message) => write!(f, "{message}"),
            None => write!(f, "the iLO answered {request} with {status}"),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let refusal = match failure {
            Failure::NoAnswer { error, .. } | Failure::Unable(error) | Failure::Broken(error) => {
                return error;
            }
            Failure::Refused(refusal) => refusal,
        };
        let class = refusal.class();
        let kind = match class {
            Some(class) => class.kind(),
            // RIBCL, which says no with 200.
            None if refusal.status.is_success() => Kind::Refused,
            None => http::kind_of_status(refusal.status),
        };
        let passing =
            class == Some(Class::Busy) || (class.is_none() && refusal.status.is_server_error());
        let text = refusal.to_string();
        let mut error = Self::new(kind, text)
            .retryable(passing)
            .detail("status", refusal.status.as_u16())
            .detail("request", refusal.request);
        if let Some(hint) = class.and_then(Class::hint) {
            error = error.hint(hint);
        }
        match refusal.message {
            None => error,
            Some(message) => error
                .detail("message_id", message.id)
                .detail("message_args", message.args),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(status: u16, id: &str) -> Failure {
        let body = json!({"error": {"@Message.ExtendedInfo": [{"MessageId": id}]}});
        Failure::Refused(Box::new(Refusal {
            request: "POST /redfish/v1/x/".to_owned(),
            status: StatusCode::from_u16(status).unwrap(),
            message: Message::of(&body),
        }))
    }

    #[test]
    fn each_class_becomes_its_kind() {
        let cases = [
            (401, "Base.1.4.NoValidSession", Kind::Auth, false),
            (400, "iLO.2.2.UnauthorizedLoginAttempt", Kind::Auth, false),
            (403, "Base.1.4.InsufficientPrivilege", Kind::Auth, false),
            (400, "iLO.2.14.LicenseKeyRequired", Kind::Unsupported, false),
            (403, "iLO.2.14.LicenseKeyRequired", Kind::Unsupported, false),
            (400, "Base.1.4.ActionNotSupported", Kind::Unsupported, false),
            (404, "Base.1.4.ResourceMissingAtURI", Kind::NotFound, false),
            (
                400,
                "iLO.2.14.InvalidOperationForSystemState",
                Kind::Conflict,
                false,
            ),
            (
                400,
                "iLO.2.15.UnableToModifyDuringSystemPOST",
                Kind::Conflict,
                true,
            ),
            (
                503,
                "Base.1.18.ServiceTemporarilyUnavailable",
                Kind::Conflict,
                true,
            ),
            (
                400,
                "iLO.2.14.MaxVirtualMediaConnectionEstablished",
                Kind::Conflict,
                false,
            ),
            (400, "Base.1.4.PropertyValueNotInList", Kind::Invalid, false),
            (400, "Base.1.18.SessionLimitExceeded", Kind::Limit, false),
            (400, "iLO.9.9.Novelty", Kind::Refused, false),
            (200, "0x00FF", Kind::Refused, false),
            (500, "iLO.9.9.Novelty", Kind::Protocol, true),
        ];
        for (status, id, kind, retryable) in cases {
            let error = Error::from(refused(status, id));
            assert_eq!(
                (error.kind(), error.is_retryable()),
                (kind, retryable),
                "{id}"
            );
            assert_eq!(error.details()["status"], status);
            assert_eq!(error.details()["message_id"], id);
            assert!(error.message().starts_with(id), "{error}");
        }
    }

    #[test]
    fn a_reason_ends_the_retries() {
        assert!(refused(503, "iLO.9.9.Novelty").is_transient());
        assert!(refused(503, "Base.1.18.ServiceTemporarilyUnavailable").is_transient());
        assert!(!refused(503, "Base.1.18.SessionLimitExceeded").is_transient());
        assert!(!refused(400, "iLO.2.14.DeviceIsBusy").is_transient());
    }
}
