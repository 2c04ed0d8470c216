//! Every captured document against what it states.
//!
//! [`FACTS`] was read off the documents by hand and `jq`. A folder stands at the margin, a file
//! below it, `#` before a variant that the file holds under a name; facts end in `;`.

use super::actions::{self, EJECT, INSERT};
use super::documents::{self, link, oem_link, text};
use super::{order, rest};
use crate::error::Error;
use crate::ilo::failure::{Failure, Message, Refusal};
use crate::ilo::model::{
    BootDevice, ConnectedVia, Device, Dialect, License, PowerTarget, VmediaDevice,
};
use reqwest::StatusCode;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ilo")
}

/// File, variant and facts of every entry.
fn entries() -> Vec<(String, Option<&'static str>, Vec<&'static str>)> {
    let (mut folder, mut entries) = ("", Vec::new());
    let lines: Vec<&'static str> = FACTS.lines().filter(|line| !line.is_empty()).collect();
    for line in lines {
        match line.trim_start() {
            name if name.len() == line.len() => folder = name,
            name if line.len() - name.len() == 2 => {
                let (file, variant) = match name.split_once('#') {
                    Some((file, variant)) => (file, Some(variant)),
                    None => (name, None),
                };
                entries.push((format!("{folder}/{file}"), variant, Vec::new()));
            }
            facts => entries.last_mut().unwrap().2.push(facts),
        }
    }
    entries
}

/// The JSON of a file, with or without status line and headers before it, in the words of Redfish.
fn document(file: &str, variant: Option<&str>) -> Value {
    let capture = std::fs::read_to_string(data().join(file)).unwrap();
    let mut whole: Value = serde_json::from_str(&capture[capture.find('{').unwrap()..]).unwrap();
    let document = match variant {
        Some(variant) => whole[variant].take(),
        None => whole,
    };
    match file.starts_with("rest/") {
        true => rest::as_redfish(Dialect::Rest, document),
        false => document,
    }
}

#[test]
fn every_capture_is_read_as_what_it_states() {
    for (file, variant, facts) in entries() {
        let document = document(&file, variant);
        let facts = facts.join(" ");
        for fact in facts.split(';').map(str::trim) {
            let (name, stated) = fact.split_once(' ').unwrap();
            let read = read(&document, name, stated);
            assert_eq!(read, stated, "{name} of {file} {variant:?}");
        }
    }
}

#[test]
fn every_capture_has_its_entry() {
    let mut there = BTreeSet::new();
    for dialect in ["redfish", "rest"] {
        for folder in std::fs::read_dir(data().join(dialect)).unwrap() {
            for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                let name = path
                    .strip_prefix(data())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                // Texts of messages: see `message`.
                if !name.contains("RegistryStore") {
                    there.insert(name);
                }
            }
        }
    }
    let stated: BTreeSet<String> = entries().into_iter().map(|(file, ..)| file).collect();
    assert_eq!(stated, there);
}

