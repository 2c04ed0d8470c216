//! Every captured answer against what it states.
//!
//! [`FACTS`] was read off the documents by hand. A folder stands at the margin, a file below it;
//! facts end in `;`: the status that counts with its class and text, `ELEMENT.ATTRIBUTE value` or
//! `ELEMENT text`, and what is made of several of them.

use super::document::{Answer, Element, scan};
use super::{drive, http, status, system_rom, worst};
use crate::ilo::model::{Device, VmediaDevice};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ilo/ribcl")
}

/// The body of a capture, headers and chunks taken off where it has them.
fn body(file: &str) -> Vec<u8> {
    let bytes = std::fs::read(data().join(file)).unwrap();
    if !bytes.starts_with(b"HTTP/") {
        return bytes;
    }
    assert!(http::is_complete(&bytes), "{file}");
    let (status, body) = http::read(&bytes).unwrap();
    assert_eq!(status, 200, "{file}");
    body
}

/// File and facts of every entry.
fn entries() -> Vec<(String, String)> {
    let (mut folder, mut entries) = ("", Vec::<(String, String)>::new());
    for line in FACTS.lines().filter(|line| !line.is_empty()) {
        match line.trim_start() {
            name if name.len() == line.len() => folder = name,
            name if line.len() - name.len() == 2 => {
                entries.push((format!("{folder}/{name}"), String::new()));
            }
            facts => entries.last_mut().unwrap().1.push_str(&format!(" {facts}")),
        }
    }
    entries
}

#[test]
fn every_capture_is_read_as_what_it_states() {
    for (file, facts) in entries() {
        let body = body(&file);
        for fact in facts.split(';').map(str::trim) {
            let (name, stated) = fact.split_once(' ').unwrap();
            assert_eq!(read(&body, name), stated, "{name} of {file}");
        }
    }
}

#[test]
fn every_capture_has_its_entry() {
    let mut there = BTreeSet::new();
    for folder in ["ilo3-raw-http", "ilo4-documents"] {
        for file in std::fs::read_dir(data().join(folder)).unwrap() {
            let path = file.unwrap().path();
            let name = path.strip_prefix(data()).unwrap();
            there.insert(name.to_str().unwrap().to_owned());
        }
    }
    let stated: BTreeSet<String> = entries().into_iter().map(|(file, _)| file).collect();
    assert_eq!(stated, there);
}

#[test]
fn a_capture_that_is_cut_does_no_harm() {
    for (file, _) in entries() {
        let body = body(&file);
        for cut in (0..body.len()).step_by(1 + body.len() / 50) {
            drop(Answer::parse(&body[..cut]));
        }
    }
}

/// What our readers make of the answer.
fn read(body: &[u8], name: &str) -> String {
    let answer = || Answer::parse(body).unwrap();
    match name {
        "status" => told(&answer()),
        "health" => worst(&answer()),
        "rom" => system_rom(&answer()),
        "drive" => shown(&answer()),
        "order" => {
            let answer = answer();
            let devices = answer
                .below("PERSISTENT_BOOT")
                .map(|e| e.attribute("VALUE"));
            devices.collect::<Vec<_>>().join(" ")
        }
        place => {
            let (element, attribute) = place.split_once('.').unwrap_or((place, ""));
            let elements = scan(body).unwrap();
            let found = elements.iter().find(|e| e.name == element);
            let found = found.unwrap_or_else(|| panic!("no {element}"));
            let text = match attribute {
                "" => found.text.as_str(),
                attribute => found.attribute(attribute),
            };
            if text.is_empty() { "none" } else { text }.to_owned()
        }
    }
}

fn told(answer: &Answer) -> String {
    let class = match (answer.status, status::class(answer.status, &answer.message)) {
        (0, _) => "Success".to_owned(),
        (_, None) => "unknown".to_owned(),
        (_, Some(class)) => format!("{class:?}"),
    };
    format!("0x{:04X} {class} {}", answer.status, answer.message)
}

fn shown(answer: &Answer) -> String {
    let status: &Element = answer.element("GET_VM_STATUS").unwrap();
    let device = match status.attribute("DEVICE") {
        "FLOPPY" => Device::Floppy,
        _ => Device::Cdrom,
    };
    let shown = VmediaDevice::from(&drive(device, status));
    let medium = if shown.inserted { "inserted" } else { "empty" };
    let access = if shown.write_protected {
        "read-only"
    } else {
        "writable"
    };
    let image = shown.image.as_deref().unwrap_or("none");
    let device = device.as_str();
    format!(
        "{device} {medium} {:?} {access} {image}",
        shown.connected_via
    )
}

