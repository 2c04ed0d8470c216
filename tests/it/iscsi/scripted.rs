//! A target that answers what a test tells it to, over the protocol core and a real socket.

use bytes::{Buf, Bytes, BytesMut};
use flowrun::iscsi::Digests;
use flowrun::iscsi::proto::LoginStatus;
use flowrun::iscsi::proto::chap::Challenge;
use flowrun::iscsi::proto::framing::{Decoder, SendQueue};
use flowrun::iscsi::proto::login::{LoggedIn, Target, TargetConfig, TargetProgress};
use flowrun::iscsi::proto::negotiate::Proposal;
use flowrun::iscsi::proto::pdu::{AsyncMessage, Header, LoginResponse, Lun, Pdu, Status, TargetSn};
use flowrun::iscsi::proto::session::{Completion, Limits, Portal, TargetEvent, TargetSession};
use flowrun::iscsi::scsi::{Capacity, Cdb, Inquiry, ModeHeader, Sense};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What the script wants done about a command.
pub(super) enum Act {
    /// End it with this status.
    Status(Status),
    /// End it with this sense.
    Sense(Sense),
    /// Let it succeed.
    Good,
    /// Let it succeed with this data.
    Data(Bytes),
    /// Send bytes that are no PDU.
    Garbage,
    /// Send this first, and let it succeed.
    First(Pdu),
    /// Send only what this makes of the command's tag.
    Instead(fn(u32) -> Pdu),
    /// Send this and close the connection.
    Last(Pdu),
}

/// Serves one connection. `script` is asked about every command but those that describe the unit.
pub(super) async fn scripted(
    script: impl FnMut(Cdb) -> Act + Send + 'static,
) -> (u16, JoinSet<()>) {
    scripted_for(1, script).await
}

/// Serves so many connections, one after the other.
pub(super) async fn scripted_for(
    connections: usize,
    mut script: impl FnMut(Cdb) -> Act + Send + 'static,
) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut task = JoinSet::new();
    task.spawn(async move {
        for _ in 0..connections {
            let (stream, _) = listener.accept().await.unwrap();
            serve(Wire::new(stream), &mut script).await;
        }
    });
    (port, task)
}

/// Sends every login to another address.
pub(super) async fn redirecting(to: u16, status: LoginStatus) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = if to == 0 { port } else { to };
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut wire = Wire::new(stream);
            let Some(Header::LoginRequest(request)) = wire.receive().await.map(|pdu| pdu.header)
            else {
                continue;
            };
            let response = LoginResponse {
                transit: false,
                more_follows: false,
                csg: request.csg,
                nsg: request.nsg,
                version_max: 0,
                version_active: 0,
                isid: request.isid,
                tsih: 0,
                itt: request.itt,
                sn: TargetSn::default(),
                status,
            };
            let text = format!("TargetAddress=127.0.0.1:{to},1\0");
            wire.send(Pdu::new(response, text.into())).await;
        }
    });
    (port, task)
}

struct Wire {
    stream: TcpStream,
    incoming: BytesMut,
    decoder: Decoder,
    outgoing: SendQueue,
}

