//! Virtual media: what the client does about a drive that does not do as told.

use super::SHORT;
use super::site::{PASSWORD, SIGNATURE, Site, TIMEOUT, assert_clean, eventually, pattern};
use flowrun::error::Kind;
use flowrun::ilo::model::{ConnectedVia, Device, PowerTarget};
use flowrun::lab::ilo::{EventKind, Fault};
use flowrun::secret::Secret;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[tokio::test]
async fn media_are_read_where_the_host_looks() {
    let site = Site::new();
    let iso = pattern(3_000_001, 2);
    let url = site.image("a.iso", iso.clone());
    let ilo = site.connect().await;
    ilo.attach_vmedia(Device::Cdrom, &url, TIMEOUT)
        .await
        .unwrap();
    ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
    eventually("the boot", || !site.boots().is_empty()).await;
    let cdrom = site.boots().remove(0).cdrom.unwrap();
    assert_eq!(cdrom.size_bytes(), 3_000_001);
    let reads = || {
        let drive = site.machine.snapshot().media[1].clone();
        (drive.requests, drive.bytes)
    };
    // An iLO does not store the image: it looked at the beginning only.
    assert_eq!(reads(), (1, 512 << 10));
    assert_eq!(
        cdrom.read_at(2048 * 16, 2048).await.unwrap(),
        iso[32_768..34_816]
    );
    assert_eq!(reads(), (1, 512 << 10));
    let tail = 3_000_001 - 5 * (512 << 10);
    assert_eq!(
        cdrom.read_at(2_999_990, 4096).await.unwrap(),
        iso[2_999_990..]
    );
    assert_eq!(reads(), (2, (512 << 10) + tail));
    assert_eq!(cdrom.read_at(3_000_001, 1).await.unwrap(), "");
    assert_eq!(cdrom.read_at(u64::MAX, 1).await.unwrap(), "");
    ilo.eject_vmedia(Device::Cdrom, TIMEOUT).await.unwrap();
    assert_eq!(
        cdrom.read_at(0, 1).await.unwrap_err().kind(),
        Kind::NotFound
    );
}

#[tokio::test]
async fn no_licence_is_named() {
    let site = Site::with_fault(Fault::LicenseStandard);
    let ilo = site.connect().await;
    let error = ilo.check_vmedia_license().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.message().contains("iLO Standard"), "{error}");

    let url = site.image("a.iso", pattern(4096, 0));
    let error = ilo
        .attach_vmedia(Device::Cdrom, &url, TIMEOUT)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert_eq!(error.details()["status"], 400);
    assert!(
        error
            .message()
            .starts_with("iLO.2.25.LicenseKeyRequired: A license key"),
        "{error}"
    );
    assert_eq!(error.operation(), "ilo.attach_vmedia");
    assert_clean(&error);
}

