//! The iLO client against sushy-emulator: a Redfish service by others, over TLS and Basic
//! authentication, with nothing of HPE's in it. Where it is lax, so are many BMCs.

use super::site::{Authority, SIGNATURE, TIMEOUT, assert_clean, pattern};
use crate::openstack::services::python;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flowrun::error::Kind;
use flowrun::http::Trust;
use flowrun::http::server::ServerHandle;
use flowrun::ilo::model::{
    BootDevice, BootDevices, BootMode, BootOverride, ConnectedVia, Device, Dialect, IloInfo,
    OverrideEnabled, PostState, PowerState, PowerTarget, VmediaDevice,
};
use flowrun::ilo::{Ilo, IloOptions};
use flowrun::secret::Secret;
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// For what shall not come about.
const SHORT: Duration = Duration::from_secs(2);

/// The emulator ends when its standard input closes, with this.
struct Emulator {
    authority: Authority,
    about: Value,
    process: Child,
    _directory: TempDir,
}

impl Emulator {
    fn start() -> Self {
        let authority = Authority::new();
        let directory = TempDir::new().unwrap();
        let identity = authority.identity();
        let write = |name, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        write("cert.pem", &identity.cert_pem);
        write("key.pem", identity.key_pem.expose());
        let mut process = python()
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/services/sushy.py"
            ))
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(directory.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let about = serde_json::from_str(&line).unwrap_or_else(|_| {
            let log = std::fs::read_to_string(directory.path().join("log"));
            panic!("sushy-emulator did not come up: {}", log.unwrap())
        });
        Self {
            authority,
            about,
            process,
            _directory: directory,
        }
    }

    fn about(&self, name: &str) -> String {
        self.about[name].as_str().unwrap().to_owned()
    }

    fn options(&self) -> IloOptions {
        IloOptions {
            base_url: self.about("url"),
            username: self.about("user"),
            password: Secret::new(self.about("password")),
            trust: Trust::Ca(self.authority.pem.clone()),
            legacy_tls: false,
            timeout: TIMEOUT,
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().unwrap();
    }
}

/// One image under any path, for who has the signature. Counts how often it was read whole.
struct Image {
    bytes: Bytes,
    reads: AtomicUsize,
}

async fn image(
    State(image): State<Arc<Image>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    if query.get("temp_url_sig").is_none_or(|sig| sig != SIGNATURE) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    image.reads.fetch_add(1, Ordering::SeqCst);
    image.bytes.clone().into_response()
}

fn serve_image(authority: &Authority) -> (Arc<Image>, ServerHandle) {
    let shared = Arc::new(Image {
        bytes: pattern(300_001, 7).into(),
        reads: AtomicUsize::new(0),
    });
    let router = Router::new().fallback(image).with_state(shared.clone());
    (shared, authority.serve(router))
}

fn empty(device: Device) -> VmediaDevice {
    VmediaDevice {
        device,
        inserted: false,
        // It says so of every drive.
        connected_via: ConnectedVia::Uri,
        image: None,
        write_protected: false,
        boot_on_next_reset: None,
    }
}

#[tokio::test]
async fn the_whole_conversation_with_a_service_that_is_no_ilo() {
    let emulator = Emulator::start();
    let ilo = Ilo::connect(emulator.options()).await.unwrap();
    assert_eq!(ilo.session_path().await, None);
    let expected = IloInfo {
        generation: 0,
        dialect: Dialect::Redfish,
        firmware: "1.00".to_owned(),
        model: String::new(),
        serial: String::new(),
        uuid: emulator.about("system").parse().ok(),
        bios_version: String::new(),
        license: String::new(),
        power_state: PowerState::Off,
        post_state: PostState::Unknown,
        boot_mode: BootMode::Uefi,
        health: "OK".to_owned(),
        media: vec![empty(Device::Cdrom), empty(Device::Floppy)],
    };
    assert_eq!(ilo.info().await.unwrap(), expected);
    assert!(ilo.check_vmedia_license().await.unwrap().scripted_media);

    power(&ilo).await;
    media(&ilo, &emulator).await;
    boot(&ilo).await;
    assert_eq!(
        ilo.set_power(PowerTarget::ForceOff, TIMEOUT).await.unwrap(),
        PowerState::Off
    );
    ilo.close().await.unwrap();
}

async fn power(ilo: &Ilo) {
    let on = PowerState::On;
    use PowerTarget as T;
    for target in [T::On, T::On, T::Reset, T::Restart] {
        assert_eq!(ilo.set_power(target, TIMEOUT).await.unwrap(), on);
    }
    let off = ilo.set_power(PowerTarget::Off, TIMEOUT).await.unwrap();
    assert_eq!(off, PowerState::Off);
    let error = ilo.set_power(PowerTarget::Reset, TIMEOUT).await;
    assert_eq!(error.unwrap_err().kind(), Kind::Conflict);
}

