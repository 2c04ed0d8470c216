//! What is spoken is found out by what answers.

use super::site::{Authority, PASSWORD, Site, TIMEOUT};
use axum::Router;
use axum::http::StatusCode;
use axum::response::Redirect;
use axum::routing::{get, post};
use flowrun::error::{Error, Kind, Result};
use flowrun::http::Trust;
use flowrun::ilo::model::Dialect;
use flowrun::ilo::{Ilo, IloOptions};
use flowrun::lab::ilo::{EventKind, Fault, Generation};
use flowrun::secret::Secret;
use serde_json::json;

async fn connect(router: Router) -> Result<Ilo> {
    let authority = Authority::new();
    let server = authority.serve(router);
    let options = IloOptions {
        base_url: format!("https://{}", server.address()),
        username: "root".to_owned(),
        password: Secret::new(PASSWORD),
        trust: Trust::Ca(authority.pem.clone()),
        legacy_tls: false,
        timeout: TIMEOUT,
    };
    Ilo::connect(options).await
}

/// The public page of an iLO, in the layout of a DL380 Gen9's.
fn page(processor: &str, firmware: &str, product: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?>\r\n<RIMP>\r\n<HSI>\r\n<SBSN>CZ31</SBSN>\r\n\
         <SPN>{product}</SPN>\r\n</HSI>\r\n<MP>\r\n<ST>1</ST>\r\n<PN>{processor}</PN>\r\n\
         <FWRI>{firmware}</FWRI>\r\n</MP>\r\n</RIMP>\r\n"
    )
}

/// Nothing but that page.
fn page_only(processor: &str, firmware: &str, product: &str) -> Router {
    let page = page(processor, firmware, product);
    Router::new().route("/xmldata", get(async move || page))
}

fn tried(error: &Error) -> Vec<String> {
    let tried = error.details()["tried"].as_array().unwrap().clone();
    tried
        .iter()
        .map(|t| t.as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn an_ilo_2_is_named_as_not_supported() {
    for (processor, name) in [
        ("Integrated Lights-Out 2 (iLO 2)", "ProLiant DL380 G5"),
        ("Integrated Lights-Out", "ProLiant DL380 G3"),
    ] {
        let error = connect(page_only(processor, "2.33", name)).await;
        let error = error.unwrap_err();
        assert_eq!(
            (error.kind(), error.is_retryable()),
            (Kind::Unsupported, false)
        );
        let message = format!("{processor} 2.33 of a {name} is not supported");
        assert_eq!(error.message(), message);
        assert!(error.advice().unwrap().contains("iLO 3"), "{error:?}");
    }
}

#[tokio::test]
async fn an_ilo_with_everything_switched_off_is_an_ilo() {
    let processor = "Integrated Lights-Out 4 (iLO 4)";
    let error = connect(page_only(processor, "2.54", "ProLiant DL380p Gen8")).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    let known = format!("{processor} 2.54 of a ProLiant DL380p Gen8 answers with neither");
    assert!(error.message().starts_with(&known), "{error:?}");
    assert!(error.advice().unwrap().contains("RIBCL"), "{error:?}");
}

#[tokio::test]
async fn what_answers_nothing_of_it_is_not_an_ilo() {
    let error = connect(Router::new()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (Kind::Unsupported, false)
    );
    assert!(error.message().starts_with("not an iLO: "), "{error:?}");
    assert!(error.advice().unwrap().contains("address"), "{error:?}");
    let all_missing = [
        "GET /redfish/v1/: 404 Not Found",
        "GET /rest/v1: 404 Not Found",
        "GET /xmldata?item=all: HTTP status 404",
        "POST /ribcl: no RIBCL here: HTTP status 404",
    ];
    assert_eq!(tried(&error), all_missing);
    for line in all_missing {
        assert!(error.message().contains(line), "{error:?}");
    }

    // A web application answers everything, a gateway sends everybody elsewhere.
    let page = async || "<html>Welcome</html>";
    let error = connect(Router::new().fallback(page)).await.unwrap_err();
    let all_pages = [
        "GET /redfish/v1/: the answer to GET /redfish/v1/ is not JSON",
        "GET /rest/v1: the answer to GET /rest/v1 is not JSON",
        "GET /xmldata?item=all: nothing about an iLO",
        "POST /ribcl: the answer is not RIBCL",
    ];
    assert_eq!(tried(&error), all_pages);
    let away = async || Redirect::permanent("https://elsewhere.example/");
    let error = connect(Router::new().fallback(away)).await.unwrap_err();
    assert!(error.message().starts_with("not an iLO: "), "{error:?}");
    assert!(tried(&error)[0].contains("another host"), "{error:?}");

    // Other JSON, and an enclosure's manager.
    let enclosure = self::page("BladeSystem c7000 Onboard Administrator", "4.60", "");
    let router = Router::new()
        .route(
            "/redfish/v1/",
            get(async || axum::Json(json!({"ok": true}))),
        )
        .route("/xmldata", get(async move || enclosure))
        .route("/ribcl", post(async || StatusCode::FORBIDDEN));
    let error = connect(router).await.unwrap_err();
    let tried = tried(&error);
    assert_eq!(tried[0], "GET /redfish/v1/: no service root");
    assert!(tried[2].contains("Onboard Administrator 4.60"), "{tried:?}");
    assert!(error.message().starts_with("not an iLO: "), "{error:?}");
}

/// A service that is there and in trouble may well be an iLO that starts.
#[tokio::test]
async fn trouble_is_not_taken_for_another_dialect() {
    let trouble = async || StatusCode::SERVICE_UNAVAILABLE;
    let error = connect(Router::new().fallback(trouble)).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (Kind::Unreachable, true)
    );
}

#[tokio::test]
async fn each_generation_is_asked_no_more_than_needed() {
    for (generation, faults, dialect) in [
        (Generation::Ilo7, None, Dialect::Redfish),
        (Generation::Ilo4Rest, None, Dialect::Redfish),
        (Generation::Ilo4Rest, Some(Fault::NoRedfish), Dialect::Rest),
        (Generation::Ilo4Ribcl, None, Dialect::Ribcl),
        // Its page is off: RIBCL itself tells.
        (
            Generation::Ilo4Ribcl,
            Some(Fault::NoXmlData),
            Dialect::Ribcl,
        ),
        (
            Generation::Ilo4Ribcl,
            Some(Fault::ReadUnavailable),
            Dialect::Ribcl,
        ),
    ] {
        let site = Site::with(|config| {
            config.generation = generation;
            config.faults = faults.into_iter().collect();
        });
        let ilo = site.connect().await;
        let info = ilo.info().await.unwrap();
        assert_eq!(info.dialect, dialect, "{generation}");
        let is_public = faults != Some(Fault::NoXmlData);
        assert_eq!(info.uuid.is_some(), is_public, "{generation}");
        assert_eq!(site.count(|e| matches!(e, EventKind::LoginRefused)), 0);
        ilo.close().await.unwrap();
    }
}
