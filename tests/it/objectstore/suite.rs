//! What every Swift does for our client: the built-in one, and the real one with either login.

use super::answers::*;
use super::large::*;
use super::site::{Site, TIMEOUT, pattern};
use super::written::{kept, medium};
use super::{bytes, create};
use crate::openstack::services::services;
use bytes::Bytes;
use flowrun::error::Kind;
use flowrun::http;
use flowrun::openstack::swift::{
    Body, Entry, KeyOwner, ListOptions, Swift, SwiftAuth, SwiftOptions, TempUrlOptions,
    UploadOptions,
};
use flowrun::secret::Secret;
use md5::{Digest, Md5};
use reqwest::Method;
use reqwest::header::HeaderMap;
use sha2::Sha256;
use std::collections::BTreeMap;
use std::time::Duration;

/// One Swift, and a container of it that nobody else uses.
pub(super) struct Place {
    pub(super) options: SwiftOptions,
    pub(super) container: String,
    pub(super) dir: tempfile::TempDir,
    site: Option<Site>,
}

impl Place {
    pub(super) fn new(options: SwiftOptions, site: Option<Site>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let unique = dir.path().file_name().unwrap().to_str().unwrap();
        Self {
            container: format!("suite{unique}"),
            options,
            dir,
            site,
        }
    }

    fn built_in() -> Self {
        let site = Site::new();
        Self::new(site.options(), Some(site))
    }

    pub(super) fn client(&self) -> Swift {
        Swift::new(self.options.clone()).unwrap()
    }

    pub(super) fn with_key(&self, key: &str, set: Option<KeyOwner>) -> Swift {
        Swift::new(SwiftOptions {
            temp_url_key: Some(Secret::new(key)),
            set_temp_url_key: set,
            ..self.options.clone()
        })
        .unwrap()
    }

    /// The answer to a request without a token, as anybody may send it.
    pub(super) async fn ask(
        &self,
        method: Method,
        url: &str,
        header: Option<(&str, &str)>,
    ) -> Answer {
        self.request(method, url, header.as_slice(), "").await
    }

