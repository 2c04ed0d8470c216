//! Who is let in.

use super::callbacks::Floppy;
use super::daemon::{Daemon, json_of, site};
use crate::flow::{LabUp, flowrun, told};
use flowrun::api::renewal::Renewal;
use flowrun::api::{Api, listener};
use flowrun::config::Config;
use flowrun::engine::Engine;
use flowrun::lua::LuaRuntime;
use flowrun::lua::bind::{Site, registry};
use reqwest::Method;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::test]
async fn nothing_but_the_callback_and_health_is_open() {
    let lab = LabUp::start(1, &[]);
    let daemon = Daemon::over(&lab);
    let client = daemon.client_from([127, 0, 0, 7]);
    let document = daemon.get("/openapi.json").await;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let open = operation
                .get("security")
                .is_some_and(|s| s.as_array().unwrap().is_empty());
            let url = format!("{}{path}", daemon.url.clone());
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let response = client.request(method, url).send().await.unwrap();
            if open {
                assert_ne!(response.status(), 401, "{path}");
                continue;
            }
            assert_eq!(
                response.headers()["www-authenticate"],
                "Bearer realm=\"flowrun\""
            );
            let body = json_of(response, 401).await;
            assert_eq!(body["error"]["kind"], "auth", "{path}");
        }
    }
    let output = flowrun(&["runs", "--server", &daemon.url, "--ca-file"])
        .arg(site(&lab)["ca_file"].as_str().unwrap())
        .output()
        .unwrap();
    told(&output, 1, &["this needs the operator's token [auth]"]);
    assert!(!daemon.said().contains(&daemon.token));
}

#[tokio::test]
async fn an_address_that_guesses_learns_nothing_and_delays_no_honest_ramdisk() {
    let lab = LabUp::start(1, &[]);
    let daemon = Daemon::over(&lab);
    let guesser = daemon.client_from([127, 0, 0, 9]);
    let url = format!("{}/v1/runs", daemon.url);
    let mut answers = Vec::new();
    for n in 0..60 {
        let guess = guesser.get(&url).bearer_auth(format!("flowrun_{n}"));
        answers.push(guess.send().await.unwrap().status().as_u16());
    }
    assert_eq!((answers[0], answers[59]), (401, 429), "{answers:?}");
    let right = guesser.get(&url).bearer_auth(&daemon.token);
    let response = right.send().await.unwrap();
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(json_of(response, 429).await["error"]["retryable"], true);
    daemon.get("/v1/runs").await;

    let node = &site(&lab)["nodes"][0];
    let callback = format!(
        "{}/v1/nodes/{}/vendor_passthru/pass_deploy_info",
        daemon.url,
        node["uuid"].as_str().unwrap()
    );
    let mut answers = Vec::new();
    for _ in 0..60 {
        let guess = guesser.post(&callback).body("{}");
        answers.push(guess.send().await.unwrap().status().as_u16());
    }
    assert_eq!((answers[0], answers[59]), (400, 429), "{answers:?}");

    // A ramdisk behind the same address is heard at once.
    let run = daemon.start("expecting").await;
    let waits = "wait for ramdisk/ramdisk.wait";
    daemon.until_entry(&run, waits).await;
    let floppy = Floppy::of(&daemon, &lab, "lab-1").await;
    let right = guesser
        .post(&callback)
        .header("X-Auth-Token", &floppy.token);
    let right = right.body(floppy.body().to_string());
    assert_eq!(right.send().await.unwrap().status(), 200);
    daemon.until(&run, "done").await;
    let guess = guesser.post(&callback).body("{}").send().await.unwrap();
    assert_eq!(guess.status(), 429);
}

/// What an authority renewed is shown to new connections, what is broken is not, and runs go on.
#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let lab = LabUp::start(1, &[]);
    let daemon = Daemon::over(&lab);
    let api = &site(&lab)["api"];
    let [cert, key] = ["tls_cert", "tls_key"].map(|name| api[name].as_str().unwrap().to_owned());
    let run = daemon.start("waiting").await;
    daemon.until_entry(&run, "wait/sleep").await;
    make_certificate(&lab.path("."), "renewed");
    let shows = || shown_certificate(&daemon.url);
    let before = shows();

    // The certificate alone: half of a renewal.
    std::fs::copy(lab.path("renewed.pem"), &cert).unwrap();
    daemon.reload("certificate and key do not fit").await;
    assert_eq!(shows(), before);
    std::fs::copy(lab.path("renewed.key"), &key).unwrap();
    daemon.reload("certificate and key were read anew").await;
    let renewed = shows();
    assert!(
        renewed != before && renewed.contains("renewed"),
        "{renewed}"
    );
    std::fs::write(&cert, "nonsense").unwrap();
    daemon.reload("the certificate before stays in use").await;
    assert_eq!(shows(), renewed);
    assert!(daemon.said().contains("; 0 runs resumed"), "it never ended");
}

