//! Tokens that end while they are used, and temporary URLs that the real Swift does not accept.

use super::cloud::{Cloud, client, unique};
use super::proxy::Fault;
use super::services::services;
use flowrun::clock;
use flowrun::error::Kind;
use flowrun::http::{self, Trust};
use flowrun::openstack::keystone::Token;
use flowrun::openstack::swift::{
    Body, KeyOwner, Swift, SwiftOptions, TempUrlOptions, UploadOptions,
};
use flowrun::secret::Secret;
use md5::{Digest, Md5};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

/// What the real Keystone says of a token.
async fn about(token: &Token) -> u16 {
    let client = http::client(&Trust::System, Duration::from_secs(60)).unwrap();
    let url = format!("{}/auth/tokens", services().auth_url());
    let request = client.head(url);
    let request = request.header("x-auth-token", token.header());
    let request = request.header("x-subject-token", token.header());
    request.send().await.unwrap().status().as_u16()
}

fn create() -> UploadOptions {
    UploadOptions {
        create_container: true,
        ..UploadOptions::default()
    }
}

fn body() -> Body {
    Body::Bytes("hello".into())
}

#[tokio::test]
async fn a_revoked_token_costs_one_login() {
    let cloud = Cloud::new().await;
    let revoked = cloud.revoked().await;
    let dir = tempfile::tempdir().unwrap();
    let (c, user) = (unique(&dir), cloud.user());
    let swift = client(cloud.swift(user.clone()));
    swift.upload(&c, "o", body(), create()).await.unwrap();
    let to = dir.path().join("got");
    let id = services()
        .upload_image("file", serde_json::json!({}), b"image".to_vec())
        .await;
    let glance = cloud.glance(user.clone());
    let image = glance.image(&id).await.unwrap();

    let stale = || [Fault::Token(revoked.clone())];
    let before = user.token().await.unwrap();
    cloud.swift.breaks("PUT", "/o", stale());
    swift
        .upload(&c, "o", body(), UploadOptions::default())
        .await
        .unwrap();
    assert_eq!(cloud.swift.seen().len(), 2);
    let after = user.token().await.unwrap();
    assert!(!Arc::ptr_eq(&before, &after), "given up after the 401");
    cloud.swift.breaks("GET", "/o", stale());
    swift.download(&c, "o", &to).await.unwrap();
    cloud.glance.breaks("GET", "/v2/images", stale());
    glance.image(&id).await.unwrap();
    cloud.glance.breaks("GET", "/file", stale());
    glance.download(&image, &to).await.unwrap();
    assert_eq!(cloud.glance.seen().len(), 2);

    // Refused again and again: told, not asked for ever.
    let stale = || (0..9).map(|_| Fault::Token(revoked.clone()));
    cloud.glance.breaks("GET", "/v2/images", stale());
    let from_glance = glance.image(&id).await.unwrap_err();
    cloud.swift.breaks("HEAD", "/o", stale());
    let from_swift = swift.head(&c, "o").await.unwrap_err();
    assert_eq!(
        (cloud.glance.seen().len(), cloud.swift.seen().len()),
        (2, 2)
    );
    for error in [from_glance, from_swift] {
        assert_eq!((error.kind(), error.is_retryable()), (Kind::Auth, false));
        assert!(
            error.advice().unwrap().contains("even after a new login"),
            "{error:?}"
        );
        cloud.is_masked(&error);
    }
}

