//! The simulated RIBCL, asked by hand and by python-hpilo.

use crate::ilo::site::{PASSWORD, Site, TIMEOUT, eventually, pattern};
use flowrun::clock;
use flowrun::http;
use flowrun::ilo::model::{BootMode, PowerState};
use flowrun::lab::host::BootSource;
use flowrun::lab::ilo::{EventKind, Fault, Generation};
use std::process::Command;
use std::time::Duration;

pub(crate) fn site_of(generation: Generation, faults: &[Fault]) -> Site {
    Site::with(|config| {
        config.generation = generation;
        config.faults = faults.iter().copied().collect();
    })
}

fn script(block: &str, mode: &str, commands: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?>\r\n<RIBCL VERSION=\"2.0\"><LOGIN USER_LOGIN=\"root\" \
         PASSWORD=\"{PASSWORD}\"><{block} MODE=\"{mode}\">{commands}</{block}></LOGIN></RIBCL>\r\n"
    )
}

async fn post(site: &Site, script: String) -> reqwest::Result<String> {
    let trust = http::Trust::Ca(site.authority.pem.clone());
    let client = http::client(&trust, TIMEOUT).unwrap();
    let request = client.post(format!("{}/ribcl", site.base_url()));
    let response = request.body(script).send().await?;
    assert_eq!(response.status(), 200);
    let bytes = response.bytes().await?;
    Ok(bytes.iter().map(|byte| char::from(*byte)).collect())
}

/// The first status that is not zero, and its message; of all documents.
fn status(answer: &str) -> (String, String) {
    let statuses = answer.split("STATUS=\"").skip(1).map(|rest| {
        let code = rest.split('"').next().unwrap().to_owned();
        let message = rest.split("MESSAGE='").nth(1).unwrap();
        (code, message.split("'\n").next().unwrap().to_owned())
    });
    let mut bad = statuses.filter(|(code, message)| code != "0x0000" || message != "No error");
    bad.next()
        .unwrap_or_else(|| ("0x0000".to_owned(), "No error".to_owned()))
}

async fn write(site: &Site, block: &str, command: &str) -> (String, String) {
    status(&post(site, script(block, "write", command)).await.unwrap())
}

async fn read(site: &Site, block: &str, command: &str) -> String {
    post(site, script(block, "read", command)).await.unwrap()
}

fn said(code: &str, message: &str) -> (String, String) {
    (code.to_owned(), message.to_owned())
}

fn ok() -> (String, String) {
    said("0x0000", "No error")
}

/// python-hpilo's recording of this very question to an iLO 3 1.82, taken out of its chunks.
const RECORDED: &str = "<?xml version=\"1.0\"?>\r\n<RIBCL VERSION=\"2.23\">\n<RESPONSE\n    \
    STATUS=\"0x0000\"\n    MESSAGE='No error'\n     />\n</RIBCL>\n";
const RECORDED_STATUS: &str = "<GET_VM_STATUS\n    VM_APPLET=\"DISCONNECTED\"\n    \
    DEVICE=\"CDROM\"\n    BOOT_OPTION=\"NO_BOOT\"\n    WRITE_PROTECT=\"YES\"\n    \
    IMAGE_INSERTED=\"NO\"\n    IMAGE_URL=\"\"\n    />\n</RIBCL>\n";

#[tokio::test]
async fn an_answer_is_seven_documents_in_the_layout_of_a_recording() {
    let site = site_of(Generation::Ilo4Ribcl, &[]);
    let seen = read(&site, "RIB_INFO", "<GET_VM_STATUS DEVICE=\"CDROM\"/>").await;
    let fifth = RECORDED.replace("</RIBCL>\n", RECORDED_STATUS);
    let expected = [&RECORDED.repeat(4), &fifth, &RECORDED.repeat(2)];
    assert_eq!(seen, expected.map(String::as_str).concat());

    let wrong = script("RIB_INFO", "read", "<GET_FW_VERSION/>").replace(PASSWORD, "guess");
    let refused = post(&site, wrong).await.unwrap();
    assert_eq!(status(&refused), said("0x005F", "Login failed."));
    assert_eq!(refused.matches("<?xml").count(), 3);
}

