//! The rules of this repository that neither rustc nor clippy checks, one function each: who may
//! name whom, sizes, words, and what has to stand where. A finding is `file:line: why`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "test code; a panic is a failed check"
)]

#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/places.rs"]
mod places;
#[path = "tidy/scan.rs"]
mod scan;
#[path = "tidy/text.rs"]
mod text;

use layers::{crate_homes, layers, socketless};
use scan::{code_of, line_of};
use std::fmt;
use std::fs;
use std::path::Path;
use text::{
    banned_code, banned_words, columns, file_length, function_length, lint_reasons, lua_header,
    machine_paths,
};

/// What may lie at the top of the repository besides dot files and what `.gitignore` names.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "clippy.toml",
    "rustfmt.toml",
    "deny.toml",
    "stylua.toml",
    "src",
    "flows",
    "stdlib",
    "tests",
    "examples",
    "benches",
];
const FOLDERS: &[&str] = &["src", "flows", "stdlib", "tests", "examples", "benches"];
const TEXT: &[&str] = &["rs", "lua", "sh", "py", "md", "toml"];

/// A text file; `code` is its Rust code without comments and literals, empty for other languages.
struct Source {
    path: String,
    text: String,
    code: String,
}

impl Source {
    fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let code = if is(&path, "rs") {
            code_of(&text)
        } else {
            String::new()
        };
        Self { path, text, code }
    }

    fn finding(&self, offset: usize, why: impl Into<String>) -> Finding {
        self.finding_at_line(line_of(&self.text, offset), why)
    }

    fn finding_at_line(&self, line: usize, why: impl Into<String>) -> Finding {
        Finding {
            path: self.path.clone(),
            line,
            why: why.into(),
        }
    }
}

#[derive(Debug)]
struct Finding {
    path: String,
    line: usize,
    why: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.why)
    }
}

const RULES: &[fn(&Source) -> Vec<Finding>] = &[
    layers,
    crate_homes,
    socketless,
    file_length,
    function_length,
    columns,
    banned_words,
    machine_paths,
    banned_code,
    lint_reasons,
    lua_header,
];

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let top = names_in(root);
    let mut files: Vec<String> = top
        .iter()
        .filter(|name| root.join(name).is_file())
        .cloned()
        .collect();
    for folder in FOLDERS {
        walk(root, folder, &mut files);
    }
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let checked = files
        .iter()
        .filter(|path| !in_fixtures(path) && TEXT.iter().any(|ext| is(path, ext)));
    let sources: Vec<Source> = checked.map(|path| Source::new(path, read(path))).collect();
    assert!(
        sources.iter().any(|source| source.path == "src/lib.rs"),
        "found no sources to check"
    );

    let mut findings: Vec<Finding> = sources
        .iter()
        .flat_map(|source| RULES.iter().flat_map(|rule| rule(source)))
        .collect();
    findings.extend(top_level(&top, &read(".gitignore")));
    findings.extend(fixture_readmes(&files, read));
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(
        lines.is_empty(),
        "{} findings\n{}",
        lines.len(),
        lines.join("\n")
    );
}

/// The root of the repository holds what is listed, and nothing a run or a tool left behind.
fn top_level(entries: &[String], gitignore: &str) -> Vec<Finding> {
    let ignored: Vec<&str> = gitignore
        .lines()
        .filter_map(|line| line.strip_prefix('/'))
        .collect();
    let known = |name: &str| {
        name.starts_with('.')
            || TOP_LEVEL.contains(&name)
            || ignored
                .iter()
                .any(|line| line.trim_end_matches('/') == name)
    };
    let stray = entries.iter().filter(|name| !known(name));
    let why = "not in the list of top-level entries in tests/tidy.rs";
    stray
        .map(|name| Finding {
            path: name.clone(),
            line: 0,
            why: why.to_owned(),
        })
        .collect()
}

/// Recorded data says where it comes from and under which licence.
fn fixture_readmes(files: &[String], read: impl Fn(&str) -> String) -> Vec<Finding> {
    let mut folders: Vec<&str> = files
        .iter()
        .filter_map(|path| path.strip_prefix("tests/data/")?.split_once('/'))
        .map(|(folder, _)| folder)
        .collect();
    folders.dedup();
    let mut findings = Vec::new();
    for folder in folders {
        let path = format!("tests/data/{folder}/README.md");
        let text = read(&path).to_lowercase();
        let licence = text.contains("licence") || text.contains("license");
        if !text.contains("source") || !licence {
            let why =
                "missing, or does not name source and licence of the data beside it".to_owned();
            findings.push(Finding { path, line: 1, why });
        }
    }
    findings
}

fn is(path: &str, extension: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|found| found == extension)
}

fn in_fixtures(path: &str) -> bool {
    path.starts_with("tests/data/") && !path.ends_with("README.md")
}

/// Collects the files below `folder`, which need not exist, in a fixed order.
fn walk(root: &Path, folder: &str, files: &mut Vec<String>) {
    for name in names_in(&root.join(folder)) {
        let path = format!("{folder}/{name}");
        if root.join(&path).is_dir() {
            walk(root, &path, files);
        } else {
            files.push(path);
        }
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Each rule is shown to find what it is for, and to leave the like alone.
#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn lines(rule: fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        rule(&Source::new(path, text))
            .into_iter()
            .map(|finding| finding.line)
            .collect()
    }

    pub(crate) fn why(rule: fn(&Source) -> Vec<Finding>, path: &str, text: &str) -> String {
        let found: Vec<String> = rule(&Source::new(path, text))
            .iter()
            .map(ToString::to_string)
            .collect();
        found.join("\n")
    }

    #[test]
    fn strays_at_the_top_are_found() {
        let entries = ["src", ".ci", "target", "notes.md"].map(str::to_owned);
        let found = top_level(&entries, "/target\n");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "notes.md");
    }

    #[test]
    fn fixtures_say_where_they_come_from() {
        let files = [
            "tests/data/a/1.bin",
            "tests/data/a/README.md",
            "tests/data/b/c/2.bin",
        ]
        .map(str::to_owned);
        let read = |path: &str| {
            if path.contains("/a/") {
                "Source: x. Licence: y.".to_owned()
            } else {
                String::new()
            }
        };
        let found = fixture_readmes(&files, read);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "tests/data/b/README.md");
    }
}
