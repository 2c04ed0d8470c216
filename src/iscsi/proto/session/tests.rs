//! Both cores against each other over their wire bytes, and against PDUs that must not work.

#![expect(
    clippy::cast_possible_truncation,
    reason = "the sizes are a few megabytes"
)]

use super::*;
use crate::iscsi::proto::digest::Digests;
use crate::iscsi::proto::error::{Error, PeerMisbehaved};
use crate::iscsi::proto::framing::{Decoder, SendQueue};
use crate::iscsi::proto::login::LoggedIn;
use crate::iscsi::proto::negotiate::Params;
use crate::iscsi::proto::pdu::{
    DataIn, Direction, Header, Lun, NopIn, NopOut, Pdu, R2t, RESERVED_TAG, ScsiCommand,
    ScsiResponse, Status, TargetSn, TaskFunction, TaskManagementRequest,
};
use bytes::{Buf, Bytes, BytesMut};
use proptest::prelude::*;
use std::collections::HashMap;

const LIMITS: Limits = Limits {
    queue_depth: 4,
    max_transfer: 1 << 20,
    budget: 2 << 20,
};

fn logged_in(params: Params) -> LoggedIn {
    LoggedIn {
        params,
        tsih: 1,
        cmd_sn: 0xffff_fffe, // so that every test crosses the wrap
        max_cmd_sn: 0xffff_fffeu32.wrapping_add(LIMITS.queue_depth - 1),
        stat_sn: 0xffff_ffff,
    }
}

fn write(data: Bytes, at: u64) -> Command {
    command(0x8a, at, Transfer::Out(data))
}

fn read(length: u32, at: u64) -> Command {
    command(0x88, at, Transfer::In(length))
}

fn command(opcode: u8, at: u64, transfer: Transfer) -> Command {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[2..10].copy_from_slice(&at.to_be_bytes());
    Command {
        lun: Lun(0),
        cdb,
        transfer,
    }
}

/// A wire from one core to the other.
struct Wire {
    queue: SendQueue,
    decoder: Decoder,
    pdus: usize,
}

impl Wire {
    fn new(params: &Params) -> Self {
        let mut queue = SendQueue::new();
        queue.set_digests(params.digests);
        let mut decoder = Decoder::new(8192);
        decoder.set_params(params.digests, params.max_recv_data_segment);
        Self {
            queue,
            decoder,
            pdus: 0,
        }
    }

    fn carry(&mut self, pdu: Pdu) -> Pdu {
        self.pdus += 1;
        self.queue.push(pdu);
        let bytes = self.queue.copy_to_bytes(self.queue.remaining());
        let mut buffer = BytesMut::from(&bytes[..]);
        let pdu = self.decoder.decode(&mut buffer).unwrap().unwrap();
        assert!(buffer.is_empty());
        pdu
    }
}

/// Two cores and a disk.
struct Pair {
    initiator: InitiatorSession,
    target: TargetSession,
    there: Wire,
    back: Wire,
    disk: Vec<u8>,
    outcomes: HashMap<u32, Outcome>,
    logged_out: bool,
}

impl Pair {
    fn new(params: Params) -> Self {
        let portal = Portal {
            target_name: "t".into(),
            address: "a".into(),
        };
        Self {
            there: Wire::new(&params),
            back: Wire::new(&params),
            initiator: InitiatorSession::new(logged_in(params.clone())),
            target: TargetSession::new(logged_in(params), false, portal, LIMITS),
            disk: vec![0; 4 << 20],
            outcomes: HashMap::new(),
            logged_out: false,
        }
    }

