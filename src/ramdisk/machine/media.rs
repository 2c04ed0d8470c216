//! Finds the virtual floppy among the machine's drives.

use super::sysfs::Drive;
use crate::error::{Error, Kind, Result};
use crate::ramdisk::floppy::{Floppy, MAX_IMAGE_BYTES};
use std::fs::File;
use std::io::Read;

/// Looks at every drive whose medium can be changed, by USB or otherwise, once.
///
/// # Errors
/// `not_found` if none has the floppy; what is wrong with it if one has.
pub(super) fn find() -> Result<(String, Floppy)> {
    let mut seen = Vec::new();
    for drive in Drive::all().into_iter().filter(Drive::is_floppy_like) {
        let image = match read(&drive) {
            Ok(image) => image,
            Err(error) => {
                seen.push(format!("{}: {error}", drive.name));
                continue;
            }
        };
        match Floppy::read(&image) {
            Ok(floppy) => return Ok((drive.name, floppy)),
            Err(error) => seen.push(format!("{}: {}", drive.name, error.message())),
        }
    }
    let looked = match seen.is_empty() {
        true => "there is no removable drive".to_owned(),
        false => seen.join("; "),
    };
    Err(Error::new(Kind::NotFound, format!("no virtual floppy: {looked}")).op("ramdisk.floppy"))
}

/// The whole medium; opening the device makes the kernel look whether one is in.
fn read(drive: &Drive) -> std::io::Result<Vec<u8>> {
    let mut image = Vec::new();
    File::open(drive.device())?
        .take(MAX_IMAGE_BYTES)
        .read_to_end(&mut image)?;
    Ok(image)
}
