//! The iLO client against the simulated iLO.

#[cfg(test)]
mod blame;
#[cfg(test)]
mod captures;
#[cfg(test)]
mod detection;
#[cfg(test)]
mod generations;
#[cfg(test)]
mod media;
#[cfg(test)]
mod power;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod ribcl_replay;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod settings;
#[cfg(test)]
pub(crate) mod site;
#[cfg(test)]
mod sushy;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod trust;

use flowrun::error::Kind;
use flowrun::http::Trust;
use flowrun::ilo::model::{
    BootDevice, BootMode, ConnectedVia, Device, OverrideEnabled, PostState, PowerState, PowerTarget,
};
use flowrun::ilo::{Ilo, IloOptions};
use flowrun::lab::host::BootSource;
use flowrun::lab::ilo::{EventKind, Fault};
use flowrun::secret::Secret;
use serde_json::json;
use site::{SIGNATURE, Site, TIMEOUT, eventually, pattern, read_all};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn deploys_through_virtual_media() {
    let site = Site::new();
    let (floppy, iso) = (pattern(1_474_560, 1), pattern(3_000_001, 2));
    let floppy_url = site.image("floppy.img", floppy.clone());
    let iso_url = site.image("ramdisk.iso", iso.clone());

    let ilo = site.connect().await;
    assert_eq!(
        ilo.check_vmedia_license().await.unwrap().name,
        "iLO Advanced"
    );
    ilo.set_power(PowerTarget::ForceOff, TIMEOUT).await.unwrap();
    let drive = ilo
        .attach_vmedia(Device::Floppy, &floppy_url, TIMEOUT)
        .await
        .unwrap();
    assert_eq!(
        (drive.inserted, drive.connected_via),
        (true, ConnectedVia::Uri)
    );
    assert!(drive.image.unwrap().ends_with("/c/floppy.img?***"));
    ilo.attach_vmedia(Device::Cdrom, &iso_url, TIMEOUT)
        .await
        .unwrap();
    let boot = ilo
        .set_one_time_boot(BootDevice::Cdrom, TIMEOUT)
        .await
        .unwrap();
    assert_eq!(boot.enabled, OverrideEnabled::Once);
    ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();

    eventually("the boot", || !site.boots().is_empty()).await;
    let boot = site.boots().remove(0);
    assert_eq!((boot.number, boot.source), (1, BootSource::Cdrom));
    assert_eq!(boot.floppy.unwrap(), floppy);
    assert_eq!(read_all(boot.cdrom.unwrap().as_ref()).await, iso);
    assert_eq!(ilo.post_state().await.unwrap(), PostState::FinishedPost);
    // The override was for one boot.
    assert_eq!(
        ilo.boot_device().await.unwrap().next.enabled,
        OverrideEnabled::Disabled
    );

    ilo.set_power(PowerTarget::ForceOff, TIMEOUT).await.unwrap();
    eventually("the power cut", || !site.host_is_up()).await;
    for device in [Device::Cdrom, Device::Floppy] {
        assert!(!ilo.eject_vmedia(device, TIMEOUT).await.unwrap().inserted);
    }
    assert!(
        ilo.vmedia_status()
            .await
            .unwrap()
            .iter()
            .all(|d| !d.inserted && d.image.is_none())
    );
    ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
    eventually("the boot from disk", || site.boots().len() == 2).await;
    let boot = site.boots().remove(1);
    assert_eq!(boot.source, BootSource::Disk);
    assert!(boot.floppy.is_none() && boot.cdrom.is_none());

    ilo.close().await.unwrap();
    assert_eq!(site.machine.snapshot().sessions, 0);
    // Nothing was done twice.
    assert_eq!(site.count(|e| matches!(e, EventKind::Inserted { .. })), 2);
    assert_eq!(site.count(|e| matches!(e, EventKind::Ejected { .. })), 2);
    assert_eq!(
        site.count(|e| matches!(e, EventKind::PowerAction { .. })),
        3
    );
    assert_eq!(site.count(|e| matches!(e, EventKind::LoggedIn)), 1);
    let seen = format!("{:?} {:?}", site.machine.history(), site.machine.snapshot());
    assert!(!seen.contains(SIGNATURE));
}

