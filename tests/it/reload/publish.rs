//! `flowrun flows`: the list, publishing, going back, and being killed in the middle of it.

use super::{Flows, light, until_text};
use crate::flow::{flowrun, signal, text, told};
use flowrun::engine::read_folder;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

impl Flows {
    fn command(&self, args: &[&str]) -> std::process::Command {
        let config = format!(
            "[site]\nstate_dir = {:?}\nflows = [{:?}]\n",
            self.path("state"),
            self.path("flows")
        );
        fs::write(self.path("flowrun.toml"), config).unwrap();
        let mut command = flowrun(&["flows"]);
        command
            .args(args)
            .arg("--config")
            .arg(self.path("flowrun.toml"));
        command
    }

    fn flows(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// A folder to publish, with a hundred modules of this version.
    fn draft(&self, version: u32) -> PathBuf {
        let dir = self.path(&format!("draft-{version}"));
        fs::create_dir_all(dir.join("quirks")).unwrap();
        fs::write(dir.join("light.lua"), light(version)).unwrap();
        for n in 0..100 {
            let text = format!("return {{ version = {version} }}");
            fs::write(dir.join(format!("m{n}.lua")), text).unwrap();
        }
        dir
    }

    fn live(&self) -> String {
        let folder = read_folder(&self.path("flows")).unwrap();
        folder.modules.into_values().collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_published_and_taken_back() {
    let flows = Flows::new();
    flows.write_light(41);
    let catalogue = flows.open().await;
    let draft = flows.draft(42);
    fs::create_dir(draft.join(".git")).unwrap();
    fs::write(draft.join("README.md"), "about").unwrap();
    let dir = draft.to_str().unwrap();

    let dry = flows.flows(&["publish", dir, "--dry-run"]);
    told(
        &dry,
        0,
        &[
            "would publish 0002-",
            "changed  light.lua",
            "added    m7.lua",
        ],
    );
    assert!(!flows.path("flows.versions").exists() && flows.live().contains("return 41"));

    told(&flows.flows(&["publish", dir]), 0, &["published 0002-"]);
    until_text(&catalogue, "a publication", &light(42)).await;
    assert!(flows.path("flows/README.md").is_file() && !flows.path("flows/.git").exists());
    told(
        &flows.flows(&[]),
        0,
        &["light", "flows/light.lua", "built in", "goes back to 0001-"],
    );

    fs::write(draft.join("m3.lua"), "return {\n  version = \n}").unwrap();
    let broken = flows.flows(&["publish", dir]);
    told(
        &broken,
        2,
        &["draft-42/m3.lua:3", ">    3 | }", "nothing is published"],
    );
    assert!(flows.live().contains("return 42"));

    told(
        &flows.flows(&["rollback", "--dry-run"]),
        0,
        &["would publish 0001-"],
    );
    told(
        &flows.flows(&["rollback"]),
        0,
        &["published 0001-", "changed  light.lua"],
    );
    until_text(&catalogue, "the former one", &light(41)).await;
    told(
        &flows.flows(&["rollback"]),
        2,
        &["no such publication", "0001-", "0002-"],
    );
    told(&flows.flows(&["rollback", "0002"]), 0, &["published 0002-"]);
    until_text(&catalogue, "the later one", &light(42)).await;

    for version in 43..60 {
        let draft = flows.draft(version);
        told(
            &flows.flows(&["publish", draft.to_str().unwrap()]),
            0,
            &["published"],
        );
    }
    until_text(&catalogue, "the last one", &light(59)).await;
    assert_eq!(
        fs::read_dir(flows.path("flows.versions")).unwrap().count(),
        10 + 1
    );
}

#[test]
fn what_check_finds_is_not_published() {
    let flows = Flows::new();
    flows.write_light(41);
    let draft = flows.draft(42);
    let dir = draft.to_str().unwrap();
    let typo = "return { look = function(node)\n  return ilo.powr_state(node)\nend }";
    fs::write(draft.join("m3.lua"), typo).unwrap();
    let hint = "did you mean ilo.power_state?";
    told(
        &flows.flows(&["publish", dir]),
        2,
        &["draft-42/m3.lua:2", "there is no ilo.powr_state", hint],
    );
    assert!(flows.live().contains("return 41"));
}

#[test]
fn a_link_that_somebody_else_made_is_not_replaced() {
    let flows = Flows::new();
    let draft = flows.draft(1);
    std::os::unix::fs::symlink(&draft, flows.path("flows")).unwrap();
    let output = flows.flows(&["publish", draft.to_str().unwrap()]);
    told(&output, 1, &["the flow folder is a link to", "[conflict]"]);
    let nowhere = flows.flows(&["publish", draft.to_str().unwrap(), "--to", "/elsewhere"]);
    told(&nowhere, 2, &["no such flow folder"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_tells_what_a_daemon_keeps_while_an_edit_is_broken() {
    let flows = Flows::new();
    flows.write_light(1);
    let catalogue = flows.open().await;
    let version = catalogue.flow("light").unwrap().version.hash.clone();
    flows.write("light.lua", "return flow {\n  name = 'light',\n");
    super::until(&catalogue, "the broken edit", |state| {
        state.broken.is_some()
    })
    .await;
    let said = flows.flows(&[]);
    told(&said, 0, &["is broken", "light.lua:3", &version[..12]]);
    let listing: Value = serde_json::from_slice(&flows.flows(&["--json"]).stdout).unwrap();
    let kept = listing["flows"].as_array().unwrap().iter();
    assert!(
        kept.clone()
            .any(|flow| flow["name"] == "light" && flow["version"] == version)
    );
    assert!(
        listing["broken"]["faults"][0]["excerpt"].is_string(),
        "{listing:#}"
    );
    flows.write_light(1);
    super::until(&catalogue, "the mended file", |state| {
        state.broken.is_none()
    })
    .await;
    told(
        &flows.flows(&[]),
        0,
        &["the last broken edit, mended since"],
    );
}

/// A publisher that is killed anywhere leaves the old one or the new one, and a reader at any
/// moment finds one of the two.
#[test]
fn a_killed_publisher_leaves_the_old_one_or_the_new_one() {
    let flows = Flows::new();
    fs::rename(flows.draft(1), flows.path("flows")).unwrap();
    let drafts = [flows.draft(1), flows.draft(2)];
    let one_version = |text: &str| {
        let old = text.matches("version = 1").count();
        let new = text.matches("version = 2").count();
        assert!(
            (old, new) == (100, 0) || (old, new) == (0, 100),
            "{old} and {new}"
        );
        new > 0
    };
    let over = AtomicBool::new(false);
    let (mut killed, mut swapped) = (0, 0);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut readings = 0;
            while !over.load(Ordering::Relaxed) {
                one_version(&flows.live());
                readings += 1;
            }
            readings
        });
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        for round in 0..30 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let before = one_version(&flows.live());
            let mut child = flows
                .command(&["publish", drafts[usize::from(!before)].to_str().unwrap()])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            // From the moment it copies on: that is when it writes.
            let begun = || fs::read_dir(flows.path("flows.versions")).map_or(0, Iterator::count);
            let names = begun();
            while round % 3 > 0 && begun() <= names && child.try_wait().unwrap().is_none() {}
            crate::flow::pause(Duration::from_micros(seed % 30_000));
            if child.try_wait().unwrap().is_none() {
                signal(&child, "-KILL");
                killed += 1;
            }
            child.wait().unwrap();
            swapped += u32::from(one_version(&flows.live()) != before);
        }
        over.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    assert!(killed > 5, "{killed} were killed, {swapped} had swapped");
    let output = flows.flows(&["publish", drafts[1].to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    let left = fs::read_dir(flows.path("flows.versions"))
        .unwrap()
        .flatten();
    let names: Vec<_> = left.map(|f| f.file_name().into_string().unwrap()).collect();
    assert!(
        !names.iter().any(|name| name.starts_with(".staging")),
        "{names:?}"
    );
    assert!(!flows.path(".flows.aside").exists() && one_version(&flows.live()));
}
