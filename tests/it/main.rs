//! The integration tests: one binary, one module a subject.

mod flow;
mod ilo;
mod image;
mod iscsi;
mod lab;
mod objectstore;
mod openstack;
mod support;
