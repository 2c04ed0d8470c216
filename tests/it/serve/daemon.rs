//! A `flowrun serve` of its own process over a lab, and a client of it.

use crate::flow::{LabUp, flowrun, text};
use flowrun::clock;
use flowrun::http::Trust;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Flows beside the stock one, and a module. `expecting` hands its key and token over as a floppy
/// in the object store, and waits; `deploying` has work to do after that; `waiting` waits; `broken`
/// does what a program does on a bad day.
const FLOWS: [(&str, &str); 5] = [
    (
        "called",
        r#"-- Waits for a ramdisk that a test plays; answers its address.
return function(node)
  local expected = ramdisk.expect(node)
  local floppy = image.make_vfat { parameters = expected.parameters, token = expected.token }
  swift.upload("floppies", { name = node.name, file = floppy.path })
  return step("wait for ramdisk", function()
    return ramdisk.wait(expected, { timeout = "20m" }).address
  end)
end
"#,
    ),
    (
        "expecting",
        r#"local called = require "called"
return flow { name = "expecting", actions = { expect = function(_, node)
  return { address = called(node) }
end } }
"#,
    ),
    (
        "deploying",
        r#"local called = require "called"
return flow { name = "deploying", actions = { deploy = function(_, node)
  local address = called(node)
  step("write image to " .. address, function() sleep("20m") end)
end } }
"#,
    ),
    (
        "waiting",
        r#"-- Waits, and says when it unwinds.
return flow { name = "waiting", params = { long = { type = "duration", default = "20m" } },
  destroys = function() return { "nothing" } end,
  actions = { wait = function(_, node, p)
    undo(function() log.info("unwound") end)
    step("first", function() log.info("%s begins", node.name) end)
    step("wait", function() sleep(p.long) end)
    return "waited"
  end } }
"#,
    ),
    (
        "broken",
        r#"-- Fails in a step.
return flow { name = "broken", actions = { fail = function()
  step("try", function()
    fail("refused", "it does not want to", "ask nicely")
  end)
end } }
"#,
    ),
];

/// A running daemon with an operator's token.
pub(crate) struct Daemon {
    child: Child,
    said: Arc<Mutex<String>>,
    pub(crate) url: String,
    pub(crate) token: String,
    dir: PathBuf,
    ca_file: PathBuf,
}

impl Daemon {
    pub(crate) fn over(lab: &LabUp) -> Self {
        Self::with(lab, "", "")
    }

