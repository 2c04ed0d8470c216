//! Task management (RFC 7143 sections 11.5 and 11.6).

use super::bhs::{Bhs, FINAL, Lun, Opcode, TargetSn, is_immediate, itt, lun, put_lun, start};
use bytes::{Buf, BufMut};

/// What to do with tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskFunction(pub u8);

impl TaskFunction {
    /// Abort the task named by the Referenced Task Tag.
    pub const ABORT_TASK: Self = Self(1);
    /// Abort all tasks of this session on the logical unit.
    pub const ABORT_TASK_SET: Self = Self(2);
    /// Abort all tasks of all sessions on the logical unit.
    pub const CLEAR_TASK_SET: Self = Self(4);
    /// Reset the logical unit.
    pub const LOGICAL_UNIT_RESET: Self = Self(5);
    /// Reset the target, keeping its sessions.
    pub const TARGET_WARM_RESET: Self = Self(6);
}

/// Task Management Function Request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskManagementRequest {
    /// I: outside of the CmdSN order.
    pub immediate: bool,
    /// Function.
    pub function: TaskFunction,
    /// LUN.
    pub lun: Lun,
    /// Initiator Task Tag of the request itself.
    pub itt: u32,
    /// Referenced Task Tag.
    pub referenced_tag: u32,
    /// CmdSN.
    pub cmd_sn: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
    /// RefCmdSN.
    pub ref_cmd_sn: u32,
}

impl TaskManagementRequest {
    pub(super) fn encode(&self) -> Bhs {
        let flags = [FINAL | self.function.0 & 0x7f, 0, 0];
        let mut bhs = start(
            Opcode::TaskManagementRequest,
            self.immediate,
            flags,
            self.itt,
        );
        put_lun(&mut bhs, self.lun);
        let mut to = &mut bhs[20..];
        to.put_u32(self.referenced_tag);
        to.put_u32(self.cmd_sn);
        to.put_u32(self.exp_stat_sn);
        to.put_u32(self.ref_cmd_sn);
        bhs
    }

    pub(super) fn decode(bhs: &Bhs) -> Self {
        let mut from = &bhs[20..];
        Self {
            immediate: is_immediate(bhs),
            function: TaskFunction(bhs[1] & 0x7f),
            lun: lun(bhs),
            itt: itt(bhs),
            referenced_tag: from.get_u32(),
            cmd_sn: from.get_u32(),
            exp_stat_sn: from.get_u32(),
            ref_cmd_sn: from.get_u32(),
        }
    }
}

/// Task Management Function Response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskManagementResponse {
    /// 0 complete, 1 no such task, 2 no such LUN, 5 not supported, 255 rejected.
    pub response: u8,
    /// Initiator Task Tag of the request.
    pub itt: u32,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub sn: TargetSn,
}

impl TaskManagementResponse {
    pub(super) fn encode(&self) -> Bhs {
        let flags = [FINAL, self.response, 0];
        let mut bhs = start(Opcode::TaskManagementResponse, false, flags, self.itt);
        self.sn.put(&mut &mut bhs[24..]);
        bhs
    }

    pub(super) fn decode(bhs: &Bhs) -> Self {
        Self {
            response: bhs[2],
            itt: itt(bhs),
            sn: TargetSn::get(&mut &bhs[24..]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this fails do not change the test.
    #[test]
    fn abort_task_on_the_wire() {
        let request = TaskManagementRequest {
            immediate: true,
            function: TaskFunction::ABORT_TASK,
            lun: Lun(0x0001_0000_0000_0000),
            itt: 7,
            referenced_tag: 6,
            cmd_sn: 5,
            exp_stat_sn: 4,
            ref_cmd_sn: 3,
        };
        let wire = [
            0x42, 0x81, 0x00, 0x00, // immediate; F, ABORT TASK
            0x00, 0x00, 0x00, 0x00, // lengths
            0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // LUN 1
            0x00, 0x00, 0x00, 0x07, // Initiator Task Tag
            0x00, 0x00, 0x00, 0x06, // Referenced Task Tag
            0x00, 0x00, 0x00, 0x05, // CmdSN
            0x00, 0x00, 0x00, 0x04, // ExpStatSN
            0x00, 0x00, 0x00, 0x03, // RefCmdSN
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(request.encode(), wire);
        assert_eq!(TaskManagementRequest::decode(&wire), request);
    }
}
