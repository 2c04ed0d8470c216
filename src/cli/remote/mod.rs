//! `--server URL`: the same commands, done by a `flowrun serve` elsewhere.

mod client;
mod follow;

use super::args::{Cli, Command, Run};
use super::{Exit, inspect, report, start};
use crate::api::wire::{NewRuns, RunDetail, RunList, RunView, StartedRuns};
use crate::cli::follow::Story;
use crate::cli::format::short;
use crate::cli::output::out;
use crate::config::assignment_of;
use crate::engine::RunEnd;
use crate::error::{Error, Kind, Result};
use crate::journal::{Bundle, LogLine};
use client::Client;
use follow::Signals;
use serde_json::Value;
use std::path::Path;
use tokio::sync::broadcast;

pub(super) async fn dispatch(cli: &Cli) -> Result<Exit> {
    let client = Client::new(cli)?;
    match &cli.command {
        Command::Run(args) => run(cli, &client, args).await,
        Command::Runs { limit } => {
            let list: RunList = client.get(&format!("/v1/runs?limit={limit}")).await?;
            inspect::print_runs(cli, &list.runs);
            Ok(Exit::Done)
        }
        Command::Show { run, svg } => {
            let detail = detail(&client, run).await?;
            if *svg {
                inspect::print_svg(&detail);
                return Ok(Exit::Done);
            }
            let bundle = bundle(&client, &detail.run).await;
            inspect::print_run(cli, &detail, bundle.as_ref());
            Ok(Exit::Done)
        }
        Command::Logs { run } => {
            let lines: Vec<LogLine> = client.get(&client::path(&["runs", run, "logs"])).await?;
            inspect::print_logs(cli, &lines);
            Ok(Exit::Done)
        }
        Command::Cancel { run } => {
            let asked: RunView = client.post(&client::path(&["runs", run, "cancel"])).await?;
            out!("asked the server to cancel run {}", short(&asked.id));
            Ok(Exit::Done)
        }
        Command::Resume { run } => {
            let signals = Signals::listen()?;
            let run: RunView = client.post(&client::path(&["runs", run, "resume"])).await?;
            finish(cli, &client, signals, vec![(run.id, run.node)]).await
        }
        _ => Err(
            Error::new(Kind::Invalid, "this command does not ask a server")
                .hint("--server goes with a flow, runs, show, logs, cancel and resume"),
        ),
    }
}

async fn run(cli: &Cli, client: &Client, args: &Run) -> Result<Exit> {
    let params = start::pairs(&args.param)?.into_iter();
    let set = args.set.iter().map(|assignment| {
        let (path, value) = assignment_of(assignment)?;
        Ok((path.to_owned(), value))
    });
    let wanted = NewRuns {
        flow: flow_name(&args.flow)?.to_owned(),
        action: args.action.clone(),
        nodes: args.node.clone(),
        params: params
            .map(|(name, text)| (name, Value::from(text)))
            .collect(),
        set: set.collect::<Result<_>>()?,
        ..NewRuns::default()
    };
    let signals = Signals::listen()?;
    let started: StartedRuns = client.send("/v1/runs", &wanted).await?;
    if !cli.json {
        start::say_flow(&started.entry, &started.bundle);
        for run in &started.runs {
            start::say_destroys(&run.node, &run.destroys);
        }
    }
    let runs = started.runs.into_iter().map(|run| (run.id, run.node));
    let exit = finish(cli, client, signals, runs.collect()).await?;
    match started.refused.into_iter().next() {
        Some(refused) => Err(refused.error),
        None => Ok(exit),
    }
}

/// A server runs its own flows: a file here may be another one.
fn flow_name(given: &str) -> Result<&str> {
    let path = Path::new(given);
    if path.extension().is_none() && path.components().count() == 1 {
        return Ok(given);
    }
    let error = Error::new(
        Kind::Invalid,
        format!("{given} is a file, and a server runs its own"),
    );
    Err(match path.file_stem().and_then(|stem| stem.to_str()) {
        Some(name) => error.hint(format!("name the server's flow: {name}")),
        None => error,
    })
}

/// Follows runs to their end, prints what they say of themselves, and answers the worst exit.
async fn finish(
    cli: &Cli,
    client: &Client,
    mut signals: Signals,
    runs: Vec<(String, String)>,
) -> Result<Exit> {
    let (events, shown) = broadcast::channel(4096);
    let story = Story::begin(cli, shown, runs.len());
    let ends = follow::to_the_end(client, &mut signals, &events, &runs).await;
    story.end().await;
    let Some(ends) = ends? else {
        return Ok(Exit::Stopped);
    };
    let mut worst = Exit::Done;
    for end in &ends {
        if !cli.json {
            print_end(client, end).await?;
        }
        worst = worst.max(Exit::of_status(end.status));
    }
    Ok(worst)
}

async fn print_end(client: &Client, end: &RunEnd) -> Result<()> {
    let run = detail(client, &end.id).await?.run;
    let bundle = bundle(client, &run).await;
    report::print_end(end, &run, bundle.as_ref());
    Ok(())
}

async fn detail(client: &Client, run: &str) -> Result<RunDetail> {
    client.get(&client::path(&["runs", run])).await
}

/// The source of a run that failed, for the lines of its error.
async fn bundle(client: &Client, run: &RunView) -> Option<Bundle> {
    run.error.as_ref()?;
    let view = client.get(&client::path(&["bundles", &run.bundle])).await;
    let view: crate::api::wire::BundleView = view.ok()?;
    Some(Bundle {
        hash: view.hash,
        files: view.files,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_given_names() {
        assert_eq!(flow_name("ilo_vmedia_iscsi").unwrap(), "ilo_vmedia_iscsi");
        let error = flow_name("flows/ilo_vmedia_iscsi.lua").unwrap_err();
        assert_eq!(
            error.advice(),
            Some("name the server's flow: ilo_vmedia_iscsi")
        );
    }
}
