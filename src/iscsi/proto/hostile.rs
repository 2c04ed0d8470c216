//! Peers that may say anything: neither end panics, hangs or grows without bound.
//!
//! A true conversation of both ends is changed in some places, or PDUs with likely numbers in
//! their fields are made up. `PROPTEST_CASES=1000000 cargo test --lib proto::hostile` goes on for
//! hours.

use super::chap::{Challenge, Chap};
use super::framing::{Decoder, SendQueue};
use super::login::{
    self, Initiator, InitiatorConfig, InitiatorProgress, SessionType, TargetConfig, TargetProgress,
};
use super::negotiate::{DigestPolicy, Proposal};
use super::pdu::{Header, Lun, Opcode, Pdu, Status, TaskFunction};
use super::session::{
    Command, Completion, Event, InitiatorSession, Limits, Portal, TargetEvent, TargetSession,
    Transfer,
};
use crate::secret::Secret;
use bytes::{Buf, Bytes, BytesMut};
use proptest::prelude::*;
use proptest::sample::Index;
use std::sync::LazyLock;

const IQN: &str = "iqn.2026-01.test:disk";
const SEGMENT: u32 = 8192;
/// Bytes of each write and read.
const LENGTH: u32 = 40_000;
const LIMITS: Limits = Limits {
    queue_depth: 4,
    max_transfer: 1 << 17,
    budget: 1 << 18,
};
/// The tag of a command that is given up.
const ABORTED: u32 = 4;
/// No PDU calls for more of them.
const MOST_ANSWERS: usize = 64;

fn chap() -> Chap {
    Chap {
        user: "root".into(),
        secret: Secret::new("from initiator"),
        mutual: Some(("disk".into(), Secret::new("from target"))),
    }
}

/// Without digests, so that what is changed is not just refused for its checksum.
fn proposal() -> Proposal {
    Proposal {
        digests: DigestPolicy::None,
        max_recv_data_segment: SEGMENT,
        max_burst: 16_384,
        first_burst: 10_000,
        initial_r2t: false,
        immediate_data: true,
        max_outstanding_r2t: 2,
        time2wait: 0,
        time2retain: 0,
    }
}

fn challenge(id: u8) -> Challenge {
    let bytes = [id; 32];
    Challenge { id, bytes }
}

/// Bytes to PDUs, as the socket loop does it.
#[derive(Debug)]
struct Ear {
    decoder: Decoder,
    buffer: BytesMut,
}

impl Ear {
    fn new() -> Self {
        let (decoder, buffer) = (Decoder::new(SEGMENT), BytesMut::new());
        Self { decoder, buffer }
    }

    /// `None` if the bytes are no PDUs.
    fn hear(&mut self, bytes: &[u8]) -> Option<Vec<Pdu>> {
        self.buffer.extend_from_slice(bytes);
        let mut pdus = Vec::new();
        while let Some(pdu) = self.decoder.decode(&mut self.buffer).ok()? {
            pdus.push(pdu);
        }
        // What is still awaited is a header with its extensions, or a data segment.
        assert!(self.decoder.missing() <= 48 + 255 * 4 + SEGMENT as usize);
        Some(pdus)
    }
}

fn wire(pdu: Pdu) -> Vec<u8> {
    let mut queue = SendQueue::new();
    queue.push(pdu);
    queue.copy_to_bytes(queue.remaining()).to_vec()
}

#[derive(Debug)]
enum Ours {
    LogsIn(Box<Initiator>),
    Works(Box<InitiatorSession>),
    Over,
}

/// An initiator that logs in, writes, reads, pings, aborts and logs out.
#[derive(Debug)]
struct Here {
    ear: Ear,
    state: Ours,
    /// Bytes of data that went out.
    sent: u64,
}

impl Here {
    fn start() -> (Self, Vec<u8>) {
        let (request, login) = Initiator::start(InitiatorConfig {
            initiator_name: "iqn.2026-01.test:host".into(),
            session: SessionType::Normal {
                target_name: IQN.into(),
            },
            isid: [0x80, 0, 0, 0, 0, 1],
            chap: Some(chap()),
            challenge: challenge(7),
            proposal: proposal(),
        })
        .unwrap();
        let (ear, state) = (Ear::new(), Ours::LogsIn(Box::new(login)));
        let here = Self {
            ear,
            state,
            sent: 0,
        };
        (here, wire(request))
    }

