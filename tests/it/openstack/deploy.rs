//! The stock flow on the lab's iLO and node, with the real Keystone, Swift and Glance: the deploy
//! ISO and the OS image come from Glance, the floppy from Swift.

use super::services::services;
use crate::flow::{FLOW, LabUp, code, flowrun, text};
use flowrun::openstack::swift::TempUrlOptions;
use serde_json::{Value, json};
use std::process::Output;

/// A configuration of this lab with the real services instead of its own.
fn configure(lab: &LabUp, deploy_iso: &str, image: &str) {
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
        auth_url = about("keystone"),
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

#[tokio::test(flavor = "multi_thread")]
async fn the_stock_flow_deploys_with_the_real_services() {
    let lab = LabUp::start(1, &[]);
    let iso = std::fs::read(lab.path("images/deploy.iso")).unwrap();
    let iso = services()
        .upload_image("swift", json!({ "disk_format": "iso" }), iso)
        .await;
    let image = std::fs::read(lab.image()).unwrap();
    let image = services()
        .upload_image("swift", json!({ "disk_format": "raw" }), image)
        .await;
    sign_for_glance(&iso).await;
    configure(&lab, &format!("glance://{iso}"), &image);
    let output = with_config(&lab, &[FLOW, "--node", "lab-1"]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    lab.disk_is_right(&lab.image(), "raw");
    let said = text(&output);
    for secret in [
        "temp_url_sig=",
        "gAAAA",
        "the key of glance",
        services().about("application_credential_secret"),
    ] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
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