#[tokio::test]
async fn an_insert_that_never_connects_fails_and_leaves_the_drive_empty() {
    let site = Site::with_fault(Fault::InsertNotMounted);
    let ilo = site.connect().await;
    let url = site.image("a.iso", pattern(4096, 0));
    let error = ilo
        .attach_vmedia(Device::Cdrom, &url, SHORT)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert_eq!(error.details()["shown"]["connected_via"], "not_connected");
    assert_clean(&error);
    assert_eq!(site.count(|e| matches!(e, EventKind::Inserted { .. })), 1);
    assert_eq!(site.count(|e| matches!(e, EventKind::Ejected { .. })), 1);

    site.machine.set_faults([].into());
    ilo.attach_vmedia(Device::Cdrom, &url, TIMEOUT)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_image_that_cannot_be_opened_fails() {
    let site = Site::new();
    let ilo = site.connect().await;
    let url = site.image("a.img", pattern(4096, 0));
    site.images.expired.store(true, Ordering::SeqCst);
    let error = ilo
        .attach_vmedia(Device::Floppy, &url, SHORT * 2)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert_clean(&error);
    assert_eq!(
        site.count(|e| matches!(e, EventKind::NotConnected { .. })),
        1
    );
    assert!(!site.machine.snapshot().media[0].inserted);
}

#[tokio::test]
async fn another_image_than_asked_for_is_a_conflict() {
    let site = Site::with_fault(Fault::InsertWrongImageUrl);
    let ilo = site.connect().await;
    let url = site.image("a.iso", pattern(4096, 0));
    let error = ilo
        .attach_vmedia(Device::Cdrom, &url, SHORT)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert_eq!(
        error.details()["shown"]["image"],
        "http://192.0.2.1/other.img"
    );
    assert_clean(&error);
    assert!(!site.machine.snapshot().media[1].inserted);
}

#[tokio::test]
async fn a_licence_that_shows_too_late_is_unsupported() {
    let site = Site::with_fault(Fault::InsertLicenseRejected);
    let ilo = site.connect().await;
    ilo.check_vmedia_license().await.unwrap();
    let url = site.image("a.iso", pattern(4096, 0));
    let error = ilo
        .attach_vmedia(Device::Cdrom, &url, TIMEOUT)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
}

#[tokio::test]
async fn a_medium_in_the_drive_is_replaced() {
    let site = Site::new();
    let ilo = site.connect().await;
    let old = site.image("old.iso", pattern(4096, 0));
    let new = site.image("new.iso", pattern(4096, 1));
    ilo.attach_vmedia(Device::Cdrom, &old, TIMEOUT)
        .await
        .unwrap();
    let drive = ilo
        .attach_vmedia(Device::Cdrom, &new, TIMEOUT)
        .await
        .unwrap();
    assert!(drive.image.unwrap().contains("/new.iso"));
    // Also the same one: its URL may have been renewed or its content changed.
    ilo.attach_vmedia(Device::Cdrom, &new, TIMEOUT)
        .await
        .unwrap();
    assert_eq!(site.count(|e| matches!(e, EventKind::Connected { .. })), 3);
    assert_eq!(site.count(|e| matches!(e, EventKind::Ejected { .. })), 2);
}

#[tokio::test]
async fn an_insert_on_its_way_does_not_block_the_drive() {
    let site = Site::with_fault(Fault::InsertNotMounted);
    let ilo = site.connect().await;
    let path = "/redfish/v1/Managers/1/VirtualMedia/2/Actions/VirtualMedia.InsertMedia/";
    let body = json!({"Image": "http://192.0.2.1/a.iso"});
    ilo.request("POST", path, Some(&body), TIMEOUT)
        .await
        .unwrap();
    site.machine.set_faults([].into());
    // The drive shows nothing, but refuses: the client ejects what it cannot see.
    let url = site.image("a.iso", pattern(4096, 0));
    ilo.attach_vmedia(Device::Cdrom, &url, TIMEOUT)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_drive_held_by_a_console_user_is_left_alone() {
    let site = Site::with_fault(Fault::CdromHeldByConsole);
    let ilo = site.connect().await;
    let url = site.image("a.iso", pattern(4096, 0));
    let error = ilo
        .attach_vmedia(Device::Cdrom, &url, TIMEOUT)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.message().contains("console"), "{error}");
    let error = ilo.eject_vmedia(Device::Cdrom, TIMEOUT).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    let drives = ilo.vmedia_status().await.unwrap();
    assert_eq!(drives[1].connected_via, ConnectedVia::Applet);
    ilo.attach_vmedia(Device::Floppy, &url, TIMEOUT)
        .await
        .unwrap();
}

#[tokio::test]
async fn drives_with_hpes_own_actions_work_as_well() {
    let site = Site::with_fault(Fault::HpeActionsOnly);
    let ilo = site.connect().await;
    let url = site.image("a.iso", pattern(4096, 0));
    assert!(
        ilo.attach_vmedia(Device::Cdrom, &url, TIMEOUT)
            .await
            .unwrap()
            .inserted
    );
    assert!(
        !ilo.eject_vmedia(Device::Cdrom, TIMEOUT)
            .await
            .unwrap()
            .inserted
    );
}

#[tokio::test]
async fn ejecting_an_empty_drive_is_a_success() {
    let site = Site::new();
    let ilo = site.connect().await;
    assert!(
        !ilo.eject_vmedia(Device::Floppy, TIMEOUT)
            .await
            .unwrap()
            .inserted
    );
    assert_eq!(site.count(|e| matches!(e, EventKind::Ejected { .. })), 0);
}

#[tokio::test]
async fn a_busy_ilo_is_asked_again() {
    let site = Site::with_fault(Fault::InsertBusy);
    let ilo = site.connect().await;
    let url = site.image("a.iso", pattern(4096, 0));
    ilo.attach_vmedia(Device::Cdrom, &url, TIMEOUT)
        .await
        .unwrap();
    assert_eq!(site.count(|e| matches!(e, EventKind::Inserted { .. })), 1);
}

#[tokio::test]
async fn media_live_only_as_long_as_their_server() {
    let site = Site::new();
    let ilo = site.connect().await;
    let iso = pattern(4 << 20, 3);
    let url = site.image("a.iso", iso.clone());
    ilo.attach_vmedia(Device::Cdrom, &url, TIMEOUT)
        .await
        .unwrap();
    ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
    eventually("the boot", || !site.boots().is_empty()).await;
    let cdrom = site.boots().remove(0).cdrom.unwrap();
    assert_eq!(cdrom.read_at(0, 2048).await.unwrap(), iso[..2048]);

    site.images.expired.store(true, Ordering::SeqCst);
    // What was read ahead is still there, the rest is not.
    assert_eq!(cdrom.read_at(4096, 2048).await.unwrap(), iso[4096..6144]);
    let error = cdrom.read_at(1 << 20, 2048).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Auth);
    assert_clean(&error);

    site.images.expired.store(false, Ordering::SeqCst);
    assert_eq!(
        cdrom.read_at(1 << 20, 4).await.unwrap(),
        iso[1 << 20..(1 << 20) + 4]
    );
    let mut site = site;
    let server = site.image_server.take().unwrap();
    server.stop(Duration::ZERO).await;
    let error = cdrom.read_at(3 << 20, 2048).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unreachable);
    assert_clean(&error);
}

#[tokio::test]
async fn a_cancelled_call_leaves_a_usable_handle() {
    let site = Site::with_fault(Fault::InsertNotMounted);
    let ilo = site.connect().await;
    let url = site.image("a.iso", pattern(4096, 0));
    tokio::select! {
        done = ilo.attach_vmedia(Device::Cdrom, &url, TIMEOUT) => panic!("{done:?}"),
        () = eventually("the insert", || site.count(|e| matches!(e, EventKind::Inserted { .. })) > 0) => {}
    }
    site.machine.set_faults([].into());
    ilo.attach_vmedia(Device::Cdrom, &url, TIMEOUT)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_url_that_the_ilo_sends_back_is_masked() {
    let site = Site::new();
    let ilo = site.connect().await;
    let url = Secret::new(format!(
        "ftp://u:{PASSWORD}@h/a.iso?temp_url_sig={SIGNATURE}"
    ));
    let error = ilo
        .attach_vmedia(Device::Cdrom, &url, TIMEOUT)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert_eq!(
        error.details()["message_args"],
        json!(["ftp://***@h/a.iso?***", "Image"])
    );
    assert_clean(&error);
    assert!(!format!("{ilo:?} {:?}", site.machine).contains(PASSWORD));
}
