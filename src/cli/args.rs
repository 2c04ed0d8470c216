//! The command line. A flow needs no command word: `flowrun deploy.lua --node X`.

use super::words::words;
use crate::http::Fingerprint;
use crate::ilo::model::PowerTarget;
use clap::{Args, Parser, Subcommand};
use serde::Deserialize;
use std::ffi::OsString;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  flowrun flows/ilo_vmedia_iscsi.lua --node lab-1 --lab
      deploys onto a simulated server, nothing else needed
  flowrun ilo_vmedia_iscsi --node dl380-7 --set instance_info.image_source=/srv/debian.qcow2
      deploys a server of flowrun.toml
  flowrun ilo_vmedia_iscsi --node dl380-7 --dry-run
      shows every call that it would make, and touches nothing
  flowrun check   finds mistakes in the site's flows and quirks
  flowrun call ilo.power_state --node dl380-7
      calls one primitive and prints its result as JSON
  flowrun resume 0193   continues a run whose process died
  flowrun node show dl380-7   what a server's iLO says

Exit codes: 0 done, 1 a run failed, 2 usage or configuration, 3 cancelled,
4 stopped and resumable (SIGTERM, or Ctrl-C twice).";

/// Deploys bare-metal servers with Lua flows.
#[derive(Debug, Parser)]
#[command(name = "flowrun", version, about, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(super) struct Cli {
    /// Configuration [default: ./flowrun.toml, else /etc/flowrun/flowrun.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Use a simulated site instead of the configured one
    #[arg(long, global = true)]
    pub(super) lab: bool,
    /// Folder of the simulated site: used if one is up there, else started and kept
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) lab_dir: Option<PathBuf>,
    /// What goes wrong in a site that is started, e.g. ilo.insert=accepted-but-not-mounted
    #[arg(long, global = true, value_name = "FAULT")]
    pub(super) lab_fault: Vec<String>,
    /// iLO of the nodes of a site that is started, e.g. ilo6 or lab-2:ilo4-rest [default: one each]
    #[arg(long, global = true, value_name = "ILO")]
    pub(super) lab_ilo: Vec<String>,
    /// What virtual machines (vm-1 …) of a site that is started are made of, e.g. disk=nvme or
    /// vm-2:memory_mib=512 [default: disk=sata, memory_mib=768]
    #[arg(long, global = true, value_name = "PART")]
    pub(super) lab_vm: Vec<String>,
    /// Deploy ISO of virtual machines of a site that is started [default: made of this
    /// host's kernel]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) lab_deploy_iso: Option<PathBuf>,
    /// A `flowrun serve` that runs the flow and is asked, e.g. https://deploy.example:6385
    #[arg(long, global = true, value_name = "URL", conflicts_with_all = ["config", "lab", "lab_dir"])]
    pub(super) server: Option<String>,
    /// The authority that signed the server's certificate, PEM [default: the system's]
    #[arg(long, global = true, value_name = "FILE", requires = "server")]
    pub(super) ca_file: Option<PathBuf>,
    /// The operator's token for the server
    #[arg(long, global = true, value_name = "FILE", requires = "server")]
    pub(super) token_file: Option<PathBuf>,
    /// A client certificate for the server, PEM, its key in the same file
    #[arg(long, global = true, value_name = "FILE", requires = "server")]
    pub(super) client_cert: Option<PathBuf>,
    /// Print events and results as JSON, one a line
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Diagnostics on stderr; more of them with -vv and -vvv
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a flow: a .lua file, or a name in the flow folders. The word `run` may be left out
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Find mistakes in flows, modules and quirks without running them
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// Flow files, or names in the flow folders [default: all of the site, and the stock ones]
        files: Vec<String>,
    },
    /// Run the tests of flows, each on a simulated site of its own
    #[command(after_help = TEST_EXAMPLES)]
    Test(TestArgs),
    /// Call one primitive and print its result as JSON
    Call(CallArgs),
    /// Run flows for operators elsewhere: HTTP API, callbacks, and every run that is open
    #[command(after_help = SERVE_EXAMPLES, args_conflicts_with_subcommands = true)]
    Serve(Serve),
    /// Continue a run whose process died or stopped
    Resume {
        /// Id of the run, or its beginning
        run: String,
    },
    /// Cancel a run: what it did is unwound by the flow's own clean-ups
    Cancel {
        /// Id of the run, or its beginning
        run: String,
    },
    /// List runs, newest first
    Runs {
        /// At most so many
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Show a run: its steps and calls with times, and a timeline
    Show {
        /// Id of the run, or its beginning
        run: String,
        /// Print the timeline as a picture, for a browser or a page
        #[arg(long, conflicts_with = "json")]
        svg: bool,
    },
    /// Print the log of a run
    Logs {
        /// Id of the run, or its beginning
        run: String,
    },
    /// List the OS images in the cache
    Images,
    /// Tell which quirks apply to a node, and why or why not
    Quirks {
        /// The node
        #[arg(value_name = "NODE")]
        node: String,
        /// The flow whose quirks are meant: those beside it, and those of the flow folders
        #[arg(default_value = "ilo_vmedia_iscsi")]
        flow: String,
    },
    /// List the flows: where they come from, who uses which version, what edit was broken
    #[command(after_help = FLOWS_EXAMPLES)]
    Flows {
        #[command(subcommand)]
        command: Option<FlowsCommand>,
    },
    /// Look at servers, switch them, and say which certificate is their iLO's
    #[command(after_help = NODE_EXAMPLES)]
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Explain a primitive, a module, or list them all
    Help {
        /// `ilo.attach_vmedia`, or `ilo`
        topic: Option<String>,
    },
    /// Begin a site: write a commented flowrun.toml and a sample flow; nothing is overwritten
    Init {
        /// Where to
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
    /// Write the types for editors (LuaLS, EmmyLua)
    Types {
        /// Where to
        #[arg(default_value = "stdlib/types")]
        dir: PathBuf,
    },
    /// Make the ramdisk that servers boot to be deployed
    Ramdisk {
        #[command(subcommand)]
        command: RamdiskCommand,
    },
    /// The simulated site
    Lab {
        #[command(subcommand)]
        command: LabCommand,
    },
}

const RUN_EXAMPLES: &str = "\
Examples:
  flowrun ilo_vmedia_iscsi --node dl380-7
  flowrun ilo_vmedia_iscsi deploy --node dl380-7 --dry-run
      every read, change and wait with its arguments and line, on simulated answers; nothing is
      touched, no network, no file. Exit: 0 it would come to its end, 1 it would fail
  flowrun examples/health.lua --node lab-1 --lab --dry-run --json";

const CHECK_EXAMPLES: &str = "\
Unknown names, modules and options, values of the wrong type, faults that dry-running every action
brings up, and quirks around steps that there are not. Exit: 0 nothing is wrong (warnings count as
nothing), 1 there are errors, 2 a file is not there.

Examples:
  flowrun check
  flowrun check flows/deploy.lua
  flowrun check --json | jq -r .path";

const TEST_EXAMPLES: &str = "\
A test calls t.run and says what it expects:

  test(\"deploys and boots\", function(t)
    local run = t.run { action = \"deploy\", faults = { \"ilo.insert=slow\" } }
    t.equal(run.status, \"done\", run.error)
    t.in_order(run.calls, \"iscsi.login\", \"disk.verify\", \"ramdisk.done\")
  end)

A `sleep` of the flow takes a hundredth of its time, and the clock goes ahead by the rest; what is
done over the network takes the time it takes. `stdlib/types/control.lua` has the types of `t`.

With --sweep a test that passed runs again for each call of its runs, which are killed there, before
it and after it, and go on: the test has to pass. And cancelled there: the run has to end cancelled,
and to leave its server as it was: drives, power, iLO sessions, objects, the node's lock.
Exit: 0 all passed, 1 some failed, 2 a file cannot be loaded.

Examples:
  flowrun test
  flowrun test --sweep --filter boots
  flowrun test flows/ilo_vmedia_iscsi_test.lua --filter boots";

#[derive(Debug, Args)]
pub(super) struct TestArgs {
    /// Files named *_test.lua [default: those of the flow folders]
    pub(super) files: Vec<PathBuf>,
    /// Only tests whose name has this in it
    #[arg(long, value_name = "TEXT")]
    pub(super) filter: Option<String>,
    /// Kill and cancel the runs at each of their calls
    #[arg(long)]
    pub(super) sweep: bool,
}

#[derive(Debug, Args)]
pub(super) struct Run {
    /// The flow: a .lua file, or a name in the flow folders
    pub(super) flow: String,
    /// Its action [default: the flow's own, mostly `deploy`]
    pub(super) action: Option<String>,
    /// Node to run on; several run at once
    #[arg(long, required = true, value_name = "NAME")]
    pub(super) node: Vec<String>,
    /// Parameter of the flow
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) param: Vec<String>,
    /// Field of the node, for this run
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub(super) set: Vec<String>,
    /// Print every call on simulated answers, and touch nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

const SERVE_EXAMPLES: &str = "\
The daemon listens where [api] says, resumes every run that is open, and takes runs by its API
(GET /openapi.json describes it). SIGTERM stops it: its runs stay resumable, and the next one
resumes them. Beyond loopback it wants TLS, and a token or a client CA.

Examples:
  flowrun serve token                  makes an operator's token and its line for [api]
  flowrun serve
  flowrun serve --listen 127.0.0.1:6385
  flowrun ilo_vmedia_iscsi --node dl380-7 --server https://deploy.example:6385 --token-file token";

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Where to listen, in place of [api] listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) listen: Option<std::net::SocketAddr>,
    #[command(subcommand)]
    pub(super) command: Option<ServeCommand>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ServeCommand {
    /// Make an operator's token: it is printed once, and what the server needs is its hash
    Token,
}

#[derive(Debug, Args)]
pub(super) struct CallArgs {
    /// The primitive, e.g. ilo.power_state
    pub(super) primitive: String,
    /// Arguments by name, as a JSON object
    pub(super) arguments: Option<String>,
    /// Node, for primitives that take one
    #[arg(long, value_name = "NAME")]
    pub(super) node: Option<String>,
    /// Field of the node, for this call
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub(super) set: Vec<String>,
}

const FLOWS_EXAMPLES: &str = "\
A daemon follows the flow folders: what is saved there is checked, and new runs take it if it is
good. Files that belong together come together by `publish`.

Examples:
  flowrun flows
  flowrun flows publish ~/flows --dry-run   checks, and tells what would change
  flowrun flows publish ~/flows
  flowrun flows rollback                    what was published before is in use again";

#[derive(Debug, Subcommand)]
pub(super) enum FlowsCommand {
    /// Check a folder and put it in the place of the site's flow folder, at once
    Publish {
        /// The folder with flows, modules and quirks
        dir: PathBuf,
        /// Which of the site's flow folders [default: the first]
        #[arg(long, value_name = "FOLDER")]
        to: Option<PathBuf>,
        /// Only check, and tell what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Put a former publication in use again
    Rollback {
        /// Its number [default: the one before]
        version: Option<String>,
        /// Which of the site's flow folders [default: the first]
        #[arg(long, value_name = "FOLDER")]
        to: Option<PathBuf>,
        /// Only check, and tell what would change
        #[arg(long)]
        dry_run: bool,
    },
}

const NODE_EXAMPLES: &str = "\
Examples:
  flowrun node list
  flowrun node show dl380-7 --json
  flowrun node power dl380-7               prints the power state
  flowrun node power dl380-7 force-off
  flowrun node trust dl380-7               shows the iLO's certificate and asks
  flowrun node show lab-2 --lab --lab-ilo lab-2:ilo6";

#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// List the servers: iLO, whose word its certificate is accepted by, the run that holds it
    List,
    /// Tell what a server's iLO says of it
    Show {
        /// The server
        node: String,
    },
    /// Print a server's power state, or change it
    #[command(after_help = POWER_EXAMPLES)]
    Power(PowerArgs),
    /// Look at the certificate that a server's iLO shows, and pin it
    #[command(after_help = TRUST_EXAMPLES)]
    Trust(TrustArgs),
}

const POWER_EXAMPLES: &str = "\
`off` asks the operating system, `force-off` does not. A server that a run works on is not switched
without --force. One that boots from a boot ISO gets it anew whenever it is started: that is the
action `reboot` of the flow ilo_vmedia_iscsi, a run like any other.

Examples:
  flowrun node power dl380-7
  flowrun node power dl380-7 off --timeout 10m
  flowrun node power dl380-7 reboot
  flowrun node power lab-1 on --lab-dir lab";

/// A change of power by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PowerWord {
    On,
    Off,
    ForceOff,
    Reset,
    Restart,
    ColdBoot,
    /// `on` if it is off, else `reset`, by the flow's action.
    Reboot,
}

impl PowerWord {
    /// What the iLO is asked for; the flow decides on a reboot.
    pub(super) fn target(self) -> Option<PowerTarget> {
        Some(match self {
            Self::On => PowerTarget::On,
            Self::Off => PowerTarget::Off,
            Self::ForceOff => PowerTarget::ForceOff,
            Self::Reset => PowerTarget::Reset,
            Self::Restart => PowerTarget::Restart,
            Self::ColdBoot => PowerTarget::ColdBoot,
            Self::Reboot => return None,
        })
    }
}

#[derive(Debug, Args)]
pub(super) struct PowerArgs {
    /// The server
    pub(super) node: String,
    /// What to bring it to; absent: print the state
    #[arg(value_parser = words::<PowerWord>())]
    pub(super) target: Option<PowerWord>,
    /// Also while a run works on the server
    #[arg(long)]
    pub(super) force: bool,
    /// How long the change may take
    #[arg(long, default_value = "3m", value_name = "TIME")]
    pub(super) timeout: humantime::Duration,
}

const TRUST_EXAMPLES: &str = "\
A pinned certificate is the only one accepted. What counts is the first there is of:
ilo_fingerprint of the node, the pin stored by this command, ilo_insecure, ilo_ca_file, the
system's authorities.

Examples:
  flowrun node trust dl380-7
  flowrun node trust dl380-7 --fingerprint 3C:5F:...   without a terminal, known from elsewhere
  flowrun node trust dl380-7 --yes                     without a terminal, at first sight
  flowrun node trust dl380-7 --forget";

#[derive(Debug, Args)]
pub(super) struct TrustArgs {
    /// The server
    pub(super) node: String,
    /// Pin without asking if this is the certificate that is shown
    #[arg(long, value_name = "SHA256")]
    pub(super) fingerprint: Option<Fingerprint>,
    /// Pin without asking, unless another one was pinned before
    #[arg(long, conflicts_with = "fingerprint")]
    pub(super) yes: bool,
    /// Forget the pinned certificate
    #[arg(long, conflicts_with_all = ["fingerprint", "yes"])]
    pub(super) forget: bool,
}

const RAMDISK_EXAMPLES: &str = "\
The boot ISO has a distribution's kernel, its drivers for ProLiant servers and virtual machines,
and this program as /init: no shell, and nothing else. It boots by BIOS and by UEFI, and equal
inputs give equal bytes. `driver_info.deploy_iso` of a node names it.

Examples:
  flowrun ramdisk build --output deploy.iso                  with the newest kernel of this host
  flowrun ramdisk build --output deploy.iso --kernel-package linux-image-6.1.0-18-amd64_*.deb
  flowrun ramdisk build --output deploy.iso --kernel vmlinuz --modules lib/modules/5.14.0-427.el9
      --firmware /lib/firmware --ca /etc/flowrun/ca.pem --append console=ttyS1,115200n8
  flowrun ramdisk build --output deploy.iso --json | jq -r .sha256";

#[derive(Debug, Subcommand)]
pub(super) enum RamdiskCommand {
    /// Make the boot ISO
    #[command(after_help = RAMDISK_EXAMPLES)]
    Build(RamdiskBuild),
}

#[derive(Debug, Args)]
pub(super) struct RamdiskBuild {
    /// Where to write the boot ISO
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
    /// Kernel and modules from a Debian package [default: the newest kernel of this host]
    #[arg(long, value_name = "DEB", conflicts_with_all = ["kernel", "modules"])]
    pub(super) kernel_package: Option<PathBuf>,
    /// The kernel, a bzImage
    #[arg(long, value_name = "FILE", requires = "modules")]
    pub(super) kernel: Option<PathBuf>,
    /// Its modules, as /lib/modules/VERSION
    #[arg(long, value_name = "DIR", requires = "kernel")]
    pub(super) modules: Option<PathBuf>,
    /// Pack the firmware files that the drivers name, from a folder as /lib/firmware
    #[arg(long, value_name = "DIR")]
    pub(super) firmware: Option<PathBuf>,
    /// The authority to trust if the floppy brings none, PEM
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Add to the kernel's command line
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        allow_hyphen_values = true
    )]
    pub(super) append: String,
    /// Another flowrun as /init [default: this one]
    #[arg(long, value_name = "FILE")]
    pub(super) init: Option<PathBuf>,
    /// Write `vmlinuz` and `initramfs` beside, into this folder
    #[arg(long, value_name = "DIR")]
    pub(super) files: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum LabCommand {
    /// Bring a site up in --lab-dir and keep it up until Ctrl-C; prints what it offers as JSON
    Up {
        /// How many simulated nodes: lab-1 and so on
        #[arg(long, default_value_t = 6)]
        nodes: usize,
        /// How many virtual machines: vm-1 and so on
        #[arg(long, default_value_t = 0)]
        vms: usize,
        /// How long a power-on self test takes
        #[arg(long, default_value = "2s", value_name = "TIME")]
        post_time: humantime::Duration,
    },
    /// List what can be told to go wrong (--lab-fault), and who saw it
    Faults,
}

const COMMANDS: [&str; 19] = [
    "run", "serve", "check", "test", "call", "resume", "cancel", "runs", "show", "logs", "images",
    "quirks", "flows", "node", "help", "init", "types", "ramdisk", "lab",
];

/// Puts the word `run` before a flow. A unique command word is never a flow's name.
pub(super) fn with_run(mut args: Vec<OsString>) -> Vec<OsString> {
    const WITH_VALUE: [&str; 10] = [
        "--config",
        "--lab-dir",
        "--lab-fault",
        "--lab-ilo",
        "--lab-vm",
        "--lab-deploy-iso",
        "--server",
        "--ca-file",
        "--token-file",
        "--client-cert",
    ];
    let mut at = 1;
    while let Some(word) = args.get(at).and_then(|arg| arg.to_str()) {
        if WITH_VALUE.contains(&word) {
            at += 2;
        } else if word.starts_with('-') {
            at += 1;
        } else {
            if !COMMANDS.contains(&word) {
                args.insert(at, "run".into());
            }
            break;
        }
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> String {
        let args = line.split(' ').map(OsString::from).collect();
        let args = with_run(args)
            .into_iter()
            .map(|arg| arg.into_string().unwrap());
        args.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_flow_needs_no_command_word() {
        assert_eq!(
            words("flowrun a.lua --node x"),
            "flowrun run a.lua --node x"
        );
        assert_eq!(
            words("flowrun --lab-dir d a.lua"),
            "flowrun --lab-dir d run a.lua"
        );
        assert_eq!(words("flowrun --json runs"), "flowrun --json runs");
        assert_eq!(words("flowrun --help"), "flowrun --help");
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        let known: Vec<_> = Cli::command()
            .get_subcommands()
            .map(|c| c.get_name().to_owned())
            .collect();
        assert_eq!(known.len(), COMMANDS.len());
        assert!(
            COMMANDS
                .iter()
                .all(|word| known.iter().any(|name| name == word))
        );
    }
}
