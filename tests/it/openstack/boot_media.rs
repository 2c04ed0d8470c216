//! Boot media from kernels and ramdisks that are anywhere: the real Glance, Swift, a file, a URL.

use super::cloud::{Cloud, client, unique};
use super::proxy::Fault;
use super::services::services;
use crate::flow::{code, flowrun, text};
use crate::objectstore::site::pattern;
use flowrun::openstack::swift::{Body, KeyOwner, SwiftOptions, TempUrlOptions, UploadOptions};
use flowrun::secret::Secret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A site with the proxies' services and the boot loaders of the boot tests.
fn configure(dir: &Path, cloud: &Cloud) {
    let boot = std::env::var("FLOWRUN_TEST_BOOT")
        .expect("FLOWRUN_TEST_BOOT must name a folder with loaders: tests/run.sh boot");
    let about = |name| services().about(name);
    let config = format!(
        "[site]\nstate_dir = \"state\"\n[keystone]\nauth_url = \"{}\"\nusername = \"{}\"\n\
         password = {{ env = \"FLOWRUN_TEST_PASSWORD\" }}\nproject_name = \"{}\"\n\
         region_name = \"{}\"\n[boot_loaders]\nisolinux = \"{boot}/isolinux.bin\"\n\
         ldlinux = \"{boot}/ldlinux.c32\"\ngrub = \"{boot}/gcdx64.efi\"\n",
        cloud.keystone.url(),
        about("user"),
        about("project"),
        about("region"),
    );
    std::fs::write(dir.join("flowrun.toml"), config).unwrap();
}

async fn call(dir: &Path, primitive: &str, arguments: Value) -> Output {
    let mut command = flowrun(&["call", primitive, &arguments.to_string()]);
    command
        .arg("--config")
        .arg(dir.join("flowrun.toml"))
        .current_dir(dir)
        .env("FLOWRUN_TEST_PASSWORD", services().about("password"));
    let output = tokio::task::spawn_blocking(move || command.output());
    output.await.unwrap().unwrap()
}

/// A file of a medium, read by isoinfo.
fn on_medium(iso: &Path, path: &str) -> Vec<u8> {
    let mut command = Command::new("isoinfo");
    command.args(["-R", "-i"]).arg(iso).args(["-x", path]);
    let output = command.output();
    output
        .expect("isoinfo is needed; tests/run.sh installs it")
        .stdout
}

fn sha256(data: &[u8]) -> String {
    hex::encode(Sha256::digest(data))
}