#[tokio::test]
async fn media_are_connected_by_word_and_booted_once() {
    let site = site_of(Generation::Ilo4Ribcl, &[]);
    let iso = site.image("a.iso", pattern(40_000, 1));
    let insert = format!(
        "<INSERT_VIRTUAL_MEDIA DEVICE=\"CDROM\" IMAGE_URL=\"{}\"/>",
        iso.expose()
    );
    let option = |value: &str| {
        format!(
            "<SET_VM_STATUS DEVICE=\"CDROM\"><VM_BOOT_OPTION VALUE=\"{value}\"/></SET_VM_STATUS>"
        )
    };
    let empty = said("0x0039", "No image present in the Virtual Media drive");
    assert_eq!(write(&site, "RIB_INFO", &option("CONNECT")).await, empty);
    let eject = "<EJECT_VIRTUAL_MEDIA DEVICE=\"CDROM\"/>";
    assert_eq!(write(&site, "RIB_INFO", eject).await, empty);

    assert_eq!(write(&site, "RIB_INFO", &insert).await, ok());
    let medium = site.machine.snapshot().media.remove(1);
    assert_eq!((medium.inserted, medium.connected), (true, false));
    assert_eq!(write(&site, "RIB_INFO", &option("CONNECT")).await, ok());
    eventually("the medium", || site.machine.snapshot().media[1].connected).await;
    let seen = read(&site, "RIB_INFO", "<GET_VM_STATUS DEVICE=\"CDROM\"/>").await;
    assert!(seen.contains("BOOT_OPTION=\"BOOT_ALWAYS\""), "{seen}");
    assert!(seen.contains("IMAGE_INSERTED=\"YES\""), "{seen}");
    assert_eq!(write(&site, "RIB_INFO", &option("DISCONNECT")).await, ok());
    assert!(!site.machine.snapshot().media[1].connected);
    assert_eq!(write(&site, "RIB_INFO", eject).await, ok());

    // Armed for one boot: connected at that boot, gone at the one after it.
    assert_eq!(write(&site, "RIB_INFO", &insert).await, ok());
    assert_eq!(write(&site, "RIB_INFO", &option("BOOT_ONCE")).await, ok());
    let on = "<SET_HOST_POWER HOST_POWER=\"Yes\"/>";
    assert_eq!(write(&site, "SERVER_INFO", on).await, ok());
    eventually("the boot", || site.boots().len() == 1).await;
    assert_eq!(site.boots()[0].source, BootSource::Cdrom);
    assert_eq!(
        write(&site, "SERVER_INFO", "<RESET_SERVER/>").await,
        said("0x0000", "Server being reset.")
    );
    eventually("the second boot", || site.boots().len() == 2).await;
    assert_eq!(site.boots()[1].source, BootSource::Disk);
    let seen = read(&site, "RIB_INFO", "<GET_VM_STATUS DEVICE=\"CDROM\"/>").await;
    assert!(seen.contains("BOOT_OPTION=\"NO_BOOT\""), "{seen}");
    assert!(seen.contains("IMAGE_INSERTED=\"NO\""), "{seen}");
}

#[tokio::test]
async fn power_and_boot_settings_are_refused_or_said_to_be_so_already() {
    let site = site_of(Generation::Ilo4Rest, &[]);
    let once = "<SET_ONE_TIME_BOOT VALUE=\"CDROM\"/>";
    assert_eq!(
        write(&site, "SERVER_INFO", "<RESET_SERVER/>").await.1,
        "Server is currently powered off."
    );
    assert_eq!(
        write(&site, "SERVER_INFO", "<HOLD_PWR_BTN TOGGLE=\"No\"/>").await,
        said("0x0000", "Host power is already OFF.")
    );
    let read_only = status(&read(&site, "SERVER_INFO", once).await).1;
    assert!(
        read_only.contains("open for read-only access"),
        "{read_only}"
    );
    assert_eq!(write(&site, "SERVER_INFO", once).await, ok());
    assert_eq!(site.machine.snapshot().boot_override, "Cd");
    let legacy = "<SET_PENDING_BOOT_MODE VALUE=\"LEGACY\"/>";
    assert_eq!(write(&site, "SERVER_INFO", legacy).await, ok());
    assert_eq!(site.machine.snapshot().boot_mode, BootMode::Uefi);

    let on = "<SET_HOST_POWER HOST_POWER=\"Yes\"/>";
    assert_eq!(write(&site, "SERVER_INFO", on).await, ok());
    assert_eq!(
        write(&site, "SERVER_INFO", once).await.1,
        "POST in progress, EMS available."
    );
    assert_eq!(
        write(&site, "SERVER_INFO", on).await,
        said("0x0000", "Host power is already ON.")
    );
    eventually("the boot", || site.boots().len() == 1).await;
    assert_eq!(site.machine.snapshot().boot_mode, BootMode::Legacy);
    let order = read(&site, "SERVER_INFO", "<GET_PERSISTENT_BOOT/>").await;
    assert!(order.contains("<DEVICE value=\"HDD\"/>"), "{order}");

    // A Gen8 server has no choice.
    let old = site_of(Generation::Ilo4Ribcl, &[]);
    assert_eq!(
        status(&read(&old, "SERVER_INFO", "<GET_PENDING_BOOT_MODE/>").await),
        said("0x003C", "Feature not supported - GET_PENDING_BOOT_MODE")
    );
    let unknown = status(&read(&old, "SERVER_INFO", "<GET_SNACKS/>").await);
    assert_eq!(unknown.0, "0x0001");
    assert!(unknown.1.contains("syntax error near \"GET_SNACKS\""));
}

