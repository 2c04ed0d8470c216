//! Power, the power-on self test and one-time boot.

use super::SHORT;
use super::site::{Site, TIMEOUT, eventually};
use flowrun::error::Kind;
use flowrun::ilo::model::{BootDevice, OverrideEnabled, PostState, PowerState, PowerTarget};
use flowrun::lab::host::{BootOutcome, BootSource};
use flowrun::lab::ilo::{EventKind, Fault};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn two_clients_that_power_on_both_succeed() {
    let site = Site::new();
    let (one, two) = (site.connect().await, site.connect().await);
    let (a, b) = tokio::join!(
        one.set_power(PowerTarget::On, TIMEOUT),
        two.set_power(PowerTarget::On, TIMEOUT),
    );
    assert_eq!((a.unwrap(), b.unwrap()), (PowerState::On, PowerState::On));
    assert_eq!(
        site.count(|e| matches!(e, EventKind::PowerAction { .. })),
        1
    );
}

#[tokio::test]
async fn a_power_cut_stops_everything() {
    let site = Site::new();
    let ilo = site.connect().await;
    ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
    eventually("the boot", || site.host_is_up()).await;
    site.machine.cut_power();
    eventually("the end of the host", || !site.host_is_up()).await;
    assert_eq!(ilo.power_state().await.unwrap(), PowerState::Off);
    ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
    eventually("the next boot", || site.boots().len() == 2).await;
}

#[tokio::test]
async fn power_is_set_only_if_it_differs() {
    // Long enough for the reset to be seen.
    let site = Site::with(|config| config.post_time = Duration::from_millis(1600));
    let ilo = site.connect().await;
    assert_eq!(
        ilo.set_power(PowerTarget::ForceOff, TIMEOUT).await.unwrap(),
        PowerState::Off
    );
    let error = ilo
        .set_power(PowerTarget::Reset, TIMEOUT)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert_eq!(
        site.count(|e| matches!(e, EventKind::PowerAction { .. })),
        0
    );

    site.boots_end_with([BootOutcome::Running, BootOutcome::Running]);
    ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
    ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
    assert_eq!(
        site.count(|e| matches!(e, EventKind::PowerAction { .. })),
        1
    );
    eventually("the first boot", || {
        site.machine.snapshot().last_outcome.is_some()
    })
    .await;

    assert_eq!(
        ilo.set_power(PowerTarget::Reset, TIMEOUT).await.unwrap(),
        PowerState::On
    );
    eventually("the second boot", || {
        let now = site.machine.snapshot();
        now.boots == 2 && now.last_outcome == Some(BootOutcome::Running)
    })
    .await;
    // A running system hears the power button.
    assert_eq!(
        ilo.set_power(PowerTarget::Off, TIMEOUT).await.unwrap(),
        PowerState::Off
    );
    assert_eq!(
        site.count(|e| matches!(e, EventKind::PowerAction { .. })),
        3
    );
}

#[tokio::test]
async fn power_that_does_not_change_is_a_timeout() {
    let site = Site::with_fault(Fault::PowerIgnored);
    let ilo = site.connect().await;
    let error = ilo.set_power(PowerTarget::On, SHORT).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert_eq!(error.operation(), "ilo.set_power");
}

#[tokio::test]
async fn a_system_that_ignores_the_button_is_a_timeout_with_advice() {
    let site = Site::new();
    let ilo = site.connect().await;
    ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
    eventually("the boot", || site.host_is_up()).await;
    let error = ilo.set_power(PowerTarget::Off, SHORT).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(error.advice().unwrap().contains("force"), "{error:?}");
    assert!(site.host_is_up());
}

#[tokio::test]
async fn boot_settings_wait_for_the_end_of_post() {
    let site = Site::with(|config| config.post_time = Duration::from_secs(2));
    let ilo = site.connect().await;
    ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
    let boot = ilo
        .set_one_time_boot(BootDevice::Cdrom, TIMEOUT)
        .await
        .unwrap();
    assert_eq!(
        (boot.enabled, boot.device),
        (OverrideEnabled::Once, Some(BootDevice::Cdrom))
    );
    let events = site.machine.history();
    let at = |what: fn(&EventKind) -> bool| events.iter().position(|event| what(&event.what));
    let booted = at(|e| matches!(e, EventKind::Booted { .. })).unwrap();
    assert!(at(|e| matches!(e, EventKind::BootOverride { .. })).unwrap() > booted);
    // Set already: nothing is sent.
    ilo.set_one_time_boot(BootDevice::Cdrom, TIMEOUT)
        .await
        .unwrap();
    assert_eq!(
        site.count(|e| matches!(e, EventKind::BootOverride { .. })),
        1
    );
}

#[tokio::test]
async fn post_that_outlasts_the_deadline_is_named() {
    let site = Site::with(|config| config.post_time = Duration::from_secs(16));
    let ilo = site.connect().await;
    ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
    eventually("POST", || {
        site.machine.snapshot().post_state == PostState::InPost
    })
    .await;
    let error = ilo
        .set_one_time_boot(BootDevice::Cdrom, SHORT)
        .await
        .unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Conflict, true));
    assert_eq!(
        error.details()["message_id"],
        "iLO.2.25.UnableToModifyDuringSystemPOST"
    );
    assert_eq!(
        error.details()["message_args"],
        json!(["BootSourceOverrideTarget"])
    );
}

#[tokio::test]
async fn a_reboot_runs_post_again_and_nothing_bootable_stays_in_it() {
    let site = Site::new();
    site.boots_end_with([BootOutcome::Reboot, BootOutcome::NoBootDevice]);
    let ilo = site.connect().await;
    ilo.set_one_time_boot(BootDevice::Cdrom, TIMEOUT)
        .await
        .unwrap();
    ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
    eventually("both boots", || {
        site.machine.snapshot().last_outcome == Some(BootOutcome::NoBootDevice)
    })
    .await;
    let now = site.machine.snapshot();
    assert_eq!((now.boots, now.power), (2, PowerState::On));
    assert_eq!(now.post_state, PostState::InPostDiscoveryComplete);
    // Nothing was in the drive, so the override led nowhere, and was used up.
    assert!(
        site.boots()
            .iter()
            .all(|boot| boot.source == BootSource::Disk)
    );
    assert_eq!(now.boot_override, "None");
}
