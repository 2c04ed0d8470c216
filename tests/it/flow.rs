//! The binary on a simulated site: whole deployments, killed, cancelled and broken ones.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

mod ilo_sessions;
mod ilo_settings;
mod image_lease;
mod partition_image;

use flowrun::clock;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

pub(crate) const FLOW: &str = "flows/ilo_vmedia_iscsi.lua";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The command, from the project's folder as the README gives it.
pub(crate) fn flowrun(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowrun"));
    command.current_dir(root()).args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    flowrun(args).output().unwrap()
}

pub(crate) fn text(output: &Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{out}{err}")
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

pub(crate) fn told(output: &Output, exit: i32, parts: &[&str]) {
    let said = text(output);
    assert_eq!(code(output), exit, "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
}

/// A site of its own process, as a real one is.
pub(crate) struct LabUp {
    child: Child,
    dir: tempfile::TempDir,
}

impl LabUp {
    pub(crate) fn start(nodes: u32, faults: &[&str]) -> Self {
        let more: Vec<_> = faults
            .iter()
            .flat_map(|fault| ["--lab-fault", fault])
            .collect();
        Self::start_with(nodes, &more)
    }

    pub(crate) fn start_with(nodes: u32, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = Self::up(dir.path(), nodes, more);
        Self { child, dir }
    }

    /// As after a power cut: the same site, from what its folder keeps.
    pub(crate) fn restart(&mut self, nodes: u32) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::up(self.dir.path(), nodes, &[]);
    }

    fn up(dir: &Path, nodes: u32, more: &[&str]) -> Child {
        let mut command = flowrun(&[
            "lab",
            "up",
            "--post-time",
            "200ms",
            "--nodes",
            &nodes.to_string(),
        ]);
        command.arg("--lab-dir").arg(dir).args(more);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It prints its description when it is up.
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while line != "}\n" {
            line.clear();
            let count = std::io::BufRead::read_line(&mut out, &mut line).unwrap();
            assert!(count > 0, "the lab did not come up");
        }
        child
    }

    pub(crate) fn dir(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    fn deploy(&self, more: &[&str]) -> Command {
        let mut command = flowrun(&[FLOW, "--node", "lab-1", "--lab-dir", self.dir()]);
        command
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn newest_run(&self) -> Option<Value> {
        let listed = run(&["runs", "--json", "--lab-dir", self.dir()]);
        let first = String::from_utf8_lossy(&listed.stdout)
            .lines()
            .next()
            .map(str::to_owned);
        first.and_then(|line| serde_json::from_str(&line).ok())
    }

    /// What the site says happened, as the end-of-run event of a harmless call.
    pub(crate) fn state(&self) -> Value {
        let site: Value =
            serde_json::from_slice(&std::fs::read(self.path("site.json")).unwrap()).unwrap();
        let about = &site["site"];
        let output = Command::new("curl")
            .args([
                "-sS",
                "--fail",
                "--cacert",
                about["ca_file"].as_str().unwrap(),
            ])
            .args([
                "-H",
                &format!(
                    "x-auth-user: {}",
                    about["object_store"]["user"].as_str().unwrap()
                ),
            ])
            .args([
                "-H",
                &format!(
                    "x-auth-key: {}",
                    about["object_store"]["key"].as_str().unwrap()
                ),
            ])
            .arg(about["state_url"].as_str().unwrap())
            .output()
            .expect("curl is needed; tests/run.sh installs it");
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.path("images/lab-image.raw")
    }

    pub(crate) fn disk_is_right(&self, image: &Path, format: &str) {
        let disk = self.path("nodes/lab-1/disk.raw");
        let output = Command::new("qemu-img")
            .args(["compare", "-f", format, "-F", "raw"])
            .arg(image)
            .arg(&disk)
            .output()
            .expect("qemu-img is needed; tests/run.sh installs it");
        // The disk is larger than the image; what follows reads as zeros.
        assert!(output.status.success(), "{}", text(&output));
    }

    /// Nothing attached, uploaded or powered is left behind by a run that did not finish.
    pub(crate) fn nothing_is_left(&self) {
        let state = self.state();
        let machine = &state["nodes"][0]["machine"];
        assert_eq!(machine["power"], "off", "{machine:#}");
        for medium in machine["media"].as_array().unwrap() {
            assert_eq!(medium["inserted"], false, "{machine:#}");
        }
        assert_eq!(
            state["object_store"]["objects"], 1,
            "only the deploy ISO: {state:#}"
        );
        assert_eq!(machine["sessions"], 0, "{machine:#}");
    }
}

impl Drop for LabUp {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn pause(time: Duration) {
    let (_sender, nothing) = std::sync::mpsc::channel::<()>();
    nothing.recv_timeout(time).ok();
}

pub(crate) fn signal(child: &Child, name: &str) {
    let kill = format!("kill {name} {}", child.id());
    let status = Command::new("bash").args(["-c", &kill]).status().unwrap();
    assert!(status.success());
}

/// Waits until the journal of the run that goes on holds an entry whose key begins so. A run
/// that ended before does not count: the one just spawned may not be in the journal yet.
pub(crate) fn until_entry(lab: &LabUp, begins: &str) {
    let deadline = clock::instant() + Duration::from_secs(60);
    while clock::instant() < deadline {
        if let Some(id) = lab
            .newest_run()
            .filter(|run| run["status"] == "running")
            .and_then(|run| run["id"].as_str().map(str::to_owned))
        {
            let shown = run(&["show", "--json", &id, "--lab-dir", lab.dir()]);
            let shown: Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
            let entries = shown["entries"].as_array().cloned().unwrap_or_default();
            if entries
                .iter()
                .any(|e| e["key"].as_str().unwrap_or_default().starts_with(begins))
            {
                return;
            }
        }
    }
    panic!("the run never came to {begins}");
}

#[test]
fn one_command_deploys_a_server_and_says_what_it_saw() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("lab");
    let lab_dir = dir.to_str().unwrap();
    let output = run(&[FLOW, "--node", "lab-1", "--lab", "--lab-dir", lab_dir]);
    let said = text(&output);
    assert_eq!(code(&output), 0, "{said}");
    for part in [
        "lab-1: ok boot deploy ramdisk",
        "lab-1: done",
        ", reserved meanwhile",
        "verified  ",
        "read back and compared",
        "from cdrom: deploy ramdisk of VMEDIA_BOOT_ISO; reboot",
        "from disk: the deployed disk, gpt",
        "flowrun_images/deploy.iso by 127.",
    ] {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
    let media = dir.join("nodes/lab-1/media");
    assert!(media.join("cdrom.iso").is_file() && media.join("floppy.img").is_file());

    let shown = text(&run(&["show", "0", "--lab-dir", lab_dir]));
    assert!(
        shown.contains("write image") && shown.contains('█'),
        "{shown}"
    );
    let logs = text(&run(&["logs", "0", "--lab-dir", lab_dir]));
    assert!(logs.contains("bytes written and read back"), "{logs}");
    // Nothing that signs, opens or proves anything is in the journal or on the screen.
    let site: Value =
        serde_json::from_slice(&std::fs::read(dir.join("site.json")).unwrap()).unwrap();
    let store = &site["site"]["object_store"];
    let mut secrets = vec!["temp_url_sig=".to_owned()];
    secrets.extend(["key", "temp_url_key"].map(|k| store[k].as_str().unwrap().to_owned()));
    secrets.push(std::fs::read_to_string(dir.join("nodes/lab-1/ilo-password")).unwrap());
    for entry in std::fs::read_dir(dir.join("state")).unwrap() {
        let path = entry.unwrap().path();
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!found, "a secret is in {}", path.display());
        }
    }
    assert!(secrets.iter().all(|secret| !said.contains(secret.as_str())));
}

#[test]
fn several_nodes_are_deployed_at_once_and_json_tells_it() {
    let output = run(&[
        FLOW, "--node", "lab-1", "--node", "lab-2", "--lab", "--json",
    ]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    let events: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("every line is JSON"))
        .collect();
    for node in ["lab-1", "lab-2"] {
        let end = events
            .iter()
            .find(|e| e["event"] == "run_finished" && e["node"] == node);
        assert_eq!(end.unwrap()["status"], "done");
        assert!(
            events
                .iter()
                .any(|e| e["event"] == "progress" && e["node"] == node)
        );
    }
}

#[test]
fn a_run_killed_anywhere_is_resumed_to_the_right_disk() {
    let rounds: u64 = std::env::var("FLOWRUN_TEST_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(50);
    let lab = LabUp::start(1, &[]);
    let image = lab.image();
    let measured = clock::instant();
    let output = lab.deploy(&[]).output().unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output));
    let whole = measured.elapsed();
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut resumed = 0;
    let mut events_before = events(&lab).len();
    for round in 0..rounds {
        // xorshift: moments spread over the whole run, the same in every test run.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let at = whole.mul_f64((seed % 1000) as f64 / 1000.0);
        scribble(&lab.path("nodes/lab-1/disk.raw"));
        let mut child = lab.deploy(&[]).spawn().unwrap();
        pause(at);
        signal(&child, "-KILL");
        child.wait().unwrap();
        let last = lab.newest_run().unwrap();
        if last["status"] == "dead" {
            resumed += 1;
            let id = last["id"].as_str().unwrap();
            let output = run(&["resume", id, "--lab-dir", lab.dir()]);
            assert_eq!(
                code(&output),
                0,
                "round {round} at {at:?}: {}",
                text(&output)
            );
        } else if last["status"] != "done" {
            panic!("round {round}: {last:#}");
        }
        if last["status"] == "dead" {
            lab.disk_is_right(&image, "raw");
            once_only(&events(&lab)[events_before..], round);
        }
        events_before = events(&lab).len();
    }
    assert!(
        resumed * 2 > rounds,
        "only {resumed} of {rounds} were caught alive"
    );
}

fn events(lab: &LabUp) -> Vec<Value> {
    lab.state()["nodes"][0]["events"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

/// Old data, so that a disk that was not written is seen.
fn scribble(disk: &Path) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(disk).unwrap();
    for mib in 0..32 {
        file.write_all_at(&[0xA5; 65536], mib << 20).unwrap();
    }
}

/// Media are inserted once and the server is switched on once, however often the host died: a
/// second power-on would cut the ramdisk off. What the host did when it died, it may do again.
fn once_only(events: &[Value], round: u64) {
    let count = |what: &str| events.iter().filter(|e| e["event"] == what).count();
    for (what, allowed) in [("inserted", 2..=3), ("booted", 2..=3)] {
        let found = count(what);
        assert!(
            allowed.contains(&found),
            "round {round}: {found} {what}, {events:#?}"
        );
    }
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let lab = LabUp::start(1, &[]);
    let mut child = lab.deploy(&[]).spawn().unwrap();
    until_entry(&lab, "write image/iscsi.login");
    signal(&child, "-INT");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    lab.nothing_is_left();
    assert_eq!(lab.newest_run().unwrap()["status"], "cancelled");
    let again = lab.deploy(&[]).output().unwrap();
    assert_eq!(code(&again), 0, "the node is free again: {}", text(&again));
}

#[test]
fn a_stopped_run_is_resumed_and_a_dead_one_cancelled() {
    let lab = LabUp::start(1, &[]);
    let mut child = lab.deploy(&[]).spawn().unwrap();
    until_entry(&lab, "wait for ramdisk");
    let second = lab.deploy(&[]).output().unwrap();
    assert_eq!(code(&second), 1, "{}", text(&second));
    assert!(
        text(&second).contains("holds this node"),
        "{}",
        text(&second)
    );
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(4));
    let id = lab.newest_run().unwrap()["id"].as_str().unwrap().to_owned();
    let output = run(&["resume", &id[..12], "--lab-dir", lab.dir()]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    lab.disk_is_right(&lab.image(), "raw");

    let mut child = lab.deploy(&[]).spawn().unwrap();
    until_entry(&lab, "wait for ramdisk/ramdisk.wait");
    signal(&child, "-KILL");
    child.wait().unwrap();
    let id = lab.newest_run().unwrap()["id"].as_str().unwrap().to_owned();
    let output = run(&["cancel", &id, "--lab-dir", lab.dir()]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    lab.nothing_is_left();
}

#[test]
fn real_images_with_holes_end_identical_on_the_disk() {
    let lab = LabUp::start(1, &[]);
    let raw = lab.path("real.raw");
    let sh = |line: &str| {
        let output = Command::new("bash")
            .args(["-c", line])
            .current_dir(lab.dir.path())
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{line}: {}", text(&output));
    };
    // A partition table in front, a file system of real files in it, 2 GiB in all, mostly holes.
    sh(
        "qemu-img create -q -f raw real.raw 2G && mke2fs -q -t ext4 -d /usr/include \
        -E offset=1048576 real.raw 1900M",
    );
    sh(
        "printf 'label: gpt\\n2048,3891200,L\\n3893248,65536,U\\n' | sfdisk -q --no-reread real.raw",
    );
    sh("qemu-img convert -f raw -O qcow2 real.raw real.qcow2");
    for (file, format) in [("real.raw", "raw"), ("real.qcow2", "qcow2")] {
        scribble(&lab.path("nodes/lab-1/disk.raw"));
        let image = lab.path(file);
        let set = format!("instance_info.image_source={}", image.display());
        let output = lab.deploy(&["--set", &set]).output().unwrap();
        let said = text(&output);
        assert_eq!(code(&output), 0, "{said}");
        lab.disk_is_right(&image, format);
    }
    assert!(raw.is_file());
}

#[test]
fn mistakes_are_told_with_place_and_suggestion() {
    let dir = tempfile::tempdir().unwrap();
    let stock = std::fs::read_to_string(root().join(FLOW)).unwrap();
    let flow = dir.path().join("site_flow.lua");
    let write = |text: &str| std::fs::write(&flow, text).unwrap();
    let path = flow.to_str().unwrap();
    let lab = LabUp::start(1, &[]);
    let deploy = |more: &[&str]| {
        let mut args = vec![path, "--node", "lab-1", "--lab-dir", lab.dir()];
        args.extend(more);
        run(&args)
    };

    write(
        &stock
            .replace("\"fetch image\"", "\"look for the image\"")
            .replace(
                "local function deploy(_, node, p)",
                "local function deploy(_, node, p)\n  log.info(\"edited for %s\", node.name)",
            ),
    );
    told(
        &deploy(&[]),
        0,
        &["ok look for the image", "edited for lab-1"],
    );
    write(&stock.replace(
        "ilo.check_vmedia_license(node)",
        "ilo.chek_vmedia_license(node)",
    ));
    told(
        &deploy(&[]),
        1,
        &[
            "site_flow.lua:8",
            "> ",
            "did you mean ilo.check_vmedia_license?",
        ],
    );
    write(&stock.replace(
        "{ timeout = p.callback_timeout }",
        "{ tiemout = p.callback_timeout }",
    ));
    told(
        &deploy(&[]),
        1,
        &[
            "no option `tiemout`",
            "site_flow.lua:",
            "did you mean `timeout`?",
        ],
    );
    lab.nothing_is_left();
    write(&stock.replace("return flow {", "return flow }"));
    told(&deploy(&[]), 2, &["site_flow.lua:", "> "]);
}

#[test]
fn wrong_values_end_a_run_with_a_reason_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let lab = LabUp::start(1, &[]);
    let deploy = |more: &[&str]| lab.deploy(more).output().unwrap();
    told(
        &deploy(&["--param", "callback_timout=5m"]),
        2,
        &["did you mean callback_timeout?"],
    );
    told(
        &deploy(&["--set", "instance_info.image_sorce=x"]),
        2,
        &["did you mean instance_info.image_source?"],
    );
    told(
        &deploy(&["--set", "instance_info.image_source=/nowhere"]),
        1,
        &["/nowhere", "not_found"],
    );
    told(
        &deploy(&["--set", "driver_info.ilo_address=https://127.0.0.1:9"]),
        1,
        &["unreachable"],
    );
    let wrong = lab.path("wrong-password");
    std::fs::write(&wrong, "wrong").unwrap();
    let set = format!("driver_info.ilo_password_file={}", wrong.display());
    told(&deploy(&["--set", &set]), 1, &["[auth]", "hint:"]);
    let big = lab.path("big.raw");
    std::fs::File::create(&big)
        .unwrap()
        .set_len(5 << 30)
        .unwrap();
    let set = format!("instance_info.image_source={}", big.display());
    let output = deploy(&["--set", &set]);
    told(&output, 1, &["5368709120", "4294967296", "[limit]"]);
    lab.nothing_is_left();

    told(
        &run(&[FLOW, "--node", "lab-x", "--lab-dir", lab.dir()]),
        2,
        &["no node lab-x", "lab-1"],
    );
    told(
        &run(&[
            "flows/ilo_vmedia_iscs.lua",
            "--node",
            "lab-1",
            "--lab-dir",
            lab.dir(),
        ]),
        2,
        &["did you mean"],
    );
    let config = dir.path().join("flowrun.toml");
    std::fs::write(&config, "[api]\nlistem = \"x\"\n").unwrap();
    let output = run(&[FLOW, "--node", "x", "--config", config.to_str().unwrap()]);
    told(&output, 2, &["flowrun.toml:2", "did you mean `listen`?"]);
}

#[test]
fn what_an_ilo_refuses_ends_the_run_and_leaves_nothing() {
    for (fault, exit, part) in [
        ("ilo.insert=license-rejected", 1, "[unsupported]"),
        ("ilo.insert=accepted-but-not-mounted", 1, "[timeout]"),
        ("node.disk=flips-a-bit", 1, "[corrupt]"),
        ("node.ramdisk=fails", 1, "the ramdisk reports"),
        ("node.disk=fails-in-write", 1, "medium error"),
    ] {
        let lab = LabUp::start(1, &[fault]);
        let output = lab.deploy(&[]).output().unwrap();
        let said = text(&output);
        assert_eq!(code(&output), exit, "{fault}: {said}");
        assert!(said.contains(part), "{fault}: {said}");
        lab.nothing_is_left();
    }
}

#[test]
fn the_example_runs() {
    let output = run(&["examples/health.lua", "--node", "lab-1", "--lab"]);
    assert_eq!(code(&output), 0, "{}", text(&output));
    assert!(
        text(&output).contains("lab-1 is a ProLiant"),
        "{}",
        text(&output)
    );
}

#[test]
fn one_primitive_can_be_called_by_hand() {
    let output = run(&["call", "ilo.power_state", "--node", "lab-1", "--lab"]);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "\"off\"\n",
        "{}",
        text(&output)
    );
    let output = run(&["call", "hash.sha256", "{\"text\": \"abc\"}", "--lab"]);
    assert!(text(&output).contains("ba7816bf"), "{}", text(&output));
    let output = run(&["call", "ilo.power_stat", "--node", "lab-1", "--lab"]);
    assert_eq!(code(&output), 2);
    assert!(
        text(&output).contains("did you mean ilo.power_state?"),
        "{}",
        text(&output)
    );
    let output = run(&[
        "call",
        "ilo.eject_vmedia",
        "{\"devise\": \"cdrom\"}",
        "--node",
        "lab-1",
        "--lab",
    ]);
    assert_eq!(code(&output), 2, "{}", text(&output));
}

#[test]
fn help_and_types_are_printed_from_the_registry() {
    let page = text(&run(&["help", "ilo.attach_vmedia"]));
    for part in [
        "ilo.attach_vmedia(node, {",
        "device",
        "effect+probe",
        "Example",
    ] {
        assert!(page.contains(part), "{page}");
    }
    assert!(text(&run(&["help", "ilo.atach_vmedia"])).contains("did you mean ilo.attach_vmedia?"));
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(code(&run(&["types", dir.path().to_str().unwrap()])), 0);
    let committed = root().join("stdlib/types");
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    let mut known: Vec<_> = std::fs::read_dir(&committed)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    known.sort();
    assert_eq!(names, known, "run `flowrun types`");
    for name in names {
        let (new, old) = (dir.path().join(&name), committed.join(&name));
        assert!(
            std::fs::read(new).unwrap() == std::fs::read(old).unwrap(),
            "run `flowrun types`: {name:?}"
        );
    }
}
