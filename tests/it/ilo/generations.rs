//! The same conversation with an iLO of every generation and in every dialect.

use super::site::{Site, TIMEOUT, eventually, pattern, read_all};
use flowrun::ilo::model::{BootDevice, ConnectedVia, Device, Dialect, PowerState, PowerTarget};
use flowrun::lab::host::BootSource;
use flowrun::lab::ilo::{EventKind, Fault, Generation};

/// Power, media and boot, from an empty drive to an empty drive.
async fn converse(generation: Generation, faults: &[Fault], dialect: Dialect) {
    let name = format!("{generation} {faults:?}");
    let site = Site::with(|config| {
        config.generation = generation;
        config.faults = faults.iter().copied().collect();
    });
    let (floppy, iso) = (pattern(1_474_560, 1), pattern(200_001, 2));
    let floppy_url = site.image("floppy.img", floppy.clone());
    let iso_url = site.image("ramdisk.iso", iso.clone());
    let ilo = site.connect().await;

    let info = ilo.info().await.unwrap();
    assert_eq!(info.dialect, dialect, "{name}");
    assert_eq!(name.as_bytes()[3], b'0' + info.generation, "{name}");
    assert_eq!(info.power_state, PowerState::Off, "{name}");
    assert!(info.model.contains("ProLiant"), "{name}: {info:?}");
    assert!(!info.firmware.is_empty() && info.uuid.is_some(), "{name}");
    assert!(ilo.check_vmedia_license().await.unwrap().scripted_media);

    for (device, url) in [(Device::Floppy, &floppy_url), (Device::Cdrom, &iso_url)] {
        let drive = ilo.attach_vmedia(device, url, TIMEOUT).await.unwrap();
        assert_eq!(drive.connected_via, ConnectedVia::Uri, "{name}");
    }
    let cdrom = BootDevice::Cdrom;
    ilo.set_one_time_boot(cdrom, TIMEOUT).await.unwrap();
    ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
    eventually("the boot", || !site.boots().is_empty()).await;
    let boot = site.boots().remove(0);
    assert_eq!(boot.source, BootSource::Cdrom, "{name}");
    assert_eq!(boot.floppy.unwrap(), floppy, "{name}");
    assert_eq!(read_all(boot.cdrom.unwrap().as_ref()).await, iso, "{name}");

    ilo.set_power(PowerTarget::ForceOff, TIMEOUT).await.unwrap();
    for device in [Device::Cdrom, Device::Floppy] {
        // Twice: an empty drive ejects without error.
        ilo.eject_vmedia(device, TIMEOUT).await.unwrap();
        let drive = ilo.eject_vmedia(device, TIMEOUT).await.unwrap();
        assert!(!drive.inserted && drive.image.is_none(), "{name}");
    }
    ilo.close().await.unwrap();
    assert_eq!(site.machine.snapshot().sessions, 0, "{name}");
    let logins = usize::from(dialect != Dialect::Ribcl);
    let logged_in = site.count(|e| matches!(e, EventKind::LoggedIn));
    assert_eq!(logged_in, logins, "{name}");
}

#[tokio::test]
async fn media_power_and_boot_mean_the_same_everywhere() {
    for (generation, _) in Generation::NAMES {
        let dialect = match generation {
            Generation::Ilo4Ribcl => Dialect::Ribcl,
            _ => Dialect::Redfish,
        };
        converse(generation, &[], dialect).await;
    }
}

/// iLO 4 before 2.30, which has no insert action before that either (ilorest 7.4.0).
#[tokio::test]
async fn rest_serves_where_redfish_is_absent() {
    let rest = Generation::Ilo4Rest;
    converse(rest, &[Fault::NoRedfish], Dialect::Rest).await;
    let oldest = [Fault::NoRedfish, Fault::DrivePatchOnly];
    converse(rest, &oldest, Dialect::Rest).await;
}

#[tokio::test]
async fn answers_may_be_packed() {
    let rest = Generation::Ilo4Rest;
    let packed = [Fault::NoRedfish, Fault::EncodingUnasked];
    converse(rest, &packed, Dialect::Rest).await;
    let refused = [Fault::EncodingRefused];
    converse(Generation::Ilo5, &refused, Dialect::Redfish).await;
}
