//! Reads Rust source as far as the rules need it: what is code, which paths it names, where
//! functions, modules and test-only items lie. A scanner and not a parser: `rustc` has already
//! accepted the text, so it only has to tell braces in code from braces elsewhere.

use std::ops::Range;

/// Copies `text` with comments turned into spaces and literals into runs of `"`, so that offsets
/// and lines stay and every brace or word left is code.
pub(crate) fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    while let Some(rest) = bytes.get(out.len()..).filter(|rest| !rest.is_empty()) {
        let after_word = out.last().is_some_and(|&byte| is_word(byte));
        let (len, fill) = blanked(rest, after_word).unwrap_or((1, None));
        for &byte in rest.iter().take(len) {
            out.push(fill.filter(|_| byte != b'\n').unwrap_or(byte));
        }
    }
    String::from_utf8(out).expect("only whole characters are replaced, by ASCII")
}

/// The length of the comment or literal at the start of `rest`, and what it is filled with.
fn blanked(rest: &[u8], after_word: bool) -> Option<(usize, Option<u8>)> {
    let end = |len: Option<usize>| len.unwrap_or(rest.len());
    if rest.starts_with(b"//") {
        Some((end(find(rest, b"\n")), Some(b' ')))
    } else if rest.starts_with(b"/*") {
        Some((end(block_comment(rest)), Some(b' ')))
    } else if rest.starts_with(b"\"") {
        Some((end(quoted(rest)), Some(b'"')))
    } else if rest.starts_with(b"'") {
        Some((character(rest)?, Some(b'"')))
    } else if after_word {
        None
    } else {
        Some((raw_string(rest)?, Some(b'"')))
    }
}

fn block_comment(rest: &[u8]) -> Option<usize> {
    let mut depth = 0;
    let mut at = 0;
    loop {
        let here = rest.get(at..at + 2)?;
        match here {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return Some(at);
        }
    }
}

fn quoted(rest: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match rest.get(at)? {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// `'x'` but not the lifetime `'x`.
fn character(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        return Some(3 + find(rest.get(3..)?, b"'")? + 1);
    }
    let first_of_next = |&byte: &u8| byte & 0xC0 != 0x80;
    let width = 1 + rest.get(2..)?.iter().position(first_of_next)?;
    (rest.get(1 + width) == Some(&b'\'')).then_some(width + 2)
}

/// `r"…"`, `br#"…"#` and their like.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = usize::from(matches!(rest.first()?, b'b' | b'c'));
    if rest.get(prefix) != Some(&b'r') {
        return None;
    }
    let after = rest.get(prefix + 1..)?;
    let hashes = after.iter().take_while(|&&byte| byte == b'#').count();
    if after.get(hashes) != Some(&b'"') {
        return None;
    }
    let body = prefix + 1 + hashes + 1;
    let close = [b"\"", "#".repeat(hashes).as_bytes()].concat();
    Some(body + find(rest.get(body..)?, &close)? + close.len())
}

/// A path as the code names it: `a::b::C`, or one leaf of `use a::{b::C, d}`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NamedPath {
    /// Where the leaf stands.
    pub(crate) offset: usize,
    pub(crate) segments: Vec<String>,
}

/// Every path in `code`, single words included.
pub(crate) fn paths(code: &str) -> Vec<NamedPath> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.len() {
        at = match word_at(code, at) {
            "" => at + 1,
            word if word.starts_with(|c: char| c.is_ascii_digit()) => at + word.len(),
            _ => read_path(code, at, &[], &mut found),
        };
    }
    found
}

/// Reads the path or use tree at `at`, which continues `prefix`; returns where it ends.
fn read_path(code: &str, mut at: usize, prefix: &[String], found: &mut Vec<NamedPath>) -> usize {
    let offset = at;
    let mut segments = prefix.to_vec();
    loop {
        let word = match byte_at(code, at) {
            Some(b'{') => return read_group(code, at + 1, &segments, found),
            Some(b'*') => "*",
            _ => word_at(code, at),
        };
        if word.is_empty() {
            break;
        }
        segments.push(word.to_owned());
        at += word.len();
        let separator = skip_space(code, at);
        if !code
            .get(separator..)
            .is_some_and(|rest| rest.starts_with("::"))
        {
            break;
        }
        at = skip_space(code, separator + 2);
    }
    found.push(NamedPath { offset, segments });
    at
}

fn read_group(code: &str, mut at: usize, prefix: &[String], found: &mut Vec<NamedPath>) -> usize {
    loop {
        at = skip_space(code, at);
        match byte_at(code, at) {
            None => return at,
            Some(b'}') => return at + 1,
            Some(b',') => at += 1,
            Some(_) => {
                let end = read_path(code, at, prefix, found);
                // A rename, `as name`, follows at most.
                let rest = code.get(end..).unwrap_or_default();
                at = end + rest.find([',', '}']).unwrap_or(rest.len());
            }
        }
    }
}

/// A function with a body.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) offset: usize,
    /// Between its braces.
    pub(crate) body: Range<usize>,
}

/// Every function of `code` that has a body.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let named = named_blocks(code, "fn");
    named
        .map(|(name, offset, body)| Function { name, offset, body })
        .collect()
}

