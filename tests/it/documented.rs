//! Every command of the documentation is executed, document after document, on one site.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

#[path = "../../src/cli/documented/text.rs"]
mod text;

use crate::flow::{LabUp, code, root, signal, text as said, until_entry};
use crate::serve::Daemon;
use crate::support::boot_part;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// What cannot be done here: how a command begins, and why.
const NOT_HERE: [(&str, &str); 1] = [(
    "flows/ilo_vmedia_iscsi.lua --node vm-1",
    "an emulated machine boots for minutes; tests/it/vm deploys one",
)];

/// What does not end by itself, and what it says when it is up. It is stopped then.
const STAYS: [(&str, &str); 2] = [("serve", "listening on "), ("lab up", "\"object_store\"")];

/// What a command needs that the document leaves to its reader.
const MORE: [(&str, &str); 8] = [
    // The daemon of this test has the port.
    ("serve", "--listen 127.0.0.1:0"),
    ("ilo_vmedia_iscsi --dry-run", "--node lab-1"),
    // It asks at a terminal.
    ("node trust", "--yes"),
    ("lab up", "--nodes 1"),
    ("test FILES", "--filter cancelled"),
    ("flows publish", "--config publish.toml"),
    ("ilo_vmedia_iscsi --node lab-1 --server", "--ca-file CA"),
    (
        "ramdisk build",
        "--kernel BOOT/vmlinuz --modules BOOT --init BOOT/busybox",
    ),
];

/// A folder with `flowrun.toml` in which the commands are typed, beside a daemon of the same site.
struct Desk {
    lab: LabUp,
    daemon: Daemon,
    folder: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let lab = LabUp::start(1, &[]);
        let daemon = Daemon::over(&lab);
        let folder = lab.path("desk");
        std::fs::create_dir(&folder).unwrap();
        let mut copy = Command::new("cp");
        copy.args(["-r", "flows", "examples"]).arg(&folder);
        assert!(copy.current_dir(root()).status().unwrap().success());
        let mut config = std::fs::read_to_string(lab.path("daemon/flowrun.toml")).unwrap();
        config.push_str("[boot_loaders]\n");
        for (name, file) in [
            ("isolinux", "isolinux.bin"),
            ("ldlinux", "ldlinux.c32"),
            ("grub", "gcdx64.efi"),
            ("mbr", "mbr.bin"),
        ] {
            config.push_str(&format!("{name} = {:?}\n", boot_part(file)));
        }
        std::fs::write(folder.join("flowrun.toml"), config).unwrap();
        let publish = "[site]\nstate_dir = \"published-state\"\nflows = [\"published\"]\n";
        std::fs::write(folder.join("publish.toml"), publish).unwrap();
        std::fs::write(folder.join("token"), &daemon.token).unwrap();
        std::fs::create_dir(folder.join("draft")).unwrap();
        std::fs::copy(
            folder.join("examples/health.lua"),
            folder.join("draft/health.lua"),
        )
        .unwrap();
        Self {
            lab,
            daemon,
            folder,
        }
    }

    /// The words with the reader's own names in them.
    fn filled(&self, command: &str) -> Vec<String> {
        let mut words = text::typed(command).join(" ");
        if words == "resume" || words == "show" || words == "logs" {
            words.push_str(" RUN");
        }
        words = format!(" {words} ");
        for (name, own) in [
            (" FLOW ", " ilo_vmedia_iscsi "),
            (" ACTION ", " validate "),
            (" X ", " lab-1 "),
            (" NODE ", " lab-1 "),
            (" dl380-7 ", " lab-1 "),
            (" /etc/flowrun/flowrun.toml ", " flowrun.toml "),
            (
                " https://deploy.example:6385 ",
                &format!(" {} ", self.daemon.url),
            ),
            (" --kernel-package linux-image-….deb --firmware DIR ", " "),
            (" publish DIR ", " publish draft "),
            (" DIR ", " new "),
        ] {
            words = words.replace(name, own);
        }
        let words = words.trim();
        let more = MORE.iter().filter(|(begins, _)| words.starts_with(begins));
        let more = more.filter(|_| words != "serve token");
        let words = more.fold(words.to_owned(), |words, (_, more)| {
            format!("{words} {more}")
        });
        let words = words.replace(
            " FILES",
            match words.starts_with("test") {
                true => " flows/ilo_vmedia_iscsi_test.lua",
                false => " examples/health.lua",
            },
        );
        let words = words.replace("CA", &self.daemon.ca_file());
        let words = words.replace(
            "BOOT",
            boot_part("").to_str().unwrap().trim_end_matches('/'),
        );
        words.split(' ').map(str::to_owned).collect()
    }

    fn command(&self, words: &[String]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowrun"));
        command.args(words).current_dir(&self.folder);
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it to its end; a run that it wants to continue is made and stopped before.
    fn execute(&self, mut words: Vec<String>) -> Output {
        if words.last().is_some_and(|word| word == "RUN") {
            let resumes = words.first().is_some_and(|word| word == "resume");
            let run = match resumes {
                true => self.stopped_run(),
                false => self.newest_run(),
            };
            words.pop();
            words.push(run);
        }
        self.command(&words).output().unwrap()
    }

    /// A run that was stopped where it was, and has a moment to go.
    fn stopped_run(&self) -> String {
        let words = ["waiting", "--node", "lab-1", "--param", "long=3s"].map(str::to_owned);
        let child = self.command(&words).spawn().unwrap();
        until_entry(&self.lab, "wait/sleep");
        signal(&child, "-TERM");
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 4, "{}", said(&output));
        self.newest_run()
    }

    fn newest_run(&self) -> String {
        let run = self.lab.newest_run().unwrap();
        run["id"].as_str().unwrap().to_owned()
    }

    /// Starts it, waits until it says that it is up, and stops it.
    fn start_and_stop(&self, words: &[String], up: &str) {
        let shell = "exec \"$0\" \"$@\" 2>&1";
        let mut command = Command::new("sh");
        command.args(["-c", shell, env!("CARGO_BIN_EXE_flowrun")]);
        command.args(words).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut heard = String::new();
        while !heard.contains(up) {
            let count = out.read_line(&mut heard).unwrap();
            assert!(count > 0, "{words:?}: {heard}");
        }
        signal(&child, "-INT");
        out.read_to_string(&mut heard).unwrap();
        assert!(child.wait().unwrap().success(), "{words:?}: {heard}");
    }
}

#[test]
fn every_command_of_the_documents_does_what_it_is_there_for() {
    let desk = Desk::new();
    let mut done = BTreeSet::new();
    for file in text::files() {
        let printed = String::from_utf8(std::fs::read(&file).unwrap()).unwrap_or_default();
        for (command, _) in text::commands(&printed) {
            let words = desk.filled(&command);
            let line = words.join(" ");
            let begins = |(begins, _): &&(&str, &str)| line.starts_with(begins);
            if NOT_HERE.iter().any(|entry| begins(&entry)) || !done.insert(line.clone()) {
                continue;
            }
            let stays = STAYS.iter().find(begins);
            match stays.filter(|_| !line.starts_with("serve token")) {
                Some((_, up)) => desk.start_and_stop(&words, up),
                None => {
                    let output = desk.execute(words);
                    let place = file.strip_prefix(root()).unwrap().display();
                    assert_eq!(code(&output), 0, "{place}: {line}\n{}", said(&output));
                }
            }
        }
    }
    assert!(done.len() > 25, "only {} were executed", done.len());
}