/// Subject and serial number of what a server shows.
/// Whoever renews a certificate need not tell the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_found_without_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["first", "second"] {
        make_certificate(folder.path(), name);
    }
    let show = |name: &str| {
        std::fs::copy(path(&format!("{name}.pem")), path("cert.pem")).unwrap();
        std::fs::copy(path(&format!("{name}.key")), path("cert.key")).unwrap();
    };
    show("first");
    let toml = format!(
        "[site]\nstate_dir = {:?}\n[api]\ntls_cert = {:?}\ntls_key = {:?}\n",
        path("state"),
        path("cert.pem"),
        path("cert.key")
    );
    std::fs::write(path("flowrun.toml"), toml).unwrap();
    let config = Config::load(&path("flowrun.toml")).unwrap();
    let primitives = Arc::new(registry(&Arc::new(Site::new(config.clone()))));
    let runtime = || LuaRuntime::new(primitives.clone());
    let engine = Engine::in_memory(primitives.clone(), Arc::new(runtime())).unwrap();
    let api = Api::new(&config, &engine, runtime()).unwrap();
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let server = listener::listen_for_all(&config, &api, anywhere).unwrap();
    let url = format!("https://{}", server.address());
    assert!(shown_certificate(&url).contains("first"));

    let mut never = signal(SignalKind::user_defined2()).unwrap();
    let renewal = Renewal::new(&config.api, &server);
    let until_second = async {
        show("second");
        while !shown_certificate(&url).contains("second") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = renewal.follow(Duration::from_millis(1), &mut never) => unreachable!("it goes on"),
        () = until_second => {}
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("it was never looked at"),
    }
}

/// `name.pem` and `name.key` for this machine, with the name in the subject.
fn make_certificate(folder: &Path, name: &str) {
    let script = format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
         -subj /CN={name} -addext subjectAltName=IP:127.0.0.1,DNS:localhost \
         -keyout {name}.key -out {name}.pem 2>&1"
    );
    let mut command = Command::new("sh");
    let made = command.args(["-c", &script]).current_dir(folder).output();
    assert!(made.unwrap().status.success(), "openssl is needed");
}

fn shown_certificate(url: &str) -> String {
    let address = url.strip_prefix("https://").unwrap();
    let script = format!(
        "openssl s_client -connect {address} </dev/null 2>/dev/null | \
         openssl x509 -noout -subject -serial"
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A client certificate of `[api] client_ca` does without a token; another's does not.
#[tokio::test]
async fn a_client_certificate_stands_for_a_token() {
    let lab = LabUp::start(1, &[]);
    let make = |name: &str| {
        let script = format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
             -subj /CN={name} -keyout {name}.key -out {name}-ca.pem 2>&1 && \
             openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=operator \
             -keyout client.key -out client.csr 2>&1 && \
             openssl x509 -req -in client.csr -CA {name}-ca.pem -CAkey {name}.key -days 2 \
             -CAcreateserial -extfile <(echo basicConstraints=CA:FALSE) \
             -out client.pem 2>&1 && cat client.pem client.key > {name}.pem"
        );
        let mut command = Command::new("bash");
        let made = command.args(["-c", &script]).current_dir(lab.path("."));
        assert!(made.output().unwrap().status.success(), "openssl is needed");
        lab.path(&format!("{name}.pem"))
    };
    let (ours, others) = (make("ours"), make("others"));
    let client_ca = format!("client_ca = \"{}\"", lab.path("ours-ca.pem").display());
    let daemon = Daemon::with(&lab, &client_ca, "");
    let runs_as = |certificate: &Path| {
        let mut command = flowrun(&["runs", "--server", &daemon.url, "--ca-file"]);
        command.arg(site(&lab)["ca_file"].as_str().unwrap());
        command
            .arg("--client-cert")
            .arg(certificate)
            .output()
            .unwrap()
    };
    told(&runs_as(&ours), 0, &["STARTED"]);
    let refused = runs_as(&others);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    // Neither does a ramdisk need one, nor an operator with a token.
    daemon.get("/v1/runs").await;
    let health = daemon
        .client_from([127, 0, 0, 1])
        .get(format!("{}/healthz", daemon.url));
    assert_eq!(health.send().await.unwrap().status(), 200);
}

#[test]
fn a_server_does_not_expose_itself() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("flowrun.toml");
    let site = format!(
        "[site]\nstate_dir = \"{}\"\n[api]\n",
        dir.path().join("state").display()
    );
    let started = |api: &str| {
        std::fs::write(&config, format!("{site}{api}")).unwrap();
        let config = config.to_str().unwrap();
        flowrun(&["serve", "--config", config]).output().unwrap()
    };
    told(&started(""), 2, &["no address to listen on"]);
    let everywhere = "listen = \"0.0.0.0:0\"\n";
    told(
        &started(everywhere),
        2,
        &["could deploy and wipe servers", "flowrun serve token"],
    );
    let token = format!("{everywhere}token_sha256 = [\"{}\"]\n", "0".repeat(64));
    told(&started(&token), 2, &["needs tls_cert and tls_key"]);
    let wrong = format!("{everywhere}token_sha256 = [\"hunter2\"]\n");
    told(&started(&wrong), 2, &["token_sha256 is not a SHA-256"]);
}
