//! The commands that the documentation prints.

use std::path::{Path, PathBuf};

/// Files with commands in them.
pub(crate) fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md")];
    for folder in ["flows", "examples", "examples/quirks"] {
        let listing = std::fs::read_dir(root.join(folder)).unwrap();
        files.extend(listing.map(|item| item.unwrap().path()));
    }
    files.retain(|file| file.is_file());
    files.sort_by_key(|file| (file.components().count(), file.clone()));
    files
}

/// The commands of a text: lines of code blocks and unit files, which are whole; and code within
/// lines, which may leave arguments out.
pub(crate) fn commands(text: &str) -> Vec<(String, bool)> {
    const BEGINS: [&str; 4] = [
        "cargo run --release -- ",
        "ExecStart=/usr/bin/flowrun ",
        "ExecStart=/usr/local/bin/flowrun ",
        "flowrun ",
    ];
    let rest_of = |code: &str| {
        let begin = BEGINS.iter().find_map(|begin| code.strip_prefix(begin));
        begin.map(str::to_owned)
    };
    let mut found = Vec::new();
    for line in text.lines() {
        let is_code = line.starts_with("    ") || line.starts_with("ExecStart=");
        if is_code {
            found.extend(rest_of(line.trim()).map(|command| (command, true)));
            continue;
        }
        let code = line.split('`').skip(1).step_by(2);
        found.extend(code.filter_map(rest_of).map(|command| (command, false)));
    }
    found
}

/// A documented command as somebody would type it: what is optional is given, of what can be
/// chosen the first; no comment, no redirection.
pub(crate) fn typed(command: &str) -> Vec<String> {
    let words = command.split_whitespace();
    let words = words.take_while(|word| !["#", ">", "|"].contains(word) && !is_comment(word));
    let words = words.map(|word| word.trim_matches(['[', ']']).replace("\\|", "|"));
    let words = words.filter(|word| !word.is_empty() && word != "…");
    words
        .map(|word| word.split('|').next().unwrap_or_default().to_owned())
        .collect()
}

fn is_comment(word: &str) -> bool {
    word.starts_with('#')
}
