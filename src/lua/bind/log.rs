//! `log`: lines of the run's log.

use crate::engine::{Call, Class, Reply, step_of};
use crate::error::Result;
use crate::lua::spec::{FnSpec, Registry, Ty};
use serde::Deserialize;

pub(super) fn register(registry: &mut Registry) {
    for (name, level, summary) in [
        ("info", "info", "Adds a line to the run's log."),
        ("warn", "warn", "Adds a warning to the run's log."),
    ] {
        registry.add(
            // Recorded, so that a replay does not say everything twice.
            FnSpec::new("log", name, Class::Read, summary)
                .subject(
                    "text",
                    Ty::String,
                    "the line; a format if more arguments follow",
                )
                .formats()
                .example("log.info(\"%s has %d disks\", node.name, 2)   --> lab-1 has 2 disks")
                .inert()
                .run(move |call| async move { line(&call, level) }),
        );
    }
}

fn line(call: &Call, level: &str) -> Result<Reply> {
    #[derive(Deserialize)]
    struct Args {
        text: String,
    }
    let Args { text } = call.decode()?;
    call.run.log(level, step_of(&call.key), &text);
    Ok(Reply::default())
}
