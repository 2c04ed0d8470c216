//! The simulated iLO refuses what a real one refuses, whoever asks.

use super::site::{PASSWORD, Site, TIMEOUT, eventually};
use flowrun::http;
use flowrun::ilo::model::{Device, PostState, PowerTarget};
use flowrun::lab::host::BootSource;
use flowrun::lab::ilo::Fault;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use std::time::Duration;

const RESET: &str = "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";
const CD: &str = "/redfish/v1/Managers/1/VirtualMedia/2";
const SYSTEM: &str = "/redfish/v1/Systems/1";

/// A client that knows nothing of iLOs.
struct Plain<'a>(&'a Site, reqwest::Client);

impl<'a> Plain<'a> {
    fn new(site: &'a Site) -> Self {
        let trust = http::Trust::Ca(site.authority.pem.clone());
        Self(site, http::client(&trust, TIMEOUT).unwrap())
    }

    fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.1
            .request(method, format!("{}{path}", self.0.base_url()))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).basic_auth("root", Some(PASSWORD))
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> (u16, String) {
        outcome(self.request(method, path).json(&body).send().await.unwrap()).await
    }

    async fn get(&self, path: &str) -> Value {
        self.request(Method::GET, path)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }
}

/// Status and the key of the message.
async fn outcome(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let id = body["error"]["@Message.ExtendedInfo"][0]["MessageId"]
        .as_str()
        .unwrap();
    (status, id.rsplit('.').next().unwrap().to_owned())
}

fn said(status: u16, key: &str) -> (u16, String) {
    (status, key.to_owned())
}

#[tokio::test]
async fn strangers_see_the_root_only() {
    let site = Site::new();
    let plain = Plain::new(&site);
    let root = plain
        .bare(Method::GET, "/redfish/v1/")
        .send()
        .await
        .unwrap();
    assert_eq!(root.status(), 200);
    for request in [
        plain.bare(Method::GET, SYSTEM),
        plain
            .bare(Method::GET, SYSTEM)
            .header("X-Auth-Token", "guess"),
        plain
            .bare(Method::GET, SYSTEM)
            .basic_auth("root", Some("guess")),
        plain
            .bare(Method::POST, RESET)
            .json(&json!({"ResetType": "On"})),
    ] {
        assert_eq!(
            outcome(request.send().await.unwrap()).await,
            said(401, "NoValidSession")
        );
    }
}

#[tokio::test]
async fn answers_are_chunked_and_print_links_as_asked() {
    let site = Site::new();
    let plain = Plain::new(&site);
    let response = plain.request(Method::GET, SYSTEM).send().await.unwrap();
    assert_eq!(response.headers()["transfer-encoding"], "chunked");
    assert!(
        response.headers()["etag"]
            .to_str()
            .unwrap()
            .starts_with("W/")
    );
    assert_eq!(
        plain.get(SYSTEM).await["Bios"]["@odata.id"],
        "/redfish/v1/systems/1/bios"
    );
    let slashed = plain.get(&format!("{SYSTEM}/")).await;
    assert_eq!(slashed["Bios"]["@odata.id"], "/redfish/v1/systems/1/bios/");
    assert_eq!(
        slashed["Actions"]["#ComputerSystem.Reset"]["target"],
        format!("{RESET}/")
    );

    assert!(!response.headers().contains_key("content-encoding"));
    let asked = plain.request(Method::GET, SYSTEM);
    let asked = asked
        .header("Accept-Encoding", "gzip")
        .send()
        .await
        .unwrap();
    assert_eq!(asked.headers()["content-encoding"], "gzip");
    assert!(asked.bytes().await.unwrap().starts_with(&[0x1F, 0x8B]));
    let identity = plain.request(Method::GET, SYSTEM);
    let identity = identity.header("Accept-Encoding", "identity");
    assert_eq!(identity.send().await.unwrap().status(), 406);

    let moved = plain
        .request(Method::GET, "/rest/v1/Systems/1")
        .send()
        .await
        .unwrap();
    assert_eq!(moved.status(), 308);
    assert_eq!(moved.headers()["location"], "/redfish/v1/Systems/1/");
    let missing = plain
        .send(Method::POST, "/redfish/v1/Nothing", json!({}))
        .await;
    assert_eq!(missing, said(404, "ResourceMissingAtURI"));
}

