//! What holds from the next reset on, and restarts: of every generation, seen in what the
//! simulated server does.

use super::SHORT;
use super::site::{Site, TIMEOUT, eventually, pattern};
use flowrun::error::Kind;
use flowrun::ilo::Ilo;
use flowrun::ilo::model::{
    BootDevice, BootMode, Device, OverrideEnabled, PostState, PowerState, PowerTarget, SecureBoot,
};
use flowrun::lab::host::{BootOutcome, BootSource};
use flowrun::lab::ilo::{EventKind, Fault, Generation};
use std::time::Duration;

/// Long enough for a restart to be seen.
const POST: Duration = Duration::from_millis(1600);

/// Every generation, and iLO 4 before it had Redfish.
pub(super) const ALL: [(Generation, &[Fault]); 7] = [
    (Generation::Ilo4Ribcl, &[]),
    (Generation::Ilo4Rest, &[Fault::NoRedfish]),
    (Generation::Ilo4Rest, &[]),
    (Generation::Ilo5Early, &[]),
    (Generation::Ilo5, &[]),
    (Generation::Ilo6, &[]),
    (Generation::Ilo7, &[]),
];

/// Runs a test on all of them at once.
async fn everywhere<F: Future<Output = ()>>(test: impl Fn(Generation, &'static [Fault]) -> F) {
    let tests = ALL.map(|(generation, faults)| test(generation, faults));
    futures_util::future::join_all(tests).await;
}

fn site_of(generation: Generation, faults: &[Fault], post_time: Duration) -> Site {
    Site::with(|config| {
        config.generation = generation;
        config.faults = faults.iter().copied().collect();
        config.post_time = post_time;
    })
}

pub(super) fn quick(generation: Generation, faults: &[Fault]) -> Site {
    site_of(generation, faults, Duration::from_millis(80))
}

/// Switches the server off and on; where it boots from.
async fn next_boot(site: &Site, ilo: &Ilo) -> BootSource {
    let before = site.boots().len();
    ilo.set_power(PowerTarget::ForceOff, TIMEOUT).await.unwrap();
    ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
    eventually("the boot", || site.boots().len() > before).await;
    site.boots()[before].source
}

#[tokio::test]
async fn a_boot_device_holds_for_every_boot() {
    everywhere(|generation, faults| async move {
        let site = quick(generation, faults);
        let ilo = site.connect().await;
        let iso = site.image("a.iso", pattern(40_000, 1));
        ilo.attach_vmedia(Device::Cdrom, &iso, TIMEOUT)
            .await
            .unwrap();
        let set = ilo
            .set_boot_device(BootDevice::Cdrom, TIMEOUT)
            .await
            .unwrap();
        assert_eq!(set.lasting(), Some(BootDevice::Cdrom), "{generation}");
        // RIBCL changes the boot order, the others have an override that stays.
        let is_order = generation == Generation::Ilo4Ribcl;
        assert_eq!(set.pending.is_some(), is_order, "{generation}");
        assert_eq!(
            set.next.enabled == OverrideEnabled::Continuous,
            !is_order,
            "{generation}"
        );
        for _ in 0..2 {
            assert_eq!(
                next_boot(&site, &ilo).await,
                BootSource::Cdrom,
                "{generation}"
            );
        }
        let now = ilo.boot_device().await.unwrap();
        assert_eq!(
            (now.persistent, now.pending),
            (Some(BootDevice::Cdrom), None),
            "{generation}"
        );
        ilo.set_boot_device(BootDevice::Disk, TIMEOUT)
            .await
            .unwrap();
        assert_eq!(
            next_boot(&site, &ilo).await,
            BootSource::Disk,
            "{generation}"
        );
        // Set already: nothing is sent.
        let events = site.machine.history().len();
        ilo.set_boot_device(BootDevice::Disk, TIMEOUT)
            .await
            .unwrap();
        assert_eq!(site.machine.history().len(), events, "{generation}");
    })
    .await;
}

/// Without an override that stays the firmware's boot order changes, at the next reset.
#[tokio::test]
async fn the_boot_order_is_changed_where_no_override_stays() {
    let refused = Fault::BootContinuousRefused;
    for (generation, faults) in [
        (Generation::Ilo4Rest, &[refused, Fault::NoRedfish][..]),
        (Generation::Ilo4Rest, &[refused]),
        (Generation::Ilo5Early, &[refused]),
    ] {
        let site = quick(generation, faults);
        let ilo = site.connect().await;
        let now = ilo.boot_device().await.unwrap();
        assert_eq!(now.persistent, Some(BootDevice::Disk), "{generation}");
        let iso = site.image("a.iso", pattern(40_000, 1));
        ilo.attach_vmedia(Device::Cdrom, &iso, TIMEOUT)
            .await
            .unwrap();
        let set = ilo
            .set_boot_device(BootDevice::Cdrom, TIMEOUT)
            .await
            .unwrap();
        assert_eq!(
            (set.next.enabled, set.persistent, set.pending),
            (
                OverrideEnabled::Disabled,
                Some(BootDevice::Disk),
                Some(BootDevice::Cdrom)
            ),
            "{generation}"
        );
        // A one-time boot leaves it alone.
        ilo.set_one_time_boot(BootDevice::Disk, TIMEOUT)
            .await
            .unwrap();
        assert_eq!(
            next_boot(&site, &ilo).await,
            BootSource::Disk,
            "{generation}"
        );
        assert_eq!(
            next_boot(&site, &ilo).await,
            BootSource::Cdrom,
            "{generation}"
        );
        let now = ilo.boot_device().await.unwrap();
        assert_eq!(
            (now.persistent, now.pending),
            (Some(BootDevice::Cdrom), None),
            "{generation}"
        );
    }
    // The boot order of this server lists no CD.
    let site = quick(Generation::Ilo6, &[refused]);
    let ilo = site.connect().await;
    let error = ilo
        .set_boot_device(BootDevice::Cdrom, TIMEOUT)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(
        error.details()["boot_sources"]
            .to_string()
            .contains("OCP.Slot.18.1")
    );
    let set = ilo
        .set_boot_device(BootDevice::Disk, TIMEOUT)
        .await
        .unwrap();
    assert_eq!(set.pending, Some(BootDevice::Disk));
}

#[tokio::test]
async fn the_boot_mode_changes_at_the_next_reset() {
    everywhere(|generation, faults| async move {
        let site = quick(generation, faults);
        let ilo = site.connect().await;
        let has = ilo.boot_mode().await.unwrap();
        // What it has already needs no setting, whatever the server knows.
        let same = ilo.set_boot_mode(has, TIMEOUT).await.unwrap();
        assert_eq!((same.mode, same.pending), (has, None), "{generation}");
        let other = match has {
            BootMode::Uefi => BootMode::Legacy,
            _ => BootMode::Uefi,
        };
        let set = ilo.set_boot_mode(other, TIMEOUT).await;
        if matches!(
            generation,
            Generation::Ilo4Ribcl | Generation::Ilo6 | Generation::Ilo7
        ) {
            let error = set.unwrap_err();
            assert_eq!(error.kind(), Kind::Unsupported, "{generation}: {error}");
            return;
        }
        let set = set.unwrap();
        assert_eq!((set.mode, set.pending), (has, Some(other)), "{generation}");
        assert_eq!(site.machine.snapshot().boot_mode, has, "{generation}");
        next_boot(&site, &ilo).await;
        assert_eq!(site.machine.snapshot().boot_mode, other, "{generation}");
        assert_eq!(ilo.boot_mode().await.unwrap(), other, "{generation}");
        // Back, and back again before it holds.
        ilo.set_boot_mode(has, TIMEOUT).await.unwrap();
        let set = ilo.set_boot_mode(other, TIMEOUT).await.unwrap();
        assert_eq!((set.mode, set.pending), (other, None), "{generation}");
    })
    .await;
}

#[tokio::test]
async fn secure_boot_changes_at_the_next_reset_with_one_more() {
    everywhere(|generation, faults| async move {
        // Only iLO 4 is known to lose it.
        let lost = match generation {
            Generation::Ilo4Rest => &[Fault::SecureBootLost][..],
            _ => &[],
        };
        let site = quick(generation, &[faults, lost].concat());
        let ilo = site.connect().await;
        if generation == Generation::Ilo4Ribcl {
            for error in [
                ilo.secure_boot().await.unwrap_err(),
                ilo.set_secure_boot(true, TIMEOUT).await.unwrap_err(),
            ] {
                assert_eq!(error.kind(), Kind::Unsupported);
                assert!(error.message().contains("secure boot"), "{error}");
            }
            return;
        }
        let state = |current, enabled| SecureBoot { current, enabled };
        assert_eq!(ilo.secure_boot().await.unwrap(), state(false, false));
        let set = ilo.set_secure_boot(true, TIMEOUT).await.unwrap();
        assert_eq!(set, state(false, true), "{generation}");
        next_boot(&site, &ilo).await;
        assert!(site.machine.snapshot().secure_boot, "{generation}");
        assert_eq!(ilo.secure_boot().await.unwrap(), state(true, true));
        assert_eq!(
            site.count(|e| matches!(e, EventKind::PostBegan)),
            2,
            "{generation}"
        );
        let set = ilo.set_secure_boot(false, TIMEOUT).await.unwrap();
        assert_eq!(set, state(true, false), "{generation}");

        if generation <= Generation::Ilo5 {
            ilo.set_boot_mode(BootMode::Legacy, TIMEOUT).await.unwrap();
            next_boot(&site, &ilo).await;
            let error = ilo.set_secure_boot(true, TIMEOUT).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Unsupported, "{generation}: {error}");
            assert!(error.advice().unwrap().contains("boot mode"), "{error:?}");
        }
    })
    .await;
}

