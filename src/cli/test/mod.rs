//! `test`: the tests of flows, each on a simulated site of its own.

mod bench;

use super::args::Cli;
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

/// How long a test may take, in real time.
const LIMIT: Duration = Duration::from_secs(300);

/// How many passed and failed.
#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
}

pub(super) async fn test(cli: &Cli, files: &[PathBuf], filter: Option<&str>) -> Result<Exit> {
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
        one_file(cli, file, &folders, filter, &mut count).await?;
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
    filter: Option<&str>,
    count: &mut Count,
) -> Result<()> {
    let entry = file.display().to_string();
    if !crate::engine::is_test(&entry) {
        let error = Error::new(Kind::Invalid, "a file of tests is named *_test.lua");
        return Err(error.target(entry));
    }
    let bundle = bundle(file)?;
    let shown = |e: &Error| eprint!("{}", format::error(e, Some(&bundle), format::colours()));
    let reader = LuaRuntime::new(Arc::new(registry(&Arc::new(Bench::new(file, folders)))));
    let tests = reader.tests(&bundle, &entry).inspect_err(shown)?;
    let wanted = |name: &str| filter.is_none_or(|part| name.contains(part));
    if !cli.json {
        out!("{entry}");
    }
    for (name, _) in tests.iter().filter(|(name, _)| wanted(name)) {
        let bench = Arc::new(Bench::new(file, folders));
        let began = clock::instant();
        let ended = one_test(&bundle, &entry, name, &bench).await;
        bench.end().await;
        let error = ended.map_or_else(Some, |end| end.error);
        match error {
            None => count.passed += 1,
            Some(_) => count.failed += 1,
        }
        let told = Told {
            file: &entry,
            name,
            seconds: began.elapsed().as_secs_f64(),
            error,
            log: bench.log(),
        };
        told.show(cli, &bundle);
    }
    Ok(())
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
    seconds: f64,
    error: Option<Error>,
    log: Vec<String>,
}

impl Told<'_> {
    fn show(&self, cli: &Cli, bundle: &Bundle) {
        if cli.json {
            let ok = self.error.is_none();
            let line = json!({
                "event": "test", "file": self.file, "name": self.name, "ok": ok,
                "seconds": self.seconds, "error": self.error,
                "log": if ok { Value::Null } else { json!(self.log) },
            });
            out!("{line}");
            return;
        }
        let colour = format::colours();
        let took = format::seconds(self.seconds);
        let Some(error) = &self.error else {
            out!(
                "  {}      {}  {took}",
                format::paint("ok", "32", colour),
                self.name
            );
            return;
        };
        out!(
            "  {}  {}  {took}",
            format::paint("FAILED", "1;31", colour),
            self.name
        );
        for line in format::error(error, Some(bundle), colour).lines() {
            out!("    {line}");
        }
        for line in &self.log {
            out!("    | {line}");
        }
    }
}