#[tokio::test]
async fn one_writer_at_a_time() {
    let site = site_of(Generation::Ilo4Ribcl, &[]);
    let once = "<SET_ONE_TIME_BOOT VALUE=\"HDD\"/>";
    // Whether two scripts meet is chance: they are sent until some have.
    let deadline = clock::instant() + TIMEOUT;
    loop {
        let scripts = (0..8).map(|_| write(&site, "SERVER_INFO", once));
        let answers = futures_util::future::join_all(scripts).await;
        let refused: Vec<_> = answers.iter().filter(|answer| **answer != ok()).collect();
        assert!(refused.len() < 8, "{answers:?}");
        let is_open = |message: &str| message.contains("open for writing");
        assert!(
            refused.iter().all(|(_, message)| is_open(message)),
            "{answers:?}"
        );
        if !refused.is_empty() {
            break;
        }
        assert!(clock::instant() < deadline, "no two scripts met");
    }
    assert_eq!(write(&site, "SERVER_INFO", once).await, ok());
}

#[tokio::test]
async fn what_goes_wrong_does() {
    let get = "<GET_FW_VERSION/>";
    let site = site_of(Generation::Ilo4Ribcl, &[Fault::RibclDisabled]);
    let disabled = status(&read(&site, "RIB_INFO", get).await);
    assert_eq!(disabled.1, "Error: RIBCLI is disabled.");

    let site = site_of(Generation::Ilo4Ribcl, &[Fault::RibclMalformed]);
    let seen = read(&site, "SERVER_INFO", "<GET_PRODUCT_NAME/>").await;
    assert!(seen.contains("<RIBCL VERSION=\"2.23\"/>"), "{seen}");
    assert!(seen.contains('\u{1}') && seen.contains('\u{e9}'), "{seen}");

    let site = site_of(Generation::Ilo4Ribcl, &[Fault::RibclCut]);
    for _ in 0..3 {
        let cut = post(&site, script("RIB_INFO", "read", get)).await;
        assert!(cut.is_err(), "{cut:?}");
    }
    assert_eq!(status(&read(&site, "RIB_INFO", get).await), ok());

    let faults = [Fault::CdromHeldByConsole, Fault::LicenseStandard];
    let site = site_of(Generation::Ilo4Ribcl, &faults);
    let seen = read(&site, "RIB_INFO", "<GET_VM_STATUS DEVICE=\"CDROM\"/>").await;
    assert!(seen.contains("VM_APPLET=\"CONNECTED\""), "{seen}");
    let insert = "<INSERT_VIRTUAL_MEDIA DEVICE=\"CDROM\" IMAGE_URL=\"http://h/a.iso\"/>";
    assert!(write(&site, "RIB_INFO", insert).await.1.contains("license"));
    assert_eq!(site.count(|e| matches!(e, EventKind::Inserted { .. })), 0);
    // iLO 6 and 7 have no RIBCL.
    for generation in [Generation::Ilo6, Generation::Ilo7] {
        let site = site_of(generation, &[]);
        let trust = http::Trust::Ca(site.authority.pem.clone());
        let client = http::client(&trust, TIMEOUT).unwrap();
        let answer = client.post(format!("{}/ribcl", site.base_url())).send();
        assert_eq!(answer.await.unwrap().status(), 404);
    }
}

const HPILO: &str = include_str!("hpilo_client.py");

/// An independent client understands the simulated iLO, also what is malformed in it.
#[tokio::test(flavor = "multi_thread")]
async fn python_hpilo_drives_it() {
    let python = std::env::var_os("FLOWRUN_TEST_PYTHON")
        .expect("FLOWRUN_TEST_PYTHON must name a python with python-hpilo: use tests/run.sh");
    for (generation, name) in [
        (Generation::Ilo4Ribcl, "iLO4"),
        (Generation::Ilo4Rest, "iLO4"),
        (Generation::Ilo5, "iLO5"),
    ] {
        let site = site_of(generation, &[]);
        let iso = site.image("a.iso", pattern(40_000, 1));
        let port = site.base_url().rsplit(':').next().unwrap().to_owned();
        let mut command = Command::new(&python);
        command
            .args(["-c", HPILO, &port, iso.expose(), name])
            .env("ILO_PASSWORD", PASSWORD);
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = tokio::time::timeout(Duration::from_secs(120), output).await;
        let output = output.expect("python-hpilo hangs").unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{generation}: {said}");
        assert_eq!(site.machine.snapshot().power, PowerState::Off);
        assert_eq!(site.boots().len(), 1);
        assert_eq!(site.boots()[0].source, BootSource::Cdrom);
    }
}
