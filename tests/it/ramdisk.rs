//! The deploy ramdisk that we ship: how it is built, and that a machine boots it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

mod boot;
mod build;
mod hardware;
mod switch;

use crate::support::boot_part;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `flowrun ramdisk build`.
fn run_build(folder: &Path, output: &str, arguments: &[String]) -> Output {
    let config = folder.join("flowrun.toml");
    let text = format!(
        "[boot_loaders]\nisolinux = {:?}\nldlinux = {:?}\ngrub = {:?}\n",
        boot_part("isolinux.bin"),
        boot_part("ldlinux.c32"),
        boot_part("gcdx64.efi"),
    );
    std::fs::write(&config, text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_flowrun"))
        .args(["ramdisk", "build", "--output"])
        .arg(folder.join(output))
        .args(arguments)
        .arg("--config")
        .arg(config)
        .output()
        .unwrap()
}

/// What it says as JSON.
fn build(folder: &Path, output: &str, arguments: &[String]) -> Value {
    let arguments = [arguments, &["--json".to_owned()]].concat();
    let output = run_build(folder, output, &arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}
