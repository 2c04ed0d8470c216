//! The `flowrun` command, and `/init` of the deploy ramdisk.

use std::process::ExitCode;

fn main() -> ExitCode {
    if flowrun::ramdisk::machine::is_init() {
        return flowrun::ramdisk::machine::main();
    }
    flowrun::cli::main()
}
