//! What stands behind an iLO: a simulated server, or a virtual machine.

use crate::lab::host::Host;
use crate::lab::node::{Boot, Node};
use crate::lab::vm::Vm;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A server without its iLO.
#[derive(Debug, Clone)]
pub(super) enum Hardware {
    Simulated(Node),
    Vm(Vm),
}

impl Hardware {
    pub(super) fn host(&self) -> Arc<dyn Host> {
        match self {
            Self::Simulated(node) => Arc::new(node.clone()),
            Self::Vm(vm) => Arc::new(vm.clone()),
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Simulated(_) => "simulated",
            Self::Vm(_) => "vm",
        }
    }

    pub(super) fn disk_path(&self) -> PathBuf {
        match self {
            Self::Simulated(node) => node.disk_path(),
            Self::Vm(vm) => vm.disk_path(),
        }
    }

    pub(super) fn disk_bytes_written(&self) -> u64 {
        match self {
            Self::Simulated(node) => node.disk_bytes_written(),
            Self::Vm(vm) => vm.disk_bytes_written(),
        }
    }

    pub(super) fn console_path(&self) -> &Path {
        match self {
            Self::Simulated(node) => node.console_path(),
            Self::Vm(vm) => vm.console_path(),
        }
    }

    /// The newest copy of the screen, of a machine that has one.
    pub(super) fn screen_path(&self) -> Option<PathBuf> {
        match self {
            Self::Simulated(_) => None,
            Self::Vm(vm) => Some(vm.screen_path()),
        }
    }

    pub(super) fn boots(&self) -> Vec<Boot> {
        match self {
            Self::Simulated(node) => node.boots(),
            Self::Vm(vm) => vm.boots(),
        }
    }

    pub(super) fn cut_mains(&self) {
        match self {
            Self::Simulated(node) => node.cut_mains(),
            Self::Vm(vm) => vm.cut_mains(),
        }
    }
}
