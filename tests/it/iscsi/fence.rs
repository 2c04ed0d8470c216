//! Persistent reservations: only the newest owner of a disk writes it.

use super::tgt::Tgt;
use super::*;
use flowrun::iscsi::scsi::reservation::{self, encode_keys, encode_reservation};

async fn owner(port: u16, fence: Option<u64>) -> iscsi::Result<Session> {
    let mut options = options(port);
    options.fence = fence;
    Session::login(options).await
}

/// Writes until it may not any more; yields why.
fn keep_writing(session: &Session) -> JoinSet<iscsi::Error> {
    let session = session.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let data = pattern(MIB, 2);
        loop {
            if let Err(error) = session.write(0, data.clone()).await {
                return error;
            }
        }
    });
    tasks
}

async fn only_the_newest_owner_writes(port: u16) {
    let stranger = owner(port, None).await.unwrap();
    assert!(!stranger.is_reserved());
    stranger.write(0, pattern(512, 1)).await.unwrap();
    let old = owner(port, Some(1)).await.unwrap();
    assert!(old.is_reserved());
    old.write(0, pattern(512, 1)).await.unwrap();
    let refused = stranger.write(0, pattern(512, 1)).await.unwrap_err();
    assert_eq!(kind(refused), Kind::Conflict);
    stranger.read(0, 1).await.unwrap();

    let busy = keep_writing(&old);
    let new = owner(port, Some(2)).await.unwrap();
    let refused = tokio::time::timeout(Duration::from_secs(60), busy.join_all()).await;
    assert!(refused.is_ok(), "the older owner writes on");
    let refused = refused.unwrap().remove(0);
    assert!(refused.to_string().contains("newer owner"), "{refused}");
    assert_eq!(kind(refused), Kind::Conflict);
    let data = pattern(MIB, 3);
    new.write(0, data.clone()).await.unwrap();
    new.flush().await.unwrap();
    assert_same(&new.read(0, 2048).await.unwrap(), &data, "read back");
    let refused = owner(port, Some(1)).await.unwrap_err();
    assert!(refused.to_string().contains("newer owner"), "{refused}");
    assert_eq!(kind(refused), Kind::Conflict);

    // Of the same owner, the newer session.
    let newer = owner(port, Some(2)).await.unwrap();
    newer.write(0, data.clone()).await.unwrap();
    let refused = new.write(0, data).await.unwrap_err();
    assert_eq!(kind(refused), Kind::Conflict);
    new.logout().await.unwrap();
    let refused = stranger.write(0, pattern(512, 1)).await.unwrap_err();
    assert_eq!(kind(refused), Kind::Conflict);
    newer.logout().await.unwrap();
    wait_for("the end of the reservation", async || {
        stranger.write(0, pattern(512, 1)).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_owner_writes_to_our_target() {
    let ours = Ours::start(|_| {}).await;
    only_the_newest_owner_writes(ours.port()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_owner_writes_to_tgt() {
    let tgt = Tgt::start(64 << 20).await;
    only_the_newest_owner_writes(tgt.port).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_older_owner_lands_once_a_newer_one_is_in() {
    let ours = Ours::start(|_| {}).await;
    let mut fence = 0;
    let mut old = owner(ours.port(), Some(fence)).await.unwrap();
    for _ in 0..20 {
        let busy = keep_writing(&old);
        fence += 1;
        let new = owner(ours.port(), Some(fence)).await.unwrap();
        let data = pattern(MIB, fence + 100);
        new.write(0, data.clone()).await.unwrap();
        busy.join_all().await;
        assert_same(&new.read(0, 2048).await.unwrap(), &data, "the newer data");
        old = new;
    }
}

/// A unit whose answers to reservation commands are all `act`.
async fn unit_that(act: fn(Cdb) -> Act) -> (u16, JoinSet<()>) {
    scripted(move |cdb| match cdb {
        Cdb::PersistentReserveIn { .. } | Cdb::PersistentReserveOut { .. } => act(cdb),
        _ => Act::Good,
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_without_reservations_is_written_without() {
    let unsupported: [fn(Cdb) -> Act; 2] = [
        |_| Act::Sense(Sense::INVALID_OPERATION_CODE),
        // Knows keys, and no reservation of the kind.
        |cdb| match cdb {
            Cdb::PersistentReserveIn { .. } => Act::Data(Bytes::from_static(&[0; 8])),
            Cdb::PersistentReserveOut { action: 1, .. } => Act::Sense(Sense::INVALID_FIELD_IN_CDB),
            _ => Act::Good,
        },
    ];
    for act in unsupported {
        let (port, _peer) = unit_that(act).await;
        let session = owner(port, Some(1)).await.unwrap();
        assert!(!session.is_reserved());
        session.write(0, pattern(512, 1)).await.unwrap();
        session.logout().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_a_cluster_is_left_alone() {
    let (port, _peer) = unit_that(|cdb| match cdb {
        Cdb::PersistentReserveIn { action: 0, .. } => Act::Data(encode_keys(3, &[0x1234])),
        Cdb::PersistentReserveIn { .. } => Act::Data(encode_reservation(
            3,
            Some((0x1234, reservation::Kind::WriteExclusive)),
        )),
        Cdb::PersistentReserveOut { action: 4 | 5, .. } => panic!("preempts a stranger"),
        _ => Act::Good,
    })
    .await;
    let error = owner(port, Some(1)).await.unwrap_err();
    assert!(error.to_string().contains("0x0000000000001234"), "{error}");
    let error = flowrun::error::Error::from(error);
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.advice().unwrap().contains("cluster"));
}
