//! A lab in this process, and engines on it.

use crate::flow::inventory::{boot_isos, partition_image};
use crate::support::disk_holds;
use flowrun::api::Api;
use flowrun::api::listener::{self, Listener};
use flowrun::config::Config;
use flowrun::engine::{Engine, NewScript, Primitives, RunEnd, Script, collect_bundle};
use flowrun::journal::{Bundle, Journal, RunRecord};
use flowrun::lab::site::{Site as Lab, SiteOptions};
use flowrun::lua::bind::{Site, registry};
use flowrun::lua::spec::Registry;
use flowrun::lua::{FlowInfo, LuaRuntime, stdlib};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const FLOW: &str = crate::flow::FLOW;

/// What a server must be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// It runs what is on its disk.
    Up,
    /// It is off.
    Off,
    /// As it was, or as the action would have left it.
    Either,
}

impl Wanted {
    pub(super) fn after(action: &str) -> Self {
        match action {
            // Nothing of `prepare` touches a server that is active.
            "deploy" | "rebuild" | "reboot" | "prepare" => Self::Up,
            "tear_down" | "clean_up" => Self::Off,
            _ => Self::Either,
        }
    }

    /// A deployment that is given up leaves its server off, once it has switched it.
    pub(super) fn cancelled(action: &str, switched: bool) -> Self {
        match action {
            "deploy" | "rebuild" if switched => Self::Off,
            _ => Self::Either,
        }
    }
}

/// What a deployed server boots from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boots {
    /// A whole-disk image.
    FromDisk,
    /// The boot ISO of a partition image.
    FromIso,
}

/// The site as a deployer sees it, and in the process of the sweep the lab behind it.
pub(super) struct Ground {
    lab: Option<(Lab, tempfile::TempDir)>,
    pub(super) config_path: PathBuf,
    config: Config,
    bundle: Arc<Bundle>,
    info: FlowInfo,
}

/// An engine that takes callbacks.
pub(super) struct Host {
    pub(super) engine: Engine,
    _listener: Listener,
}

