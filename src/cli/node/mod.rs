//! `node`: the servers of the inventory and their iLOs, by hand.

mod power;
mod show;
mod trust;

use super::Exit;
use super::args::{Cli, NodeCommand};
use super::format::short;
use super::site::Ground;
use crate::cli::output::out;
use crate::engine::status_of;
use crate::error::{Error, Kind, Result};
use crate::ilo::Ilo;
use crate::journal::NodeOwner;
use crate::lua::bind::TrustSource;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How long an iLO may take to show its certificate, and to close a session.
const SHORT: Duration = Duration::from_secs(30);

pub(super) async fn node(cli: &Cli, command: &NodeCommand) -> Result<Exit> {
    match command {
        NodeCommand::List => list(cli).await,
        NodeCommand::Show { node } => show::show(cli, node).await,
        NodeCommand::Power(args) => power::power(cli, args).await,
        NodeCommand::Trust(args) => trust::trust(cli, args).await,
    }
}

/// What is known without asking any iLO.
async fn list(cli: &Cli) -> Result<Exit> {
    let ground = Ground::open(cli, &[], &[]).await?;
    let journal = ground.engine.journal();
    let (pins, owners) = (journal.pins().await?, journal.node_owners().await?);
    let nodes = &ground.config.nodes;
    let width = |longest: Option<usize>, least: usize| longest.unwrap_or(0).max(least);
    let name_width = width(nodes.keys().map(String::len).max(), 4);
    let address = |name: &str| nodes.get(name).map(|n| n.driver_info.ilo_url());
    let widest = nodes.keys().filter_map(|name| Some(address(name)?.len()));
    let address_width = width(widest.max(), 3);
    if !cli.json {
        out!(
            "{:<name_width$}  {:<address_width$}  {:<10}  RUN",
            "NODE",
            "ILO",
            "TRUST"
        );
    }
    for (name, node) in nodes {
        let source = TrustSource::of(&node.driver_info, pins.contains_key(name));
        let owner = owners.get(name);
        let url = node.driver_info.ilo_url();
        if cli.json {
            out!(
                "{}",
                json!({ "name": name, "address": url, "trust": source, "run": run(owner) })
            );
            continue;
        }
        let held = owner.map_or_else(|| "-".to_owned(), held);
        out!(
            "{name:<name_width$}  {url:<address_width$}  {:<10}  {held}",
            words(source)
        );
    }
    if nodes.is_empty() && !cli.json {
        eprintln!("no nodes are configured; --lab brings a simulated site");
    }
    Ok(Exit::Done)
}

fn status(owner: &NodeOwner) -> &'static str {
    status_of(owner.status, &owner.owner, owner.alive_ms)
}

/// The run that holds a node, in JSON; `null` without one.
fn run(owner: Option<&NodeOwner>) -> Value {
    owner.map_or(
        Value::Null,
        |owner| json!({ "id": owner.run, "status": status(owner), "owner": owner.owner }),
    )
}

/// The same for people.
fn held(owner: &NodeOwner) -> String {
    format!("{} ({})", short(&owner.run), status(owner))
}

/// A word of the model (`stored_pin`) for people.
fn words(word: impl Serialize) -> String {
    let word = json!(word);
    word.as_str().unwrap_or_default().replace('_', " ")
}

/// What an iLO says of itself, without what would steer a terminal.
fn plain(text: &str) -> String {
    let unsafe_to_print = |c: char| c.is_control();
    text.replace(unsafe_to_print, "\u{fffd}")
}

/// Does something with a node's iLO, and ends the session however it went: sessions are few.
async fn with_ilo<T>(
    ground: &Ground,
    node: &str,
    work: impl AsyncFnOnce(&Ilo) -> Result<T>,
) -> Result<T> {
    ground.warn(node).await?;
    let ilo = ground.site.connect(node, ground.engine.journal()).await?;
    let no_signals = |e| Error::new(Kind::Io, "no signals").caused_by(&e);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let outcome = tokio::select! {
        outcome = work(&ilo) => outcome,
        _ = interrupt.recv() => Err(interrupted(node)),
        _ = terminate.recv() => Err(interrupted(node)),
    };
    match tokio::time::timeout(SHORT, ilo.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(node, %error, "the iLO session was not closed"),
        Err(_) => tracing::warn!(node, "the iLO session was not closed in time"),
    }
    outcome
}

fn interrupted(node: &str) -> Error {
    Error::new(Kind::Cancelled, "interrupted")
        .target(node)
        .hint("what was asked of the iLO may still happen: look with `flowrun node show`")
}