#[tokio::test]
async fn actions_need_a_json_object() {
    let site = Site::new();
    let plain = Plain::new(&site);
    let eject = format!("{CD}/Actions/VirtualMedia.EjectMedia");
    let send = async |request: RequestBuilder| outcome(request.send().await.unwrap()).await;
    let empty = plain.request(Method::POST, &eject);
    assert_eq!(send(empty).await.0, 415);
    let typed = plain
        .request(Method::POST, &eject)
        .header("Content-Type", "application/json");
    assert_eq!(send(typed).await, said(400, "MalformedJSON"));
    let list = plain.request(Method::POST, &eject).json(&json!([]));
    assert_eq!(send(list).await, said(400, "MalformedJSON"));
    // With one, the empty drive is what is wrong.
    let empty_drive = plain.send(Method::POST, &eject, json!({})).await;
    assert_eq!(empty_drive, said(400, "NoVirtualMediaConnectionAvailable"));
}

#[tokio::test]
async fn power_actions_must_fit_the_state() {
    let site = Site::new();
    let plain = Plain::new(&site);
    let reset = async |kind: &str| {
        plain
            .send(Method::POST, RESET, json!({"ResetType": kind}))
            .await
    };
    for kind in ["ForceOff", "ForceRestart", "Nmi"] {
        assert_eq!(
            reset(kind).await,
            said(400, "InvalidOperationForSystemState"),
            "{kind}"
        );
    }
    assert_eq!(reset("Explode").await, said(400, "PropertyValueNotInList"));
    assert_eq!(reset("On").await, said(200, "Success"));
    assert_eq!(
        reset("On").await,
        said(400, "InvalidOperationForSystemState")
    );
    let none = plain.send(Method::POST, RESET, json!({})).await;
    assert_eq!(none, said(400, "ActionParameterMissing"));
    let extra = plain
        .send(Method::POST, RESET, json!({"ResetType": "On", "Now": true}))
        .await;
    assert_eq!(extra, said(400, "ActionParameterUnknown"));
    let cycle = "/redfish/v1/Systems/1/Actions/Oem/Hpe/HpeComputerSystemExt.SystemReset";
    let cycled = plain
        .send(Method::POST, cycle, json!({"ResetType": "AuxCycle"}))
        .await;
    assert_eq!(cycled, said(400, "SystemPowerOffRequired"));
    assert_eq!(reset("ForceOff").await, said(200, "Success"));
    assert_eq!(site.machine.snapshot().post_state, PostState::PowerOff);
}

#[tokio::test]
async fn boot_settings_are_locked_during_post() {
    let site = Site::with(|config| config.post_time = Duration::from_secs(600));
    let plain = Plain::new(&site);
    let boot =
        json!({"Boot": {"BootSourceOverrideTarget": "Cd", "BootSourceOverrideEnabled": "Once"}});
    assert_eq!(
        plain.send(Method::PATCH, SYSTEM, boot.clone()).await,
        said(200, "Success")
    );
    plain
        .send(Method::POST, RESET, json!({"ResetType": "On"}))
        .await;
    let locked = plain.send(Method::PATCH, SYSTEM, boot).await;
    assert_eq!(locked, said(400, "UnableToModifyDuringSystemPOST"));
    assert_eq!(
        plain.get(SYSTEM).await["Boot"]["BootSourceOverrideTarget"],
        "Cd"
    );

    for (body, key) in [
        (
            json!({"Boot": {"Nonsense": 1}}),
            "PropertyNotWritableOrUnknown",
        ),
        (json!({"PowerState": "On"}), "PropertyNotWritableOrUnknown"),
        (
            json!({"Boot": {"BootSourceOverrideTarget": "Tape"}}),
            "PropertyValueNotInList",
        ),
        (json!({}), "PropertyMissing"),
    ] {
        assert_eq!(
            plain.send(Method::PATCH, SYSTEM, body).await,
            said(400, key)
        );
    }
}

