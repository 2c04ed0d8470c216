//! Temporary URLs, fetched by curl.

use super::site::{Site, TIMEOUT, eventually, pattern};
use super::{bytes, create};
use bytes::Bytes;
use flowrun::openstack::swift::{Body, Swift, TempUrlOptions};
use flowrun::secret::Secret;
use reqwest::Method;
use std::time::Duration;

#[tokio::test]
async fn open_one_object_for_a_while() {
    let site = Site::new();
    let swift = site.client();
    let body = pattern(100_000);
    let upload = Body::Bytes(Bytes::from(body.clone()));
    swift
        .upload("c", "dir/boot ü.iso", upload, create())
        .await
        .unwrap();
    let options = TempUrlOptions {
        filename: Some("boot.iso".to_owned()),
        ..TempUrlOptions::default()
    };
    let url = swift
        .temp_url("c", "dir/boot ü.iso", options)
        .await
        .unwrap();
    let url = url.expose();
    assert!(url.ends_with("&filename=boot.iso"), "{url}");

    assert_eq!(site.fetch(&[url]).await, (200, body.clone()));
    assert_eq!(
        site.fetch(&["--range", "0-0", url]).await,
        (206, body[..1].to_vec())
    );
    let range = ["--range", "2048-4095", url];
    assert_eq!(site.fetch(&range).await, (206, body[2048..4096].to_vec()));
    let suffix = ["--range", "-1000", url];
    assert_eq!(site.fetch(&suffix).await, (206, body[99_000..].to_vec()));
    assert_eq!(site.fetch(&["--range", "100000-", url]).await.0, 416);
    assert_eq!(
        site.fetch(&["--range", "0-1,5-6", url]).await,
        (200, body.clone())
    );

    let head = site.curl(&["--head", url]).await;
    let head = String::from_utf8(head.stdout).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("content-length: 100000"), "{head}");
    let named = "content-disposition: attachment; filename=\"boot.iso\"; filename*=utf-8''boot.iso";
    assert!(head.contains(named), "{head}");
    assert!(head.contains("accept-ranges: bytes"), "{head}");

    let refusal = (401, b"401 Unauthorized: Temp URL invalid\n".to_vec());
    for (from, to) in [
        ("%20%C3%BC.iso", ".iso"),
        ("temp_url_sig=", "temp_url_sig=0"),
        ("temp_url_expires=", "temp_url_expires=1"),
        ("AUTH_flowrun", "AUTH_other"),
    ] {
        let changed = url.replace(from, to);
        assert_ne!(changed, url);
        assert_eq!(site.fetch(&[&changed]).await, refusal, "{from}");
    }
    assert_eq!(
        site.fetch(&["--upload-file", "/etc/hostname", url]).await,
        refusal
    );
    assert_eq!(site.fetch(&["--request", "DELETE", url]).await, refusal);

    eventually("every read is recorded", || {
        let readers = site.store.readers("c", "dir/boot ü.iso");
        readers.len() == 1 && (readers[0].requests, readers[0].range_requests) == (5, 3)
    })
    .await;
    let reader = site.store.readers("c", "dir/boot ü.iso")[0];
    assert_eq!(reader.peer.to_string(), "127.0.0.1");
    assert_eq!(reader.bytes, 200_000 + 1 + 2048 + 1000);
    assert!(
        site.store
            .accesses()
            .iter()
            .any(|access| access.temp_url && access.status == 401)
    );
}

#[tokio::test]
async fn for_upload_expire_and_their_keys_rotate() {
    let site = Site::new();
    let swift = site.client();
    swift
        .upload("c", "o", bytes("old"), create())
        .await
        .unwrap();
    let put = TempUrlOptions {
        method: Method::PUT,
        ..TempUrlOptions::default()
    };
    let put = swift.temp_url("c", "new", put).await.unwrap();
    let upload = ["--upload-file", "/etc/hostname", put.expose()];
    assert_eq!(site.fetch(&upload).await.0, 201);
    assert_eq!(
        site.fetch(&[put.expose()]).await.0,
        401,
        "a PUT signature must not read"
    );
    assert!(swift.head("c", "new").await.unwrap().is_some());

    let brief = TempUrlOptions {
        ttl: Duration::from_secs(1),
        ..TempUrlOptions::default()
    };
    let brief = swift.temp_url("c", "o", brief).await.unwrap();
    assert_eq!(site.fetch(&[brief.expose()]).await.0, 200);
    let waiting = async { while site.fetch(&[brief.expose()]).await.0 != 401 {} };
    tokio::time::timeout(TIMEOUT, waiting)
        .await
        .expect("the URL must expire");

    // The account's own keys, first and second, and one of the container.
    let token = site.token().await;
    for (place, header) in [
        ("", "X-Account-Meta-Temp-URL-Key: first"),
        ("", "X-Account-Meta-Temp-URL-Key-2: second"),
        ("/c", "X-Container-Meta-Temp-URL-Key: third"),
    ] {
        let url = site.url(&format!("/v1/AUTH_flowrun{place}"));
        let post = [
            "--request",
            "POST",
            "--header",
            &token,
            "--header",
            header,
            &url,
        ];
        assert_eq!(site.fetch(&post).await.0, 204);
    }
    for (key, status) in [
        ("first", 200),
        ("second", 200),
        ("third", 200),
        ("fourth", 401),
    ] {
        let mut options = site.options();
        options.temp_url_key = Some(Secret::new(key));
        let swift = Swift::new(options).unwrap();
        let url = swift
            .temp_url("c", "o", TempUrlOptions::default())
            .await
            .unwrap();
        assert_eq!(site.fetch(&[url.expose()]).await.0, status, "{key}");
    }
}
