//! Checks everything in the flow folders, all or nothing.

use super::{BrokenEdit, Fault, Flow, Origin, Snapshot};
use crate::clock;
use crate::engine::{Files, add_quirks, seal_bundle};
use crate::error::{Error, Kind, Result};
use crate::journal::{Bundle, Journal};
use crate::lua::check::{Finding, Level};
use crate::lua::{FlowInfo, LuaRuntime, stdlib};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Flows that were good together.
#[derive(Debug, Default, Clone)]
pub struct Edition {
    /// Content hash of all of it.
    pub version: String,
    /// By name.
    pub flows: BTreeMap<String, Flow>,
}

/// What the journal keeps of a [`Flow`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Recorded {
    name: String,
    entry: String,
    origin: Origin,
    shadows: Vec<String>,
    version: String,
}

impl Recorded {
    pub(super) fn of(flow: &Flow) -> Self {
        Self {
            name: flow.name.clone(),
            entry: flow.entry.clone(),
            origin: flow.origin,
            shadows: flow.shadows.clone(),
            version: flow.version.hash.clone(),
        }
    }
}

/// Loads every flow, module and quirk of the folders, and what is built in with these quirks.
/// `before` is what was good: a flow of it whose file is still there must still be one.
///
/// # Errors
/// Every mistake, each with its place.
pub async fn check_folders(
    runtime: &LuaRuntime,
    snapshot: &Snapshot,
    before: &Edition,
) -> Result<Edition, BrokenEdit> {
    let mut faults: Vec<Fault> = snapshot
        .errors()
        .map(|e| Fault::new(e.clone(), None))
        .collect();
    let mut flows = BTreeMap::new();
    for (bundle, folder, origin) in bundles(snapshot) {
        match surveyed(runtime, &bundle, &folder, origin).await {
            Ok(found) => add(&mut flows, &bundle, origin, found),
            Err(errors) => {
                faults.extend(errors.into_iter().map(|e| Fault::new(e, Some(&bundle))));
            }
        }
    }
    if faults.is_empty() {
        faults = lost(snapshot, before, &flows);
    }
    if faults.is_empty() {
        return Ok(edition(flows));
    }
    // A quirk is part of every folder's bundle.
    let mut told = Vec::new();
    faults.into_iter().for_each(|fault| {
        if !told.contains(&fault) {
            told.push(fault);
        }
    });
    Err(BrokenEdit {
        t_ms: clock::unix_ms(),
        faults: told,
    })
}

/// The flows of a folder, unless `flowrun check` would find an error in it. What is built in was
/// checked when it was built; quirks of the site are checked with the site's flows.
async fn surveyed(
    runtime: &LuaRuntime,
    bundle: &Arc<Bundle>,
    folder: &str,
    origin: Origin,
) -> Result<BTreeMap<String, FlowInfo>, Vec<Error>> {
    let found = runtime.survey(bundle, folder).await?;
    if origin == Origin::BuiltIn {
        return Ok(found);
    }
    let findings = runtime.check(bundle, &found).await;
    let errors = findings.iter().filter(|f| f.level == Level::Error);
    let errors: Vec<_> = errors.map(Finding::as_error).collect();
    match errors.is_empty() {
        true => Ok(found),
        false => Err(errors),
    }
}

/// A bundle a folder, and one of what is built in.
fn bundles(snapshot: &Snapshot) -> Vec<(Arc<Bundle>, String, Origin)> {
    let folders = || snapshot.present().map(|(_, folder)| folder);
    let mut list = Vec::new();
    for (path, folder) in snapshot.present() {
        let mut files = stdlib::modules();
        files.extend(folder.modules.clone());
        add_quirks(std::iter::once(folder).chain(folders()), &mut files);
        list.push((files, path.display().to_string(), Origin::Site));
    }
    let mut files: Files = stdlib::modules();
    files.extend(stdlib::flows());
    add_quirks(folders(), &mut files);
    list.push((files, stdlib::FLOWS_FOLDER.to_owned(), Origin::BuiltIn));
    let seal = |(files, folder, origin)| (Arc::new(seal_bundle(files)), folder, origin);
    list.into_iter().map(seal).collect()
}

