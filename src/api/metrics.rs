//! `/metrics`, in Prometheus' text format 0.0.4.

use super::Api;
use super::failure::Answer;
use crate::clock;
use crate::engine::{BOUNDS, Meter};
use crate::journal::{Counts, RunStatus};
use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use std::fmt::Write;
use std::time::Duration;

pub(super) async fn metrics(
    State(api): State<Api>,
) -> Answer<([(HeaderName, &'static str); 1], String)> {
    let counts = api.engine.journal().counts().await?;
    let mut page = Page::default();
    runs(&mut page, &counts);
    work(&mut page, api.engine.events().meter());
    page.family("flowrun_build_info", "gauge", "The version that runs.");
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.sample("flowrun_build_info", &version, 1);
    let kind = (CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    Ok(([kind], page.0))
}

/// What the journal knows; the same after a restart.
fn runs(page: &mut Page, counts: &Counts) {
    page.family("flowrun_runs", "gauge", "Runs in the journal by state.");
    for status in RunStatus::ALL.map(RunStatus::as_str) {
        let count = counts.by_status.get(status).copied().unwrap_or(0);
        page.sample("flowrun_runs", &[("state", status)], count);
    }
    let name = "flowrun_runs_in_step";
    page.family(
        name,
        "gauge",
        "Runs that have not ended, by the step they are in.",
    );
    for (step, count) in &counts.by_step {
        page.sample(name, &[("step", step)], count);
    }
    let name = "flowrun_oldest_wait_seconds";
    page.family(
        name,
        "gauge",
        "Age of the oldest wait for a callback; 0 without one.",
    );
    let began = counts.oldest_wait_ms;
    let age = began.map_or(0, |at| clock::unix_ms().saturating_sub(at));
    page.sample(name, &[], Duration::from_millis(age).as_secs_f64());
}

/// What this process did since it started.
fn work(page: &mut Page, meter: &Meter) {
    let name = "flowrun_image_bytes_written_total";
    page.family(
        name,
        "counter",
        "Bytes of images put on disks, zeros included.",
    );
    page.sample(name, &[], meter.written_bytes());
    let calls = meter.calls();
    let name = "flowrun_call_failures_total";
    page.family(name, "counter", "Calls of primitives that failed.");
    for (primitive, latency) in &calls {
        page.sample(name, &[("primitive", primitive)], latency.failed);
    }
    let name = "flowrun_call_duration_seconds";
    page.family(name, "histogram", "How long calls of primitives took.");
    for (primitive, latency) in &calls {
        let mut below = 0;
        for (bound, count) in BOUNDS.iter().zip(latency.counts) {
            below += count;
            let labels = [
                ("primitive", primitive.as_str()),
                ("le", &bound.to_string()),
            ];
            page.sample(&format!("{name}_bucket"), &labels, below);
        }
        let all = [("primitive", primitive.as_str()), ("le", "+Inf")];
        page.sample(&format!("{name}_bucket"), &all, latency.calls);
        let labels = [("primitive", primitive.as_str())];
        page.sample(&format!("{name}_sum"), &labels, latency.seconds);
        page.sample(&format!("{name}_count"), &labels, latency.calls);
    }
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (n, (label, text)) in labels.iter().enumerate() {
            let begin = if n == 0 { '{' } else { ',' };
            _ = write!(self.0, "{begin}{label}=\"{}\"", escaped(text));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        _ = writeln!(self.0, "{end} {value}");
    }
}

/// A label's value: what ends it or its line is escaped.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_written_as_the_format_has_them() {
        let mut page = Page::default();
        page.family("x", "gauge", "An x.");
        page.sample("x", &[("step", "say \"a\\b\"\n"), ("le", "0.5")], 2.5);
        page.sample("x", &[], 7);
        let wanted = "# HELP x An x.\n# TYPE x gauge\n\
            x{step=\"say \\\"a\\\\b\\\"\\n\",le=\"0.5\"} 2.5\nx 7\n";
        assert_eq!(page.0, wanted);
    }
}