    /// What it answers.
    fn hear(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        let pdus = self.ear.hear(bytes);
        if pdus.is_none() {
            self.state = Ours::Over;
        }
        for pdu in pdus.unwrap_or_default() {
            self.state = match std::mem::replace(&mut self.state, Ours::Over) {
                Ours::LogsIn(login) => match login.handle(&pdu) {
                    Ok(InitiatorProgress::Send(pdu, next)) => {
                        answers.push(wire(pdu));
                        Ours::LogsIn(next)
                    }
                    Ok(InitiatorProgress::Done(logged_in)) => {
                        let mut session = InitiatorSession::new(logged_in);
                        answers.extend(self.work(&mut session));
                        Ours::Works(Box::new(session))
                    }
                    Err(_) => Ours::Over,
                },
                Ours::Works(mut session) => match session.handle_pdu(pdu) {
                    Ok(()) => {
                        answers.extend(self.speak(&mut session));
                        Ours::Works(session)
                    }
                    Err(_) => Ours::Over,
                },
                Ours::Over => Ours::Over,
            };
        }
        answers
    }

    fn work(&mut self, session: &mut InitiatorSession) -> Vec<Vec<u8>> {
        let lun = Lun(0);
        let mut submit = |transfer| {
            let cdb = [0; 16];
            session.submit(Command { lun, cdb, transfer })
        };
        let data = Bytes::from(vec![7; LENGTH as usize]);
        submit(Transfer::Out(data.clone()));
        submit(Transfer::In(LENGTH));
        submit(Transfer::None);
        assert_eq!(submit(Transfer::Out(data)), ABORTED);
        session.ping();
        let mut answers = self.speak(session);
        session.manage(TaskFunction::ABORT_TASK, lun, Some(ABORTED));
        session.logout();
        answers.extend(self.speak(session));
        answers
    }

    /// Acts on events and takes what there is to say.
    fn speak(&mut self, session: &mut InitiatorSession) -> Vec<Vec<u8>> {
        let pdus = speak(session);
        self.sent += pdus.iter().map(|pdu| pdu.data.len() as u64).sum::<u64>();
        pdus.into_iter().map(wire).collect()
    }
}

fn speak(session: &mut InitiatorSession) -> Vec<Pdu> {
    while let Some(event) = session.poll_event() {
        match event {
            Event::Completed(_, outcome) => assert!(outcome.data.len() <= LENGTH as usize),
            Event::Managed(_, response) if response.is_over() => session.forget(ABORTED),
            _ => {}
        }
    }
    let pdus: Vec<Pdu> = std::iter::from_fn(|| session.poll_transmit())
        .take(MOST_ANSWERS + 1)
        .collect();
    assert!(pdus.len() <= MOST_ANSWERS, "too many answers to a pdu");
    pdus
}

#[derive(Debug)]
enum Theirs {
    LogsIn(Box<login::Target>),
    Works(Box<TargetSession>),
    Over,
}

/// A target whose unit takes everything and reads as zeros.
#[derive(Debug)]
struct There {
    ear: Ear,
    state: Theirs,
}

impl There {
    fn start() -> Self {
        let login = login::Target::new(TargetConfig {
            target_name: IQN.into(),
            chap: Some(chap()),
            challenge: challenge(9),
            proposal: proposal(),
            queue_depth: LIMITS.queue_depth,
        });
        let (ear, state) = (Ear::new(), Theirs::LogsIn(Box::new(login)));
        Self { ear, state }
    }