    pub(super) async fn request(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let client = http::client(&self.options.trust, TIMEOUT).unwrap();
        let mut request = client.request(method.clone(), url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let has_length = headers.iter().any(|(name, _)| *name == "content-length");
        if !body.is_empty() {
            request = request.body(body.to_owned());
        } else if !has_length && [Method::PUT, Method::POST].contains(&method) {
            request = request.header("content-length", "0");
        }
        let answer = request.send().await.unwrap();
        Answer {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: answer.bytes().await.unwrap(),
        }
    }

    /// The account's URL, and a token.
    pub(super) async fn session(&self) -> (String, String) {
        let (auth_url, user, key) = match &self.options.auth {
            SwiftAuth::V1 {
                auth_url,
                user,
                key,
            } => (auth_url, user, key),
            SwiftAuth::Keystone(keystone) => {
                let token = keystone.token().await.unwrap();
                let url = keystone.endpoint(&token, "object-store").unwrap();
                return (url, token.secret().expose().to_owned());
            }
            other => panic!("{other:?}"),
        };
        let login = [("x-auth-user", user.as_str()), ("x-auth-key", key.expose())];
        let answer = self.request(Method::GET, auth_url, &login, "").await;
        let header = |name| answer.header(name).to_owned();
        (header("x-storage-url"), header("x-auth-token"))
    }

    async fn get(&self, url: &Secret) -> u16 {
        self.ask(Method::GET, url.expose(), None).await.status
    }

    pub(super) fn file(&self, length: usize) -> (Body, Vec<u8>) {
        let path = self.dir.path().join("upload");
        let content = pattern(length);
        std::fs::write(&path, &content).unwrap();
        (Body::File(path), content)
    }

    pub(super) async fn download(&self, name: &str) -> Vec<u8> {
        let to = self.dir.path().join("download");
        let swift = self.client();
        swift.download(&self.container, name, &to).await.unwrap();
        std::fs::read(to).unwrap()
    }

    /// Names in the container, or in the one of its segments.
    pub(super) async fn names(&self, segments: bool) -> Vec<String> {
        let container = match segments {
            true => format!("{}_segments", self.container),
            false => self.container.clone(),
        };
        match self.client().list(&container, ListOptions::default()).await {
            Ok(rows) => rows.iter().map(|row| row.name().to_owned()).collect(),
            Err(error) if error.kind() == Kind::NotFound => Vec::new(),
            Err(error) => panic!("{error:?}"),
        }
    }
}

pub(super) struct Answer {
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

async fn keeps_objects_and_what_is_said_of_them(place: Place) {
    let (swift, c) = (place.client(), place.container.as_str());
    let options = UploadOptions {
        delete_after: Some(Duration::from_secs(3600)),
        metadata: [("usage-count".to_owned(), "1".to_owned())].into(),
        content_type: Some("application/x-iso9660-image".to_owned()),
        ..create()
    };
    let uploaded = swift
        .upload(c, "boot-1", bytes("hello world"), options)
        .await
        .unwrap();
    assert_eq!(uploaded.etag, "5eb63bbbe01eeed093cb22bb8f5acdc3");
    assert_eq!((uploaded.bytes, uploaded.segments.len()), (11, 0));

    let info = swift.head(c, "boot-1").await.unwrap().unwrap();
    assert_eq!((info.bytes, &info.etag), (11, &uploaded.etag));
    assert_eq!(info.content_type, "application/x-iso9660-image");
    assert_eq!(info.metadata["usage_count"], "1");
    let delete_at = info.delete_at.unwrap();

    let changes = BTreeMap::from([
        ("usage_count".to_owned(), Some("2".to_owned())),
        ("Node".to_owned(), Some("zürich-7".to_owned())),
    ]);
    let now = swift.set_metadata(c, "boot-1", &changes).await.unwrap();
    assert_eq!(now["node"], "zürich-7");
    let changes = BTreeMap::from([("node".to_owned(), None)]);
    let now = swift.set_metadata(c, "boot-1", &changes).await.unwrap();
    let info = swift.head(c, "boot-1").await.unwrap().unwrap();
    assert_eq!(info.metadata, now);
    assert_eq!(now, [("usage_count".to_owned(), "2".to_owned())].into());
    assert_eq!(
        info.delete_at,
        Some(delete_at),
        "a POST must not drop the expiry"
    );
    assert_eq!(info.content_type, "application/x-iso9660-image");

    let (empty, _) = place.file(0);
    let uploaded = swift.upload(c, "empty", empty, create()).await.unwrap();
    assert_eq!(uploaded.etag, "d41d8cd98f00b204e9800998ecf8427e");

    assert!(swift.delete(c, "boot-1").await.unwrap());
    assert!(!swift.delete(c, "boot-1").await.unwrap());
    assert_eq!(swift.head(c, "boot-1").await.unwrap(), None);
    assert_eq!(swift.head("none", "boot-1").await.unwrap(), None);
    let error = swift.set_metadata(c, "boot-1", &changes).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.message()),
        (Kind::NotFound, "no such object")
    );
    let error = swift
        .list("none", ListOptions::default())
        .await
        .unwrap_err();
    assert_eq!((error.kind(), error.on()), (Kind::NotFound, "none"));
    let missing = swift.upload("none", "o", bytes("1"), UploadOptions::default());
    let error = missing.await.unwrap_err();
    assert_eq!((error.kind(), error.on()), (Kind::NotFound, "none/o"));
    assert!(error.advice().unwrap().contains("create_container"));
    assert!(
        error.details()["transaction"]
            .as_str()
            .unwrap()
            .starts_with("tx")
    );
}