/// All of them are refused while POST runs: the calls wait for its end, or say why they cannot.
#[tokio::test]
async fn settings_wait_for_the_end_of_post() {
    everywhere(|generation, faults| async move {
        let site = site_of(generation, faults, Duration::from_secs(16));
        let ilo = site.connect().await;
        let is_ribcl = generation == Generation::Ilo4Ribcl;
        ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
        eventually("POST", || site.machine.snapshot().post_state.is_in_post()).await;
        let mut errors = vec![ilo.set_boot_device(BootDevice::Pxe, SHORT).await.err()];
        if !is_ribcl {
            errors.push(ilo.set_secure_boot(true, SHORT).await.err());
        }
        for error in errors {
            let error = error.expect("was accepted");
            assert_eq!(
                (error.kind(), error.is_retryable()),
                (Kind::Conflict, true),
                "{generation}: {error}"
            );
        }
        site.machine.cut_power();
        let set = ilo.set_boot_device(BootDevice::Pxe, TIMEOUT).await.unwrap();
        assert_eq!(set.lasting(), Some(BootDevice::Pxe), "{generation}");
    })
    .await;
}

#[tokio::test]
async fn every_way_to_restart_restarts() {
    everywhere(|generation, faults| async move {
        let site = site_of(generation, faults, POST);
        site.boots_end_with([BootOutcome::Running; 4]);
        let ilo = site.connect().await;
        let error = ilo.set_power(PowerTarget::Reset, TIMEOUT).await;
        assert_eq!(error.unwrap_err().kind(), Kind::Conflict, "{generation}");
        // From off, both lead to on.
        ilo.set_power(PowerTarget::Restart, TIMEOUT).await.unwrap();
        let is_up = |boots| {
            let now = site.machine.snapshot();
            now.boots == boots && now.last_outcome == Some(BootOutcome::Running)
        };
        eventually("the boot", || is_up(1)).await;
        let targets = [
            (PowerTarget::Reset, 0),
            (
                PowerTarget::Restart,
                usize::from(generation < Generation::Ilo5),
            ),
            (PowerTarget::ColdBoot, 1),
        ];
        for (boots, (target, losses)) in (2..).zip(targets) {
            let begun = |e: &EventKind| matches!(e, EventKind::PostBegan);
            let lost = |e: &EventKind| matches!(e, EventKind::PoweredOff);
            let before = (site.count(begun), site.count(lost));
            let state = ilo.set_power(target, TIMEOUT).await.unwrap();
            assert_eq!(state, PowerState::On, "{generation}: {target:?}");
            if generation != Generation::Ilo4Ribcl {
                assert_eq!(site.count(begun), before.0 + 1, "{generation}: {target:?}");
            }
            eventually("the next boot", || is_up(boots)).await;
            let losses_seen = site.count(lost) - before.1;
            assert_eq!(losses_seen, losses, "{generation}: {target:?}");
        }
    })
    .await;
}

/// The iLO says yes, and nothing happens.
#[tokio::test]
async fn a_restart_that_did_not_happen_is_a_timeout() {
    everywhere(|generation, faults| async move {
        let site = quick(generation, faults);
        site.boots_end_with([BootOutcome::Running]);
        let ilo = site.connect().await;
        ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
        eventually("the boot", || {
            site.machine.snapshot().post_state == PostState::FinishedPost
        })
        .await;
        site.machine.set_faults(
            faults
                .iter()
                .copied()
                .chain([Fault::PowerIgnored])
                .collect(),
        );
        let answer = ilo.set_power(PowerTarget::Reset, SHORT).await;
        match generation {
            // RIBCL does not tell.
            Generation::Ilo4Ribcl => assert_eq!(answer.unwrap(), PowerState::On),
            _ => {
                let error = answer.unwrap_err();
                assert_eq!(error.kind(), Kind::Timeout, "{generation}: {error}");
            }
        }
    })
    .await;
}
