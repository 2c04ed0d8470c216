//! Clients of OpenStack services.

mod answer;
pub mod glance;
pub mod keystone;
pub mod swift;
pub mod temp_url;