impl Ground {
    pub(super) async fn new(nodes: usize, boots: Boots) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab::start(SiteOptions {
            nodes,
            disk_bytes: match boots {
                Boots::FromDisk => 64 << 20,
                Boots::FromIso => 2 << 30,
            },
            post_time: Duration::from_millis(100),
            ..SiteOptions::new(dir.path().join("lab"))
        });
        let lab = lab.await.unwrap();
        let path = dir.path().join("flowrun.toml");
        std::fs::write(&path, configuration(lab.describe(), dir.path(), boots)).unwrap();
        let mut ground = Self::open(&path);
        ground.lab = Some((lab, dir));
        ground
    }

    pub(super) fn nodes(&self) -> usize {
        self.config.nodes.len()
    }

    fn boots(&self) -> Boots {
        let node = self.config.node("lab-1").unwrap().view("lab-1");
        match node["instance_info"]["root_gb"].is_null() {
            true => Boots::FromDisk,
            false => Boots::FromIso,
        }
    }

    pub(super) fn open(config: &Path) -> Self {
        let bundle = collect_bundle(Path::new(FLOW), stdlib::modules(), &[]).unwrap();
        let (config_path, config) = (config.to_owned(), Config::load(config).unwrap());
        let bundle = Arc::new(bundle);
        let registry = registry(&Arc::new(Site::new(config.clone())));
        let info = LuaRuntime::new(Arc::new(registry)).inspect(&bundle, FLOW);
        Self {
            lab: None,
            config_path,
            config,
            bundle,
            info: info.unwrap(),
        }
    }

    /// The actions of the flow that do something.
    pub(super) fn actions(&self) -> Vec<String> {
        let actions = self.info.actions.iter();
        let idle = ["validate", "take_over"];
        actions
            .filter(|name| !idle.contains(&&***name))
            .cloned()
            .collect()
    }

    pub(super) fn journal(&self) -> Journal {
        Journal::open(&self.config.state_dir()).unwrap()
    }

    pub(super) fn registry(&self) -> Arc<Registry> {
        Arc::new(registry(&Arc::new(Site::new(self.config.clone()))))
    }

    /// As a process of its own has it: nothing is shared with an earlier one but what is on disk.
    pub(super) async fn host(&self, primitives: Arc<dyn Primitives>) -> Host {
        let runtime = Arc::new(LuaRuntime::new(self.registry()));
        let engine = Engine::new(&self.config.state_dir(), primitives, runtime).unwrap();
        let api = Api::new(&self.config, &engine, LuaRuntime::new(self.registry())).unwrap();
        let mut listener = listener::listen(&self.config, &api).unwrap();
        // The host before this one may not have let go of the port yet.
        while listener.is_waiting() {
            drop(listener);
            tokio::time::sleep(Duration::from_millis(20)).await;
            listener = listener::listen(&self.config, &api).unwrap();
        }
        Host {
            engine,
            _listener: listener,
        }
    }

    pub(super) fn script(&self, node: &str, action: &str) -> NewScript {
        let script = Script {
            bundle: self.bundle.clone(),
            entry: FLOW.to_owned(),
            action: action.to_owned(),
            params: self.info.params(&BTreeMap::new()).unwrap(),
            node: self.config.node(node).unwrap().view(node),
        };
        NewScript {
            flow: self.info.name.clone(),
            script,
            node: node.to_owned(),
        }
    }

    pub(super) async fn run(&self, node: &str, action: &str) -> RunEnd {
        let host = self.host(self.registry()).await;
        let run = host.engine.start(self.script(node, action)).await;
        run.unwrap().end().await.unwrap()
    }

    /// Brings servers to where the action begins.
    pub(super) async fn set_up(&self, nodes: &[String], action: &str) {
        let before: &[&str] = match action {
            "deploy" => return,
            "clean_up" => &["deploy", "tear_down"],
            _ => &["deploy"],
        };
        let host = self.host(self.registry()).await;
        for step in before {
            let runs = nodes.iter().map(|node| {
                let (host, script) = (&host, self.script(node, step));
                async move {
                    host.engine
                        .start(script)
                        .await
                        .unwrap()
                        .end()
                        .await
                        .unwrap()
                }
            });
            for end in futures_util::future::join_all(runs).await {
                assert_eq!(end.error, None, "{step} before {action}");
            }
        }
    }

    pub(super) async fn resume_all(&self, open: Vec<RunRecord>) -> Vec<RunEnd> {
        let host = self.host(self.registry()).await;
        let runs = open.into_iter().map(|record| {
            let host = &host;
            async move {
                host.engine
                    .resume(record, false)
                    .await
                    .unwrap()
                    .end()
                    .await
                    .unwrap()
            }
        });
        let ends = futures_util::future::join_all(runs).await;
        host.engine.journal().sync().await.unwrap();
        ends
    }

    /// The server is as wanted, and nothing is in its drives but what it boots from.
    pub(super) async fn is_right(&self, node: &str, wanted: Wanted, why: &str) {
        let snapshot = self.snapshot();
        let nodes = snapshot["nodes"].as_array().unwrap();
        let seen = nodes.iter().find(|seen| seen["name"] == node).unwrap();
        let machine = &seen["machine"];
        let boots = self.boots();
        let isos = self.journal().boot_isos_of(node).await.unwrap();
        let holds = isos.len();
        assert_eq!(machine["sessions"], 0, "{why}: {machine:#}");
        for medium in machine["media"].as_array().unwrap() {
            let empty = boots == Boots::FromDisk || wanted == Wanted::Off;
            assert!(
                medium["inserted"] == false || (!empty && medium["device"] == "cdrom"),
                "{why}: {machine:#}"
            );
        }
        match wanted {
            Wanted::Either => assert!(holds <= 1, "{why}: {isos:?}"),
            Wanted::Off => {
                assert_eq!(machine["power"], "off", "{why}: {machine:#}");
                assert_eq!(holds, 0, "{why}: {isos:?}");
            }
            Wanted::Up => {
                assert_eq!(machine["power"], "on", "{why}: {machine:#}");
                let last = seen["boots"].as_array().unwrap().last().unwrap();
                if boots == Boots::FromIso {
                    assert_eq!(last["system"]["system"], "boot_iso", "{why}: {last:#}");
                    assert!(last["system"]["root"].is_string(), "{why}: {last:#}");
                    assert_eq!(holds, 1, "{why}: {isos:?}");
                    return;
                }
                assert_eq!(last["source"], "disk", "{why}: {last:#}");
                let disk = Path::new(seen["disk"]["path"].as_str().unwrap());
                assert!(self.holds_image(disk), "{why}: the disk is not the image");
            }
        }
    }

    fn holds_image(&self, disk: &Path) -> bool {
        let (lab, _) = self.lab.as_ref().unwrap();
        let image = lab.describe()["image"]["path"].as_str().unwrap();
        disk_holds(disk, Path::new(image), "raw").is_ok()
    }

    /// No object but the deploy ISO and the boot ISO, whose count is that of the nodes which hold
    /// it; no run that holds a node.
    pub(super) async fn nothing_is_held(&self, why: &str) {
        let mut holders = 0;
        for node in self.config.nodes.keys() {
            holders += self.journal().boot_isos_of(node).await.unwrap().len();
        }
        let isos = match self.boots() {
            Boots::FromDisk => Vec::new(),
            Boots::FromIso => boot_isos(&["--config", self.config_path.to_str().unwrap()]),
        };
        let counts: Vec<_> = isos
            .iter()
            .map(|(_, about)| &about["usage_count"])
            .collect();
        match holders {
            0 => assert!(counts.is_empty(), "{why}: nobody holds {isos:?}"),
            some => assert_eq!(counts, [&Value::from(some.to_string())], "{why}"),
        }
        let objects = &self.snapshot()["object_store"]["objects"];
        assert_eq!(
            objects,
            1 + isos.len(),
            "{why}: {isos:?} and the deploy ISO"
        );
        let owners = self.journal().node_owners().await.unwrap();
        assert!(owners.is_empty(), "{why}: {owners:?}");
    }

    fn snapshot(&self) -> Value {
        let (lab, _) = self.lab.as_ref().unwrap();
        lab.snapshot()
    }
}

