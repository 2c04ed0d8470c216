//! The iLO client against recorded documents of real iLOs, without the simulation.

use super::site::{Authority, PASSWORD, TIMEOUT};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flowrun::error::Kind;
use flowrun::http::Trust;
use flowrun::http::server::ServerHandle;
use flowrun::ilo::model::{
    BootMode, ConnectedVia, Device, Dialect, IloInfo, PostState, PowerState, VmediaDevice,
};
use flowrun::ilo::{Ilo, IloOptions};
use flowrun::secret::Secret;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

macro_rules! data {
    ($path:literal) => {
        include_str!(concat!("../../data/ilo/redfish/ilo5-", $path))
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

fn site(documents: impl IntoIterator<Item = (String, Value)>) -> (Authority, ServerHandle) {
    let documents: Arc<Documents> = Arc::new(documents.into_iter().collect());
    let authority = Authority::new();
    let server = authority.serve(Router::new().fallback(replay).with_state(documents));
    (authority, server)
}

/// Answers a login as the 1.30 capture does, and reads from the documents.
async fn replay(State(documents): State<Arc<Documents>>, request: Request) -> Response {
    let login = data!("1.30-raw-http/login_login_response.http");
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
            body(data!("1.30-raw-http/logout_logout_response.http"))
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

/// Answers every login with a status, and wants name and password with each request instead.
async fn without_sessions(
    State((login, documents)): State<(StatusCode, Arc<Documents>)>,
    request: Request,
) -> Response {
    let path = request.uri().path().trim_end_matches('/');
    let account = format!("Basic {}", STANDARD.encode(format!("username:{PASSWORD}")));
    let sent = request.headers().get("authorization");
    let sent = sent.map(|v| v.to_str().unwrap());
    if request.method() == Method::POST {
        return login.into_response();
    }
    if path != "/redfish/v1" && sent != Some(&account) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    // Nobody else gets to see the password.
    assert!(path != "/redfish/v1" || sent.is_none());
    match documents.get(path) {
        Some(document) => document.to_string().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

#[tokio::test]
async fn without_sessions_each_request_carries_the_account() {
    let documents = [
        (
            "/redfish/v1",
            body(data!("3.11-dl360gen10plus/ServiceRoot.json")),
        ),
        (
            "/redfish/v1/Systems",
            collection(&["/redfish/v1/Systems/1"]),
        ),
        (
            "/redfish/v1/Systems/1",
            body(data!("3.11-dl360gen10plus/Systems_1.json")),
        ),
        (
            "/redfish/v1/Managers/1",
            body(data!("3.11-dl360gen10plus/Managers_1.json")),
        ),
        ("/redfish/v1/Managers/1/VirtualMedia", collection(&[])),
    ];
    let documents: Documents = documents
        .map(|(path, value)| (path.to_owned(), value))
        .into();
    let documents = Arc::new(documents);
    for login in [404, 405, 501] {
        let login = StatusCode::from_u16(login).unwrap();
        let authority = Authority::new();
        let state = (login, documents.clone());
        let router = Router::new().fallback(without_sessions).with_state(state);
        let server = authority.serve(router);
        let ilo = connect(&authority, &server).await;
        assert_eq!(ilo.power_state().await.unwrap(), PowerState::On, "{login}");
        assert_eq!(ilo.session_path().await, None);
        ilo.close().await.unwrap();
        // A wrong password is refused all the same.
        let wrong = IloOptions {
            password: Secret::new("wrong"),
            ..options(&authority, &server)
        };
        assert_eq!(Ilo::connect(wrong).await.unwrap_err().kind(), Kind::Auth);
    }
}

async fn connect(authority: &Authority, server: &ServerHandle) -> Ilo {
    Ilo::connect(options(authority, server)).await.unwrap()
}

fn options(authority: &Authority, server: &ServerHandle) -> IloOptions {
    IloOptions {
        base_url: format!("https://{}", server.address()),
        username: "username".to_owned(),
        password: Secret::new(PASSWORD),
        trust: Trust::Ca(authority.pem.clone()),
        legacy_tls: false,
        timeout: TIMEOUT,
    }
}

/// Everything of a crawled iLO by its own path, and the collections that the crawl left out.
fn crawl(folder: &str) -> Vec<(String, Value)> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ilo/redfish");
    let mut documents = vec![
        (
            "/redfish/v1/Systems",
            collection(&["/redfish/v1/Systems/1"]),
        ),
        (
            "/redfish/v1/Managers/1/LicenseService",
            collection(&["/redfish/v1/Managers/1/LicenseService/1"]),
        ),
    ]
    .into_iter()
    .map(|(path, document)| (path.to_owned(), document))
    .collect::<Vec<_>>();
    for file in std::fs::read_dir(format!("{root}/{folder}")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        let path = document["@odata.id"]
            .as_str()
            .map(|p| p.trim_end_matches('/').to_owned());
        documents.extend(path.map(|path| (path, document)));
    }
    documents
}

/// What three of them state.
fn crawled() -> [IloInfo; 3] {
    let drives = |floppy: Option<VmediaDevice>| {
        let cdrom = VmediaDevice {
            boot_on_next_reset: Some(false),
            ..empty(Device::Cdrom)
        };
        floppy.into_iter().chain([cdrom]).collect::<Vec<_>>()
    };
    let gen10 = IloInfo {
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
        media: drives(Some(VmediaDevice {
            inserted: true,
            connected_via: ConnectedVia::Uri,
            image: Some(
                "http://172.18.58.146:8080/api/file-copy-request/download/\
                 44cf87d0-cf23-430e-bc43-6c6decbfe3f2"
                    .to_owned(),
            ),
            ..empty(Device::Floppy)
        })),
    };
    let gen11 = IloInfo {
        generation: 6,
        firmware: "1.66".to_owned(),
        model: "ProLiant DL380a Gen11 -- SIMULATED".to_owned(),
        serial: "2M2D2J00L4".to_owned(),
        uuid: "39343550-3330-4d32-3244-324a30304c34".parse().ok(),
        bios_version: "U58 v2.44 (01/17/2025)".to_owned(),
        license: "iLO Advanced".to_owned(),
        media: drives(None),
        ..gen10.clone()
    };
    let gen12 = IloInfo {
        generation: 7,
        firmware: "1.14.00".to_owned(),
        model: "HPE ProLiant Compute DL360 Gen12 -- SIMULATED".to_owned(),
        serial: "3M1D2V13TW".to_owned(),
        uuid: "31323750-3637-4d33-3144-325631335457".parse().ok(),
        bios_version: "U68 v1.40 (05/22/2025)".to_owned(),
        license: "iLO Advanced".to_owned(),
        post_state: PostState::InPostDiscoveryComplete,
        media: drives(Some(VmediaDevice {
            write_protected: false,
            ..empty(Device::Floppy)
        })),
        ..gen10.clone()
    };
    [gen10, gen11, gen12]
}

#[tokio::test]
async fn every_crawled_ilo_tells_who_it_is() {
    let [gen10, gen11, gen12] = crawled();
    // The crawl of the Gen11 server has no document of the first drive.
    let one_drive = (
        "/redfish/v1/Managers/1/VirtualMedia".to_owned(),
        collection(&["/redfish/v1/Managers/1/VirtualMedia/2"]),
    );
    for (folder, more, expected) in [
        ("ilo5-3.11-dl360gen10plus", None, gen10),
        ("ilo6-1.66-dl380agen11", Some(one_drive), gen11),
        ("ilo7-1.14-dl360gen12", None, gen12),
    ] {
        let documents = crawl(folder).into_iter().chain(more);
        let (authority, server) = site(documents);
        let ilo = connect(&authority, &server).await;
        assert_eq!(ilo.info().await.unwrap(), expected);
        assert!(ilo.check_vmedia_license().await.unwrap().scripted_media);
        ilo.close().await.unwrap();
    }
}

fn empty(device: Device) -> VmediaDevice {
    VmediaDevice {
        device,
        inserted: false,
        connected_via: ConnectedVia::NotConnected,
        image: None,
        write_protected: true,
        boot_on_next_reset: None,
    }
}

/// Links end in slashes, drives have HPE's actions only, there is no licence resource.
#[tokio::test]
async fn ilo_5_1_x() {
    let media = body(data!("proliantutils/vmedia.json"));
    let documents = [
        (
            "/redfish/v1",
            body(data!("1.30-raw-http/login_root_response.http")),
        ),
        (
            "/redfish/v1/Systems",
            collection(&["/redfish/v1/Systems/1/"]),
        ),
        (
            "/redfish/v1/Systems/1",
            body(data!("1.30-raw-http/rbsu_systems_1_response.http")),
        ),
        (
            "/redfish/v1/systems/1/bios",
            body(data!("1.30-raw-http/rbsu_bios_response.http")),
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
    ];
    let owned = documents.map(|(path, document)| (path.to_owned(), document));
    let (authority, server) = site(owned);
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