const FACTS: &str = r#"
ilo3-raw-http
  certificate_signing_request.raw
    status 0x0000 Success No error
  get_ahs_status.raw
    status 0x003C Unsupported Feature not supported - GET_AHS_STATUS
  get_all_licenses.raw
    status 0x0000 Success No error; LICENSE_TYPE.VALUE iLO 3 Advanced;
    LICENSE_INSTALL_DATE.VALUE Wed Mar  4 18:02:05 2015; LICENSE_CLASS.VALUE FQL
  get_all_users.raw
    status 0x0000 Success No error; USER_LOGIN.VALUE Administrator
  get_asset_tag.raw
    status 0x0000 Success No Asset Tag Information.
  get_cert_subject_info.raw
    status 0x003C Unsupported Feature not supported - GET_CERT_SUBJECT_INFO
  get_current_boot_mode.raw
    status 0x003C Unsupported Feature not supported - GET_CURRENT_BOOT_MODE
  get_dir_config.raw
    status 0x0000 Success No error; DIR_AUTHENTICATION_ENABLED.VALUE N; DIR_SERVER_PORT.VALUE 636;
    DIR_SERVER_ADDRESS.VALUE none; DIR_GRPACCT1_PRIV.VALUE 1,2,3,4,5,6
  get_embedded_health.raw
    status 0x0000 Success No error; health OK; rom 05/05/2011; SPEED.VALUE 29;
    CAUTION.UNIT Celsius
  get_encrypt_settings.raw
    status 0x003C Unsupported Feature not supported - GET_ENCRYPT_SETTINGS
  get_federation_all_groups_info.raw
    status 0x0001 Unsupported Error: Line #11: syntax error near "GET_FEDERATION_ALL_GROUPS_INFO".
  get_federation_group.raw
    status 0x0001 Unsupported Error: Line #11: syntax error near "GET_FEDERATION_GROUP".
  get_fips_status.raw
    status 0x0000 Success No error; FIPS_MODE.VALUE Disabled
  get_fw_version.raw
    status 0x0000 Success No error; GET_FW_VERSION.FIRMWARE_VERSION 1.82;
    GET_FW_VERSION.FIRMWARE_DATE Jan 15 2015; GET_FW_VERSION.MANAGEMENT_PROCESSOR iLO3;
    GET_FW_VERSION.LICENSE_TYPE iLO 3 Advanced
  get_global_settings.raw
    status 0x0000 Success No error; SESSION_TIMEOUT.VALUE 30; VIRTUAL_MEDIA_PORT.VALUE 17988;
    SERIAL_CLI_STATUS.VALUE Enabled-Authentication Required; ENFORCE_AES.VALUE N
  get_host_power_saver_status.raw
    status 0x0000 Success No error; GET_HOST_POWER_SAVER.HOST_POWER_SAVER AUTO
  get_host_power_status.raw
    status 0x0000 Success No error; GET_HOST_POWER.HOST_POWER ON
  get_hotkey_config.raw
    status 0x0000 Success No error; CTRL_T.VALUE NONE,NONE,NONE,NONE,NONE
  get_ilo_event_log.raw
    status 0x0000 Success No error; EVENT_LOG.DESCRIPTION iLO 3 Event Log; EVENT.COUNT 3;
    EVENT.DESCRIPTION XML login: Administrator - xxxxxxxxx(DNS name not found).
  get_language.raw
    status 0x0000 Success No error; GET_LANGUAGE.LANG_ID en; GET_LANGUAGE.LANGUAGE English
  get_network_settings.raw
    status 0x0000 Success No error; MAC_ADDRESS.VALUE e4:11:5b:d3:ef:c3;
    SUBNET_MASK.VALUE 255.255.255.0; SNTP_SERVER1.VALUE none
  get_oa_info.raw
    status 0x0000 Success No error; macAddress 68:b5:99:bc:f1:63; Location 1; uidStatus Off
  get_one_time_boot.raw
    status 0x0000 Success No error; BOOT_TYPE.VALUE Normal
  get_pers_mouse_keyboard_enabled.raw
    status 0x0000 Success No error; PERSMOUSE_ENABLED.VALUE Y
  get_product_name.raw
    status 0x0000 Success No error; PRODUCT_NAME.VALUE ProLiant BL460c G7
  get_rack_settings.raw
    status 0x003C Unsupported Feature not supported - RACK_INFO
  get_security_msg.raw
    status 0x0000 Success No error; SECURITY_MSG.VALUE Disabled; SECURITY_MSG_TEXT none
  get_server_auto_pwr.raw
    status 0x0000 Success No error; SERVER_AUTO_PWR.VALUE ON
  get_server_fqdn.raw
    status 0x003C Unsupported Feature not supported - GET_SERVER_FQDN
  get_smh_fqdn.raw
    status 0x003C Unsupported Feature not supported - GET_SMH_FQDN
  get_snmp_im_settings.raw
    status 0x0000 Success No error; SNMP_ADDRESS_1.VALUE none; CIM_SECURITY_MASK.VALUE 3
  get_supported_boot_mode.raw
    status 0x003C Unsupported Feature not supported - GET_SUPPORTED_BOOT_MODE
  get_user.raw
    status 0x0000 Success No error; GET_USER.USER_LOGIN Administrator;
    GET_USER.VIRTUAL_MEDIA_PRIV Y; GET_USER.CONFIG_ILO_PRIV Y
  get_vm_status.raw
    status 0x0000 Success No error; drive cdrom empty NotConnected writable none
  profile_apply_get_results.raw
    status 0x003C Unsupported Feature not supported - PROFILE_APPLY_GET_RESULTS
  xmldata.raw
    SBSN CZ320580J3; SPN ProLiant BL460c G7; cUUID 37333036-3831-5A43-3332-303538304A33;
    PN Integrated Lights-Out 3 (iLO 3); FWRI 1.82
