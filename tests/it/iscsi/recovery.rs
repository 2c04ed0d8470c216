//! Connections that are lost, targets that come back: what a session makes good, and what it
//! must not hide.

use super::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// Forwards every connection to `port`, and cuts each after a number of bytes of its own.
struct Cutter {
    port: u16,
    cuts: Arc<AtomicU64>,
    /// Connections still to be cut.
    left: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

async fn cutter(port: u16, cuts: u64) -> Cutter {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().port();
    let (done, left) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(cuts)));
    let mut tasks = JoinSet::new();
    let (count, budget) = (Arc::clone(&done), Arc::clone(&left));
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Some cuts come in the login, some within a header, some within data.
            let cut = state % 4_000_000;
            let (count, budget) = (Arc::clone(&count), Arc::clone(&budget));
            connections.spawn(async move {
                if forward(client, server, cut, &budget).await {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    Cutter {
        port: here,
        cuts: done,
        left,
        _tasks: tasks,
    }
}

/// Whether the connection was cut, and not closed by one of its ends.
async fn forward(mut client: TcpStream, mut server: TcpStream, cut: u64, left: &AtomicU64) -> bool {
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
                return true;
            }
            let most = usize::try_from(most).unwrap();
            let count = from_client.read(&mut buffer[..most]).await.unwrap_or(0);
            if count == 0 || to_server.write_all(&buffer[..count]).await.is_err() {
                return false;
            }
            passed = (passed + count as u64).min(cut);
        }
    };
    let back = async {
        tokio::io::copy(&mut from_server, &mut to_client).await.ok();
        false
    };
    tokio::select! { was_cut = forth => was_cut, _ = back => false }
}

const CUTS: u64 = 200;

fn recovering(port: u16) -> LoginOptions {
    let mut options = options(port);
    options.recovery_timeout = Duration::from_secs(60);
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_survives_many_cuts() {
    let ours = Ours::start(|_| {}).await;
    let network = cutter(ours.port(), CUTS).await;
    let session = loop {
        // The first login may be cut as well; it is the caller's.
        if let Ok(session) = Session::login(recovering(network.port)).await {
            break session;
        }
    };
    let data = pattern(32 * MIB, 3);
    let mut rounds = 0;
    while network.left.load(Ordering::Relaxed) > 0 {
        let mut writes = JoinSet::new();
        // Short ones, so that one fits between two cuts.
        let length = 64 * 1024;
        for at in (0..data.len()).step_by(length) {
            let (session, data) = (session.clone(), data.slice(at..at + length));
            writes.spawn(async move { session.write(at as u64 / 512, data).await });
        }
        for written in writes.join_all().await {
            written.unwrap();
        }
        session.flush().await.unwrap();
        rounds += 1;
        assert!(rounds < 1000, "the network cuts no more");
    }
    assert!(network.cuts.load(Ordering::Relaxed) >= CUTS);
    assert!(session.reconnections() > CUTS / 2);
    session.logout().await.unwrap();
    assert_same(&ours.content()[..32 * MIB], &data, "disk");
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
        let session = Session::login(recovering(port)).await.unwrap();
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
