//! This program as `/init` of a real machine, the only process on it.
//!
//! It brings up what the kernel does not (drivers, network), finds floppy and disk, and hands
//! over to [`deploy`], which the simulated machines run as well. Whatever happens,
//! it ends in a reboot or with the power off, never by exiting: the kernel would panic.

mod console;
mod disk;
mod hints;
mod identity;
mod media;
mod modules;
mod network;
mod sysfs;
mod usage;
mod watchdog;

use super::build::CA_FILE;
use super::deploy::{self, DeployEnd, DeployOptions, Log};
use super::floppy::Floppy;
use super::parameters::{self, Parameters};
use crate::clock;
use crate::error::{Error, Kind, Result};
use console::Consoles;
use identity::Identity;
use modules::Modules;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use rustix::time::{ClockId, Timespec, clock_settime};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use usage::Usage;
use watchdog::Watchdog;

/// How long an iLO may take to show its virtual floppy.
const FLOPPY_DEADLINE: Duration = Duration::from_secs(180);

/// How long what went wrong can be read before the power goes off.
const SCREEN_TIME: Duration = Duration::from_secs(60);

/// Between two looks for something that is not there yet.
const LOOK_PAUSE: Duration = Duration::from_millis(250);

/// A clock that is further off is set by the floppy.
const MAX_CLOCK_ERROR: Duration = Duration::from_secs(24 * 60 * 60);

/// Lines of the log that are shown and sent with a failure.
const EXCERPT_LINES: usize = 12;

/// Whether this process is `/init` of an initramfs. In a container it may be the first process
/// too, but goes by its own name.
#[must_use]
pub fn is_init() -> bool {
    let name = std::env::args_os().next();
    std::process::id() == 1 && name.is_some_and(|name| name == "/init" || name == "init")
}

/// Runs the deployment. Returns only if the kernel can neither reboot nor switch off.
#[must_use]
pub fn main() -> ExitCode {
    let mounted = mount_file_systems();
    let consoles = Arc::new(Consoles::open());
    let panics = Arc::clone(&consoles);
    std::panic::set_hook(Box::new(move |panic| {
        panics.line(&format!("panic: {panic}"));
    }));
    let log: Arc<dyn Log> = Arc::<Consoles>::clone(&consoles);
    let watchdog = Watchdog::start(&log, || _ = reboot(RebootCommand::PowerOff));
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        mounted?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|e| Error::new(Kind::Io, format!("no runtime: {e}")))?;
        runtime.block_on(async {
            tokio::select! {
                outcome = run(&consoles) => outcome,
                () = watchdog.beat() => Err(Error::new(Kind::Internal, "no watchdog")),
            }
        })
    }));
    let outcome = outcome.unwrap_or_else(|_| Err(Error::new(Kind::Internal, "a panic")));
    rustix::fs::sync();
    match outcome {
        Ok(DeployEnd::Reboot) => {
            watchdog.end();
            consoles.line("rebooting");
            _ = reboot(RebootCommand::Restart);
        }
        Err(error) => {
            consoles.screen(&screen(&error, &consoles.newest(EXCERPT_LINES)));
            park(SCREEN_TIME);
            watchdog.end();
            consoles.line("switching off");
        }
    }
    loop {
        _ = reboot(RebootCommand::PowerOff);
        park(SCREEN_TIME);
    }
}