    /// What it answers.
    fn hear(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        let pdus = self.ear.hear(bytes);
        if pdus.is_none() {
            self.state = Theirs::Over;
        }
        for pdu in pdus.unwrap_or_default() {
            self.state = match std::mem::replace(&mut self.state, Theirs::Over) {
                Theirs::LogsIn(login) => match login.handle(&pdu) {
                    Ok(TargetProgress::Send(pdu, next)) => {
                        answers.push(wire(pdu));
                        Theirs::LogsIn(next)
                    }
                    Ok(TargetProgress::Ready(ready)) => {
                        let discovery = ready.session == SessionType::Discovery;
                        let (pdu, logged_in) = ready.accept(1);
                        answers.push(wire(pdu));
                        let portal = Portal {
                            target_name: IQN.into(),
                            address: "127.0.0.1:3260,1".into(),
                        };
                        let session = TargetSession::new(logged_in, discovery, portal, LIMITS);
                        Theirs::Works(Box::new(session))
                    }
                    Ok(TargetProgress::Refuse(_)) | Err(_) => Theirs::Over,
                },
                Theirs::Works(mut session) => match session.handle_pdu(pdu) {
                    Ok(()) => Theirs::Works(session),
                    Err(_) => Theirs::Over,
                },
                Theirs::Over => Theirs::Over,
            };
            if let Theirs::Works(session) = &mut self.state {
                answers.extend(serve(session));
            }
        }
        answers
    }
}

fn serve(session: &mut TargetSession) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    loop {
        let mut idle = true;
        while let Some(event) = session.poll_event() {
            idle = false;
            if let TargetEvent::Execute(request) = event {
                let data: usize = request.data.iter().map(Bytes::len).sum();
                assert!(data <= LIMITS.max_transfer as usize);
                let length = request.expected_length.min(LIMITS.max_transfer);
                let completion = Completion {
                    status: Status::GOOD,
                    sense: Bytes::new(),
                    data: Bytes::from(vec![0; length as usize]),
                    length: u64::from(length),
                };
                session.complete(request.itt, completion);
            }
        }
        while let Some(pdu) = session.poll_transmit() {
            idle = false;
            answers.push(wire(pdu));
        }
        assert!(answers.len() <= MOST_ANSWERS, "too many answers to a pdu");
        if idle {
            return answers;
        }
    }
}

/// What both say when both are as they should be: PDU by PDU, initiator and target.
static CONVERSATION: LazyLock<[Vec<Vec<u8>>; 2]> = LazyLock::new(|| {
    let ((mut here, first), mut there) = (Here::start(), There::start());
    let mut said = [vec![first.clone()], Vec::new()];
    let mut requests = vec![first];
    while !requests.is_empty() {
        let answers: Vec<_> = requests.iter().flat_map(|pdu| there.hear(pdu)).collect();
        requests = answers.iter().flat_map(|pdu| here.hear(pdu)).collect();
        said[0].extend(requests.iter().cloned());
        said[1].extend(answers);
    }
    said
});

#[derive(Debug, Clone)]
enum Change {
    /// In this PDU, this byte of the first 64.
    Byte(Index, usize, u8),
    /// A field of the header: a word at a multiple of four.
    Word(Index, usize, u32),
    Cut(Index, Index),
    Drop(Index),
    Repeat(Index),
    Swap(Index, Index),
    Insert(Index, Vec<u8>),
}