#[tokio::test]
async fn tells_who_the_server_is() {
    let site = Site::new();
    let info = site.connect().await.info().await.unwrap();
    assert_eq!((info.generation, info.firmware.as_str()), (5, "3.11"));
    assert_eq!(info.model, "ProLiant DL360 Gen10 Plus");
    assert_eq!(
        info.uuid.unwrap().to_string(),
        "4c4c4544-0031-3010-8052-b4c04f4a3432"
    );
    assert_eq!(info.serial, "LAB4C4C454");
    assert_eq!(info.bios_version, "U46 v2.34 (03/11/2025)");
    assert_eq!(info.license, "iLO Advanced");
    assert_eq!(
        (info.power_state, info.post_state),
        (PowerState::Off, PostState::PowerOff)
    );
    assert_eq!(
        (info.boot_mode, info.health.as_str()),
        (BootMode::Uefi, "OK")
    );
}

#[tokio::test]
async fn wrong_password_is_an_auth_error() {
    let site = Site::new();
    let options = IloOptions {
        password: Secret::new("wrong-password"),
        ..site.options()
    };
    let error = Ilo::connect(options).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Auth, false));
    assert_eq!(
        error.details()["message_id"],
        "iLO.2.25.UnauthorizedLoginAttempt"
    );
    assert_eq!(error.operation(), "ilo.connect");
    assert_eq!(format!("https://{}", error.on()), site.base_url());
    assert!(!format!("{error:?}").contains("wrong-password"));
    // A failed login delays the next ones and may lock the account.
    assert_eq!(site.count(|e| matches!(e, EventKind::LoginRefused)), 1);
}

#[tokio::test]
async fn an_untrusted_certificate_is_an_auth_error() {
    let site = Site::new();
    let trust = Trust::Ca(site::Authority::new().pem);
    let error = Ilo::connect(IloOptions {
        trust,
        ..site.options()
    })
    .await
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Auth);
    assert_eq!(site.count(|_| true), 0);
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base_url = format!("https://{}", listener.local_addr().unwrap());
    drop(listener);
    let site = Site::new();
    let error = Ilo::connect(IloOptions {
        base_url,
        ..site.options()
    })
    .await
    .unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (Kind::Unreachable, true)
    );
}

#[tokio::test]
async fn reads_survive_a_hiccup() {
    let site = Site::with_fault(Fault::ReadUnavailable);
    // Three refusals are what a read stands.
    let ilo = site.connect().await;
    assert_eq!(ilo.power_state().await.unwrap(), PowerState::Off);
    assert_eq!(site.count(|e| matches!(e, EventKind::LoggedIn)), 1);
}

#[tokio::test]
async fn redirects_keep_method_and_body() {
    let site = Site::with_fault(Fault::RedirectMissingSlash);
    let ilo = site.connect().await;
    let path = "/redfish/v1/Managers/1/VirtualMedia/2/Actions/VirtualMedia.InsertMedia";
    let url = site.image("a.iso", pattern(4096, 0));
    let body = json!({"Image": url.expose()});
    ilo.request("POST", path, Some(&body), TIMEOUT)
        .await
        .unwrap();
    eventually("the insert", || site.machine.snapshot().media[1].inserted).await;
    // The old REST path leads there as well, and the signature stays hidden.
    let drive = ilo
        .request("GET", "/rest/v1/Managers/1/VirtualMedia/2", None, TIMEOUT)
        .await;
    let drive = drive.unwrap();
    assert_eq!(drive["Inserted"], true);
    assert!(
        drive["Image"].as_str().unwrap().ends_with("/c/a.iso?***"),
        "{drive}"
    );
    assert!(!drive.to_string().contains(SIGNATURE));
}

