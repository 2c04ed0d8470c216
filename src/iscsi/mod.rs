//! iSCSI (RFC 7143): initiator and target over one sans-IO core.

pub mod proto;
pub mod scsi;
