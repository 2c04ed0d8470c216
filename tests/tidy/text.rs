//! What a single file must keep to: sizes, words, reasons, headers.

use crate::scan::{attributes, functions, test_items};
use crate::{Finding, Source, is};

const MAX_FILE_LINES: usize = 800;
const MAX_FUNCTION_LINES: usize = 70;
const MAX_COLUMNS: usize = 100;

/// Words that may stand nowhere, comments included. Put together here, or this file had them.
const BANNED_WORDS: &[&str] = &[concat!("FIX", "ME"), concat!("XX", "X")];
/// What must not be left in Rust code.
const BANNED_CODE: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore"];
/// Beginnings of paths that exist on somebody's machine only.
const MACHINE_PATHS: &[&str] = &[
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/Us", "ers/"),
];

pub(crate) fn file_length(source: &Source) -> Vec<Finding> {
    let lines = source.text.lines().count();
    if lines <= MAX_FILE_LINES {
        return Vec::new();
    }
    vec![source.finding_at_line(lines, format!("{lines} lines, over {MAX_FILE_LINES}"))]
}

/// Counts as clippy does: lines with code between the braces. Test code is left out.
pub(crate) fn function_length(source: &Source) -> Vec<Finding> {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let tests = test_items(&source.code);
    let mut findings = Vec::new();
    for function in functions(&source.code) {
        let body = &source.code[function.body];
        let lines = body.lines().filter(|line| !line.trim().is_empty()).count();
        let in_test = tests.iter().any(|item| item.contains(&function.offset));
        if lines > MAX_FUNCTION_LINES && !in_test {
            let why = format!(
                "fn {} has {lines} lines, over {MAX_FUNCTION_LINES}",
                function.name
            );
            findings.push(source.finding(function.offset, why));
        }
    }
    findings
}

/// A line that only holds a long address may be longer, and one with a text or a type annotation:
/// formatters leave those alone.
pub(crate) fn columns(source: &Source) -> Vec<Finding> {
    if !is(&source.path, "rs") && !is(&source.path, "lua") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (line, number) in source.text.lines().zip(1..) {
        let columns = line.chars().count();
        let address = line
            .split_whitespace()
            .any(|w| w.contains("://") && w.len() > MAX_COLUMNS / 2);
        let text = is(&source.path, "rs") && line.contains('"');
        let annotation = line.starts_with("---@");
        if columns > MAX_COLUMNS && !address && !text && !annotation {
            findings.push(
                source.finding_at_line(number, format!("{columns} columns, over {MAX_COLUMNS}")),
            );
        }
    }
    findings
}

pub(crate) fn banned_words(source: &Source) -> Vec<Finding> {
    let in_line = |(line, number): (&str, usize)| {
        let mut words = line.split(|c: char| !c.is_alphanumeric());
        let word = words.find(|word| BANNED_WORDS.contains(word))?;
        Some(source.finding_at_line(number, format!("{word}: do it or write down why not")))
    };
    source.text.lines().zip(1..).filter_map(in_line).collect()
}

/// Paths of one machine; a longer path or an address that happens to end so is none.
pub(crate) fn machine_paths(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for start in MACHINE_PATHS {
        for (offset, _) in source.text.match_indices(start) {
            let before = source.text[..offset].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || "._-})/".contains(c)) {
                findings
                    .push(source.finding(offset, format!("{start} exists on one machine only")));
            }
        }
    }
    findings
}

