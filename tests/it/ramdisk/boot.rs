//! A machine that boots the ISO: with a clock that is wrong, a fixed address, a certificate to be
//! checked, and a larger disk beside the one that is meant.

use super::build;
use crate::image::{noise, show, text};
use crate::support::boot_part;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use flowrun::http::server::{ServerHandle, serve_tls};
use flowrun::image::iso::Source;
use flowrun::image::vfat::{VfatSpec, make_vfat};
use flowrun::iscsi::{Chap, LoginOptions, Session};
use flowrun::lab::tls::Authority;
use flowrun::secret::Secret;
use serde_json::{Value, json};
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

pub(super) const UUID: &str = "1be26c0b-03f2-4d2e-ae87-c02d7f33c781";
pub(super) const IQN: &str = "iqn.2008-10.org.openstack:1be26c0b-03f2-4d2e-ae87-c02d7f33c781";
pub(super) const INITIATOR: &str = "iqn.2026-11.org.flowrun:run-1";
pub(super) const KEY: &str = "DEPLOYMENTKEY0123456789";
pub(super) const CHAP_SECRET: &str = "chap-secret-0123456789";
const TOKEN: &str = "gAAAAABtoken";
const MAC: &str = "52:54:00:12:34:56";

/// The host as qemu's user network shows it to the machine.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// For an emulated machine on a busy host.
pub(super) const PATIENCE: Duration = Duration::from_secs(280);

const DISK_BYTES: usize = 64 << 20;

