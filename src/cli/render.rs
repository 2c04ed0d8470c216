//! Three ways to show events: bars on a terminal, lines elsewhere, JSON for scripts.

use super::format::{as_f64, bytes, paint, seconds};
use crate::cli::output::out;
use crate::engine::{CONSOLE, Event, What};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::time::Duration;

/// Shows events as they come.
pub(super) trait Renderer: Send {
    fn event(&mut self, event: &Event);
    /// Leaves the screen as it should stay.
    fn end(&mut self) {}
}

/// One JSON object a line on stdout.
pub(super) struct Json;

impl Renderer for Json {
    fn event(&mut self, event: &Event) {
        if let Ok(line) = serde_json::to_string(event) {
            out!("{line}");
        }
    }
}

/// One line a step on stderr.
pub(super) struct Lines;

impl Renderer for Lines {
    fn event(&mut self, event: &Event) {
        if let Some(line) = line(event, false) {
            eprintln!("{line}");
        }
    }
}

/// `~write image/undo#1` cleans up after that step; a step in it has a name of its own.
pub(super) fn cleans_up(step: &str) -> Option<String> {
    let path = step.strip_prefix('~')?;
    let (of, last) = path.rsplit_once('/').unwrap_or(("the run", path));
    let is_item = ["undo#", "at_end#", "defer#"]
        .iter()
        .any(|what| last.starts_with(what));
    Some(match is_item {
        true => format!("clean-up of {of}"),
        false => format!("clean-up: {last}"),
    })
}

/// The line that stays of an event, if one does. A `defer` that worked is no news.
pub(super) fn line(event: &Event, colour: bool) -> Option<String> {
    let node = &event.node;
    match &event.what {
        What::RunStarted {
            action, resumed, ..
        } => {
            let how = if *resumed { "resumed" } else { "started" };
            Some(format!(
                "{node}: {action} {how}, run {}",
                super::format::short(&event.run)
            ))
        }
        What::StepFinished {
            step,
            ok,
            seconds: took,
            error,
        } if !(step.starts_with('(') || *ok && step.contains("/defer#")) => {
            let took = seconds(*took);
            let step = cleans_up(step).unwrap_or_else(|| step.clone());
            if *ok {
                return Some(format!(
                    "{node}: {} {step} {took}",
                    paint("ok", "32", colour)
                ));
            }
            let why = error.as_ref().map(ToString::to_string).unwrap_or_default();
            Some(format!(
                "{node}: {} {step} {took}: {why}",
                paint("FAILED", "1;31", colour)
            ))
        }
        What::Drift {
            what,
            recorded,
            found,
        } => Some(format!(
            "{node}: {} {what} is {found}, and was {recorded} when the journal was written",
            paint("drift", "33", colour)
        )),
        // A kernel's hundreds of lines are for who asks for the log.
        What::Log { level, .. } if level == CONSOLE => None,
        What::Log { level, text, .. } if level == "info" => Some(format!("{node}: {text}")),
        What::Log { level, text, .. } => {
            Some(format!("{node}: {} {text}", paint(level, "33", colour)))
        }
        _ => None,
    }
}

/// Finished steps scroll by; below them one bar a node shows what it does now.
pub(super) struct Terminal {
    screen: MultiProgress,
    nodes: HashMap<String, Node>,
}

struct Node {
    bar: ProgressBar,
    step: String,
    counting: bool,
}

impl Terminal {
    pub(super) fn new() -> Self {
        Self {
            screen: MultiProgress::new(),
            nodes: HashMap::new(),
        }
    }

    fn node(&mut self, name: &str) -> &mut Node {
        let screen = &self.screen;
        self.nodes.entry(name.to_owned()).or_insert_with(|| {
            let bar = screen.add(ProgressBar::new_spinner());
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            let mut node = Node {
                bar,
                step: String::new(),
                counting: false,
            };
            node.spin();
            node
        })
    }
}

impl Node {
    fn spin(&mut self) {
        self.counting = false;
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {msg} {elapsed}") {
            self.bar.set_style(style);
        }
    }

    fn count(&mut self, total: u64) {
        if !self.counting {
            self.counting = true;
            let template = "{spinner} {prefix}: {msg} [{bar:24}] {bytes}/{total_bytes} \
                {binary_bytes_per_sec} ETA {eta}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style.progress_chars("=> "));
            }
            self.bar.reset();
        }
        self.bar.set_length(total);
    }

    fn message(&self, text: String) {
        self.bar.set_message(text);
    }
}

impl Renderer for Terminal {
    fn event(&mut self, event: &Event) {
        if let Some(line) = line(event, super::format::colours()) {
            drop(self.screen.println(line));
        }
        let node = self.node(&event.node);
        match &event.what {
            What::StepStarted { step } if !step.starts_with(['(', '~']) => {
                node.step.clone_from(step);
                node.spin();
                node.bar.reset_elapsed();
                node.message(step.clone());
            }
            What::StepStarted { step } if step.starts_with('~') => {
                node.spin();
                node.message("cleaning up".to_owned());
            }
            What::CallFinished { .. } if node.counting => {
                node.spin();
                node.message(node.step.clone());
            }
            What::Progress {
                step,
                what,
                done_bytes,
                total_bytes,
            } => {
                node.count(*total_bytes);
                node.message(format!("{step}, {what}"));
                node.bar.set_position(*done_bytes);
            }
            What::RunFinished { .. } => node.bar.finish_and_clear(),
            _ => {}
        }
    }

    fn end(&mut self) {
        drop(self.screen.clear());
    }
}

/// `12.0 MiB in 0.3s, 40.0 MiB/s`.
pub(super) fn rate(count: u64, took: f64) -> String {
    let rate = if took > 0.0 {
        as_f64(count) / took / 1_048_576.0
    } else {
        0.0
    };
    format!("{} in {}, {rate:.1} MiB/s", bytes(count), seconds(took))
}