#[tokio::test]
async fn inserts_are_checked() {
    let site = Site::new();
    let plain = Plain::new(&site);
    let insert = format!("{CD}/Actions/VirtualMedia.InsertMedia");
    let hpe = format!("{CD}/Actions/Oem/Hpe/HpeiLOVirtualMedia.InsertVirtualMedia");
    let post = async |path: &str, body: Value| plain.send(Method::POST, path, body).await;
    for (body, key) in [
        (json!({}), "ActionParameterMissing"),
        (json!({"Image": 7}), "PropertyValueTypeError"),
        (
            json!({"Image": "ftp://h/a.iso"}),
            "PropertyValueFormatError",
        ),
        (json!({"Image": "a.iso"}), "PropertyValueFormatError"),
        (
            json!({"Image": "http://h/a.iso", "BootOnce": true}),
            "ActionParameterUnknown",
        ),
    ] {
        assert_eq!(post(&insert, body).await, said(400, key));
    }
    let flag = json!({"Oem": {"Hpe": {"BootOnNextServerReset": true}}});
    let nothing_in = plain.send(Method::PATCH, CD, flag).await;
    assert_eq!(nothing_in, said(400, "NoVirtualMediaConnectionAvailable"));

    let url = site.image("a.iso", vec![7; 4096]);
    let body = json!({"Image": url.expose()});
    // HPE's own action does not know the standard's parameters.
    let mixed = json!({"Image": url.expose(), "Inserted": true});
    assert_eq!(post(&hpe, mixed).await, said(400, "ActionParameterUnknown"));
    assert_eq!(post(&hpe, body.clone()).await, said(200, "Success"));
    // Also while the image is still being opened.
    assert_eq!(
        post(&insert, body.clone()).await,
        said(400, "MaxVirtualMediaConnectionEstablished")
    );
    eventually("the insert", || site.machine.snapshot().media[1].inserted).await;
    assert_eq!(
        post(&insert, body).await,
        said(400, "MaxVirtualMediaConnectionEstablished")
    );
    let drive = plain.get(CD).await;
    assert_eq!(
        (&drive["ConnectedVia"], &drive["ImageName"]),
        (&json!("URI"), &json!("a.iso"))
    );
    assert_eq!(drive["TransferProtocolType"], "HTTPS");
}

#[tokio::test]
async fn a_medium_booted_by_its_flag_is_gone_at_the_second_reset() {
    // Long enough for the reset to be seen.
    let site = Site::with(|config| config.post_time = Duration::from_millis(1600));
    let plain = Plain::new(&site);
    let ilo = site.connect().await;
    let iso = site.image("a.iso", vec![7; 4096]);
    let floppy = site.image("a.img", vec![8; 4096]);
    ilo.attach_vmedia(Device::Cdrom, &iso, TIMEOUT)
        .await
        .unwrap();
    ilo.attach_vmedia(Device::Floppy, &floppy, TIMEOUT)
        .await
        .unwrap();
    let flag = json!({"Oem": {"Hpe": {"BootOnNextServerReset": true}}});
    let floppy_path = "/redfish/v1/Managers/1/VirtualMedia/1";
    let no_flag = plain.send(Method::PATCH, floppy_path, flag.clone()).await;
    assert_eq!(no_flag, said(400, "PropertyNotWritableOrUnknown"));
    assert_eq!(
        plain.send(Method::PATCH, CD, flag).await,
        said(200, "Success")
    );
    assert_eq!(
        ilo.vmedia_status().await.unwrap()[1].boot_on_next_reset,
        Some(true)
    );

    ilo.set_power(PowerTarget::On, TIMEOUT).await.unwrap();
    eventually("the first boot", || site.boots().len() == 1).await;
    ilo.set_power(PowerTarget::Reset, TIMEOUT).await.unwrap();
    eventually("the second boot", || site.boots().len() == 2).await;
    let boots = site.boots();
    assert_eq!(
        (boots[0].source, boots[1].source),
        (BootSource::Cdrom, BootSource::Disk)
    );
    assert!(boots[0].cdrom.is_some() && boots[1].cdrom.is_none());
    assert!(boots[1].floppy.is_some());
    let media = site.machine.snapshot().media;
    assert_eq!((media[0].inserted, media[1].inserted), (true, false));
}

#[tokio::test]
async fn without_a_licence_nothing_is_inserted() {
    let site = Site::with_fault(Fault::LicenseStandard);
    let plain = Plain::new(&site);
    let insert = format!("{CD}/Actions/VirtualMedia.InsertMedia");
    let url = site.image("a.iso", vec![7; 4096]);
    let refused = plain
        .send(Method::POST, &insert, json!({"Image": url.expose()}))
        .await;
    assert_eq!(refused, said(400, "LicenseKeyRequired"));
    let license = plain.get("/redfish/v1/Managers/1/LicenseService/1").await;
    assert_eq!(
        (&license["License"], &license["LicenseTier"]),
        (&json!("iLO Standard"), &json!("STD"))
    );
    assert_eq!(license["LicenseFeatures"]["VMScript"], false);
}
