//! One boot ISO for fifty nodes, while processes are killed.

use super::{LabUp, code, flowrun, pause, run, signal, text};
use serde_json::Value;
use std::process::{Child, Stdio};
use std::time::Duration;

const NODES: usize = 50;
/// Nodes of one process.
const GROUP: usize = 10;

/// Takes and gives back the ISO of one image; half of the nodes keep it. A node that holds it finds
/// it in the store, with a count.
const FLOW: &str = r#"
-- Holds and releases a shared boot ISO.
local function is_there(reference)
  local where, name = reference:match("^swift:([^/]+)/(.+)$")
  local found = swift.head(where, { name = name })
  if not found or tonumber(found.metadata.usage_count) < 1 then
    fail("corrupt", "the ISO of a node that holds it is gone")
  end
end

local function churn(_, node, p)
  local files = p.files
  for round = 1, 3 do
    local iso = boot_iso.acquire(node, {
      image = "the image", kernel = files .. "/vmlinuz", ramdisk = files .. "/initrd",
      root_uuid = "6d1d5e0a-3f0e-4b8a-9d0e-0123456789ab",
    })
    is_there(iso.reference)
    sleep(0.05)
    is_there(iso.reference)
    if round < 3 or not p.keep then boot_iso.release(node) end
  end
end

return flow {
  name = "churn",
  params = {
    files = { type = "string", required = true },
    keep = { type = "boolean", default = true },
  },
  actions = { churn = churn, release = function(_, node) boot_iso.release(node) end },
}
"#;

struct Churn {
    lab: LabUp,
    flow: String,
}

impl Churn {
    /// Begins an action on some nodes in a process of its own.
    fn spawn(&self, action: &str, nodes: &[usize], keep: bool) -> Child {
        let names: Vec<String> = nodes.iter().map(|n| format!("lab-{n}")).collect();
        let files = format!("files={}", self.lab.dir());
        let keep = format!("keep={keep}");
        let mut args = vec![
            self.flow.as_str(),
            action,
            "--lab-dir",
            self.lab.dir(),
            "--json",
        ];
        args.extend(["--param", &files, "--param", &keep]);
        for name in &names {
            args.extend(["--node", name]);
        }
        let mut command = flowrun(&args);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// Kills some of the processes at moments of their own, and waits for all.
    fn survive(mut children: Vec<Child>) {
        for (index, child) in children.iter_mut().enumerate() {
            if index % 5 != 4 {
                pause(Duration::from_millis(150 + 130 * index as u64));
                if child.try_wait().unwrap().is_none() {
                    signal(child, "-KILL");
                }
            }
        }
        for mut child in children {
            child.wait().unwrap();
        }
    }

    fn runs(&self) -> Vec<Value> {
        let listed = run(&[
            "runs",
            "--json",
            "--limit",
            "500",
            "--lab-dir",
            self.lab.dir(),
        ]);
        let out = String::from_utf8_lossy(&listed.stdout).into_owned();
        assert_eq!(code(&listed), 0, "{}", text(&listed));
        out.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Resumes what died, a few at a time; answers how many there were.
    fn resume(&self) -> usize {
        let dead: Vec<String> = self
            .runs()
            .iter()
            .filter(|run| run["status"] == "dead")
            .map(|run| run["id"].as_str().unwrap().to_owned())
            .collect();
        for some in dead.chunks(5) {
            let children: Vec<Child> = some
                .iter()
                .map(|id| {
                    let mut command = flowrun(&["resume", id, "--lab-dir", self.lab.dir()]);
                    command
                        .stdout(Stdio::null())
                        .stderr(Stdio::null())
                        .spawn()
                        .unwrap()
                })
                .collect();
            for mut child in children {
                assert_eq!(child.wait().unwrap().code(), Some(0), "{:#?}", self.runs());
            }
        }
        dead.len()
    }

    fn usage_counts(&self) -> Vec<String> {
        let isos = self.lab.boot_isos();
        let counts = isos
            .iter()
            .map(|(_, metadata)| metadata["usage_count"].as_str().unwrap());
        counts.map(str::to_owned).collect()
    }
}

#[test]
fn the_count_is_the_number_of_holders_however_processes_die() {
    let lab = LabUp::start(NODES.try_into().unwrap(), &[]);
    for (name, bytes) in [("vmlinuz", 400_000), ("initrd", 900_000)] {
        std::fs::write(lab.path(name), vec![3_u8; bytes]).unwrap();
    }
    let flow = lab.path("churn.lua");
    std::fs::write(&flow, FLOW).unwrap();
    let churn = Churn {
        flow: flow.to_str().unwrap().to_owned(),
        lab,
    };
    // Odd nodes keep the ISO, even ones give it back.
    let mut children = Vec::new();
    for first in (1..=NODES).step_by(2 * GROUP) {
        let group = first..=(first + 2 * GROUP - 1).min(NODES);
        let (odd, even): (Vec<usize>, Vec<usize>) = group.partition(|n| n % 2 == 1);
        children.push(churn.spawn("churn", &odd, true));
        children.push(churn.spawn("churn", &even, false));
    }
    Churn::survive(children);
    let resumed = churn.resume();
    assert!(resumed > 0, "nobody was caught alive");
    let not_done: Vec<Value> = churn
        .runs()
        .into_iter()
        .filter(|run| run["status"] != "done")
        .collect();
    assert!(not_done.is_empty(), "{not_done:#?}");
    let missing = NODES
        - churn
            .runs()
            .iter()
            .filter(|run| run["flow"] == "churn")
            .count();
    // A process that was killed before it began a node's run held nothing for it.
    let holders = 25 - churn_of_odd_missing(&churn.runs());
    assert_eq!(
        churn.usage_counts(),
        [holders.to_string()],
        "{missing} runs never began"
    );

    let odd: Vec<usize> = (1..=NODES).filter(|n| n % 2 == 1).collect();
    let children = odd
        .chunks(GROUP)
        .map(|some| churn.spawn("release", some, true))
        .collect();
    Churn::survive(children);
    churn.resume();
    let mut last = churn.spawn("release", &odd, true);
    last.wait().unwrap();
    assert_eq!(
        churn.usage_counts(),
        Vec::<String>::new(),
        "deleted at none"
    );
}

/// How many of the odd nodes have no run.
fn churn_of_odd_missing(runs: &[Value]) -> usize {
    let began = |n: usize| {
        let name = format!("lab-{n}");
        runs.iter()
            .any(|run| run["node"] == name.as_str() && run["action"] == "churn")
    };
    (1..=NODES).filter(|n| n % 2 == 1 && !began(*n)).count()
}