async fn carries_any_name_and_lists_them_in_pages(place: Place) {
    let swift = place.client();
    let container = format!("{} ü%", place.container);
    let mut names = [
        "a//b",
        "/lead",
        "trail/",
        "per%cent %2e%2e",
        "q?a=1&b#c",
        "dü/日本",
        "sp ace+plus",
        "..a",
        "back\\slash",
        "\"quote'",
        "many/1",
        "many/2",
        "many/3",
    ];
    for name in names {
        let body = Body::Bytes(Bytes::from(name.as_bytes().to_vec()));
        swift
            .upload(&container, name, body, create())
            .await
            .unwrap();
    }
    names.sort_unstable();
    let list = |options| swift.list(&container, options);
    let listed = list(ListOptions::default()).await.unwrap();
    assert_eq!(listed.iter().map(Entry::name).collect::<Vec<_>>(), names);
    for name in names {
        let to = place.dir.path().join("got");
        swift.download(&container, name, &to).await.unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), name.as_bytes());
    }
    let some = ListOptions {
        prefix: Some("many/".to_owned()),
        marker: Some("many/1".to_owned()),
        limit: Some(1),
        ..ListOptions::default()
    };
    let some = list(some).await.unwrap();
    assert_eq!(some.iter().map(Entry::name).collect::<Vec<_>>(), ["many/2"]);
    let top = ListOptions {
        delimiter: Some("/".to_owned()),
        prefix: Some("m".to_owned()),
        ..ListOptions::default()
    };
    let top = list(top).await.unwrap();
    assert!(
        matches!(&top[..], [Entry::Subdir(name)] if name == "many/"),
        "{top:?}"
    );
}

