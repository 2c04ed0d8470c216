//! The one error shape that Rust, Lua, the journal and the operator see.
//!
//! Protocol folders have enums of their own; each becomes an [`Error`] by one `From` in that
//! folder. [`Kind`] is closed: control flow, HTTP status and exit code are tables over it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// What went wrong, as far as a caller may act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// The request, script or configuration is wrong; trying again cannot help.
    Invalid,
    /// A thing asked for by name does not exist.
    NotFound,
    /// Somebody else holds it, or its state does not allow this now.
    Conflict,
    /// Credentials are missing, wrong or lack a privilege.
    Auth,
    /// The peer's version or licence does not have this feature.
    Unsupported,
    /// The peer understood and said no.
    Refused,
    /// The peer broke its protocol.
    Protocol,
    /// A deadline passed.
    Timeout,
    /// No connection could be made, or it broke.
    Unreachable,
    /// A local file or device failed.
    Io,
    /// Data is not what it was: a checksum, a signature, a structure.
    Corrupt,
    /// A size, count or memory limit was reached.
    Limit,
    /// The operator cancelled the run.
    Cancelled,
    /// It cannot be told whether the action took effect.
    InDoubt,
    /// A bug of flowrun.
    Internal,
}

impl Kind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Self; 15] = [
        Self::Invalid,
        Self::NotFound,
        Self::Conflict,
        Self::Auth,
        Self::Unsupported,
        Self::Refused,
        Self::Protocol,
        Self::Timeout,
        Self::Unreachable,
        Self::Io,
        Self::Corrupt,
        Self::Limit,
        Self::Cancelled,
        Self::InDoubt,
        Self::Internal,
    ];

    /// The spelling used in Lua, JSON and messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Auth => "auth",
            Self::Unsupported => "unsupported",
            Self::Refused => "refused",
            Self::Protocol => "protocol",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Io => "io",
            Self::Corrupt => "corrupt",
            Self::Limit => "limit",
            Self::Cancelled => "cancelled",
            Self::InDoubt => "in_doubt",
            Self::Internal => "internal",
        }
    }

    /// The kind of this spelling, if there is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure with what was tried, on what, what came back and what to do next.
///
/// Built up as it travels: the place that understands the failure sets `kind`, `message` and
/// `retryable`; a caller adds `op`, `target` or a `hint` where those are still empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Error(Box<Fields>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Fields {
    kind: Kind,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    op: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    target: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(default)]
    retryable: bool,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    detail: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    causes: Vec<String>,
}

/// A result with the crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure of this kind. `message` is lower-case, without a full stop or secrets.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Fields {
            kind,
            op: String::new(),
            target: String::new(),
            message: message.into(),
            hint: None,
            retryable: false,
            detail: Map::new(),
            causes: Vec::new(),
        }))
    }

    /// Names what was tried (`ilo.attach_vmedia`), unless something closer already did.
    #[must_use]
    pub fn op(mut self, op: impl Into<String>) -> Self {
        if self.0.op.is_empty() {
            self.0.op = op.into();
        }
        self
    }

    /// Names what it was tried on (`lab-1`, an address, a path), unless already named.
    #[must_use]
    pub fn target(mut self, target: impl Into<String>) -> Self {
        if self.0.target.is_empty() {
            self.0.target = target.into();
        }
        self
    }

    /// Says what to do next, unless already said.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Says what to do next in place of what was said, for whoever knows the operator's own way.
    #[must_use]
    pub fn advise(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Marks the failure as one that may pass when tried again.
    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.0.retryable = retryable;
        self
    }

    /// Adds a fact for scripts (`status = 409`).
    #[must_use]
    pub fn detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.detail.insert(key.to_owned(), value.into());
        self
    }

    /// Adds one line of cause.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.0.causes.push(cause.into());
        self
    }

    /// Adds `source` and everything below it as causes, one line each.
    #[must_use]
    pub fn caused_by(mut self, source: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(source);
        while let Some(error) = next {
            let line = error.to_string();
            if self.0.causes.last() != Some(&line) {
                self.0.causes.push(line);
            }
            next = error.source();
        }
        self
    }

    /// Wraps a failed operation on a local path.
    #[must_use]
    pub fn io(path: &std::path::Path, doing: &str, source: &std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            std::io::ErrorKind::StorageFull => Kind::Limit,
            _ => Kind::Io,
        };
        Self::new(kind, format!("cannot {doing}: {source}")).target(path.display().to_string())
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What was tried; empty if nobody named it.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.0.op
    }

    /// What it was tried on; empty if nobody named it.
    #[must_use]
    pub fn on(&self) -> &str {
        &self.0.target
    }

    /// What came back.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do next.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Whether trying again may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// Facts for scripts.
    #[must_use]
    pub fn details(&self) -> &Map<String, Value> {
        &self.0.detail
    }

    /// The chain of causes, nearest first.
    #[must_use]
    pub fn causes(&self) -> &[String] {
        &self.0.causes
    }
}

/// `op(target): message [kind]`; the hint and causes are printed by whoever shows the error.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fields {
            op,
            target,
            message,
            kind,
            ..
        } = &*self.0;
        match (op.is_empty(), target.is_empty()) {
            (false, false) => write!(f, "{op}({target}): ")?,
            (false, true) => write!(f, "{op}: ")?,
            (true, false) => write!(f, "{target}: ")?,
            (true, true) => {}
        }
        write!(f, "{message} [{kind}]")
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_operation_target_message_and_kind() {
        let error = Error::new(Kind::Conflict, "media already connected")
            .op("ilo.attach_vmedia")
            .target("lab-1")
            .op("outer names do not replace inner ones");
        assert_eq!(
            error.to_string(),
            "ilo.attach_vmedia(lab-1): media already connected [conflict]"
        );
    }

    #[test]
    fn survives_the_journal() {
        let error = Error::new(Kind::Timeout, "no answer")
            .hint("look at the console")
            .detail("seconds", 30)
            .cause("deadline passed");
        let text = serde_json::to_string(&error).unwrap();
        assert_eq!(serde_json::from_str::<Error>(&text).unwrap(), error);
    }

    #[test]
    fn every_kind_parses_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.as_str()), Some(kind));
        }
    }
}
