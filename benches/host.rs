//! What running flows costs: memory of 1,000 that wait, start to first step, a step of nothing.
//!
//! `cargo bench --bench host [-- ROUNDS]`. Beside it, in the same rounds, `ansible-playbook` with
//! no task, ten that print and ten that run `/bin/true`, if it is in the PATH (`python3 -m venv V
//! && V/bin/pip install ansible-core`). Every measurement is a process of its own; figures are
//! medians over the rounds.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a benchmark prints, measures time, and stops at the first surprise"
)]

use flowrun::engine::{Engine, NewScript, Script, Started, What, seal_bundle};
use flowrun::journal::{Bundle, RunStatus};
use flowrun::lua::bind::{Site, registry};
use flowrun::lua::{LuaRuntime, stdlib};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

const FLOWS: usize = 1000;
const STEPS: usize = 5000;

/// As much Lua as the stock flow has, up to where that waits.
const WAITS: &str = r#"
local vmedia_boot, iscsi_deploy = require "vmedia_boot", require "iscsi_deploy"
local instance_boot, power = require "instance_boot", require "power"
return flow { name = "waits", actions = { wait = function()
  step("wait for ramdisk", function() sleep("2h") end)
end } }
"#;

const NOTHING: &str = r#"
return flow { name = "nothing", actions = { run = function()
  for i = 1, 5000 do step("nothing", function() end) end
end } }
"#;

const FIRST: &str = r#"
return flow { name = "first", actions = { run = function()
  step("first", function() end)
end } }
"#;

#[tokio::main]
async fn main() {
    let arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    let arguments: Vec<String> = arguments.collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["waiting"] => println!("{}", waiting().await),
        ["steps", journal] => println!("{}", steps(journal == "on-disk").await),
        [rounds] => measure(rounds.parse().unwrap()),
        _ => measure(5),
    }
}

fn measure(rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let ansible = which("ansible-playbook");
    let mut rows: Vec<(&str, &str, Vec<f64>)> = Vec::new();
    for _ in 0..rounds {
        let mut note = |what, unit, value| match rows.iter_mut().find(|row| row.0 == what) {
            Some(row) => row.2.push(value),
            None => rows.push((what, unit, vec![value])),
        };
        note("1,000 flows that wait", "MiB", own(&["waiting"]) / 1024.0);
        note("start to first step", "ms", first_step(folder.path()));
        note("step, journal on disk", "us", own(&["steps", "on-disk"]));
        note(
            "step, journal in memory",
            "us",
            own(&["steps", "in-memory"]),
        );
        if let Some(program) = &ansible {
            let play = |book: &str| playbook(program, &folder.path().join(book));
            let (none, print, run) = (play("none.yml"), play("print.yml"), play("run.yml"));
            note("ansible, no task", "ms", none);
            note("ansible, a task that prints", "ms", (print - none) / 10.0);
            note("ansible, a task that runs true", "ms", (run - none) / 10.0);
        }
    }
    for (what, unit, mut values) in rows {
        values.sort_by(f64::total_cmp);
        let (least, most) = (values[0], values[values.len() - 1]);
        println!(
            "{what:<32} {:>9.1} {unit} [{least:.1}, {most:.1}]",
            values[values.len() / 2]
        );
    }
}

fn prepare(folder: &Path) {
    std::fs::write(folder.join("first.lua"), FIRST).unwrap();
    let config = format!(
        "[site]\nstate_dir = {:?}\n[nodes.n1]\nuuid = \"1be26c0b-03f2-4d2e-ae87-c02d7f33c781\"\n\
         driver_info = {{ ilo_address = \"192.0.2.1\", ilo_username = \"u\", ilo_password_file = \"/x\" }}\n",
        folder.join("state")
    );
    std::fs::write(folder.join("flowrun.toml"), config).unwrap();
    let book = |name: &str, task: &str| {
        let head = "- hosts: localhost\n  gather_facts: false\n  tasks:\n";
        let tasks = task.repeat(10);
        let tasks = if task.is_empty() { "    []\n" } else { &tasks };
        std::fs::write(folder.join(name), format!("{head}{tasks}")).unwrap();
    };
    book("none.yml", "");
    book("print.yml", "    - debug: { msg: x }\n");
    book("run.yml", "    - command: /bin/true\n");
}