/// What our readers make of the document.
fn read(document: &Value, name: &str, stated: &str) -> String {
    let some = |text: &str| {
        if text.trim().is_empty() {
            "none"
        } else {
            text.trim()
        }
        .to_owned()
    };
    let linked = |link: Option<&str>| link.unwrap_or("none").to_owned();
    match name {
        "ilo" => documents::generation(document)
            .map(|(number, firmware)| format!("{number} {firmware}"))
            .unwrap_or_default(),
        "sessions" => linked(link(document, "/Links/Sessions")),
        "systems" => linked(link(document, "/Systems")),
        "managers" => linked(link(document, "/Managers")),
        "manager" => linked(link(document, "/Links/ManagedBy/0")),
        "media" => linked(link(document, "/VirtualMedia")),
        "license-service" => linked(oem_link(document, "/Links/LicenseService")),
        "members" => documents::members(document).collect::<Vec<_>>().join(" "),
        "model" => some(text(document, "/Model")),
        "serial" => some(text(document, "/SerialNumber")),
        "bios" => some(text(document, "/BiosVersion")),
        "firmware" => some(text(document, "/FirmwareVersion")),
        "uuid" => {
            documents::uuid(document).map_or_else(|| "none".to_owned(), |uuid| uuid.to_string())
        }
        "health" => documents::health(document),
        "power" => documents::power_state(document).as_redfish().to_owned(),
        "post" => documents::post_state(document).as_redfish().to_owned(),
        "mode" => format!("{:?}", documents::boot_mode(document, document)),
        "boot" => boot(document),
        "order" => {
            let names = documents::texts(document, "/PersistentBootConfigOrder");
            some(&names.collect::<Vec<_>>().join(" "))
        }
        "first" => {
            let first = order::first(document, document);
            linked(first.map(BootDevice::as_redfish))
        }
        "settings" => linked(documents::settings(document).ok()),
        "secure-boot" => secure_boot(document),
        "reset" | "off" => reset(document, name),
        "license" => license(&documents::license(document)),
        "licensed" => license(&documents::license_of_manager(document)),
        "drive" | "image" | "boot-on-next-reset" | "insert" | "eject" => drive(document, name),
        "says" => {
            let message = Message::of(document).unwrap();
            let class = message
                .class
                .map_or_else(|| "unknown".to_owned(), |class| format!("{class:?}"));
            format!("{} {class}", message.id)
        }
        "error" => error(document, stated),
        _ => panic!("{name} is no fact"),
    }
}

fn boot(system: &Value) -> String {
    let boot = documents::boot_override(system);
    let device = boot
        .device
        .map(|device| format!(" {}", device.as_redfish()));
    format!("{:?}{}", boot.enabled, device.unwrap_or_default())
}

fn license(license: &License) -> String {
    let media = if license.scripted_media {
        "scripted media"
    } else {
        "no scripted media"
    };
    format!("{}, {}, {media}", license.name, license.kind)
}

/// A drive, what is in it, and where its actions are.
fn drive(document: &Value, name: &str) -> String {
    let shown = VmediaDevice::from(&documents::drive(document).unwrap());
    let action = |places: &[&str]| {
        let found = places
            .iter()
            .find_map(|place| documents::action(document, place));
        found.unwrap_or("none").to_owned()
    };
    match name {
        "image" => shown.image.unwrap_or_else(|| "none".to_owned()),
        "insert" => action(&INSERT),
        "eject" => action(&EJECT),
        "boot-on-next-reset" => {
            let flag = shown.boot_on_next_reset;
            flag.map_or_else(|| "none".to_owned(), |flag| flag.to_string())
        }
        _ => state(&shown),
    }
}

fn state(drive: &VmediaDevice) -> String {
    let device = match drive.device {
        Device::Floppy => "floppy",
        Device::Cdrom => "cdrom",
    };
    let via = match drive.connected_via {
        ConnectedVia::NotConnected => "NotConnected",
        ConnectedVia::Uri => "URI",
        ConnectedVia::Applet => "Applet",
        ConnectedVia::Other => "Other",
    };
    let medium = if drive.inserted { "inserted" } else { "empty" };
    let access = if drive.write_protected {
        "read-only"
    } else {
        "writable"
    };
    format!("{device} {medium} {via} {access}")
}

/// The kind of error that this body becomes with the status that is stated.
fn error(body: &Value, stated: &str) -> String {
    let (status, _) = stated.split_once(' ').unwrap();
    let error = Error::from(Failure::Refused(Box::new(Refusal {
        request: "PATCH /redfish/v1/x/".to_owned(),
        status: StatusCode::from_bytes(status.as_bytes()).unwrap(),
        message: Message::of(body),
    })));
    format!("{status} {}", error.kind().as_str())
}

/// Where the press of the power button is posted, and in which words.
fn reset(system: &Value, name: &str) -> String {
    let (path, body) = actions::action(Dialect::Redfish, PowerTarget::Off, system).unwrap();
    let place = path.unwrap_or("none");
    let word = text(&body, "/ResetType");
    if name == "off" { word } else { place }.to_owned()
}

