//! Asking a portal for its targets.

use super::login::{log_in, random_isid};
use crate::iscsi::error::{Error, Failure, Result};
use crate::iscsi::proto::chap::Chap;
use crate::iscsi::proto::login::SessionType;
use crate::iscsi::proto::negotiate::DigestPolicy;
use crate::iscsi::proto::session::{DiscoveredTarget, Discovery, DiscoveryProgress};
use std::sync::Arc;
use std::time::Duration;

/// Lists the targets that a portal (`host:port`) has for this initiator.
///
/// # Errors
/// If the portal cannot be reached, refuses the login, or does not answer within `timeout`.
pub async fn discover(
    portal: &str,
    initiator_name: &str,
    chap: Option<Chap>,
    timeout: Duration,
) -> Result<Vec<DiscoveredTarget>> {
    let listing = list(portal, initiator_name, chap);
    let targets = tokio::time::timeout(timeout, listing).await;
    let targets = targets.unwrap_or(Err(Failure::Timeout {
        what: "discovery",
        after: timeout,
    }));
    targets.map_err(|failure| {
        let target: Arc<str> = portal.into();
        Error::new("iscsi.discover", &target, failure)
    })
}

async fn list(
    portal: &str,
    initiator_name: &str,
    chap: Option<Chap>,
) -> Result<Vec<DiscoveredTarget>, Failure> {
    let (session, digests) = (SessionType::Discovery, DigestPolicy::None);
    let (mut connection, login) = log_in(
        portal,
        initiator_name,
        session,
        chap,
        digests,
        random_isid()?,
    )
    .await?;
    let (question, mut discovery) = Discovery::start(&login);
    connection.queue(question);
    loop {
        let answer = connection.receive().await?;
        discovery = match discovery.handle(&answer)? {
            DiscoveryProgress::Wait(next) => next,
            DiscoveryProgress::Send(pdu, next) => {
                connection.queue(pdu);
                next
            }
            DiscoveryProgress::Done(targets, logout) => {
                // The list is complete; whether the target still hears our goodbye is not.
                connection.send_last(logout).await.ok();
                return Ok(targets);
            }
        };
    }
}