    /// Runs until neither core has anything to say.
    fn run(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(pdu) = self.initiator.poll_transmit() {
                quiet = false;
                let pdu = self.there.carry(pdu);
                self.target.handle_pdu(pdu).unwrap();
            }
            while let Some(event) = self.target.poll_event() {
                quiet = false;
                match event {
                    TargetEvent::Execute(request) => self.execute(&request),
                    TargetEvent::LoggedOut => self.logged_out = true,
                }
            }
            if let Some(pdu) = self.target.poll_transmit() {
                quiet = false;
                let pdu = self.back.carry(pdu);
                self.initiator.handle_pdu(pdu).unwrap();
            }
            while let Some(event) = self.initiator.poll_event() {
                quiet = false;
                if let Event::Completed(itt, outcome) = event {
                    self.outcomes.insert(itt, outcome);
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn execute(&mut self, request: &Request) {
        let mut at = u64::from_be_bytes(request.cdb[2..10].try_into().unwrap()) as usize;
        let mut data = Bytes::new();
        if request.direction == Direction::Read {
            let length = request.expected_length as usize;
            data = Bytes::copy_from_slice(&self.disk[at..at + length]);
        }
        for part in &request.data {
            self.disk[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        let completion = Completion {
            status: Status::GOOD,
            sense: Bytes::new(),
            data,
            length: u64::from(request.expected_length),
        };
        self.target.complete(request.itt, completion);
    }
}

fn pattern(length: usize, seed: u8) -> Bytes {
    (0..length)
        .map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever was negotiated and however large, data arrives as it was, both ways.
    #[test]
    fn data_arrives(
        segment in 512u32..70_000, burst in 512u32..200_000, first in 512u32..200_000,
        initial_r2t: bool, immediate_data: bool, header: bool, data: bool,
        lengths in proptest::collection::vec(0usize..300_000, 1..9),
    ) {
        let mut pair = Pair::new(Params {
            digests: Digests { header, data },
            max_recv_data_segment: segment,
            max_send_data_segment: segment,
            max_burst: burst,
            first_burst: first.min(burst),
            initial_r2t,
            immediate_data,
            ..Params::default()
        });
        let mut at = 0;
        let mut places = Vec::new();
        for (length, seed) in lengths.into_iter().zip(1..) {
            let data = pattern(length, seed);
            let itt = pair.initiator.submit(write(data.clone(), at));
            places.push((itt, at, data));
            at += length as u64;
        }
        pair.run();
        let mut reads = Vec::new();
        for (itt, at, data) in places {
            prop_assert_eq!(pair.outcomes[&itt].status, Status::GOOD);
            let start = at as usize;
            prop_assert!(pair.disk[start..start + data.len()] == data[..]);
            reads.push((pair.initiator.submit(read(data.len() as u32, at)), data));
        }
        pair.initiator.logout();
        pair.run();
        for (itt, data) in reads {
            prop_assert_eq!(&pair.outcomes[&itt].data, &data);
        }
        prop_assert!(pair.logged_out);
    }

    /// Any bytes that decode are taken or refused, without panic and without endless growth.
    #[test]
    fn garbage_never_panics(
        bhss in proptest::collection::vec(any::<[u8; 48]>(), 1..20),
        data: Vec<u8>,
    ) {
        let mut pair = Pair::new(Params::default());
        pair.initiator.submit(write(pattern(9000, 1), 0));
        pair.initiator.submit(read(9000, 0));
        while pair.initiator.poll_transmit().is_some() {}
        for mut bhs in bhss {
            bhs[16..20].copy_from_slice(&1u32.to_be_bytes());
            if let Ok(header) = Header::decode(&bhs) {
                let pdu = Pdu::new(header, Bytes::copy_from_slice(&data));
                drop(pair.initiator.handle_pdu(pdu.clone()));
                drop(pair.target.handle_pdu(pdu));
                while pair.initiator.poll_transmit().is_some() {}
                while pair.target.poll_transmit().is_some() {}
            }
        }
    }
}

#[test]
fn one_pdu_is_enough_where_the_target_allows_it() {
    let mut pair = Pair::new(Params {
        max_recv_data_segment: 262_144,
        max_send_data_segment: 262_144,
        first_burst: 262_144,
        initial_r2t: false,
        ..Params::default()
    });
    pair.initiator.submit(write(pattern(262_144, 1), 0));
    pair.run();
    assert_eq!((pair.there.pdus, pair.back.pdus), (1, 1));
}

#[test]
fn a_burst_is_cut_to_the_targets_segments() {
    let mut pair = Pair::new(Params {
        immediate_data: false,
        ..Params::default()
    });
    pair.initiator.submit(write(pattern(262_144, 1), 0));
    pair.run();
    assert_eq!(pair.there.pdus, 1 + 32); // the command, 8 KiB each
    assert_eq!(pair.back.pdus, 2); // one R2T, one status
}

#[test]
fn the_command_window_is_respected() {
    let mut pair = Pair::new(Params::default());
    for _ in 0..9 {
        pair.initiator.submit(read(512, 0));
    }
    let mut sent = Vec::new();
    while let Some(pdu) = pair.initiator.poll_transmit() {
        sent.push(pdu);
    }
    assert_eq!(sent.len(), 4);
    for pdu in sent {
        pair.target.handle_pdu(pdu).unwrap();
    }
    pair.run();
    assert_eq!(pair.outcomes.len(), 9);
}

#[test]
fn a_slow_start_doubles_with_each_end() {
    let mut initiator = InitiatorSession::new(LoggedIn {
        max_cmd_sn: 100,
        ..logged_in(Params::default())
    });
    let tags: Vec<u32> = (0..20).map(|_| initiator.submit(read(0, 0))).collect();
    initiator.start_slowly();
    let mut ended = tags.iter();
    let mut burst = || {
        let sent = std::iter::from_fn(|| initiator.poll_transmit()).count();
        let end = Pdu::bare(good(*ended.next().unwrap()));
        initiator.handle_pdu(end).unwrap();
        sent
    };
    // One, then two and four and eight under way, of which one each has ended.
    assert_eq!([burst(), burst(), burst(), burst()], [1, 2, 3, 5]);
}

#[test]
fn pings_are_answered_both_ways() {
    let mut pair = Pair::new(Params::default());
    pair.target.ping();
    let ping = pair.target.poll_transmit().unwrap();
    pair.initiator.handle_pdu(ping).unwrap();
    let pong = pair.initiator.poll_transmit().unwrap();
    assert!(matches!(&pong.header, Header::NopOut(nop) if nop.ttt == 1 && nop.immediate));
    pair.target.handle_pdu(pong).unwrap();
    assert!(pair.target.poll_transmit().is_none());

    let header = NopOut {
        immediate: true,
        lun: Lun(0),
        itt: 77,
        ttt: RESERVED_TAG,
        cmd_sn: 0,
        exp_stat_sn: 0,
    };
    pair.target
        .handle_pdu(Pdu::new(header, Bytes::from_static(b"hello")))
        .unwrap();
    let pong = pair.target.poll_transmit().unwrap();
    assert!(matches!(&pong.header, Header::NopIn(NopIn { itt: 77, .. })));
    assert_eq!(&pong.data[..], b"hello");
}

const SN: TargetSn = TargetSn {
    stat_sn: 0,
    exp_cmd_sn: 0xffff_ffff,
    max_cmd_sn: 3,
};

fn good(itt: u32) -> ScsiResponse {
    ScsiResponse {
        overflow: false,
        underflow: false,
        response: 0,
        status: Status::GOOD,
        itt,
        sn: SN,
        exp_data_sn: 0,
        residual: 0,
    }
}

/// An initiator that has sent this command, and the command's tag.
fn sent(command: Command) -> (InitiatorSession, u32) {
    let mut initiator = InitiatorSession::new(logged_in(Params::default()));
    let itt = initiator.submit(command);
    assert!(initiator.poll_transmit().is_some());
    (initiator, itt)
}

#[test]
fn a_good_status_without_all_the_data_is_not_believed() {
    let refused = |result: Result<(), Error>| {
        assert!(matches!(
            result,
            Err(Error::PeerMisbehaved(PeerMisbehaved::Data(_)))
        ));
    };
    let (mut initiator, itt) = sent(write(pattern(20_000, 1), 0));
    refused(initiator.handle_pdu(Pdu::bare(good(itt))));
    let (mut initiator, itt) = sent(read(512, 0));
    refused(initiator.handle_pdu(Pdu::bare(good(itt))));
    // With a residual count the target says so, and the caller sees the length.
    let (mut initiator, itt) = sent(read(512, 0));
    let short = ScsiResponse {
        underflow: true,
        residual: 512,
        ..good(itt)
    };
    initiator.handle_pdu(Pdu::bare(short)).unwrap();
    // A target failure has no status to believe.
    let (mut initiator, itt) = sent(read(0, 0));
    let failed = ScsiResponse {
        response: 1,
        ..good(itt)
    };
    assert!(initiator.handle_pdu(Pdu::bare(failed)).is_err());
}

#[test]
fn r2ts_outside_of_the_data_are_refused() {
    let r2t = |itt, r2t_sn, buffer_offset, desired_length| R2t {
        lun: Lun(0),
        itt,
        ttt: 1,
        sn: SN,
        r2t_sn,
        buffer_offset,
        desired_length,
    };
    for (r2t_sn, offset, length) in [(0, 19_000, 2000), (0, 0, 0), (0, u32::MAX, 10), (1, 0, 512)] {
        let (mut initiator, itt) = sent(write(pattern(20_000, 1), 0));
        let pdu = Pdu::bare(r2t(itt, r2t_sn, offset, length));
        assert!(
            initiator.handle_pdu(pdu).is_err(),
            "{r2t_sn} {offset} {length}"
        );
    }
    let (mut initiator, itt) = sent(write(pattern(300_000, 1), 0));
    assert!(
        initiator
            .handle_pdu(Pdu::bare(r2t(itt, 0, 0, 262_145)))
            .is_err()
    );
    // One at a time is what was negotiated.
    let (mut initiator, itt) = sent(write(pattern(20_000, 1), 0));
    let first = Pdu::bare(r2t(itt, 0, 8192, 512));
    initiator.handle_pdu(first).unwrap();
    let second = Pdu::bare(r2t(itt, 1, 8704, 512));
    assert!(initiator.handle_pdu(second).is_err());
    let (mut initiator, itt) = sent(read(512, 0));
    assert!(
        initiator
            .handle_pdu(Pdu::bare(r2t(itt, 0, 0, 512)))
            .is_err()
    );
    assert!(
        initiator
            .handle_pdu(Pdu::bare(r2t(itt + 1, 0, 0, 512)))
            .is_err()
    );
}

#[test]
fn data_in_must_come_in_order_and_fit() {
    let data_in = |itt, data_sn, buffer_offset| DataIn {
        is_final: true,
        acknowledge: false,
        overflow: false,
        underflow: false,
        has_status: false,
        status: Status::GOOD,
        lun: Lun(0),
        itt,
        ttt: RESERVED_TAG,
        sn: SN,
        data_sn,
        buffer_offset,
        residual: 0,
    };
    for (data_sn, offset, length) in [(0, 0, 513), (1, 0, 512), (0, 8, 100)] {
        let (mut initiator, itt) = sent(read(512, 0));
        let pdu = Pdu::new(data_in(itt, data_sn, offset), pattern(length, 0));
        assert!(initiator.handle_pdu(pdu).is_err());
    }
}

#[test]
fn a_failed_write_ends_without_its_data() {
    let (mut initiator, itt) = sent(write(pattern(100_000, 1), 0));
    let r2t = R2t {
        lun: Lun(0),
        itt,
        ttt: 1,
        sn: SN,
        r2t_sn: 0,
        buffer_offset: 8192,
        desired_length: 80_000,
    };
    initiator.handle_pdu(Pdu::bare(r2t)).unwrap();
    assert!(initiator.poll_transmit().is_some());
    let failed = ScsiResponse {
        status: Status::CHECK_CONDITION,
        ..good(itt)
    };
    let sense = Bytes::from_static(b"\0\x03abcpad");
    initiator.handle_pdu(Pdu::new(failed, sense)).unwrap();
    assert!(initiator.poll_transmit().is_none());
    let Some(Event::Completed(_, outcome)) = initiator.poll_event() else {
        panic!("no completion");
    };
    assert_eq!(&outcome.sense[..], b"abc");
}

fn scsi_command(itt: u32, cmd_sn: u32, expected_length: u32) -> ScsiCommand {
    ScsiCommand {
        immediate: false,
        is_final: true,
        direction: Direction::Write,
        attribute: 1,
        lun: Lun(0),
        itt,
        expected_length,
        cmd_sn,
        exp_stat_sn: 0,
        cdb: [0; 16],
    }
}

#[test]
fn the_target_keeps_the_command_order() {
    let mut target = Pair::new(Params::default()).target;
    let first = 0xffff_fffe;
    // Behind and beyond the window: ignored. A gap inside it can never close.
    target
        .handle_pdu(Pdu::bare(scsi_command(1, first - 1, 0)))
        .unwrap();
    target
        .handle_pdu(Pdu::bare(scsi_command(1, first.wrapping_add(4), 0)))
        .unwrap();
    assert!(target.poll_event().is_none());
    assert!(
        target
            .handle_pdu(Pdu::bare(scsi_command(1, first + 1, 0)))
            .is_err()
    );
}

#[test]
fn the_target_refuses_data_nobody_asked_for() {
    let first = 0xffff_fffe;
    let refused = |params: Params, pdu: Pdu| {
        let mut target = Pair::new(params).target;
        assert!(target.handle_pdu(pdu).is_err());
    };
    let command = scsi_command(1, first, 8192);
    let no_immediate = Params {
        immediate_data: false,
        ..Params::default()
    };
    refused(no_immediate, Pdu::new(command.clone(), pattern(512, 0)));
    refused(
        Params::default(),
        Pdu::new(command.clone(), pattern(8193, 0)),
    );
    let more = ScsiCommand {
        is_final: false,
        ..command.clone()
    };
    refused(Params::default(), Pdu::bare(more));
    let reading = ScsiCommand {
        direction: Direction::Read,
        ..command
    };
    refused(Params::default(), Pdu::new(reading, pattern(512, 0)));
}

#[test]
fn the_budget_admits_writes_one_after_the_other() {
    let mut target = Pair::new(Params {
        immediate_data: false,
        ..Params::default()
    })
    .target;
    for i in 0..4 {
        let cmd_sn = 0xffff_fffeu32.wrapping_add(i);
        let command = scsi_command(i, cmd_sn, LIMITS.max_transfer);
        target.handle_pdu(Pdu::bare(command)).unwrap();
    }
    let mut asked = Vec::new();
    while let Some(pdu) = target.poll_transmit() {
        match pdu.header {
            Header::R2t(r2t) => asked.push(r2t.itt),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(asked, [0, 1]); // 1 MiB each of 2 MiB
    // A longer one is executed without its data, so that the device can refuse it.
    let mut target = Pair::new(Params::default()).target;
    let command = scsi_command(1, 0xffff_fffe, LIMITS.max_transfer + 1);
    target.handle_pdu(Pdu::bare(command)).unwrap();
    assert!(matches!(target.poll_event(), Some(TargetEvent::Execute(r)) if r.data.is_empty()));
}

#[test]
fn an_abort_waits_for_the_running_task() {
    let mut target = Pair::new(Params::default()).target;
    let first = 0xffff_fffe;
    target
        .handle_pdu(Pdu::bare(scsi_command(1, first, 0)))
        .unwrap();
    target
        .handle_pdu(Pdu::bare(scsi_command(2, first + 1, 512)))
        .unwrap();
    while target.poll_transmit().is_some() {}
    let abort = TaskManagementRequest {
        immediate: true,
        function: TaskFunction::LOGICAL_UNIT_RESET,
        lun: Lun(0),
        itt: 9,
        referenced_tag: RESERVED_TAG,
        cmd_sn: 0,
        exp_stat_sn: 0,
        ref_cmd_sn: 0,
    };
    target.handle_pdu(Pdu::bare(abort)).unwrap();
    assert!(target.poll_transmit().is_none());
    let completion = Completion {
        status: Status::GOOD,
        sense: Bytes::new(),
        data: Bytes::new(),
        length: 0,
    };
    target.complete(1, completion);
    let answer = target.poll_transmit().unwrap();
    assert!(matches!(&answer.header, Header::TaskManagementResponse(r) if r.response == 0));
    assert!(target.poll_transmit().is_none());
}
