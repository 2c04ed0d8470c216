//! Large objects, on every Swift: what a manifest makes of its segments, and our uploads of them.

use super::create;
use super::site::{Site, TIMEOUT};
use super::suite::{Answer, Place};
use flowrun::error::Kind;
use flowrun::openstack::swift::{
    Body, KeyOwner, ListOptions, Swift, SwiftOptions, TempUrlOptions, UploadOptions,
};
use md5::{Digest, Md5};
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Duration;

const PUT: &str = "?multipart-manifest=put";
const GET: &str = "?multipart-manifest=get";
const DELETE: &str = "?multipart-manifest=delete";

fn md5(text: &str) -> String {
    hex::encode(Md5::digest(text))
}

/// Requests with a token, in a container with a few segments.
pub(super) struct Requests {
    pub(super) place: Place,
}

impl Requests {
    pub(super) async fn new(place: Place) -> Self {
        let requests = Self { place };
        let segments = [
            ("", ""),
            ("/a", "aaaa"),
            ("/b", "bbbbbb"),
            ("/c", "cc"),
            ("/empty", ""),
        ];
        requests.put("", "", &[]).await;
        for (name, content) in segments {
            let path = requests.segment(name);
            let put = requests.send(Method::PUT, &path, content, &[]).await;
            assert_eq!(put.status, 201, "{name}");
        }
        requests
    }

    pub(super) fn container(&self) -> &str {
        &self.place.container
    }

    /// The path of a segment, or of their container.
    pub(super) fn segment(&self, name: &str) -> String {
        format!("{}_segments{name}", self.container())
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: &str,
        headers: &[(&str, &str)],
    ) -> Answer {
        // Keystone's tokens live for seconds here.
        let (account, token) = self.place.session().await;
        let url = format!("{account}/{path}");
        let token = [("x-auth-token", token.as_str())];
        let headers = [&token, headers].concat();
        self.place.request(method, &url, &headers, body).await
    }

    pub(super) async fn put(&self, name: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let path = format!("{}{name}", self.container());
        self.send(Method::PUT, &path, body, headers).await
    }

    pub(super) async fn get(&self, name: &str, headers: &[(&str, &str)]) -> Answer {
        let path = format!("{}{name}", self.container());
        self.send(Method::GET, &path, "", headers).await
    }

    fn manifest(&self, rows: &[(&str, Value)]) -> String {
        let row = |(name, more): &(&str, Value)| {
            let mut row = json!({ "path": format!("/{}", self.segment(name)) });
            let more = more.as_object().unwrap().clone();
            row.as_object_mut().unwrap().extend(more);
            row
        };
        Value::from_iter(rows.iter().map(row)).to_string()
    }
}

/// Makes `/big` of all kinds of segments, and says which ETag it must have, quoted.
async fn put_big(swift: &Requests) -> String {
    let manifest = swift.manifest(&[
        ("/a", json!({ "etag": md5("aaaa"), "size_bytes": 4 })),
        ("/b", json!({})),
        ("/c", json!({ "range": "1-1" })),
        ("/a", json!({ "range": "-2", "etag": null })),
    ]);
    let with_data = manifest.replace("]", ",{\"data\":\"ZGQ=\"}]");
    let etags = [
        md5("aaaa"),
        md5("bbbbbb"),
        format!("{}:1-1;", md5("cc")),
        format!("{}:2-3;", md5("aaaa")),
        md5("dd"),
    ];
    let etag = format!("\"{}\"", md5(&etags.concat()));
    let said = [("content-type", "x/y"), ("x-object-meta-a", "b")];
    let put = swift.put(&format!("/big{PUT}"), &with_data, &said).await;
    assert_eq!((put.status, put.header("etag")), (201, etag.as_str()));
    etag
}

