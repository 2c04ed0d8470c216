//! A simulated site of its own process, and the binary on it.

use crate::support::disk_holds;
use flowrun::clock;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

pub(crate) const FLOW: &str = "flows/ilo_vmedia_iscsi.lua";

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The command, from the project's folder as the README gives it.
pub(crate) fn flowrun(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowrun"));
    command.current_dir(root()).args(args).stdin(Stdio::null());
    command
}

pub(crate) fn run(args: &[&str]) -> Output {
    flowrun(args).output().unwrap()
}

/// As `flowrun runs` lists it.
pub(crate) fn newest_run(lab_dir: &str) -> Option<Value> {
    let listed = run(&["runs", "--json", "--lab-dir", lab_dir]);
    let newest = listed.stdout.split(|byte| *byte == b'\n').next()?;
    serde_json::from_slice(newest).ok()
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

    pub(crate) fn deploy(&self, more: &[&str]) -> Command {
        let mut command = flowrun(&[FLOW, "--node", "lab-1", "--lab-dir", self.dir()]);
        command
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn newest_run(&self) -> Option<Value> {
        newest_run(self.dir())
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
        if let Err(said) = disk_holds(&disk, image, format) {
            panic!("{said}");
        }
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
    let deadline = clock::instant() + Duration::from_secs(300);
    while clock::instant() < deadline {
        pause(Duration::from_millis(10));
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

pub(crate) fn events(lab: &LabUp) -> Vec<Value> {
    lab.state()["nodes"][0]["events"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

/// Old data, so that a disk that was not written is seen.
pub(crate) fn scribble(disk: &Path) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(disk).unwrap();
    for mib in 0..32 {
        file.write_all_at(&[0xA5; 65536], mib << 20).unwrap();
    }
}
