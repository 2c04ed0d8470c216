//! The binary on a simulated site: whole deployments, killed, cancelled and broken ones.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests, which the lints do not recognise outside of test functions"
)]

mod commands;
mod deploy;
mod ilo_sessions;
mod ilo_settings;
mod image_lease;
mod mistakes;
mod partition_image;
mod recovery;
mod site;

pub(crate) use site::{
    FLOW, LabUp, code, events, flowrun, pause, root, run, scribble, signal, text, told, until_entry,
};
