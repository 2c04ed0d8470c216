//! The object store and the Swift client, with python-swiftclient and curl as second opinions.

#[cfg(test)]
mod answers;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod large;
#[cfg(test)]
mod processes;
#[cfg(test)]
pub(crate) mod site;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod temp_urls;
#[cfg(test)]
mod written;

use bytes::Bytes;
use flowrun::error::Kind;
use flowrun::http::Trust;
use flowrun::openstack::swift::{
    Body, Entry, ListOptions, Swift, SwiftAuth, TempUrlOptions, UploadOptions,
};
use flowrun::secret::Secret;
use futures_util::future::join_all;
use site::{Captured, KEY, Site, TEMP_URL_KEY, USER, eventually, pattern};
use std::process::Command;
use std::time::Duration;

fn create() -> UploadOptions {
    UploadOptions {
        create_container: true,
        ..UploadOptions::default()
    }
}

fn bytes(text: &'static str) -> Body {
    Body::Bytes(Bytes::from_static(text.as_bytes()))
}

#[tokio::test]
async fn carries_any_name_and_lets_none_escape() {
    let site = Site::new();
    let swift = site.client();
    let names = [
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
        "new\nline",
    ];
    let long = "n".repeat(1024);
    let names: Vec<&str> = names.into_iter().chain([long.as_str()]).collect();
    for name in &names {
        let body = Body::Bytes(Bytes::from(name.as_bytes().to_vec()));
        swift.upload("c ü%", name, body, create()).await.unwrap();
    }
    let listed = swift.list("c ü%", ListOptions::default()).await.unwrap();
    let mut expected = names.clone();
    expected.sort_unstable();
    assert_eq!(listed.iter().map(Entry::name).collect::<Vec<_>>(), expected);
    for name in &names {
        let to = site.dir.path().join("got");
        swift.download("c ü%", name, &to).await.unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), name.as_bytes());
    }
    // Dots that a client sends as they are stay names.
    let token = site.token().await;
    for path in [
        "/v1/AUTH_flowrun/c%20%C3%BC%25/../../../etc/passwd",
        "/v1/AUTH_flowrun/../x/y",
    ] {
        let url = site.url(path);
        let put = [
            "--path-as-is",
            "--upload-file",
            "/etc/hostname",
            "--header",
            &token,
            &url,
        ];
        let (status, _) = site.fetch(&put).await;
        let expected = if path.contains("passwd") { 201 } else { 404 };
        assert_eq!(status, expected, "{path}");
    }
    let outside = std::fs::read_dir(site.dir.path()).unwrap().count();
    assert_eq!(outside, 3, "only store, ca.pem and got");
}

#[tokio::test]
async fn lists_in_pages_with_prefix_and_delimiter() {
    let site = Site::new();
    let swift = site.client();
    swift.upload("c", "a", bytes("1"), create()).await.unwrap();
    for batch in (0..1205).collect::<Vec<u32>>().chunks(64) {
        let uploads = batch.iter().map(|n| {
            let name = format!("many/{n:04}");
            let swift = &swift;
            async move {
                swift
                    .upload("c", &name, bytes("x"), UploadOptions::default())
                    .await
            }
        });
        for uploaded in join_all(uploads).await {
            uploaded.unwrap();
        }
    }
    let all = swift.list("c", ListOptions::default()).await.unwrap();
    assert_eq!(all.len(), 1206);
    assert!(all.is_sorted_by_key(Entry::name));
    let options = ListOptions {
        delimiter: Some("/".to_owned()),
        ..ListOptions::default()
    };
    let top = swift.list("c", options).await.unwrap();
    assert_eq!(
        top.iter().map(Entry::name).collect::<Vec<_>>(),
        ["a", "many/"]
    );
    assert!(matches!(&top[1], Entry::Subdir(_)));
    let options = ListOptions {
        prefix: Some("many/12".to_owned()),
        marker: Some("many/1201".to_owned()),
        limit: Some(2),
        ..ListOptions::default()
    };
    let some = swift.list("c", options).await.unwrap();
    assert_eq!(
        some.iter().map(Entry::name).collect::<Vec<_>>(),
        ["many/1202", "many/1203"]
    );
    let error = swift
        .list("none", ListOptions::default())
        .await
        .unwrap_err();
    assert_eq!((error.kind(), error.on()), (Kind::NotFound, "none"));
    assert_eq!(site.store.stats().objects, 1206);
}

