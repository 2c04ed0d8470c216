//! What needs a process of its own: one that is killed, one whose memory is measured.

use super::site::{KEY, Site, USER, child, eventually, identity, options, pattern};
use super::written::medium_of;
use super::{bytes, create};
use bytes::Bytes;
use flowrun::http::Trust;
use flowrun::http::server::serve_tls;
use flowrun::objectstore::Store;
use flowrun::openstack::swift::{Body, ListOptions, Swift, SwiftAuth, SwiftOptions};
use flowrun::secret::Secret;
use futures_util::{StreamExt, stream};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};

/// Set for the child that is killed.
const ROOT: &str = "FLOWRUN_TEST_STORE_ROOT";
/// Set for the child that is measured.
const MEASURED: &str = "FLOWRUN_TEST_MEASURED";
/// Set by whoever wants to see more than 64 MiB.
const MIB: &str = "FLOWRUN_TEST_TRANSFER_MIB";

/// A process that gets SIGKILL when this is dropped, by a failed test too.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What the child does: serves the store until it is killed.
async fn serve_until_killed(root: &Path) {
    let store = Store::open(options(root)).unwrap();
    let (identity, ca) = identity();
    std::fs::write(root.with_extension("pem"), ca).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = serve_tls(listener, store.router(), &identity).unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\nlistening on {}", server.address()).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn kill_9_leaves_whole_objects_only() {
    if let Some(root) = std::env::var_os(ROOT) {
        return serve_until_killed(Path::new(&root)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let mut command = child("objectstore::processes::kill_9_leaves_whole_objects_only");
    let server = command.env(ROOT, &root).stdout(Stdio::piped()).spawn();
    let mut server = Killed(server.unwrap());
    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let address = lines.find_map(|line| {
        line.unwrap()
            .strip_prefix("listening on ")
            .map(str::to_owned)
    });
    let address = address.expect("the child's address");
    let ca = std::fs::read_to_string(root.with_extension("pem")).unwrap();
    let auth = SwiftAuth::V1 {
        auth_url: format!("https://{address}/auth/v1.0"),
        user: USER.to_owned(),
        key: Secret::new(KEY),
    };
    let swift = Swift::new(SwiftOptions::new(auth, Trust::Ca(ca.clone()))).unwrap();
    swift
        .upload("c", "whole", bytes("whole"), create())
        .await
        .unwrap();
    swift
        .upload("c", "replaced", bytes("old"), create())
        .await
        .unwrap();

    // Half of "replaced" arrives, and then the power goes.
    let half = Bytes::from(pattern(3 << 20));
    let body = stream::iter([Ok::<_, std::io::Error>(half)]).chain(stream::pending());
    let url = swift.temp_url("c", "replaced", put_url()).await.unwrap();
    let http = flowrun::http::client(&Trust::Ca(ca), super::site::TIMEOUT).unwrap();
    let request = http.put(url.expose()).header("content-length", 6 << 20);
    let upload = request.body(reqwest::Body::wrap_stream(body)).send();
    let tmp = root.join("tmp");
    let arrived = eventually("half of the upload is on disk", || {
        bytes_in(&tmp) >= 2 << 20
    });
    tokio::select! {
        answer = upload => panic!("an answer to half an upload: {answer:?}"),
        () = arrived => {}
    }
    drop(server);
    assert!(
        bytes_in(&tmp) >= 2 << 20,
        "the dead process cannot have cleaned up"
    );

    let site = reopen(&root);
    assert_eq!(bytes_in(&tmp), 0);
    let stats = site.stats();
    assert_eq!((stats.containers, stats.objects, stats.bytes), (1, 2, 8));
}

fn put_url() -> flowrun::openstack::swift::TempUrlOptions {
    flowrun::openstack::swift::TempUrlOptions {
        method: reqwest::Method::PUT,
        ..Default::default()
    }
}

fn reopen(root: &Path) -> std::sync::Arc<Store> {
    Store::open(options(root)).unwrap()
}

fn bytes_in(dir: &Path) -> u64 {
    let found = super::site::files(dir);
    found
        .iter()
        .filter_map(|path| path.metadata().ok())
        .map(|file| file.len())
        .sum()
}

/// A client that goes away, in a store that lives on.
#[tokio::test]
async fn an_abandoned_upload_leaves_nothing() {
    let site = Site::new();
    let swift = site.client();
    swift
        .upload("c", "o", bytes("old"), create())
        .await
        .unwrap();
    let url = swift.temp_url("c", "new", put_url()).await.unwrap();
    let http = flowrun::http::client(&Trust::Ca(site.ca.clone()), super::site::TIMEOUT).unwrap();
    let half = Bytes::from(pattern(2 << 20));
    let body = stream::iter([Ok::<_, std::io::Error>(half)]).chain(stream::pending());
    let request = http.put(url.expose()).header("content-length", 6 << 20);
    let upload = request.body(reqwest::Body::wrap_stream(body)).send();
    tokio::select! {
        answer = upload => panic!("an answer to half an upload: {answer:?}"),
        () = eventually("the upload has begun", || site.unfinished() == 1) => {}
    }
    drop(http);
    eventually("the half upload is removed", || site.unfinished() == 0).await;
    let names = swift.list("c", ListOptions::default()).await.unwrap();
    assert_eq!(names.len(), 1);
    assert_eq!(site.data_files(), 1);
}

/// What the child does: uploads and downloads a file and a medium, being client and store at once.
async fn transfer(mib: usize) {
    let site = Site::new();
    let path = site.dir.path().join("large");
    let block = pattern(1 << 20);
    let mut file = std::fs::File::create(&path).unwrap();
    for _ in 0..mib {
        file.write_all(&block).unwrap();
    }
    let swift = site.client();
    swift
        .upload("c", "warm-up", bytes("x"), create())
        .await
        .unwrap();
    let before = peak_kib();
    let uploaded = swift
        .upload("c", "large", Body::File(path.clone()), create())
        .await
        .unwrap();
    let to = site.dir.path().join("got");
    let downloaded = swift.download("c", "large", &to).await.unwrap();
    assert_eq!(
        (downloaded.bytes, &downloaded.etag),
        (uploaded.bytes, &uploaded.etag)
    );
    assert!(downloaded.verified);
    let iso = medium_of(path);
    let written = swift.upload("c", "iso", Body::Iso(iso.clone()), create());
    assert_eq!(written.await.unwrap().bytes, iso.bytes());
    let grown = peak_kib() - before;
    assert!(
        grown < 40 << 10,
        "{mib} MiB there and back took {grown} KiB of memory"
    );
}

/// The largest resident set so far.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// 64 MiB, or as many as the environment says.
#[tokio::test(flavor = "multi_thread")]
async fn transfers_need_little_memory() {
    let mib = std::env::var(MIB).map_or(64, |mib| mib.parse().unwrap());
    if std::env::var_os(MEASURED).is_some() {
        return transfer(mib).await;
    }
    let mut command = child("objectstore::processes::transfers_need_little_memory");
    let output = tokio::task::spawn_blocking(move || command.env(MEASURED, "1").output());
    let output = output.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{complained}"
    );
}
