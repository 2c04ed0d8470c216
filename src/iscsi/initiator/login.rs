//! From options to a logged-in connection.

use crate::iscsi::error::Failure;
use crate::iscsi::io::{Broken, Connection};
use crate::iscsi::proto::chap::{Challenge, Chap};
use crate::iscsi::proto::login::{
    Initiator, InitiatorConfig, InitiatorProgress, LoggedIn, SessionType,
};
use crate::iscsi::proto::negotiate::{DigestPolicy, Proposal};
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
    /// For each command, from when it may be sent. A command that takes longer ends the session.
    pub command_timeout: Duration,
}

impl LoginOptions {
    /// LUN 1, no CHAP, digests if the target can, 30 seconds to log in and for each command.
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
        }
    }
}

/// What we propose to every target.
///
/// One PDU of 256 KiB carries a whole transfer where the target takes it; larger ones would only
/// fall out of the processor's caches.
fn proposal(digests: DigestPolicy) -> Proposal {
    Proposal {
        digests,
        max_recv_data_segment: 256 * 1024,
        max_burst: 1024 * 1024,
        first_burst: 256 * 1024,
        initial_r2t: false,
        immediate_data: true,
        max_outstanding_r2t: 16,
        time2wait: 2,
        time2retain: 0,
    }
}

/// Connects and logs in. The caller bounds the time.
pub(super) async fn log_in(
    portal: &str,
    initiator_name: &str,
    session: SessionType,
    chap: Option<Chap>,
    digests: DigestPolicy,
) -> Result<(Connection, LoggedIn), Failure> {
    let config = InitiatorConfig {
        initiator_name: initiator_name.to_owned(),
        session,
        isid: random_isid()?,
        chap,
        challenge: random_challenge()?,
        proposal: proposal(digests),
    };
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

/// A session identifier of the random format (RFC 7143 section 11.12.5).
fn random_isid() -> Result<[u8; 6], Failure> {
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
