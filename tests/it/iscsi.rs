//! Initiator and target against each other, tgt and libiscsi.
//!
//! Needs Debian's `tgt` and `libiscsi-bin`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

use bytes::Bytes;
use flowrun::error::Kind;
use flowrun::iscsi::target::{BlockDevice, FileDisk, InitiatorRule, Target, TargetOptions};
use flowrun::iscsi::{self, Chap, Digests, LoginOptions, Session, discover};
use flowrun::secret::Secret;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const IQN: &str = "iqn.2026-01.test.flowrun:disk";
const ME: &str = "iqn.2026-01.test.flowrun:me";
const MIB: usize = 1 << 20;

fn options(port: u16) -> LoginOptions {
    LoginOptions::new(format!("127.0.0.1:{port}"), IQN, ME)
}

fn chap(secret: &str, mutual: Option<&str>) -> Chap {
    Chap {
        user: "root".into(),
        secret: Secret::new(secret),
        mutual: mutual.map(|secret| ("disk".into(), Secret::new(secret))),
    }
}

/// Bytes that repeat nowhere near a block, so that a misplaced one is seen.
fn pattern(length: usize, seed: u64) -> Bytes {
    let mut state = seed | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words
        .take(length.div_ceil(8))
        .flatten()
        .take(length)
        .collect()
}

fn kind(error: iscsi::Error) -> Kind {
    flowrun::error::Error::from(error).kind()
}

/// Whether two long byte strings are equal, without printing them if not.
fn assert_same(left: &[u8], right: &[u8], what: &str) {
    assert_eq!(left.len(), right.len(), "{what}");
    let difference = left
        .iter()
        .zip(right)
        .position(|(left, right)| left != right);
    assert_eq!(difference, None, "{what}: first different byte");
}

/// Runs a tool to its end.
fn tool(program: &str, arguments: &[&str], folder: &Path) -> Output {
    let output = Command::new(program)
        .args(arguments)
        .env("TGT_IPC_SOCKET", folder.join("ipc"))
        .output();
    output.unwrap_or_else(|error| panic!("{program}: {error}; apt-get install tgt libiscsi-bin"))
}

