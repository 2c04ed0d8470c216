//! Connections that are lost, targets that come back: what a session makes good, and what it
//! must not hide.

use super::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// Forwards every connection to `port`, and cuts each after a number of bytes of its own.
struct Cutter {
    port: u16,
    /// Connections still to be cut.
    left: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

async fn cutter(port: u16, cuts: u64, seed: u64) -> Cutter {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().port();
    let left = Arc::new(AtomicU64::new(cuts));
    let mut tasks = JoinSet::new();
    let budget = Arc::clone(&left);
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        let mut state = seed | 1;
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Some cuts come in the login, some within a header, some within data. Most come
            // long before all that is open could have been sent.
            let most = match state >> 61 {
                0 => 1 << 20,
                1..3 => 400_000,
                _ => 100_000,
            };
            let cut = (state >> 16) % most;
            let budget = Arc::clone(&budget);
            connections.spawn(async move { forward(client, server, cut, &budget).await });
        }
    });
    Cutter {
        port: here,
        left,
        _tasks: tasks,
    }
}

async fn forward(mut client: TcpStream, mut server: TcpStream, cut: u64, left: &AtomicU64) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let forth = async {
        let mut passed = 0;
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let most = match left.load(Ordering::Relaxed) {
                0 => buffer.len() as u64,
                _ => (cut - passed).min(buffer.len() as u64),
            };
            if most == 0 {
                left.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            let most = usize::try_from(most).unwrap();
            let count = from_client.read(&mut buffer[..most]).await.unwrap_or(0);
            if count == 0 || to_server.write_all(&buffer[..count]).await.is_err() {
                return;
            }
            passed = (passed + count as u64).min(cut);
        }
    };
    let back = async {
        tokio::io::copy(&mut from_server, &mut to_client).await.ok();
    };
    tokio::select! { () = forth => {}, () = back => {} }
}

fn recovering(port: u16) -> LoginOptions {
    let mut options = options(port);
    options.recovery_timeout = Duration::from_secs(60);
    options
}

/// Writes 4 MiB again and again, each time other bytes, until the network has cut often enough.
async fn write_through_cuts(cuts: u64, seed: u64) {
    let ours = Ours::start(|_| {}).await;
    let network = cutter(ours.port(), cuts, seed).await;
    let session = loop {
        let mut login = recovering(network.port);
        // Some also have their reservation to make anew.
        login.fence = seed.is_multiple_of(4).then_some(1);
        // The first login may be cut as well; it is the caller's.
        if let Ok(session) = Session::login(login).await {
            break session;
        }
    };
    let mut round = 0;
    while network.left.load(Ordering::Relaxed) > 0 {
        round += 1;
        let data = pattern(4 * MIB, seed * 1000 + round);
        let mut writes = JoinSet::new();
        // Short ones, so that one fits between two cuts.
        let length = 32 * 1024;
        for at in (0..data.len()).step_by(length) {
            let (session, data) = (session.clone(), data.slice(at..at + length));
            writes.spawn(async move { session.write(at as u64 / 512, data).await });
        }
        for written in writes.join_all().await {
            written.unwrap();
        }
        session.flush().await.unwrap();
        let mut disk = vec![0; data.len()];
        ours.disk.read_at(0, &mut disk).unwrap();
        assert_same(&disk, &data, "disk");
    }
    // The others came in a login.
    assert!(session.reconnections() > cuts / 2);
    session.logout().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_survives_a_thousand_cuts() {
    let disks = (1..=8).map(|seed| write_through_cuts(125, seed));
    disks.collect::<JoinSet<()>>().join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_that_is_still_there_proves_tgts_cache() {
    for fence in [Some(1), None] {
        let tgt = tgt::Tgt::start(8 << 20).await;
        let network = cutter(tgt.port, 0, 1).await;
        let mut login = recovering(network.port);
        login.fence = fence;
        let session = Session::login(login).await.unwrap();
        let data = pattern(4 * MIB, 5);
        session.write(0, data.clone()).await.unwrap();
        network.left.store(1, Ordering::Relaxed);
        let written = session.write(8192, data.clone()).await;
        match fence {
            Some(_) => {
                written.unwrap();
                session.flush().await.unwrap();
                assert_eq!(session.reconnections(), 1);
                session.logout().await.unwrap();
                assert_same(&tgt.content()[..4 * MIB], &data, "first half");
                assert_same(&tgt.content()[4 * MIB..], &data, "second half");
            }
            // tgt tells every new session of a reset.
            None => assert_eq!(kind(written.unwrap_err()), Kind::InDoubt),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_target_never_hides_a_lost_cache() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(FileDisk::create(&folder.path().join("disk"), 8 << 20).unwrap());
    let start = async |port: u16| {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        Target::start(TargetOptions::new(IQN, listener, Arc::clone(&disk) as _)).unwrap()
    };
    for flush_before in [false, true] {
        let target = start(0).await;
        let port = target.address().port();
        let mut login = recovering(port);
        login.fence = Some(1);
        let session = Session::login(login).await.unwrap();
        session.write(0, pattern(MIB, 1)).await.unwrap();
        if flush_before {
            session.flush().await.unwrap();
        }
        target.stop().await.unwrap();
        let target = start(port).await;
        let written = session.write(2048, pattern(MIB, 2)).await;
        let flushed = session.flush().await;
        if flush_before {
            // Nothing was at stake: the session just goes on.
            written.unwrap();
            flushed.unwrap();
            assert_eq!(session.reconnections(), 1);
        } else {
            assert_eq!(kind(flushed.unwrap_err()), Kind::InDoubt);
        }
        drop(session);
        target.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_made_anew() {
    let ours = Ours::start(|_| {}).await;
    // Takes one connection and never moves a byte of it after the login; then it forwards.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let there = ours.port();
    let mut network = JoinSet::new();
    network.spawn(async move {
        let mut held = Vec::new();
        let mut connections = JoinSet::new();
        for number in 0.. {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(("127.0.0.1", there)).await.unwrap();
            if number == 0 {
                let (mut from_client, mut to_client) = client.split();
                let (mut from_server, mut to_server) = server.split();
                let mut first = (&mut from_client).take(16 * 1024);
                tokio::select! {
                    _ = tokio::io::copy(&mut first, &mut to_server) => {}
                    _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
                }
                held.push((client, server));
            } else {
                connections.spawn(async move {
                    tokio::io::copy_bidirectional(&mut client, &mut server)
                        .await
                        .ok();
                });
            }
        }
    });
    let mut login = recovering(port);
    login.keep_alive = Duration::from_millis(100);
    let session = Session::login(login).await.unwrap();
    let data = pattern(2 * MIB, 7);
    session.write(0, data.clone()).await.unwrap();
    session.flush().await.unwrap();
    assert_eq!(session.reconnections(), 1);
    session.logout().await.unwrap();
    assert_same(&ours.content()[..2 * MIB], &data, "disk");
}
