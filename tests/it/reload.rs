//! Flows that are edited while they are used: ways of saving, broken edits, many runs, crashes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

mod broken;
mod crash;
mod publish;
mod saving;

use flowrun::catalogue::{Catalogue, State, Times};
use flowrun::config::{Config, FlowWatch, SiteSection};
use flowrun::engine::{Engine, NewScript, Script, Started};
use flowrun::journal::Journal;
use flowrun::lua::LuaRuntime;
use flowrun::lua::bind::{Site, registry};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A site of flow folders and a state directory; no server is touched.
struct Flows {
    dir: tempfile::TempDir,
    site: SiteSection,
}

impl Flows {
    /// With one flow folder, `flows`, that is not there yet.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let site = SiteSection {
            flows: vec![dir.path().join("flows")],
            ..SiteSection::default()
        };
        Self { dir, site }
    }

    fn polled(mut self) -> Self {
        self.site.flow_watch = FlowWatch::Poll;
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file of the flow folder in place.
    fn write(&self, name: &str, text: &str) {
        let path = self.path("flows").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The lights of a flow that returns `version`.
    fn write_light(&self, version: u32) {
        self.write("light.lua", &light(version));
    }

    fn engine(&self) -> Engine {
        let registry = Arc::new(registry(&Arc::new(Site::new(Config::default()))));
        let runtime = Arc::new(LuaRuntime::new(registry.clone()));
        Engine::new(&self.path("state"), registry, runtime).unwrap()
    }

    async fn open(&self) -> Catalogue {
        // Nothing but what is noticed counts: no patrol within the test.
        let times = Times {
            quiet: Duration::from_millis(40),
            poll: Duration::from_millis(100),
            patrol: Duration::from_secs(3600),
        };
        let registry = Arc::new(registry(&Arc::new(Site::new(Config::default()))));
        let journal = Journal::open(&self.path("state")).unwrap();
        let runtime = LuaRuntime::new(registry);
        Catalogue::open(&self.site, times, runtime, journal)
            .await
            .unwrap()
    }
}

fn light(version: u32) -> String {
    format!(
        "return flow {{ name = 'light', actions = {{\n  go = function() return {version} end,\n}} }}\n"
    )
}

/// Waits until the catalogue's state is as wanted.
async fn until(catalogue: &Catalogue, what: &str, wanted: impl Fn(&State) -> bool) -> Arc<State> {
    let mut changes = catalogue.changes();
    let found = changes.wait_for(|state| wanted(state));
    let limit = Duration::from_secs(120);
    match tokio::time::timeout(limit, found).await {
        Ok(state) => state.unwrap().clone(),
        Err(_) => panic!("{what} was not noticed: {:#?}", catalogue.state().broken),
    }
}

/// Waits until new runs get a file with this text.
async fn until_text(catalogue: &Catalogue, what: &str, text: &str) {
    until(catalogue, what, |state| {
        let flow = state.edition.flows.get("light");
        state.broken.is_none()
            && flow.is_some_and(|flow| flow.version.files.values().any(|file| file.contains(text)))
    })
    .await;
}

/// Starts a flow as a daemon does: whatever is the newest good version now.
async fn start(engine: &Engine, catalogue: &Catalogue, name: &str, node: &str) -> Started {
    let flow = catalogue.flow(name).unwrap();
    let script = Script {
        bundle: flow.version,
        entry: flow.entry,
        action: flow.info.action(Some("go")).unwrap(),
        params: json!({}),
        node: json!({ "name": node }),
    };
    let new = NewScript {
        flow: flow.name,
        script,
        node: node.to_owned(),
    };
    engine.start(new).await.unwrap()
}

/// Swaps a symbolic link at once, as `ln -sfn` does not.
fn swap_link(link: &Path, target: &str) {
    let new = link.with_extension("new");
    std::os::unix::fs::symlink(target, &new).unwrap();
    std::fs::rename(&new, link).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_runs_sees_one_version_while_it_is_edited() {
    let flows = Flows::new();
    let release = |n: u32| {
        let folder = format!("release-{n}");
        std::fs::create_dir(flows.path(&folder)).unwrap();
        for name in ["a", "b", "late"] {
            let text = format!("return {{ version = {n} }}");
            std::fs::write(flows.path(&folder).join(format!("{name}.lua")), text).unwrap();
        }
        let flow = "local a, b = require 'a', require 'b'
            return flow { name = 'light', actions = { go = function()
              step('hold', function() sleep('50ms') end)
              return { a.version, b.version, require('late').version }
            end } }";
        std::fs::write(flows.path(&folder).join("light.lua"), flow).unwrap();
        swap_link(&flows.path("flows"), &folder);
    };
    release(0);
    let (engine, catalogue) = (flows.engine(), flows.open().await);
    let mut started = Vec::new();
    for n in 0..300 {
        if n % 10 == 0 {
            release(n / 10 + 1);
        }
        started.push(start(&engine, &catalogue, "light", &format!("node-{n}")).await);
    }
    until_text(&catalogue, "the last release", "version = 30").await;
    started.push(start(&engine, &catalogue, "light", "last").await);
    let mut versions = std::collections::BTreeSet::new();
    for run in started {
        let end = run.end().await.unwrap();
        assert_eq!(end.error, None);
        let seen: Vec<u64> = serde_json::from_value(end.result).unwrap();
        assert!(seen.iter().all(|version| *version == seen[0]), "{seen:?}");
        versions.insert(seen[0]);
    }
    assert!(versions.len() > 2 && versions.contains(&30), "{versions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_keeps_its_version_and_the_listing_tells_which() {
    let flows = Flows::new();
    flows.write("m.lua", "return { version = 1 }");
    let text = "return flow { name = 'light', actions = { go = function()
        sleep('1h') return require('m').version end } }";
    flows.write("light.lua", text);
    let (engine, catalogue) = (flows.engine(), flows.open().await);
    let old = catalogue.flow("light").unwrap().version.hash.clone();
    let run = start(&engine, &catalogue, "light", "n").await;
    flows.write("m.lua", "return { version = 2 }");
    until_text(&catalogue, "the edit", "version = 2").await;
    let state = catalogue.state();
    let listing = flowrun::catalogue::list(&state.edition, None, Some(engine.journal()));
    let listing: Value = serde_json::to_value(listing.await.unwrap()).unwrap();
    let open = &listing["open_runs"][0];
    assert_eq!(
        (&open["version"], &open["newest"]),
        (&json!(old), &json!(false))
    );
    let of = |name: &str| {
        let flows = listing["flows"].as_array().unwrap().iter();
        flows
            .clone()
            .find(|flow| flow["name"] == name)
            .unwrap()
            .clone()
    };
    assert_ne!(of("light")["version"], json!(old));
    assert_eq!(of("light")["origin"], "site");
    assert_eq!(of("ilo_vmedia_iscsi")["origin"], "built_in");
    engine.cancel(&run.id).await.unwrap();
    run.end().await.unwrap();
}
