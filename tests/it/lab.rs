//! The whole simulated site, driven as a deployer drives a real one: over Redfish, the object
//! store's API, the callback, iSCSI and port 10000.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

mod deployer;
mod faults;
mod ilo_rest;
mod ilo_ribcl;
mod ramdisk;

use axum::http::StatusCode;
use deployer::{DISK_BYTES, Deployer, PATIENCE, TOKEN, iqn, is_open, options, run, text};
use flowrun::error::Kind;
use flowrun::ilo::model::{Device, PowerTarget};
use flowrun::image::iso::{Iso, IsoSpec, Source};
use flowrun::iscsi::Session;
use flowrun::lab::site::{Site, SiteOptions};
use flowrun::secret::Secret;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_deployed_and_boots_its_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut deployer = Deployer::start(options(dir.path())).await;
    let node = deployer.node(0);
    let ilo = deployer.boot_ramdisk(0, &deployer.parameters(0)).await;

    let call = deployer.callback().await;
    assert_eq!(call.node, text(&node, "/uuid"));
    assert_eq!(call.token.as_deref(), Some(TOKEN));
    let expected = json!({
        "address": text(&node, "/address"), "key": "KEY0", "iqn": iqn(&node), "error": "",
        "chap": "true",
    });
    assert_eq!(call.body, expected);

    let session = Session::login(deployer.login_options(0)).await.unwrap();
    assert_eq!(session.lun_info().bytes(), DISK_BYTES);
    let image = std::fs::read(text(&deployer.about, "/image/path")).unwrap();
    Deployer::write_image(&session, &image).await;
    session.logout().await.unwrap();
    ilo.eject_vmedia(Device::Floppy, PATIENCE).await.unwrap();
    ilo.eject_vmedia(Device::Cdrom, PATIENCE).await.unwrap();
    deployer.say_done(0).await;
    deployer
        .until_boot(0, "booted from the disk", |boot| {
            boot["state"] == "system_up"
        })
        .await;

    assert!(
        deployer.console(0).contains("booted from disk: "),
        "{}",
        deployer.console(0)
    );
    let disk = std::fs::read(text(&node, "/disk")).unwrap();
    assert!(disk[..image.len()] == image, "the disk is not the image");

    check_report(&Site::query(&deployer.about).await.unwrap());
    check_files(dir.path(), &node);

    // A ramdisk reads nothing of the next boot: switched on again, the node boots its disk.
    ilo.set_power(PowerTarget::Reset, PATIENCE).await.unwrap();
    deployer
        .until_boot(0, "booted again", |boot| {
            boot["number"] == 3 && boot["state"] == "system_up"
        })
        .await;
    ilo.close().await.unwrap();
    deployer.site.stop().await;
}

fn check_report(snapshot: &Value) {
    let state = &snapshot["nodes"][0];
    let systems: Vec<&Value> = state["boots"].as_array().unwrap().iter().collect();
    assert_eq!(systems[0]["system"]["system"], "deploy_ramdisk");
    assert_eq!(systems[0]["state"], "reboot");
    assert_eq!(systems[1]["system"]["table"], "gpt");
    assert_eq!(state["machine"]["boots"], 2);
    assert!(state["disk"]["bytes_written"].as_u64().unwrap() > 0);
    let reads = snapshot["object_store"]["accesses"].as_array().unwrap();
    assert!(reads.iter().any(|read| read["object"] == "deploy.iso"
        && read["status"] == 206
        && read["range"] == true
        && read["temp_url"] == true));
}