/// The iLO takes no action without a JSON object.
#[tokio::test]
async fn a_request_without_a_body_sends_an_empty_object() {
    let site = Site::new();
    let ilo = site.connect().await;
    let iso = site.image("a.iso", pattern(4096, 0));
    ilo.attach_vmedia(Device::Cdrom, &iso, TIMEOUT)
        .await
        .unwrap();
    let path = "/redfish/v1/Managers/1/VirtualMedia/2/Actions/VirtualMedia.EjectMedia/";
    ilo.request("POST", path, None, TIMEOUT).await.unwrap();
    assert!(!site.machine.snapshot().media[1].inserted);
}

#[tokio::test]
async fn close_deletes_the_session_once() {
    let site = Site::new();
    let ilo = site.connect().await;
    assert_eq!(site.machine.snapshot().sessions, 1);
    ilo.close().await.unwrap();
    ilo.close().await.unwrap();
    assert_eq!(site.machine.snapshot().sessions, 0);
    assert_eq!(site.count(|e| matches!(e, EventKind::LoggedOut)), 1);

    let ilo = site.connect().await;
    site.machine.expire_sessions();
    ilo.close().await.unwrap();
}

#[tokio::test]
async fn an_expired_session_is_renewed_once() {
    let site = Site::new();
    let ilo = site.connect().await;
    site.machine.expire_sessions();
    // A write, so that nothing is repeated that the iLO did.
    ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
    assert_eq!(site.count(|e| matches!(e, EventKind::LoggedIn)), 2);
    assert_eq!(
        site.count(|e| matches!(e, EventKind::PowerAction { .. })),
        1
    );
    assert_eq!(site.machine.snapshot().sessions, 1);
}

#[tokio::test]
async fn too_many_sessions_is_a_limit() {
    let site = Site::new();
    let mut open = Vec::new();
    let error = loop {
        match Ilo::connect(site.options()).await {
            Ok(ilo) => open.push(ilo),
            Err(error) => break error,
        }
        assert!(open.len() < 100);
    };
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Limit, false));
    assert!(error.advice().unwrap().contains("session"));
    open.pop().unwrap().close().await.unwrap();
    site.connect().await;
}

#[tokio::test]
async fn one_handle_serves_many_callers() {
    let site = Site::new();
    let ilo = site.connect().await;
    let floppy = site.image("a.img", pattern(4096, 0));
    let iso = site.image("a.iso", pattern(4096, 1));
    let (a, b, c) = tokio::join!(
        ilo.attach_vmedia(Device::Floppy, &floppy, TIMEOUT),
        ilo.attach_vmedia(Device::Cdrom, &iso, TIMEOUT),
        ilo.set_power(PowerTarget::On, TIMEOUT),
    );
    drop((a.unwrap(), b.unwrap()));
    assert_eq!(c.unwrap(), PowerState::On);
    assert_eq!(site.count(|e| matches!(e, EventKind::Connected { .. })), 2);
}

/// Scripts run on other threads than the one that connected.
#[test]
fn calls_can_move_between_threads() {
    fn assert_send<T: Send>(_: T) {}
    fn all(ilo: &Ilo, url: &Secret) {
        assert_send(ilo.info());
        assert_send(ilo.set_power(PowerTarget::On, TIMEOUT));
        assert_send(ilo.attach_vmedia(Device::Cdrom, url, TIMEOUT));
        assert_send(ilo.eject_vmedia(Device::Cdrom, TIMEOUT));
        assert_send(ilo.set_one_time_boot(BootDevice::Disk, TIMEOUT));
        assert_send(ilo.set_boot_device(BootDevice::Disk, TIMEOUT));
        assert_send(ilo.set_boot_mode(BootMode::Uefi, TIMEOUT));
        assert_send(ilo.set_secure_boot(true, TIMEOUT));
        assert_send(ilo.request("GET", "/", None, TIMEOUT));
        assert_send(ilo.ribcl(url, TIMEOUT));
        assert_send(ilo.close());
    }
    let _ = all;
    assert_send(Ilo::connect as fn(IloOptions) -> _);
}
