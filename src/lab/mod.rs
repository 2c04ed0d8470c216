//! The simulated site: real servers on loopback, real bytes.

pub mod host;
pub mod ilo;