async fn expired_objects_vanish(place: Place) {
    let (swift, c) = (place.client(), place.container.as_str());
    swift
        .upload(c, "stays", bytes("1"), create())
        .await
        .unwrap();
    let brief = UploadOptions {
        delete_after: Some(Duration::from_secs(1)),
        ..UploadOptions::default()
    };
    swift.upload(c, "goes", bytes("2"), brief).await.unwrap();
    let gone = async {
        while swift.head(c, "goes").await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // The bytes go when a daemon comes by; the listing tells.
        while place.names(false).await != ["stays"] {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let gone = tokio::time::timeout(TIMEOUT * 3, gone).await;
    gone.expect("the object must expire and be removed");
}

async fn temp_urls_open_one_object_for_a_while(place: Place) {
    let (swift, c) = (place.client(), place.container.as_str());
    swift.upload(c, "x", bytes("x"), create()).await.unwrap();
    let key = place.with_key("first", Some(KeyOwner::Container));
    let body = pattern(100_000);
    let upload = Body::Bytes(Bytes::from(body.clone()));
    swift
        .upload(c, "dir/boot ü.iso", upload, create())
        .await
        .unwrap();
    let options = TempUrlOptions {
        filename: Some("boot.iso".to_owned()),
        ..TempUrlOptions::default()
    };
    let url = key
        .temp_url(c, "dir/boot ü.iso", options.clone())
        .await
        .unwrap();
    let url = url.expose();
    assert!(url.ends_with("&filename=boot.iso"), "{url}");
    let whole = place.ask(Method::GET, url, None).await;
    assert_eq!((whole.status, whole.body == body), (200, true));
    let head = place.ask(Method::HEAD, url, None).await;
    assert_eq!(
        (head.status, head.header("content-length")),
        (200, "100000")
    );
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=2048-4095", 2048, 4096),
        ("bytes=-1000", 99_000, 100_000),
    ] {
        let part = place.ask(Method::GET, url, Some(("range", range))).await;
        assert_eq!(
            (part.status, part.body == body[from..to]),
            (206, true),
            "{range}"
        );
    }
    let beyond = place
        .ask(Method::GET, url, Some(("range", "bytes=100000-")))
        .await;
    assert_eq!(beyond.status, 416);
    for method in [Method::PUT, Method::DELETE, Method::POST] {
        let refused = place
            .ask(method.clone(), url, Some(("content-length", "0")))
            .await;
        assert_eq!(refused.status, 401, "{method}");
    }
    for (from, to) in [
        ("%20%C3%BC.iso", ".iso"),
        ("temp_url_sig=", "temp_url_sig=0"),
        ("temp_url_expires=", "temp_url_expires=1"),
    ] {
        let changed = url.replace(from, to);
        assert_ne!(changed, url);
        assert_eq!(
            place.ask(Method::GET, &changed, None).await.status,
            401,
            "{from}"
        );
    }
}

async fn temp_urls_end_and_are_for_one_key_and_method(place: Place) {
    let (swift, c) = (place.client(), place.container.as_str());
    swift.upload(c, "x", bytes("x"), create()).await.unwrap();
    let key = place.with_key("first", Some(KeyOwner::Container));
    let wrong = place.with_key("another", None);
    let url = wrong
        .temp_url(c, "x", TempUrlOptions::default())
        .await
        .unwrap();
    assert_eq!(place.get(&url).await, 401, "wrong key");
    let brief = TempUrlOptions {
        ttl: Duration::from_secs(2),
        ..TempUrlOptions::default()
    };
    let brief = key.temp_url(c, "x", brief).await.unwrap();
    let ended = async { while place.get(&brief).await != 401 {} };
    let ended = tokio::time::timeout(TIMEOUT, ended).await;
    ended.expect("the URL must expire");
    let put = TempUrlOptions {
        method: Method::PUT,
        ..TempUrlOptions::default()
    };
    let put = key.temp_url(c, "new", put).await.unwrap();
    let created = place
        .ask(Method::PUT, put.expose(), Some(("content-length", "0")))
        .await;
    assert_eq!(created.status, 201);
    assert_eq!(place.get(&put).await, 401, "a PUT signature must not read");
}

/// Keys are set where they are missing; the one before stays good.
async fn temp_url_keys_rotate(place: Place) {
    let (swift, c) = (place.client(), place.container.as_str());
    swift.upload(c, "o", bytes("1"), create()).await.unwrap();
    let owner = Some(KeyOwner::Container);
    let mut urls = Vec::new();
    for key in ["one", "two", "two", "three"] {
        let by = place.with_key(key, owner);
        let url = by
            .temp_url(c, "o", TempUrlOptions::default())
            .await
            .unwrap();
        assert_eq!(place.get(&url).await, 200, "{key}");
        urls.push(url);
    }
    // A proxy remembers a container's keys for a while; ask until each verdict is the last one.
    for (url, expected) in urls.iter().zip([401, 200, 200, 200]) {
        let settled = async { while place.get(url).await != expected {} };
        tokio::time::timeout(TIMEOUT * 3, settled)
            .await
            .expect("only the last two keys are good");
    }
}

async fn files_over_the_limit_become_segments(place: Place) {
    let (swift, c) = (place.client(), place.container.as_str());
    let segmented = UploadOptions {
        segment_bytes: Some(1 << 20),
        metadata: [("a".to_owned(), "b".to_owned())].into(),
        ..create()
    };
    let (body, content) = place.file(3_500_000);
    let uploaded = swift
        .upload(c, "big", body.clone(), segmented.clone())
        .await
        .unwrap();
    assert_eq!(uploaded.bytes, 3_500_000);
    assert!(place.download("big").await == content);
    let info = swift.head(c, "big").await.unwrap().unwrap();
    assert_eq!((info.bytes, info.metadata["a"].as_str()), (3_500_000, "b"));
    let names = |segments: &[String]| -> Vec<String> {
        let name = |path: &String| path.split_once('/').unwrap().1.to_owned();
        segments.iter().map(name).collect()
    };
    assert_eq!(place.names(true).await, names(&uploaded.segments));
    // The same again doubles nothing, hashed here or not; another one leaves nothing of the one
    // before.
    let unchecked = UploadOptions {
        unchecked: true,
        ..segmented.clone()
    };
    let again = swift.upload(c, "big", body, unchecked).await.unwrap();
    assert_eq!((&again.etag, again.bytes), (&uploaded.etag, 3_500_000));
    assert_eq!(place.names(true).await, names(&again.segments));
    let (body, content) = place.file(2_000_000);
    let uploaded = swift.upload(c, "big", body, segmented).await.unwrap();
    assert!(place.download("big").await == content);
    assert_eq!(place.names(true).await, names(&uploaded.segments));
    assert!(swift.delete(c, "big").await.unwrap());
    assert_eq!(place.names(true).await, [""; 0]);
    assert_eq!(place.names(false).await, [""; 0]);
}

async fn an_iso_is_written_while_it_is_sent(place: Place) {
    let (swift, c) = (place.client(), place.container.as_str());
    let dir = place.dir.path();
    let overhead = usize::try_from(medium(dir, 0).bytes()).unwrap();
    // Less than a chunk, the end of a chunk, and some more.
    for ramdisk in [1, (1 << 20) - overhead, 2_500_000] {
        let iso = medium(dir, ramdisk);
        let body = Body::Iso(iso.clone());
        let uploaded = swift.upload(c, "boot.iso", body, create()).await.unwrap();
        let artifact = kept(&iso, dir);
        let stored = place.download("boot.iso").await;
        assert!(stored == std::fs::read(artifact.path).unwrap());
        assert_eq!(uploaded.bytes, artifact.bytes);
        assert_eq!(uploaded.etag, hex::encode(Md5::digest(&stored)));
        assert_eq!(artifact.sha256, hex::encode(Sha256::digest(&stored)));
    }
}

/// Every scenario on every Swift.
/// The built-in store has no access lists, and says so instead of leaving the container closed.
async fn a_container_is_opened_for_reading_by_its_acl(place: Place) {
    let (swift, c) = (place.client(), &place.container);
    let open = UploadOptions {
        read_acl: Some(".r:*".to_owned()),
        ..create()
    };
    let uploaded = swift.upload(c, "open", bytes("1"), open).await;
    if place.site.is_some() {
        let error = uploaded.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused, "{error}");
        assert!(error.to_string().contains("no access lists"), "{error}");
        return;
    }
    uploaded.unwrap();
    let closed = format!("{c}-closed");
    let uploaded = swift.upload(&closed, "closed", bytes("1"), create());
    uploaded.await.unwrap();
    let (url, _) = place.session().await;
    let status = async |method, at: String| {
        let url = format!("{url}/{at}");
        place.ask(method, &url, None).await.status
    };
    assert_eq!(status(Method::GET, format!("{c}/open")).await, 200);
    assert_eq!(status(Method::PUT, format!("{c}/open")).await, 401);
    assert_eq!(status(Method::GET, format!("{closed}/closed")).await, 401);
}

