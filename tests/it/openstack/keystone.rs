//! Logins, the catalogue, and tokens that end.

use super::services::services;
use flowrun::error::Kind;
use flowrun::http::{self, Trust};
use flowrun::openstack::keystone::{Keystone, KeystoneOptions, Login, Place, Token};
use flowrun::openstack::swift::{Swift, SwiftAuth, SwiftOptions};
use flowrun::secret::Secret;
use reqwest::{Method, StatusCode};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// What Keystone says of a token, or does with it.
async fn about(method: Method, token: &Token) -> StatusCode {
    let client = http::client(&Trust::System, Duration::from_secs(60)).unwrap();
    let url = format!("{}/auth/tokens", services().auth_url());
    let request = client.request(method, url);
    let request = request.header("x-auth-token", token.header());
    let request = request.header("x-subject-token", token.header());
    request.send().await.unwrap().status()
}

fn application_credential(secret: &str) -> Login {
    Login::ApplicationCredential {
        id: services().about("application_credential_id").to_owned(),
        secret: Secret::new(secret),
    }
}

#[tokio::test]
async fn both_kinds_of_login_open_the_same_account() {
    let secret = services().about("application_credential_secret");
    for login in [
        services().login(services().about("password")),
        application_credential(secret),
    ] {
        let keystone = Keystone::new(services().keystone_options(login)).unwrap();
        let token = keystone.token().await.unwrap();
        assert_eq!(about(Method::HEAD, &token).await, 200);
        let project = services().about("project_id");
        assert_eq!(token.project_id.as_deref(), Some(project));
        let storage = keystone.endpoint(&token, "object-store").unwrap();
        let expected = format!("{}/v1/AUTH_{project}", services().about("swift"));
        assert_eq!(storage, expected);
    }
    for login in [services().login("wrong"), application_credential("wrong")] {
        let keystone = Keystone::new(services().keystone_options(login)).unwrap();
        let error = keystone.token().await.unwrap_err();
        let named = (error.kind(), error.operation(), error.on());
        assert_eq!(
            named,
            (
                Kind::Auth,
                "keystone.log_in",
                services().auth_url().as_str()
            )
        );
        assert!(
            error.message().ends_with("requires authentication."),
            "{error}"
        );
        assert!(!format!("{error:?}").contains("wrong"), "{error:?}");
    }
}

#[tokio::test]
async fn region_and_interface_choose_the_endpoint() {
    let at = |region: Option<&str>, interface: &str| {
        let place = Place {
            region: region.map(str::to_owned),
            interface: interface.to_owned(),
        };
        let login = services().login(services().about("password"));
        let options = services().keystone_options(login);
        Keystone::new(KeystoneOptions { place, ..options }).unwrap()
    };
    let keystone = at(Some("RegionTwo"), "public");
    let token = keystone.token().await.unwrap();
    let elsewhere = keystone.endpoint(&token, "image").unwrap();
    assert_eq!(elsewhere, "http://127.0.0.1:9");
    let error = keystone.endpoint(&token, "object-store").unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    let hint = error.advice().unwrap();
    assert!(hint.contains("public in RegionOne"), "{hint}");
    let error = at(None, "public").endpoint(&token, "image").unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "the regions differ: {error}");
    let error = at(None, "admin").endpoint(&token, "image").unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let keystone = services().keystone();
    let first = keystone.token().await.unwrap();
    let same = keystone.token().await.unwrap();
    assert!(Arc::ptr_eq(&first, &same));
    let life = Duration::from_secs(services().number("token_life"));
    let renewed = async {
        loop {
            let token = keystone.token().await.unwrap();
            if !Arc::ptr_eq(&token, &first) {
                return token;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let renewed = tokio::time::timeout(life * 10, renewed).await.unwrap();
    assert_eq!(about(Method::HEAD, &renewed).await, 200);
}

/// Somebody revoked it: the next request gets a 401, and a new token.
#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once() {
    let keystone = services().keystone();
    let swift = |keystone| {
        Swift::new(SwiftOptions {
            auth: SwiftAuth::Keystone(keystone),
            ..services().swift_options()
        })
        .unwrap()
    };
    let token = keystone.token().await.unwrap();
    assert_eq!(about(Method::DELETE, &token).await, 204);
    let found = swift(keystone.clone()).head("none", "o").await;
    assert_eq!(found.unwrap(), None);
    let new = keystone.token().await.unwrap();
    assert!(!Arc::ptr_eq(&new, &token));

    // One who may log in and nothing else gets no further with a new token.
    let login = Login::Password {
        user: services().about("ramdisk_user").to_owned(),
        user_domain: flowrun::openstack::keystone::Named::Id("default".into()),
        password: Secret::new(services().about("password")),
        project: flowrun::openstack::keystone::Named::Name(
            services().about("ramdisk_project").to_owned(),
        ),
        project_domain: flowrun::openstack::keystone::Named::Id("default".into()),
    };
    let ramdisk = Keystone::new(services().keystone_options(login)).unwrap();
    let error = swift(Arc::new(ramdisk))
        .head("none", "o")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Auth, "{error:?}");
    assert_eq!(error.details()["status"], 403, "{error:?}");
}