pub(super) async fn a_manifest_makes_one_object_of_many(place: Place) {
    let swift = Requests::new(place).await;
    let etag = put_big(&swift).await;
    let whole = "aaaabbbbbbcaadd";
    let got = swift.get("/big", &[]).await;
    assert_eq!((got.status, got.text()), (200, whole));
    let head = swift
        .send(Method::HEAD, &format!("{}/big", swift.container()), "", &[])
        .await;
    for answer in [&got, &head] {
        assert_eq!(answer.header("etag"), etag);
        assert_eq!(answer.header("content-length"), "15");
        assert_eq!(answer.header("x-static-large-object"), "True");
        assert_eq!(answer.header("content-type"), "x/y");
        assert_eq!(answer.header("x-object-meta-a"), "b");
    }
    for (range, from, to) in [
        (("range", "bytes=0-3"), 0, 4),
        (("range", "bytes=3-10"), 3, 11),
        (("range", "bytes=-4"), 11, 15),
        (("range", "bytes=14-"), 14, 15),
    ] {
        let part = swift.get("/big", &[range]).await;
        let expected = (206, &whole[from..to], format!("bytes {from}-{}/15", to - 1));
        let got = (
            part.status,
            part.text(),
            part.header("content-range").to_owned(),
        );
        assert_eq!(got, expected, "{range:?}");
    }
    for (header, status) in [
        (("range", "bytes=15-"), 416),
        (("if-none-match", etag.as_str()), 304),
        (("if-match", "x"), 412),
        (("if-match", &etag), 200),
    ] {
        assert_eq!(
            swift.get("/big", &[header]).await.status,
            status,
            "{header:?}"
        );
    }
}

pub(super) async fn a_manifest_can_be_read_back(place: Place) {
    let swift = Requests::new(place).await;
    let etag = put_big(&swift).await;
    let got = swift.get("/big", &[]).await;
    let shown = swift.get(&format!("/big{GET}"), &[]).await;
    assert_eq!(
        shown.header("content-type"),
        "application/json; charset=utf-8"
    );
    assert_eq!(shown.header("etag"), got.header("x-manifest-etag"));
    let rows: Value = serde_json::from_slice(&shown.body).unwrap();
    let third = json!({ "name": format!("/{}", swift.segment("/c")), "bytes": 2,
        "hash": md5("cc"), "content_type": "application/octet-stream", "range": "1-1",
        "last_modified": rows[2]["last_modified"] });
    assert_eq!((&rows[2], &rows[4]), (&third, &json!({ "data": "ZGQ=" })));
    let raw = swift.get(&format!("/big{GET}&format=raw"), &[]).await;
    let rows: Value = serde_json::from_slice(&raw.body).unwrap();
    let third = json!({ "path": format!("/{}", swift.segment("/c")), "size_bytes": 2,
        "etag": md5("cc"), "range": "1-1" });
    assert_eq!(rows[2], third);
    let again = swift
        .put(&format!("/again{PUT}"), raw.text(), &[("etag", &etag)])
        .await;
    assert_eq!((again.status, again.header("etag")), (201, etag.as_str()));

    let list = swift.get("?format=json&prefix=big", &[]).await;
    let row = &serde_json::from_slice::<Value>(&list.body).unwrap()[0];
    assert_eq!(
        (&row["bytes"], &row["slo_etag"]),
        (&json!(15), &json!(etag))
    );

    // A POST leaves the segments alone; a large object may hold another one.
    let big = format!("{}/big", swift.container());
    let post = swift
        .send(Method::POST, &big, "", &[("x-object-meta-c", "d")])
        .await;
    assert_eq!(post.status, 202);
    let nested = json!([{ "path": big, "range": "3-11" }, { "path": swift.segment("/c") }]);
    let put = swift
        .put(&format!("/nested{PUT}"), &nested.to_string(), &[])
        .await;
    assert_eq!(put.status, 201);
    assert_eq!(swift.get("/nested", &[]).await.text(), "abbbbbbcacc");
    assert_eq!(
        swift.get("/nested", &[("range", "bytes=6-9")]).await.text(),
        "bcac"
    );
}

