//! Clients of OpenStack services.

mod answer;
mod attempt;
pub mod keystone;
pub mod swift;
pub mod temp_url;