/// Sleeps outside of any runtime.
fn park(time: Duration) {
    let end = clock::instant() + time;
    loop {
        let left = end.saturating_duration_since(clock::instant());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

/// What is shown when nothing more can be done.
fn screen(error: &Error, log: &[String]) -> String {
    let mut text = format!("flowrun: this server could not be deployed\n\n  {error}\n");
    for cause in error.causes() {
        text.push_str(&format!("  because: {cause}\n"));
    }
    if let Some(hint) = error.advice() {
        text.push_str(&format!("  hint: {hint}\n"));
    }
    let seconds = SCREEN_TIME.as_secs();
    text.push_str(&format!(
        "\nThe power goes off in {seconds} seconds. What happened last:\n"
    ));
    for line in log {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

fn mount_file_systems() -> Result<()> {
    for (kind, place) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/tmp"),
    ] {
        match mount(kind, place, kind, MountFlags::empty(), None) {
            // Some kernels mount /dev themselves.
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => {
                return Err(Error::new(
                    Kind::Io,
                    format!("cannot mount {place}: {error}"),
                ));
            }
        }
    }
    Ok(())
}

/// Tries until there is something, or the deadline comes.
async fn until<T>(deadline: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = clock::instant() + deadline;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if clock::instant() >= end {
            return None;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

async fn run(consoles: &Arc<Consoles>) -> Result<DeployEnd> {
    let log: Arc<dyn Log> = Arc::<Consoles>::clone(consoles);
    log.line(concat!("deploy ramdisk ", env!("CARGO_PKG_VERSION")));
    let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if !parameters::is_from_vmedia(&command_line) {
        let message = "not booted with boot_method=vmedia, so no medium is trusted";
        return Err(Error::new(Kind::Invalid, message));
    }
    let mut modules = Modules::open()?;
    let (floppy, parameters) = find_floppy(&mut modules, log.as_ref()).await?;
    set_clock(&parameters, log.as_ref());
    // Another machine is reported too, if the network lets it.
    let is_meant = Identity::of_this_machine().check(&parameters);
    let connection = network::connect(&parameters, &mut modules, log.as_ref()).await;
    let connection = match (&is_meant, connection) {
        (_, Ok(connection)) => connection,
        (Err(error), Err(_)) => return Err(error.clone()),
        (Ok(()), Err(error)) => return Err(error),
    };
    let address = connection.address;
    let found = match is_meant {
        Ok(()) => disk::find(&parameters, &mut modules, log.as_ref()).await,
        Err(error) => Err(error),
    };
    let ca_pem = authority(&parameters, floppy.ca_pem)?;
    let work = async {
        let disk = match found {
            Ok(disk) => disk,
            Err(error) => {
                let caller = deploy::Caller {
                    parameters,
                    token: floppy.token,
                    ca_pem,
                    address,
                };
                caller.report(&error, &log).await;
                return Err(error);
            }
        };
        let usage = Arc::new(Usage::default());
        let told = Arc::clone(&usage);
        let deployed = Box::pin(deploy::run(DeployOptions {
            token: floppy.token,
            ca_pem,
            log: Arc::clone(&log),
            usage: Arc::new(move || told.to_string()),
            ..DeployOptions::new(parameters, disk, address)
        }));
        tokio::select! {
            outcome = deployed => outcome,
            never = usage.watch() => match never {},
        }
    };
    tokio::select! {
        outcome = work => outcome,
        () = connection.keep(Arc::clone(&log)) => Err(Error::new(Kind::Internal, "no network")),
    }
}

/// The authority of the floppy, else the one of the image.
fn authority(parameters: &Parameters, floppy: Option<String>) -> Result<Option<String>> {
    let image = || std::fs::read_to_string(format!("/{CA_FILE}")).ok();
    match floppy.or_else(image) {
        None if parameters.ironic_api_url.starts_with("https:") => {
            let message = "the deployer is called by https, and nothing says whom to trust";
            let hint = "set [api] ca_file, or build the ramdisk with --ca";
            Err(Error::new(Kind::Invalid, message).hint(hint))
        }
        ca_pem => Ok(ca_pem),
    }
}

/// Looks for the floppy until a medium has parameters that can be read.
async fn find_floppy(modules: &mut Modules, log: &dyn Log) -> Result<(Floppy, Parameters)> {
    let mut last = None;
    let found = until(FLOPPY_DEADLINE, || {
        modules.settle(log);
        let read = media::find().and_then(|(drive, floppy)| {
            let parameters = Parameters::parse(floppy.parameters.expose())?;
            Ok((drive, floppy, parameters))
        });
        match read {
            Ok(found) => Some(found),
            Err(error) => {
                if last.as_ref() != Some(&error) {
                    log.line(error.message());
                }
                last = Some(error);
                None
            }
        }
    });
    match (found.await, last) {
        (Some((drive, floppy, parameters)), _) => {
            log.line(&format!("parameters read from the floppy in {drive}"));
            Ok((floppy, parameters))
        }
        (None, Some(error)) => Err(error),
        (None, None) => Err(Error::new(Kind::NotFound, "no virtual floppy")),
    }
}

/// A wrong clock makes every certificate invalid. The floppy says when the run began, and can be
/// trusted with it as with the rest.
fn set_clock(parameters: &Parameters, log: &dyn Log) {
    let Some(began) = parameters.time else {
        return;
    };
    let off = clock::unix_seconds().abs_diff(began);
    if off <= MAX_CLOCK_ERROR.as_secs() {
        return;
    }
    let time = Timespec {
        tv_sec: i64::try_from(began).unwrap_or(0),
        tv_nsec: 0,
    };
    match clock_settime(ClockId::Realtime, time) {
        Ok(()) => log.line(&format!(
            "the clock was {off} s off and is set by the floppy"
        )),
        Err(error) => log.line(&format!(
            "the clock is {off} s off and cannot be set: {error}"
        )),
    }
}