/// A folder with `clouds.yaml`, `secure.yaml` and `flowrun.toml`.
fn clouds() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).unwrap();
    write(
        "clouds.yaml",
        format!(
            "clouds:\n  site:\n    auth:\n      auth_url: {}\n      username: {}\n      \
             project_name: {}\n    region_name: {}\n",
            services().about("keystone"),
            services().about("user"),
            services().about("project"),
            services().about("region"),
        ),
    );
    write(
        "secure.yaml",
        format!(
            "clouds: {{ site: {{ auth: {{ password: {} }} }} }}",
            services().about("password")
        ),
    );
    let config = "[site]\nstate_dir = \"state\"\n[keystone]\ncloud = \"site\"\n\
                  clouds_file = \"clouds.yaml\"\n\
                  [swift]\ntemp_url_key = { env = \"FLOWRUN_TEST_KEY\" }\n\
                  set_temp_url_key = \"container\"\n";
    write("flowrun.toml", config.to_owned());
    dir
}

/// The program with a `clouds.yaml`, as an operator has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_of_clouds_yaml_is_used() {
    let dir = clouds();
    let call = |primitive: &str, arguments: String| {
        let output = Command::new(env!("CARGO_BIN_EXE_flowrun"))
            .args(["call", primitive, &arguments])
            .env("FLOWRUN_TEST_KEY", "a key")
            .current_dir(dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (String::from_utf8_lossy(&output.stdout).into_owned(), said)
    };
    let container = dir
        .path()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .replace('.', "");
    let upload = format!(r#"{{"container": "{container}", "name": "o", "text": "hello"}}"#);
    let (out, err) = call("swift.upload", upload);
    assert!(
        out.contains("5d41402abc4b2a76b9719d911017c592"),
        "{out}{err}"
    );
    let list = format!(r#"{{"container": "{container}"}}"#);
    assert_eq!(
        call("swift.list", list)
            .0
            .split_whitespace()
            .collect::<String>(),
        "[\"o\"]"
    );

    // The same container by the credentials of one call, and by wrong ones.
    let by = |key: &str| {
        let user = services().about("user");
        let tenant = services().about("project");
        let by = format!(r#""user": "{user}", "tenant": "{tenant}", "key": "{key}""#);
        format!(r#"{{"container": "{container}", "name": "o", {by}}}"#)
    };
    let (out, err) = call("swift.head", by(services().about("password")));
    assert!(
        out.contains("\"bytes\": 5") || out.contains("\"bytes\":5"),
        "{out}{err}"
    );
    let (out, err) = call("swift.head", by("wr0ng"));
    assert!(
        err.contains("[auth]") && err.contains("keystone.log_in"),
        "{out}{err}"
    );
    assert!(!err.contains("wr0ng"), "{err}");
    let (out, err) = call("keystone.token", "{}".to_owned());
    assert!(
        !format!("{out}{err}").contains("gAAAA"),
        "a token is printed: {out}{err}"
    );
}
