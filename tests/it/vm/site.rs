//! A site with one virtual machine, the deployer's configuration for it, and what it said.

use super::parts::{CONSOLE, Instance, META_DATA, ROOT_UUID, boot_loaders};
use crate::flow::{FLOW, LabUp, code, flowrun, pause, text, until_entry};
use flowrun::clock;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// An emulated machine takes a processor: two at a time, beside the other tests.
static PROCESSORS: [Mutex<()>; 2] = [const { Mutex::new(()) }; 2];
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// How long a machine may take from power on to the deployed system, on a busy host.
const PATIENCE: Duration = Duration::from_secs(900);

/// The site.
pub(super) struct VmSite {
    pub(super) lab: LabUp,
    /// Position on the console from which on it is read.
    read_from: usize,
    processor: Option<MutexGuard<'static, ()>>,
}

/// What the deployer is told of the machine.
pub(super) struct Wanted<'a> {
    pub(super) capabilities: &'a str,
    /// `properties.root_device`, in TOML.
    pub(super) root_device: &'a str,
    /// Lines of `instance_info`.
    pub(super) instance_info: String,
}

/// Waits for a processor to emulate a machine on.
pub(super) fn processor() -> MutexGuard<'static, ()> {
    let processor = &PROCESSORS[NEXT.fetch_add(1, Ordering::Relaxed) % PROCESSORS.len()];
    processor.lock().unwrap_or_else(PoisonError::into_inner)
}

impl VmSite {
    /// A site whose machine has this iLO and deploy ISO.
    pub(super) fn start(ilo: &str, iso: &Path) -> Self {
        let processor = processor();
        let ilo = format!("vm-1:{ilo}");
        Self {
            lab: LabUp::start_with(
                0,
                &[
                    "--vms",
                    "1",
                    "--lab-ilo",
                    &ilo,
                    "--lab-deploy-iso",
                    iso.to_str().unwrap(),
                ],
            ),
            read_from: 0,
            processor: Some(processor),
        }
    }

    /// From here on the machine only waits.
    pub(super) fn is_idle(&mut self) {
        self.processor = None;
    }

    fn description(&self) -> Value {
        let file = fs::read(self.lab.path("site.json")).unwrap();
        serde_json::from_slice::<Value>(&file).unwrap()["site"].take()
    }

    /// Writes `flowrun.toml`: the site's services, real boot loaders, the machine.
    pub(super) fn configure(&self, wanted: &Wanted<'_>) {
        let site = self.description();
        let (api, store, node) = (&site["api"], &site["object_store"], &site["nodes"][0]);
        let driver = &node["driver_info"];
        let key = self.lab.path("store-key");
        fs::write(&key, store["key"].as_str().unwrap()).unwrap();
        let text = format!(
            "[site]\nstate_dir = {:?}\n[api]\nlisten = {}\npublic_url = {}\ntls_cert = {}\n\
             tls_key = {}\nca_file = {ca}\n[swift]\nauth_url = {}\nuser = {}\n\
             key = {{ file = {key:?} }}\nca_file = {ca}\n{}\
             [nodes.vm-1]\nuuid = {}\nports = {}\n[nodes.vm-1.properties]\n\
             capabilities = {:?}\n{}\n[nodes.vm-1.driver_info]\nilo_address = {}\n\
             ilo_username = {}\nilo_password_file = {}\nilo_ca_file = {ca}\ndeploy_iso = {}\n\
             external_callback_url = {}\n[nodes.vm-1.instance_info]\n{}\n",
            self.lab.path("state"),
            api["listen"],
            api["url"],
            api["tls_cert"],
            api["tls_key"],
            store["auth_url"],
            store["user"],
            boot_loaders(),
            node["uuid"],
            node["ports"],
            wanted.capabilities,
            wanted.root_device,
            driver["ilo_address"],
            driver["ilo_username"],
            driver["ilo_password_file"],
            driver["deploy_iso"],
            driver["external_callback_url"],
            wanted.instance_info,
            ca = site["ca_file"],
        );
        fs::write(self.lab.path("flowrun.toml"), text).unwrap();
    }