ilo4-documents
  activate_license_xml.xml
    status 0x0000 Success No error
  bmclib_xmldata_dl380gen9.xml
    SBSN CZ3605020D; SPN ProLiant DL380 Gen9; cUUID 30393137-3436-5A43-3336-303530323044;
    PRODUCTID 719064-B21; MACADDR 94:57:a5:60:aa:ca
  boot_mode_not_supported.xml
    status 0x003C Unsupported Feature not supported - GET_PENDING_BOOT_MODE
  eject_virtual_media_xml.xml
    status 0x0000 Success No error
  get_all_licenses_xml.xml
    status 0x0000 Success No error; LICENSE_TYPE.VALUE iLO 3 Advanced; LICENSE_CLASS.VALUE FQL
  get_host_health_data.xml
    status 0x0000 Success No error; health OK; rom 07/01/2013; SPEED.VALUE 31
  get_host_power_status_xml.xml
    status 0x0000 Success No error; GET_HOST_POWER.HOST_POWER ON
  get_host_uuid.xml
    SBSN 2M220102JA; SPN ProLiant ML110 G7; cUUID 37363536-3636-4D32-3232-303130324A41;
    PN Integrated Lights-Out 3 (iLO 3); FWRI 1.70
  get_persistent_boot_device_bios_xml.xml
    status 0x0000 Success No error; order CDROM NETWORK USB FLOPPY HDD
  get_persistent_boot_device_cdrom_uefi_xml.xml
    status 0x0000 Success No error; order Boot000B Boot0007 Boot0009 Boot0008 Boot000A;
    DEVICE.DESCRIPTION iLO Virtual USB 2 : HP iLO Virtual USB CD/DVD ROM
  get_persistent_boot_device_hdd_uefi_xml.xml
    status 0x0000 Success No error; order Boot0007 Boot000B Boot000A Boot0009 Boot0008
  get_product_name.xml
    status 0x0000 Success No error; PRODUCT_NAME.VALUE ProLiant DL380 G7
  get_vm_status_cdrom_xml.xml
    status 0x0000 Success No error; drive cdrom empty NotConnected read-only none;
    GET_VM_STATUS.BOOT_OPTION BOOT_ONCE
  get_vm_status_xml.xml
    status 0x0000 Success No error;
    drive floppy inserted Uri writable http://1.2.3.4/floppy.img
  hold_pwr_btn_xml.xml
    status 0x0000 Success Host power is already OFF.
  insert_virtual_media_xml.xml
    status 0x0000 Success No error
  login_fail_xml.xml
    status 0x005F Login Login failed.
  reset_ilo_credential_xml.xml
    status 0x0000 Success No error
  reset_server_xml.xml
    status 0x0000 Success Server being reset.
  set_host_power_xml.xml
    status 0x0000 Success Host power is already ON.
  set_one_time_boot_xml.xml
    status 0x0000 Success No error
"#;
