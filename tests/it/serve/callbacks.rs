//! `pass_deploy_info` over the served API, as right, wrong, hostile and repeated callers send it.

use super::daemon::{Daemon, json_of, site};
use crate::flow::LabUp;
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;
use tokio::task::JoinSet;

/// What a ramdisk reads from its floppy.
pub(super) struct Floppy {
    uuid: String,
    key: String,
    iqn: String,
    pub(super) token: String,
}

impl Floppy {
    /// Fetches it from the object store, as the iLO would.
    pub(super) async fn of(daemon: &Daemon, lab: &LabUp, node: &str) -> Self {
        let client = daemon.client_from([127, 0, 0, 1]);
        let site = site(lab);
        let store = &site["object_store"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let login = client
            .get(text(&store["auth_url"]))
            .header("x-auth-user", text(&store["user"]))
            .header("x-auth-key", text(&store["key"]));
        let login = login.send().await.unwrap();
        let token = login.headers()["x-auth-token"].clone();
        let url = format!("{}/floppies/{node}", text(&store["storage_url"]));
        let image = client
            .get(url)
            .header("x-auth-token", token)
            .send()
            .await
            .unwrap();
        assert_eq!(image.status(), 200);
        let path = lab.path(&format!("{node}.img"));
        std::fs::write(&path, image.bytes().await.unwrap()).unwrap();
        let file = |name: &str| {
            let output = Command::new("mcopy")
                .arg("-i")
                .arg(&path)
                .args([name, "-"])
                .output();
            let output = output.expect("mcopy is needed; tests/run.sh installs it");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let parameters = file("::parameters.txt");
        let parameter = |name: &str| {
            let mut lines = parameters.lines();
            let value = lines.find_map(|line| line.strip_prefix(&format!("{name}=")));
            value.unwrap().to_owned()
        };
        Self {
            uuid: parameter("deployment_id"),
            key: parameter("deployment_key"),
            iqn: parameter("iscsi_target_iqn"),
            token: file("::token"),
        }
    }

    /// What the classic ramdisk sends.
    pub(super) fn body(&self) -> Value {
        json!({ "address": "10.10.1.150", "key": self.key, "iqn": self.iqn, "error": "" })
    }
}

/// A caller with an address of its own, so that one test's guesses are not another's.
struct Caller {
    client: Client,
    url: String,
}

impl Caller {
    fn new(daemon: &Daemon, last: u8) -> Self {
        Self {
            client: daemon.client_from([127, 0, 1, last]),
            url: daemon.url.clone(),
        }
    }

    async fn send(
        &self,
        path: &str,
        token: Option<&str>,
        body: impl Into<reqwest::Body>,
    ) -> Response {
        let mut request = self.client.post(format!("{}{path}", self.url)).body(body);
        if let Some(token) = token {
            request = request.header("X-Auth-Token", token);
        }
        request.send().await.unwrap()
    }

    async fn call(&self, uuid: &str, token: Option<&str>, body: &str) -> Response {
        let path = format!("/v1/nodes/{uuid}/vendor_passthru/pass_deploy_info");
        self.send(&path, token, body.to_owned()).await
    }

    async fn status(&self, floppy: &Floppy, body: &Value) -> u16 {
        let answer = self
            .call(&floppy.uuid, Some(&floppy.token), &body.to_string())
            .await;
        answer.status().as_u16()
    }
}

/// A refusal in Ironic's shape; answers its text.
async fn refused(response: Response, status: u16) -> String {
    let body = json_of(response, status).await;
    let inner: Value = serde_json::from_str(body["error_message"].as_str().unwrap()).unwrap();
    inner["faultstring"].as_str().unwrap().to_owned()
}

/// The body as the specification prints it: it lacks commas.
const AS_PRINTED: &str = "\"address\": \"\"\n\"iqn\": \"iqn-12345678-1234-1234-1234-1234567890abcxyz\"\n\
    \"key\": \"1234567890\"\n\"error\": \"\"\n";

#[tokio::test]
async fn only_the_expected_call_is_taken() {
    let lab = LabUp::start(2, &[]);
    let daemon = Daemon::over(&lab);
    let run = daemon.start_on("expecting", "lab-1").await;
    let other = daemon.start_on("expecting", "lab-2").await;
    for run in [&run, &other] {
        daemon
            .until_entry(run, "wait for ramdisk/ramdisk.wait")
            .await;
    }
    let floppy = Floppy::of(&daemon, &lab, "lab-1").await;
    let others = Floppy::of(&daemon, &lab, "lab-2").await;
    let caller = Caller::new(&daemon, 1);
    for (what, body, part) in wrong_bodies(&floppy, &others) {
        let answer = caller.call(&floppy.uuid, Some(&floppy.token), &body).await;
        let said = refused(answer, 400).await;
        assert!(said.contains(part), "{what}: {said}");
    }
    let caller = Caller::new(&daemon, 2);
    wrong_requests(&caller, &floppy, &others).await;

    // Nothing of all that reached the run. What is right does, by each of Ironic's paths, and a
    // repeat is answered alike, also when the run has ended; the key is good for one story only.
    daemon.until(&run, "running").await;
    let (uuid, token) = (&floppy.uuid, Some(floppy.token.as_str()));
    let good = floppy.body().to_string();
    for path in [
        format!("/v1/nodes/{uuid}/vendor_passthru/pass_deploy_info"),
        format!("/nodes/{uuid}/vendor_passthru/pass_deploy_info"),
        format!("/v1/nodes/{uuid}/vendor_passthru?method=pass_deploy_info"),
    ] {
        let answer = caller.send(&path, token, good.clone()).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.text().await.unwrap(), "");
    }
    let detail = daemon.until(&run, "done").await;
    assert_eq!(detail["run"]["result"]["address"], "10.10.1.150");
    assert_eq!(caller.call(uuid, token, &good).await.status(), 200);
    let changed = good.replace("10.10.1.150", "10.10.1.151");
    let said = refused(caller.call(uuid, token, &changed).await, 409).await;
    assert!(said.contains("used already"), "{said}");

    // A run that ended without a call hears none, and one of another key even less.
    let cancel = format!("/v1/runs/{other}/cancel");
    let answer = daemon.request(Method::POST, &cancel).send().await.unwrap();
    json_of(answer, 202).await;
    daemon.until(&other, "cancelled").await;
    for key in [&others.key, &floppy.key] {
        let mut body = others.body();
        body["key"] = json!(key);
        let body = body.to_string();
        let answer = caller.call(&others.uuid, Some(&others.token), &body).await;
        let said = refused(answer, 409).await;
        assert!(said.contains("does not wait"), "{said}");
    }

    // A later run of the node has a key of its own.
    let again = daemon.start_on("expecting", "lab-1").await;
    daemon
        .until_entry(&again, "wait for ramdisk/ramdisk.wait")
        .await;
    refused(caller.call(uuid, token, &good).await, 400).await;
    daemon.until(&again, "running").await;
    assert_leaks_nothing(&daemon, &lab, &[&floppy, &others]);
}

/// A ramdisk that calls once more while its disk is written, or another that got the same floppy:
/// the first call counts.
#[tokio::test]
async fn a_second_call_while_the_deployment_goes_on_changes_nothing() {
    let lab = LabUp::start(1, &[]);
    let mut daemon = Daemon::over(&lab);
    let run = daemon.start("deploying").await;
    daemon
        .until_entry(&run, "wait for ramdisk/ramdisk.wait")
        .await;
    let floppy = Floppy::of(&daemon, &lab, "lab-1").await;
    let caller = Caller::new(&daemon, 8);
    let first = floppy.body();
    assert_eq!(caller.status(&floppy, &first).await, 200);
    let writing = "write image to 10.10.1.150/sleep";
    daemon.until_entry(&run, writing).await;
    for (field, value, status) in [
        ("address", first["address"].clone(), 200),
        ("address", json!("10.10.1.151"), 409),
        ("iqn", json!(format!("iqn-{}", floppy.uuid)), 409),
        ("error", json!("no disk was found"), 409),
        ("key", json!("0123456789ABCDEF0123456789ABCDEF"), 400),
    ] {
        let mut body = first.clone();
        body[field] = value;
        assert_eq!(caller.status(&floppy, &body).await, status, "{body}");
    }
    // Nor for a server that starts anew, whose run reads the call once more.
    daemon.kill();
    daemon.start_again();
    daemon.until_entry(&run, writing).await;
    let detail = daemon.get(&format!("/v1/runs/{run}")).await;
    assert_eq!(detail["run"]["resumes"], 1);
    assert_eq!(detail["run"]["status"], "running");
    assert_eq!(caller.status(&floppy, &first).await, 200);
}

/// Each with what is said of it.
fn wrong_bodies(floppy: &Floppy, others: &Floppy) -> Vec<(&'static str, String, &'static str)> {
    let good = floppy.body();
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body.to_string()
    };
    let without = |name: &str| {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(name);
        body.to_string()
    };
    vec![
        ("the specification's", AS_PRINTED.to_owned(), "is not JSON"),
        (
            "the same in braces",
            format!("{{{AS_PRINTED}}}"),
            "is not JSON",
        ),
        ("cut", good.to_string()[..40].to_owned(), "is not JSON"),
        ("empty", String::new(), "is not JSON"),
        ("no object", "[1]".to_owned(), "not a JSON object"),
        ("deeply nested", "[".repeat(30_000), "is not JSON"),
        (
            "another key",
            with("key", json!("0".repeat(32))),
            "key does not match",
        ),
        (
            "another run's key",
            with("key", json!(others.key)),
            "key does not match",
        ),
        ("an empty key", with("key", json!("")), "missing: key"),
        ("null for a key", with("key", Value::Null), "missing: key"),
        ("a number for a key", with("key", json!(7)), "missing: key"),
        ("no key", without("key"), "missing: key"),
        ("no address", without("address"), "missing: address"),
        (
            "neither",
            with("address", json!("")).replace(&floppy.iqn, ""),
            "missing: address, iqn",
        ),
        (
            "a name for an address",
            with("address", json!("node-7")),
            "not an IP address",
        ),
        (
            "another target",
            with("iqn", json!("iqn.2001-04.com.evil:x")),
            "the floppy said",
        ),
    ]
}