    /// An action of the flow on the machine.
    pub(super) fn flow(&self, action: &str) -> Command {
        let args = [
            FLOW,
            action,
            "--node",
            "vm-1",
            "--param",
            "callback_timeout=15m",
        ];
        let mut command = self.configured(if action == "deploy" {
            &args
        } else {
            &args[..4]
        });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(super) fn configured(&self, args: &[&str]) -> Command {
        let mut command = flowrun(args);
        command.arg("--config").arg(self.lab.path("flowrun.toml"));
        command
    }

    /// Deploys, and it has to succeed.
    pub(super) fn deploy(&self) {
        self.succeeded(&self.flow("deploy").output().unwrap());
    }

    pub(super) fn succeeded(&self, output: &Output) {
        assert_eq!(code(output), 0, "{}\n{}", text(output), self.console());
    }

    /// Waits until the disk is being written by the newest run.
    pub(super) fn until_writing(&mut self) {
        self.hear("the disk is written, waiting on");
        until_entry(&self.lab, "write image/disk.write");
    }

    pub(super) fn console(&self) -> String {
        let bytes = fs::read(self.lab.path("nodes/vm-1/console.log")).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What the machine says from here on, up to and with a line that has this.
    pub(super) fn hear(&mut self, until: &str) -> Heard {
        let deadline = clock::instant() + PATIENCE;
        loop {
            let console = self.console();
            let new = console.get(self.read_from..).unwrap_or_default();
            if let Some((before, after)) = new.split_once(until)
                && let Some((line, _)) = after.split_once('\n')
            {
                let heard = format!("{before}{until}{line}\n");
                self.read_from += heard.len();
                return Heard(heard);
            }
            assert!(clock::instant() < deadline, "no {until:?}:\n{console}");
            pause(Duration::from_millis(100));
        }
    }

    /// Waits until the iLO says so of the machine.
    pub(super) fn until_state(&self, path: &str, wanted: &str) -> Value {
        let deadline = clock::instant() + PATIENCE;
        loop {
            let state = self.lab.state()["nodes"][0].clone();
            if state.pointer(path).and_then(Value::as_str) == Some(wanted) {
                return state;
            }
            assert!(
                clock::instant() < deadline,
                "{path} is not {wanted}: {state:#}"
            );
            pause(Duration::from_millis(100));
        }
    }

    /// Where the medium in the CD drive comes from, and its signature, as an iLO with RIBCL shows
    /// them.
    pub(super) fn cdrom(&self) -> (String, BTreeMap<String, String>) {
        let site = self.description();
        let driver = &site["nodes"][0]["driver_info"];
        let given = |value: &Value| value.as_str().unwrap().to_owned();
        let script = format!(
            "<?xml version=\"1.0\"?>\r\n<RIBCL VERSION=\"2.0\"><LOGIN USER_LOGIN={} PASSWORD={:?}>\
             <RIB_INFO MODE=\"read\"><GET_VM_STATUS DEVICE=\"CDROM\"/></RIB_INFO></LOGIN></RIBCL>",
            driver["ilo_username"],
            fs::read_to_string(given(&driver["ilo_password_file"])).unwrap(),
        );
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", "--cacert", &given(&site["ca_file"])]);
        curl.args(["--data-binary", &script]);
        let asked = curl.arg(format!("{}/ribcl", given(&driver["ilo_address"])));
        let answer = text(&asked.output().unwrap());
        let (_, url) = answer.split_once("IMAGE_URL=\"").unwrap();
        let url = url.split('"').next().unwrap().replace("&amp;", "&");
        let (place, query) = url.split_once('?').unwrap();
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap());
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        (place.to_owned(), pairs.collect())
    }

    /// The machine's process, in `/proc`, if it runs.
    pub(super) fn machine(&self) -> Option<PathBuf> {
        let folder = self.lab.path("nodes/vm-1");
        let is_ours = |path: &PathBuf| {
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.starts_with("qemu-system") && line.contains(folder.to_str().unwrap())
        };
        let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        processes.map(|entry| entry.path()).find(is_ours)
    }

    /// Takes the machine's power away behind the iLO's back: kills its process.
    pub(super) fn cut_power(&self) {
        let process = self.machine().unwrap();
        let id = process.file_name().unwrap().to_str().unwrap();
        let kill = format!("kill -KILL {id}");
        let killed = Command::new("sh").args(["-c", &kill]).status();
        assert!(killed.unwrap().success());
    }
}

/// What a machine said.
#[derive(Debug)]
pub(super) struct Heard(String);

impl Heard {
    /// The rest of the last line that has this word.
    pub(super) fn word(&self, word: &str) -> &str {
        let mut lines = self.0.lines().rev();
        let found = lines.find_map(|line| line.trim_end().split_once(&format!("@{word} ")));
        found
            .unwrap_or_else(|| panic!("no @{word} in:\n{}", self.0))
            .1
    }

    pub(super) fn has(&self, text: &str) -> bool {
        self.0.contains(text)
    }

    pub(super) fn is_silent_on(&self, word: &str) -> bool {
        !self.0.contains(&format!("@{word} "))
    }

    /// The system that was to be deployed runs, from the disk partition `root`.
    pub(super) fn is_instance(&self, instance: &Instance, firmware: &str, root: &str) {
        assert_eq!(self.word("root"), format!("{root} ext4"));
        assert_eq!(self.word("firmware"), firmware);
        let line = self.word("cmdline");
        assert!(line.contains(&format!("root=UUID={ROOT_UUID}")), "{line}");
        assert!(line.contains(CONSOLE), "{line}");
        for (name, bytes) in &instance.data {
            let sum = hex::encode(Sha256::digest(bytes));
            assert_eq!(self.word(&format!("file {name}")), format!("{sum}  -"));
        }
        let config = self.word("config");
        assert!(config.ends_with(META_DATA), "{config}");
    }
}
