//! Why a request to the iLO failed, by blame.

use super::message::{Class, Message};
use crate::error::{Error, Kind};
use crate::http;
use reqwest::{Method, StatusCode};

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
    /// The iLO broke the protocol, or a limit of ours was reached.
    #[error("{0}")]
    Broken(Error),
}

/// An answer with a failing status.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) status: StatusCode,
    pub(super) message: Option<Message>,
}

impl Failure {
    pub(super) fn protocol(message: impl Into<String>) -> Self {
        Self::Broken(Error::new(Kind::Protocol, message))
    }

    /// The class of the iLO's message, if there is one and it is known.
    pub(super) fn class(&self) -> Option<Class> {
        match self {
            Self::Refused(refusal) => refusal.class(),
            Self::NoAnswer { .. } | Self::Broken(_) => None,
        }
    }

    /// Whether the iLO is there but could not serve the request now, or was not reached.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::NoAnswer { error, .. } => error.is_retryable(),
            Self::Refused(refusal) => refusal.status.is_server_error() && !refusal.is_final(),
            Self::Broken(_) => false,
        }
    }

    /// Whether the request may have had an effect although it failed.
    pub(super) fn is_in_doubt(&self) -> bool {
        match self {
            Self::NoAnswer { sent, .. } => *sent,
            Self::Refused(refusal) => refusal.status.is_server_error() && !refusal.is_final(),
            Self::Broken(_) => true,
        }
    }
}

impl Refusal {
    /// What the message means; without a known one the status has a say.
    pub(super) fn class(&self) -> Option<Class> {
        let said = self.message.as_ref().and_then(Message::class);
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
            method,
            path,
            status,
            message,
        } = self;
        match message {
            Some(message) => write!(f, "{message}"),
            None => write!(f, "the iLO answered {method} {path} with {status}"),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let refusal = match failure {
            Failure::NoAnswer { error, .. } | Failure::Broken(error) => return error,
            Failure::Refused(refusal) => refusal,
        };
        let class = refusal.class();
        let kind = class.map_or_else(|| http::kind_of_status(refusal.status), Class::kind);
        let passing =
            class == Some(Class::Busy) || (class.is_none() && refusal.status.is_server_error());
        let mut error = Self::new(kind, refusal.to_string())
            .retryable(passing)
            .detail("status", refusal.status.as_u16())
            .detail("request", format!("{} {}", refusal.method, refusal.path));
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
            method: Method::POST,
            path: "/redfish/v1/x/".to_owned(),
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