fn secure_boot(document: &Value) -> String {
    let state = documents::secure_boot(document);
    let word = |on| if on { "Enabled" } else { "Disabled" };
    format!("{} now, {} next", word(state.current), word(state.enabled))
}

const FACTS: &str = r"
redfish/documented-responses
  ilo4-400-invalid-license-key.json
    says iLO.0.9.InvalidLicenseKey Unlicensed; error 400 unsupported
  ilo4-400-malformed-json-no-odata-header.json
    says Base.0.10.MalformedJSON BadRequest; error 400 invalid
  ilo4-401-no-valid-session.json
    says Base.0.10.NoValidSession Login; error 401 auth
  ilo4-secureboot-redfish.json
    secure-boot Disabled now, Disabled next
  ilo4-service-root.json
    ilo 4 2.50; sessions none; systems /redfish/v1/systems/; managers /redfish/v1/managers/
  ilo5-200-system-reset-required.json
    says iLO.2.15.SystemResetRequired Success
  ilo5-400-invalid-license-key.json
    says iLO.2.14.InvalidLicenseKey Unlicensed; error 400 unsupported
  ilo5-auxcycle-reset-in-progress.json
    says iLO.2.15.ResetInProgress Busy
  ilo5-reset-in-progress.json
    says iLO.2.14.ResetInProgress Busy
  ilo6-200-patch-success.http
    says Base.1.12.Success Success
  ilo6-400-property-value-bad-param.json
    says iLO.2.19.PropertyValueBadParam BadRequest; error 400 invalid
  ilo6-401-no-valid-session.json
    says Base.1.12.NoValidSession Login; error 401 auth
redfish/ilo4-2.54-serviceroot
  ServiceRoot.json
    ilo 4 2.54; sessions none; systems /redfish/v1/Systems/; managers /redfish/v1/Managers/
redfish/ilo5-1.30-raw-http
  login_login_response.http
    says Base.1.0.Created Success
  login_root_response.http
    ilo 5 1.30; sessions /redfish/v1/SessionService/Sessions/; systems /redfish/v1/Systems/;
    managers /redfish/v1/Managers/
  logout_logout_response.http
    says Base.1.0.Success Success
  rbsu_bios_response.http
    mode Uefi;
    settings /redfish/v1/systems/1/bios/settings/
  rbsu_patch_bios_response.http
    says iLO.2.2.SystemResetRequired Success
  rbsu_systems_1_response.http
    model ProLiant DL580 Gen10; serial CN76490D14; uuid 464e4f43-4749-4e43-3736-343930443134;
    bios U34 v1.20 (05/10/2017); health Warning; power On; post FinishedPost; boot Disabled;
    mode Unknown; reset /redfish/v1/Systems/1/Actions/ComputerSystem.Reset/; off PushPowerButton;
    manager /redfish/v1/Managers/1/
