//! `node power`: reads and switches a server's power by hand.

use super::{status, with_ilo, words};
use crate::cli::args::{Cli, PowerArgs, PowerWord};
use crate::cli::format::{colours, paint, short};
use crate::cli::output::out;
use crate::cli::site::Ground;
use crate::cli::{Exit, inspect, start};
use crate::error::{Error, Kind, Result};
use crate::ilo::model::PowerTarget;
use crate::journal::{NodeOwner, lay_over};
use serde_json::json;

pub(super) async fn power(cli: &Cli, args: &PowerArgs) -> Result<Exit> {
    let name = &args.node;
    let ground = Ground::open(cli, std::slice::from_ref(name), &[]).await?;
    let mut is_forced = false;
    if args.target.is_some()
        && let Some(owner) = ground.engine.journal().node_owners().await?.remove(name)
    {
        is_forced = allowed(name, &owner, args.force)?;
    }
    if let Some(word) = args.target
        && !is_forced
        && by_flow(&ground, name, word).await?
    {
        let state = word
            .target()
            .map(|target| ("power".to_owned(), spelled(target)));
        let params = state.into_iter().collect();
        return start::stock_action(cli, &ground, "reboot", name, &params).await;
    }
    let target = args
        .target
        .map(|word| word.target().unwrap_or(PowerTarget::Reset));
    let state = with_ilo(&ground, name, async |ilo| match target {
        Some(target) => ilo.set_power(target, args.timeout.into()).await,
        None => ilo.power_state().await,
    });
    let state = state.await?;
    match cli.json {
        true => out!("{}", json!({ "name": name, "power_state": state })),
        false => out!("{}", words(state)),
    }
    Ok(Exit::Done)
}

/// Whether this starts a server that needs its boot ISO for it.
async fn by_flow(ground: &Ground, name: &str, word: PowerWord) -> Result<bool> {
    if word == PowerWord::Reboot {
        return Ok(true);
    }
    if matches!(word, PowerWord::Off | PowerWord::ForceOff) {
        return Ok(false);
    }
    let mut view = ground.config.node(name)?.view(name);
    lay_over(&mut view, &ground.engine.journal().learned(name).await?);
    let has = |key: &str| view.pointer(&format!("/instance_info/{key}")).is_some();
    Ok(has("boot_iso") || has("ilo_boot_iso"))
}

/// As the flow's parameter takes it.
fn spelled(target: PowerTarget) -> String {
    json!(target).as_str().unwrap_or_default().to_owned()
}

/// A server is not switched under a run that somebody works on, unless forced, which is answered;
/// others are worth a word.
fn allowed(node: &str, owner: &NodeOwner, force: bool) -> Result<bool> {
    let (run, status) = (short(&owner.run), status(owner));
    let held = format!("run {run} ({status}) holds this node");
    if status == inspect::GOES_ON && !force {
        return Err(Error::new(Kind::Conflict, held).target(node).hint(format!(
            "`flowrun show {run}` tells how far it is, `flowrun cancel {run}` ends it; --force \
             switches the server under it"
        )));
    }
    eprintln!("{} {node}: {held}", paint("warning:", "33", colours()));
    Ok(status == inspect::GOES_ON)
}
