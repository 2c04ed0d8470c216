//! File systems made by the distribution's tools on a sparse file. What the tool leaves as holes
//! it takes to be zero, so holes are zeroed on the disk too.

use crate::error::{Error, Kind, Result};
use crate::image::source::{Format, ImageSource};
use serde::{Deserialize, Serialize};
use std::process::Command;
use tempfile::NamedTempFile;
use uuid::Uuid;

/// A kind of file system for the ephemeral partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystemKind {
    /// By mkfs.ext4 of e2fsprogs.
    Ext4,
    /// By mkfs.xfs of xfsprogs.
    Xfs,
    /// By mkfs.vfat of dosfstools.
    Vfat,
}

/// Ironic's label of the ephemeral file system.
const LABEL: &str = "ephemeral0";

/// Opens what was made in a file. The file's name may go then: the open file stays.
pub(super) fn opened(file: &NamedTempFile) -> Result<ImageSource> {
    ImageSource::open(file.path(), Some(Format::Raw))
}

/// A sparse file of this size.
pub(super) fn sparse_file(bytes: u64) -> Result<NamedTempFile> {
    let made = NamedTempFile::new().and_then(|file| {
        file.as_file().set_len(bytes)?;
        Ok(file)
    });
    made.map_err(|e| Error::io(&std::env::temp_dir(), "make a sparse file", &e))
}

/// Makes an empty file system. Blocks.
///
/// # Errors
/// `not_found` if the tool is not installed; `invalid` with its words if it refuses the size.
pub(super) fn make(kind: FileSystemKind, bytes: u64, identity: Uuid) -> Result<ImageSource> {
    let file = sparse_file(bytes)?;
    let uuid = identity.to_string();
    let (tool, package, args) = match kind {
        FileSystemKind::Ext4 => (
            "mkfs.ext4",
            "e2fsprogs",
            vec![
                "-q",
                "-F",
                "-L",
                LABEL,
                "-U",
                &uuid,
                "-E",
                "hash_seed=clear",
            ],
        ),
        FileSystemKind::Xfs => ("mkfs.xfs", "xfsprogs", vec!["-q", "-f", "-L", LABEL]),
        FileSystemKind::Vfat => ("mkfs.vfat", "dosfstools", vec!["-n", LABEL]),
    };
    let mut args: Vec<String> = args.into_iter().map(str::to_owned).collect();
    match kind {
        FileSystemKind::Ext4 => {
            if let Some(seed) = args.last_mut() {
                *seed = format!("hash_seed={uuid}");
            }
        }
        FileSystemKind::Xfs => args.extend(["-m".to_owned(), format!("uuid={uuid}")]),
        FileSystemKind::Vfat => {
            let id = uuid.get(..8).unwrap_or("00000001");
            args.extend(["-i".to_owned(), id.to_owned()]);
        }
    }
    run(tool, package, &args, file.path())?;
    opened(&file)
}

fn run(tool: &str, package: &str, args: &[String], path: &std::path::Path) -> Result<()> {
    // Administrators' tools lie where only they look.
    let search = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = Command::new(tool)
        .args(args)
        .arg(path)
        .env("PATH", search)
        .env("LC_ALL", "C")
        .output();
    let output = output.map_err(|e| {
        let kind = match e.kind() {
            std::io::ErrorKind::NotFound => Kind::NotFound,
            _ => Kind::Io,
        };
        Error::new(kind, format!("cannot run {tool}"))
            .caused_by(&e)
            .hint(format!(
                "install {package}, or choose another ephemeral_format"
            ))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::new(Kind::Invalid, format!("{tool} refused: {said}"))
        .hint("another ephemeral_gb or ephemeral_format may do"))
}