redfish/ilo5-2.46-dl325gen10plus
  Managers_1.json
    firmware iLO 5 v2.46; licensed iLO Advanced, Perpetual, scripted media;
    media /redfish/v1/Managers/1/VirtualMedia;
    license-service /redfish/v1/Managers/1/LicenseService
  Managers_1_LicenseService_1.json
    license iLO Advanced, Perpetual, scripted media
  Managers_1_VirtualMedia_1.json
    drive floppy empty NotConnected read-only; image none; boot-on-next-reset none;
    insert /redfish/v1/Managers/1/VirtualMedia/1/Actions/VirtualMedia.InsertMedia;
    eject /redfish/v1/Managers/1/VirtualMedia/1/Actions/VirtualMedia.EjectMedia
  Managers_1_VirtualMedia_2.json
    drive cdrom empty NotConnected read-only; image none; boot-on-next-reset false;
    insert /redfish/v1/Managers/1/VirtualMedia/2/Actions/VirtualMedia.InsertMedia;
    eject /redfish/v1/Managers/1/VirtualMedia/2/Actions/VirtualMedia.EjectMedia
  ServiceRoot.json
    ilo 5 2.46; sessions /redfish/v1/SessionService/Sessions; systems /redfish/v1/Systems;
    managers /redfish/v1/Managers
  Systems_1.json
    model ProLiant DL325 Gen10 Plus - SIMULATED; serial MXQ019020B;
    uuid 36383150-3630-584d-5130-313930323042; bios A43 v2.52 (10/29/2021); health OK; power On;
    post FinishedPost; boot Disabled; mode Unknown;
    reset /redfish/v1/Systems/1/Actions/ComputerSystem.Reset; off GracefulShutdown;
    manager /redfish/v1/Managers/1
  Systems_1_SecureBoot.json
    secure-boot Disabled now, Disabled next
  Systems_1_bios.json
    mode Uefi;
    settings /redfish/v1/systems/1/bios/settings/
redfish/ilo5-2.70-xl675dgen10plus
  Managers_1_VirtualMedia_1.json
    drive floppy empty NotConnected read-only; image none; boot-on-next-reset none;
    insert /redfish/v1/Managers/1/VirtualMedia/1/Actions/VirtualMedia.InsertMedia/;
    eject /redfish/v1/Managers/1/VirtualMedia/1/Actions/VirtualMedia.EjectMedia/
  ServiceRoot.json
    ilo 5 2.70; sessions /redfish/v1/SessionService/Sessions/; systems /redfish/v1/Systems/;
    managers /redfish/v1/Managers/
redfish/ilo5-3.11-dl360gen10plus
  Managers.json
    members /redfish/v1/Managers/1
  Managers_1.json
    firmware iLO 5 v3.11;
    licensed iLO Advanced limited-distribution test, Internal, scripted media;
    media /redfish/v1/Managers/1/VirtualMedia;
    license-service /redfish/v1/Managers/1/LicenseService
  Managers_1_LicenseService.json
    members /redfish/v1/Managers/1/LicenseService/1
  Managers_1_LicenseService_1.json
    license iLO Advanced limited-distribution test, Internal, scripted media
  Managers_1_VirtualMedia.json
    members /redfish/v1/Managers/1/VirtualMedia/1 /redfish/v1/Managers/1/VirtualMedia/2
  Managers_1_VirtualMedia_1.json
    drive floppy inserted URI read-only; image
    http://172.18.58.146:8080/api/file-copy-request/download/44cf87d0-cf23-430e-bc43-6c6decbfe3f2;
    boot-on-next-reset none;
    insert /redfish/v1/Managers/1/VirtualMedia/1/Actions/VirtualMedia.InsertMedia;
    eject /redfish/v1/Managers/1/VirtualMedia/1/Actions/VirtualMedia.EjectMedia
  Managers_1_VirtualMedia_2.json
    drive cdrom empty NotConnected read-only; image none; boot-on-next-reset false;
    insert /redfish/v1/Managers/1/VirtualMedia/2/Actions/VirtualMedia.InsertMedia;
    eject /redfish/v1/Managers/1/VirtualMedia/2/Actions/VirtualMedia.EjectMedia
  ServiceRoot.json
    ilo 5 3.11; sessions /redfish/v1/SessionService/Sessions; systems /redfish/v1/Systems;
    managers /redfish/v1/Managers
  Systems.json
    members /redfish/v1/Systems/1
  Systems_1.json
    model ProLiant DL360 Gen10 Plus - SIMULATED; serial MXQ2390RHW;
    uuid 39383250-3834-584d-5132-333930524857; bios U46 v2.34 (03/11/2025); health OK; power On;
    post FinishedPost; boot Disabled; mode Unknown;
    reset /redfish/v1/Systems/1/Actions/ComputerSystem.Reset; off GracefulShutdown;
    manager /redfish/v1/Managers/1
  Systems_1_SecureBoot.json
    secure-boot Disabled now, Disabled next
  Systems_1_bios.json
    mode Uefi;
    settings /redfish/v1/systems/1/bios/settings/
  Systems_1_bios_oem_hpe_boot.json
    order HD.Slot.12.3 Generic.USB.1.1 NIC.Slot.1.1.IPv4 NIC.Slot.1.1.Httpv4 OCP.Slot.10.1.IPv4
    OCP.Slot.10.1.Httpv4 NIC.Slot.1.1.Httpv6 NIC.Slot.1.1.IPv6 OCP.Slot.10.1.Httpv6
    OCP.Slot.10.1.IPv6 FD.Virtual.4.1 HD.Slot.12.2;
    first Hdd; settings /redfish/v1/systems/1/bios/oem/hpe/boot/settings/
  Systems_1_bios_oem_hpe_boot_settings.json
    order HD.Slot.12.3 Generic.USB.1.1 NIC.Slot.1.1.IPv4 NIC.Slot.1.1.Httpv4 OCP.Slot.10.1.IPv4
    OCP.Slot.10.1.Httpv4 NIC.Slot.1.1.Httpv6 NIC.Slot.1.1.IPv6 OCP.Slot.10.1.Httpv6
    OCP.Slot.10.1.IPv6 FD.Virtual.4.1 HD.Slot.12.2;
    first Hdd; settings none
  Systems_1_bios_settings.json
    mode Uefi;
    settings none
