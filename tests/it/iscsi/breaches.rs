//! Targets and networks that break the protocol: what is odd is taken, what harms is named, and
//! what may pass is tried again.

use super::failures::{is_write, script};
use super::scripted::{redirecting, scripted_for};
use super::*;
use flowrun::iscsi::proto::LoginStatus;
use flowrun::iscsi::proto::pdu::{
    DataIn, LogoutResponse, Lun, NopIn, Pdu, R2t, RESERVED_TAG, Reject, ScsiResponse, TargetSn,
};
use std::sync::atomic::{AtomicU64, Ordering};

fn recovering(port: u16) -> LoginOptions {
    let mut options = options(port);
    options.recovery_timeout = Duration::from_secs(60);
    options.keep_alive = Duration::from_millis(500);
    options
}

/// Asks for data of a write of 512 bytes, all of which came with the command.
fn r2t(itt: u32) -> R2t {
    R2t {
        lun: Lun(1),
        itt,
        ttt: 7,
        sn: TargetSn::default(),
        r2t_sn: 0,
        buffer_offset: 512,
        desired_length: 512,
    }
}

fn response(itt: u32) -> ScsiResponse {
    ScsiResponse {
        overflow: false,
        underflow: false,
        response: 0,
        status: Status::GOOD,
        itt,
        sn: TargetSn::default(),
        exp_data_sn: 0,
        residual: 0,
    }
}

fn reject(reason: u8) -> Pdu {
    Pdu::bare(Reject {
        reason,
        sn: TargetSn::default(),
        data_sn: 0,
    })
}

fn data_in(itt: u32) -> Pdu {
    let header = DataIn {
        is_final: true,
        acknowledge: false,
        overflow: false,
        underflow: false,
        has_status: false,
        status: Status::GOOD,
        lun: Lun(1),
        itt,
        ttt: RESERVED_TAG,
        sn: TargetSn::default(),
        data_sn: 0,
        buffer_offset: 0,
        residual: 0,
    };
    Pdu::new(header, Bytes::from_static(&[0; 512]))
}

