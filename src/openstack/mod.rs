//! Clients of OpenStack services.

pub mod swift;
pub mod temp_url;
