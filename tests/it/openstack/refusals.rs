//! What the services refuse, and what becomes of it: the kind, whether it is tried again, what to
//! do, and no secret.

use super::cloud::{Cloud, client, unique};
use super::proxy::{Fault, Proxy};
use super::services::services;
use crate::objectstore::site::pattern;
use bytes::Bytes;
use flowrun::error::{Error, Kind};
use flowrun::http::{self, Trust};
use flowrun::openstack::glance::{Glance, Image};
use flowrun::openstack::keystone::{Login, Named};
use flowrun::openstack::swift::{Body, Swift, UploadOptions};
use flowrun::secret::Secret;
use serde_json::json;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Op {
    LogIn,
    TempauthLogIn,
    TempauthUpload,
    Upload,
    Download,
    Image,
    ImageData,
}

const OPS: [Op; 7] = [
    Op::LogIn,
    Op::TempauthLogIn,
    Op::TempauthUpload,
    Op::Upload,
    Op::Download,
    Op::Image,
    Op::ImageData,
];

/// The services, an object in both Swifts, an image, and clients that have logged in.
struct Scene {
    cloud: Cloud,
    tempauth: Swift,
    swift: Swift,
    glance: Glance,
    container: String,
    dir: tempfile::TempDir,
    image: Image,
}

fn create() -> UploadOptions {
    UploadOptions {
        create_container: true,
        ..UploadOptions::default()
    }
}

fn small() -> Body {
    Body::Bytes(Bytes::from_static(b"small"))
}

impl Scene {
    async fn new() -> Self {
        let cloud = Cloud::new().await;
        let dir = tempfile::tempdir().unwrap();
        let container = unique(&dir);
        let user = cloud.user();
        let (swift, tempauth) = (client(cloud.swift(user.clone())), tester(&cloud));
        for swift in [&swift, &tempauth] {
            let upload = swift.upload(&container, "o", small(), create());
            upload.await.unwrap();
        }
        let id = services()
            .upload_image("file", json!({}), pattern(10_000))
            .await;
        let glance = cloud.glance(user);
        let image = glance.image(&id).await.unwrap();
        Self {
            cloud,
            tempauth,
            swift,
            glance,
            container,
            dir,
            image,
        }
    }

    /// Where its requests go by, and which they are.
    fn place(&self, op: Op) -> (&Proxy, &'static str, String) {
        let object = format!("/{}/o", self.container);
        match op {
            Op::LogIn => (&self.cloud.keystone, "POST", "/auth/tokens".to_owned()),
            Op::TempauthLogIn => (&self.cloud.tempauth, "GET", "/auth/v1.0".to_owned()),
            Op::TempauthUpload => (&self.cloud.tempauth, "PUT", object),
            Op::Upload => (&self.cloud.swift, "PUT", object),
            Op::Download => (&self.cloud.swift, "GET", object),
            Op::Image => (&self.cloud.glance, "GET", format!("/{}", self.image.id)),
            Op::ImageData => (&self.cloud.glance, "GET", "/file".to_owned()),
        }
    }

    async fn ask(&self, op: Op) -> Result<(), Error> {
        let (c, to) = (&self.container, self.dir.path().join("got"));
        let options = UploadOptions::default();
        match op {
            Op::LogIn => self.cloud.user().token().await.map(drop),
            Op::TempauthLogIn => tester(&self.cloud).head(c, "o").await.map(drop),
            Op::TempauthUpload => {
                let upload = self.tempauth.upload(c, "o", small(), options);
                upload.await.map(drop)
            }
            Op::Upload => self.swift.upload(c, "o", small(), options).await.map(drop),
            Op::Download => self.swift.download(c, "o", &to).await.map(drop),
            Op::Image => self.glance.image(&self.image.id).await.map(drop),
            Op::ImageData => self.glance.download(&self.image, &to).await.map(drop),
        }
    }
}

fn tester(cloud: &Cloud) -> Swift {
    client(cloud.tempauth("tester", "testing"))
}

/// Status, more headers, then: kind, whether it may pass, how often it is tried, a hint.
type Case = (u16, &'static str, Kind, bool, usize, &'static str);

const CASES: [Case; 11] = [
    (401, "", Kind::Auth, false, 2, "even after a new login"),
    (403, "", Kind::Auth, false, 1, "roles"),
    (404, "", Kind::NotFound, false, 1, ""),
    (409, "", Kind::Conflict, false, 1, "somebody else"),
    (413, "", Kind::Limit, false, 1, "quota"),
    (429, "", Kind::Limit, true, 4, "too many requests"),
    (
        429,
        "Retry-After: 0\r\n",
        Kind::Limit,
        true,
        4,
        "alone for 0 s",
    ),
    (500, "", Kind::Protocol, true, 4, "log"),
    (503, "", Kind::Unreachable, true, 4, "log"),
    // Longer than anybody waits here.
    (
        503,
        "Retry-After: 999\r\n",
        Kind::Unreachable,
        true,
        1,
        "alone for 999 s",
    ),
    (507, "", Kind::Limit, false, 1, "quota"),
];

