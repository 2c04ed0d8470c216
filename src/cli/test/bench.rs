//! What a test runs flows on: a simulated site of its own, whose folder is gone afterwards.

use super::super::render;
use super::super::site::lab_config;
use super::super::start::find_flow;
use super::sweep::{self, Trial};
use crate::api::{Api, listener};
use crate::config::Config;
use crate::engine::{
    Class, Engine, Event, Hang, Interrupted, NewScript, Point, Primitives, Reply, RunEnd, Script,
    Side, Started, What,
};
use crate::error::{Error, Kind, Result};
use crate::journal::RunStatus;
use crate::lab::site::{Site as Lab, SiteOptions};
use crate::lua::LuaRuntime;
use crate::lua::bind::{Site, hasten, registry};
use crate::lua::spec::{FnSpec, Registry, Ty};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

/// How long a power-on self test of the simulated servers takes.
const POST_TIME: Duration = Duration::from_millis(100);

/// What one test runs on.
#[derive(Debug)]
pub(super) struct Bench {
    /// The file of the test.
    test: PathBuf,
    folders: Vec<PathBuf>,
    up: tokio::sync::Mutex<Option<Up>>,
    /// What its runs told, for whoever reads why it failed.
    log: Mutex<Vec<String>>,
    /// What happens to one of its runs.
    trial: Option<Trial>,
    /// The calls of each of its runs that a sweep has to try.
    runs: Mutex<Vec<Vec<String>>>,
    /// What came of a run that the sweep cancelled; the test is over then.
    verdict: Mutex<Option<Result<()>>>,
}

#[derive(Debug)]
struct Up {
    site: Lab,
    dir: tempfile::TempDir,
    faults: Vec<String>,
    ilos: Vec<String>,
}

/// The table that `t.run` takes.
#[derive(Debug, Deserialize)]
struct Wanted {
    flow: Option<String>,
    action: Option<String>,
    node: String,
    #[serde(default)]
    params: Map<String, Value>,
    #[serde(default)]
    set: Map<String, Value>,
    #[serde(default)]
    faults: Vec<String>,
    ilo: Option<String>,
    crash_at: Option<String>,
    cancel_at: Option<String>,
}

/// What a run told.
#[derive(Debug, Default)]
struct Story {
    calls: Vec<String>,
    steps: Vec<String>,
    log: Vec<String>,
}

/// Declares `lab.run`, which tests call as `t.run`.
pub(super) fn register(registry: &mut Registry, bench: &Arc<Bench>) {
    let bench = bench.clone();
    let summary = "Runs a flow on the simulated site of the test.";
    registry.add(
        FnSpec::new("lab", "run", Class::Effect, summary)
            .optional(
                "flow",
                Ty::String,
                "a file or name; the one the test is named after",
            )
            .optional("action", Ty::String, "its action; the flow's default one")
            .default("node", Ty::String, "lab-1", "the node, `lab-1` to `lab-9`")
            .optional("params", Ty::Map(&Ty::Any), "parameters of the flow")
            .optional(
                "set",
                Ty::Map(&Ty::Any),
                "fields of the node: `instance_info.root_gb`",
            )
            .optional(
                "faults",
                Ty::List(&Ty::String),
                "what goes wrong: `flowrun lab faults`",
            )
            .optional(
                "ilo",
                Ty::String,
                "which iLO the nodes have: `ilo4-ribcl` … `ilo7`",
            )
            .optional(
                "crash_at",
                Ty::String,
                "the call in which the process dies, and goes on",
            )
            .optional(
                "cancel_at",
                Ty::String,
                "the call in which the run is cancelled",
            )
            .run(move |call| {
                let bench = bench.clone();
                async move { bench.run(call.decode()?).await.map(Reply::from) }
            }),
    );
}

impl Bench {
    pub(super) fn new(test: &Path, folders: &[PathBuf], trial: Option<Trial>) -> Self {
        Self {
            test: test.to_owned(),
            folders: folders.to_vec(),
            up: tokio::sync::Mutex::default(),
            log: Mutex::default(),
            trial,
            runs: Mutex::default(),
            verdict: Mutex::default(),
        }
    }

    /// What the runs told.
    pub(super) fn log(&self) -> Vec<String> {
        locked(&self.log).clone()
    }