redfish/ilo5-proliantutils
  bios.json#Default
    mode Uefi;
    settings /redfish/v1/systems/1/bios/settings/
  bios.json#BIOS_pending_settings_default
    mode Uefi;
    settings none
  bios_boot.json#Default
    order HD.EmbSWRAID.3.1 HD.EmbSWRAID.1.2 Generic.USB.1.1 NIC.LOM.1.1.IPv4 NIC.LOM.1.1.IPv6
    NIC.LOM.1.1.Httpv4 NIC.LOM.1.1.Httpv6 HD.SD.1.2 Shell.Emb.1.2 CD.Virtual.3.1
    Unknown.Unknown.200.1 FD.Virtual.4.1;
    first Hdd; settings /redfish/v1/systems/1/bios/boot/settings/
  bios_boot.json#BIOS_boot_without_boot
    order HD.EmbSWRAID.3.1;
    first none; settings /redfish/v1/systems/1/bios/boot/settings/
  bios_boot.json#BIOS_boot_without_boot_sources
    order none;
    first none; settings /redfish/v1/systems/1/bios/boot/settings/
  bios_boot.json#BIOS_persistent_boot_device_none
    order HD.EmbSATA.4.3;
    first Hdd; settings /redfish/v1/systems/1/bios/boot/settings/
  manager.json
    firmware iLO 5 v1.15;
    licensed iLO Advanced limited-distribution test, Internal, scripted media;
    media /redfish/v1/Managers/1/VirtualMedia/;
    license-service /redfish/v1/Managers/1/LicenseService/
  root.json
    ilo 5 1.10; sessions /redfish/v1/SessionService/Sessions/; systems /redfish/v1/Systems/;
    managers /redfish/v1/Managers/
  secure_boot.json#default
    secure-boot Disabled now, Disabled next
  system.json#default
    model ProLiant DL180 Gen10; serial none; uuid 00000000-0000-0000-0000-000000000000;
    bios U31 v1.00 (03/11/2017); health OK; power On; post FinishedPost; boot Disabled;
    mode Unknown; reset /redfish/v1/Systems/1/Actions/ComputerSystem.Reset/; off PushPowerButton;
    manager /redfish/v1/Managers/1/
  system.json#System_for_oem_ethernet_interfaces
    model ProLiant DL180 Gen10; serial none; uuid none; bios U31 v1.00 (03/11/2017);
    health Unknown; power Unknown; post Unknown; boot Disabled; mode Unknown;
    reset /redfish/v1/Systems/1/Actions/ComputerSystem.Reset/; off PushPowerButton
  system.json#System_op_for_one_time_boot_cdrom
    model none; serial none; uuid 00000000-0000-0000-0000-000000000000; bios none; health Unknown;
    power On; post Unknown; boot Once Cd; mode Uefi;
    reset /redfish/v1/Systems/1/Actions/ComputerSystem.Reset/; off PushPowerButton
  system.json#System_op_for_cdrom_persistent_boot
    model none; serial none; uuid 00000000-0000-0000-0000-000000000000; bios none; health Unknown;
    power On; post Unknown; boot Continuous Cd; mode Uefi;
    reset /redfish/v1/Systems/1/Actions/ComputerSystem.Reset/; off PushPowerButton
  system.json#System_op_for_update_persistent_boot_uefi_target
    model none; serial none; uuid 00000000-0000-0000-0000-000000000000; bios none; health Unknown;
    power On; post Unknown; boot Once Cd; mode Uefi;
    reset /redfish/v1/Systems/1/Actions/ComputerSystem.Reset/; off PushPowerButton
  vmedia.json#default
    drive cdrom empty NotConnected read-only; image none; boot-on-next-reset false; insert
    /redfish/v1/Managers/1/VirtualMedia/2/Actions/Oem/Hpe/HpeiLOVirtualMedia.InsertVirtualMedia/;
    eject
    /redfish/v1/Managers/1/VirtualMedia/2/Actions/Oem/Hpe/HpeiLOVirtualMedia.EjectVirtualMedia/
  vmedia.json#vmedia_inserted
    drive cdrom inserted URI read-only; image http://172.17.1.121:8081/test;
    boot-on-next-reset none; insert
    /redfish/v1/Managers/1/VirtualMedia/2/Actions/Oem/Hpe/HpeiLOVirtualMedia.InsertVirtualMedia/;
    eject
    /redfish/v1/Managers/1/VirtualMedia/2/Actions/Oem/Hpe/HpeiLOVirtualMedia.EjectVirtualMedia/
  vmedia.json#vmedia_floppy
    drive floppy empty NotConnected writable; image none; boot-on-next-reset none; insert
    /redfish/v1/Managers/1/VirtualMedia/1/Actions/Oem/Hpe/HpeiLOVirtualMedia.InsertVirtualMedia/;
    eject
    /redfish/v1/Managers/1/VirtualMedia/1/Actions/Oem/Hpe/HpeiLOVirtualMedia.EjectVirtualMedia/
