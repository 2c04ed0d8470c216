use super::*;
use crate::ilo::model::VmediaDevice;

macro_rules! data {
    ($path:literal) => {
        include_str!(concat!("../../../tests/data/ilo5/", $path))
    };
}

/// The body of a capture, with or without status line and headers before it.
fn read(capture: &str) -> Value {
    let body = capture.find('{').map_or(capture, |start| &capture[start..]);
    serde_json::from_str(body).unwrap()
}

#[test]
fn generation_and_firmware_of_every_service_root() {
    let roots = [
        (data!("1.30/login_root_response.http"), "1.30"),
        (data!("2.46/ServiceRoot.json"), "2.46"),
        (data!("2.70/ServiceRoot.json"), "2.70"),
        (data!("3.11/ServiceRoot.json"), "3.11"),
    ];
    for (capture, firmware) in roots {
        let root = read(capture);
        assert_eq!(generation(&root).unwrap(), (5, firmware.to_owned()));
        assert!(
            link(&root, "/Links/Sessions")
                .unwrap()
                .starts_with("/redfish/v1/SessionService/")
        );
        assert!(
            required_link(&root, "/Systems")
                .unwrap()
                .starts_with("/redfish/v1/Systems")
        );
        assert!(
            required_link(&root, "/Managers")
                .unwrap()
                .starts_with("/redfish/v1/Managers")
        );
    }
    // That project's sample has no version in it.
    let root = read(data!("proliantutils/root.json"));
    assert_eq!(link(&root, "/Systems"), Some("/redfish/v1/Systems/"));
}

#[test]
fn older_ilos_are_known_and_other_makers_are_none() {
    let old = serde_json::json!({"Oem": {"Hp": {"Manager": [
        {"ManagerType": "iLO 4", "ManagerFirmwareVersion": "2.54"}
    ]}}});
    assert_eq!(generation(&old), Some((4, "2.54".to_owned())));
    for foreign in [serde_json::json!({"Oem": {"Dell": {}}}), Value::Null] {
        assert_eq!(generation(&foreign), None);
    }
}

#[test]
fn server_of_every_system() {
    struct Facts {
        serial: &'static str,
        uuid: &'static str,
        health: &'static str,
        bios_version: &'static str,
    }
    let systems = [
        (
            data!("1.30/rbsu_systems_1_response.http"),
            Facts {
                serial: "CN76490D14",
                uuid: "464e4f43-4749-4e43-3736-343930443134",
                health: "Warning",
                bios_version: "U34 v1.20 (05/10/2017)",
            },
        ),
        (
            data!("2.46/Systems_1.json"),
            Facts {
                serial: "MXQ019020B",
                uuid: "36383150-3630-584d-5130-313930323042",
                health: "OK",
                bios_version: "A43 v2.52 (10/29/2021)",
            },
        ),
        (
            data!("3.11/Systems_1.json"),
            Facts {
                serial: "MXQ2390RHW",
                uuid: "39383250-3834-584d-5132-333930524857",
                health: "OK",
                bios_version: "U46 v2.34 (03/11/2025)",
            },
        ),
    ];
    for (capture, facts) in systems {
        let system = read(capture);
        assert_eq!(text(&system, "/SerialNumber"), facts.serial);
        assert_eq!(text(&system, "/BiosVersion"), facts.bios_version);
        assert_eq!(uuid(&system).unwrap().to_string(), facts.uuid);
        assert_eq!(health(&system), facts.health);
        assert_eq!(power_state(&system), PowerState::On);
        assert_eq!(post_state(&system), PostState::FinishedPost);
        let nothing = BootOverride {
            enabled: OverrideEnabled::Disabled,
            device: None,
        };
        assert_eq!(boot_override(&system), nothing);
        let reset = action(&system, "/Actions/#ComputerSystem.Reset").unwrap();
        assert!(reset.starts_with("/redfish/v1/Systems/1/Actions/ComputerSystem.Reset"));
        assert!(
            link(&system, "/Links/ManagedBy/0")
                .unwrap()
                .starts_with("/redfish/v1/Managers/1")
        );
    }
}

#[test]
fn one_time_boot_of_a_system() {
    let variants = read(data!("proliantutils/system.json"));
    let once = boot_override(&variants["System_op_for_one_time_boot_cdrom"]);
    let cdrom = BootOverride {
        enabled: OverrideEnabled::Once,
        device: Some(BootDevice::Cdrom),
    };
    assert_eq!(once, cdrom);
    assert_eq!(power_state(&variants["default"]), PowerState::On);
}

