//! The iLO client: how fast it reads the largest captures, and how many iLOs it can watch.
//!
//! `cargo bench --bench ilo [-- ROUNDS]`. Parsing is beside Python's parsers of the same bytes
//! (`xml.etree`, document by document as python-hpilo does it, and `json`). The iLOs are 500
//! simulated ones in a process of their own, each with its TLS server; all are asked for their
//! power at once, in rounds. Memory is what this process grew by while it connected to them.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, measures time, and stops at the first surprise"
)]

// A private part of the library, measured alone; its tests come along and do nothing here.
#[path = "../src/ilo/ribcl/document.rs"]
#[allow(dead_code, unused_imports, reason = "not all of it is measured")]
mod document;
#[path = "../src/ilo/ribcl/http.rs"]
#[allow(dead_code, reason = "the tests of the other name it")]
mod http;
mod error {
    pub(crate) use flowrun::error::{Error, Kind, Result};
}

use flowrun::http::Trust;
use flowrun::http::server::{Identity, serve_tls};
use flowrun::ilo::model::PowerState;
use flowrun::ilo::{Ilo, IloOptions};
use flowrun::lab::host::{BootOutcome, BootRequest, Host, Started};
use flowrun::lab::ilo::{Generation, IloConfig, Machine};
use flowrun::secret::Secret;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const ILOS: usize = 500;
const PASSWORD: &str = "a password";
const PATIENCE: Duration = Duration::from_secs(120);
const PARSING: Duration = Duration::from_secs(2);

/// The largest captured answers of each dialect.
const HEALTH: &[u8] =
    include_bytes!("../tests/data/ilo/ribcl/ilo3-raw-http/get_embedded_health.raw");
const REGISTRY: &[u8] = include_bytes!(
    "../tests/data/ilo/redfish/ilo7-1.14-dl360gen12/RegistryStore_registries_en_iLO.json.json"
);

/// Python's parsers, over and over for as long; prints bytes per second.
const PYTHON: &str = r"
import json, re, sys, time, xml.etree.ElementTree as tree
data, seconds = open(sys.argv[2], 'rb').read(), float(sys.argv[3])
def xml():
    for document in re.split(rb'(?=<\?xml)', data):
        if document.strip(): tree.fromstring(document.strip())
parse = xml if sys.argv[1] == 'xml' else lambda: json.loads(data)
start, rounds = time.perf_counter(), 0
while time.perf_counter() - start < seconds:
    parse()
    rounds += 1
print(rounds * len(data) / (time.perf_counter() - start))
";

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", cert, key] => serve(cert, key).await,
        [rounds] => measure(rounds.parse().unwrap()).await,
        _ => measure(20).await,
    }
}

async fn measure(rounds: usize) {
    let health = body(HEALTH);
    let scan = || {
        drop(black_box(
            document::Answer::parse(black_box(&health)).unwrap(),
        ));
    };
    let (own, other) = (rate(health.len(), scan), python("xml", &health));
    report("RIBCL, embedded health", health.len(), own, other);
    let json = || {
        drop(black_box(
            serde_json::from_slice::<serde_json::Value>(black_box(REGISTRY)).unwrap(),
        ));
    };
    let (own, other) = (rate(REGISTRY.len(), json), python("json", REGISTRY));
    report("Redfish, message registry", REGISTRY.len(), own, other);
    watch(rounds).await;
}

/// The chunks of a captured answer, joined.
fn body(capture: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(capture).unwrap();
    let (_, mut rest) = text.split_once("\r\n\r\n").unwrap();
    let mut joined = Vec::new();
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap();
        if length == 0 {
            break;
        }
        joined.extend_from_slice(&after.as_bytes()[..length]);
        rest = after[length..].trim_start_matches("\r\n");
    }
    joined
}

/// Bytes per second.
fn rate(length: usize, parse: impl Fn()) -> f64 {
    let (start, mut parsed) = (Instant::now(), 0);
    while start.elapsed() < PARSING {
        parse();
        parsed += length;
    }
    parsed as f64 / start.elapsed().as_secs_f64()
}

fn python(parser: &str, bytes: &[u8]) -> f64 {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let out = Command::new("python3")
        .args(["-c", PYTHON, parser])
        .arg(file.path())
        .arg(PARSING.as_secs().to_string())
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.trim().parse().unwrap()
}

fn report(what: &str, length: usize, own: f64, other: f64) {
    println!(
        "{what} of {length} bytes: flowrun {:.0} MB/s, Python {:.0} MB/s, ratio {:.1}",
        own / 1e6,
        other / 1e6,
        own / other
    );
}

async fn watch(rounds: usize) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let mut process = Lab(Command::new(std::env::current_exe().unwrap())
        .args(["serve", &cert, &key])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap());
    let said = BufReader::new(process.0.stdout.take().unwrap());
    let addresses: Vec<String> = said.lines().take(ILOS).map(Result::unwrap).collect();

    let (before, start) = (resident(), Instant::now());
    let connecting = addresses.iter().map(|address| {
        Ilo::connect(IloOptions {
            base_url: format!("https://{address}"),
            username: "bench".to_owned(),
            password: Secret::new(PASSWORD),
            trust: Trust::Ca(cert.clone()),
            legacy_tls: false,
            timeout: PATIENCE,
        })
    });
    let ilos: Vec<Ilo> = join_all(connecting)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let connected = start.elapsed().as_secs_f64();
    let mut waits = Vec::new();
    let start = Instant::now();
    for _ in 0..rounds {
        waits.extend(join_all(ilos.iter().map(ask)).await);
    }
    let rate = waits.len() as f64 / start.elapsed().as_secs_f64();
    let grown = (resident() - before) as f64 / ILOS as f64;
    waits.sort();
    let at = |percent: usize| waits[waits.len() * percent / 100].as_secs_f64() * 1e3;
    println!(
        "{ILOS} iLOs, {rounds} rounds of all at once: {rate:.0} requests/s, p50 {:.0} ms, \
         p99 {:.0} ms; connected in {connected:.1} s; {grown:.0} KiB a node",
        at(50),
        at(99)
    );
    join_all(ilos.iter().map(Ilo::close)).await;
}

async fn ask(ilo: &Ilo) -> Duration {
    let start = Instant::now();
    assert_eq!(ilo.power_state().await.unwrap(), PowerState::Off);
    start.elapsed()
}

/// Resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

/// The process with the simulated iLOs; ends with this.
struct Lab(Child);

impl Drop for Lab {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Nobody switches these servers on.
#[derive(Debug)]
struct Idle;

impl Host for Idle {
    fn boot(&self, _request: BootRequest, _started: Started) -> BoxFuture<'static, BootOutcome> {
        std::future::pending().boxed()
    }
}

async fn serve(cert: &str, key: &str) {
    let identity = Identity {
        cert_pem: cert.to_owned(),
        key_pem: Secret::new(key),
    };
    let servers: Vec<_> = (0..ILOS)
        .map(|number| {
            let config = IloConfig {
                name: format!("node-{number}"),
                uuid: uuid::Uuid::from_u128(number as u128),
                username: "bench".to_owned(),
                password: Secret::new(PASSWORD),
                generation: Generation::Ilo5,
                post_time: Duration::from_secs(1),
                media_trust: Trust::System,
                faults: std::collections::BTreeSet::new(),
            };
            let machine = Machine::new(config, Arc::new(Idle));
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let server = serve_tls(listener, machine.router(), &identity).unwrap();
            println!("{}", server.address());
            server
        })
        .collect();
    std::future::pending::<()>().await;
    drop(servers);
}