redfish/ilo6-1.66-dl380agen11
  Managers.json
    members /redfish/v1/Managers/1
  Managers_1.json
    firmware iLO 6 v1.66; licensed iLO Advanced, Perpetual, scripted media;
    media /redfish/v1/Managers/1/VirtualMedia;
    license-service /redfish/v1/Managers/1/LicenseService
  Managers_1_LicenseService_1.json
    license iLO Advanced, Perpetual, scripted media
  Managers_1_VirtualMedia.json
    members /redfish/v1/Managers/1/VirtualMedia/1 /redfish/v1/Managers/1/VirtualMedia/2
  Managers_1_VirtualMedia_2.json
    drive cdrom empty NotConnected read-only; image none; boot-on-next-reset false;
    insert /redfish/v1/Managers/1/VirtualMedia/2/Actions/VirtualMedia.InsertMedia;
    eject /redfish/v1/Managers/1/VirtualMedia/2/Actions/VirtualMedia.EjectMedia
  ServiceRoot.json
    ilo 6 1.66; sessions /redfish/v1/SessionService/Sessions; systems /redfish/v1/Systems;
    managers /redfish/v1/Managers
  Systems_1.json
    model ProLiant DL380a Gen11 -- SIMULATED; serial 2M2D2J00L4;
    uuid 39343550-3330-4d32-3244-324a30304c34; bios U58 v2.44 (01/17/2025); health OK; power On;
    post FinishedPost; boot Disabled; mode Uefi;
    reset /redfish/v1/Systems/1/Actions/ComputerSystem.Reset; off GracefulShutdown;
    manager /redfish/v1/Managers/1
  Systems_1_SecureBoot.json
    secure-boot Disabled now, Disabled next
  Systems_1_bios.json
    mode Unknown;
    settings /redfish/v1/systems/1/bios/settings/
  Systems_1_bios_oem_hpe_boot.json
    order Generic.USB.1.1 NIC.Slot.2.1.IPv4 NIC.Slot.2.1.Httpv4 NIC.Slot.2.1.IPv6
    NIC.Slot.2.1.Httpv6 OCP.Slot.18.1;
    first Usb; settings /redfish/v1/systems/1/bios/oem/hpe/boot/settings/
