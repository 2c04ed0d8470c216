//! Commands. Exit codes: 0 done, 1 a run failed, 2 usage or configuration, 3 cancelled, 4 stopped
//! and resumable.

#![expect(clippy::print_stderr, reason = "this folder talks to the operator")]

mod args;
mod call;
mod check;
#[cfg(test)]
mod documented;
mod dry_run;
mod flows;
mod follow;
mod format;
mod images;
mod init;
mod inspect;
mod lab;
mod node;
mod output;
mod quirks;
mod ramdisk;
mod remote;
mod render;
mod report;
mod serve;
mod site;
mod start;
mod svg;
mod test;
mod words;

use crate::cli::output::out;
use crate::error::{Error, Kind};
use crate::journal::RunStatus;
use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Cancelled = 3,
    Stopped = 4,
}

impl Exit {
    fn of_status(status: RunStatus) -> Self {
        match status {
            RunStatus::Done => Self::Done,
            RunStatus::Cancelled => Self::Cancelled,
            RunStatus::Stopped | RunStatus::Running => Self::Stopped,
            RunStatus::Failed | RunStatus::Stuck => Self::Failed,
        }
    }

    /// An error before any run began.
    fn of_error(error: &Error) -> Self {
        match error.kind() {
            Kind::Invalid | Kind::NotFound | Kind::Unsupported => Self::Usage,
            Kind::Cancelled => Self::Cancelled,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse_from(args::with_run(std::env::args_os().collect()));
    start_tracing(cli.verbose, matches!(cli.command, Command::Serve(_)));
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return Exit::Failed.into();
        }
    };
    let json = cli.json;
    match runtime.block_on(dispatch(cli)) {
        Ok(exit) => exit.into(),
        Err(error) => {
            if json {
                out!(
                    "{}",
                    serde_json::json!({ "event": "error", "error": error })
                );
            }
            eprint!("{}", format::error(&error, None, format::colours()));
            Exit::of_error(&error).into()
        }
    }
}

async fn dispatch(cli: Cli) -> Result<Exit, Error> {
    if cli.server.is_some() {
        return remote::dispatch(&cli).await;
    }
    match &cli.command {
        Command::Run(run) if run.dry_run => dry_run::run(&cli, run).await,
        Command::Run(run) => start::run(&cli, run).await,
        Command::Serve(args) => serve::serve(&cli, args).await,
        Command::Test(args) => test::test(&cli, args).await,
        Command::Check { files } => check::check(&cli, files).await,
        Command::Call(call) => call::call(&cli, call).await,
        Command::Resume { run } => start::resume(&cli, run, false).await,
        Command::Cancel { run } => start::cancel(&cli, run).await,
        Command::Runs { limit } => inspect::runs(&cli, *limit).await,
        Command::Show { run, svg } => inspect::show(&cli, run, *svg).await,
        Command::Logs { run } => inspect::logs(&cli, run).await,
        Command::Images => images::images(&cli),
        Command::Quirks { node, flow } => quirks::quirks(&cli, node, flow).await,
        Command::Flows { command } => flows::flows(&cli, command.as_ref()).await,
        Command::Node { command } => node::node(&cli, command).await,
        Command::Help { topic } => inspect::help(topic.as_deref()),
        Command::Init { dir } => init::init(dir),
        Command::Types { dir } => inspect::types(dir),
        Command::Ramdisk { command } => ramdisk::ramdisk(&cli, command).await,
        Command::Lab { command } => lab::lab(&cli, command).await,
    }
}

/// Diagnostics go to stderr; the run's own story is told by its events. Nobody watches a daemon's,
/// so it says more.
fn start_tracing(verbose: u8, daemon: bool) {
    use tracing_subscriber::filter::LevelFilter;
    let level = match verbose + 2 * u8::from(daemon) {
        0 => LevelFilter::ERROR,
        1 => LevelFilter::WARN,
        2 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(format::colours())
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_an_exit_code() {
        for kind in Kind::ALL {
            let exit = Exit::of_error(&Error::new(kind, "x"));
            assert!(
                matches!(exit, Exit::Failed | Exit::Usage | Exit::Cancelled),
                "{kind}"
            );
        }
    }
}