fn succeed(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = tool(program, arguments, folder);
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    write!(text, "{}", String::from_utf8_lossy(&output.stderr)).unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

/// Waits until `done`, for ten seconds.
async fn wait_for(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..500 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{what} takes more than ten seconds");
}

/// A tgtd of our own with one target and one disk at LUN 1.
struct Tgt {
    daemon: Child,
    folder: TempDir,
    port: u16,
}

impl Tgt {
    async fn start(bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let daemon = Command::new("tgtd")
            .args([
                "-f",
                "-C",
                "1",
                "--iscsi",
                &format!("portal=127.0.0.1:{port}"),
            ])
            .env("TGT_IPC_SOCKET", folder.path().join("ipc"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("tgtd: {error}; apt-get install tgt"));
        let tgt = Self {
            daemon,
            folder,
            port,
        };
        wait_for("tgtd", async || {
            let show = ["-C", "1", "--mode", "system", "--op", "show"];
            tool("tgtadm", &show, tgt.folder.path()).status.success()
                && TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        std::fs::File::create(tgt.disk())
            .unwrap()
            .set_len(bytes)
            .unwrap();
        tgt.adm(&format!(
            "--mode target --op new --tid 1 --targetname {IQN}"
        ));
        let disk = tgt.disk().display().to_string();
        tgt.adm(&format!(
            "--mode logicalunit --op new --tid 1 --lun 1 --backing-store {disk}"
        ));
        tgt.adm("--mode target --op bind --tid 1 --initiator-address ALL");
        tgt
    }

    fn adm(&self, arguments: &str) {
        let mut all = vec!["-C", "1", "--lld", "iscsi"];
        all.extend(arguments.split(' '));
        succeed("tgtadm", &all, self.folder.path());
    }

    fn account(&self, user: &str, secret: &str, outgoing: bool) {
        self.adm(&format!(
            "--mode account --op new --user {user} --password {secret}"
        ));
        let direction = if outgoing { " --outgoing" } else { "" };
        self.adm(&format!(
            "--mode account --op bind --tid 1 --user {user}{direction}"
        ));
    }

    fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn content(&self) -> Vec<u8> {
        std::fs::read(self.disk()).unwrap()
    }
}

impl Drop for Tgt {
    fn drop(&mut self) {
        let group = format!("-{}", self.daemon.id());
        Command::new("kill")
            .args(["-KILL", "--", &group])
            .status()
            .ok();
        self.daemon.wait().ok();
    }
}

/// Our own target with a disk of 64 MiB.
struct Ours {
    target: Target,
    folder: TempDir,
    disk: Arc<FileDisk>,
}

impl Ours {
    async fn start(edit: impl FnOnce(&mut TargetOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = FileDisk::create(&folder.path().join("disk"), 64 << 20).unwrap();
        let disk = Arc::new(disk);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut options = TargetOptions::new(IQN, listener, Arc::clone(&disk) as _);
        edit(&mut options);
        let target = Target::start(options).unwrap();
        Self {
            target,
            folder,
            disk,
        }
    }

    fn port(&self) -> u16 {
        self.target.address().port()
    }

    fn url(&self, lun: u64) -> String {
        format!("iscsi://127.0.0.1:{}/{IQN}/{lun}", self.port())
    }

    fn content(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join("disk")).unwrap()
    }
}

/// Writes many ranges at once, reads them back, and yields what the disk must hold.
async fn write_and_read(session: &Session) -> Vec<u8> {
    let info = session.lun_info();
    let mut expected = vec![0; usize::try_from(info.bytes()).unwrap()];
    let mut writes = JoinSet::new();
    // One block, odd numbers of blocks, one transfer, many transfers, the last block.
    let last = info.blocks - 1;
    for (seed, (lba, blocks)) in [
        (0, 1),
        (1, 7),
        (100, 512),
        (1000, 513),
        (9000, 30_001),
        (50_000, 8192),
        (last, 1),
    ]
    .into_iter()
    .enumerate()
    {
        let data = pattern(blocks * 512, seed as u64 + 1);
        let at = usize::try_from(lba).unwrap() * 512;
        expected[at..at + data.len()].copy_from_slice(&data);
        let session = session.clone();
        writes.spawn(async move {
            session.write(lba, data.clone()).await.unwrap();
            let read = session
                .read(lba, u32::try_from(blocks).unwrap())
                .await
                .unwrap();
            assert_same(&read, &data, "read back");
        });
    }
    writes.join_all().await;
    session.flush().await.unwrap();
    expected
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_to_tgt_as_it_comes() {
    let tgt = Tgt::start(64 << 20).await;
    let session = Session::login(options(tgt.port)).await.unwrap();
    let info = session.lun_info();
    assert_eq!((info.vendor.as_str(), info.block_bytes), ("IET", 512));
    assert_eq!(info.blocks, 131_072);
    // The defaults that make this target slow.
    assert_eq!(info.params.max_send_data_segment, 8192);
    assert!(info.params.initial_r2t);
    assert!(!info.unmap_zeroes && !info.can_unmap && !info.write_protected);
    let mut expected = write_and_read(&session).await;
    session.write_zeroes(9001, 2000).await.unwrap();
    expected[9001 * 512..11_001 * 512].fill(0);
    assert!(session.bytes_sent() > 20 << 20);
    session.logout().await.unwrap();
    assert_same(&tgt.content(), &expected, "backing file");
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_to_tgt_tuned_with_digests() {
    let tgt = Tgt::start(64 << 20).await;
    for (name, value) in [
        ("HeaderDigest", "CRC32C,None"),
        ("DataDigest", "CRC32C,None"),
        ("MaxRecvDataSegmentLength", "1048576"),
        ("MaxBurstLength", "16776192"),
        ("FirstBurstLength", "1048576"),
        ("InitialR2T", "No"),
        ("MaxOutstandingR2T", "16"),
    ] {
        tgt.adm(&format!(
            "--mode target --op update --tid 1 --name {name} --value {value}"
        ));
    }
    let mut options = options(tgt.port);
    options.digests = Digests::Required;
    let session = Session::login(options).await.unwrap();
    let params = &session.lun_info().params;
    assert!(params.digests.header && params.digests.data);
    assert!(!params.initial_r2t);
    let expected = write_and_read(&session).await;
    session.logout().await.unwrap();
    assert_same(&tgt.content(), &expected, "backing file");
}

#[tokio::test(flavor = "multi_thread")]
async fn required_digests_are_refused_by_tgt_as_it_comes() {
    let tgt = Tgt::start(1 << 20).await;
    let mut options = options(tgt.port);
    options.digests = Digests::Required;
    let error = Session::login(options).await.unwrap_err();
    assert_eq!(kind(error), Kind::Unsupported);
}

#[tokio::test(flavor = "multi_thread")]
async fn authenticates_to_tgt_and_tgt_to_us() {
    let tgt = Tgt::start(1 << 20).await;
    tgt.account("root", "secret-of-initiator", false);
    tgt.account("disk", "secret-of-target", true);
    let login = |chap| {
        Session::login(LoginOptions {
            chap,
            ..options(tgt.port)
        })
    };
    for mutual in [None, Some("secret-of-target")] {
        let session = login(Some(chap("secret-of-initiator", mutual)))
            .await
            .unwrap();
        session.write(3, pattern(512, 1)).await.unwrap();
        session.logout().await.unwrap();
    }
    assert_same(
        &tgt.content()[3 * 512..4 * 512],
        &pattern(512, 1),
        "block 3",
    );

    let wrong = login(Some(chap("secret-of-somebody", None)))
        .await
        .unwrap_err();
    assert!(!wrong.to_string().contains("secret-of"));
    assert_eq!(kind(wrong), Kind::Auth);
    let false_target = login(Some(chap("secret-of-initiator", Some("another")))).await;
    assert_eq!(kind(false_target.unwrap_err()), Kind::Auth);
    assert_eq!(kind(login(None).await.unwrap_err()), Kind::Auth);
}

#[tokio::test(flavor = "multi_thread")]
async fn zeros_are_holes_on_a_thin_tgt() {
    let tgt = Tgt::start(64 << 20).await;
    tgt.adm("--mode logicalunit --op update --tid 1 --lun 1 --params thin_provisioning=1");
    let session = Session::login(options(tgt.port)).await.unwrap();
    assert!(session.lun_info().unmap_zeroes && session.lun_info().can_unmap);
    let data = pattern(16 * MIB, 9);
    session.write(0, data.clone()).await.unwrap();
    session.flush().await.unwrap();
    let space = || std::fs::metadata(tgt.disk()).unwrap().blocks() * 512;
    assert!(space() >= 16 << 20);
    let sent = session.bytes_sent();
    session.write_zeroes(2048, 28_672).await.unwrap();
    assert!(session.bytes_sent() - sent < 4096);
    assert!(space() <= 3 << 20, "{}", space());
    let mut expected = vec![0; 64 << 20];
    expected[..MIB].copy_from_slice(&data[..MIB]);
    expected[15 * MIB..16 * MIB].copy_from_slice(&data[15 * MIB..]);
    assert_same(&tgt.content(), &expected, "backing file");
    session.unmap(0, 32_768).await.unwrap();
    assert!(space() < 1 << 20);
    session.logout().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_what_is_there_and_says_what_is_not() {
    let tgt = Tgt::start(1 << 20).await;
    let portal = format!("127.0.0.1:{}", tgt.port);
    let found = discover(&portal, ME, None, Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].name, IQN);
    assert!(found[0].addresses[0].starts_with(&portal), "{found:?}");

    for (lun, message) in [(0, "controller"), (7, "does not exist")] {
        let error = Session::login(LoginOptions {
            lun,
            ..options(tgt.port)
        })
        .await
        .unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(kind(error), Kind::NotFound);
    }
    let mut elsewhere = options(tgt.port);
    elsewhere.target_name = "iqn.2026-01.test.flowrun:other".into();
    let error = Session::login(elsewhere).await.unwrap_err();
    assert_eq!(kind(error), Kind::NotFound);

    let session = Session::login(options(tgt.port)).await.unwrap();
    for bad in [
        session
            .write(0, Bytes::from_static(b"not a block"))
            .await
            .unwrap_err(),
        session.write(2047, pattern(1024, 1)).await.unwrap_err(),
        session.read(u64::MAX, 1).await.map(drop).unwrap_err(),
        session.write_zeroes(1, 2048).await.unwrap_err(),
    ] {
        assert_eq!(kind(bad), Kind::Invalid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_our_ends_move_data_with_everything_on() {
    let both = chap("secret-of-initiator", Some("secret-of-target"));
    let ours = Ours::start(|options| options.chap = Some(both.clone())).await;
    let login = LoginOptions {
        chap: Some(both),
        digests: Digests::Required,
        ..options(ours.port())
    };
    let session = Session::login(login).await.unwrap();
    let info = session.lun_info().clone();
    assert_eq!((info.vendor.as_str(), info.blocks), ("FLOWRUN", 131_072));
    assert_eq!(info.params.max_send_data_segment, 262_144);
    assert!(info.params.digests.header && !info.params.initial_r2t && info.unmap_zeroes);
    assert_eq!(info.serial.len(), 16);
    let mut expected = write_and_read(&session).await;
    session.write_zeroes(9001, 60_000).await.unwrap();
    expected[9001 * 512..69_001 * 512].fill(0);
    session.flush().await.unwrap();
    assert_eq!(ours.target.stats().sessions, 1);
    session.logout().await.unwrap();
    wait_for("the session's end", async || {
        ours.target.stats().sessions == 0
    })
    .await;
    let stats = ours.target.stats();
    assert_eq!((stats.logins, stats.bytes_zeroed), (1, 60_000 * 512));
    assert!(stats.flushes >= 2 && stats.bytes_written == 39_227 * 512);
    assert_same(&ours.content(), &expected, "disk");
    ours.target.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_4096_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let file = tempfile::tempfile_in(folder.path()).unwrap();
    file.set_len(8 << 20).unwrap();
    let disk = Arc::new(FileDisk::new(file, 4096).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut target = TargetOptions::new(IQN, listener, Arc::clone(&disk) as _);
    target.lun = 0;
    let target = Target::start(target).unwrap();
    let login = LoginOptions {
        lun: 0,
        ..options(target.address().port())
    };
    let session = Session::login(login).await.unwrap();
    assert_eq!(
        (session.lun_info().blocks, session.lun_info().block_bytes),
        (2048, 4096)
    );
    let data = pattern(3 * MIB, 5);
    session.write(7, data.clone()).await.unwrap();
    assert_same(&session.read(7, 768).await.unwrap(), &data, "read back");
    assert!(session.write(0, pattern(512, 1)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_an_auth_error_and_changes_nothing() {
    let ours = Ours::start(|options| options.chap = Some(chap("right-secret", None))).await;
    for wrong in [Some(chap("wrong-secret", None)), None] {
        let login = LoginOptions {
            chap: wrong,
            ..options(ours.port())
        };
        let error = Session::login(login).await.unwrap_err();
        assert_eq!(kind(error), Kind::Auth);
    }
    assert_eq!(ours.target.stats().logins, 0);
}

/// Forwards to `port` until `limit` bytes went there, then stops: closed, or just silent.
async fn bad_network(port: u16, limit: usize, silent: bool) -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut here, _) = listener.accept().await.unwrap();
        let mut there = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut from_here, mut to_here) = here.split();
        let (mut from_there, mut to_there) = there.split();
        let forth = async {
            let mut left = limit;
            let mut buffer = vec![0; 64 * 1024];
            while left > 0 {
                let most = left.min(buffer.len());
                let count = from_here.read(&mut buffer[..most]).await.unwrap();
                if to_there.write_all(&buffer[..count]).await.is_err() {
                    break;
                }
                left -= count;
            }
            if silent {
                std::future::pending::<()>().await;
            }
        };
        let back = async {
            tokio::io::copy(&mut from_there, &mut to_here).await.ok();
            std::future::pending::<()>().await;
        };
        tokio::select! { () = forth => {}, () = back => {} }
    });
    (address.port(), tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_fails_all_that_wait() {
    let ours = Ours::start(|_| {}).await;
    let (port, _network) = bad_network(ours.port(), 5 << 20, false).await;
    let session = Session::login(options(port)).await.unwrap();
    let mut writes = JoinSet::new();
    for i in 0..8 {
        let session = session.clone();
        writes.spawn(async move { session.write(i * 2048, pattern(MIB, i)).await });
    }
    let all = tokio::time::timeout(Duration::from_secs(10), writes.join_all()).await;
    let errors: Vec<_> = all.unwrap().into_iter().filter_map(Result::err).collect();
    assert!(errors.len() >= 3, "{errors:?}");
    for error in errors {
        assert!(error.is_retryable(), "{error}");
        assert_eq!(kind(error), Kind::Unreachable);
    }
    // What comes later fails at once, with the same cause.
    let late = session.flush().await.unwrap_err();
    assert_eq!(kind(late), Kind::Unreachable);
    assert!(session.logout().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_network_is_given_up_at_the_deadline() {
    let ours = Ours::start(|_| {}).await;
    let (port, _network) = bad_network(ours.port(), 3 << 20, true).await;
    let mut login = options(port);
    login.command_timeout = Duration::from_millis(400);
    let session = Session::login(login).await.unwrap();
    let write = session.write(0, pattern(16 * MIB, 1));
    let error = tokio::time::timeout(Duration::from_secs(10), write)
        .await
        .unwrap()
        .unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(kind(error), Kind::Timeout);

    // A portal that accepts and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut login = options(listener.local_addr().unwrap().port());
    login.login_timeout = Duration::from_millis(200);
    let error = Session::login(login).await.unwrap_err();
    assert_eq!(kind(error), Kind::Timeout);
    let portal = listener.local_addr().unwrap().to_string();
    let error = discover(&portal, ME, None, Duration::from_millis(200))
        .await
        .unwrap_err();
    assert_eq!(kind(error), Kind::Timeout);
    drop(listener);
    let error = discover(&portal, ME, None, Duration::from_secs(5))
        .await
        .unwrap_err();
    assert_eq!(kind(error), Kind::Unreachable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_of_the_target_is_seen() {
    let ours = Ours::start(|_| {}).await;
    let session = Session::login(options(ours.port())).await.unwrap();
    session.write(0, pattern(MIB, 1)).await.unwrap();
    drop(ours.target);
    wait_for("the end of the connection", async || {
        session.flush().await.is_err()
    })
    .await;
    let error = session.write(0, pattern(512, 1)).await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(kind(error), Kind::Unreachable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_owner_fences_the_older_one_off() {
    let rule = InitiatorRule::new(ME);
    let ours = Ours::start(|options| options.initiator = Some(rule.clone())).await;
    let login = |name: String| {
        let mut options = options(ours.port());
        options.initiator_name = name;
        Session::login(options)
    };
    let old = login(rule.name_for(1)).await.unwrap();
    old.write(0, pattern(MIB, 1)).await.unwrap();
    let busy = {
        let old = old.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let data = pattern(MIB, 2);
            while old.write(0, data.clone()).await.is_ok() {}
        });
        tasks
    };
    let new = login(rule.name_for(2)).await.unwrap();
    let data = pattern(MIB, 3);
    new.write(0, data.clone()).await.unwrap();
    busy.join_all().await;
    assert_same(
        &new.read(0, 2048).await.unwrap(),
        &data,
        "nothing of the old owner",
    );
    assert!(old.write(0, pattern(512, 4)).await.is_err());
    for name in [rule.name_for(1), ME.to_owned()] {
        assert_eq!(kind(login(name).await.unwrap_err()), Kind::Refused);
    }
    let stranger = login("iqn.2026-01.test.flowrun:you".into())
        .await
        .unwrap_err();
    assert_eq!(kind(stranger), Kind::Refused);
    let portal = format!("127.0.0.1:{}", ours.port());
    let found = discover(&portal, ME, None, Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!(found[0].addresses, [format!("{portal},1")]);
    assert!(
        discover(&portal, "iqn.x:y", None, Duration::from_secs(5))
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_costs_only_its_own_connection() {
    let ours = Ours::start(|_| {}).await;
    let session = Session::login(options(ours.port())).await.unwrap();
    for length in [1, 47, 48, 100, 100_000] {
        for seed in 1..20 {
            let mut stream = TcpStream::connect(("127.0.0.1", ours.port()))
                .await
                .unwrap();
            let garbage = pattern(length, seed);
            stream.write_all(&garbage).await.ok();
            stream.shutdown().await.ok();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.ok();
        }
    }
    session.write(0, pattern(MIB, 1)).await.unwrap();
    session.logout().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_session_logs_out() {
    let ours = Ours::start(|_| {}).await;
    let session = Session::login(options(ours.port())).await.unwrap();
    let clone = session.clone();
    drop(session);
    clone.write(0, pattern(512, 1)).await.unwrap();
    drop(clone);
    wait_for("the logout", async || ours.target.stats().sessions == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn libiscsi_reads_our_target() {
    let ours = Ours::start(|_| {}).await;
    let data = pattern(64 << 20, 11);
    ours.disk.write_at(0, &data).unwrap();
    let (url, folder) = (ours.url(1), ours.folder.path());

    let portal = format!("iscsi://127.0.0.1:{}", ours.port());
    let listing = succeed("iscsi-ls", &["-s", &portal], folder);
    assert!(listing.contains(IQN), "{listing}");
    assert!(listing.contains("Lun:1"), "{listing}");
    let inquiry = succeed("iscsi-inq", &[&url], folder);
    assert!(inquiry.contains("FLOWRUN"), "{inquiry}");
    for page in ["0x00", "0x80", "0x83", "0xb0", "0xb1", "0xb2"] {
        let page = u8::from_str_radix(&page[2..], 16).unwrap().to_string();
        succeed("iscsi-inq", &["-e", "1", "-c", &page, &url], folder);
    }
    let capacity = succeed("iscsi-readcapacity16", &[&url], folder);
    assert!(capacity.contains("Total size:67108864"), "{capacity}");
    succeed(
        "iscsi-perf",
        &["-m", "8", "-b", "128", "-t", "1", &url],
        folder,
    );
    assert!(ours.target.stats().bytes_read > 1 << 20);
    succeed("iscsi-inq", &[&ours.url(0)], folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn libiscsi_authenticates_to_our_target() {
    let both = chap("secret-of-initiator", Some("secret-of-target"));
    let ours = Ours::start(|options| options.chap = Some(both)).await;
    let folder = ours.folder.path();
    let url = |secret: &str, query: &str| {
        let port = ours.port();
        format!("iscsi://root%{secret}@127.0.0.1:{port}/{IQN}/1{query}")
    };
    succeed("iscsi-inq", &[&url("secret-of-initiator", "")], folder);
    let mutual = "?target_user=disk&target_password=secret-of-target";
    succeed("iscsi-inq", &[&url("secret-of-initiator", mutual)], folder);
    let wrong = tool("iscsi-inq", &[&url("wrong", "")], folder);
    assert!(!wrong.status.success());
    let wrong = tool("iscsi-inq", &[&ours.url(1)], folder);
    assert!(!wrong.status.success());
}
