//! `node power`: reads and switches a server's power by hand.

use super::{status, with_ilo, words};
use crate::cli::args::{Cli, PowerArgs};
use crate::cli::format::{colours, paint, short};
use crate::cli::site::Ground;
use crate::cli::{Exit, inspect};
use crate::error::{Error, Kind, Result};
use crate::journal::NodeOwner;
use serde_json::json;

pub(super) async fn power(cli: &Cli, args: &PowerArgs) -> Result<Exit> {
    let name = &args.node;
    let ground = Ground::open(cli, std::slice::from_ref(name), &[]).await?;
    if args.target.is_some()
        && let Some(owner) = ground.engine.journal().node_owners().await?.remove(name)
    {
        allowed(name, &owner, args.force)?;
    }
    let state = with_ilo(&ground, name, async |ilo| match args.target {
        Some(target) => ilo.set_power(target, args.timeout.into()).await,
        None => ilo.power_state().await,
    });
    let state = state.await?;
    match cli.json {
        true => println!("{}", json!({ "name": name, "power_state": state })),
        false => println!("{}", words(state)),
    }
    Ok(Exit::Done)
}

/// A server is not switched under a run that somebody works on; others are worth a word.
fn allowed(node: &str, owner: &NodeOwner, force: bool) -> Result<()> {
    let (run, status) = (short(&owner.run), status(owner));
    let held = format!("run {run} ({status}) holds this node");
    if status == inspect::GOES_ON && !force {
        return Err(Error::new(Kind::Conflict, held).target(node).hint(format!(
            "`flowrun show {run}` tells how far it is, `flowrun cancel {run}` ends it; --force \
             switches the server under it"
        )));
    }
    eprintln!("{} {node}: {held}", paint("warning:", "33", colours()));
    Ok(())
}