/// An answer to the command with a tag, and what the error says.
type Breach = (fn(u32) -> Pdu, &'static str);

/// Answers to a write that make no sense.
const BREACHES: [Breach; 9] = [
    (|itt| Pdu::bare(r2t(itt)), "data that is not there"),
    (
        |itt| {
            let buffer_offset = 0;
            Pdu::bare(R2t {
                buffer_offset,
                ..r2t(itt)
            })
        },
        "Buffer Offset of an R2T is 0, expected 512",
    ),
    (
        |itt| {
            let ttt = RESERVED_TAG;
            Pdu::bare(R2t { ttt, ..r2t(itt) })
        },
        "without a Target Transfer Tag",
    ),
    (
        |itt| {
            Pdu::bare(R2t {
                r2t_sn: 5,
                ..r2t(itt)
            })
        },
        "R2TSN is 5, expected 0",
    ),
    (
        |_| Pdu::bare(response(0x7777)),
        "SCSI Response for unknown task 0x00007777",
    ),
    (
        |itt| {
            let response_code = 1;
            Pdu::bare(ScsiResponse {
                response: response_code,
                ..response(itt)
            })
        },
        "failed to execute",
    ),
    (data_in, "reads nothing"),
    (|_| reject(0x09), "invalid pdu field"),
    (
        |itt| {
            Pdu::bare(LogoutResponse {
                response: 0,
                itt,
                sn: TargetSn::default(),
                time2wait: 0,
                time2retain: 0,
            })
        },
        "unexpected",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_protocol_ends_the_session_and_is_named() {
    for (breach, text) in BREACHES {
        let (port, _peer) = scripted(script(is_write, [Act::Instead(breach)])).await;
        let session = Session::login(recovering(port)).await.unwrap();
        let error = session.write(0, pattern(512, 1)).await.unwrap_err();
        assert!(error.to_string().contains(text), "{text}: {error}");
        assert!(!error.is_retryable());
        assert_eq!(kind(error), Kind::Protocol, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_odd_is_taken() {
    let ping = |sn| {
        let (lun, itt) = (Lun(0), RESERVED_TAG);
        Pdu::bare(NopIn {
            lun,
            itt,
            ttt: 9,
            sn,
        })
    };
    let sn = |stat_sn, exp_cmd_sn, max_cmd_sn| TargetSn {
        stat_sn,
        exp_cmd_sn,
        max_cmd_sn,
    };
    let mut vendor = asynchronous(255);
    vendor.data = Bytes::from_static(b"whatever");
    let odd = [
        // A ping, with a window that is out of date, one that is closed, and one that is huge.
        ping(sn(0, 100, 50)),
        ping(sn(0, 0, u32::MAX)),
        ping(sn(77, 0x7000_0000, 0x7fff_ffff)),
        // An event that says nothing, of a StatSN that leaps.
        vendor,
        asynchronous(99),
        // News without sense data.
        asynchronous(0),
    ];
    let acts = odd.into_iter().map(Act::First);
    let (port, _peer) = scripted(script(is_write, acts.collect::<Vec<_>>())).await;
    let session = Session::login(options(port)).await.unwrap();
    for _ in 0..8 {
        session.write(0, pattern(512, 1)).await.unwrap();
    }
    session.flush().await.unwrap();
    session.logout().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_drops_us_is_logged_in_to_again() {
    let acts = vec![
        Act::First(asynchronous(1)),    // wants a logout
        Act::First(asynchronous(4)),    // wants to negotiate
        Act::Last(asynchronous(2)),     // drops the connection
        Act::Last(asynchronous(3)),     // drops all connections
        Act::Instead(|_| reject(0x02)), // data digest error
    ];
    let again = acts.len() as u64;
    let connections = acts.len() + 1;
    let (mut looks, mut acts) = (0, script(is_write, acts));
    let unit = move |cdb| match cdb {
        // Each session but the first is told that it is another one, and of nothing else.
        Cdb::TestUnitReady => {
            looks += 1;
            match looks % 2 {
                0 => Act::Sense(Sense::I_T_NEXUS_LOSS),
                _ => Act::Good,
            }
        }
        cdb => acts(cdb),
    };
    let (port, _peer) = scripted_for(connections, unit).await;
    let session = Session::login(recovering(port)).await.unwrap();
    // The third meets all that is left.
    for _ in 0..3 {
        session.write(0, pattern(512, 1)).await.unwrap();
    }
    assert_eq!(session.reconnections(), again);
    session.flush().await.unwrap();
    session.logout().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn redirections_are_followed_but_not_for_ever() {
    let ours = Ours::start(|_| {}).await;
    for detail in [1, 2] {
        let moved = LoginStatus::new(1, detail);
        let (port, _portal) = redirecting(ours.port(), moved).await;
        let (first, _portal) = redirecting(port, moved).await;
        let session = Session::login(options(first)).await.unwrap();
        session.write(0, pattern(512, 1)).await.unwrap();
        session.logout().await.unwrap();
        let (circle, _portal) = redirecting(0, moved).await;
        let error = Session::login(options(circle)).await.unwrap_err();
        assert!(error.to_string().contains("moved"), "{error}");
        assert_eq!(kind(error), Kind::Unsupported);
    }
}

/// Forwards connections, and flips a bit of each in one of its directions, so many times in all.
/// What a login says has no digest and is left alone.
async fn flipping(port: u16, flips: u64) -> (u16, Arc<AtomicU64>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().port();
    let left = Arc::new(AtomicU64::new(flips));
    let budget = Arc::clone(&left);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let (forth, at) = (state >> 63 == 0, 4096 + (state >> 8) % 60_000);
            let budget = Arc::clone(&budget);
            connections.spawn(async move {
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let [there, back] = [forth, !forth].map(|this| if this { at } else { u64::MAX });
                tokio::select! {
                    () = flip(from_client, to_server, there, &budget) => {}
                    () = flip(from_server, to_client, back, &budget) => {}
                }
            });
        }
    });
    (here, left, tasks)
}

async fn flip(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    at: u64,
    left: &AtomicU64,
) {
    let mut passed = 0;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await.unwrap_or(0);
        let here = at.checked_sub(passed).filter(|here| *here < count as u64);
        if let Some(here) = here
            && left.load(Ordering::Relaxed) > 0
        {
            left.fetch_sub(1, Ordering::Relaxed);
            buffer[usize::try_from(here).unwrap()] ^= 1 << (at % 8);
        }
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        passed += count as u64;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bits_never_reach_the_disk_or_the_reader() {
    let ours = Ours::start(|options| options.digests = Digests::Required).await;
    let (port, left, _network) = flipping(ours.port(), 100).await;
    let mut login = recovering(port);
    login.digests = Digests::Required;
    login.fence = Some(1);
    let session = Session::login(login).await.unwrap();
    let mut round = 0;
    while left.load(Ordering::Relaxed) > 0 {
        round += 1;
        let data = pattern(MIB, round);
        for (at, lba) in (0..MIB).step_by(32 * 1024).zip((0..).step_by(64)) {
            let piece = data.slice(at..at + 32 * 1024);
            session.write(lba, piece.clone()).await.unwrap();
            assert_same(&session.read(lba, 64).await.unwrap(), &piece, "read back");
        }
        session.flush().await.unwrap();
        let mut disk = vec![0; MIB];
        ours.disk.read_at(0, &mut disk).unwrap();
        assert_same(&disk, &data, "disk");
    }
    // The others came while the unit was asked what it is.
    assert!(session.reconnections() > 50);
    session.logout().await.unwrap();
}