/// Uploads `vmlinuz` into a container, and signs a URL for it.
async fn kernel_in_swift(cloud: &Cloud, container: &str, kernel: &[u8]) -> Secret {
    let swift = client(SwiftOptions {
        temp_url_key: Some(Secret::new("a key of ours")),
        set_temp_url_key: Some(KeyOwner::Container),
        ..cloud.swift(cloud.user())
    });
    let options = UploadOptions {
        create_container: true,
        ..UploadOptions::default()
    };
    let body = Body::Bytes(kernel.to_vec().into());
    let upload = swift.upload(container, "vmlinuz", body, options);
    upload.await.unwrap();
    let url = swift.temp_url(container, "vmlinuz", TempUrlOptions::default());
    url.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn kernel_and_ramdisk_come_from_wherever_they_are() {
    let cloud = Cloud::new().await;
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), &cloud);
    let (kernel, ramdisk) = (pattern(900_001), pattern(2_000_003));
    let upload = async |format: &str, more: Value, data: &[u8]| {
        let mut record = json!({ "disk_format": format });
        record
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        services().upload_image("file", record, data.to_vec()).await
    };
    let kernel_id = upload("aki", json!({ "container_format": "aki" }), &kernel).await;
    let ramdisk_id = upload("ari", json!({ "container_format": "ari" }), &ramdisk).await;
    let properties = json!({ "kernel_id": kernel_id, "ramdisk_id": ramdisk_id });
    let image = upload("raw", properties, b"a disk").await;
    // As a flow does: the image's properties say which.
    let told = call(dir.path(), "glance.image", json!({ "image": image })).await;
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(
        (&told["kernel_id"], &told["ramdisk_id"]),
        (&json!(kernel_id), &json!(ramdisk_id))
    );

    let c = unique(&dir);
    let url = kernel_in_swift(&cloud, &c, &kernel).await;
    let path = dir.path().join("initrd");
    std::fs::write(&path, &ramdisk).unwrap();
    let (path, sums) = (
        path.display().to_string(),
        [sha256(&kernel), sha256(&ramdisk)],
    );
    let media = [
        json!({ "kernel": told["kernel_id"], "ramdisk": told["ramdisk_id"] }),
        json!({ "kernel": format!("glance://{kernel_id}"), "ramdisk": path }),
        json!({ "kernel": format!("swift:{c}/vmlinuz"), "ramdisk": path }),
        json!({
            "kernel": url.expose(), "kernel_checksum": sums[0],
            "ramdisk": format!("file://{path}"), "ramdisk_checksum": sums[1],
        }),
    ];
    let mut built: Vec<Value> = Vec::new();
    cloud.glance.breaks(
        "GET",
        "/file",
        [Fault::CutBody(500_000), Fault::Answer(503, "")],
    );
    for wanted in media {
        let output = call(dir.path(), "image.make_iso", wanted.clone()).await;
        assert_eq!(code(&output), 0, "{wanted}: {}", text(&output));
        built.push(serde_json::from_slice(&output.stdout).unwrap());
    }
    assert!(
        built.iter().all(|iso| *iso == built[0]),
        "equal inputs: {built:#?}"
    );
    assert_eq!(
        cloud.glance.seen().len(),
        2 + 2,
        "each once, and a cut and a 503"
    );
    let iso = dir.path().join(built[0]["path"].as_str().unwrap());
    assert!(on_medium(&iso, "/vmlinuz") == kernel);
    assert!(on_medium(&iso, "/initrd") == ramdisk);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_kernel_that_was_meant_is_not_put_on_a_medium() {
    let cloud = Cloud::new().await;
    let dir = tempfile::tempdir().unwrap();
    configure(dir.path(), &cloud);
    let path = dir.path().join("vmlinuz");
    std::fs::write(&path, pattern(1000)).unwrap();
    let path = path.display().to_string();
    let kernel = services()
        .upload_image("file", json!({}), pattern(400_000))
        .await;
    let wrong = "0".repeat(64);
    let missing = "00000000-0000-4000-8000-000000000000";
    for (arguments, parts) in [
        (
            json!({ "kernel": format!("file://{path}") }),
            ["[invalid]", "SHA-256"],
        ),
        (
            json!({ "kernel": path, "kernel_checksum": wrong }),
            ["[corrupt]", "checksum"],
        ),
        (
            json!({ "kernel": missing }),
            ["[not_found]", "openstack image list"],
        ),
        (json!({ "kernel": "/nowhere" }), ["[not_found]", "/nowhere"]),
        (
            json!({ "kernel": "ftp://h/x" }),
            ["[unsupported]", "swift:"],
        ),
        (
            json!({ "kernel": kernel }),
            ["[corrupt]", "glance.download"],
        ),
    ] {
        cloud
            .glance
            .breaks("GET", "/file", [Fault::FlipBody(300_000)]);
        let mut arguments = arguments;
        arguments["ramdisk"] = json!(path);
        let output = call(dir.path(), "image.make_iso", arguments.clone()).await;
        assert_eq!(code(&output), 1, "{arguments}: {}", text(&output));
        for part in parts {
            assert!(
                text(&output).contains(part),
                "{arguments}: {}",
                text(&output)
            );
        }
        let artifacts: Vec<PathBuf> = crate::objectstore::site::files(dir.path())
            .into_iter()
            .filter(|file| file.to_string_lossy().contains("artifacts"))
            .collect();
        assert!(artifacts.is_empty(), "{artifacts:?}");
    }
}
