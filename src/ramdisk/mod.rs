//! What runs on the node between the deploy ramdisk's boot and its reboot.
//!
//! It reads its parameters from the virtual floppy, exports the disk over iSCSI, tells the
//! deployer where, waits until it is told that the disk is written, and asks for a reboot. It
//! knows nothing of who started it: a kernel, or a simulated machine.

mod addressing;
pub mod build;
mod callback;
pub mod deploy;
mod done;
mod drivers;
mod fat;
pub mod floppy;
pub mod machine;
pub mod parameters;

pub use addressing::Addressing;
