//! The `flowrun` command.

fn main() {}
