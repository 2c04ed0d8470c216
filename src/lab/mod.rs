//! The simulated site: real servers on loopback, real bytes.
//!
//! [`site::Site`] is the whole of it. For each node there is a simulated iLO ([`ilo`]) that powers
//! a simulated server ([`node`]) or a virtual machine (`vm`); the two know each other through
//! [`host`] only.

mod console;
mod files;
pub mod host;
pub mod ilo;
mod iso;
pub mod media;
pub mod node;
mod recorder;
pub mod site;
pub mod tls;
mod vm;
