//! SendTargets in a discovery session (RFC 7143 appendix C).

use crate::iscsi::proto::error::{Error, PeerMisbehaved};
use crate::iscsi::proto::login::LoggedIn;
use crate::iscsi::proto::pdu::{Header, LogoutRequest, Lun, Pdu, RESERVED_TAG, TextRequest};
use crate::iscsi::proto::text::{Continuation, Text};

/// A target and where it can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveredTarget {
    /// TargetName.
    pub name: String,
    /// TargetAddress values, each `host:port,portal-group-tag`. Empty if the target is only known
    /// to be where the question was asked.
    pub addresses: Vec<String>,
}

/// What to do after a response.
#[derive(Debug)]
pub enum DiscoveryProgress {
    /// Nothing yet.
    Wait(Discovery),
    /// Send this and wait.
    Send(Pdu, Discovery),
    /// The whole list, and the logout to send before closing.
    Done(Vec<DiscoveredTarget>, Pdu),
}

/// A question for all targets, waiting for its answer.
#[derive(Debug)]
pub struct Discovery {
    cmd_sn: u32,
    exp_stat_sn: u32,
    partial: Continuation,
    rounds: u32,
}

const ITT: u32 = 1;

/// Responses that one list may take; each is at most our MaxRecvDataSegmentLength long.
const MAX_ROUNDS: u32 = 64;

impl Discovery {
    /// Asks for all targets.
    #[must_use]
    pub fn start(login: &LoggedIn) -> (Pdu, Self) {
        let mut discovery = Self {
            cmd_sn: login.cmd_sn,
            exp_stat_sn: login.stat_sn,
            partial: Continuation::default(),
            rounds: 0,
        };
        let question = Text::new().with("SendTargets", "All");
        let pdu = discovery.request(RESERVED_TAG, &question);
        (pdu, discovery)
    }

    /// Takes a PDU of the target.
    ///
    /// # Errors
    /// If it is no answer to the question, or the answer is malformed.
    pub fn handle(mut self, pdu: &Pdu) -> Result<DiscoveryProgress, Error> {
        let response = match &pdu.header {
            Header::TextResponse(response) if response.itt == ITT => response,
            Header::NopIn(nop) if nop.itt == RESERVED_TAG => {
                return Ok(DiscoveryProgress::Wait(self));
            }
            Header::Reject(reject) => return Err(PeerMisbehaved::Rejected(reject.reason).into()),
            other => {
                return Err(PeerMisbehaved::UnexpectedPdu {
                    got: other.opcode(),
                    during: "discovery",
                }
                .into());
            }
        };
        self.exp_stat_sn = response.sn.stat_sn.wrapping_add(1);
        // Without F, or with C, the target waits for an empty request with its tag.
        let more_follows = response.more_follows || !response.is_final;
        let Some(text) = self.partial.add(&pdu.data, more_follows)? else {
            self.rounds += 1;
            if self.rounds > MAX_ROUNDS {
                return Err(PeerMisbehaved::Exchange("the list of targets does not end").into());
            }
            let pdu = self.request(response.ttt, &Text::new());
            return Ok(DiscoveryProgress::Send(pdu, self));
        };
        Ok(DiscoveryProgress::Done(targets(&text), self.logout()))
    }

    fn request(&mut self, ttt: u32, text: &Text) -> Pdu {
        let cmd_sn = self.cmd_sn;
        self.cmd_sn = cmd_sn.wrapping_add(1);
        let header = TextRequest {
            immediate: false,
            is_final: true,
            more_follows: false,
            lun: Lun::default(),
            itt: ITT,
            ttt,
            cmd_sn,
            exp_stat_sn: self.exp_stat_sn,
        };
        Pdu::new(header, text.encode())
    }

    fn logout(&self) -> Pdu {
        Pdu::bare(LogoutRequest {
            immediate: true,
            reason: 0,
            itt: ITT + 1,
            cid: 0,
            cmd_sn: self.cmd_sn,
            exp_stat_sn: self.exp_stat_sn,
        })
    }
}

/// Each TargetName begins a target; the addresses after it are its own.
fn targets(text: &Text) -> Vec<DiscoveredTarget> {
    let mut targets: Vec<DiscoveredTarget> = Vec::new();
    for (key, value) in text.iter() {
        match (key, targets.last_mut()) {
            ("TargetName", _) => targets.push(DiscoveredTarget {
                name: value.to_owned(),
                addresses: Vec::new(),
            }),
            ("TargetAddress", Some(target)) => target.addresses.push(value.to_owned()),
            _ => {}
        }
    }
    targets
}