/// What is different where there is no token yet, and where the thing is missing.
fn special(op: Op, status: u16) -> Option<(usize, &'static str)> {
    match (op, status) {
        (Op::LogIn, 401 | 403) => Some((1, "")),
        (Op::LogIn, 404) => Some((1, "auth_url")),
        (Op::TempauthLogIn, 401) => Some((1, "user and key")),
        (Op::TempauthLogIn, 404) => Some((1, "auth_url")),
        (Op::TempauthUpload | Op::Upload, 404) => Some((1, "create_container")),
        (Op::Download, 404) => Some((1, "swift.list")),
        (Op::Image | Op::ImageData, 404) => Some((1, "openstack image list")),
        _ => None,
    }
}

#[tokio::test]
async fn every_refusal_has_its_kind_its_tries_and_a_hint() {
    let scene = Scene::new().await;
    for op in OPS {
        for (status, headers, kind, retryable, tries, hint) in CASES {
            let (proxy, method, part) = scene.place(op);
            let faults = (0..5).map(|_| Fault::Answer(status, headers));
            proxy.breaks(method, part, faults);
            let error = scene.ask(op).await.unwrap_err();
            let shown = format!("{op:?} {status} {headers:?}: {error:?}");
            let (tries, hint) = special(op, status).unwrap_or((tries, hint));
            assert_eq!(
                (error.kind(), error.is_retryable()),
                (kind, retryable),
                "{shown}"
            );
            assert_eq!(proxy.seen().len(), tries, "{shown}");
            let advice = error.advice().unwrap_or_default();
            assert!(advice.contains(hint) && !advice.is_empty(), "{shown}");
            assert!(
                !error.operation().is_empty() && !error.on().is_empty(),
                "{shown}"
            );
            scene.cloud.is_masked(&error);
        }
        let (proxy, method, part) = scene.place(op);
        let busy = [
            Fault::Answer(503, "Retry-After: 1\r\n"),
            Fault::Answer(429, ""),
            Fault::CutAnswer,
        ];
        proxy.breaks(method, part, busy);
        scene.ask(op).await.unwrap();
        assert_eq!(proxy.seen().len(), 4, "{op:?}: what passes is tried again");
    }
}

/// A user who may log in and nothing else.
fn nobody() -> Login {
    let default = Named::Id("default".to_owned());
    Login::Password {
        user: services().about("ramdisk_user").to_owned(),
        user_domain: default.clone(),
        password: Secret::new(services().about("password")),
        project: Named::Name(services().about("ramdisk_project").to_owned()),
        project_domain: default,
    }
}

/// Makes a container of the real tempauth Swift with a quota.
async fn container_with_quota(cloud: &Cloud, name: &str) {
    let client = http::client(&Trust::System, Duration::from_secs(60)).unwrap();
    let login = client
        .get(format!("{}/auth/v1.0", cloud.tempauth.url()))
        .header("x-auth-user", "test:tester")
        .header("x-auth-key", "testing")
        .send()
        .await
        .unwrap();
    let header = |name| login.headers()[name].to_str().unwrap().to_owned();
    let made = client
        .put(format!("{}/{name}", header("x-storage-url")))
        .header("x-auth-token", header("x-auth-token"))
        .header("x-container-meta-quota-bytes", "1000000")
        .header("content-length", "0")
        .send()
        .await
        .unwrap();
    assert_eq!(made.status(), 201);
}

#[tokio::test]
async fn what_the_real_services_refuse_is_told_in_their_words() {
    let scene = Scene::new().await;
    let (cloud, c) = (&scene.cloud, scene.container.as_str());
    let told = |error: Error, kind: Kind, status: u16, said: &str| {
        let shown = format!("{error:?}");
        assert_eq!(
            (error.kind(), error.is_retryable()),
            (kind, false),
            "{shown}"
        );
        assert_eq!(error.details()["status"], status, "{shown}");
        assert!(error.message().contains(said), "{shown}");
        assert!(error.advice().is_some(), "{shown}");
        cloud.is_masked(&error);
    };
    let reader = client(cloud.tempauth("reader", "reading"));
    let error = reader
        .upload(c, "o", small(), UploadOptions::default())
        .await;
    told(error.unwrap_err(), Kind::Auth, 403, "Access was denied");
    let wrong = client(cloud.tempauth("tester", "reading"));
    told(
        wrong.head(c, "o").await.unwrap_err(),
        Kind::Auth,
        401,
        "401",
    );
    let stranger = client(cloud.swift(cloud.keystone(nobody())));
    told(
        stranger.head(c, "o").await.unwrap_err(),
        Kind::Auth,
        403,
        "403",
    );
    let glance = cloud.glance(cloud.keystone(nobody()));
    let error = glance.image("an image by name").await.unwrap_err();
    told(error, Kind::Auth, 403, "403");
    let login = services().login("wrong");
    let error = cloud.keystone(login).token().await.unwrap_err();
    told(error, Kind::Auth, 401, "requires authentication");

    let quota = format!("{c}quota");
    container_with_quota(cloud, &quota).await;
    let file = scene.dir.path().join("large");
    std::fs::write(&file, pattern(3_000_000)).unwrap();
    for body in [Body::File(file), Body::Bytes(pattern(3_000_000).into())] {
        let swift = tester(cloud);
        let error = swift
            .upload(&quota, "o", body, UploadOptions::default())
            .await;
        told(error.unwrap_err(), Kind::Limit, 413, "exceeds quota");
        assert_eq!(swift.head(&quota, "o").await.unwrap(), None);
    }
    let swift = tester(cloud);
    let missing = swift.upload("none", "o", small(), UploadOptions::default());
    told(missing.await.unwrap_err(), Kind::NotFound, 404, "404");
}
