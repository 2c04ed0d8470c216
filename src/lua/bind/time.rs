//! `sleep` and `now`.

use crate::clock;
use crate::engine::{Call, Class, Reply};
use crate::error::Result;
use crate::lua::spec::{FnSpec, Registry, Ty};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

/// How much shorter the waiting of a flow is on the clock of tests.
const HASTE: u32 = 100;

/// Puts `sleep` on the clock of tests: it waits a hundredth of the time, and the clock of the
/// process goes ahead by the rest. Deadlines see the whole time.
pub fn hasten(registry: &mut Registry) {
    let Some(sleep) = registry.get("sleep").ok().map(|spec| (**spec).clone()) else {
        return;
    };
    registry.add(sleep.run(|call| async move {
        let wanted = wanted(&call)?;
        let waited = wanted / HASTE;
        tokio::time::sleep(waited).await;
        clock::advance(wanted.saturating_sub(waited));
        Ok(Reply::default())
    }));
}

fn wanted(call: &Call) -> Result<Duration> {
    #[derive(Deserialize)]
    struct Args {
        duration: f64,
    }
    let Args { duration } = call.decode()?;
    Ok(Duration::try_from_secs_f64(duration).unwrap_or_default())
}

pub(super) fn register(registry: &mut Registry) {
    registry.add(
        FnSpec::new(
            "",
            "sleep",
            Class::Wait,
            "Waits; a run that is resumed waits what is left.",
        )
        .subject("duration", Ty::Duration, "how long")
        .example("sleep(\"3s\")")
        .run(|call| async move {
            let wanted = wanted(&call)?;
            let passed = clock::unix_ms().saturating_sub(call.began_ms);
            tokio::time::sleep(wanted.saturating_sub(Duration::from_millis(passed))).await;
            Ok(Reply::default())
        }),
    );
    registry.add(
        FnSpec::new(
            "",
            "now",
            Class::Read,
            "Tells the time; a replay sees the same one.",
        )
        .returns(Ty::Integer, "seconds since 1970-01-01 UTC")
        .example("log.info(\"it is %d\", now())   --> it is 1795489446")
        .run(|_| async { Ok(Value::from(clock::unix_seconds()).into()) as Result<Reply> }),
    );
}
