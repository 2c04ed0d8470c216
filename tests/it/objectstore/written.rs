//! Boot ISOs that are written while they are uploaded, against the files that hold the same.

use super::create;
use super::faults::{Fault, Faults};
use super::site::{KEY, Site, USER, pattern};
use flowrun::error::Kind;
use flowrun::image::artifact::{Artifact, ArtifactStore};
use flowrun::image::iso::{Iso, IsoSpec, Source};
use flowrun::openstack::swift::Body;
use reqwest::Method;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// A medium whose ramdisk is a file of so many bytes in `dir`.
pub(crate) fn medium(dir: &Path, ramdisk: usize) -> Arc<Iso> {
    let path = dir.join("ramdisk");
    std::fs::write(&path, pattern(ramdisk)).unwrap();
    medium_of(path)
}

/// A medium with this ramdisk.
pub(crate) fn medium_of(ramdisk: PathBuf) -> Arc<Iso> {
    let spec = IsoSpec {
        volume_id: "VMEDIA_BOOT_ISO".into(),
        kernel: Source::Bytes(pattern(70_001)),
        ramdisk: Source::File(ramdisk),
        kernel_params: "boot_method=vmedia".into(),
        isolinux: None,
        grub: None,
        files: Vec::new(),
    };
    Arc::new(Iso::plan(&spec).unwrap())
}

/// The same medium as a file.
pub(crate) fn kept(iso: &Iso, dir: &Path) -> Artifact {
    let store = ArtifactStore::open(&dir.join("artifacts")).unwrap();
    store.put(|out| iso.write(out)).unwrap()
}

async fn download(site: &Site, name: &str) -> Vec<u8> {
    let to = site.dir.path().join("got");
    site.client().download("c", name, &to).await.unwrap();
    std::fs::read(to).unwrap()
}

#[tokio::test]
async fn a_medium_is_written_again_for_each_attempt() {
    let faults = Faults::new(Method::PUT, [503, 504].map(Fault::Status));
    let site = faults.site();
    let swift = site.client();
    let iso = medium(site.dir.path(), 8 << 20);
    let uploaded = swift.upload("c", "o", Body::Iso(iso.clone()), create());
    assert_eq!(uploaded.await.unwrap().bytes, iso.bytes());
    assert_eq!(faults.seen(), 3);
    let file = kept(&iso, site.dir.path());
    assert!(download(&site, "o").await == std::fs::read(file.path).unwrap());
}

#[tokio::test]
async fn a_medium_that_arrives_changed_is_not_kept() {
    let faults = Faults::new(Method::PUT, [Fault::WrongEtag]);
    let site = faults.site();
    let swift = site.client();
    let iso = medium(site.dir.path(), 2 << 20);
    let error = swift.upload("c", "o", Body::Iso(iso), create()).await;
    assert_eq!(error.unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(swift.head("c", "o").await.unwrap(), None, "deleted");
}

#[tokio::test]
async fn a_source_that_changes_ends_the_upload_with_its_name() {
    let faults = Faults::new(Method::PUT, []);
    let site = faults.site();
    let swift = site.client();
    let iso = medium(site.dir.path(), 8 << 20);
    std::fs::write(site.dir.path().join("ramdisk"), "short").unwrap();
    let error = swift.upload("c", "o", Body::Iso(iso), create()).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error:?}");
    assert!(format!("{error:?}").contains("ramdisk"), "{error:?}");
    assert!(faults.seen() <= 1, "nothing to try again");
    assert_eq!(swift.head("c", "o").await.unwrap(), None);
}

/// What the child prints as JSON.
fn call(dir: &Path, primitive: &str, arguments: &Value) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_flowrun"))
        .args(["call", primitive, &arguments.to_string()])
        .env("FLOWRUN_TEST_KEY", KEY)
        .current_dir(dir)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{primitive}: {complaint}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// As a flow says it: the object is the file that `make_iso` writes, and no file was needed.
#[tokio::test(flavor = "multi_thread")]
async fn a_planned_iso_is_uploaded_without_a_file() {
    let site = Site::new();
    let dir = site.dir.path().to_owned();
    for (name, bytes) in [
        ("kernel", 90_000),
        ("initrd", 3_000_000),
        ("loader", 40_000),
    ] {
        std::fs::write(dir.join(name), pattern(bytes)).unwrap();
    }
    let config = format!(
        "[site]\nstate_dir = \"state\"\n\
         [swift]\nauth_url = \"{}\"\nuser = \"{USER}\"\nkey = {{ env = \"FLOWRUN_TEST_KEY\" }}\n\
         ca_file = \"ca.pem\"\n\
         [boot_loaders]\nisolinux = \"loader\"\nldlinux = \"loader\"\n",
        site.url("/auth/v1.0"),
    );
    std::fs::write(dir.join("flowrun.toml"), config).unwrap();
    let recipe = json!({ "kernel": "kernel", "ramdisk": "initrd", "boot": "bios",
                         "root_uuid": "1be26c0b-03f2-4d2e-ae87-c02d7f33c123" });
    let calls = tokio::task::spawn_blocking(move || {
        let plan = call(&dir, "image.plan_iso", &recipe);
        let upload = json!({ "container": "c", "name": "boot.iso", "iso": plan });
        let uploaded = call(&dir, "swift.upload", &upload);
        assert_eq!(uploaded["bytes"], plan["bytes"]);
        assert!(!dir.join("state/artifacts").exists());
        call(&dir, "image.make_iso", &recipe)
    });
    let artifact = calls.await.unwrap();
    let path = site.dir.path().join(artifact["path"].as_str().unwrap());
    let file = std::fs::read(path).unwrap();
    assert!(download(&site, "boot.iso").await == file);
}
