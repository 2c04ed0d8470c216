//! Single requests and their answers, word for word, on every Swift.

use super::large::Requests;
use super::site::TIMEOUT;
use super::suite::Place;
use super::temp_urls::signed_query;
use reqwest::Method;

fn page(title: &str, text: &str) -> String {
    format!("<html><h1>{title}</h1><p>{text}</p></html>")
}

pub(super) async fn refusals_say_the_same(place: Place) {
    let swift = Requests::new(place).await;
    let failed = page(
        "Precondition Failed",
        "A precondition for this request was not met.",
    );
    let changed = page(
        "Unprocessable Entity",
        "Unable to process the contained instructions",
    );
    let missing = page("Not Found", "The resource could not be found.");
    let used = page(
        "Conflict",
        "There was a conflict when trying to complete your request.",
    );
    let long = "v".repeat(257);
    let (put, get, post, delete) = (Method::PUT, Method::GET, Method::POST, Method::DELETE);
    let new = ("if-none-match", "*");
    let none = ("x-nothing", "");
    let past = "X-Delete-At in past";
    let no_number = "Non-integer X-Delete-After";
    let only = "If-None-Match only supports *";
    for (method, name, header, status, said) in [
        (&put, "/o", new, 201, ""),
        (&put, "/o", new, 412, &failed),
        (&put, "/o", ("if-none-match", "x"), 400, only),
        (&put, "/o", ("etag", "0"), 422, &changed),
        (&put, "/p", ("x-delete-at", "1"), 400, past),
        (&put, "/p", ("x-delete-after", "x"), 400, no_number),
        (
            &put,
            "/p",
            ("x-object-meta-", "x"),
            400,
            "Metadata name cannot be empty",
        ),
        (&get, "/p", none, 404, &missing),
        (&post, "/p", none, 404, &missing),
        (&delete, "/p", none, 404, &missing),
        (&delete, "", none, 409, &used),
        (&get, "?limit=10001", none, 412, "Maximum limit is 10000"),
        (
            &get,
            "?prefix=%ff",
            none,
            400,
            "\"prefix\" parameter not valid UTF-8",
        ),
        (
            &put,
            "",
            none,
            202,
            &page("Accepted", "The request is accepted for processing."),
        ),
        (&delete, "/o", none, 204, ""),
        (&delete, "", none, 204, ""),
        (&get, "", none, 404, &missing),
        (&put, "/o", none, 404, &missing),
    ] {
        let path = format!("{}{name}", swift.container());
        let body = if status == 422 { "x" } else { "" };
        let answer = swift.send(method.clone(), &path, body, &[header]).await;
        let got = (answer.status, answer.text());
        assert_eq!(got, (status, said), "{method} {name} {header:?}");
    }
    let metadata = [("x-object-meta-n", long.as_str())];
    let answer = swift.send(put, &swift.segment("/a"), "", &metadata).await;
    assert!(answer.status == 400 && answer.text().starts_with("Metadata value longer than 256"));
}

pub(super) async fn listings_page_by_markers(place: Place) {
    let swift = Requests::new(place).await;
    for name in ["/a", "/a%2F1", "/a%2F2", "/b", "/c%2Fx"] {
        assert_eq!(swift.put(name, "x", &[]).await.status, 201);
    }
    for (query, listed) in [
        ("", "a a/1 a/2 b c/x"),
        ("limit=2", "a a/1"),
        ("limit=2&marker=a/1", "a/2 b"),
        ("marker=a&end_marker=b", "a/1 a/2"),
        ("prefix=a/", "a/1 a/2"),
        ("delimiter=/", "a a/ b c/"),
        ("delimiter=/&marker=a/", "b c/"),
        ("reverse=true&limit=2", "c/x b"),
        ("reverse=true&marker=b&end_marker=a", "a/2 a/1"),
    ] {
        let answer = swift.get(&format!("?{query}"), &[]).await;
        let names: Vec<&str> = answer.text().lines().collect();
        assert_eq!(
            (answer.status, names.join(" ")),
            (200, listed.to_owned()),
            "{query}"
        );
        assert_eq!(answer.header("x-container-object-count"), "5");
    }
    assert_eq!(swift.get("?marker=x", &[]).await.status, 204);
}

pub(super) async fn temp_urls_open_a_prefix_or_a_network(place: Place) {
    const FAR: &str = "9999999999";
    let swift = Requests::new(place).await;
    let (account, _) = swift.place.session().await;
    let origin = account.find("/v1").unwrap();
    let container = format!("{}/{}", &account[origin..], swift.container());
    for name in ["/boot%2Fa", "/other"] {
        swift.put(name, "x", &[]).await;
    }
    let key = [("x-container-meta-temp-url-key", "a key")];
    swift.send(Method::POST, swift.container(), "", &key).await;
    let expires = format!("temp_url_expires={FAR}");
    let plain = ["GET", FAR, &format!("{container}/other")];
    let network = |network| {
        let signed = [&format!("ip={network}"), "GET", FAR, plain[2]];
        let parameters = format!("{expires}&temp_url_ip_range={network}");
        signed_query("a key", "sha256", &signed, &parameters)
    };
    let signed = ["GET", FAR, &format!("prefix:{container}/boot/")];
    let parameters = format!("{expires}&temp_url_prefix=boot/");
    let prefix = signed_query("a key", "sha256", &signed, &parameters);
    let by = |digest| signed_query("a key", digest, &plain, &expires);
    let ask = async |name: &str, query: &str| {
        let url = format!("{}{container}/{name}{query}", &account[..origin]);
        swift.place.request(Method::GET, &url, &[], "").await.status
    };
    // A proxy remembers for a while that there was no key.
    let settled = async { while ask("other", &by("sha256")).await != 200 {} };
    tokio::time::timeout(TIMEOUT * 3, settled)
        .await
        .expect("the key must become known");
    let info = format!("{}/info", &account[..origin]);
    let info = swift.place.request(Method::GET, &info, &[], "").await;
    let sha1 = if info.text().contains("\"sha1\"") {
        200
    } else {
        401
    };
    for (name, query, status) in [
        ("other", by("sha512"), 200),
        ("other", by("sha1"), sha1),
        ("boot/a", prefix.clone(), 200),
        ("other", prefix.clone(), 401),
        ("boot/a", prefix.replace("prefix=boot/", "prefix=boo"), 401),
        ("boot/a", prefix.replace("&temp_url_prefix=boot/", ""), 401),
        ("other", network("127.0.0.0/8"), 200),
        ("other", network("10.0.0.0/8"), 401),
        (
            "other",
            network("127.0.0.1").replace("&temp_url_ip_range=127.0.0.1", ""),
            401,
        ),
    ] {
        assert_eq!(ask(name, &query).await, status, "{name}{query}");
    }
}