async fn wrong_requests(caller: &Caller, floppy: &Floppy, others: &Floppy) {
    let (uuid, token) = (&floppy.uuid, Some(floppy.token.as_str()));
    let good = floppy.body().to_string();
    let huge = format!("{{\"key\": \"{}\"}}", "k".repeat(4 << 20));
    refused(caller.call(uuid, None, &huge).await, 413).await;
    let unknown = "00000000-0000-4000-8000-000000000000";
    for stranger in [unknown, "..%2f..%2fetc", "%ff%fe"] {
        refused(caller.call(stranger, token, &good).await, 404).await;
    }
    for token in ["wrong", &others.token] {
        refused(caller.call(uuid, Some(token), &good).await, 401).await;
    }
    for query in ["", "?method=heartbeat"] {
        let path = format!("/v1/nodes/{uuid}/vendor_passthru{query}");
        refused(caller.send(&path, token, good.clone()).await, 400).await;
    }
}

/// Neither keys nor tokens are in the journal or in what the server said.
fn assert_leaks_nothing(daemon: &Daemon, lab: &LabUp, floppies: &[&Floppy]) {
    let mut texts = vec![daemon.said().into_bytes()];
    for entry in std::fs::read_dir(lab.path("state")).unwrap() {
        texts.extend(std::fs::read(entry.unwrap().path()));
    }
    for secret in floppies
        .iter()
        .flat_map(|floppy| [&floppy.key, &floppy.token])
    {
        let shows = |text: &Vec<u8>| text.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(!texts.iter().any(shows), "a secret of a floppy is shown");
    }
}

