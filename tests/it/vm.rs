//! Whole deployments on a machine that really boots: firmware, kernel, ramdisk, deployed system.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

mod deploy;
mod installed;
mod parts;
mod site;
