//! Our initiator against tgt.

use super::*;
use flowrun::keyed_hash::HashKey;

/// A tgtd of our own with one target and one disk at LUN 1.
pub(super) struct Tgt {
    daemon: Child,
    folder: TempDir,
    pub(super) port: u16,
}

impl Tgt {
    pub(super) async fn start(bytes: u64) -> Self {
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

    pub(super) fn content(&self) -> Vec<u8> {
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
    // What only our target can is not asked of another.
    assert_eq!(
        session.hash(HashKey::default(), 0, 512).await.unwrap(),
        None
    );
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