redfish/ilo7-1.13-dl380agen12
  Managers_1.json
    firmware 1.13.01 May 13 2025; licensed iLO Advanced, Perpetual, scripted media;
    media /redfish/v1/Managers/1/VirtualMedia;
    license-service /redfish/v1/Managers/1/LicenseService
  Managers_1_LicenseService_1.json
    license iLO Advanced, Perpetual, scripted media
  Managers_1_VirtualMedia_2.json
    drive cdrom empty NotConnected read-only; image none; boot-on-next-reset false;
    insert /redfish/v1/Managers/1/VirtualMedia/2/Actions/VirtualMedia.InsertMedia;
    eject /redfish/v1/Managers/1/VirtualMedia/2/Actions/VirtualMedia.EjectMedia
  Systems_1.json
    model HPE ProLiant Compute DL380a Gen12 -- SIMULATED; serial 2M2D2Q02TH;
    uuid 37363750-3630-4d32-3244-325130325448; bios U72 v1.34 (04/18/2025); health Warning;
    power On; post FinishedPost; boot Disabled; mode Uefi;
    reset /redfish/v1/Systems/1/Actions/ComputerSystem.Reset; off GracefulShutdown;
    manager /redfish/v1/Managers/1
  Systems_1_SecureBoot.json
    secure-boot Disabled now, Disabled next
redfish/ilo7-1.14-dl360gen12
  Managers.json
    members /redfish/v1/Managers/1
  Managers_1.json
    firmware 1.14.00 May 28 2025; licensed iLO Advanced, Perpetual, scripted media;
    media /redfish/v1/Managers/1/VirtualMedia;
    license-service /redfish/v1/Managers/1/LicenseService
  Managers_1_LicenseService.json
    members /redfish/v1/Managers/1/LicenseService/1
  Managers_1_LicenseService_1.json
    license iLO Advanced, Perpetual, scripted media
  Managers_1_VirtualMedia.json
    members /redfish/v1/Managers/1/VirtualMedia/1 /redfish/v1/Managers/1/VirtualMedia/2
  Managers_1_VirtualMedia_1.json
    drive floppy empty NotConnected writable; image none; boot-on-next-reset none;
    insert /redfish/v1/Managers/1/VirtualMedia/1/Actions/VirtualMedia.InsertMedia;
    eject /redfish/v1/Managers/1/VirtualMedia/1/Actions/VirtualMedia.EjectMedia
  Managers_1_VirtualMedia_2.json
    drive cdrom empty NotConnected read-only; image none; boot-on-next-reset false;
    insert /redfish/v1/Managers/1/VirtualMedia/2/Actions/VirtualMedia.InsertMedia;
    eject /redfish/v1/Managers/1/VirtualMedia/2/Actions/VirtualMedia.EjectMedia
  ServiceRoot.json
    ilo 7 1.14.00; sessions /redfish/v1/SessionService/Sessions; systems /redfish/v1/Systems;
    managers /redfish/v1/Managers
  Systems.json
    members /redfish/v1/Systems/1
  Systems_1.json
    model HPE ProLiant Compute DL360 Gen12 -- SIMULATED; serial 3M1D2V13TW;
    uuid 31323750-3637-4d33-3144-325631335457; bios U68 v1.40 (05/22/2025); health OK; power On;
    post InPostDiscoveryComplete; boot Disabled; mode Uefi;
    reset /redfish/v1/Systems/1/Actions/ComputerSystem.Reset; off GracefulShutdown;
    manager /redfish/v1/Managers/1
  Systems_1_SecureBoot.json
    secure-boot Disabled now, Disabled next
  Systems_1_bios.json
    mode Unknown;
    settings /redfish/v1/systems/1/bios/settings/
  Systems_1_bios_oem_hpe_boot.json
    order Generic.USB.1.1 NIC.Slot.1.1.Httpv4 NIC.Slot.1.1.IPv4 NIC.Slot.1.1.Httpv6
    NIC.Slot.1.1.IPv6;
    first Usb; settings /redfish/v1/systems/1/bios/oem/hpe/boot/settings/
  Systems_1_bios_oem_hpe_boot_settings.json
    order Generic.USB.1.1 NIC.Slot.1.1.Httpv4 NIC.Slot.1.1.IPv4 NIC.Slot.1.1.Httpv6
    NIC.Slot.1.1.IPv6;
    first Usb; settings none
  Systems_1_bios_settings.json
    mode Unknown;
    settings none