/// The copies of the media are good for other tools, and secrets are for the owner only.
fn check_files(dir: &Path, node: &Value) {
    let media = PathBuf::from(text(node, "/media"));
    let floppy = media.join("floppy.img");
    let seen = run(
        "mtype",
        &["-i", floppy.to_str().unwrap(), "::parameters.txt"],
    );
    assert!(seen.contains("deployment_key=KEY0"), "{seen}");
    let cdrom = media.join("cdrom.iso");
    let listing = run("isoinfo", &["-f", "-i", cdrom.to_str().unwrap()]);
    assert!(listing.contains("/ISOLINUX/ISOLINUX.CFG"), "{listing}");
    let mode = |path: PathBuf| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(dir.join("site.json")), 0o600);
    assert_eq!(
        mode(text(node, "/driver_info/ilo_password_file").into()),
        0o600
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_of_the_run_may_log_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut deployer = Deployer::start(options(dir.path())).await;
    let ilo = deployer.boot_ramdisk(0, &deployer.parameters(0)).await;
    deployer.callback().await;

    let mut stranger = deployer.login_options(0);
    stranger.initiator_name = "iqn.2026-01.test:run-12".to_owned();
    let mut liar = deployer.login_options(0);
    liar.chap.as_mut().unwrap().secret = Secret::new("wrong-horse-battery");
    let mut mute = deployer.login_options(0);
    mute.chap = None;
    for (refused, kind) in [
        (stranger, Kind::Refused),
        (liar, Kind::Auth),
        (mute, Kind::Auth),
    ] {
        let error = Session::login(refused).await.unwrap_err();
        let error = flowrun::error::Error::from(error);
        assert_eq!(error.kind(), kind, "{error}");
    }
    let session = Session::login(deployer.login_options(0)).await.unwrap();
    session.logout().await.unwrap();
    ilo.close().await.unwrap();
    deployer.site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_cd_boots_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let deployer = Deployer::start(options(dir.path())).await;
    let ilo = deployer.ilo(0).await;
    let bytes = vec![0x5A; 100 * 2048];
    deployer.insert(&ilo, Device::Cdrom, "bad.iso", bytes).await;
    deployer.boot_cd(&ilo).await;
    deployer
        .until_boot(0, "given up", |boot| boot["state"] == "no_boot_device")
        .await;
    assert!(deployer.console(0).contains("no primary volume descriptor"));
    let snapshot = deployer.site.snapshot();
    assert_eq!(
        snapshot["nodes"][0]["machine"]["last_outcome"],
        "no_boot_device"
    );
    ilo.close().await.unwrap();
    deployer.site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_iso_comes_up_if_its_root_is_on_the_disk() {
    const ROOT: &str = "6d1d5e0a-3f0e-4b8a-9d0e-0123456789ab";
    let dir = tempfile::tempdir().unwrap();
    let deployer = Deployer::start(options(dir.path())).await;
    let disk = text(&deployer.node(0), "/disk");
    let ext4 = ["-q", "-F", "-t", "ext4", "-U", ROOT, &disk];
    run("mke2fs", &ext4);
    let ilo = deployer.ilo(0).await;
    for (uuid, state) in [
        (ROOT, "system_up"),
        ("00000000-3f0e-4b8a-9d0e-0123456789ab", "running"),
    ] {
        let spec = IsoSpec {
            volume_id: "BOOT ISO".to_owned(),
            kernel: Source::Bytes(b"kernel".to_vec()),
            ramdisk: Source::Bytes(b"ramdisk".to_vec()),
            kernel_params: format!("root=UUID={uuid}"),
            isolinux: None,
            grub: None,
            files: Vec::new(),
        };
        let mut iso = Vec::new();
        Iso::plan(&spec).unwrap().write(&mut iso).unwrap();
        deployer.insert(&ilo, Device::Cdrom, uuid, iso).await;
        deployer.boot_cd(&ilo).await;
        deployer
            .until_boot(0, "booted", |boot| {
                boot["system"]["system"] == "boot_iso" && boot["state"] == state
            })
            .await;
        let off = PowerTarget::ForceOff;
        ilo.set_power(off, PATIENCE).await.unwrap();
    }
    let console = deployer.console(0);
    assert!(console.contains("ext on the whole disk"), "{console}");
    assert!(
        console.contains("no file system has UUID 00000000"),
        "{console}"
    );
    ilo.close().await.unwrap();
    deployer.site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_floppy_the_ramdisk_says_so_and_sits_there() {
    let dir = tempfile::tempdir().unwrap();
    let deployer = Deployer::start(options(dir.path())).await;
    let ilo = deployer.ilo(0).await;
    deployer
        .attach(&ilo, Device::Cdrom, "flowrun_images", "deploy.iso")
        .await;
    deployer.boot_cd(&ilo).await;
    deployer
        .until_said(0, "no virtual floppy is inserted")
        .await;
    ilo.set_power(PowerTarget::ForceOff, PATIENCE)
        .await
        .unwrap();

    let parameters = deployer.parameters(0).replace("deployment_key=KEY0\n", "");
    let floppy = deployer.floppy(&parameters);
    deployer.insert(&ilo, Device::Floppy, "f", floppy).await;
    deployer.boot_cd(&ilo).await;
    deployer.until_said(0, "missing: deployment_key").await;
    assert_eq!(deployer.last_boot(0)["state"], "running");
    ilo.close().await.unwrap();
    deployer.site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cutting_the_power_closes_the_ramdisks_ports() {
    let dir = tempfile::tempdir().unwrap();
    let mut deployer = Deployer::start(options(dir.path())).await;
    let ilo = deployer.boot_ramdisk(0, &deployer.parameters(0)).await;
    deployer.callback().await;
    let session = Session::login(deployer.login_options(0)).await.unwrap();
    let address = text(&deployer.node(0), "/address");
    let ports = [format!("{address}:3260"), format!("{address}:10000")];
    assert!(is_open(&ports[0]).await);

    ilo.set_power(PowerTarget::ForceOff, PATIENCE)
        .await
        .unwrap();
    deployer
        .until_boot(0, "cut", |boot| boot["state"] == "power_cut")
        .await;
    for port in &ports {
        assert!(!is_open(port).await, "{port} is open");
    }
    let error = session.read(0, 1).await.unwrap_err();
    assert!(flowrun::error::Error::from(error).is_retryable());
    assert!(deployer.console(0).contains("power lost"));
    ilo.close().await.unwrap();
    deployer.site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callback_is_repeated_until_it_is_accepted_or_refused_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let mut deployer = Deployer::start(options(dir.path())).await;
    deployer.answers.lock().unwrap().extend([
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::CONFLICT,
        StatusCode::ACCEPTED,
    ]);
    let ilo = deployer.boot_ramdisk(0, &deployer.parameters(0)).await;
    for _ in 0..3 {
        assert_eq!(deployer.callback().await.body["key"], "KEY0");
    }
    deployer.until_said(0, "202 Accepted").await;
    ilo.set_power(PowerTarget::ForceOff, PATIENCE)
        .await
        .unwrap();

    let refusals = [StatusCode::BAD_REQUEST; 3];
    deployer.answers.lock().unwrap().extend(refusals);
    deployer.boot_cd(&ilo).await;
    deployer.until_said(0, "nothing more to do").await;
    let console = deployer.console(0);
    assert_eq!(
        console.matches("answered 400 Bad Request").count(),
        4,
        "{console}"
    );
    assert!(
        !console.contains("KEY0") && !console.contains(TOKEN),
        "{console}"
    );
    ilo.close().await.unwrap();
    deployer.site.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_run_side_by_side() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut deployers = Vec::new();
    for dir in &dirs {
        let two = SiteOptions {
            nodes: 2,
            ..options(dir.path())
        };
        deployers.push(Deployer::start(two).await);
    }
    // All four nodes hold the standard ports at the same time.
    for deployer in &mut deployers {
        for index in 0..2 {
            let parameters = deployer.parameters(index);
            let ilo = deployer.boot_ramdisk(index, &parameters).await;
            let call = deployer.callback().await;
            assert_eq!(call.body["key"], format!("KEY{index}"));
            assert_eq!(call.node, text(&deployer.node(index), "/uuid"));
            ilo.close().await.unwrap();
        }
    }
    let [first, second] = &deployers[..] else {
        unreachable!()
    };
    assert_ne!(first.node(0)["address"], second.node(0)["address"]);
    assert_ne!(first.node(0)["address"], first.node(1)["address"]);
    assert_ne!(
        first.about["object_store"]["key"],
        second.about["object_store"]["key"]
    );
    for deployer in deployers {
        for index in 0..2 {
            let session = Session::login(deployer.login_options(index)).await.unwrap();
            session.logout().await.unwrap();
        }
        deployer.site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_site_is_the_same_site() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Site::running(dir.path()).unwrap().is_none());
    let site = Site::start(options(dir.path())).await.unwrap();
    let before = site.describe().clone();
    let ca = std::fs::read(text(&before, "/ca_file")).unwrap();

    let seen = Site::running(dir.path()).unwrap();
    assert_eq!(seen.as_ref(), Some(&before));
    let again = Site::start(options(dir.path())).await.unwrap_err();
    assert_eq!(again.kind(), Kind::Conflict, "{again}");
    site.stop().await;
    assert!(Site::running(dir.path()).unwrap().is_none());
    let unreachable = Site::query(&before).await.unwrap_err();
    assert_eq!(unreachable.kind(), Kind::Unreachable, "{unreachable}");

    // One more node leaves everything else as it was.
    let more = SiteOptions {
        nodes: 2,
        ..options(dir.path())
    };
    let site = Site::start(more).await.unwrap();
    let mut after = site.describe().clone();
    after["nodes"].as_array_mut().unwrap().truncate(1);
    assert_eq!(after, before);
    assert_eq!(std::fs::read(text(&after, "/ca_file")).unwrap(), ca);
    site.stop().await;

    // Somebody else took a port in the meantime.
    let url = text(&before, "/nodes/0/driver_info/ilo_address");
    let _taken = TcpListener::bind(url.strip_prefix("https://").unwrap()).unwrap();
    let error = Site::start(options(dir.path())).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.message().contains("iLO of lab-1"), "{error}");
    assert!(error.advice().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_is_for_who_has_the_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::start(options(dir.path())).await.unwrap();
    let mut about = site.describe().clone();
    assert_eq!(
        Site::query(&about).await.unwrap()["nodes"][0]["name"],
        "lab-1"
    );
    about["object_store"]["key"] = json!("guess");
    assert_eq!(Site::query(&about).await.unwrap_err().kind(), Kind::Auth);
    let secret = text(site.describe(), "/object_store/key");
    assert!(!site.snapshot().to_string().contains(&secret));
    site.stop().await;
}

#[tokio::test]
async fn unknown_faults_and_counts_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for wrong in [
        SiteOptions {
            faults: vec!["ilo.insert=x".to_owned()],
            ..options(dir.path())
        },
        SiteOptions {
            nodes: 0,
            ..options(dir.path())
        },
    ] {
        let error = Site::start(wrong).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_site_leaves_nothing_running() {
    let dir = tempfile::tempdir().unwrap();
    let mut deployer = Deployer::start(options(dir.path())).await;
    let ilo = deployer.boot_ramdisk(0, &deployer.parameters(0)).await;
    deployer.callback().await;
    let about = deployer.about.clone();
    let port = format!("{}:3260", text(&deployer.node(0), "/address"));
    let Deployer { site, .. } = deployer;
    drop(site);
    let again = tokio::time::timeout(PATIENCE, async {
        while is_open(&port).await {
            tokio::task::yield_now().await;
        }
        loop {
            match Site::start(options(dir.path())).await {
                Ok(site) => break site,
                Err(error) => assert_eq!(error.kind(), Kind::Conflict, "{error}"),
            }
        }
    });
    let again = again
        .await
        .expect("the dropped site still holds its directory");
    assert_eq!(again.describe(), &about);
    drop(ilo);
    again.stop().await;
}
