//! flowrun deploys bare-metal servers with Lua flows that operators edit while it runs.

pub mod api;
pub mod backoff;
pub mod cli;
pub mod clock;
pub mod config;
pub mod disk;
pub mod engine;
pub mod error;
pub mod http;
pub mod ilo;
pub mod image;
pub mod iscsi;
pub mod journal;
pub mod lab;
pub mod lua;
pub mod objectstore;
pub mod openstack;
pub mod ramdisk;
pub mod secret;
pub mod suggest;