#[test]
fn boot_mode_of_every_bios() {
    for capture in [
        data!("1.30/rbsu_bios_response.http"),
        data!("2.46/Systems_1_bios.json"),
        data!("3.11/Systems_1_bios.json"),
    ] {
        assert_eq!(boot_mode(&read(capture), &Value::Null), BootMode::Uefi);
    }
    let legacy = serde_json::json!({"Attributes": {"BootMode": "LegacyBios"}});
    assert_eq!(boot_mode(&legacy, &Value::Null), BootMode::Legacy);
    let uefi_only = serde_json::json!({"Oem": {"Hpe": {"Bios": {"UefiClass": 3}}}});
    assert_eq!(boot_mode(&Value::Null, &uefi_only), BootMode::Uefi);
    assert_eq!(boot_mode(&Value::Null, &Value::Null), BootMode::Unknown);
}

#[test]
fn manager_links() {
    for capture in [data!("2.46/Managers_1.json"), data!("3.11/Managers_1.json")] {
        let manager = read(capture);
        assert_eq!(
            link(&manager, "/VirtualMedia"),
            Some("/redfish/v1/Managers/1/VirtualMedia")
        );
        let service = link(&manager, "/Oem/Hpe/Links/LicenseService");
        assert_eq!(service, Some("/redfish/v1/Managers/1/LicenseService"));
    }
    let manager = read(data!("proliantutils/manager.json"));
    assert_eq!(
        link(&manager, "/VirtualMedia"),
        Some("/redfish/v1/Managers/1/VirtualMedia/")
    );
}

#[test]
fn licences() {
    let bought = license(&read(data!("2.46/Managers_1_LicenseService_1.json")));
    assert_eq!(
        (bought.name.as_str(), bought.kind.as_str()),
        ("iLO Advanced", "Perpetual")
    );
    assert!(bought.scripted_media);
    let lent = license(&read(data!("3.11/Managers_1_LicenseService_1.json")));
    assert_eq!(lent.name, "iLO Advanced limited-distribution test");
    assert_eq!(
        (lent.kind.as_str(), lent.scripted_media),
        ("Internal", true)
    );
    let standard = serde_json::json!({
        "License": "iLO Standard", "LicenseFeatures": {"VM": false, "VMScript": false}
    });
    assert!(!license(&standard).scripted_media);
    assert!(license(&serde_json::json!({"License": "iLO 5 Advanced"})).scripted_media);
    assert!(!license(&serde_json::json!({"License": "iLO 5 Standard"})).scripted_media);
}

#[test]
fn drives_of_every_firmware() {
    let empty = [
        (data!("2.46/Managers_1_VirtualMedia_1.json"), Device::Floppy),
        (data!("2.46/Managers_1_VirtualMedia_2.json"), Device::Cdrom),
        (data!("2.70/Managers_1_VirtualMedia_1.json"), Device::Floppy),
        (data!("3.11/Managers_1_VirtualMedia_2.json"), Device::Cdrom),
    ];
    for (capture, device) in empty {
        let shown = drive(&read(capture)).unwrap();
        assert_eq!(shown.device, device);
        assert_eq!(shown.connected_via, ConnectedVia::NotConnected);
        assert!(shown.is_empty());
        assert_eq!(
            shown.boot_on_next_reset,
            (device == Device::Cdrom).then_some(false)
        );
    }

    let shown = drive(&read(data!("3.11/Managers_1_VirtualMedia_1.json"))).unwrap();
    let url = "http://172.18.58.146:8080/api/file-copy-request/download/\
               44cf87d0-cf23-430e-bc43-6c6decbfe3f2";
    assert!(shown.holds(&Secret::new(url)));
    assert!(!shown.holds(&Secret::new("http://elsewhere/")));
    assert_eq!(VmediaDevice::from(&shown).image.as_deref(), Some(url));

    let variants = read(data!("proliantutils/vmedia.json"));
    assert!(drive(&variants["default"]).unwrap().is_empty());
    assert!(action(&variants["default"], "/Actions/#VirtualMedia.InsertMedia").is_none());
    let inserted = drive(&variants["vmedia_inserted"]).unwrap();
    assert!(inserted.holds(&Secret::new("http://172.17.1.121:8081/test")));
    assert_eq!(
        drive(&variants["vmedia_floppy"]).unwrap().device,
        Device::Floppy
    );
}

#[test]
fn a_drive_is_shown_without_the_signature() {
    let shown = drive(&serde_json::json!({
        "MediaTypes": ["CD", "DVD"], "Inserted": true, "ConnectedVia": "URI",
        "Image": "https://h/v1/c/os.iso?temp_url_sig=5ec4e7&temp_url_expires=9",
    }))
    .unwrap();
    let device = VmediaDevice::from(&shown);
    assert_eq!(device.image.as_deref(), Some("https://h/v1/c/os.iso?***"));
    let json = serde_json::to_string(&device).unwrap();
    assert!(!format!("{shown:?} {device:?} {json}").contains("5ec4e7"));
}