/// The first flow of a name is the one that is found; it hides the others.
fn add(
    flows: &mut BTreeMap<String, Flow>,
    bundle: &Arc<Bundle>,
    origin: Origin,
    found: BTreeMap<String, FlowInfo>,
) {
    for (entry, info) in found {
        let stem = Path::new(&entry).file_stem().and_then(|stem| stem.to_str());
        let name = stem.unwrap_or_default().to_owned();
        if let Some(first) = flows.get_mut(&name) {
            first.shadows.push(match origin {
                Origin::Site => entry,
                Origin::BuiltIn => "built in".to_owned(),
            });
            continue;
        }
        let flow = Flow {
            name: name.clone(),
            entry,
            origin,
            shadows: Vec::new(),
            version: bundle.clone(),
            info,
        };
        flows.insert(name, flow);
    }
}

fn edition(flows: BTreeMap<String, Flow>) -> Edition {
    let hashes = flows.values().map(|flow| {
        let place = format!("{} {}", flow.name, flow.entry);
        (place, flow.version.hash.clone())
    });
    Edition {
        version: seal_bundle(hashes.collect()).hash,
        flows,
    }
}

/// A flow goes when its file is removed, not when the file becomes something else or all of its
/// folder is gone: that is what an edit looks like half-way.
fn lost(snapshot: &Snapshot, before: &Edition, now: &BTreeMap<String, Flow>) -> Vec<Fault> {
    let had = |folder: &Path| {
        let mut flows = before.flows.values().filter(|f| f.origin == Origin::Site);
        flows.any(|flow| Path::new(&flow.entry).parent() == Some(folder))
    };
    let gone = snapshot.folders.iter().filter(|(path, folder)| {
        let empty = folder.as_ref().map_or(true, |f| f.modules.is_empty());
        empty && had(path)
    });
    let gone = gone.map(|(path, _)| {
        Error::new(
            Kind::NotFound,
            "the flow folder is gone or empty, and it had flows",
        )
        .target(path.display().to_string())
        .hint("take it out of `flows` in flowrun.toml if that is meant")
    });
    let became = before.flows.values().filter(|flow| {
        let files = snapshot
            .present()
            .any(|(_, f)| f.modules.contains_key(&flow.entry));
        files
            && !now
                .values()
                .any(|n| n.entry == flow.entry || n.shadows.contains(&flow.entry))
    });
    let became = became.map(|flow| {
        Error::new(
            Kind::Invalid,
            format!("{} was a flow and is none any more", flow.entry),
        )
        .detail("at", vec![Value::from(format!("{}:1", flow.entry))])
        .hint("end it with `return flow { ... }`, or give the module a new name")
    });
    gone.chain(became).map(|e| Fault::new(e, None)).collect()
}

/// The edition that was good when a daemon last used this journal, as far as it still checks.
///
/// # Errors
/// The journal's.
pub async fn last_good(runtime: &LuaRuntime, journal: &Journal) -> Result<Edition> {
    let Some(edit) = journal.last_edit().await? else {
        return Ok(Edition::default());
    };
    let kept: Vec<Recorded> = serde_json::from_value(edit.flows).unwrap_or_default();
    let mut checked = BTreeMap::new();
    let mut flows = BTreeMap::new();
    for flow in kept {
        let folder = Path::new(&flow.entry)
            .parent()
            .unwrap_or_else(|| Path::new(""));
        let place = (flow.version.clone(), folder.display().to_string());
        if !checked.contains_key(&place) {
            let bundle = Arc::new(journal.bundle(&place.0).await?);
            let found = runtime.survey(&bundle, &place.1).await.unwrap_or_default();
            checked.insert(place.clone(), (bundle, found));
        }
        let known = checked.get(&place);
        let Some((bundle, info)) = known.and_then(|(b, infos)| Some((b, infos.get(&flow.entry)?)))
        else {
            continue;
        };
        let flow = Flow {
            name: flow.name,
            entry: flow.entry,
            origin: flow.origin,
            shadows: flow.shadows,
            version: bundle.clone(),
            info: info.clone(),
        };
        flows.insert(flow.name.clone(), flow);
    }
    Ok(edition(flows))
}