fn which(program: &str) -> Option<String> {
    let found = Command::new("which").arg(program).output().unwrap();
    let path = String::from_utf8(found.stdout).unwrap();
    Some(path.trim().to_owned()).filter(|path| !path.is_empty())
}

/// What this program prints when it is run so.
fn own(words: &[&str]) -> f64 {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(words).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().parse().unwrap()
}

/// Milliseconds from the start of the program until it tells that the first step begins.
fn first_step(folder: &Path) -> f64 {
    let start = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_flowrun"))
        .args(["--json", "first.lua", "--node", "n1"])
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let begins = |line: &String| line.contains("\"step_started\"");
    assert!(lines.any(|line| begins(&line.unwrap())));
    let took = start.elapsed().as_secs_f64() * 1e3;
    lines.for_each(drop);
    assert!(child.wait().unwrap().success());
    took
}

fn playbook(program: &str, book: &Path) -> f64 {
    let start = Instant::now();
    let output = Command::new(program)
        .args(["-i", "localhost,", "-c", "local"])
        .args(["-e", "ansible_python_interpreter=/usr/bin/python3"])
        .arg(book)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    start.elapsed().as_secs_f64() * 1e3
}

fn engine(state: Option<&Path>) -> Engine {
    let primitives = Arc::new(registry(&Arc::new(Site::default())));
    let runtime = Arc::new(LuaRuntime::new(primitives.clone()));
    match state {
        Some(dir) => Engine::new(dir, primitives, runtime).unwrap(),
        None => Engine::in_memory(primitives, runtime).unwrap(),
    }
}

fn bundle(flow: &str) -> Arc<Bundle> {
    let mut files = stdlib::modules();
    files.insert("flow.lua".to_owned(), flow.to_owned());
    Arc::new(seal_bundle(files))
}

async fn start(engine: &Engine, bundle: &Arc<Bundle>, action: &str, node: usize) -> Started {
    let script = Script {
        bundle: bundle.clone(),
        entry: "flow.lua".to_owned(),
        action: action.to_owned(),
        params: serde_json::json!({}),
        node: serde_json::json!({ "name": format!("n{node}") }),
    };
    let new = NewScript {
        flow: "bench".to_owned(),
        node: format!("n{node}"),
        script,
    };
    engine.start(new).await.unwrap()
}

/// KiB that this process has resident while all flows wait.
async fn waiting() -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(Some(folder.path()));
    let (mut events, bundle) = (engine.events().subscribe(), bundle(WAITS));
    let mut runs = Vec::new();
    let mut begun = 0;
    for node in 0..FLOWS {
        runs.push(start(&engine, &bundle, "wait", node).await);
        while let Ok(event) = events.try_recv() {
            begun += usize::from(waits(&event.what));
        }
    }
    while begun < FLOWS {
        begun += usize::from(waits(&events.recv().await.unwrap().what));
    }
    engine.journal().sync().await.unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    engine.stop();
    for run in runs {
        assert_eq!(run.end().await.unwrap().status, RunStatus::Stopped);
    }
    resident
}

fn waits(what: &What) -> bool {
    matches!(what, What::StepStarted { step } if step == "wait for ramdisk")
}

/// Microseconds a step, from the start of a run to its end on disk.
async fn steps(on_disk: bool) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(on_disk.then(|| folder.path()));
    let begun = Instant::now();
    let run = start(&engine, &bundle(NOTHING), "run", 1).await;
    assert_eq!(run.end().await.unwrap().status, RunStatus::Done);
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(u32::try_from(STEPS).unwrap())
}
