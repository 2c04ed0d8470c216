//! `lab up`: a simulated site in the foreground; `lab faults`: what can go wrong in it.

use super::Exit;
use super::args::{Cli, LabCommand};
use super::site::lab_options;
use crate::cli::output::out;
use crate::error::{Error, Kind, Result};
use crate::lab::site::{Site, SiteOptions};
use serde_json::json;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

pub(super) async fn lab(cli: &Cli, command: &LabCommand) -> Result<Exit> {
    match command {
        LabCommand::Up {
            nodes,
            vms,
            post_time,
        } => up(cli, *nodes, *vms, (*post_time).into()).await,
        LabCommand::Faults => {
            faults(cli);
            Ok(Exit::Done)
        }
    }
}

fn faults(cli: &Cli) {
    for [name, what, source] in Site::faults() {
        match cli.json {
            true => out!("{}", json!({"name": name, "what": what, "source": source})),
            false => out!("{name}\n    {what}\n    seen: {source}"),
        }
    }
}

async fn up(cli: &Cli, nodes: usize, vms: usize, post_time: Duration) -> Result<Exit> {
    let dir = cli.lab_dir.clone().ok_or_else(|| {
        Error::new(Kind::Invalid, "lab up needs --lab-dir").hint("flowrun lab up --lab-dir lab")
    })?;
    let no_signals = |e| Error::new(Kind::Io, "no signals").caused_by(&e);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let options = SiteOptions {
        post_time,
        ..lab_options(cli, dir.clone(), nodes, vms)
    };
    let site = Site::start(options).await?;
    out!("{:#}", site.describe());
    eprintln!(
        "the site is up in {}; Ctrl-C ends it, its files stay",
        dir.display()
    );
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    site.stop().await;
    Ok(Exit::Done)
}
