//! A dry run: the flow as it is, on a site that only answers. Nothing is touched, not even the
//! journal.

use super::LuaRuntime;
use super::simulate::{SimulatedCall, Simulation};
use super::spec::Registry;
use crate::engine::{Engine, NewScript, RunEnd, Script, What};
use crate::error::{Error, Result};
use std::sync::Arc;
use std::time::Duration;

/// How long a script may compute. Nothing waits in a dry run.
const COMPUTING: Duration = Duration::from_secs(5);

/// What a dry run saw.
#[derive(Debug)]
pub struct DryRun {
    /// What would be destroyed.
    pub destroys: Vec<String>,
    /// Every call, in order; the loops' calls too.
    pub calls: Vec<SimulatedCall>,
    /// What was said of quirks that apply.
    pub quirks: Vec<String>,
    /// What clean-ups failed with.
    pub cleanup_errors: Vec<Error>,
    /// How it ended.
    pub end: RunEnd,
    /// The first primitive that was answered with an empty table, since nothing tells its shape.
    pub shapeless: Option<String>,
}

/// How a simulated site is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Simulate {
    /// How many states on from the usual one its answers begin.
    pub shift: usize,
    /// The call that fails, counted from 0.
    pub fails_at: Option<usize>,
}

/// Runs a script on simulated results.
///
/// # Errors
/// Those of loading the flow; how the script ended is an answer.
pub async fn dry_run(registry: &Arc<Registry>, script: Script, how: Simulate) -> Result<DryRun> {
    let runtime = LuaRuntime::new(registry.clone());
    let flow = runtime.inspect(&script.bundle, &script.entry)?;
    let destroys = runtime.destroys(
        &script.bundle,
        &script.entry,
        &script.action,
        &script.node,
        &script.params,
    )?;
    let simulation = Simulation::new(registry.clone(), how);
    let engine = Engine::in_memory(Arc::new(simulation.clone()), Arc::new(runtime))?;
    let mut events = engine.events().subscribe();
    let new = NewScript {
        flow: flow.name,
        node: "(dry run)".to_owned(),
        script,
    };
    let end = engine.run_within(new, COMPUTING).await?;
    let (mut quirks, mut cleanup_errors) = (Vec::new(), Vec::new());
    while let Ok(event) = events.try_recv() {
        match event.what {
            What::Log { step, text, .. } if step == "quirks" => quirks.push(text),
            What::StepFinished { step, error, .. } if is_cleanup(&step) => {
                cleanup_errors.extend(error);
            }
            _ => {}
        }
    }
    Ok(DryRun {
        destroys,
        calls: simulation.calls(),
        quirks,
        cleanup_errors,
        end,
        shapeless: simulation.shapeless(),
    })
}

/// Whether a step path is that of a `defer`, `undo` or `at_end`.
pub(super) fn is_cleanup(path: &str) -> bool {
    path.starts_with('~')
}