    /// The calls of its runs.
    pub(super) fn runs(&self) -> Vec<Vec<String>> {
        locked(&self.runs).clone()
    }

    /// What came of the run that was cancelled, if it came to that.
    pub(super) fn verdict(&self) -> Option<Result<()>> {
        locked(&self.verdict).take()
    }

    /// Ends the site.
    pub(super) async fn end(&self) {
        if let Some(up) = self.up.lock().await.take() {
            up.site.stop().await;
        }
    }

    async fn run(&self, wanted: Wanted) -> Result<Value> {
        let mut up = self.up.lock().await;
        let current = self.site_for(up.take(), &wanted).await?;
        let number = locked(&self.runs).len();
        let trial = self.trial.as_ref().filter(|trial| trial.run == number);
        let before = current.site.snapshot();
        let ran = self.run_on(&current.site, &wanted, trial).await;
        let site = current.site.snapshot();
        *up = Some(current);
        let (end, story) = ran?;
        if let Some(trial) = trial.filter(|trial| trial.cancel) {
            let verdict = sweep::judge(trial, &end, &wanted.node, [&before, &site]);
            *locked(&self.verdict) = Some(verdict);
            return Err(Error::new(Kind::Cancelled, "the sweep has seen enough"));
        }
        Ok(json!({
            "id": end.id,
            "status": end.status,
            "error": end.error,
            "result": end.result,
            "calls": story.calls,
            "steps": story.steps,
            "log": story.log,
            "site": site,
        }))
    }

    /// The site as it is; with other faults the same one anew, disks and objects kept.
    async fn site_for(&self, up: Option<Up>, wanted: &Wanted) -> Result<Up> {
        let ilos: Vec<String> = wanted.ilo.iter().cloned().collect();
        let dir = match up {
            Some(up) if up.faults == wanted.faults && up.ilos == ilos => return Ok(up),
            Some(up) => {
                up.site.stop().await;
                up.dir
            }
            None => tempfile::Builder::new()
                .prefix("flowrun-test-")
                .tempdir()
                .map_err(|e| Error::new(Kind::Io, "no temporary folder").caused_by(&e))?,
        };
        let number = wanted
            .node
            .strip_prefix("lab-")
            .and_then(|n| n.parse().ok());
        let nodes = number.filter(|n| (1..=9).contains(n)).ok_or_else(|| {
            let message = format!("there is no node {}", wanted.node);
            Error::new(Kind::NotFound, message).hint("the nodes of a test are lab-1 to lab-9")
        })?;
        let site = Lab::start(SiteOptions {
            nodes,
            post_time: POST_TIME,
            faults: wanted.faults.clone(),
            ilos: ilos.clone(),
            ..SiteOptions::new(dir.path())
        });
        Ok(Up {
            site: site.await?,
            dir,
            faults: wanted.faults.clone(),
            ilos,
        })
    }

    async fn run_on(
        &self,
        lab: &Lab,
        wanted: &Wanted,
        trial: Option<&Trial>,
    ) -> Result<(RunEnd, Story)> {
        let mut config = lab_config(lab.describe())?;
        config.node(&wanted.node)?;
        if let Some(node) = config.nodes.get_mut(&wanted.node) {
            let mut set = wanted.set.iter();
            set.try_for_each(|(name, value)| node.set(&format!("{name}={}", text(value))))?;
        }
        let mut registry = registry(&Arc::new(Site::new(config.clone())));
        hasten(&mut registry);
        let registry = Arc::new(registry);
        let new = self.script(wanted, &config, &registry)?;
        let engine = |primitives: Arc<dyn Primitives>| {
            let runtime = Arc::new(LuaRuntime::new(registry.clone()));
            Engine::new(&config.state_dir(), primitives, runtime)
        };
        let api = |engine: &Engine| Api::new(&config, engine, LuaRuntime::new(registry.clone()));
        let (point, cancel) = match trial {
            Some(trial) => (Some(trial.point.clone()), trial.cancel),
            None => (wanted.point(), wanted.cancel_at.is_some()),
        };
        let points = point.map(|point| (wanted.node.clone(), point));
        let following = Following {
            story: Arc::default(),
            node: wanted.node.clone(),
            at: Interrupted::new(registry.clone(), &points.into_iter().collect()),
            cancel,
        };
        let first = engine(Arc::new(following.at.clone()))?;
        let mut end = following
            .to_the_end(&config, &api(&first)?, &first, first.start(new))
            .await;
        if let Ok(RunEnd { id, status, .. }) = &end
            && *status == RunStatus::Stopped
        {
            let second = engine(registry.clone())?;
            let record = second.journal().find_run(id).await?;
            end = following
                .to_the_end(
                    &config,
                    &api(&second)?,
                    &second,
                    second.resume(record, false),
                )
                .await;
        }
        let story = std::mem::take(&mut *locked(&following.story));
        locked(&self.log).extend(story.log.iter().cloned());
        let end = end?;
        let journal = first.journal();
        journal.sync().await?;
        if let Some(owner) = journal.node_owners().await?.get(&wanted.node) {
            return Err(
                Error::new(Kind::Conflict, "the run has ended and holds its node")
                    .target(&owner.run),
            );
        }
        let calls = match (end.status, wanted.point()) {
            (RunStatus::Done, None) => sweep::calls(&journal.entries(&end.id).await?),
            _ => Vec::new(),
        };
        locked(&self.runs).push(calls);
        Ok((end, story))
    }

