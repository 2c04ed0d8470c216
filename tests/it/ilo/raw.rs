//! RIBCL commands of the caller's.

use super::settings::{ALL, quick};
use super::site::{PASSWORD, SIGNATURE, Site, TIMEOUT, assert_clean, pattern};
use flowrun::error::{Error, Kind};
use flowrun::ilo::model::Device;
use flowrun::lab::ilo::{Fault, Generation};
use flowrun::secret::Secret;
use serde_json::{Value, json};

async fn run(site: &Site, block: &str) -> Result<Value, Error> {
    let ilo = site.connect().await;
    let answer = ilo.ribcl(&Secret::new(block), TIMEOUT).await;
    ilo.close().await.unwrap();
    answer
}

#[tokio::test]
async fn ribcl_answers_beside_any_dialect() {
    for (generation, faults) in ALL {
        let site = quick(generation, faults);
        let look = "<SERVER_INFO MODE=\"read\"><GET_PRODUCT_NAME/></SERVER_INFO>";
        let answer = run(&site, look).await;
        if matches!(generation, Generation::Ilo6 | Generation::Ilo7) {
            let error = answer.unwrap_err();
            assert_eq!(error.kind(), Kind::Unsupported, "{generation}: {error}");
            assert_eq!(error.operation(), "ilo.ribcl");
            assert!(error.message().contains("RIBCL"), "{error:?}");
            continue;
        }
        let answer = answer.unwrap();
        let model = site.connect().await.info().await.unwrap().model;
        assert_eq!(answer["message"], "No error", "{generation}");
        assert_eq!(
            answer["elements"],
            json!([{
                "name": "GET_PRODUCT_NAME", "attributes": {}, "text": "",
                "children": [{
                    "name": "PRODUCT_NAME", "attributes": { "VALUE": model }, "text": "",
                    "children": [],
                }],
            }]),
            "{generation}"
        );
        let text = answer["text"].as_str().unwrap();
        assert!(
            text.matches("<?xml").count() > 4 && text.contains(&model),
            "{text}"
        );

        let once = "<SERVER_INFO MODE=\"write\"><SET_ONE_TIME_BOOT VALUE=\"CDROM\"/></SERVER_INFO>";
        run(&site, once).await.unwrap();
        assert_eq!(site.machine.snapshot().boot_override, "Cd", "{generation}");
    }
}

/// The beginning of the licence key that the captures, and so the lab's iLOs, have.
const LICENSE_KEY: &str = "XXXXX-XXXXX";

#[tokio::test]
async fn what_ribcl_shows_holds_no_secrets() {
    let site = quick(Generation::Ilo4Rest, &[]);
    let ilo = site.connect().await;
    let iso = site.image("a.iso", pattern(40_000, 1));
    ilo.attach_vmedia(Device::Cdrom, &iso, TIMEOUT)
        .await
        .unwrap();
    let licence = run(&site, "<RIB_INFO><GET_ALL_LICENSES/></RIB_INFO>")
        .await
        .unwrap();
    let drive = run(
        &site,
        "<RIB_INFO><GET_VM_STATUS DEVICE=\"CDROM\"/></RIB_INFO>",
    )
    .await;
    let drive = drive.unwrap();
    for answer in [&licence, &drive] {
        let seen = answer.to_string();
        for secret in [LICENSE_KEY, SIGNATURE, PASSWORD] {
            assert!(!seen.contains(secret), "{seen}");
        }
    }
    let key = &licence["elements"][0]["children"][0]["children"][1];
    assert_eq!(
        (&key["name"], &key["attributes"]["VALUE"]),
        (&json!("LICENSE_KEY"), &json!("***"))
    );
    assert!(licence["text"].as_str().unwrap().contains("VALUE= \"***\""));
    let url = drive["elements"][0]["attributes"]["IMAGE_URL"].as_str();
    assert!(url.unwrap().ends_with("/c/a.iso?***"), "{url:?}");
}

#[tokio::test]
async fn failures_are_named_by_status() {
    let site = quick(Generation::Ilo4Ribcl, &[]);
    let block =
        |mode: &str, command: &str| format!("<SERVER_INFO MODE=\"{mode}\">{command}</SERVER_INFO>");
    for (block, kind, id) in [
        (block("read", "<GET_SNACKS/>"), Kind::Unsupported, "0x0001"),
        (
            block("read", "<GET_PENDING_BOOT_MODE/>"),
            Kind::Unsupported,
            "0x003C",
        ),
        // The caller forgot what changes something.
        (
            block("read", "<SET_ONE_TIME_BOOT VALUE=\"HDD\"/>"),
            Kind::Invalid,
            "0x00FF",
        ),
        (block("write", "<RESET_SERVER/>"), Kind::Conflict, "0x00FF"),
    ] {
        let error = run(&site, &block).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(error.details()["message_id"], id, "{error}");
        assert_clean(&error);
    }
    let error = run(&site, "<GET_PRODUCT_NAME/>").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    let site = quick(Generation::Ilo5, &[Fault::RibclDisabled]);
    let error = run(&site, &block("read", "<GET_PRODUCT_NAME/>"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(
        error.advice().unwrap().contains("switch RIBCL on"),
        "{error:?}"
    );
}
