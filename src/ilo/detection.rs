//! What was asked to find out what is spoken at an address, and what came back.

use super::failure::Failure;
use crate::error::{Error, Kind};

/// The answers so far, none of which an iLO gives.
#[derive(Debug, Default)]
pub(super) struct Tried(Vec<String>);

impl Tried {
    /// Takes note of an answer.
    pub(super) fn note(&mut self, request: &str, came: &str) {
        self.0.push(format!("{request}: {came}"));
    }

    /// Takes note of a no, or of what is not the protocol. Gives back what tells nothing about
    /// the dialect: silence, and the trouble of a service that is there.
    pub(super) fn note_failure(&mut self, request: &str, failure: Failure) -> Result<(), Failure> {
        match failure {
            Failure::Refused(refusal) if !refusal.status.is_server_error() => {
                self.note(request, &refusal.status.to_string());
            }
            Failure::Broken(error) if error.kind() == Kind::Protocol => {
                self.note(request, error.message());
            }
            other => return Err(other),
        }
        Ok(())
    }

    /// What stands at the address is none of ours.
    pub(super) fn not_an_ilo(self) -> Error {
        Error::new(
            Kind::Unsupported,
            format!("not an iLO: {}", self.0.join("; ")),
        )
        .hint("check the address: iLO 3 to 7 answer there with Redfish, REST or RIBCL")
        .detail("tried", self.0)
    }
}
