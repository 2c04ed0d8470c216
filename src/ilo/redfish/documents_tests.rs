use super::*;
use crate::ilo::failure::Message;
use crate::ilo::model::{Dialect, VmediaDevice};
use proptest::prelude::*;
use serde_json::json;

// What the captures state stands in `captures_tests`; here is what none of them has.

#[test]
fn other_makers_are_no_ilo() {
    for foreign in [json!({"Oem": {"Dell": {}}}), Value::Null] {
        assert_eq!(generation(&foreign), None);
    }
}

#[test]
fn boot_modes_that_no_capture_has() {
    let legacy = json!({"Attributes": {"BootMode": "LegacyBios"}});
    assert_eq!(boot_mode(&legacy, &Value::Null), BootMode::Legacy);
    let bios_only = json!({"Oem": {"Hpe": {"Bios": {"UefiClass": 0}}}});
    assert_eq!(boot_mode(&Value::Null, &bios_only), BootMode::Legacy);
    let foreign = json!({"Boot": {"BootSourceOverrideMode": "Legacy"}});
    assert_eq!(boot_mode(&Value::Null, &foreign), BootMode::Legacy);
    assert_eq!(boot_mode(&Value::Null, &Value::Null), BootMode::Unknown);
}

#[test]
fn licences_that_no_capture_has() {
    let standard = json!({
        "License": "iLO Standard", "LicenseFeatures": {"VM": false, "VMScript": false}
    });
    assert!(!license(&standard).scripted_media);
    assert!(license(&json!({"License": "iLO 5 Advanced"})).scripted_media);
    assert!(!license(&json!({"License": "iLO 5 Standard"})).scripted_media);
    let of_manager = json!({"Oem": {"Hp": {"License": {"LicenseString": "iLO 4 Standard"}}}});
    assert!(!license_of_manager(&of_manager).scripted_media);
    assert!(license_of_manager(&json!({})).scripted_media);
}

#[test]
fn a_drive_holds_the_url_that_it_shows() {
    let shown = drive(&json!({
        "MediaTypes": ["CD"], "Inserted": true, "ConnectedVia": "URI", "Image": "http://h/a.iso",
    }))
    .unwrap();
    assert!(shown.holds(&Secret::new("http://h/a.iso")));
    assert!(!shown.holds(&Secret::new("http://elsewhere/")));
    assert!(drive(&json!({"MediaTypes": ["Tape"]})).is_none());
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

/// Members of the documents that are read, with anything in them.
fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        "(iLO [0-9]{0,3}|Once|CD|URI|/redfish/v1/x|http://u:p@h/i\\?s=1)".prop_map(Value::from),
    ];
    let name = "(Oem|Hpe|Hp|Manager|ManagerType|Boot|BootSourceOverrideTarget|Links|links|Member|\
        Members|@odata.id|href|Attributes|BootMode|MediaTypes|Image|Inserted|Status|Health|\
        License|LicenseFeatures|VMScript|Bios|UefiClass|error|Messages|MessageId|MessageArgs|\
        @Message.ExtendedInfo|Actions|0)";
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(name, inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_in_a_document_panics(document in document(), rest in any::<bool>()) {
        let dialect = if rest { Dialect::Rest } else { Dialect::Redfish };
        let document = super::super::rest::as_redfish(dialect, document);
        drop((generation(&document), members(&document).count(), uuid(&document)));
        drop((power_state(&document), post_state(&document), health(&document)));
        let _ = (boot_override(&document), boot_mode(&document, &document));
        drop((license(&document), license_of_manager(&document), Message::of(&document)));
        drop(drive(&document).map(|drive| VmediaDevice::from(&drive)));
    }
}