pub(super) async fn a_manifest_that_does_not_hold_is_refused(place: Place) {
    let swift = Requests::new(place).await;
    let wrong = swift.manifest(&[
        ("/a", json!({ "etag": "0".repeat(32) })),
        ("/b", json!({ "size_bytes": 7 })),
        ("/none ü", json!({})),
        ("/c", json!({ "range": "5-6" })),
        ("/empty", json!({})),
        ("/a", json!({})),
    ]);
    let refused = swift.put(&format!("/bad{PUT}"), &wrong, &[]).await;
    assert_eq!(
        (refused.status, refused.header("content-type")),
        (400, "text/plain")
    );
    // Swift looks at several at once and tells in the order of its answers.
    let mut lines: Vec<&str> = refused.text().lines().collect();
    assert_eq!(lines.remove(0), "Errors:");
    lines.sort_unstable();
    let expected = [
        ("/a", "Etag Mismatch"),
        ("/b", "Size Mismatch"),
        ("/c", "Unsatisfiable Range"),
        ("/empty", "Too small; each segment must be at least 1 byte."),
        ("/none%20%C3%BC", "404 Not Found"),
    ];
    let expected = expected.map(|(name, why)| (format!("/{}", swift.segment(name)), why));
    let plain = expected.clone().map(|(path, why)| format!("{path}, {why}"));
    assert_eq!(lines, plain);
    let json = ("accept", "application/json");
    let refused = swift.put(&format!("/bad{PUT}"), &wrong, &[json]).await;
    let said: Value = serde_json::from_slice(&refused.body).unwrap();
    let mut errors: Vec<(String, &str)> = said["Errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e[0].as_str().unwrap().to_owned(), e[1].as_str().unwrap()))
        .collect();
    errors.sort_unstable();
    assert_eq!((refused.status, &errors[..]), (400, &expected[..]));
}

pub(super) async fn a_manifest_must_be_well_formed(place: Place) {
    let swift = Requests::new(place).await;
    for (manifest, why) in [
        ("nonsense", "Manifest must be valid JSON.\n"),
        ("{}", "Manifest must be a list.\n"),
        ("[{\"path\":1}]", "Index 0: \"path\" must be a string\n"),
        (
            "[{\"path\":\"/a/b\",\"y\":1,\"x\":2}]",
            "Index 0: extraneous keys \"x\", \"y\"\n",
        ),
        (
            "[{\"path\":\"/a/b\",\"range\":\"1-2,3-4\"}]",
            "Index 0: multiple ranges (only one allowed)\n",
        ),
        (
            "[{\"data\":\"?\"},{\"path\":\"/a\"}]",
            "Index 0: data must be valid base64\nIndex 1: \
            path does not refer to an object. Path must be of the form /container/object.\n",
        ),
        (
            "[{\"data\":\"ZGQ=\"}]",
            "Inline data segments require at least one object-backed segment.\n",
        ),
    ] {
        let refused = swift.put(&format!("/bad{PUT}"), manifest, &[]).await;
        assert_eq!((refused.status, refused.text()), (400, why), "{manifest}");
    }
    let many = swift.manifest(&vec![("/a", json!({})); 1001]);
    let refused = swift.put(&format!("/bad{PUT}"), &many, &[]).await;
    let why = "Number of object-backed segments must be <= 1000";
    assert_eq!((refused.status, refused.text()), (413, why));
    let good = swift.manifest(&[("/a", json!({}))]);
    for (name, header, status) in [
        ("/bad?multipart-manifest=put", ("etag", "0"), 422),
        ("/bad", ("x-static-large-object", "true"), 400),
        ("/bad", ("x-object-manifest", "container"), 400),
    ] {
        assert_eq!(
            swift.put(name, &good, &[header]).await.status,
            status,
            "{header:?}"
        );
    }
    assert_eq!(swift.get("/bad", &[]).await.status, 404);
}

pub(super) async fn segments_go_with_their_manifest_if_asked(place: Place) {
    let swift = Requests::new(place).await;
    let manifest = swift.manifest(&[("/a", json!({})), ("/b", json!({}))]);
    swift.put(&format!("/one{PUT}"), &manifest, &[]).await;
    swift.put(&format!("/two{PUT}"), &manifest, &[]).await;
    let (one, two) = (
        format!("{}/one", swift.container()),
        format!("{}/two", swift.container()),
    );
    assert_eq!(swift.send(Method::DELETE, &one, "", &[]).await.status, 204);
    assert_eq!(swift.get("/two", &[]).await.text(), "aaaabbbbbb");

    // A segment that was replaced is not served as if it were the old one.
    swift
        .send(Method::PUT, &swift.segment("/b"), "others", &[])
        .await;
    let changed = swift.get("/two", &[("range", "bytes=4-5")]).await;
    assert_eq!(changed.status, 409);
    assert_eq!(
        swift.get("/two", &[("range", "bytes=0-3")]).await.text(),
        "aaaa"
    );
    swift
        .send(Method::DELETE, &swift.segment("/a"), "", &[])
        .await;
    assert_eq!(swift.get("/two", &[]).await.status, 409);

    let json = ("accept", "application/json");
    let gone = swift
        .send(Method::DELETE, &format!("{two}{DELETE}"), "", &[json])
        .await;
    let said: Value = serde_json::from_slice(&gone.body).unwrap();
    let expected = json!({ "Response Status": "200 OK", "Response Body": "",
        "Number Deleted": 2, "Number Not Found": 1, "Errors": [] });
    assert_eq!((gone.status, said), (200, expected));
    let gone = swift
        .send(Method::DELETE, &format!("{two}{DELETE}"), "", &[])
        .await;
    let said = "Number Deleted: 0\nNumber Not Found: 1\nResponse Body: \nResponse Status: 200 OK\n\
                Errors:\n";
    assert_eq!((gone.status, gone.text().trim_start()), (200, said));
    let segment = swift.segment("/c");
    let plain = swift
        .send(Method::DELETE, &format!("{segment}{DELETE}"), "", &[json])
        .await;
    let said: Value = serde_json::from_slice(&plain.body).unwrap();
    assert_eq!(said["Response Status"], "400 Bad Request");
    assert_eq!(
        said["Errors"],
        json!([[format!("/{segment}"), "Not an SLO manifest"]])
    );
    assert_eq!(
        swift.send(Method::GET, &segment, "", &[]).await.text(),
        "cc"
    );
}

pub(super) async fn a_prefix_makes_one_object_of_many(place: Place) {
    let swift = Requests::new(place).await;
    for (name, content) in [("/d/2", "bbbbbb"), ("/d/1", "aaaa"), ("/e", "no")] {
        swift
            .send(Method::PUT, &swift.segment(name), content, &[])
            .await;
    }
    let prefix = swift.segment("/d/");
    let put = swift
        .put("/big", "own", &[("x-object-manifest", &prefix)])
        .await;
    assert_eq!(put.status, 201);
    let got = swift.get("/big", &[]).await;
    assert_eq!((got.status, got.text()), (200, "aaaabbbbbb"));
    assert_eq!(got.header("x-object-manifest"), prefix);
    let etag = format!("\"{}\"", md5(&(md5("aaaa") + &md5("bbbbbb"))));
    assert_eq!(got.header("etag"), etag);
    for (range, status, expected) in [
        ("bytes=3-5", 206, "abb"),
        ("bytes=-3", 206, "bbb"),
        ("bytes=9-20", 206, "b"),
    ] {
        let part = swift.get("/big", &[("range", range)]).await;
        assert_eq!((part.status, part.text()), (status, expected), "{range}");
    }
    assert_eq!(
        swift.get("/big", &[("range", "bytes=10-")]).await.status,
        416
    );
    assert_eq!(
        swift.get("/big", &[("if-none-match", &etag)]).await.status,
        304
    );
    assert_eq!(swift.get(&format!("/big{GET}"), &[]).await.text(), "own");
    // It grows with what is there, and a POST without the header makes it a plain object.
    swift
        .send(Method::PUT, &swift.segment("/d/3"), "c", &[])
        .await;
    let grown = async { while swift.get("/big", &[]).await.text() != "aaaabbbbbbc" {} };
    tokio::time::timeout(TIMEOUT, grown)
        .await
        .expect("the new segment must be listed");
    let big = format!("{}/big", swift.container());
    swift.send(Method::POST, &big, "", &[]).await;
    assert_eq!(swift.get("/big", &[]).await.text(), "own");
    swift
        .put("/none", "", &[("x-object-manifest", "nosuchcontainer/x")])
        .await;
    assert_eq!(swift.get("/none", &[]).await.status, 404);
}

/// A container's key opens nothing in another container, so no segments there either.
pub(super) async fn a_containers_key_ends_at_its_container(place: Place) {
    let swift = Requests::new(place).await;
    let manifest = swift.manifest(&[("/a", json!({}))]);
    swift.put(&format!("/slo{PUT}"), &manifest, &[]).await;
    swift
        .put("/dlo", "", &[("x-object-manifest", &swift.segment("/a"))])
        .await;
    let own = json!([{ "path": format!("{}/part", swift.container()) }]);
    swift.put("/part", "part", &[]).await;
    swift
        .put(&format!("/own{PUT}"), &own.to_string(), &[])
        .await;
    let key = swift
        .place
        .with_key("of the container", Some(KeyOwner::Container));
    let ask = async |method: Method, name: &str, more: &str, header: (&str, &str)| {
        let options = TempUrlOptions {
            method: method.clone(),
            ..TempUrlOptions::default()
        };
        let url = key
            .temp_url(swift.container(), name, options)
            .await
            .unwrap();
        let url = format!("{}{more}", url.expose());
        swift.place.request(method, &url, &[header], "").await
    };
    let none = ("x-nothing", "");
    // A proxy remembers for a while that there was no key.
    let settled = async { while ask(Method::GET, "own", "", none).await.status != 200 {} };
    tokio::time::timeout(TIMEOUT * 3, settled)
        .await
        .expect("the key must become known");
    assert_eq!(ask(Method::GET, "own", "", none).await.text(), "part");
    assert_eq!(ask(Method::GET, "slo", "", none).await.status, 409);
    assert_eq!(ask(Method::GET, "dlo", "", none).await.status, 401);
    assert_eq!(
        ask(Method::GET, "own", "&multipart-manifest=get", none)
            .await
            .text(),
        "part"
    );
    let pointer = ("x-object-manifest", "other/x");
    assert_eq!(ask(Method::PUT, "new", "", pointer).await.status, 400);
}

fn segmented() -> UploadOptions {
    UploadOptions {
        segment_bytes: Some(1 << 20),
        ..create()
    }
}

async fn segments_of(place: &Place, names: &[String]) -> Vec<String> {
    let mut listed = place.names(true).await;
    listed.retain(|name| !names.contains(&format!("{}_segments/{name}", place.container)));
    listed
}

/// The same file again, refused at the very end: the object of before loses nothing.
pub(super) async fn a_failed_upload_leaves_the_object_alone(place: Place) {
    let (swift, c) = (place.client(), place.container.as_str());
    let (body, content) = place.file(2_500_000);
    let uploaded = swift
        .upload(c, "o", body.clone(), segmented())
        .await
        .unwrap();
    assert_eq!(uploaded.segments.len(), 3);
    let refused = UploadOptions {
        metadata: [("too_long".to_owned(), "x".repeat(300))].into(),
        ..segmented()
    };
    let error = swift
        .upload(c, "o", body.clone(), refused)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert_eq!(segments_of(&place, &uploaded.segments).await, [""; 0]);
    assert!(place.download("o").await == content);
    let again = swift.upload(c, "o", body, segmented()).await.unwrap();
    assert_eq!(again.etag, uploaded.etag);
    assert!(
        uploaded
            .segments
            .iter()
            .all(|name| !again.segments.contains(name))
    );
    assert!(place.download("o").await == content);
    assert_eq!(place.names(true).await.len(), 3);
}

/// An upload that is given up in its midst harms nothing, and a later one tidies up after it.
pub(super) async fn a_cancelled_upload_is_forgotten(place: Place) {
    let (swift, c) = (place.client(), place.container.as_str());
    let (body, content) = place.file(2_500_000);
    let uploaded = swift
        .upload(c, "o", body.clone(), segmented())
        .await
        .unwrap();
    // So long that it cannot end before its first segments are listed.
    let long = place.dir.path().join("long");
    std::fs::File::create(&long)
        .unwrap()
        .set_len(512 << 20)
        .unwrap();
    let begun = async { while segments_of(&place, &uploaded.segments).await.is_empty() {} };
    tokio::select! {
        done = swift.upload(c, "o", Body::File(long), segmented()) => panic!("{done:?}"),
        begun = tokio::time::timeout(TIMEOUT * 3, begun) => begun.expect("a first segment"),
    }
    assert!(place.download("o").await == content);
    // As if it were long ago. What the server still had to finish may come late.
    let later = Swift::new(SwiftOptions {
        abandoned_after: Duration::ZERO,
        ..place.options.clone()
    });
    let later = later.unwrap();
    let tidied = async {
        loop {
            let again = later
                .upload(c, "o", body.clone(), segmented())
                .await
                .unwrap();
            if segments_of(&place, &again.segments).await.is_empty() {
                return;
            }
        }
    };
    tokio::time::timeout(TIMEOUT * 3, tidied)
        .await
        .expect("the segments must go");
    assert!(place.download("o").await == content);
}

/// Our client learns the built-in store's limit from `/info`, and a temporary URL reads across
/// segments.
#[tokio::test]
async fn the_built_in_store_holds_more_than_its_limit() {
    let site = Site::with(|options| options.max_object_bytes = 1 << 20);
    let place = Place::new(site.options(), Some(site));
    let (body, content) = place.file(2_500_000);
    let (swift, c) = (place.client(), place.container.as_str());
    let uploaded = swift.upload(c, "boot.iso", body, create()).await.unwrap();
    assert_eq!((uploaded.bytes, uploaded.segments.len()), (2_500_000, 3));
    assert!(place.download("boot.iso").await == content);
    let url = swift
        .temp_url(c, "boot.iso", TempUrlOptions::default())
        .await
        .unwrap();
    let across = ("range", "bytes=1048570-2097160");
    let part = place.ask(Method::GET, url.expose(), Some(across)).await;
    assert!(part.status == 206 && part.body == content[1_048_570..2_097_161]);
    let listed = swift.list(c, ListOptions::default()).await.unwrap();
    assert!(
        format!("{listed:?}").contains("bytes: 2500000"),
        "{listed:?}"
    );
    assert!(swift.delete(c, "boot.iso").await.unwrap());
    assert_eq!(place.names(true).await, [""; 0]);
}