impl Wire {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            incoming: BytesMut::new(),
            decoder: Decoder::new(1 << 20),
            outgoing: SendQueue::new(),
        }
    }

    /// `None` once the initiator has closed the connection.
    async fn receive(&mut self) -> Option<Pdu> {
        loop {
            if let Some(pdu) = self.decoder.decode(&mut self.incoming).unwrap() {
                return Some(pdu);
            }
            if self.stream.read_buf(&mut self.incoming).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn send(&mut self, pdu: Pdu) {
        self.outgoing.push(pdu);
        while self.outgoing.has_remaining() {
            if self.stream.write_buf(&mut self.outgoing).await.is_err() {
                return;
            }
        }
    }
}

async fn serve(mut wire: Wire, script: &mut impl FnMut(Cdb) -> Act) {
    let Some(logged_in) = log_in(&mut wire).await else {
        return;
    };
    let portal = Portal {
        target_name: super::IQN.into(),
        address: String::new(),
    };
    let limits = Limits {
        queue_depth: 16,
        max_transfer: 1 << 20,
        budget: 4 << 20,
    };
    let mut core = TargetSession::new(logged_in, false, portal, limits);
    while let Some(pdu) = wire.receive().await {
        core.handle_pdu(pdu).unwrap();
        while let Some(event) = core.poll_event() {
            let TargetEvent::Execute(request) = event else {
                continue;
            };
            let cdb = Cdb::decode(&request.cdb).unwrap();
            let completion = match describe(cdb) {
                Some(data) => good(data, request.expected_length),
                None => match script(cdb) {
                    Act::Good => good(Bytes::new(), request.expected_length),
                    Act::Data(data) => good(data, request.expected_length),
                    Act::Status(status) => failed(status, Bytes::new()),
                    Act::Sense(sense) => failed(Status::CHECK_CONDITION, sense.encode()),
                    Act::Garbage => {
                        wire.stream.write_all(&[0xff; 64]).await.unwrap();
                        continue;
                    }
                    Act::First(pdu) => {
                        wire.send(pdu).await;
                        good(Bytes::new(), request.expected_length)
                    }
                    Act::Instead(pdu) => {
                        wire.send(pdu(request.itt)).await;
                        continue;
                    }
                    Act::Last(pdu) => {
                        wire.send(pdu).await;
                        return;
                    }
                },
            };
            core.complete(request.itt, completion);
        }
        while let Some(pdu) = core.poll_transmit() {
            wire.send(pdu).await;
        }
    }
}

async fn log_in(wire: &mut Wire) -> Option<LoggedIn> {
    let mut login = Box::new(Target::new(TargetConfig {
        target_name: super::IQN.into(),
        chap: None,
        challenge: Challenge {
            id: 0,
            bytes: [1; 32],
        },
        proposal: Proposal {
            digests: Digests::None,
            max_recv_data_segment: 1 << 18,
            max_burst: 1 << 18,
            first_burst: 1 << 18,
            initial_r2t: false,
            immediate_data: true,
            max_outstanding_r2t: 1,
            time2wait: 0,
            time2retain: 0,
        },
        queue_depth: 16,
    }));
    loop {
        let request = wire.receive().await?;
        match login.handle(&request).unwrap() {
            TargetProgress::Send(pdu, next) => {
                wire.send(pdu).await;
                login = next;
            }
            TargetProgress::Ready(ready) => {
                let (pdu, logged_in) = ready.accept(1);
                wire.send(pdu).await;
                return Some(logged_in);
            }
            TargetProgress::Refuse(_) => panic!("the login is refused"),
        }
    }
}

/// A thick disk of 1 MiB.
fn describe(cdb: Cdb) -> Option<Bytes> {
    let capacity = Capacity {
        blocks: 2048,
        block_bytes: 512,
        physical_exponent: 0,
        thin: false,
        reads_zero: false,
    };
    match cdb {
        Cdb::Inquiry { page: None, .. } => Some(Inquiry::default().encode()),
        Cdb::Inquiry { .. } => Some(Bytes::from_static(&[0; 4])),
        Cdb::ReadCapacity16 { .. } => Some(capacity.encode()),
        Cdb::ModeSense { ten, page, .. } => ModeHeader::default().encode(ten, page, false),
        _ => None,
    }
}

fn good(data: Bytes, expected: u32) -> Completion {
    let length = match data.len() {
        0 => u64::from(expected),
        length => length as u64,
    };
    Completion {
        status: Status::GOOD,
        sense: Bytes::new(),
        data,
        length,
    }
}

fn failed(status: Status, sense: Bytes) -> Completion {
    Completion {
        status,
        sense,
        data: Bytes::new(),
        length: 0,
    }
}

pub(super) fn asynchronous(event: u8) -> Pdu {
    Pdu::bare(AsyncMessage {
        lun: Lun(0),
        sn: TargetSn::default(),
        event,
        vendor_code: 0,
        parameters: [0, 0, 10],
    })
}