#[tokio::test]
async fn an_error_report_ends_the_run_with_its_words() {
    let lab = LabUp::start(2, &[]);
    let daemon = Daemon::over(&lab);
    let caller = Caller::new(&daemon, 3);
    for (node, address) in [("lab-1", Some("10.0.0.7")), ("lab-2", None)] {
        let run = daemon.start_on("expecting", node).await;
        daemon
            .until_entry(&run, "wait for ramdisk/ramdisk.wait")
            .await;
        let floppy = Floppy::of(&daemon, &lab, node).await;
        let mut body = json!({ "key": floppy.key, "error": "no disk was found" });
        if let Some(address) = address {
            body["address"] = json!(address);
        }
        let stranger = json!({ "key": "K", "error": "no disk was found" });
        assert_eq!(caller.status(&floppy, &stranger).await, 400);
        assert_eq!(caller.status(&floppy, &body).await, 200);
        let detail = daemon.until(&run, "failed").await;
        let error = &detail["run"]["error"];
        assert_eq!(error["kind"], "refused", "{error}");
        assert_eq!(error["message"], "the ramdisk reports: no disk was found");
    }
}

/// The ramdisk calls while nobody is there, and repeats; the server that comes back has the run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_not_lost_when_the_server_is_killed() {
    let lab = LabUp::start(1, &[]);
    let mut daemon = Daemon::over(&lab);
    let run = daemon.start("expecting").await;
    daemon
        .until_entry(&run, "wait for ramdisk/ramdisk.wait")
        .await;
    let floppy = Floppy::of(&daemon, &lab, "lab-1").await;
    daemon.kill();
    let caller = Caller::new(&daemon, 4);
    let url = format!(
        "{}/v1/nodes/{}/vendor_passthru/pass_deploy_info",
        daemon.url, floppy.uuid
    );
    let (token, body) = (floppy.token.clone(), floppy.body().to_string());
    let mut calling = JoinSet::new();
    calling.spawn(async move {
        let mut unheard = 0;
        loop {
            let request = caller.client.post(&url).header("X-Auth-Token", &token);
            match request.body(body.clone()).send().await {
                Ok(response) => return (unheard, response.status().as_u16()),
                Err(_) => unheard += 1,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    daemon.start_again();
    let (unheard, status) = calling.join_next().await.unwrap().unwrap();
    assert!(unheard > 0, "it called into the void first");
    assert_eq!(status, 200);
    let detail = daemon.until(&run, "done").await;
    assert_eq!(detail["run"]["resumes"], 1);
    assert_eq!(detail["run"]["result"]["address"], "10.10.1.150");
}

/// Accepted, and the server is killed before the run could read it.
#[tokio::test]
async fn an_accepted_call_outlives_the_server() {
    let lab = LabUp::start(1, &[]);
    let mut daemon = Daemon::over(&lab);
    let run = daemon.start("expecting").await;
    daemon
        .until_entry(&run, "wait for ramdisk/ramdisk.wait")
        .await;
    let floppy = Floppy::of(&daemon, &lab, "lab-1").await;
    let caller = Caller::new(&daemon, 5);
    assert_eq!(caller.status(&floppy, &floppy.body()).await, 200);
    daemon.kill();
    daemon.start_again();
    let detail = daemon.until(&run, "done").await;
    assert_eq!(detail["run"]["result"]["address"], "10.10.1.150");
}

/// 503 is for what may pass: the ramdisk sends it again.
#[tokio::test]
async fn a_call_that_cannot_be_kept_is_asked_for_again() {
    let lab = LabUp::start(1, &[]);
    let daemon = Daemon::over(&lab);
    let run = daemon.start("expecting").await;
    daemon
        .until_entry(&run, "wait for ramdisk/ramdisk.wait")
        .await;
    let floppy = Floppy::of(&daemon, &lab, "lab-1").await;
    let caller = Caller::new(&daemon, 6);
    let rename = |from: &str, to: &str| {
        let db = rusqlite::Connection::open(lab.path("state/journal.db")).unwrap();
        db.busy_timeout(Duration::from_secs(60)).unwrap();
        db.execute_batch(&format!("ALTER TABLE {from} RENAME TO {to}"))
            .unwrap();
    };
    rename("expect", "away");
    let token = Some(floppy.token.as_str());
    let body = floppy.body().to_string();
    let answer = caller.call(&floppy.uuid, token, &body).await;
    assert!(answer.headers().contains_key("retry-after"));
    let said = refused(answer, 503).await;
    assert!(said.contains("send it again"), "{said}");
    rename("away", "expect");
    assert_eq!(caller.call(&floppy.uuid, token, &body).await.status(), 200);
    daemon.until(&run, "done").await;
}

#[tokio::test]
async fn where_there_is_a_keystone_the_token_is_needed() {
    let lab = LabUp::start(1, &[]);
    std::fs::write(lab.path("password"), "secret").unwrap();
    let keystone = format!(
        "[keystone]\nauth_url = \"https://127.0.0.1:1/v3\"\nusername = \"u\"\n\
         password = {{ file = \"{}\" }}\nproject_name = \"p\"\n",
        lab.path("password").display()
    );
    for (more, without) in [(keystone.as_str(), 401), ("", 200)] {
        let daemon = Daemon::with(&lab, "", more);
        let run = daemon.start("expecting").await;
        daemon
            .until_entry(&run, "wait for ramdisk/ramdisk.wait")
            .await;
        let floppy = Floppy::of(&daemon, &lab, "lab-1").await;
        let caller = Caller::new(&daemon, 7);
        let body = floppy.body().to_string();
        let answer = caller.call(&floppy.uuid, None, &body).await;
        assert_eq!(answer.status(), without, "{more}");
        let answer = caller.call(&floppy.uuid, Some(&floppy.token), &body).await;
        assert_eq!(answer.status(), 200);
        daemon.until(&run, "done").await;
    }
}