type Heard = mpsc::UnboundedSender<(&'static str, Value)>;

/// What the ramdisk posts. It is heard when it calls again.
fn deployer(heard: Heard) -> Router {
    let node = format!("/v1/nodes/{UUID}/vendor_passthru");
    let is_first = Arc::new(AtomicBool::new(true));
    let callback = async move |State(heard): State<Heard>, Json(body): Json<Value>| {
        if is_first.swap(false, Ordering::Relaxed) {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        heard.send(("callback", body)).unwrap();
        StatusCode::OK
    };
    let log = async |State(heard): State<Heard>, Json(body): Json<Value>| {
        heard.send(("log", body)).unwrap();
    };
    Router::new()
        .route(&format!("{node}/pass_deploy_info"), post(callback))
        .route(&format!("{node}/ramdisk_log"), post(log))
        .with_state(heard)
}

/// The callback; what is heard before it is the log.
pub(super) async fn called(
    hearing: &mut mpsc::UnboundedReceiver<(&'static str, Value)>,
    log: &mut Vec<Value>,
) -> Value {
    loop {
        match hearing.recv().await.unwrap() {
            ("callback", body) => return body,
            (_, body) => log.push(body),
        }
    }
}

/// An address of this process and machine alone, which so has its standard ports.
pub(super) fn own_address(machine: u8) -> Ipv4Addr {
    let [high, low, ..] = std::process::id().to_le_bytes();
    Ipv4Addr::new(127, 250 + machine, high, low | 1)
}

/// What every machine is told, and this one alone.
fn floppy(folder: &Path, port: u16, authority: &Authority, more: &[(&str, String)]) {
    let parameters = [
        ("deployment_id", UUID.to_owned()),
        ("deployment_key", KEY.to_owned()),
        ("iscsi_target_iqn", IQN.to_owned()),
        ("iscsi_initiator", INITIATOR.to_owned()),
        ("iscsi_chap_user", "flowrun".to_owned()),
        ("iscsi_chap_secret", CHAP_SECRET.to_owned()),
        ("ironic_api_url", format!("https://{HOST}:{port}")),
        ("time", flowrun::clock::unix_seconds().to_string()),
    ];
    let parameters = parameters.iter().chain(more);
    let spec = VfatSpec {
        parameters: parameters
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect(),
        files: vec![
            ("token".into(), Source::Bytes(TOKEN.into())),
            ("ca.pem".into(), Source::Bytes(authority.pem().into())),
        ],
        ..VfatSpec::default()
    };
    let mut options = fs::File::options();
    options.read(true).write(true).create_new(true);
    make_vfat(&spec, options.open(folder.join("floppy")).unwrap()).unwrap();
}

/// A machine; its power goes with the test.
pub(super) struct Machine(pub(super) Child);

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Machine {
    /// Until it switches itself off.
    pub(super) async fn ended(&mut self) -> Option<ExitStatus> {
        let deadline = flowrun::clock::instant() + PATIENCE;
        while flowrun::clock::instant() < deadline {
            if let Some(status) = self.0.try_wait().unwrap() {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        None
    }
}

/// The machine, with power on.
fn machine(folder: &Path) -> Machine {
    let address = own_address(1);
    let fixed = format!(
        "-no-user-config -nodefaults -display none -machine q35 -m 512 -accel tcg -no-reboot \
         -rtc base=2001-02-03T04:05:06 -device ide-cd,drive=cd,bootindex=0 \
         -device ide-hd,bus=ide.0,drive=other,serial=other \
         -device ide-hd,bus=ide.1,drive=meant,serial=meant \
         -device qemu-xhci,id=usb -device usb-storage,bus=usb.0,drive=floppy,removable=on \
         -netdev user,id=net,hostfwd=tcp:{address}:3260-10.0.2.77:3260,\
         hostfwd=tcp:{address}:10000-10.0.2.77:10000 \
         -device virtio-net-pci,netdev=net,romfile=,mac={MAC}"
    );
    let mut command = Command::new("qemu-system-x86_64");
    command.args(fixed.split_whitespace());
    for (id, more) in [
        ("cd", ",readonly=on,media=cdrom"),
        ("floppy", ",readonly=on"),
        ("other", ""),
        ("meant", ""),
    ] {
        let file = show(&folder.join(id));
        command.args([
            "-drive",
            &format!("if=none,format=raw,id={id},file={file}{more}"),
        ]);
    }
    command.args([
        "-serial",
        &format!("file:{}", show(&folder.join("console"))),
    ]);
    Machine(command.spawn().unwrap())
}

/// Writes the disk as the deployer does, and proves that it is the one that is meant.
async fn write_disk(image: &[u8]) {
    let portal = format!("{}:3260", own_address(1));
    let mut options = LoginOptions::new(portal, IQN, INITIATOR);
    assert!(
        Session::login(options.clone()).await.is_err(),
        "no secret was asked for"
    );
    options.chap = Some(Chap {
        user: "flowrun".into(),
        secret: Secret::new(CHAP_SECRET),
        mutual: None,
    });
    options.command_timeout = PATIENCE;
    let disk = Session::login(options).await.unwrap();
    let blocks = u32::try_from(DISK_BYTES / 512).unwrap();
    assert_eq!(disk.lun_info().blocks, u64::from(blocks));
    let old = disk.read(2000, 200).await.unwrap();
    assert!(
        old[..48 * 512].iter().all(|byte| *byte == 0),
        "the signatures are there"
    );
    assert!(
        old[48 * 512..].iter().all(|byte| *byte == 7),
        "more was wiped"
    );
    for (piece, lba) in image.chunks(256 << 10).zip((64..).step_by(512)) {
        disk.write(lba, Bytes::copy_from_slice(piece))
            .await
            .unwrap();
    }
    disk.flush().await.unwrap();
    disk.logout().await.unwrap();
}

/// What the machine is made of.
fn assemble(folder: &Path) {
    fs::write(folder.join("meant"), vec![7; DISK_BYTES]).unwrap();
    // Without the hint it would be taken: it is the only one of more than 4 GiB.
    let other = fs::File::create(folder.join("other")).unwrap();
    other.set_len(5 << 30).unwrap();
    boot_iso(folder, "no_timer_check");
}

/// The boot ISO of this program, its kernel started so.
pub(super) fn boot_iso(folder: &Path, append: &str) {
    let init = show(&folder.join("init"));
    let program = env!("CARGO_BIN_EXE_flowrun");
    text("binutils", "strip", &["-o", &init, program]);
    let options = [
        "--kernel".to_owned(),
        show(&boot_part("vmlinuz")),
        "--modules".to_owned(),
        show(&boot_part("")),
        "--init".to_owned(),
        init,
        "--append".to_owned(),
        append.to_owned(),
    ];
    build(folder, "cd", &options);
}

/// The host that a machine calls, and the floppy that tells it where that is.
pub(super) fn host(
    folder: &Path,
    parameters: &[(&str, String)],
) -> (ServerHandle, mpsc::UnboundedReceiver<(&'static str, Value)>) {
    let authority = Authority::open(folder).unwrap();
    let identity = authority.issue(&[HOST.into()]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    floppy(folder, port, &authority, parameters);
    let (heard, hearing) = mpsc::unbounded_channel();
    let server = serve_tls(listener, deployer(heard), &identity).unwrap();
    (server, hearing)
}

/// What the machine's console showed.
pub(super) fn shown(folder: &Path) -> String {
    let bytes = fs::read(folder.join("console")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What the console shows, and what of the log came to the deployer.
fn check_logs(console: &str, log: &str) {
    for line in [
        "the clock was",
        "10.0.2.77/24 as the parameters say",
        "pass_deploy_info: answered 503",
        "rebooting",
    ] {
        assert!(console.contains(line), "no {line:?} in:\n{console}");
    }
    for line in [
        "parameters read from the floppy",
        "serial meant",
        "target stopped and disk flushed",
    ] {
        assert!(log.contains(line), "no {line:?} in {log}");
    }
    for secret in [KEY, CHAP_SECRET, TOKEN] {
        assert!(!console.contains(secret), "{secret} is on the console");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_boots_it_and_its_disk_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let console = || shown(folder.path());
    let (_server, mut hearing) = host(
        folder.path(),
        &[
            ("BOOTIF", MAC.to_owned()),
            ("ip_address", "10.0.2.77/24".to_owned()),
            ("gateway", HOST.to_string()),
            ("deploy_address", own_address(1).to_string()),
            ("root_device", "serial=s%3D%3D%20meant".to_owned()),
            ("wipe_disk_metadata", "true".to_owned()),
        ],
    );
    assemble(folder.path());

    let mut machine = machine(folder.path());
    let mut log = Vec::new();
    let called = tokio::time::timeout(PATIENCE, called(&mut hearing, &mut log)).await;
    let body = called.unwrap_or_else(|_| panic!("the ramdisk did not call:\n{}", console()));
    let expected = json!({
        "address": own_address(1), "key": KEY, "iqn": IQN, "error": "", "chap": "true",
    });
    assert_eq!(body, expected, "{}", console());

    let image = noise(11, 4 << 20);
    let written = tokio::time::timeout(PATIENCE, write_disk(&image)).await;
    assert!(written.is_ok(), "not written in time:\n{}", console());
    let mut done = tokio::net::TcpStream::connect((own_address(1), 10000))
        .await
        .unwrap();
    done.write_all(b"done").await.unwrap();
    done.shutdown().await.unwrap();
    // The machine reboots, which ends the emulator.
    let ended = machine.ended().await;
    let ended = ended.unwrap_or_else(|| panic!("no reboot:\n{}", console()));
    assert!(ended.success());

    let disk = fs::read(path("meant")).unwrap();
    assert!(disk[64 * 512..][..image.len()] == image[..]);
    assert!(disk[DISK_BYTES - (1 << 20)..].iter().all(|byte| *byte == 0));
    let other = fs::metadata(path("other")).unwrap();
    assert_eq!(other.blocks(), 0, "the other disk was written");
    while let Ok((_, body)) = hearing.try_recv() {
        log.push(body);
    }
    check_logs(&console(), &Value::from(log).to_string());
}
