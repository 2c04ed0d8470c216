//! The simulated REST of iLO 4 and the Redfish of all generations, asked by hand.

use super::ilo_ribcl::site_of;
use crate::ilo::site::{PASSWORD, Site, TIMEOUT, eventually, pattern};
use flowrun::http;
use flowrun::ilo::model::BootMode;
use flowrun::lab::host::BootSource;
use flowrun::lab::ilo::{EventKind, Fault, Generation};
use reqwest::{Client, Method};
use serde_json::{Value, json};

const CD: &str = "Managers/1/VirtualMedia/2/";

struct Plain<'a> {
    site: &'a Site,
    client: Client,
    /// `/rest/v1/` or `/redfish/v1/`.
    root: &'static str,
    odata: bool,
}

impl<'a> Plain<'a> {
    fn new(site: &'a Site, root: &'static str, odata: bool) -> Self {
        let trust = http::Trust::Ca(site.authority.pem.clone());
        let client = http::client(&trust, TIMEOUT).unwrap();
        Self {
            site,
            client,
            root,
            odata,
        }
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let path = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{}{path}", self.root),
        };
        let url = format!("{}{path}", self.site.base_url());
        let mut request = self.client.request(method, url);
        request = request.basic_auth("root", Some(PASSWORD));
        if self.odata {
            request = request.header("OData-Version", "4.0");
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, document) = self.send(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {document}");
        document
    }

    async fn patch(&self, path: &str, body: Value) -> (u16, String) {
        let (status, answer) = self.send(Method::PATCH, path, Some(body)).await;
        (status, key(&answer))
    }

    async fn post(&self, path: &str, body: Value) -> (u16, String) {
        let (status, answer) = self.send(Method::POST, path, Some(body)).await;
        (status, key(&answer))
    }
}

/// The message's key, in whichever spelling.
fn key(answer: &Value) -> String {
    let places = [
        "/error/@Message.ExtendedInfo/0/MessageId",
        "/error/@Message.ExtendedInfo/0/MessageID",
        "/Messages/0/MessageID",
    ];
    let id = places
        .iter()
        .find_map(|place| answer.pointer(place)?.as_str());
    let id = id.unwrap_or_default();
    id.rsplit('.').next().unwrap().to_owned()
}

fn said(status: u16, key: &str) -> (u16, String) {
    (status, key.to_owned())
}

#[tokio::test]
async fn ilo_4_has_three_spellings() {
    let site = site_of(Generation::Ilo4Rest, &[]);
    let rest = Plain::new(&site, "/rest/v1/", false);
    let system = rest.get("Systems/1").await;
    assert_eq!(system["Power"], "Off");
    assert_eq!(
        system["Oem"]["Hp"]["links"]["BIOS"]["href"],
        "/rest/v1/systems/1/bios"
    );
    assert!(system.get("@odata.id").is_none());
    let members = rest.get("Managers/1/VirtualMedia").await;
    assert_eq!(members["Total"], 2);
    assert_eq!(
        members["links"]["Member"][1]["href"],
        "/rest/v1/Managers/1/VirtualMedia/2"
    );

    let redfish = Plain::new(&site, "/redfish/v1/", true);
    let members = redfish.get("Managers/1/VirtualMedia/").await;
    assert_eq!(
        members["Members"][1]["@odata.id"],
        "/redfish/v1/Managers/1/VirtualMedia/2/"
    );
    let drive = redfish.get(CD).await;
    let insert = &drive["Oem"]["Hp"]["Actions"]["#HpiLOVirtualMedia.InsertVirtualMedia"];
    assert_eq!(
        insert["target"],
        "/redfish/v1/Managers/1/VirtualMedia/2/Actions/Oem/Hp/\
         HpiLOVirtualMedia.InsertVirtualMedia/"
    );
    assert!(drive.get("Actions").is_none() && drive.get("links").is_none());
    let both = Plain::new(&site, "/redfish/v1/", false)
        .get("Managers/1/")
        .await;
    assert_eq!(both["FirmwareVersion"], "iLO 4 v2.54");
    assert_eq!(both["Firmware"]["Current"]["VersionString"], "iLO 4 v2.54");

    // Errors as HPE documents them.
    let wrong = json!({"Action": "Reset", "ResetType": "ForceOff"});
    let (status, error) = rest.send(Method::POST, "Systems/1", Some(wrong)).await;
    assert_eq!(status, 400);
    assert_eq!(error["Type"], "ExtendedError.1.0.0");
    assert_eq!(
        error["Messages"][0]["MessageID"],
        "iLO.0.10.InvalidOperationForSystemState"
    );

    let site = site_of(Generation::Ilo4Rest, &[Fault::NoRedfish]);
    let redfish = Plain::new(&site, "/redfish/v1/", true);
    assert_eq!(redfish.send(Method::GET, "", None).await.0, 404);
    Plain::new(&site, "/rest/v1/", false).get("Systems/1").await;
}

