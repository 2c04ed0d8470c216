//! A connection that carries one command at a time: how a session begins, and begins again.

use crate::iscsi::error::Failure;
use crate::iscsi::io::{Connection, Turn};
use crate::iscsi::proto::pdu::{Lun, Status, TaskFunction};
use crate::iscsi::proto::session::{
    Command, Event, InitiatorSession, Outcome, TaskResponse, Transfer,
};
use crate::iscsi::scsi::{Cdb, Sense, SenseKey};
use bytes::Bytes;
use std::time::Duration;

/// Unit attentions in a row after which a command is given up.
pub(super) const MAX_ATTENTIONS: usize = 8;

/// Before a command is sent again to a unit that is busy.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// A connection in the full feature phase that nobody else uses. Callers bound the time.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) connection: Connection,
    pub(super) core: InitiatorSession,
    pub(super) lun: Lun,
    /// Unit attentions that were taken off the unit.
    pub(super) news: Vec<Sense>,
}

impl Line {
    /// Runs a command to a GOOD end, patient with a unit that is busy or has news.
    pub(super) async fn run(
        &mut self,
        name: &'static str,
        cdb: Cdb,
        transfer: Transfer,
    ) -> Result<Bytes, Failure> {
        let mut attentions = 0;
        loop {
            match self.run_once(name, cdb, transfer.clone()).await {
                Err(Failure::Scsi { sense, .. })
                    if sense.key == SenseKey::UNIT_ATTENTION && attentions < MAX_ATTENTIONS =>
                {
                    self.news.push(sense);
                    attentions += 1;
                }
                Err(failure) if is_busy(&failure) => tokio::time::sleep(BUSY_PAUSE).await,
                done => return done,
            }
        }
    }

    /// Runs a command once.
    pub(super) async fn run_once(
        &mut self,
        name: &'static str,
        cdb: Cdb,
        transfer: Transfer,
    ) -> Result<Bytes, Failure> {
        let itt = self.core.submit(Command {
            lun: self.lun,
            cdb: cdb.encode(),
            transfer,
        });
        loop {
            match self.event().await? {
                Event::Completed(done, outcome) if done == itt => return good(name, outcome),
                event => ended(&event)?,
            }
        }
    }

    /// Asks the target to end all tasks of the unit.
    pub(super) async fn manage(&mut self, function: TaskFunction) -> Result<TaskResponse, Failure> {
        let itt = self.core.manage(function, self.lun, None);
        loop {
            match self.event().await? {
                Event::Managed(done, response) if done == itt => return Ok(response),
                event => ended(&event)?,
            }
        }
    }

    async fn event(&mut self) -> Result<Event, Failure> {
        loop {
            while let Some(pdu) = self.core.poll_transmit() {
                self.connection.queue(pdu);
            }
            if let Some(event) = self.core.poll_event() {
                return Ok(event);
            }
            if let Turn::Received(pdu) = self.connection.turn().await? {
                self.core.handle_pdu(pdu)?;
            }
        }
    }
}

/// What the caller of a command learns from how it ended.
pub(super) fn good(command: &'static str, outcome: Outcome) -> Result<Bytes, Failure> {
    match outcome.status {
        Status::GOOD => Ok(outcome.data),
        Status::CHECK_CONDITION => match Sense::decode(&outcome.sense) {
            // SPC-5: a recovered error did what it should.
            Some(sense) if sense.key == SenseKey::RECOVERED_ERROR => Ok(outcome.data),
            Some(sense) => Err(Failure::Scsi { command, sense }),
            None => Err(Failure::Status {
                command,
                status: outcome.status.0,
            }),
        },
        Status(status) => Err(Failure::Status { command, status }),
    }
}

/// Whether the same command may work a little later.
pub(super) fn is_busy(failure: &Failure) -> bool {
    match failure {
        Failure::Scsi { sense, .. } => sense.is_becoming_ready(),
        Failure::Status { status, .. } => {
            matches!(Status(*status), Status::BUSY | Status::TASK_SET_FULL)
        }
        _ => false,
    }
}

/// Whether the unit just does not have what was asked for.
pub(super) fn is_illegal(failure: &Failure) -> bool {
    matches!(failure, Failure::Scsi { sense, .. } if sense.key == SenseKey::ILLEGAL_REQUEST)
}

fn ended(event: &Event) -> Result<(), Failure> {
    match event {
        Event::Closing { why, .. } => Err(Failure::lost(*why)),
        _ => Ok(()),
    }
}