/// The bodies of `mod name { … }`.
pub(crate) fn inline_modules(code: &str) -> Vec<Range<usize>> {
    named_blocks(code, "mod").map(|(_, _, body)| body).collect()
}

fn named_blocks(code: &str, keyword: &str) -> impl Iterator<Item = (String, usize, Range<usize>)> {
    code.match_indices(keyword).filter_map(move |(offset, _)| {
        let inside_word = offset
            .checked_sub(1)
            .and_then(|at| byte_at(code, at))
            .is_some_and(is_word);
        let name_at = skip_space(code, offset + keyword.len());
        let name = word_at(code, name_at);
        if inside_word || name.is_empty() || name_at == offset + keyword.len() {
            return None;
        }
        Some((name.to_owned(), offset, block_after(code, name_at)?))
    })
}

/// The items marked `#[cfg(test)]`, attribute included.
pub(crate) fn test_items(code: &str) -> Vec<Range<usize>> {
    let marks = code.match_indices("#[cfg(test)]");
    marks
        .map(|(start, mark)| start..item_end(code, start + mark.len()))
        .collect()
}

/// The attributes, each with its text.
pub(crate) fn attributes(code: &str) -> Vec<(usize, &str)> {
    let starts = code.match_indices("#[").chain(code.match_indices("#!["));
    starts
        .map(|(start, _)| (start, bracketed(code.get(start..).unwrap_or_default())))
        .collect()
}

/// From the start of `text` to the bracket that closes the first one.
fn bracketed(text: &str) -> &str {
    let mut depth = 0;
    for (offset, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' if depth == 1 => return text.get(..=offset).unwrap_or(text),
            b']' => depth -= 1,
            _ => {}
        }
    }
    text
}

fn item_end(code: &str, at: usize) -> usize {
    match block_after(code, at) {
        Some(block) => block.end,
        None => at + find(code.as_bytes().get(at..).unwrap_or_default(), b";").unwrap_or(0),
    }
}

/// The inside of the first `{ … }` after `at`, unless the item ends in `;` before it.
fn block_after(code: &str, at: usize) -> Option<Range<usize>> {
    let mut brackets = 0;
    for (offset, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets -= 1,
            b';' if brackets == 0 => return None,
            b'{' if brackets == 0 => return Some(offset + 1..matching_brace(code, offset)),
            _ => {}
        }
    }
    None
}

fn matching_brace(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (offset, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return offset,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

/// The one-based line of `offset`.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|&byte| byte == b'\n')
        .count()
}

fn word_at(code: &str, at: usize) -> &str {
    let rest = code.get(at..).unwrap_or_default();
    let len = rest.bytes().take_while(|&byte| is_word(byte)).count();
    rest.get(..len).unwrap_or_default()
}

fn skip_space(code: &str, at: usize) -> usize {
    let space = code.bytes().skip(at).take_while(u8::is_ascii_whitespace);
    at + space.count()
}

fn byte_at(code: &str, at: usize) -> Option<u8> {
    code.as_bytes().get(at).copied()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(code: &str) -> Vec<String> {
        let found = paths(code).into_iter().map(|path| path.segments.join("::"));
        found.filter(|path| path.contains("::")).collect()
    }

    #[test]
    fn comments_and_literals_are_no_code() {
        let text =
            "a(\"{ \\\" {\", '{', '\\'', b\"é{\", r#\"\"{\"#); // {\n/* { /* { */ */ fn f<'a>() {}";
        let code = code_of(text);
        assert_eq!(code.len(), text.len());
        assert_eq!(code.matches('{').count(), 1);
        assert!(code.ends_with("fn f<'a>() {}"), "{code}");
    }

    #[test]
    fn unfinished_text_does_not_hang_or_panic() {
        for text in [
            "\"",
            "'",
            "'\\",
            "/*",
            "r#\"",
            "use a::{b",
            "fn f(",
            "fn f() {",
            "a::",
        ] {
            let code = code_of(text);
            drop((paths(&code), functions(&code), test_items("#[cfg(test)]")));
        }
    }

    #[test]
    fn use_trees_are_spelled_out() {
        let code = "use crate::{error::{Error, Kind as K}, secret, lua::*};\n\
            let x = crate :: api\n:: Y::<u8>::new();";
        assert_eq!(
            named(code),
            [
                "crate::error::Error",
                "crate::error::Kind",
                "crate::secret",
                "crate::lua::*",
                "crate::api::Y"
            ]
        );
    }

    #[test]
    fn functions_end_at_their_own_brace() {
        let code = "trait T { fn a(&self); }\nfn b() -> [u8; 2] { if x { y } }\nlet f: fn(u8) = g;";
        let found = functions(code);
        assert_eq!(found.len(), 1);
        assert_eq!(&code[found[0].body.clone()], " if x { y } ");
    }

    #[test]
    fn test_items_are_found_with_their_whole_body() {
        let code = "fn a() {}\n#[cfg(test)]\n#[path = x]\nmod tests { fn b() {} }\nfn c() {}";
        let found = test_items(code);
        assert_eq!(found.len(), 1);
        assert!(code[found[0].clone()].ends_with("fn b() {} "));
    }
}
