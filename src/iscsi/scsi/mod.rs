//! The SCSI commands that disks understand (SPC-5, SBC-4), encoded and decoded without I/O.
//!
//! The initiator encodes what the target decodes, and the other way round, so both halves of
//! each format stand side by side.

mod cdb;
mod inquiry;
mod parameter;
pub mod reservation;
mod sense;

pub use cdb::{Cdb, VENDOR, unmap_list, unmap_ranges};
pub use inquiry::{BlockLimits, Designator, Inquiry, Provisioning, page, vpd_page, vpd_payload};
pub use parameter::{Capacity, ModeHeader, decode_lun_list, lun_list};
pub use sense::{Sense, SenseKey};
