//! How things look: errors with the flow's line, sizes, times, tables.

use crate::engine::{excerpt, place};
use crate::error::Error;
use crate::journal::Bundle;
use std::fmt::Write;
use std::io::IsTerminal;

/// Colours only for a terminal that wants them.
pub(super) fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

pub(super) fn paint(text: &str, code: &str, on: bool) -> String {
    if on {
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    } else {
        text.to_owned()
    }
}

/// What was tried, on what, what came back, the flow's line with its neighbours, what to do next.
pub(super) fn error(error: &Error, bundle: Option<&Bundle>, colour: bool) -> String {
    let mut text = format!("{} {error}\n", paint("error:", "1;31", colour));
    if let Some(place) = place(error) {
        let known = error.details().get(LINES).and_then(|lines| lines.as_str());
        let lines = bundle.and_then(|bundle| excerpt(bundle, &place));
        text.push_str(&source(&place, lines.as_deref().or(known), colour));
    }
    for cause in error.causes() {
        for (n, line) in cause.trim_end().lines().take(12).enumerate() {
            let mark = if n == 0 { "because:" } else { "        " };
            _ = writeln!(text, "  {mark} {line}");
        }
    }
    if let Some(hint) = error.advice() {
        _ = writeln!(text, "  {} {hint}", paint("hint:", "36", colour));
    }
    text
}

/// The error with the lines of the file that it is about, for whoever shows it without the file.
pub(super) fn with_lines(error: Error, bundle: &Bundle) -> Error {
    match place(&error).and_then(|place| excerpt(bundle, &place)) {
        Some(lines) => error.detail(LINES, lines),
        None => error,
    }
}

const LINES: &str = "lines";

/// A place in a flow, and the lines around it.
pub(super) fn source(place: &str, lines: Option<&str>, colour: bool) -> String {
    let mut text = format!("  {} {place}\n", paint("-->", "34", colour));
    for line in lines.unwrap_or_default().lines() {
        _ = writeln!(text, "  {line}");
    }
    text
}

/// `1.5 GiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scaled = as_f64(count);
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("B");
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{scaled:.1} {name}")
    }
}

#[expect(clippy::cast_precision_loss, reason = "for display")]
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
}

/// `0.4s`, `12s`, `3m05s`.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{seconds:.1}s");
    }
    let whole = seconds.round();
    if whole < 60.0 {
        return format!("{whole:.0}s");
    }
    format!("{:.0}m{:02.0}s", (whole / 60.0).floor(), whole % 60.0)
}

/// A text inside an element or attribute of XML.
pub(super) fn escape_xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // XML 1.0 has no other control characters, escaped or not (section 2.2).
            sign if sign.is_control() && !matches!(sign, '\t' | '\n' | '\r') => escaped.push('?'),
            sign => escaped.push(sign),
        }
    }
    escaped
}

/// Seconds between two times in milliseconds.
pub(super) fn elapsed(from_ms: u64, to_ms: u64) -> f64 {
    as_f64(to_ms.saturating_sub(from_ms)) / 1000.0
}

/// `2026-11-24 03:05:06` UTC.
pub(super) fn time(ms: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms);
    let text = humantime::format_rfc3339_seconds(at).to_string();
    text.replace('T', " ").trim_end_matches('Z').to_owned()
}

/// Enough of a run's id to name it.
pub(super) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use serde_json::Value;

    #[test]
    fn an_error_shows_the_flows_line() {
        let source = "local x = 1\nilo.attach_vmeida(node)\nreturn x";
        let files = [("flows/f.lua".to_owned(), source.to_owned())].into();
        let bundle = Bundle {
            hash: String::new(),
            files,
        };
        let failure = Error::new(Kind::Invalid, "there is no ilo.attach_vmeida")
            .hint("did you mean ilo.attach_vmedia?")
            .detail(
                "at",
                vec![
                    Value::from("stdlib/power.lua:3"),
                    Value::from("flows/f.lua:2"),
                ],
            );
        let wanted = "error: there is no ilo.attach_vmeida [invalid]\n  --> flows/f.lua:2\n\
            \x20      1 | local x = 1\n  >    2 | ilo.attach_vmeida(node)\n       3 | return x\n  \
            hint: did you mean ilo.attach_vmedia?\n";
        assert_eq!(error(&failure, Some(&bundle), false), wanted);
    }

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(3 << 30), "3.0 GiB");
        assert_eq!(seconds(0.44), "0.4s");
        assert_eq!(seconds(185.0), "3m05s");
        assert_eq!(time(1_795_489_506_000), "2026-11-24 03:05:06");
    }
}
