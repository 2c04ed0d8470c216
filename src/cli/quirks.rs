//! `quirks`: which overlays apply to a node, and why or why not.

use super::args::Cli;
use super::site::Ground;
use super::start::find_flow;
use super::{Exit, call, format};
use crate::cli::output::{out, put};
use crate::error::Result;
use crate::lua::QuirkVerdict;
use serde_json::{Map, Value, json};

pub(super) async fn quirks(cli: &Cli, node: &str, flow: &str) -> Result<Exit> {
    let ground = Ground::open(cli, &[node.to_owned()], &[]).await?;
    let (bundle, entry) = find_flow(flow, &ground.config.site.flows)?;
    let needed = ground.runtime.quirks_need_info(&bundle, &entry);
    let needed = needed.map_err(|e| format::with_lines(e, &bundle))?;
    let info = if needed {
        ask(&ground, node).await?
    } else {
        json!({})
    };
    let verdicts = ground.runtime.judge_quirks(&bundle, &entry, &info)?;
    if cli.json {
        for verdict in &verdicts {
            out!("{}", json!(verdict));
        }
    } else if verdicts.is_empty() {
        out!("{entry} has no quirks");
    } else {
        verdicts
            .iter()
            .for_each(|verdict| put!("{}", show(verdict)));
    }
    Ok(Exit::Done)
}

/// What a run of the flow would match on.
async fn ask(ground: &Ground, node: &str) -> Result<Value> {
    let spec = ground.registry.get("ilo.info")?;
    let named = Map::from_iter([("node".to_owned(), Value::from(node))]);
    let end = call::perform(ground, spec, named, Some(node.to_owned())).await?;
    match end.error {
        Some(error) => Err(error),
        None => Ok(end.result),
    }
}

fn show(verdict: &QuirkVerdict) -> String {
    let mark = if verdict.applies { "applies" } else { "not" };
    let mut text = format!("{mark:<8} {}  {}\n", verdict.id, verdict.at);
    let mut line = |name: &str, what: &str| {
        text.push_str(&format!("         {name:<8} {what}\n"));
    };
    line("why", &verdict.why);
    for reason in &verdict.reasons {
        line("match", reason);
    }
    if !verdict.changes.is_empty() {
        line("changes", &verdict.changes);
    }
    if let Some(day) = &verdict.expires {
        let passed = if verdict.expired {
            ": it has expired"
        } else {
            ""
        };
        line("expires", &format!("{day}{passed}"));
    }
    text
}
