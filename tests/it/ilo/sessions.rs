//! No session stays open at an iLO, as the iLO sees it.

use super::site::{Site, TIMEOUT};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use flowrun::error::Kind;
use flowrun::ilo::model::PowerTarget;
use flowrun::ilo::{Ilo, IloOptions};
use flowrun::lab::ilo::{EventKind, Fault, Generation};

#[tokio::test]
async fn a_connect_that_fails_after_the_login_logs_out() {
    let site = Site::new();
    // Without its drives the iLO is of no use.
    let gone = async || (StatusCode::NOT_FOUND, "{}");
    let router = Router::new()
        .route("/redfish/v1/Managers/1/VirtualMedia/", get(gone))
        .fallback_service(site.machine.router());
    let server = site.authority.serve(router);
    let options = IloOptions {
        base_url: format!("https://{}", server.address()),
        ..site.options()
    };
    let error = Ilo::connect(options).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
    assert_eq!(site.count(|e| matches!(e, EventKind::LoggedIn)), 1);
    assert_eq!(site.machine.snapshot().sessions, 0);
}

#[tokio::test]
async fn a_call_that_fails_keeps_the_session_for_the_next_one() {
    for faults in [&[][..], &[Fault::NoRedfish]] {
        let site = Site::with(|config| {
            config.generation = Generation::Ilo4Rest;
            config.faults = faults.iter().copied().collect();
        });
        let ilo = site.connect().await;
        ilo.set_power(PowerTarget::Reset, TIMEOUT)
            .await
            .unwrap_err();
        ilo.power_state().await.unwrap();
        assert_eq!(site.count(|e| matches!(e, EventKind::LoggedIn)), 1);
        assert_eq!(site.machine.snapshot().sessions, 1);
        ilo.close().await.unwrap();
        assert_eq!(site.machine.snapshot().sessions, 0);
    }
}

/// As a run does that goes on after another process died.
#[tokio::test]
async fn a_successor_deletes_a_session_that_was_left() {
    let site = Site::new();
    let dead = site.connect().await;
    let left = dead.session_path().await.unwrap();
    drop(dead);
    assert_eq!(site.machine.snapshot().sessions, 1);
    let successor = site.connect().await;
    successor
        .request("DELETE", &left, None, TIMEOUT)
        .await
        .unwrap();
    assert_eq!(site.machine.snapshot().sessions, 1);
    successor.close().await.unwrap();
    assert_eq!(site.machine.snapshot().sessions, 0);
}