/// The lab's description as `flowrun.toml`.
fn configuration(about: &Value, dir: &Path, boots: Boots) -> String {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let key = dir.join("swift.key");
    std::fs::write(&key, text(&about["object_store"]["key"])).unwrap();
    let (api, store, ca) = (&about["api"], &about["object_store"], &about["ca_file"]);
    let loaders = &about["boot_loaders"];
    let mut toml = format!(
        "[site]\nstate_dir = {:?}\n[api]\nlisten = {}\npublic_url = {}\ntls_cert = {}\n\
         tls_key = {}\nca_file = {ca}\n[swift]\nauth_url = {}\nuser = {}\n\
         key = {{ file = {key:?} }}\nca_file = {ca}\n[boot_loaders]\nisolinux = {}\n\
         ldlinux = {}\ngrub = {}\nmbr = {}\n",
        dir.join("state"),
        api["listen"],
        api["url"],
        api["tls_cert"],
        api["tls_key"],
        store["auth_url"],
        store["user"],
        loaders[0],
        loaders[1],
        loaders[2],
        loaders[3],
    );
    let partition = partition_image(dir);
    for node in about["nodes"].as_array().unwrap() {
        let name = text(&node["name"]);
        let (uuid, ports) = (&node["uuid"], &node["ports"]);
        writeln!(toml, "[nodes.{name}]\nuuid = {uuid}\nports = {ports}").unwrap();
        for section in ["driver_info", "properties", "instance_info"] {
            writeln!(toml, "[nodes.{name}.{section}]").unwrap();
            if (section, boots) == ("instance_info", Boots::FromIso) {
                toml += &partition;
                continue;
            }
            for (key, value) in node[section].as_object().unwrap() {
                if (key.as_str(), boots) != ("capabilities", Boots::FromIso) {
                    writeln!(toml, "{key} = {value}").unwrap();
                }
            }
            match (section, boots) {
                ("driver_info", _) => writeln!(toml, "ilo_ca_file = {ca}").unwrap(),
                ("properties", Boots::FromIso) => {
                    toml += "capabilities = \"boot_option:netboot\"\n";
                }
                _ => {}
            }
        }
    }
    toml
}
