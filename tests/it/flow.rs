//! The binary on a simulated site: whole deployments, killed, cancelled and broken ones.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

mod actions;
mod classic_ramdisk;
mod commands;
mod deploy;
mod failures;
mod ilo_sessions;
mod ilo_settings;
mod image_lease;
pub(crate) mod inventory;
mod mistakes;
mod partition_image;
mod recovery;
mod shared_iso;
mod site;
mod sources;

/// Of the file system of partition images.
pub(crate) const ROOT_UUID: &str = "6d1d5e0a-3f0e-4b8a-9d0e-0123456789ab";

pub(crate) use site::{
    FLOW, LabUp, code, events, flowrun, newest_run, pause, root, run, scribble, signal, text, told,
    until_entry,
};
