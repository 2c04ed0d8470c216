//! The built-in object store against nginx with two workers serving the same file: many clients
//! that read small ranges, as BMCs read virtual media, over TLS and a connection each.
//!
//! `cargo bench --bench ranges [-- ROUNDS]` needs Debian's package nginx-light. Both servers run
//! as processes of their own; each round asks both, in turns, and the ratio is the median of the
//! ratios within the rounds. Ours is asked through a temporary URL, whose signature it checks
//! each time. The last lines are for clients that all connect at once.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, measures time, and stops at the first surprise"
)]

use flowrun::http::Trust;
use flowrun::http::server::{Identity, serve_tls};
use flowrun::objectstore::{Store, StoreOptions, User};
use flowrun::openstack::swift::{
    Body, Swift, SwiftAuth, SwiftOptions, TempUrlOptions, UploadOptions,
};
use flowrun::secret::Secret;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const FILE_BYTES: u64 = 64 << 20;
const PIECE: u64 = 64 << 10;
const REQUESTS: u64 = 16_000;
const CLIENTS: [u64; 3] = [16, 250, 2000];
/// Clients that open their connections at the same time, but for the last measurement.
const OPENING: usize = 64;
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that ends when this is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // So that nginx takes its workers along.
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.0.wait().ok();
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", folder] => serve(Path::new(folder)).await,
        [rounds] => compare(rounds.parse().unwrap()).await,
        _ => compare(7).await,
    }
}

async fn serve(folder: &Path) {
    let user = User {
        name: "u".to_owned(),
        key: Secret::new("k"),
    };
    let mut options = StoreOptions::new(folder.join("store"), user);
    options.temp_url_keys = vec![Secret::new("t")];
    let store = Store::open(options).unwrap();
    let identity = Identity {
        cert_pem: fs::read_to_string(folder.join("cert.pem")).unwrap(),
        key_pem: Secret::new(fs::read_to_string(folder.join("key.pem")).unwrap()),
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = serve_tls(listener, store.router(), &identity).unwrap();
    println!("{}", server.address());
    std::future::pending::<()>().await;
}

async fn compare(rounds: usize) {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let folder = folder.path();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let file = fs::File::create(folder.join("file")).unwrap();
    file.set_len(FILE_BYTES).unwrap();
    let trust = Trust::Ca(made.cert.pem());

    let mut ours = Server(
        Command::new(std::env::current_exe().unwrap())
            .args(["serve", folder.to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut address = String::new();
    let mut said = BufReader::new(ours.0.stdout.take().unwrap());
    said.read_line(&mut address).unwrap();
    let url = upload(address.trim(), folder, trust.clone()).await;
    let (nginx, port) = nginx(folder);
    let theirs = format!("https://127.0.0.1:{port}/file");

    for clients in CLIENTS {
        let http = connections(&trust, clients, &[&url, &theirs]).await;
        let mut ratios = Vec::new();
        let mut rates = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let first = round % 2 == 0;
            let a = read(&http, if first { &url } else { &theirs }).await;
            let b = read(&http, if first { &theirs } else { &url }).await;
            let (own, other) = if first { (a, b) } else { (b, a) };
            rates.0.push(own);
            rates.1.push(other);
            ratios.push(own / other);
        }
        println!(
            "{clients} clients: flowrun {:.0}/s, nginx {:.0}/s, ratio {:.2} of {rounds} rounds; \
             peak memory: flowrun {} KiB, nginx {} KiB",
            median(rates.0),
            median(rates.1),
            median(ratios),
            peak(ours.0.id()),
            peaks_of_workers(nginx.0.id()),
        );
    }
    let most = CLIENTS[CLIENTS.len() - 1];
    for (name, url) in [("flowrun", &url), ("nginx", &theirs)] {
        let started = Instant::now();
        let answers = join_all((0..most).map(|_| async {
            let http = flowrun::http::client(&trust, PATIENCE).unwrap();
            piece(&http, url, 0).await
        }));
        let refused = answers
            .await
            .iter()
            .filter(|answer| answer.is_err())
            .count();
        let seconds = started.elapsed().as_secs_f64();
        println!("{most} clients at once: {name} {seconds:.1} s, {refused} without an answer");
    }
}

/// A client each, with a connection to either server.
async fn connections(trust: &Trust, clients: u64, urls: &[&str]) -> Vec<reqwest::Client> {
    let opened = stream::iter(0..clients).map(|_| async {
        let http = flowrun::http::client(trust, PATIENCE).unwrap();
        for url in urls {
            piece(&http, url, 0).await.unwrap();
        }
        http
    });
    opened.buffer_unordered(OPENING).collect().await
}

async fn upload(address: &str, folder: &Path, trust: Trust) -> String {
    let auth = SwiftAuth::V1 {
        auth_url: format!("https://{address}/auth/v1.0"),
        user: "u".to_owned(),
        key: Secret::new("k"),
    };
    let swift = Swift::new(SwiftOptions::new(auth, trust)).unwrap();
    let options = UploadOptions {
        create_container: true,
        ..UploadOptions::default()
    };
    let body = Body::File(folder.join("file"));
    swift.upload("c", "file", body, options).await.unwrap();
    let lasting = TempUrlOptions {
        ttl: Duration::from_secs(86_400),
        ..TempUrlOptions::default()
    };
    let url = swift.temp_url("c", "file", lasting).await.unwrap();
    url.expose().to_owned()
}

fn nginx(folder: &Path) -> (Server, u16) {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let place = folder.display();
    let config = format!(
        "daemon off; user root; worker_processes 2; worker_rlimit_nofile 16384; pid {place}/pid; error_log {place}/errors;\n\
         events {{ worker_connections 8192; }}\n\
         http {{ access_log off; keepalive_requests 1000000; sendfile on; \
         client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f; \
         uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;\n\
         server {{ listen 127.0.0.1:{port} ssl backlog=8192; root {place}; \
         ssl_certificate cert.pem; ssl_certificate_key key.pem; }} }}\n"
    );
    fs::write(folder.join("nginx.conf"), config).unwrap();
    let child = Command::new("/usr/sbin/nginx")
        .arg("-c")
        .arg(folder.join("nginx.conf"))
        .arg("-p")
        .arg(folder)
        .spawn()
        .unwrap();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    (Server(child), port)
}

/// Range requests a second.
async fn read(clients: &[reqwest::Client], url: &str) -> f64 {
    let each = REQUESTS / clients.len() as u64;
    let started = Instant::now();
    let reading = clients.iter().zip(0..).map(|(http, client)| async move {
        for turn in 0..each {
            let number: u64 = client * 7919 + turn * 104_729;
            piece(http, url, number * PIECE % FILE_BYTES).await.unwrap();
        }
    });
    join_all(reading).await;
    (each * clients.len() as u64) as f64 / started.elapsed().as_secs_f64()
}

async fn piece(http: &reqwest::Client, url: &str, first: u64) -> reqwest::Result<()> {
    let range = format!("bytes={first}-{}", first + PIECE - 1);
    let answer = http.get(url).header("range", range).send().await?;
    assert_eq!(answer.status(), 206);
    let body = answer.bytes().await?;
    assert_eq!(body.len() as u64, PIECE);
    Ok(())
}

/// The sum over the processes that one has made.
fn peaks_of_workers(parent: u32) -> u64 {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let children = fs::read_to_string(path).unwrap();
    let children = children.split_whitespace();
    children.map(|child| peak(child.parse().unwrap())).sum()
}

fn peak(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
