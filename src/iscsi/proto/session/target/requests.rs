//! Requests that are no SCSI commands: task management, text, logout, ping.

use super::{Abort, Outgoing, Phase, TargetEvent, TargetSession};
use crate::iscsi::proto::error::{Error, PeerMisbehaved};
use crate::iscsi::proto::pdu::{
    LogoutRequest, LogoutResponse, NopIn, NopOut, Pdu, RESERVED_TAG, TargetSn, TaskFunction,
    TaskManagementRequest, TaskManagementResponse, TextRequest, TextResponse,
};
use crate::iscsi::proto::text::Text;
use bytes::Bytes;

impl TargetSession {
    pub(super) fn handle_task_management(&mut self, request: &TaskManagementRequest) {
        let all = || self.tasks.keys().copied().collect::<Vec<_>>();
        let tasks = match request.function {
            TaskFunction::ABORT_TASK => match self.tasks.get(&request.referenced_tag) {
                Some(task) if task.phase != Phase::Answering => vec![request.referenced_tag],
                _ => return self.answer_task_management(request.itt, 1),
            },
            TaskFunction::ABORT_TASK_SET
            | TaskFunction::CLEAR_TASK_SET
            | TaskFunction::LOGICAL_UNIT_RESET
            | TaskFunction::TARGET_WARM_RESET => all(),
            _ => return self.answer_task_management(request.itt, 5),
        };
        let mut running = Vec::new();
        for itt in tasks {
            match self.tasks.get_mut(&itt).map(|task| &mut task.phase) {
                Some(Phase::Waiting | Phase::Gathering) => self.remove(itt),
                Some(phase @ (Phase::Executing | Phase::Aborted)) => {
                    *phase = Phase::Aborted;
                    running.push(itt);
                }
                // Its status is on the way already and goes out before our answer.
                Some(Phase::Answering) | None => {}
            }
        }
        if running.is_empty() {
            self.answer_task_management(request.itt, 0);
        } else {
            let (itt, tasks) = (request.itt, running);
            self.aborts.push(Abort { itt, tasks });
        }
    }

    /// Answers the requests that waited for this task as the last one.
    pub(super) fn settle_aborts(&mut self, itt: u32) {
        let mut done = Vec::new();
        self.aborts.retain_mut(|abort| {
            abort.tasks.retain(|task| *task != itt);
            if abort.tasks.is_empty() {
                done.push(abort.itt);
            }
            !abort.tasks.is_empty()
        });
        for itt in done {
            self.answer_task_management(itt, 0);
        }
    }

    fn answer_task_management(&mut self, itt: u32, response: u8) {
        let sn = TargetSn::default();
        let response = TaskManagementResponse { response, itt, sn };
        self.outgoing
            .push_back(Outgoing::Numbered(Pdu::bare(response)));
    }

    pub(super) fn handle_text(&mut self, request: &TextRequest, data: &[u8]) -> Result<(), Error> {
        if !request.is_final || request.more_follows || request.ttt != RESERVED_TAG {
            return Err(PeerMisbehaved::Exchange("a text request in several parts").into());
        }
        let mut answer = Text::new();
        for (key, value) in Text::decode(data)?.iter() {
            let ours = value == self.portal.target_name
                || (value == "All" && self.discovery)
                || (value.is_empty() && !self.discovery);
            match key {
                "SendTargets" if ours => {
                    answer.push("TargetName", &*self.portal.target_name);
                    answer.push("TargetAddress", &*self.portal.address);
                }
                "SendTargets" => {}
                _ => answer.push(key, "NotUnderstood"),
            }
        }
        let data = answer.encode();
        // Each of the peer's keys may come back; beyond its limit there is nothing to gain.
        if data.len() > usize::try_from(self.params.max_send_data_segment).unwrap_or(0) {
            return Err(PeerMisbehaved::Exchange("too many keys in a text request").into());
        }
        let header = TextResponse {
            is_final: true,
            more_follows: false,
            lun: request.lun,
            itt: request.itt,
            ttt: RESERVED_TAG,
            sn: TargetSn::default(),
        };
        self.outgoing
            .push_back(Outgoing::Numbered(Pdu::new(header, data)));
        Ok(())
    }

    pub(super) fn handle_logout(&mut self, request: &LogoutRequest) {
        // Reason 2 would keep the session for another connection to recover.
        let response = if request.reason == 2 { 2 } else { 0 };
        self.outgoing
            .push_back(Outgoing::Numbered(Pdu::bare(LogoutResponse {
                response,
                itt: request.itt,
                sn: TargetSn::default(),
                time2wait: 0,
                time2retain: 0,
            })));
        if response == 0 {
            self.events.push_back(TargetEvent::LoggedOut);
        }
    }

    pub(super) fn handle_nop_out(&mut self, nop: &NopOut, mut data: Bytes) {
        if nop.itt == RESERVED_TAG {
            return;
        }
        let limit = usize::try_from(self.params.max_send_data_segment).unwrap_or(0);
        data.truncate(limit);
        let header = NopIn {
            lun: nop.lun,
            itt: nop.itt,
            ttt: RESERVED_TAG,
            sn: TargetSn::default(),
        };
        self.outgoing
            .push_back(Outgoing::Numbered(Pdu::new(header, data)));
    }
}
