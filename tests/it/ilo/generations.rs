//! The same conversation with an iLO of every generation.

use super::site::{Site, TIMEOUT, eventually, pattern, read_all};
use flowrun::ilo::model::{BootDevice, ConnectedVia, Device, Dialect, PowerState, PowerTarget};
use flowrun::lab::host::BootSource;
use flowrun::lab::ilo::Generation;

#[tokio::test]
async fn media_power_and_boot_mean_the_same_everywhere() {
    for (generation, name) in Generation::NAMES {
        let site = Site::with(|config| config.generation = generation);
        let (floppy, iso) = (pattern(1_474_560, 1), pattern(200_001, 2));
        let floppy_url = site.image("floppy.img", floppy.clone());
        let iso_url = site.image("ramdisk.iso", iso.clone());
        let ilo = site.connect().await;

        let info = ilo.info().await.unwrap();
        let dialect = match generation {
            Generation::Ilo4Ribcl => Dialect::Ribcl,
            _ => Dialect::Redfish,
        };
        assert_eq!(info.dialect, dialect, "{name}");
        assert_eq!(name.as_bytes()[3], b'0' + info.generation, "{name}");
        assert_eq!(info.power_state, PowerState::Off, "{name}");
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
    }
}