#[tokio::test]
async fn rest_boots_a_medium_once() {
    let site = site_of(Generation::Ilo4Rest, &[]);
    let rest = Plain::new(&site, "/rest/v1/", false);
    let iso = site.image("a.iso", pattern(40_000, 1));
    let insert =
        |url: &str| json!({"Action": "InsertVirtualMedia", "Target": "/Oem/Hp", "Image": url});
    assert_eq!(rest.post(CD, insert(iso.expose())).await.0, 200);
    eventually("the medium", || site.machine.snapshot().media[1].connected).await;
    assert_eq!(
        rest.post(CD, insert(iso.expose())).await,
        said(400, "MaxVirtualMediaConnectionEstablished")
    );
    let once = json!({"Oem": {"Hp": {"BootOnNextServerReset": true}}});
    assert_eq!(rest.patch(CD, once).await, said(200, "Success"));
    let on = json!({"Action": "Reset", "ResetType": "On"});
    assert_eq!(rest.post("Systems/1", on.clone()).await.0, 200);
    assert_eq!(
        rest.post("Systems/1", on).await,
        said(400, "InvalidOperationForSystemState")
    );
    eventually("the boot", || site.boots().len() == 1).await;
    assert_eq!(site.boots()[0].source, BootSource::Cdrom);
    let cold = json!({"Action": "SystemReset", "Target": "/Oem/Hp", "ResetType": "ColdBoot"});
    assert_eq!(rest.post("Systems/1", cold).await.0, 200);
    eventually("the second boot", || site.boots().len() == 2).await;
    assert_eq!(site.boots()[1].source, BootSource::Disk);
    assert!(!site.machine.snapshot().media[1].inserted);

    // Before 2.30 the image is a property.
    let site = site_of(Generation::Ilo4Rest, &[Fault::DrivePatchOnly]);
    let rest = Plain::new(&site, "/rest/v1/", false);
    let iso = site.image("a.iso", pattern(40_000, 1));
    assert_eq!(rest.post(CD, insert(iso.expose())).await.0, 405);
    assert_eq!(rest.patch(CD, json!({"Image": iso.expose()})).await.0, 200);
    eventually("the medium", || site.machine.snapshot().media[1].connected).await;
    assert_eq!(rest.patch(CD, json!({"Image": null})).await.0, 200);
    assert!(!site.machine.snapshot().media[1].inserted);
}

#[tokio::test]
async fn generations_differ_in_what_they_offer() {
    for (generation, name) in Generation::NAMES {
        if generation == Generation::Ilo4Ribcl {
            continue;
        }
        let site = site_of(generation, &[]);
        let plain = Plain::new(&site, "/redfish/v1/", true);
        let system = plain.get("Systems/1/").await;
        let resets =
            &system["Actions"]["#ComputerSystem.Reset"]["ResetType@Redfish.AllowableValues"];
        let graceful = resets
            .as_array()
            .unwrap()
            .contains(&json!("GracefulShutdown"));
        let is_old = matches!(generation, Generation::Ilo4Rest | Generation::Ilo5Early);
        assert_eq!(graceful, !is_old, "{name}");
        let reset = "Systems/1/Actions/ComputerSystem.Reset/";
        let (status, refused) = plain
            .post(reset, json!({"ResetType": "GracefulShutdown"}))
            .await;
        match is_old {
            true => assert_eq!((status, refused.as_str()), (400, "PropertyValueNotInList")),
            false => assert_eq!(status, 200),
        }
        let drive = plain.get(CD).await;
        assert_eq!(drive.get("Actions").is_some(), !is_old, "{name}");
        let standard = "Managers/1/VirtualMedia/2/Actions/VirtualMedia.EjectMedia/";
        let status = plain.post(standard, json!({})).await.0;
        assert_eq!(status, if is_old { 404 } else { 400 }, "{name}");
        let bios = plain.get("systems/1/bios/").await;
        let attributes = bios.get("Attributes").unwrap_or(&bios);
        let is_uefi_only = matches!(generation, Generation::Ilo6 | Generation::Ilo7);
        assert_eq!(attributes.get("BootMode").is_none(), is_uefi_only, "{name}");
        let root = plain.get("").await;
        let vendor = if generation == Generation::Ilo4Rest {
            "Hp"
        } else {
            "Hpe"
        };
        let kind = root["Oem"][vendor]["Manager"][0]["ManagerType"].as_str();
        let number = name.chars().find(char::is_ascii_digit).unwrap();
        assert_eq!(kind, Some(format!("iLO {number}").as_str()));
    }
    let site = site_of(Generation::Ilo5Early, &[]);
    let early = Plain::new(&site, "/redfish/v1/", true);
    let (status, _) = early.send(Method::GET, "Systems/1", None).await;
    assert_eq!(status, 308);
}

