//! Temporary URLs, fetched by curl.

use super::site::{Site, TEMP_URL_KEY, TIMEOUT, eventually, pattern};
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

/// The query of a temporary URL that openssl signs, for what our client does not make.
fn query(digest: &str, signed: &[&str], parameters: &str) -> String {
    signed_query(TEMP_URL_KEY, digest, signed, parameters)
}

pub(super) fn signed_query(key: &str, digest: &str, signed: &[&str], parameters: &str) -> String {
    use std::process::Command;
    let script = "printf %s \"$1\" | openssl dgst -r -\"$2\" -hmac \"$3\"";
    let message = signed.join("\n");
    let output = Command::new("sh")
        .args(["-ec", script, "sh", &message, digest, key])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let signature = said.split_whitespace().next().unwrap();
    format!("?temp_url_sig={signature}&{parameters}")
}

const FAR: &str = "9999999999";

#[tokio::test]
async fn a_prefix_opens_what_begins_with_it() {
    let site = Site::new();
    let swift = site.client();
    for name in ["boot/a", "boot/b", "other"] {
        swift.upload("c", name, bytes("1"), create()).await.unwrap();
    }
    let signed = ["GET", FAR, "prefix:/v1/AUTH_flowrun/c/boot/"];
    let parameters = format!("temp_url_expires={FAR}&temp_url_prefix=boot/");
    let query = query("sha256", &signed, &parameters);
    for (name, query, status) in [
        ("boot/a", query.clone(), 200),
        ("boot/b", query.clone(), 200),
        ("other", query.clone(), 401),
        ("boot/a", query.replace("prefix=boot/", "prefix=boo"), 401),
        ("boot/a", query.replace("&temp_url_prefix=boot/", ""), 401),
    ] {
        let url = site.url(&format!("/v1/AUTH_flowrun/c/{name}{query}"));
        assert_eq!(site.fetch(&[&url]).await.0, status, "{name}{query}");
    }
}

#[tokio::test]
async fn an_ip_range_keeps_others_out() {
    let site = Site::new();
    let swift = site.client();
    swift.upload("c", "o", bytes("1"), create()).await.unwrap();
    for (range, status) in [
        ("127.0.0.0/8", 200),
        ("127.0.0.1", 200),
        ("10.0.0.0/8", 401),
        ("::1", 401),
        ("nonsense", 401),
    ] {
        let signed = [&format!("ip={range}"), "GET", FAR, "/v1/AUTH_flowrun/c/o"];
        let parameters = format!("temp_url_expires={FAR}&temp_url_ip_range={range}");
        let query = query("sha256", &signed, &parameters);
        let url = site.url(&format!("/v1/AUTH_flowrun/c/o{query}"));
        assert_eq!(site.fetch(&[&url]).await.0, status, "{range}");
        let widened = url.replace(&format!("&temp_url_ip_range={range}"), "");
        assert_eq!(site.fetch(&[&widened]).await.0, 401, "without {range}");
    }
}

#[tokio::test]
async fn sha1_is_refused_unless_the_site_asks_for_it() {
    for (asked, status) in [(false, 401), (true, 200)] {
        let site = Site::with(|options| options.sha1_temp_urls = asked);
        let swift = site.client();
        swift.upload("c", "o", bytes("1"), create()).await.unwrap();
        let signed = ["GET", FAR, "/v1/AUTH_flowrun/c/o"];
        let query = query("sha1", &signed, &format!("temp_url_expires={FAR}"));
        let url = site.url(&format!("/v1/AUTH_flowrun/c/o{query}"));
        assert_eq!(site.fetch(&[&url]).await.0, status);
        let (_, info) = site.fetch(&[&site.url("/info")]).await;
        let listed = String::from_utf8(info).unwrap().contains("\"sha1\"");
        assert_eq!(listed, asked);
    }
}