    fn script(
        &self,
        wanted: &Wanted,
        config: &Config,
        registry: &Arc<Registry>,
    ) -> Result<NewScript> {
        let (bundle, entry) = find_flow(&self.flow(wanted), &self.folders)?;
        let info = LuaRuntime::new(registry.clone()).inspect(&bundle, &entry)?;
        let given = wanted
            .params
            .iter()
            .map(|(name, value)| (name.clone(), text(value)));
        Ok(NewScript {
            flow: info.name.clone(),
            script: Script {
                bundle,
                entry,
                action: info.action(wanted.action.as_deref())?,
                params: info.params(&given.collect())?,
                node: config.node(&wanted.node)?.view(&wanted.node),
            },
            node: wanted.node.clone(),
        })
    }

    /// The flow that is wanted, else the one that the test's file is named after.
    fn flow(&self, wanted: &Wanted) -> String {
        if let Some(flow) = &wanted.flow {
            return flow.clone();
        }
        let file = self.test.to_string_lossy();
        let stem = file.strip_suffix("_test.lua").unwrap_or(&file);
        let beside = format!("{stem}.lua");
        if Path::new(&beside).is_file() {
            return beside;
        }
        stem.rsplit('/').next().unwrap_or(stem).to_owned()
    }
}

/// A run while it is watched.
struct Following {
    story: Arc<Mutex<Story>>,
    node: String,
    at: Interrupted,
    /// Whether it is cancelled there; else it is stopped.
    cancel: bool,
}

impl Following {
    async fn to_the_end(
        &self,
        config: &Config,
        api: &Api,
        engine: &Engine,
        start: impl Future<Output = Result<Started>>,
    ) -> Result<RunEnd> {
        let listener = listener::listen(config, api)?;
        let mut told = JoinSet::new();
        told.spawn(listen(engine.events().subscribe(), self.story.clone()));
        let started = start.await?;
        let id = started.id.clone();
        let end = match self.at.to_point(&self.node, started).await {
            Hang::Ended(end) => end,
            Hang::Hangs(run) => {
                match self.cancel {
                    true => engine.cancel(&id).await?,
                    false => engine.stop(),
                }
                run.end().await
            }
        };
        // The end was told before it was known here.
        told.join_all().await;
        drop(listener);
        end
    }
}

impl Wanted {
    /// Where the test itself wants the run to be crashed or cancelled.
    fn point(&self) -> Option<Point> {
        let key = self.cancel_at.clone().or_else(|| self.crash_at.clone())?;
        let side = Side::Before;
        Some(Point { key, side })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As `--set` and `--param` take it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

async fn listen(mut events: Receiver<Event>, story: Arc<Mutex<Story>>) {
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let mut story = locked(&story);
        story.log.extend(render::line(&event, false));
        match event.what {
            What::CallFinished { name, .. } => story.calls.push(name),
            What::StepFinished { step, .. } => story.steps.push(step),
            What::RunFinished { .. } => return,
            _ => {}
        }
    }
}