#[tokio::test]
async fn settings_hold_from_the_next_reset_on() {
    let site = site_of(Generation::Ilo5, &[]);
    let plain = Plain::new(&site, "/redfish/v1/", true);
    let pending = "systems/1/bios/settings/";
    let legacy = json!({"Attributes": {"BootMode": "LegacyBios"}});
    assert_eq!(
        plain.patch(pending, legacy).await,
        said(200, "SystemResetRequired")
    );
    assert_eq!(
        plain.get(pending).await["Attributes"]["BootMode"],
        "LegacyBios"
    );
    let bios = "systems/1/bios/";
    assert_eq!(plain.get(bios).await["Attributes"]["BootMode"], "Uefi");
    assert_eq!(
        plain
            .patch(pending, json!({"Attributes": {"Wings": 2}}))
            .await,
        said(400, "PropertyNotWritableOrUnknown")
    );
    let order = "systems/1/bios/oem/hpe/boot/settings/";
    let first = json!({"PersistentBootConfigOrder": ["FD.Virtual.4.1"]});
    assert_eq!(
        plain.patch(order, first).await,
        said(200, "SystemResetRequired")
    );
    let unknown = json!({"PersistentBootConfigOrder": ["HD.Moon.1"]});
    assert_eq!(
        plain.patch(order, unknown).await,
        said(400, "PropertyValueNotInList")
    );

    let reset = "Systems/1/Actions/ComputerSystem.Reset/";
    assert_eq!(plain.post(reset, json!({"ResetType": "On"})).await.0, 200);
    eventually("the boot", || site.boots().len() == 1).await;
    assert_eq!(
        plain.get(bios).await["Attributes"]["BootMode"],
        "LegacyBios"
    );
    let seen = plain.get("systems/1/bios/oem/hpe/boot/").await;
    assert_eq!(seen["PersistentBootConfigOrder"][0], "FD.Virtual.4.1");
    assert_eq!(site.machine.snapshot().boot_mode, BootMode::Legacy);
    assert_eq!(
        plain
            .patch("Systems/1/SecureBoot/", json!({"SecureBootEnable": true}))
            .await,
        said(400, "UnsupportedOperationInLegacyBootMode")
    );
}

/// The server resets twice, and a medium armed for one boot is lost on the way.
#[tokio::test]
async fn a_change_of_secure_boot_costs_the_medium() {
    let site = site_of(Generation::Ilo6, &[]);
    let plain = Plain::new(&site, "/redfish/v1/", true);
    let iso = site.image("a.iso", pattern(40_000, 1));
    let insert = "Managers/1/VirtualMedia/2/Actions/VirtualMedia.InsertMedia/";
    assert_eq!(
        plain.post(insert, json!({"Image": iso.expose()})).await.0,
        200
    );
    eventually("the medium", || site.machine.snapshot().media[1].connected).await;
    let once = json!({"Oem": {"Hpe": {"BootOnNextServerReset": true}}});
    assert_eq!(plain.patch(CD, once).await.0, 200);
    let secure = json!({"SecureBootEnable": true});
    assert_eq!(
        plain.patch("Systems/1/SecureBoot/", secure).await,
        said(200, "SystemResetRequired")
    );
    let reset = "Systems/1/Actions/ComputerSystem.Reset/";
    assert_eq!(plain.post(reset, json!({"ResetType": "On"})).await.0, 200);
    eventually("the boot", || site.boots().len() == 1).await;
    assert_eq!(site.boots()[0].source, BootSource::Disk);
    assert_eq!(site.count(|e| matches!(e, EventKind::PostBegan)), 2);
    assert_eq!(site.count(|e| matches!(e, EventKind::Ejected { .. })), 1);
    let seen = plain.get("Systems/1/SecureBoot/").await;
    assert_eq!(seen["SecureBootCurrentBoot"], "Enabled");
}

#[tokio::test]
async fn anybody_may_ask_what_it_is() {
    for generation in [Generation::Ilo4Ribcl, Generation::Ilo4Rest] {
        let site = site_of(generation, &[]);
        let trust = http::Trust::Ca(site.authority.pem.clone());
        let client = http::client(&trust, TIMEOUT).unwrap();
        let url = format!("{}/xmldata?item=all", site.base_url());
        let text = client.get(&url).send().await.unwrap().text().await.unwrap();
        assert!(
            text.contains("<PN>Integrated Lights-Out 4 (iLO 4)</PN>"),
            "{text}"
        );
        site.machine.set_faults([Fault::NoXmlData].into());
        assert_eq!(client.get(&url).send().await.unwrap().status(), 404);
    }
}