rest/ilo4-ris
  collections_sample.json
    members /rest/v1/AccountService/Accounts/1
  get_bios_boot.json
    order HD.Slot.1.1 HD.Slot.1.2 NIC.LOM.1.1.iSCSI NIC.LOM.1.1.IPv4 NIC.LOM.1.1.IPv6
    Generic.USB.1.1 CD.Virtual.2.1;
    first Hdd; settings /rest/v1/systems/1/bios/Boot/Settings
  get_bios_pending_settings.json
    mode Uefi;
    settings none
  get_bios_settings.json
    mode Uefi;
    settings /rest/v1/systems/1/bios/Settings
  get_manager_details.json
    firmware none; licensed iLO 4 Advanced, Perpetual, scripted media;
    media /rest/v1/Managers/1/VirtualMedia; license-service /rest/v1/Managers/1/LicenseService
  resp_body_for_system_with_cdrom.json
    model ProLiant BL460c Gen9; serial SGH449WNL3; uuid 30373237-3132-4753-4834-3439574e4c33;
    bios I36 v1.40 (01/28/2015); health OK; power Off; post PowerOff; boot Once Cd; mode Unknown;
    manager /rest/v1/Managers/1
  resp_vm_status_cdrom_empty.json
    drive cdrom empty NotConnected read-only; image none; boot-on-next-reset false; insert none;
    eject none
  resp_vm_status_cdrom_inserted.json
    drive cdrom inserted URI read-only; image http://1.1.1.1/cdrom.iso; boot-on-next-reset false;
    insert none; eject none
  resp_vm_status_floppy_empty.json
    drive floppy empty NotConnected writable; image none; boot-on-next-reset none; insert none;
    eject none
  response_body_for_rest_op.json
    model ProLiant BL460c Gen9; serial SGH449WNL3; uuid 30373237-3132-4753-4834-3439574e4c33;
    bios I36 v1.40 (01/28/2015); health OK; power Off; post PowerOff; boot Disabled; mode Unknown;
    manager /rest/v1/Managers/1
  rest_failure_output.json
    says Base.0.0.FakeFailureMessage unknown; error 400 refused
  rest_get_secure_boot.json
    secure-boot Disabled now, Enabled next
  system_with_cdrom_cont.json
    model ProLiant BL460c Gen9; serial SGH449WNL3; uuid 30373237-3132-4753-4834-3439574e4c33;
    bios I36 v1.40 (01/28/2015); health OK; power Off; post PowerOff; boot Continuous Cd;
    mode Unknown; manager /rest/v1/Managers/1
";