#[tokio::test]
async fn expired_objects_vanish_from_sight_and_from_disk() {
    let site = Site::new();
    let swift = site.client();
    swift
        .upload("c", "stays", bytes("1"), create())
        .await
        .unwrap();
    let expiring = |seconds| UploadOptions {
        delete_after: Some(Duration::from_secs(seconds)),
        ..UploadOptions::default()
    };
    swift
        .upload("c", "saved", bytes("3"), expiring(600))
        .await
        .unwrap();
    let token = site.token().await;
    let url = site.url("/v1/AUTH_flowrun/c/saved");
    let post = ["--request", "POST", "--header", &token, &url];
    assert_eq!(site.fetch(&post).await.0, 202);
    let saved = swift.head("c", "saved").await.unwrap().unwrap();
    assert_eq!(
        saved.delete_at, None,
        "a POST without expiry keeps the object for good"
    );
    swift
        .upload("c", "goes", bytes("2"), expiring(1))
        .await
        .unwrap();
    eventually("the expired object's bytes are removed", || {
        site.data_files() == 2
    })
    .await;
    assert_eq!(swift.head("c", "goes").await.unwrap(), None);
    let names = swift.list("c", ListOptions::default()).await.unwrap();
    assert_eq!(
        names.iter().map(Entry::name).collect::<Vec<_>>(),
        ["saved", "stays"]
    );
}

#[tokio::test]
async fn only_one_of_many_creates_an_object() {
    let site = Site::new();
    site.client()
        .upload("c", "o", bytes("1"), create())
        .await
        .unwrap();
    let token = site.token().await;
    let url = site.url("/v1/AUTH_flowrun/c/lock");
    let put = [
        "--upload-file",
        "/etc/hostname",
        "--header",
        "If-None-Match: *",
    ];
    let put = [&put[..], &["--header", &token, &url]].concat();
    let answers = join_all((0..8).map(|_| site.fetch(&put))).await;
    let created = answers.iter().filter(|(status, _)| *status == 201).count();
    let refused = answers.iter().filter(|(status, _)| *status == 412).count();
    assert_eq!((created, refused), (1, 7));
}

/// On one thread, which is busy connecting: nobody accepts before all are waiting.
#[tokio::test]
async fn hundreds_may_connect_at_once() {
    let site = Site::new();
    let connect = |_| std::net::TcpStream::connect_timeout(&site.address, site::TIMEOUT);
    let waiting: Result<Vec<_>, _> = (0..300).map(connect).collect();
    assert_eq!(waiting.unwrap().len(), 300);
    assert_eq!(site.fetch(&[&site.url("/healthcheck")]).await.0, 200);
}

#[tokio::test]
async fn says_why_there_is_no_session() {
    let site = Site::new();
    let mut options = site.options();
    let auth_url = site.url("/auth/v1.0");
    let user = USER.to_owned();
    let key = Secret::new("wrong");
    options.auth = SwiftAuth::V1 {
        auth_url: auth_url.clone(),
        user,
        key,
    };
    let error = Swift::new(options)
        .unwrap()
        .head("c", "o")
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.operation(), error.on()),
        (Kind::Auth, "swift.log_in", auth_url.as_str())
    );
    assert_eq!(
        error.advice(),
        Some("check user and key of the object store")
    );

    let mut options = site.options();
    options.trust = Trust::Ca(Site::new().ca);
    let error = Swift::new(options)
        .unwrap()
        .head("c", "o")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Auth, "{error:?}");

    let mut options = site.options();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let auth_url = format!("https://{port}/auth/v1.0");
    options.auth = SwiftAuth::V1 {
        auth_url,
        user: USER.to_owned(),
        key: Secret::new(KEY),
    };
    let error = Swift::new(options)
        .unwrap()
        .head("c", "o")
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable()),
        (Kind::Unreachable, true)
    );
    assert_eq!(error.details()["tries"], 4);
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let site = Site::new();
    let swift = site.client();
    let error = swift
        .upload("none", "o", bytes("1"), UploadOptions::default())
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.operation(), error.on()),
        (Kind::NotFound, "swift.upload", "none/o")
    );
    assert!(
        error.advice().unwrap().contains("create_container"),
        "{error:?}"
    );
    assert!(
        error
            .message()
            .ends_with("Not Found The resource could not be found."),
        "{error}"
    );
    assert!(
        error.details()["transaction"]
            .as_str()
            .unwrap()
            .starts_with("tx")
    );

    // The refusal comes while megabytes are still on their way, and must not get lost.
    let large = site.dir.path().join("large");
    std::fs::write(&large, pattern(8 << 20)).unwrap();
    let upload = swift.upload("none", "o", Body::File(large), UploadOptions::default());
    assert_eq!(upload.await.unwrap_err().kind(), Kind::NotFound);

    let missing = Body::File("/nonexistent/file".into());
    let error = swift.upload("c", "o", missing, create()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.on()),
        (Kind::NotFound, "/nonexistent/file")
    );
    let bad = UploadOptions {
        metadata: [("a".to_owned(), "x\r\ny: z".to_owned())].into(),
        ..create()
    };
    let error = swift.upload("c", "o", bytes("1"), bad).await.unwrap_err();
    assert_eq!((error.kind(), error.on()), (Kind::Invalid, "c/o"));
    for output in [format!("{swift:?}"), format!("{:?}", site.store)] {
        assert!(
            !output.contains(KEY) && !output.contains(TEMP_URL_KEY),
            "{output}"
        );
    }
}

