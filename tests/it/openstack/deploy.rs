//! The stock flow on the lab's iLO and node, with the real Keystone, Swift and Glance: the deploy
//! ISO and the OS image come from Glance, the floppy from Swift.

use super::cloud::Cloud;
use super::proxy::Fault;
use super::services::services;
use crate::flow::{FLOW, LabUp, code, flowrun, text};
use flowrun::openstack::swift::TempUrlOptions;
use serde_json::{Value, json};
use std::process::Output;

/// A configuration of this lab with the real services instead of its own, by way of the Keystone
/// at `auth_url`.
fn configure(lab: &LabUp, auth_url: &str, deploy_iso: &str, image: &str) {
    let site: Value =
        serde_json::from_slice(&std::fs::read(lab.path("site.json")).unwrap()).unwrap();
    let site = &site["site"];
    let node = &site["nodes"][0];
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let about = |name| services().about(name);
    let config = format!(
        r#"
[site]
state_dir = "{state}"
[api]
listen = {listen}
public_url = {url}
tls_cert = {cert}
tls_key = {key}
ca_file = {ca}
[keystone]
auth_url = "{auth_url}"
application_credential_id = "{credential}"
application_credential_secret = {{ file = "{secret}" }}
region_name = "{region}"
[swift]
temp_url_key = {{ file = "{temp_url_key}" }}
set_temp_url_key = "container"
[glance]
swift_temp_url_key = {{ file = "{temp_url_key}" }}
[nodes.lab-1]
uuid = {uuid}
ports = {ports}
[nodes.lab-1.driver_info]
ilo_address = {ilo}
ilo_username = {user}
ilo_password_file = {password}
ilo_ca_file = {ca}
deploy_iso = "{deploy_iso}"
[nodes.lab-1.instance_info]
image_source = "{image}"
root_gb = 1
"#,
        state = lab.path("real-state").display(),
        listen = site["api"]["listen"],
        url = site["api"]["url"],
        cert = site["api"]["tls_cert"],
        key = site["api"]["tls_key"],
        ca = site["ca_file"],
        credential = about("application_credential_id"),
        secret = lab.path("secret").display(),
        region = about("region"),
        temp_url_key = lab.path("temp-url-key").display(),
        uuid = node["uuid"],
        ports = node["ports"],
        ilo = node["driver_info"]["ilo_address"],
        user = node["driver_info"]["ilo_username"],
        password = node["driver_info"]["ilo_password_file"],
    );
    assert_eq!(text(&node["name"]), "lab-1");
    std::fs::write(lab.path("flowrun.toml"), config).unwrap();
    std::fs::write(lab.path("secret"), about("application_credential_secret")).unwrap();
    std::fs::write(lab.path("temp-url-key"), "the key of glance\n").unwrap();
}

/// Gives Glance's account the key that the configuration names, as its operator would have.
async fn sign_for_glance(id: &str) {
    let (glance, swift) = (services().glance(), services().swift_of_glance());
    let image = glance.image(id).await.unwrap();
    let url = glance.temp_url(&image, &swift, "glance", TempUrlOptions::default());
    url.await.unwrap();
}

fn with_config(lab: &LabUp, arguments: &[&str]) -> Output {
    let config = lab.path("flowrun.toml");
    let mut command = flowrun(arguments);
    command.arg("--config").arg(config).output().unwrap()
}

/// The lab's deploy ISO and OS image in Glance, both in its Swift store.
async fn upload(lab: &LabUp) -> (String, String) {
    let iso = std::fs::read(lab.path("images/deploy.iso")).unwrap();
    let iso = services()
        .upload_image("swift", json!({ "disk_format": "iso" }), iso)
        .await;
    let image = std::fs::read(lab.image()).unwrap();
    let image = services()
        .upload_image("swift", json!({ "disk_format": "raw" }), image)
        .await;
    sign_for_glance(&iso).await;
    (format!("glance://{iso}"), image)
}

fn is_masked(said: &str) {
    for secret in [
        "temp_url_sig=",
        "gAAAA",
        "the key of glance",
        services().about("application_credential_secret"),
    ] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_flow_deploys_with_the_real_services() {
    let lab = LabUp::start(1, &[]);
    let (iso, image) = upload(&lab).await;
    configure(&lab, services().about("keystone"), &iso, &image);
    let output = with_config(&lab, &[FLOW, "--node", "lab-1"]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    lab.disk_is_right(&lab.image(), "raw");
    is_masked(&text(&output));
    let images = text(&with_config(&lab, &["images"]));
    assert!(images.contains(&format!("glance:{image}")), "{images}");
    assert!(
        images.contains("  no "),
        "no run uses it any more: {images}"
    );
    // The floppy's object is gone, whatever its expiry.
    let left = with_config(
        &lab,
        &[
            "call",
            "swift.list",
            r#"{"container": "ironic_ilo_container"}"#,
        ],
    );
    assert_eq!(code(&left), 0, "{}", text(&left));
    assert!(!text(&left).contains("image-"), "{}", text(&left));
}

/// Tokens that are refused, cuts and busy services in mid-deploy cost time and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn the_stock_flow_survives_what_passes() {
    let lab = LabUp::start(1, &[]);
    let (iso, image) = upload(&lab).await;
    let cloud = Cloud::new().await;
    let revoked = cloud.revoked().await;
    configure(&lab, cloud.keystone.url(), &iso, &image);
    let stale = || Fault::Token(revoked.clone());
    let busy = || Fault::Answer(503, "Retry-After: 1\r\n");
    let faults = [
        stale(),
        Fault::CutBody(5_000_000),
        busy(),
        Fault::CutBody(5_000_000),
    ];
    cloud.glance.breaks("GET", "/file", faults);
    let floppy = "/ironic_ilo_container/image-";
    cloud
        .swift
        .breaks("PUT", floppy, [Fault::CutAnswer, stale(), busy()]);
    cloud
        .keystone
        .breaks("POST", "/auth/tokens", [busy(), Fault::CutAnswer]);
    let output = tokio::task::block_in_place(|| with_config(&lab, &[FLOW, "--node", "lab-1"]));
    assert_eq!(code(&output), 0, "{}", text(&output));
    lab.disk_is_right(&lab.image(), "raw");
    is_masked(&text(&output));
    assert!(cloud.glance.seen().len() == 5, "{:#?}", cloud.glance.seen());
    assert_eq!(cloud.swift.seen().len(), 4);
}
