//! Where in a flow's files an error came from.

use crate::error::Error;
use crate::journal::Bundle;
use std::fmt::Write;

/// `path:line` of the flow's own line if there is one, else the library's.
#[must_use]
pub fn place(error: &Error) -> Option<String> {
    let frames = error.details().get("at")?.as_array()?;
    let frames: Vec<&str> = frames.iter().filter_map(|frame| frame.as_str()).collect();
    let own = frames.iter().find(|frame| !frame.starts_with("stdlib/"));
    own.or_else(|| frames.first())
        .map(|frame| (*frame).to_owned())
}

/// Three lines around `path:line`, numbered, the line itself marked with `>`.
#[must_use]
pub fn excerpt(bundle: &Bundle, place: &str) -> Option<String> {
    let (path, line) = place.rsplit_once(':')?;
    let line: usize = line.parse().ok()?;
    let source = bundle.files.get(path)?;
    let mut text = String::new();
    for (number, content) in (1..).zip(source.lines()) {
        if number + 1 >= line && number <= line + 1 {
            let mark = if number == line { '>' } else { ' ' };
            _ = writeln!(text, "{mark} {number:>4} | {content}");
        }
    }
    Some(text)
}
