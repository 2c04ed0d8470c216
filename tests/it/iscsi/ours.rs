//! Our two ends against each other.

use super::*;
use flowrun::disk::manifest::Range;
use flowrun::disk::{Manifest, Verified, WriteOptions, verify};
use flowrun::image::source::PIECE_BYTES;
use flowrun::keyed_hash::HashKey;

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
    let fenced_off = tokio::time::timeout(Duration::from_secs(10), busy.join_all()).await;
    assert!(fenced_off.is_ok(), "the old owner still writes");
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

/// What the target's disk holds is proved without fetching it; what is found to differ is fetched,
/// and named.
#[tokio::test(flavor = "multi_thread")]
async fn the_target_hashes_what_its_disk_holds() {
    let ours = Ours::start(|_| ()).await;
    let session = Session::login(options(ours.port())).await.unwrap();
    let piece = usize::try_from(PIECE_BYTES).unwrap();
    let data = pattern(piece, 3);
    session.write(2048, data.clone()).await.unwrap();
    session.flush().await.unwrap();
    let key = HashKey([3; 16]);
    let hash = session.hash(key, 2048, 700).await.unwrap().unwrap();
    assert_eq!(hash, key.hash(&data[..700]));
    for (lba, bytes) in [(131_072, 1), (131_071, 513), (0, 0), (0, (4 << 20) + 1)] {
        assert!(
            !matches!(session.hash(key, lba, bytes).await, Ok(Some(_))),
            "{lba} {bytes}"
        );
    }

    let manifest = Manifest {
        key,
        ranges: vec![Range {
            offset: MIB as u64,
            bytes: PIECE_BYTES + 1000,
            pieces: vec![hex::encode(key.hash(&data)), String::new()],
        }],
    };
    let options = WriteOptions::default();
    let verified = verify(&session, &manifest, &options).await;
    assert_eq!(verified.unwrap(), Verified::There);
    assert_eq!(ours.target.stats().bytes_read, 0);

    session.write(2049, pattern(512, 9)).await.unwrap();
    let error = verify(&session, &manifest, &options).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert_eq!(error.details()["offset"], MIB);
    session.write(2049, data.slice(512..1024)).await.unwrap();
    let zeros = 2048 + PIECE_BYTES / 512;
    session.write(zeros, pattern(512, 9)).await.unwrap();
    let error = verify(&session, &manifest, &options).await.unwrap_err();
    assert!(error.message().contains("should be zero"), "{error}");
}