/// On one thread, so that its subscriber sees the server's tasks too.
#[tokio::test(flavor = "current_thread")]
async fn logs_paths_but_no_secrets() {
    // With one dispatcher alive, tracing remembers for all threads what the first thread at an
    // event says, and another test's thread says no; with two it asks both.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let site = Site::new();
    let swift = site.client();
    swift
        .upload("c", "boot.iso", bytes("1"), create())
        .await
        .unwrap();
    let url = swift
        .temp_url("c", "boot.iso", TempUrlOptions::default())
        .await
        .unwrap();
    assert_eq!(site.fetch(&[url.expose()]).await.0, 200);
    let log = captured.to_string();
    let ours: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("flowrun::objectstore"))
        .collect();
    let get = ours
        .iter()
        .find(|line| line.contains("method=GET path=\"/v1/AUTH_flowrun/c/boot.iso\""));
    assert!(get.is_some_and(|line| line.contains("status=200")), "{log}");
    let (_, signature) = url.expose().split_once("temp_url_sig=").unwrap();
    let signature = &signature[..64];
    for line in ours {
        for secret in [signature, KEY, TEMP_URL_KEY, "AUTH_tk"] {
            assert!(!line.contains(secret), "{line}");
        }
    }
}

/// The client of OpenStack's own project against our store: see the script for what it checks.
#[tokio::test(flavor = "multi_thread")]
async fn python_swiftclient_agrees() {
    let python = std::env::var_os("FLOWRUN_TEST_PYTHON")
        .expect("FLOWRUN_TEST_PYTHON must name a python with python-swiftclient: use tests/run.sh");
    let site = Site::new();
    let mut command = Command::new(python);
    command
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/objectstore.py"
        ))
        .current_dir(site.dir.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("ST_AUTH", site.url("/auth/v1.0"))
        .env("ST_USER", USER)
        .env("ST_KEY", KEY)
        .env("OS_CACERT", site.ca_file());
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output
        .await
        .unwrap()
        .expect("FLOWRUN_TEST_PYTHON must be a python");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.ends_with("all checks passed\n"), "{said}");
}

/// rclone's own Swift client: copies, checks every file by its hash, lists, reads, deletes.
#[tokio::test(flavor = "multi_thread")]
async fn rclone_agrees() {
    let site = Site::new();
    let folder = site.dir.path().join("files");
    std::fs::create_dir_all(folder.join("sub ü")).unwrap();
    std::fs::write(folder.join("large"), pattern(3_000_000)).unwrap();
    std::fs::write(folder.join("sub ü/small"), "small").unwrap();
    std::fs::write(folder.join("empty"), "").unwrap();
    let rclone = async |arguments: &[&str]| {
        let mut command = Command::new("rclone");
        command
            .args(["--config", "/dev/null", "--retries", "1", "--ca-cert"])
            .arg(site.ca_file())
            .args(arguments)
            .current_dir(site.dir.path())
            .env("RCLONE_CONFIG_S_TYPE", "swift")
            .env("RCLONE_CONFIG_S_AUTH", site.url("/auth/v1.0"))
            .env("RCLONE_CONFIG_S_USER", USER)
            .env("RCLONE_CONFIG_S_KEY", KEY)
            .env("RCLONE_CONFIG_S_AUTH_VERSION", "1");
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        let output = output.unwrap().expect("Debian's package rclone");
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    };
    rclone(&["copy", "files", "S:c/dir"]).await;
    rclone(&["check", "--download", "files", "S:c/dir"]).await;
    rclone(&["check", "files", "S:c/dir"]).await;
    let mut listed: Vec<String> = rclone(&["lsf", "-R", "--files-only", "S:c"])
        .await
        .lines()
        .map(str::to_owned)
        .collect();
    listed.sort();
    assert_eq!(listed, ["dir/empty", "dir/large", "dir/sub ü/small"]);
    let part = [
        "cat",
        "--offset",
        "1",
        "--count",
        "3",
        "S:c/dir/sub ü/small",
    ];
    assert_eq!(rclone(&part).await, "mal");
    rclone(&["copyto", "S:c/dir/large", "back"]).await;
    assert!(std::fs::read(site.dir.path().join("back")).unwrap() == pattern(3_000_000));
    rclone(&["purge", "S:c"]).await;
    assert_eq!(site.store.stats().containers, 0);
}