    /// `api` are lines for `[api]`, `more` are sections.
    pub(crate) fn with(lab: &LabUp, api: &str, more: &str) -> Self {
        let made = flowrun(&["serve", "token"]).output().unwrap();
        let token = String::from_utf8(made.stdout.clone())
            .unwrap()
            .trim()
            .to_owned();
        let told = text(&made);
        let hash = told.split('"').nth(1).unwrap();
        assert_eq!(hash.len(), 64, "{told}");
        let dir = lab.path("daemon");
        std::fs::create_dir_all(dir.join("flows")).unwrap();
        for (name, source) in FLOWS {
            std::fs::write(dir.join(format!("flows/{name}.lua")), source).unwrap();
        }
        std::fs::write(dir.join("token"), &token).unwrap();
        let site = site(lab);
        let api = format!("token_sha256 = [\"{hash}\"]\n{api}");
        std::fs::write(dir.join("flowrun.toml"), config(lab, &site, &api, more)).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (child, said) = up(&dir);
        Self {
            child,
            said,
            url: text(&site["api"]["url"]),
            token,
            ca_file: text(&site["ca_file"]).into(),
            dir,
        }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn start_again(&mut self) {
        (self.child, self.said) = up(&self.dir);
    }

    /// Sends SIGHUP and waits until the daemon has said this.
    pub(crate) async fn reload(&self, wanted: &str) {
        let before = self.said().matches(wanted).count();
        crate::flow::signal(&self.child, "-HUP");
        let deadline = clock::instant() + Duration::from_secs(60);
        while self.said().matches(wanted).count() == before {
            assert!(
                clock::instant() < deadline,
                "never {wanted:?}: {}",
                self.said()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// By SIGTERM; answers the exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        crate::flow::signal(&self.child, "-TERM");
        self.child.wait().unwrap().code()
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn ca_file(&self) -> String {
        self.ca_file.to_str().unwrap().to_owned()
    }

    pub(crate) fn ca_pem(&self) -> String {
        std::fs::read_to_string(&self.ca_file).unwrap()
    }

    /// The command, asking this server.
    pub(crate) fn ask(&self, args: &[&str]) -> Command {
        let mut command = flowrun(args);
        command.args(["--server", &self.url]);
        command.arg("--ca-file").arg(&self.ca_file);
        command.arg("--token-file").arg(self.dir.join("token"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn asked(&self, args: &[&str]) -> Output {
        self.ask(args).output().unwrap()
    }

    /// A client from this address of the loopback network.
    pub(crate) fn client_from(&self, address: [u8; 4]) -> Client {
        flowrun::http::install_tls_provider();
        let tls = Trust::Ca(self.ca_pem()).tls().unwrap();
        Client::builder()
            .tls_backend_preconfigured(tls)
            .local_address(IpAddr::from(address))
            .no_proxy()
            .timeout(Duration::from_secs(100))
            .build()
            .unwrap()
    }

    /// A request of the operator.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let client = self.client_from([127, 0, 0, 1]);
        let request = client.request(method, format!("{}{path}", self.url));
        request.bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = self.request(Method::GET, path).send().await.unwrap();
        json_of(response, 200).await
    }

    /// Starts a flow on `lab-1`; answers the run's id.
    pub(crate) async fn start(&self, flow: &str) -> String {
        self.start_on(flow, "lab-1").await
    }

    pub(crate) async fn start_on(&self, flow: &str, node: &str) -> String {
        let body = serde_json::json!({ "flow": flow, "node": node });
        let request = self.request(Method::POST, "/v1/runs").json(&body);
        let started = json_of(request.send().await.unwrap(), 201).await;
        started["runs"][0]["id"].as_str().unwrap().to_owned()
    }

    /// Waits until the run has such a status.
    pub(crate) async fn until(&self, run: &str, status: &str) -> Value {
        self.until_one_of(run, &[status]).await
    }

    pub(crate) async fn until_ended(&self, run: &str) -> Value {
        self.until_one_of(run, &["done", "failed", "cancelled", "stuck"])
            .await
    }

    async fn until_one_of(&self, run: &str, statuses: &[&str]) -> Value {
        let mut last = Value::Null;
        let deadline = clock::instant() + Duration::from_secs(120);
        while clock::instant() < deadline {
            last = self.get(&format!("/v1/runs/{run}")).await;
            if statuses
                .iter()
                .any(|status| last["run"]["status"] == *status)
            {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never {statuses:?}: {last:#}");
    }

    /// Waits until the run has told `count` of these.
    pub(crate) async fn until_drift(&self, run: &str, count: usize) -> Value {
        let deadline = clock::instant() + Duration::from_secs(120);
        while clock::instant() < deadline {
            let detail = self.get(&format!("/v1/runs/{run}")).await;
            if detail["drift"].as_array().unwrap().len() >= count {
                return detail;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the run never told {count} differences");
    }

    /// Waits until the run has begun a call or step whose key begins so.
    pub(crate) async fn until_entry(&self, run: &str, begins: &str) {
        let deadline = clock::instant() + Duration::from_secs(120);
        while clock::instant() < deadline {
            let detail = self.get(&format!("/v1/runs/{run}")).await;
            let entries = detail["entries"].as_array().unwrap();
            let begun = |entry: &Value| entry["key"].as_str().unwrap().starts_with(begins);
            if entries.iter().any(begun) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the run never came to {begins}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) async fn json_of(response: Response, status: u16) -> Value {
    let found = response.status();
    let body = response.text().await.unwrap();
    assert_eq!(found, status, "{body}");
    serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}"))
}

/// What the lab says of itself.
pub(crate) fn site(lab: &LabUp) -> Value {
    let file = std::fs::read(lab.path("site.json")).unwrap();
    let mut file: Value = serde_json::from_slice(&file).unwrap();
    file["site"].take()
}

/// Starts it and waits until it listens.
fn up(dir: &std::path::Path) -> (Child, Arc<Mutex<String>>) {
    let config = dir.join("flowrun.toml");
    let mut command = flowrun(&["serve", "--config", config.to_str().unwrap()]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = Arc::new(Mutex::new(String::new()));
    let heard = said.clone();
    let mut hear = move || {
        let line = lines.next()?.ok()?;
        let mut said = heard.lock().unwrap();
        said.push_str(&line);
        said.push('\n');
        Some(line)
    };
    loop {
        let line = hear();
        let line = line.unwrap_or_else(|| panic!("it ended: {}", said.lock().unwrap()));
        if line.starts_with("listening on ") {
            break;
        }
    }
    std::thread::spawn(move || while hear().is_some() {});
    (child, said)
}

fn config(lab: &LabUp, site: &Value, api: &str, more: &str) -> String {
    let daemon = lab.path("daemon");
    std::fs::write(
        daemon.join("swift.key"),
        site["object_store"]["key"].as_str().unwrap(),
    )
    .unwrap();
    let mut config = format!(
        r#"
[site]
state_dir = "{state}"
flows = ["{flows}"]
[api]
listen = {listen}
public_url = {url}
tls_cert = {cert}
tls_key = {key}
ca_file = {ca}
{api}
[swift]
auth_url = {auth_url}
user = {user}
key = {{ file = "{swift_key}" }}
ca_file = {ca}
{more}
"#,
        state = lab.path("state").display(),
        flows = daemon.join("flows").display(),
        listen = site["api"]["listen"],
        url = site["api"]["url"],
        cert = site["api"]["tls_cert"],
        key = site["api"]["tls_key"],
        ca = site["ca_file"],
        auth_url = site["object_store"]["auth_url"],
        user = site["object_store"]["user"],
        swift_key = daemon.join("swift.key").display(),
    );
    for node in site["nodes"].as_array().unwrap() {
        let (driver, instance) = (&node["driver_info"], &node["instance_info"]);
        config.push_str(&format!(
            r#"
[nodes.{name}]
uuid = {uuid}
ports = {ports}
[nodes.{name}.driver_info]
ilo_address = {ilo}
ilo_username = {user}
ilo_password_file = {password}
ilo_ca_file = {ca}
deploy_iso = {deploy_iso}
[nodes.{name}.properties]
capabilities = {capabilities}
[nodes.{name}.instance_info]
image_source = {image}
image_checksum = {checksum}
"#,
            name = node["name"].as_str().unwrap(),
            uuid = node["uuid"],
            ports = node["ports"],
            ilo = driver["ilo_address"],
            user = driver["ilo_username"],
            password = driver["ilo_password_file"],
            ca = site["ca_file"],
            deploy_iso = driver["deploy_iso"],
            capabilities = node["properties"]["capabilities"],
            image = instance["image_source"],
            checksum = instance["image_checksum"],
        ));
    }
    config
}
