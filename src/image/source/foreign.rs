//! Formats that are told apart only to be refused: written as they are, their headers and tables
//! would be the disk.

use crate::error::{Error, Kind, Result};

/// What a file begins with, or has at an offset. A fixed-size VHD has its footer at the end only
/// and is a raw disk before it.
const MAGIC: [(usize, &[u8], &str); 7] = [
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vpc"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"QED\0", "qed"),
];

/// Refuses a head of one of these formats, by the name that QEMU has for it.
pub(super) fn refuse(head: &[u8]) -> Result<()> {
    let is_of = |(at, magic, _): &&(usize, &[u8], &str)| {
        head.get(*at..).is_some_and(|rest| rest.starts_with(magic))
    };
    let Some((_, _, format)) = MAGIC.iter().find(is_of) else {
        return Ok(());
    };
    let message = format!("this is a {format} image; raw and qcow2 are read");
    let hint = format!(
        "`qemu-img convert -f {format} -O qcow2` makes one; a disk that begins so has the format raw"
    );
    Err(Error::new(Kind::Unsupported, message).hint(hint))
}
