//! From options to a disk: login, a clean task set, the unit's description, the fence.

use super::fence::{self, Fenced};
use super::line::Line;
use super::login::{LoginOptions, log_in};
use super::probe::{self, LunInfo, probe};
use crate::iscsi::error::Failure;
use crate::iscsi::proto::login::SessionType;
use crate::iscsi::proto::pdu::{Isid, Lun, TaskFunction};
use crate::iscsi::proto::session::{InitiatorSession, TaskResponse};
use crate::iscsi::scsi::Sense;
use std::sync::Arc;

/// A session's fixed side: what every login of it has in common.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) options: Arc<LoginOptions>,
    /// The same in every login, so that a new session replaces the one before (RFC 7143 section
    /// 6.3.5), whose commands the target then ends first.
    pub(super) isid: Isid,
    pub(super) lun: Lun,
}

/// A disk that is ready.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) line: Line,
    pub(super) info: LunInfo,
    pub(super) fenced: Option<Fenced>,
    /// We reset the unit ourselves, so that it says it was reset.
    reset: bool,
}

impl Plan {
    /// Logs in. `interrupted`: commands of an earlier session may still be running. The caller
    /// bounds the time.
    pub(super) async fn open(&self, interrupted: bool) -> Result<Opened, Failure> {
        let options = &self.options;
        let target_name = options.target_name.clone();
        let (connection, logged_in) = log_in(
            &options.portal,
            &options.initiator_name,
            SessionType::Normal { target_name },
            options.chap.clone(),
            options.digests,
            self.isid,
        )
        .await?;
        let params = logged_in.params.clone();
        let mut line = Line {
            connection,
            core: InitiatorSession::new(logged_in),
            lun: self.lun,
            news: Vec::new(),
        };
        let reset = interrupted && end_old_tasks(&mut line).await?;
        let mut info = match probe(&mut line, options.lun, params).await {
            Err(Failure::Unusable { lun, why, .. }) => {
                let luns = probe::luns(&mut line).await;
                return Err(Failure::Unusable { lun, why, luns });
            }
            info => info?,
        };
        let fenced = match options.fence {
            Some(number) => Some(fence::acquire(&mut line, fence::key(number)).await?),
            None => None,
        };
        info.write_protected = probe::is_write_protected(&mut line).await?;
        Ok(Opened {
            line,
            info,
            fenced,
            reset,
        })
    }
}

/// Makes sure that no command of an earlier session can reach the medium any more; tells whether
/// the unit was reset for that.
///
/// A login with the old ISID should have ended them (RFC 7143 section 6.3.5). tgt lets those go on
/// that its threads already have.
async fn end_old_tasks(line: &mut Line) -> Result<bool, Failure> {
    if line.manage(TaskFunction::CLEAR_TASK_SET).await? == TaskResponse::COMPLETE {
        return Ok(false);
    }
    // LIO has no CLEAR TASK SET.
    let response = line.manage(TaskFunction::LOGICAL_UNIT_RESET).await?;
    Ok(response == TaskResponse::COMPLETE)
}

impl Opened {
    /// Whether the unit's cache is sure to be what it was before the reconnection.
    pub(super) fn kept_its_cache(&self) -> bool {
        if self.fenced == Some(Fenced::Held { before: true }) {
            return true;
        }
        let news = &self.line.news;
        let was_reset = !self.reset && news.iter().any(|sense| sense.is_reset());
        news.contains(&Sense::I_T_NEXUS_LOSS) && !was_reset
    }

    /// Refuses a disk that is not the one from before.
    pub(super) fn check_same(&self, before: &LunInfo) -> Result<(), Failure> {
        let now = &self.info;
        let what = if (now.blocks, now.block_bytes) != (before.blocks, before.block_bytes) {
            "size"
        } else if now.serial != before.serial {
            "serial number"
        } else if now.device_id != before.device_id {
            "device id"
        } else {
            return Ok(());
        };
        Err(Failure::OtherDisk { what })
    }
}
