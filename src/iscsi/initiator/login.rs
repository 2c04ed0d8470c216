//! From options to a logged-in connection.

use crate::iscsi::error::Failure;
use crate::iscsi::io::{Broken, Connection};
use crate::iscsi::proto::Error;
use crate::iscsi::proto::chap::{Challenge, Chap};
use crate::iscsi::proto::login::{
    Initiator, InitiatorConfig, InitiatorProgress, LoggedIn, SessionType,
};
use crate::iscsi::proto::negotiate::{DigestPolicy, Proposal};
use crate::iscsi::proto::pdu::Isid;
use std::sync::Arc;
use std::time::Duration;

/// Where to log in, as whom, and with which deadlines.
#[derive(Debug, Clone)]
pub struct LoginOptions {
    /// `host:port` of the target's portal.
    pub portal: String,
    /// The target's iqn.
    pub target_name: String,
    /// Our iqn.
    pub initiator_name: String,
    /// Number of the logical unit.
    pub lun: u64,
    /// Names and secrets. With them a target that does not ask for CHAP is refused.
    pub chap: Option<Chap>,
    /// CRC32C over headers and data.
    pub digests: DigestPolicy,
    /// For connecting, logging in and getting to know the unit, all together.
    pub login_timeout: Duration,
    /// For each command, from when it may be sent. A command that takes longer is aborted.
    pub command_timeout: Duration,
    /// How long a lost connection may stay without a command that succeeds. Until then it is made
    /// anew and unanswered commands are sent again; with zero it is never made anew.
    pub recovery_timeout: Duration,
    /// Silence after which the target is asked for a sign of life; as long again, and the
    /// connection counts as lost.
    pub keep_alive: Duration,
    /// Reserves the disk for the owner with this number where the unit has persistent
    /// reservations: owners with smaller numbers cannot write any more.
    pub fence: Option<u64>,
}

impl LoginOptions {
    /// LUN 1, no CHAP, digests if the target can, no fence; 30 seconds to log in and for each
    /// command, a minute to recover, a sign of life every 10 seconds.
    pub fn new(
        portal: impl Into<String>,
        target_name: impl Into<String>,
        initiator_name: impl Into<String>,
    ) -> Self {
        Self {
            portal: portal.into(),
            target_name: target_name.into(),
            initiator_name: initiator_name.into(),
            lun: 1,
            chap: None,
            digests: DigestPolicy::Preferred,
            login_timeout: Duration::from_secs(30),
            command_timeout: Duration::from_secs(30),
            recovery_timeout: Duration::from_secs(60),
            keep_alive: Duration::from_secs(10),
            fence: None,
        }
    }
}

/// What we propose to every target.
///
/// Two PDUs of 256 KiB carry a transfer where the target takes them; larger ones would only fall
/// out of the processor's caches.
fn proposal(digests: DigestPolicy) -> Proposal {
    Proposal {
        digests,
        max_recv_data_segment: 256 * 1024,
        max_burst: 1024 * 1024,
        first_burst: 256 * 1024,
        initial_r2t: false,
        immediate_data: true,
        max_outstanding_r2t: 16,
        time2wait: 0,
        time2retain: 0,
    }
}

/// Redirections that one login follows.
const MAX_REDIRECTIONS: u32 = 4;

/// Connects and logs in, wherever the portal sends us. The caller bounds the time.
pub(super) async fn log_in(
    portal: &str,
    initiator_name: &str,
    session: SessionType,
    chap: Option<Chap>,
    digests: DigestPolicy,
    isid: Isid,
) -> Result<(Connection, LoggedIn), Failure> {
    let mut portal = portal.to_owned();
    let mut redirections = 0;
    loop {
        let config = InitiatorConfig {
            initiator_name: initiator_name.to_owned(),
            session: session.clone(),
            isid,
            chap: chap.clone(),
            challenge: random_challenge()?,
            proposal: proposal(digests),
        };
        match log_in_at(&portal, config).await {
            // Temporary or permanent is all one: the next login asks at the first portal again.
            Err(Failure::Protocol(Error::Redirected { address, .. }))
                if redirections < MAX_REDIRECTIONS && !address.is_empty() =>
            {
                redirections += 1;
                portal = with_port(address);
            }
            done => return done,
        }
    }
}

async fn log_in_at(
    portal: &str,
    config: InitiatorConfig,
) -> Result<(Connection, LoggedIn), Failure> {
    let connection = Connection::connect(portal).await;
    let mut connection = connection.map_err(|error| Failure::Connect(Arc::new(error)))?;
    let (mut request, login) = Initiator::start(config)?;
    let mut login = Box::new(login);
    loop {
        let response = connection.exchange(request).await?;
        match login.handle(&response)? {
            InitiatorProgress::Send(pdu, next) => (request, login) = (pdu, next),
            InitiatorProgress::Done(logged_in) => {
                connection.set_params(&logged_in.params);
                return Ok((connection, logged_in));
            }
        }
    }
}

/// A TargetAddress without port means 3260 (RFC 7143 section 13.8).
fn with_port(address: String) -> String {
    let host_end = address.rfind(']').unwrap_or(0);
    let has_port = address
        .get(host_end..)
        .is_some_and(|rest| rest.contains(':'));
    if has_port {
        address
    } else {
        format!("{address}:3260")
    }
}

/// A session identifier of the random format (RFC 7143 section 11.12.5).
pub(super) fn random_isid() -> Result<Isid, Failure> {
    let mut isid = [0; 6];
    random(&mut isid)?;
    isid[0] = 0x80;
    Ok(isid)
}

fn random_challenge() -> Result<Challenge, Failure> {
    let (mut id, mut bytes) = ([0], [0; 32]);
    random(&mut id)?;
    random(&mut bytes)?;
    Ok(Challenge { id: id[0], bytes })
}

fn random(bytes: &mut [u8]) -> Result<(), Failure> {
    getrandom::fill(bytes).map_err(|error| Failure::Local {
        doing: "cannot draw random numbers",
        source: Arc::new(std::io::Error::other(error.to_string())),
    })
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Closed => Self::lost("closed by the target"),
            Broken::Io(error) => Self::lost(error.to_string()),
            Broken::Protocol(error) => Self::Protocol(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_get_the_usual_port() {
        for (address, portal) in [
            ("10.0.0.1", "10.0.0.1:3260"),
            ("10.0.0.1:3261", "10.0.0.1:3261"),
            ("[fe80::1]", "[fe80::1]:3260"),
            ("[fe80::1]:3261", "[fe80::1]:3261"),
            ("node.example", "node.example:3260"),
        ] {
            assert_eq!(with_port(address.to_owned()), portal);
        }
    }
}