/// Keystone's answer promises ten years; the token ends when the real one says so.
#[tokio::test]
async fn a_token_that_ends_sooner_than_it_said_costs_one_login() {
    let cloud = Cloud::new().await;
    let year: u64 = 1970 + clock::unix_seconds() / 31_556_952;
    for year in [year, year + 1] {
        let ends = |year| format!("\"expires_at\": \"{year}-");
        cloud.keystone.rewrite(&ends(year), &ends(year + 10));
    }
    let user = cloud.user();
    let token = user.token().await.unwrap();
    let life = Duration::from_secs(services().number("token_life"));
    let ended = async {
        while about(&token).await == 200 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(life * 10, ended).await.unwrap();
    assert!(
        Arc::ptr_eq(&token, &user.token().await.unwrap()),
        "still believed in"
    );
    let dir = tempfile::tempdir().unwrap();
    let container = unique(&dir);
    cloud.swift.breaks("PUT", "/", []);
    let swift = client(cloud.swift(user.clone()));
    swift
        .upload(&container, "o", body(), create())
        .await
        .unwrap();
    assert_eq!(
        cloud.swift.seen().len(),
        3,
        "the container twice, the object once"
    );
    assert!(!Arc::ptr_eq(&token, &user.token().await.unwrap()));
}

/// Takes a token out of tempauth's memory, as its end does.
fn end_tempauth(token: &str) {
    let address = services()
        .about("memcached")
        .strip_prefix("http://")
        .unwrap();
    let key = hex::encode(Md5::digest(format!("AUTH_/token/{token}")));
    let mut memcached = TcpStream::connect(address).unwrap();
    write!(memcached, "delete {key}\r\nquit\r\n").unwrap();
    let mut said = String::new();
    memcached.read_to_string(&mut said).unwrap();
    assert_eq!(said, "DELETED\r\n");
}

#[tokio::test]
async fn a_token_of_tempauth_that_ended_costs_one_login() {
    let cloud = Cloud::new().await;
    let dir = tempfile::tempdir().unwrap();
    let container = unique(&dir);
    let swift = client(cloud.tempauth("faulty", "failing"));
    swift
        .upload(&container, "o", body(), create())
        .await
        .unwrap();
    let token = cloud.tempauth.tokens().pop().unwrap();
    end_tempauth(&token);
    cloud.tempauth.breaks("PUT", "/o", []);
    swift
        .upload(&container, "o", body(), UploadOptions::default())
        .await
        .unwrap();
    // The HEAD that asks for segments met the 401.
    let new = cloud.tempauth.tokens().pop().unwrap();
    assert_ne!(new, token);
    assert_eq!(cloud.tempauth.seen().len(), 1);
}

/// A client of the real Swift that signs with this key.
fn signer(cloud: &Cloud, key: &str, set: Option<KeyOwner>) -> Swift {
    client(SwiftOptions {
        temp_url_key: Some(Secret::new(key)),
        set_temp_url_key: set,
        ..cloud.swift(cloud.user())
    })
}

#[tokio::test]
async fn a_temporary_url_that_is_not_accepted_is_told_before_anybody_gets_it() {
    let cloud = Cloud::new().await;
    let dir = tempfile::tempdir().unwrap();
    let container = unique(&dir);
    let owner = Some(KeyOwner::Container);
    let good = signer(&cloud, "the right key", owner);
    good.upload(&container, "o", body(), create())
        .await
        .unwrap();
    let sign = async |swift: &Swift, object: &str| {
        let options = TempUrlOptions::default();
        let url = swift.temp_url(&container, object, options).await.unwrap();
        swift.check_temp_url(object, &url).await
    };
    sign(&good, "o").await.unwrap();
    sign(&good, "not there yet").await.unwrap();
    let wrong = sign(&signer(&cloud, "a wr0ng key", None), "o")
        .await
        .unwrap_err();
    let hint = wrong.advice().unwrap();
    assert!(hint.starts_with("the key is not one of"), "{wrong:?}");

    // A Date two hours behind makes URLs that have ended; one that is ahead, URLs that last.
    cloud.swift.move_clock(-7200);
    let late = sign(&signer(&cloud, "the right key", owner), "o")
        .await
        .unwrap_err();
    let hint = late.advice().unwrap();
    assert!(
        hint.contains("Date header") && hint.contains("behind this machine's"),
        "{late:?}"
    );
    cloud.swift.move_clock(7200);
    sign(&signer(&cloud, "the right key", owner), "o")
        .await
        .unwrap();
    for error in [wrong, late] {
        let named = (error.kind(), error.is_retryable(), error.operation());
        assert_eq!(named, (Kind::Auth, false, "swift.temp_url"));
        assert!(!format!("{error:?}").contains("key is wr0ng"), "{error:?}");
        cloud.is_masked(&error);
    }
    // Busy for a moment is not refused.
    cloud.swift.move_clock(0);
    let swift = signer(&cloud, "the right key", owner);
    let url = swift
        .temp_url(&container, "o", TempUrlOptions::default())
        .await
        .unwrap();
    cloud
        .swift
        .breaks("HEAD", "/o", [Fault::Answer(503, ""), Fault::CutAnswer]);
    swift.check_temp_url("o", &url).await.unwrap();
}
