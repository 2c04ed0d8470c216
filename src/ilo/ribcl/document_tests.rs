use super::super::http;
use super::*;
use proptest::prelude::*;
use std::path::{Path, PathBuf};

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/ribcl")
        .join(folder)
}

/// The body of a capture, headers and chunks taken off where it has them.
fn body(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    match bytes.starts_with(b"HTTP/") {
        true => {
            let (status, body) = http::read(&bytes).unwrap();
            assert_eq!(status, 200, "{path:?}");
            body
        }
        false => bytes,
    }
}

fn parse(name: &str) -> Answer {
    Answer::parse(&body(&data(name))).unwrap()
}

/// File, element, attribute, value: read off the captures by eye.
const FACTS: [(&str, &str, &str, &str); 12] = [
    (
        "ilo3/get_fw_version.raw",
        "GET_FW_VERSION",
        "FIRMWARE_VERSION",
        "1.82",
    ),
    (
        "ilo3/get_fw_version.raw",
        "GET_FW_VERSION",
        "MANAGEMENT_PROCESSOR",
        "iLO3",
    ),
    (
        "ilo3/get_vm_status.raw",
        "GET_VM_STATUS",
        "VM_APPLET",
        "DISCONNECTED",
    ),
    ("ilo3/get_vm_status.raw", "GET_VM_STATUS", "IMAGE_URL", ""),
    (
        "ilo3/get_host_power_status.raw",
        "GET_HOST_POWER",
        "HOST_POWER",
        "ON",
    ),
    ("ilo3/get_one_time_boot.raw", "BOOT_TYPE", "VALUE", "Normal"),
    (
        "ilo3/get_product_name.raw",
        "PRODUCT_NAME",
        "VALUE",
        "ProLiant BL460c G7",
    ),
    (
        "ilo3/get_all_licenses.raw",
        "LICENSE_TYPE",
        "VALUE",
        "iLO 3 Advanced",
    ),
    (
        "ilo4/get_vm_status_cdrom_xml.xml",
        "GET_VM_STATUS",
        "BOOT_OPTION",
        "BOOT_ONCE",
    ),
    (
        "ilo4/get_product_name.xml",
        "PRODUCT_NAME",
        "VALUE",
        "ProLiant DL380 G7",
    ),
    (
        "ilo4/get_all_licenses_xml.xml",
        "LICENSE_CLASS",
        "VALUE",
        "FQL",
    ),
    (
        "ilo4/get_persistent_boot_device_cdrom_uefi_xml.xml",
        "DEVICE",
        "DESCRIPTION",
        "iLO Virtual USB 2 : HP iLO Virtual USB CD/DVD ROM",
    ),
];

#[test]
fn captures_tell_their_facts() {
    for (file, element, attribute, value) in FACTS {
        let answer = parse(file);
        let found = answer.element(element);
        let found = found.unwrap_or_else(|| panic!("{file} has no {element}"));
        assert_eq!(found.attribute(attribute), value, "{file}");
    }
}

#[test]
fn failures_are_found_among_successes() {
    let cases = [
        ("ilo4/login_fail_xml.xml", 0x005F, "Login failed."),
        (
            "ilo4/boot_mode_not_supported.xml",
            0x003C,
            "Feature not supported - GET_PENDING_BOOT_MODE",
        ),
    ];
    for (file, status, message) in cases {
        let answer = parse(file);
        assert_eq!((answer.status, answer.message.as_str()), (status, message));
    }
}

#[test]
fn every_capture_is_read_whole_and_cut() {
    for folder in ["ilo3", "ilo4"] {
        for entry in std::fs::read_dir(data(folder)).unwrap() {
            let path = entry.unwrap().path();
            let body = body(&path);
            assert!(!scan(&body).unwrap().is_empty(), "{path:?}");
            for cut in (0..body.len()).step_by(1 + body.len() / 50) {
                drop(Answer::parse(&body[..cut]));
            }
        }
    }
}

#[test]
fn an_http_answer_is_complete_only_at_its_end() {
    let bytes = std::fs::read(data("ilo3/get_vm_status.raw")).unwrap();
    assert!(http::is_complete(&bytes));
    let whole = http::read(&bytes).unwrap();
    for cut in 0..bytes.len() - 8 {
        assert!(!http::is_complete(&bytes[..cut]), "{cut}");
    }
    // The last chunk may be missing.
    assert_eq!(http::read(&bytes[..bytes.len() - 5]).unwrap(), whole);
}

#[test]
fn what_firmware_breaks_is_read() {
    let broken = b"<?xml version=\"1.0\"?>\r\n<RIBCL VERSION=\"2.22\"/>\n<RESPONSE\n STATUS = \
        \"0x0001\"\n MESSAGE='Error: \x01near \"GET_X\".'\n /></RIBCL>\nmore <INFORM>t</INFORM>";
    let answer = Answer::parse(broken).unwrap();
    assert_eq!(
        (answer.status, answer.message.as_str()),
        (1, "Error: near \"GET_X\".")
    );
    let nested = b"<RIBCL><RESPONSE STATUS=\"0x0001\" MESSAGE=\"syntax error near \"GET_X\".\" />";
    let answer = Answer::parse(nested).unwrap();
    assert_eq!(answer.message, "syntax error near \"GET_X\".");
    assert_eq!(
        Answer::parse(b"<html>no</html>").unwrap_err().kind(),
        Kind::Protocol
    );
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        drop(Answer::parse(&bytes));
        drop(http::read(&bytes));
        http::is_complete(&bytes);
    }

    #[test]
    fn never_panics_on_markup(text in "[<>/='\"a? x0&;!é\n-]{0,300}") {
        drop(Answer::parse(text.as_bytes()));
    }
}
