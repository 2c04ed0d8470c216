//! The iLO client against recorded documents of real iLOs, without the simulation.

use super::site::{Authority, PASSWORD, TIMEOUT};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use flowrun::error::Kind;
use flowrun::http::Trust;
use flowrun::http::server::ServerHandle;
use flowrun::ilo::model::{
    BootMode, ConnectedVia, Device, Dialect, IloInfo, PostState, PowerState,
};
use flowrun::ilo::{Ilo, IloOptions};
use flowrun::secret::Secret;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

macro_rules! data {
    ($path:literal) => {
        include_str!(concat!("../../data/ilo5/", $path))
    };
}

/// Documents by path without trailing slash.
type Documents = HashMap<String, Value>;

/// The JSON of a capture, with or without status line and headers before it.
fn body(capture: &str) -> Value {
    serde_json::from_str(&capture[capture.find('{').unwrap()..]).unwrap()
}

/// What the captures do not hold: collections of one or more members.
fn collection(members: &[&str]) -> Value {
    let members: Vec<Value> = members.iter().map(|m| json!({ "@odata.id": m })).collect();
    json!({ "Members": members })
}

fn site(documents: Vec<(&str, Value)>) -> (Authority, ServerHandle) {
    let documents = documents
        .into_iter()
        .map(|(path, value)| (path.to_owned(), value));
    let documents: Arc<Documents> = Arc::new(documents.collect());
    let authority = Authority::new();
    let server = authority.serve(Router::new().fallback(replay).with_state(documents));
    (authority, server)
}

/// Answers a login as the 1.30 capture does, and reads from the documents.
async fn replay(State(documents): State<Arc<Documents>>, request: Request) -> Response {
    let login = data!("1.30/login_login_response.http");
    let header = |name: &str| {
        let line = login
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap().to_owned()
    };
    let path = request.uri().path().trim_end_matches('/');
    let token = request
        .headers()
        .get("x-auth-token")
        .map(|v| v.to_str().unwrap().to_owned());
    match *request.method() {
        Method::POST if path == "/redfish/v1/SessionService/Sessions" => {
            let headers = ["Location", "X-Auth-Token"].map(|name| (name, header(name)));
            (StatusCode::CREATED, headers, body(login).to_string()).into_response()
        }
        _ if path != "/redfish/v1" && token != Some(header("X-Auth-Token")) => {
            StatusCode::UNAUTHORIZED.into_response()
        }
        Method::DELETE if header("Location").ends_with(&format!("{path}/")) => {
            body(data!("1.30/logout_logout_response.http"))
                .to_string()
                .into_response()
        }
        Method::GET => match documents.get(path) {
            Some(document) => document.to_string().into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

async fn connect(authority: &Authority, server: &ServerHandle) -> Ilo {
    let options = IloOptions {
        base_url: format!("https://{}", server.address()),
        username: "username".to_owned(),
        password: Secret::new(PASSWORD),
        trust: Trust::Ca(authority.pem.clone()),
        legacy_tls: false,
        timeout: TIMEOUT,
    };
    Ilo::connect(options).await.unwrap()
}

#[tokio::test]
async fn ilo_5_3_11() {
    let (authority, server) = site(vec![
        ("/redfish/v1", body(data!("3.11/ServiceRoot.json"))),
        (
            "/redfish/v1/Systems",
            collection(&["/redfish/v1/Systems/1"]),
        ),
        ("/redfish/v1/Systems/1", body(data!("3.11/Systems_1.json"))),
        (
            "/redfish/v1/systems/1/bios",
            body(data!("3.11/Systems_1_bios.json")),
        ),
        (
            "/redfish/v1/Managers/1",
            body(data!("3.11/Managers_1.json")),
        ),
        (
            "/redfish/v1/Managers/1/LicenseService",
            collection(&["/redfish/v1/Managers/1/LicenseService/1"]),
        ),
        (
            "/redfish/v1/Managers/1/LicenseService/1",
            body(data!("3.11/Managers_1_LicenseService_1.json")),
        ),
        (
            "/redfish/v1/Managers/1/VirtualMedia",
            collection(&[
                "/redfish/v1/Managers/1/VirtualMedia/1",
                "/redfish/v1/Managers/1/VirtualMedia/2",
            ]),
        ),
        (
            "/redfish/v1/Managers/1/VirtualMedia/1",
            body(data!("3.11/Managers_1_VirtualMedia_1.json")),
        ),
        (
            "/redfish/v1/Managers/1/VirtualMedia/2",
            body(data!("3.11/Managers_1_VirtualMedia_2.json")),
        ),
    ]);
    let ilo = connect(&authority, &server).await;
    let expected = IloInfo {
        generation: 5,
        dialect: Dialect::Redfish,
        firmware: "3.11".to_owned(),
        model: "ProLiant DL360 Gen10 Plus - SIMULATED".to_owned(),
        serial: "MXQ2390RHW".to_owned(),
        uuid: "39383250-3834-584d-5132-333930524857".parse().ok(),
        bios_version: "U46 v2.34 (03/11/2025)".to_owned(),
        license: "iLO Advanced limited-distribution test".to_owned(),
        power_state: PowerState::On,
        post_state: PostState::FinishedPost,
        boot_mode: BootMode::Uefi,
        health: "OK".to_owned(),
        media: ilo.vmedia_status().await.unwrap(),
    };
    assert_eq!(ilo.info().await.unwrap(), expected);
    let drives = ilo.vmedia_status().await.unwrap();
    assert_eq!(
        (drives[0].device, drives[0].connected_via),
        (Device::Floppy, ConnectedVia::Uri)
    );
    assert_eq!(
        (drives[1].device, drives[1].inserted),
        (Device::Cdrom, false)
    );
    ilo.close().await.unwrap();
}

/// Links end in slashes, drives have HPE's actions only, there is no licence resource.
#[tokio::test]
async fn ilo_5_1_x() {
    let media = body(data!("proliantutils/vmedia.json"));
    let (authority, server) = site(vec![
        ("/redfish/v1", body(data!("1.30/login_root_response.http"))),
        (
            "/redfish/v1/Systems",
            collection(&["/redfish/v1/Systems/1/"]),
        ),
        (
            "/redfish/v1/Systems/1",
            body(data!("1.30/rbsu_systems_1_response.http")),
        ),
        (
            "/redfish/v1/systems/1/bios",
            body(data!("1.30/rbsu_bios_response.http")),
        ),
        (
            "/redfish/v1/Managers/1",
            body(data!("proliantutils/manager.json")),
        ),
        (
            "/redfish/v1/Managers/1/VirtualMedia",
            collection(&[
                "/redfish/v1/Managers/1/VirtualMedia/1/",
                "/redfish/v1/Managers/1/VirtualMedia/2/",
            ]),
        ),
        (
            "/redfish/v1/Managers/1/VirtualMedia/1",
            media["vmedia_floppy"].clone(),
        ),
        (
            "/redfish/v1/Managers/1/VirtualMedia/2",
            media["vmedia_inserted"].clone(),
        ),
    ]);
    let ilo = connect(&authority, &server).await;
    assert_eq!(ilo.power_state().await.unwrap(), PowerState::On);
    assert_eq!(ilo.boot_mode().await.unwrap(), BootMode::Uefi);
    let drives = ilo.vmedia_status().await.unwrap();
    assert_eq!(
        drives[1].image.as_deref(),
        Some("http://172.17.1.121:8081/test")
    );
    let error = ilo.check_vmedia_license().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.operation()),
        (Kind::NotFound, "ilo.check_vmedia_license")
    );
    ilo.close().await.unwrap();
}
