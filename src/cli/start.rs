//! `run`, `resume`, `cancel`: runs in the foreground.

use super::args::{Cli, Run};
use super::site::{Ground, state_dir};
use super::{Exit, follow, format};
use crate::api::listener::{self, Listener};
use crate::cli::output::out;
use crate::engine::{self, NewScript, Script, Started};
use crate::error::{Error, Kind, Result};
use crate::journal::{Bundle, Journal, RunRecord, lay_over};
use crate::lua::stdlib;
use crate::suggest::near;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) async fn run(cli: &Cli, args: &Run) -> Result<Exit> {
    let params = pairs(&args.param)?;
    let ground = Ground::open(cli, &args.node, &args.set).await?;
    let (bundle, entry) = find_flow(&args.flow, &ground.config.site.flows)?;
    let prepared = prepare(&ground, &bundle, &entry, args.action.as_deref(), &params);
    let (flow, action, params) = prepared.map_err(|e| format::with_lines(e, &bundle))?;
    announce(cli, &ground, &bundle, &entry, &action, &args.node, &params).await?;
    let listener = listen(&ground)?;
    let story = follow::Story::begin(cli, ground.engine.events().subscribe(), args.node.len());
    let mut started = Vec::new();
    let mut refused = None;
    for name in &args.node {
        let script = Script {
            bundle: bundle.clone(),
            entry: entry.clone(),
            action: action.clone(),
            params: params.clone(),
            node: ground.config.node(name)?.view(name),
        };
        let new = NewScript {
            flow: flow.clone(),
            script,
            node: name.clone(),
        };
        match ground.engine.start(new).await {
            Ok(run) => started.push(run),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    let exit = finish(cli, &ground, story, started).await?;
    drop(listener);
    match refused {
        Some(error) => Err(error),
        None => Ok(exit),
    }
}

/// Runs an action of the stock flow, or of the site's flow of that name.
pub(super) async fn stock_action(
    cli: &Cli,
    ground: &Ground,
    action: &str,
    node: &str,
    given: &BTreeMap<String, String>,
) -> Result<Exit> {
    let (bundle, entry) = find_flow("ilo_vmedia_iscsi", &ground.config.site.flows)?;
    let (flow, action, params) = prepare(ground, &bundle, &entry, Some(action), given)?;
    let story = follow::Story::begin(cli, ground.engine.events().subscribe(), 1);
    let script = Script {
        bundle,
        entry,
        action,
        params,
        node: ground.config.node(node)?.view(node),
    };
    let new = NewScript {
        flow,
        script,
        node: node.to_owned(),
    };
    let started = ground.engine.start(new).await?;
    finish(cli, ground, story, vec![started]).await
}

fn prepare(
    ground: &Ground,
    bundle: &Arc<Bundle>,
    entry: &str,
    action: Option<&str>,
    params: &BTreeMap<String, String>,
) -> Result<(String, String, Value)> {
    let info = ground.runtime.inspect(bundle, entry)?;
    let action = info.action(action)?;
    let params = info.params(params)?;
    Ok((info.name, action, params))
}

fn listen(ground: &Ground) -> Result<Listener> {
    let listener = listener::listen(&ground.config, &ground.api()?)?;
    if listener.is_waiting() {
        eprintln!(
            "the address of [api] listen is taken: callbacks go to whoever holds it, which should \
             be a flowrun of this site"
        );
    }
    Ok(listener)
}

/// Says which file is used and what it will destroy.
async fn announce(
    cli: &Cli,
    ground: &Ground,
    bundle: &Arc<Bundle>,
    entry: &str,
    action: &str,
    nodes: &[String],
    params: &Value,
) -> Result<()> {
    if cli.json {
        return Ok(());
    }
    say_flow(entry, &bundle.hash);
    for name in nodes {
        let mut view = ground.config.node(name)?.view(name);
        lay_over(&mut view, &ground.engine.journal().learned(name).await?);
        let destroys = (ground.runtime).destroys(bundle, entry, action, &view, params)?;
        say_destroys(name, &destroys);
    }
    Ok(())
}

pub(super) fn say_flow(entry: &str, hash: &str) {
    eprintln!("flow {entry} ({})", hash.get(..12).unwrap_or_default());
}

pub(super) fn say_destroys(node: &str, destroys: &[String]) {
    for what in destroys {
        eprintln!("{node}: destroys {what}");
    }
}

/// Follows runs to their end, prints what they say of themselves, and answers the worst exit.
pub(super) async fn finish(
    cli: &Cli,
    ground: &Ground,
    story: follow::Story,
    started: Vec<Started>,
) -> Result<Exit> {
    let ends = follow::to_the_end(ground, started).await?;
    story.end().await;
    let mut worst = Exit::Done;
    for end in &ends {
        super::report::run(cli, ground, end).await?;
        worst = worst.max(Exit::of_status(end.status));
    }
    super::report::lab(cli, ground, &ends).await;
    ground.engine.journal().sync().await?;
    Ok(worst)
}

pub(super) async fn resume(cli: &Cli, prefix: &str, cancel: bool) -> Result<Exit> {
    let record = Journal::open(&state_dir(cli)?)?.find_run(prefix).await?;
    let ground = Ground::open(cli, std::slice::from_ref(&record.node), &[]).await?;
    let listener = listen(&ground)?;
    let story = follow::Story::begin(cli, ground.engine.events().subscribe(), 1);
    let started = ground.engine.resume(record, cancel).await?;
    let exit = finish(cli, &ground, story, vec![started]).await?;
    drop(listener);
    Ok(exit)
}

/// A run that somebody works on is asked to cancel; one that nobody works on is unwound here.
pub(super) async fn cancel(cli: &Cli, prefix: &str) -> Result<Exit> {
    let journal = Journal::open(&state_dir(cli)?)?;
    let record = journal.find_run(prefix).await?;
    if record.status.is_final() {
        let message = format!("the run has ended: {}", record.status.as_str());
        return Err(Error::new(Kind::Conflict, message).target(record.id));
    }
    if goes_on(&record) {
        journal.request_cancel(&record.id).await?;
        out!(
            "asked {} to cancel run {}",
            record.owner,
            format::short(&record.id)
        );
        return Ok(Exit::Done);
    }
    match resume(cli, prefix, true).await? {
        Exit::Cancelled => Ok(Exit::Done),
        other => Ok(other),
    }
}

fn goes_on(record: &RunRecord) -> bool {
    use crate::journal::RunStatus::Running;
    record.status == Running && engine::is_alive(&record.owner, record.alive_ms)
}

pub(super) fn pairs(given: &[String]) -> Result<BTreeMap<String, String>> {
    given
        .iter()
        .map(|pair| {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                Error::new(Kind::Invalid, format!("--param {pair:?} is not understood"))
                    .hint("--param callback_timeout=15m")
            })?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// A `.lua` file, or a name: the flow folders first, then what is built in.
pub(super) fn find_flow(wanted: &str, folders: &[PathBuf]) -> Result<(Arc<Bundle>, String)> {
    let is_path = Path::new(wanted).extension().is_some_and(|e| e == "lua");
    let on_disk = if is_path {
        Some(PathBuf::from(wanted)).filter(|path| path.is_file())
    } else {
        let named = folders
            .iter()
            .map(|folder| folder.join(format!("{wanted}.lua")));
        named.into_iter().find(|path| path.is_file())
    };
    if let Some(path) = on_disk {
        let bundle = engine::collect_bundle(&path, stdlib::modules(), folders)?;
        return Ok((Arc::new(bundle), path.display().to_string()));
    }
    let stock = stdlib::flows();
    let entry = if is_path {
        wanted.to_owned()
    } else {
        format!("flows/{wanted}.lua")
    };
    if stock.contains_key(&entry) {
        let mut files = stdlib::modules();
        files.extend(stock);
        engine::add_quirks(&engine::read_folders(folders)?, &mut files);
        return Ok((Arc::new(engine::seal_bundle(files)), entry));
    }
    let known: Vec<&str> = stock.keys().map(String::as_str).collect();
    let error = Error::new(Kind::NotFound, format!("there is no flow {wanted}"));
    Err(match near(&entry, &known) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error.hint(format!(
            "give a .lua file; built in are {}",
            known.join(", ")
        )),
    })
}
