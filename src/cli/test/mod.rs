//! `test`: the tests of flows, each on a simulated site of its own.

mod bench;
mod sweep;

use super::args::{Cli, TestArgs};
use super::site::configured;
use super::{Exit, format};
use crate::cli::output::out;
use crate::clock;
use crate::engine::{Engine, NewScript, RunEnd, Script, collect_bundle, is_quirk, seal_bundle};
use crate::error::{Error, Kind, Result};
use crate::journal::Bundle;
use crate::lua::{LuaRuntime, bind, stdlib};
use bench::Bench;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use sweep::Trial;

/// How long a test may take, in real time.
const LIMIT: Duration = Duration::from_secs(300);

/// How many passed and failed.
#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
}

pub(super) async fn test(cli: &Cli, args: &TestArgs) -> Result<Exit> {
    let files = &args.files[..];
    let mut folders = configured(cli)?.site.flows;
    if folders.is_empty() {
        folders.push(PathBuf::from("flows"));
    }
    let files = match files {
        [] => of_the_site(&folders)?,
        files => files.to_vec(),
    };
    if files.is_empty() {
        let error = Error::new(Kind::NotFound, "there are no tests");
        return Err(error.hint("tests of flows/deploy.lua stand in flows/deploy_test.lua"));
    }
    let (began, mut count) = (clock::instant(), Count::default());
    for file in &files {
        one_file(cli, file, &folders, args, &mut count).await?;
    }
    let took = format::seconds(began.elapsed().as_secs_f64());
    if !cli.json {
        out!("{} passed, {} failed in {took}", count.passed, count.failed);
    }
    match (count.failed, count.passed) {
        (0, 0) => Err(Error::new(Kind::NotFound, "no test has such a name")),
        (0, _) => Ok(Exit::Done),
        _ => Ok(Exit::Failed),
    }
}

/// The test files of the flow folders.
pub(super) fn of_the_site(folders: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        let listing =
            std::fs::read_dir(folder).map_err(|e| Error::io(folder, "list the flow folder", &e))?;
        let files = listing.flatten().map(|item| folder.join(item.file_name()));
        found.extend(files.filter(|file| crate::engine::is_test(&file.to_string_lossy())));
    }
    found.sort();
    Ok(found)
}

async fn one_file(
    cli: &Cli,
    file: &Path,
    folders: &[PathBuf],
    args: &TestArgs,
    count: &mut Count,
) -> Result<()> {
    let entry = file.display().to_string();
    if !crate::engine::is_test(&entry) {
        let error = Error::new(Kind::Invalid, "a file of tests is named *_test.lua");
        return Err(error.target(entry));
    }
    let bundle = bundle(file)?;
    let reader = LuaRuntime::new(Arc::new(registry(&Arc::new(Bench::new(
        file, folders, None,
    )))));
    let tests = reader.tests(&bundle, &entry);
    let tests = tests.map_err(|e| format::with_lines(e, &bundle))?;
    let filter = args.filter.as_deref();
    let wanted = |name: &str| filter.is_none_or(|part| name.contains(part));
    if !cli.json {
        out!("{entry}");
    }
    let place = Place {
        cli,
        bundle: &bundle,
        entry: &entry,
        file,
        folders,
    };
    for (name, _) in tests.iter().filter(|(name, _)| wanted(name)) {
        let runs = place.once(name, None, count).await;
        let trials = match args.sweep {
            true => sweep::trials(&runs.unwrap_or_default()),
            false => Vec::new(),
        };
        for trial in trials {
            place.once(name, Some(trial), count).await;
        }
    }
    Ok(())
}

/// A file of tests, and where it stands.
struct Place<'a> {
    cli: &'a Cli,
    bundle: &'a Arc<Bundle>,
    entry: &'a str,
    file: &'a Path,
    folders: &'a [PathBuf],
}

impl Place<'_> {
    /// A test, and in a sweep what happens in it. If it passed, answers the calls of its runs.
    async fn once(
        &self,
        name: &str,
        trial: Option<Trial>,
        count: &mut Count,
    ) -> Option<Vec<Vec<String>>> {
        let at = trial.as_ref().map(ToString::to_string);
        let bench = Arc::new(Bench::new(self.file, self.folders, trial));
        let began = clock::instant();
        let ended = one_test(self.bundle, self.entry, name, &bench).await;
        bench.end().await;
        let error = match bench.verdict() {
            Some(verdict) => verdict.err(),
            None => ended.map_or_else(Some, |end| end.error),
        };
        let passed = error.is_none();
        match passed {
            true => count.passed += 1,
            false => count.failed += 1,
        }
        let told = Told {
            file: self.entry,
            name,
            at,
            seconds: began.elapsed().as_secs_f64(),
            error,
            log: bench.log(),
        };
        told.show(self.cli, self.bundle);
        passed.then(|| bench.runs())
    }
}

/// The file with the modules beside it; quirks are for what it runs.
fn bundle(file: &Path) -> Result<Arc<Bundle>> {
    let mut files = collect_bundle(file, stdlib::modules(), &[])?.files;
    files.retain(|path, _| !is_quirk(path));
    Ok(Arc::new(seal_bundle(files)))
}

fn registry(bench: &Arc<Bench>) -> crate::lua::spec::Registry {
    let mut registry = bind::data_only();
    bench::register(&mut registry, bench);
    registry
}

async fn one_test(
    bundle: &Arc<Bundle>,
    entry: &str,
    name: &str,
    bench: &Arc<Bench>,
) -> Result<RunEnd> {
    let registry = Arc::new(registry(bench));
    let runtime = Arc::new(LuaRuntime::new(registry.clone()));
    let engine = Engine::in_memory(registry, runtime)?;
    let new = NewScript {
        flow: entry.to_owned(),
        node: "(test)".to_owned(),
        script: Script {
            bundle: bundle.clone(),
            entry: entry.to_owned(),
            action: name.to_owned(),
            params: json!({}),
            node: json!({ "name": "(test)" }),
        },
    };
    engine.run_within(new, LIMIT).await
}

/// How a test ended.
struct Told<'a> {
    file: &'a str,
    name: &'a str,
    /// What happened in it.
    at: Option<String>,
    seconds: f64,
    error: Option<Error>,
    log: Vec<String>,
}

impl Told<'_> {
    fn show(&self, cli: &Cli, bundle: &Bundle) {
        if cli.json {
            let ok = self.error.is_none();
            let line = json!({
                "event": "test", "file": self.file, "name": self.name, "at": self.at, "ok": ok,
                "seconds": self.seconds, "error": self.error,
                "log": if ok { Value::Null } else { json!(self.log) },
            });
            out!("{line}");
            return;
        }
        let colour = format::colours();
        let took = format::seconds(self.seconds);
        let name = match &self.at {
            Some(at) => format!("{}, {at}", self.name),
            None => self.name.to_owned(),
        };
        let Some(error) = &self.error else {
            out!(
                "  {}      {}  {took}",
                format::paint("ok", "32", colour),
                name
            );
            return;
        };
        out!(
            "  {}  {}  {took}",
            format::paint("FAILED", "1;31", colour),
            name
        );
        for line in format::error(error, Some(bundle), colour).lines() {
            out!("    {line}");
        }
        for line in &self.log {
            out!("    | {line}");
        }
    }
}