pub(crate) fn banned_code(source: &Source) -> Vec<Finding> {
    let find = |what: &&str| {
        let found = source.code.match_indices(*what).map(|(offset, _)| offset);
        let found = found
            .filter(|&at| !source.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
        found
            .map(|at| source.finding(at, format!("{what} is not for a finished tree")))
            .collect::<Vec<_>>()
    };
    BANNED_CODE.iter().flat_map(find).collect()
}

/// Whoever silences a lint says why.
pub(crate) fn lint_reasons(source: &Source) -> Vec<Finding> {
    let silences = |text: &str| text.contains("allow(") || text.contains("expect(");
    let found = attributes(&source.code).into_iter();
    let mute = found.filter(|(_, text)| silences(text) && !text.contains("reason"));
    mute.map(|(offset, text)| source.finding(offset, format!("{text} gives no reason")))
        .collect()
}

/// A flow or library file says first what it is for.
pub(crate) fn lua_header(source: &Source) -> Vec<Finding> {
    let shipped = source.path.starts_with("flows/") || source.path.starts_with("stdlib/");
    if !shipped || !is(&source.path, "lua") {
        return Vec::new();
    }
    let head = source
        .text
        .lines()
        .map_while(|line| line.strip_prefix("--"));
    let mut prose = head
        .map(|line| line.trim_start_matches('-').trim())
        .filter(|line| !line.starts_with('@'));
    if prose.any(|line| line.split_whitespace().count() >= 3) {
        return Vec::new();
    }
    vec![source.finding(
        0,
        "does not start with a comment that says what the file is for",
    )]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::lines;

    #[test]
    fn sizes_are_limited() {
        assert_eq!(lines(file_length, "src/a.rs", &"\n".repeat(801)), [801]);
        assert!(lines(file_length, "src/a.rs", &"\n".repeat(800)).is_empty());
        let body = |lines: usize| {
            format!(
                "fn f() {{\n{}}}\n",
                "    g(\"}\");\n    // }\n\n".repeat(lines)
            )
        };
        assert_eq!(
            lines(function_length, "src/a.rs", &format!("\n{}", body(71))),
            [2]
        );
        assert!(lines(function_length, "src/a.rs", &body(70)).is_empty());
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}", body(71));
        assert!(lines(function_length, "src/a.rs", &tests).is_empty());
        assert_eq!(
            lines(columns, "flows/a.lua", &format!("\n-- {}", "é ".repeat(49))),
            [2]
        );
        assert!(lines(columns, "src/a.rs", &"é ".repeat(50)).is_empty());
        assert!(
            lines(
                columns,
                "src/a.rs",
                &format!("// https://{}", "a".repeat(99))
            )
            .is_empty()
        );
    }

    #[test]
    fn words_and_macros_of_unfinished_work_are_found() {
        let words = BANNED_WORDS.join(": x\n// ");
        assert_eq!(lines(banned_words, "tests/run.sh", &words), [1, 2]);
        assert!(lines(banned_words, "tests/run.sh", &"X".repeat(6)).is_empty());
        let bad = "#[test]\n#[ignore]\nfn f() { todo!() }\nfn g() { std::dbg!(1); }";
        assert_eq!(lines(banned_code, "tests/it/a.rs", bad), [3, 4, 2]);
        assert!(
            lines(
                banned_code,
                "src/a.rs",
                "// todo!\nlet s = \"dbg!\"; my_todo!()"
            )
            .is_empty()
        );
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        for start in MACHINE_PATHS {
            assert_eq!(
                lines(machine_paths, "README.md", &format!("\ncd {start}x")),
                [2]
            );
            assert_eq!(
                lines(machine_paths, "src/a.rs", &format!("\"{start}x\"")),
                [1]
            );
            assert!(lines(machine_paths, "src/a.rs", &format!("https://a.b{start}x")).is_empty());
        }
    }

    #[test]
    fn a_silenced_lint_has_a_reason() {
        let bad = "#[allow(dead_code)]\n#![expect(x)]\n#[cfg_attr(test, allow(x))]";
        assert_eq!(lines(lint_reasons, "src/a.rs", bad), [1, 3, 2]);
        let good = "#[expect(x, reason = \"b\")]\n\
            #[allow(\n  x,\n  reason = \"c\"\n)]\nlet a = o.expect(\"d\");";
        assert!(lines(lint_reasons, "src/a.rs", good).is_empty());
    }

    #[test]
    fn lua_files_say_what_they_are_for() {
        for bad in [
            "return {}",
            "",
            "--\nreturn {}",
            "---@meta\n---@class X\n\n-- a b c d",
        ] {
            assert_eq!(lines(lua_header, "stdlib/power.lua", bad), [1], "{bad}");
        }
        for good in [
            "-- Switches servers on.\n",
            "---@meta\n--- What flows call.\n",
        ] {
            assert!(
                lines(lua_header, "flows/power.lua", good).is_empty(),
                "{good}"
            );
        }
        assert!(lines(lua_header, "tests/lua/power.lua", "return {}").is_empty());
    }
}