/// Numbers that fields of this conversation have, or that lie at an edge.
fn likely() -> impl Strategy<Value = u32> {
    prop_oneof![
        proptest::sample::select(vec![
            0,
            1,
            2,
            3,
            4,
            5,
            512,
            8192,
            10_000,
            16_384,
            LENGTH,
            LENGTH - 8192,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_fffe,
            0xffff_ffff,
        ]),
        any::<u32>(),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    prop_oneof![
        (index(), 0usize..64, any::<u8>()).prop_map(|(pdu, at, to)| Change::Byte(pdu, at, to)),
        (index(), 2usize..12, likely()).prop_map(|(pdu, at, to)| Change::Word(pdu, at * 4, to)),
        (index(), index()).prop_map(|(pdu, at)| Change::Cut(pdu, at)),
        index().prop_map(Change::Drop),
        index().prop_map(Change::Repeat),
        (index(), index()).prop_map(|(one, other)| Change::Swap(one, other)),
        (index(), proptest::collection::vec(any::<u8>(), 1..100))
            .prop_map(|(pdu, bytes)| Change::Insert(pdu, bytes)),
    ]
}

fn changed(mut said: Vec<Vec<u8>>, changes: Vec<Change>) -> Vec<Vec<u8>> {
    for change in changes {
        let count = said.len();
        match change {
            Change::Byte(pdu, at, to) => {
                if let Some(byte) = said[pdu.index(count)].get_mut(at) {
                    *byte = to;
                }
            }
            Change::Word(pdu, at, to) => {
                if let Some(word) = said[pdu.index(count)].get_mut(at..at + 4) {
                    word.copy_from_slice(&to.to_be_bytes());
                }
            }
            Change::Cut(pdu, at) => {
                let pdu = &mut said[pdu.index(count)];
                pdu.truncate(at.index(pdu.len().max(1)));
            }
            Change::Drop(pdu) if count > 1 => drop(said.remove(pdu.index(count))),
            Change::Drop(_) => {}
            Change::Repeat(pdu) => said.push(said[pdu.index(count)].clone()),
            Change::Swap(one, other) => said.swap(one.index(count), other.index(count)),
            Change::Insert(pdu, bytes) => said.insert(pdu.index(count), bytes),
        }
    }
    said
}

/// PDUs of this opcode with likely numbers in their fields, and some data.
fn made_up() -> impl Strategy<Value = Vec<u8>> {
    let opcode = proptest::sample::select(Opcode::ALL.to_vec());
    let fields = proptest::collection::vec(likely(), 10);
    let data = proptest::sample::select(vec![0usize, 0, 48, 512, 8192]);
    (opcode, any::<[u8; 3]>(), fields, data).prop_filter_map(
        "no pdu",
        |(opcode, flags, fields, data)| {
            let mut bhs = [0; 48];
            bhs[0] = opcode as u8 | (flags[0] & 0x40);
            bhs[1..3].copy_from_slice(&flags[1..]);
            for (at, field) in (8..48).step_by(4).zip(fields) {
                bhs[at..at + 4].copy_from_slice(&field.to_be_bytes());
            }
            let header = Header::decode(&bhs).ok()?;
            Some(wire(Pdu::new(header, Bytes::from(vec![0; data]))))
        },
    )
}

proptest! {
    #[test]
    fn a_target_never_harms_the_initiator(
        changes in proptest::collection::vec(change(), 1..6),
    ) {
        let [_, answers] = &*CONVERSATION;
        let (mut here, _) = Here::start();
        for pdu in changed(answers.clone(), changes) {
            here.hear(&pdu);
        }
        // Two writes, and pings that give back nothing.
        prop_assert!(here.sent <= 2 * u64::from(LENGTH));
    }

    #[test]
    fn an_initiator_never_harms_the_target(
        changes in proptest::collection::vec(change(), 1..6),
    ) {
        let [requests, _] = &*CONVERSATION;
        let mut there = There::start();
        for pdu in changed(requests.clone(), changes) {
            there.hear(&pdu);
        }
    }

    #[test]
    fn made_up_pdus_never_harm_either(
        // The login ends somewhere in these.
        login in 0usize..12,
        pdus in proptest::collection::vec(made_up(), 1..30),
    ) {
        let [requests, answers] = &*CONVERSATION;
        let ((mut here, _), mut there) = (Here::start(), There::start());
        for (request, answer) in requests.iter().zip(answers).take(login) {
            there.hear(request);
            here.hear(answer);
        }
        for pdu in pdus {
            there.hear(&pdu);
            here.hear(&pdu);
        }
        prop_assert!(here.sent <= 2 * u64::from(LENGTH));
    }
}

/// What the changes begin with goes to its end.
#[test]
fn the_conversation_is_whole() {
    let [requests, answers] = &*CONVERSATION;
    assert!(requests.len() > 12 && answers.len() > 12);
    let last = |said: &[Vec<u8>]| said.last().unwrap()[0] & 0x3f;
    assert_eq!((last(requests), last(answers)), (0x06, 0x26)); // logout
}