async fn media(ilo: &Ilo, emulator: &Emulator) {
    let (image, server) = serve_image(&emulator.authority);
    let url = |name: &str, signature: &str| {
        let base = server.address();
        Secret::new(format!("https://{base}/c/{name}?temp_url_sig={signature}"))
    };
    let shown = |name: &str| Some(format!("https://{}/c/{name}?***", server.address()));
    for (device, name) in [
        (Device::Floppy, "floppy.img"),
        (Device::Cdrom, "first.iso"),
        (Device::Cdrom, "second.iso"),
    ] {
        let url = url(name, SIGNATURE);
        let drive = ilo.attach_vmedia(device, &url, TIMEOUT);
        let expected = VmediaDevice {
            inserted: true,
            image: shown(name),
            write_protected: true,
            ..empty(device)
        };
        assert_eq!(drive.await.unwrap(), expected);
    }
    assert_eq!(image.reads.load(Ordering::SeqCst), 3);
    let images = ilo.vmedia_status().await.unwrap();
    let images: Vec<_> = images.into_iter().map(|drive| drive.image).collect();
    assert_eq!(images, [shown("second.iso"), shown("floppy.img")]);

    // The second time round the drive is empty already.
    for device in [Device::Cdrom, Device::Floppy, Device::Floppy] {
        let drive = ilo.eject_vmedia(device, TIMEOUT).await.unwrap();
        assert_eq!(drive, empty(device));
    }

    let expired = url("a.iso", "5ec4e70ld");
    let error = ilo.attach_vmedia(Device::Cdrom, &expired, TIMEOUT).await;
    let error = error.unwrap_err();
    assert_eq!(
        (error.kind(), &error.details()["status"]),
        (Kind::Refused, &400.into())
    );
    assert_eq!(error.details()["message_id"], "Base.1.0.GeneralError");
    // In its own words.
    assert!(
        error.message().ends_with("got error 401 from the server"),
        "{error}"
    );
    assert!(!format!("{error:?}").contains("5ec4e70ld"), "{error:?}");

    let nobody = url("a.iso", SIGNATURE);
    drop(server);
    let error = ilo.attach_vmedia(Device::Cdrom, &nobody, SHORT).await;
    let error = error.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (Kind::Protocol, true));
    assert_clean(&error);
    let drives = ilo.vmedia_status().await.unwrap();
    assert!(drives.iter().all(|drive| drive.image.is_none()));
}

/// The emulator takes `Once` and makes it `Continuous`. A server that boots its deploy ramdisk
/// for ever is not what was asked for, so this is an error that shows what came out.
async fn boot(ilo: &Ilo) {
    let device = BootDevice::Cdrom;
    let lasting = BootDevices {
        next: BootOverride {
            enabled: OverrideEnabled::Continuous,
            device: Some(device),
        },
        persistent: Some(device),
        pending: None,
    };
    let set = ilo.set_boot_device(device, TIMEOUT).await;
    assert_eq!(set.unwrap(), lasting);
    let error = ilo.set_one_time_boot(device, SHORT).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(error.message().contains("Continuous"), "{error}");
    assert_eq!(ilo.boot_device().await.unwrap(), lasting);
    let error = ilo.set_one_time_boot(BootDevice::UefiShell, SHORT).await;
    assert_eq!(error.unwrap_err().kind(), Kind::Unsupported);

    assert!(!ilo.secure_boot().await.unwrap().enabled);
    for enabled in [true, false] {
        let set = ilo.set_secure_boot(enabled, TIMEOUT).await.unwrap();
        assert_eq!(set.enabled, enabled);
    }
    // It has no BIOS resource that could be changed.
    let error = ilo.set_boot_mode(BootMode::Legacy, SHORT).await;
    assert_eq!(error.unwrap_err().kind(), Kind::Unsupported);
}

#[tokio::test]
async fn strangers_and_wrong_passwords_are_told_apart() {
    let emulator = Emulator::start();
    let cases = [
        IloOptions {
            password: Secret::new("wrong-password"),
            ..emulator.options()
        },
        IloOptions {
            trust: Trust::Ca(Authority::new().pem),
            ..emulator.options()
        },
    ];
    let said = ["Incorrect username or password", "certificate"];
    for (options, said) in cases.into_iter().zip(said) {
        let error = Ilo::connect(options).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Auth);
        assert!(error.to_string().contains(said), "{error}");
        assert!(!format!("{error:?}").contains("wrong-password"));
    }
}