macro_rules! on_every_swift {
    ($($scenario:ident)*) => {
        mod built_in {
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario(super::Place::built_in()).await;
            })*
        }
        mod tempauth {
            $(#[tokio::test]
            async fn $scenario() {
                let options = super::services().tempauth_options();
                super::$scenario(super::Place::new(options, None)).await;
            })*
        }
        mod keystone {
            $(#[tokio::test]
            async fn $scenario() {
                let options = super::services().swift_options();
                super::$scenario(super::Place::new(options, None)).await;
            })*
        }
    };
}

on_every_swift! {
    keeps_objects_and_what_is_said_of_them
    a_container_is_opened_for_reading_by_its_acl
    carries_any_name_and_lists_them_in_pages
    expired_objects_vanish
    temp_urls_open_one_object_for_a_while
    temp_urls_end_and_are_for_one_key_and_method
    temp_url_keys_rotate
    files_over_the_limit_become_segments
    refusals_say_the_same
    listings_page_by_markers
    temp_urls_open_a_prefix_or_a_network
    a_manifest_makes_one_object_of_many
    a_manifest_can_be_read_back
    a_manifest_that_does_not_hold_is_refused
    a_manifest_must_be_well_formed
    segments_go_with_their_manifest_if_asked
    a_prefix_makes_one_object_of_many
    a_containers_key_ends_at_its_container
    a_failed_upload_leaves_the_object_alone
    a_cancelled_upload_is_forgotten
    an_iso_is_written_while_it_is_sent
}

/// The limit of the real one, which is small here.
#[tokio::test]
async fn what_one_object_cannot_hold_is_segmented_unasked() {
    let place = Place::new(services().swift_options(), None);
    let (body, content) =
        place.file(usize::try_from(services().number("max_file_size")).unwrap() + 1);
    let uploaded = place
        .client()
        .upload(&place.container, "o", body, create())
        .await
        .unwrap();
    assert_eq!(uploaded.segments.len(), 2);
    assert!(place.download("o").await == content);

    // A medium that is written once, front to back, cannot be cut.
    let iso = Body::Iso(medium(place.dir.path(), content.len()));
    let swift = place.client();
    let error = swift.upload(&place.container, "iso", iso, create()).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), Kind::Limit, "{error}");
}
