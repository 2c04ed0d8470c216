//! `check`: mistakes in flows, told before a server pays for them.

use super::args::Cli;
use super::site::configured;
use super::start::find_flow;
use super::{Exit, format};
use crate::cli::output::{out, put};
use crate::engine::{add_quirks, excerpt, is_quirk, read_folder, read_folders, seal_bundle};
use crate::error::Result;
use crate::journal::Bundle;
use crate::lua::bind::{Site, registry};
use crate::lua::check::{Finding, Level, check as check_bundle};
use crate::lua::stdlib;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) async fn check(cli: &Cli, files: &[String]) -> Result<Exit> {
    let mut config = configured(cli)?;
    if config.site.flows.is_empty() {
        config.site.flows = vec![PathBuf::from("flows")];
    }
    let folders = config.site.flows.clone();
    let registry = Arc::new(registry(&Arc::new(Site::new(config))));
    let bundles = match files {
        [] => of_the_site(&folders)?,
        files => files
            .iter()
            .map(|file| of_file(file, &folders))
            .collect::<Result<_>>()?,
    };
    let (mut told, mut errors, mut warnings) = (BTreeSet::new(), 0, 0);
    let mut read = BTreeSet::new();
    for Checked { bundle, only } in &bundles {
        read.extend(
            bundle
                .files
                .keys()
                .filter(|path| is_wanted(only, path))
                .cloned(),
        );
        for finding in check_bundle(&registry, bundle).await {
            if !is_wanted(only, &finding.path) || !told.insert(finding.clone()) {
                continue;
            }
            match finding.level {
                Level::Error => errors += 1,
                Level::Warning => warnings += 1,
            }
            tell(cli, &finding, bundle);
        }
    }
    if !cli.json {
        out!("{} files: {errors} errors, {warnings} warnings", read.len());
    }
    Ok(if errors > 0 { Exit::Failed } else { Exit::Done })
}

/// A bundle, and the file that was asked for.
struct Checked {
    bundle: Arc<Bundle>,
    only: Option<String>,
}

/// A flow of the same folder is not what was asked for; a module or quirk that a flow uses is.
fn is_wanted(only: &Option<String>, path: &str) -> bool {
    only.as_ref()
        .is_none_or(|only| only == path || is_quirk(path))
}

fn of_file(file: &str, folders: &[PathBuf]) -> Result<Checked> {
    let path = Path::new(file);
    if !is_quirk(file) || !path.is_file() {
        let (bundle, entry) = find_flow(file, folders)?;
        return Ok(Checked {
            bundle,
            only: Some(entry),
        });
    }
    // A quirk is loaded with the flows that stand beside its folder, else with the stock ones.
    let beside = path.parent().and_then(Path::parent);
    let beside = beside.unwrap_or_else(|| Path::new("")).to_owned();
    let own = folder(&beside, folders)?;
    let alone = own
        .files
        .keys()
        .all(|path| is_quirk(path) || path.starts_with(stdlib::FOLDER));
    let bundle = match alone {
        true => with_stock(&[beside])?,
        false => own,
    };
    Ok(Checked {
        bundle,
        only: Some(file.to_owned()),
    })
}

/// Every flow folder that there is, and the stock flows with the site's quirks.
fn of_the_site(folders: &[PathBuf]) -> Result<Vec<Checked>> {
    let mut all = vec![Checked {
        bundle: with_stock(folders)?,
        only: None,
    }];
    for each in folders.iter().filter(|folder| folder.is_dir()) {
        let bundle = folder(each, folders)?;
        all.push(Checked { bundle, only: None });
    }
    for test in super::test::of_the_site(folders)? {
        all.push(of_file(&test.display().to_string(), folders)?);
    }
    Ok(all)
}

/// The flows, modules and quirks of a folder.
fn folder(path: &Path, folders: &[PathBuf]) -> Result<Arc<Bundle>> {
    let own = read_folder(path)?;
    let mut files = stdlib::modules();
    files.extend(own.modules.clone());
    let mut all = vec![own];
    all.extend(read_folders(folders)?);
    add_quirks(&all, &mut files);
    Ok(Arc::new(seal_bundle(files)))
}

fn with_stock(folders: &[PathBuf]) -> Result<Arc<Bundle>> {
    let mut files = stdlib::modules();
    files.extend(stdlib::flows());
    add_quirks(&read_folders(folders)?, &mut files);
    Ok(Arc::new(seal_bundle(files)))
}

fn tell(cli: &Cli, finding: &Finding, bundle: &Bundle) {
    let place = format!("{}:{}", finding.path, finding.line);
    let lines = excerpt(bundle, &place);
    if cli.json {
        let mut line = json!(finding);
        if let Some(fields) = line.as_object_mut() {
            fields.insert("excerpt".to_owned(), json!(lines));
        }
        out!("{line}");
        return;
    }
    let colour = format::colours();
    let (word, code) = match finding.level {
        Level::Error => ("error:", "1;31"),
        Level::Warning => ("warning:", "33"),
    };
    put!(
        "{} {}\n{}",
        format::paint(word, code, colour),
        finding.message,
        format::source(&place, lines.as_deref(), colour),
    );
    if let Some(hint) = &finding.hint {
        put!("  {} {hint}\n", format::paint("hint:", "36", colour));
    }
    out!();
}
