//! A run as a picture: its steps on a common axis of time. The same run makes the same bytes.

use super::format::{as_f64, elapsed, escape_xml, seconds, short, time};
use crate::api::wire::RunDetail;
use crate::journal::{Entry, EntryState};
use std::fmt::Write;

/// Of the picture, in pixels: names left of the bars, times right of them.
const NAMES: f64 = 230.0;
const BARS: f64 = 620.0;
const TIMES: f64 = 70.0;
const ROW: f64 = 22.0;
const HEAD: f64 = 46.0;
const FOOT: f64 = 34.0;

/// Of the whole run: calls that took less have no mark.
const SHORTEST: f64 = 0.01;

/// Colours that can be read on white and on black; the background is the page's.
const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#24292f}\
.quiet{fill:#6e7781}.grid{stroke:#6e7781;stroke-opacity:.25}\
.step{fill:#2f81f7}.clean{fill:#8b949e}.failed{fill:#e5534b}.open{fill-opacity:.5}\
.hatch{stroke:#fff;stroke-opacity:.55;stroke-width:3}.call{stroke:#24292f;stroke-width:1.5}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.quiet{fill:#8b949e}.call{stroke:#e6edf3}\
.hatch{stroke:#0d1117}}";

/// A run on its axis.
struct Axis {
    begin_ms: u64,
    end_ms: u64,
}

impl Axis {
    fn whole(&self) -> f64 {
        elapsed(self.begin_ms, self.end_ms).max(0.001)
    }

    fn x(&self, ms: u64) -> f64 {
        let seconds = elapsed(self.begin_ms, ms.min(self.end_ms));
        NAMES + BARS * seconds / self.whole()
    }

    /// Of what has not ended, the end of what is known.
    fn span(&self, entry: &Entry) -> (f64, f64) {
        (
            self.x(entry.t0_ms),
            self.x(entry.t1_ms.unwrap_or(self.end_ms)),
        )
    }

    /// Seconds between two lines of the grid: four to ten lines.
    fn unit(&self) -> f64 {
        let units = [
            0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
        ];
        let fits = |unit: &&f64| self.whole() / **unit <= 10.0;
        let last = || self.whole() / 5.0;
        units.iter().find(fits).copied().unwrap_or_else(last)
    }
}

/// The picture as SVG. Steps are bars, waits in them hatched, calls of some length ticks.
pub(super) fn svg(detail: &RunDetail) -> String {
    let run = &detail.run;
    let axis = Axis {
        begin_ms: run.created_ms,
        end_ms: run.ended_ms.unwrap_or(run.alive_ms),
    };
    let is_step = |entry: &&Entry| entry.name == "step" && !entry.key.starts_with('(');
    let steps: Vec<_> = detail.entries.iter().filter(is_step).collect();
    let height = HEAD + ROW * as_f64(steps.len() as u64) + FOOT;
    let width = NAMES + BARS + TIMES;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\">\n<style>{STYLE}</style>\n<defs>\
         <pattern id=\"wait\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\" \
         patternTransform=\"rotate(45)\"><line class=\"hatch\" x1=\"0\" y1=\"0\" x2=\"0\" \
         y2=\"8\"/></pattern></defs>\n"
    );
    let title = format!(
        "{} {} on {}: {} after {}",
        run.flow,
        run.action,
        run.node,
        run.status,
        seconds(axis.whole())
    );
    let when = format!("run {}, {} UTC", short(&run.id), time(run.created_ms));
    text(&mut out, (8.0, 18.0), "", &title);
    text(&mut out, (8.0, 35.0), " class=\"quiet\"", &when);
    grid(&mut out, &axis, height);
    for (n, step) in (0_u64..).zip(&steps) {
        let y = HEAD + ROW * as_f64(n);
        row(&mut out, &axis, step, y);
        let own = |entry: &&Entry| {
            entry.name != "step"
                && entry.class != "decision"
                && entry
                    .key
                    .rsplit_once('/')
                    .is_some_and(|(of, _)| of == step.key)
        };
        for call in detail.entries.iter().filter(own) {
            mark(&mut out, &axis, call, y);
        }
    }
    out.push_str("</svg>\n");
    out
}

fn text(out: &mut String, (x, y): (f64, f64), attributes: &str, what: &str) {
    let what = escape_xml(what);
    _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\"{attributes}>{what}</text>"
    );
}

fn grid(out: &mut String, axis: &Axis, height: f64) {
    let (unit, bottom) = (axis.unit(), height - FOOT + 4.0);
    for n in 0_u64.. {
        let at = unit * as_f64(n);
        if at > axis.whole() {
            break;
        }
        let x = NAMES + BARS * at / axis.whole();
        _ = writeln!(
            out,
            "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{HEAD:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>"
        );
        let centred = " class=\"quiet\" text-anchor=\"middle\"";
        text(out, (x, bottom + 16.0), centred, &seconds(at));
    }
}

fn row(out: &mut String, axis: &Axis, step: &Entry, y: f64) {
    let depth = as_f64(step.key.matches('/').count() as u64);
    let name = step.key.rsplit('/').next().unwrap_or(&step.key);
    let name = match step.key.strip_prefix('~') {
        Some(_) => format!("clean-up {}", name.trim_start_matches('~')),
        None => name.to_owned(),
    };
    let shown: String = match name.chars().count() > 32 {
        true => name.chars().take(31).chain(['…']).collect(),
        false => name,
    };
    text(out, (8.0 + 12.0 * depth, y + 15.0), "", &shown);
    let (from, to) = axis.span(step);
    let colour = match (step.state, step.key.starts_with('~')) {
        (EntryState::Failed, _) => "failed",
        (EntryState::Started, _) => "step open",
        (EntryState::Ok, true) => "clean",
        (EntryState::Ok, false) => "step",
    };
    bar(out, colour, (from, to), y, "");
    let took = elapsed(step.t0_ms, step.t1_ms.unwrap_or(axis.end_ms));
    let right = " class=\"quiet\" text-anchor=\"end\"";
    text(
        out,
        (NAMES + BARS + TIMES - 8.0, y + 15.0),
        right,
        &seconds(took),
    );
}

fn bar(out: &mut String, class: &str, (from, to): (f64, f64), y: f64, more: &str) {
    let (top, width) = (y + 3.0, (to - from).max(1.5));
    _ = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" \
         height=\"16\" rx=\"2\"{more}/>"
    );
}

/// A call on the bar of its step: what waits is hatched, what took long begins with a tick.
fn mark(out: &mut String, axis: &Axis, call: &Entry, y: f64) {
    let (from, to) = axis.span(call);
    if call.class == "wait" {
        return bar(out, "wait", (from, to), y, " fill=\"url(#wait)\"");
    }
    let took = elapsed(call.t0_ms, call.t1_ms.unwrap_or(axis.end_ms));
    if took < axis.whole() * SHORTEST {
        return;
    }
    let (top, bottom) = (y + 1.0, y + 21.0);
    let what = escape_xml(&format!("{} {}", call.name, seconds(took)));
    _ = writeln!(
        out,
        "<line class=\"call\" x1=\"{from:.1}\" y1=\"{top:.1}\" x2=\"{from:.1}\" \
         y2=\"{bottom:.1}\"><title>{what}</title></line>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(seq: u64, key: &str, class: &str, state: &str, ms: [u64; 2]) -> serde_json::Value {
        let last = key.rsplit('/').next().unwrap();
        let name = if class == "step" { "step" } else { last };
        json!({
            "key": key, "seq": seq, "name": name, "class": class, "site": "f.lua:1", "args": "",
            "args_hash": "", "state": state, "result": null, "attempt": 1, "t0_ms": ms[0],
            "t1_ms": if state == "started" { None } else { Some(ms[1]) }, "deadline_ms": null,
            "downtime_ms": 0,
        })
    }

    #[test]
    fn a_run_is_drawn_as_it_was_before() {
        let run = json!({
            "id": "0123456789abcdef", "node": "lab-1", "flow": "f<&>", "action": "deploy",
            "entry": "f.lua", "bundle": "b", "status": "failed", "created_ms": 1_000_000,
            "ended_ms": 1_010_000, "alive_ms": 1_010_000, "resumes": 0, "downtime_ms": 0,
            "owner": "o", "error": null, "result": null,
        });
        let entries = [
            entry(1, "(flow)", "step", "failed", [1_000_000, 1_010_000]),
            entry(2, "boot \"it\"", "step", "ok", [1_000_000, 1_002_500]),
            entry(
                3,
                "boot \"it\"/ilo.set_power#1",
                "effect+probe",
                "ok",
                [1_000_100, 1_001_000],
            ),
            entry(
                4,
                "boot \"it\"/log.info#1",
                "effect",
                "ok",
                [1_001_000, 1_001_001],
            ),
            entry(5, "wait", "step", "failed", [1_002_500, 1_009_000]),
            entry(
                6,
                "wait/ramdisk.wait#1",
                "wait",
                "failed",
                [1_002_600, 1_009_000],
            ),
            entry(
                7,
                "~boot \"it\"/undo#1",
                "step",
                "ok",
                [1_009_000, 1_010_000],
            ),
        ];
        let detail = json!({ "run": run, "entries": entries, "drift": [] });
        let drawn = svg(&serde_json::from_value(detail).unwrap());
        assert_eq!(drawn, include_str!("timeline.svg"), "{drawn}");
    }
}
