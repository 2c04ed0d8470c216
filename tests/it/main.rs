//! The integration tests: one binary, one module a subject.

mod check;
mod disk;
mod documented;
mod flow;
mod ilo;
mod image;
mod iscsi;
mod lab;
mod matrix;
mod node;
mod objectstore;
mod openstack;
mod quirks;
mod ramdisk;
mod reload;
mod serve;
mod support;
mod sweep;
mod vm;
