//! `flows`: which flows there are, which version of them who uses, and publishing new ones.

use super::Exit;
use super::args::{Cli, FlowsCommand};
use super::format::{self, short, time};
use super::site::configured;
use crate::catalogue::publish::{Publication, Refused, Shelf};
use crate::catalogue::{self, BrokenEdit, Edition, Flow, Listing, OpenRun, Origin, Snapshot};
use crate::cli::output::{out, put};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::journal::Journal;
use crate::lua::LuaRuntime;
use crate::lua::bind::{Site, registry};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) async fn flows(cli: &Cli, command: Option<&FlowsCommand>) -> Result<Exit> {
    let config = site(cli)?;
    let registry = registry(&Arc::new(Site::new(config.clone())));
    let runtime = LuaRuntime::new(Arc::new(registry));
    match command {
        None => list(cli, &config, &runtime).await,
        Some(FlowsCommand::Publish { dir, to, dry_run }) => {
            let (shelf, folders) = shelf(&config, to.as_deref())?;
            let published = shelf.publish(&runtime, &folders, dir, *dry_run).await;
            tell(cli, published, *dry_run)
        }
        Some(FlowsCommand::Rollback {
            version,
            to,
            dry_run,
        }) => {
            let (shelf, folders) = shelf(&config, to.as_deref())?;
            let wanted = version.as_deref();
            let published = shelf.roll_back(&runtime, &folders, wanted, *dry_run).await;
            tell(cli, published, *dry_run)
        }
    }
}

/// Flow folders and state directory; no simulated site is started for them.
fn site(cli: &Cli) -> Result<Config> {
    let Some(dir) = &cli.lab_dir else {
        return configured(cli);
    };
    let mut config = Config::default();
    config.site.state_dir = Some(dir.join("state"));
    config.site.flows = vec![PathBuf::from("flows")];
    Ok(config)
}

async fn list(cli: &Cli, config: &Config, runtime: &LuaRuntime) -> Result<Exit> {
    let state = config.state_dir();
    let journal = match state.join("journal.db").is_file() {
        true => Some(Journal::open(&state)?),
        false => None,
    };
    let before = match &journal {
        Some(journal) => catalogue::last_good(runtime, journal).await?,
        None => Edition::default(),
    };
    let snapshot = Snapshot::read(&config.site.flows);
    let (edition, broken) = match catalogue::check_folders(runtime, &snapshot, &before).await {
        Ok(edition) => (edition, None),
        Err(broken) => (before, Some(broken)),
    };
    let listing = catalogue::list(&edition, broken, journal.as_ref()).await?;
    if cli.json {
        out!("{}", json!(listing));
    } else {
        show(&listing);
        config
            .site
            .flows
            .iter()
            .for_each(|folder| show_shelf(folder));
    }
    Ok(Exit::Done)
}

fn show(listing: &Listing) {
    out!("{:<20}  {:<12}  {:<28}  ACTIONS", "FLOW", "VERSION", "FROM");
    for flow in &listing.flows {
        let Flow {
            name,
            version,
            info,
            ..
        } = flow;
        let actions = info.actions.join(" ");
        out!(
            "{name:<20}  {:<12}  {:<28}  {actions}",
            short(&version.hash),
            from(flow)
        );
    }
    if !listing.open_runs.is_empty() {
        out!();
        out!(
            "{:<12}  {:<10} {:<20}  {:<10}  VERSION",
            "OPEN RUN",
            "NODE",
            "FLOW",
            "STATUS"
        );
    }
    for run in &listing.open_runs {
        let OpenRun {
            node,
            flow,
            status,
            newest,
            ..
        } = run;
        let age = if *newest { "" } else { ", not the newest" };
        let (id, version, status) = (short(&run.run), short(&run.version), status.as_str());
        out!("{id:<12}  {node:<10} {flow:<20}  {status:<10}  {version}{age}");
    }
    match (&listing.broken, &listing.last_broken) {
        (Some(edit), _) => {
            out!();
            out!("what is in the folders now is broken; new runs of a daemon do not get it");
            put!("{}", faults(edit));
        }
        (None, Some(edit)) => {
            out!();
            out!(
                "the last broken edit, mended since, was of {} UTC",
                time(edit.t_ms)
            );
            put!("{}", faults(edit));
        }
        (None, None) => {}
    }
}

fn from(flow: &Flow) -> String {
    let place = match flow.origin {
        Origin::Site => flow.entry.clone(),
        Origin::BuiltIn => "built in".to_owned(),
    };
    match flow.shadows.is_empty() {
        true => place,
        false => format!("{place} (hides {})", flow.shadows.join(", ")),
    }
}

fn show_shelf(folder: &Path) {
    let shelf = Shelf::of(folder);
    let Ok((Some(current), names)) = shelf.and_then(|s| Ok((s.current()?, s.names()?))) else {
        return;
    };
    let former = names.iter().take_while(|name| **name != current).last();
    let back = former.map(|name| format!("; `flowrun flows rollback` goes back to {name}"));
    out!();
    out!(
        "{} is publication {current}{}",
        folder.display(),
        back.unwrap_or_default()
    );
}

/// The mistakes of an edit, as an error of a run is shown.
fn faults(edit: &BrokenEdit) -> String {
    let shown = edit.faults.iter().map(|fault| {
        let place = fault
            .at
            .as_deref()
            .map(|at| format::source(at, fault.excerpt.as_deref(), format::colours()));
        let headline = format::error(&fault.error, None, format::colours());
        let mut lines = headline.lines().filter(|line| !line.starts_with("  -->"));
        let first = lines.next().unwrap_or_default();
        let rest: String = lines.map(|line| format!("{line}\n")).collect();
        format!("{first}\n{}{rest}", place.unwrap_or_default())
    });
    shown.collect()
}

/// The folder that is published to: the one given, else the first of the site.
fn shelf(config: &Config, to: Option<&Path>) -> Result<(Shelf, Vec<PathBuf>)> {
    let folders = config.site.flows.clone();
    let target = match to {
        Some(to) => folders.iter().find(|folder| *folder == to),
        None => folders.first(),
    };
    let target = target.ok_or_else(|| {
        Error::new(Kind::Invalid, "there is no such flow folder to publish to")
            .hint("[site] flows = [...] in flowrun.toml lists them")
    })?;
    Ok((Shelf::of(target)?, folders))
}

fn tell(cli: &Cli, published: Result<Publication, Refused>, dry: bool) -> Result<Exit> {
    let publication = match published {
        Ok(publication) => publication,
        Err(Refused::Failed(error)) => return Err(error),
        Err(Refused::Broken(edit)) => {
            if cli.json {
                out!("{}", json!({ "event": "broken_edit", "broken": edit }));
            }
            eprint!("{}", faults(&edit));
            let message = "nothing is published: the folder does not check";
            return Err(Error::new(Kind::Invalid, message));
        }
    };
    if cli.json {
        out!("{}", json!(publication));
        return Ok(Exit::Done);
    }
    let Publication {
        name,
        before,
        added,
        changed,
        removed,
    } = &publication;
    let verb = if dry { "would publish" } else { "published" };
    let before = before.as_ref().map(|name| format!(", before it {name}"));
    out!("{verb} {name}{}", before.unwrap_or_default());
    for (what, files) in [("added", added), ("changed", changed), ("removed", removed)] {
        files.iter().for_each(|file| out!("  {what:<8} {file}"));
    }
    Ok(Exit::Done)
}
