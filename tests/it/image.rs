//! Our media and disk writes, read by independent tools.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test they help"
)]

mod boot;
mod disk;
mod floppy;
mod iso;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

/// Runs a tool of the Debian package named in `from`, whatever its exit status.
pub(crate) fn run<A: AsRef<OsStr>>(from: &str, program: &str, args: &[A]) -> Output {
    // Administrators' tools lie where only they look.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .env("PATH", path)
        .env("MTOOLSRC", "/dev/null")
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program} (Debian package {from}): {error}"))
}

/// Runs a tool that must succeed and returns its standard output.
pub(crate) fn tool<A: AsRef<OsStr>>(from: &str, program: &str, args: &[A]) -> Vec<u8> {
    let output = run(from, program, args);
    assert!(
        output.status.success(),
        "{program}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

pub(crate) fn text<A: AsRef<OsStr>>(from: &str, program: &str, args: &[A]) -> String {
    String::from_utf8_lossy(&tool(from, program, args)).into_owned()
}

pub(crate) fn show(path: &Path) -> String {
    path.display().to_string()
}

/// Bytes without a pattern that a wrong offset could hide in; xorshift64.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
