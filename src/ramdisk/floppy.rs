//! The virtual floppy that carries parameters and credentials to the ramdisk.

use super::fat::Volume;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// Label of the volume, compared without regard to case.
pub const LABEL: &str = "ir-vfd-dev";

/// Largest image that is read.
pub const MAX_IMAGE_BYTES: u64 = 16 << 20;

/// Longest file that is read.
const MAX_FILE_BYTES: usize = 256 << 10;

/// What the deployer put on the floppy.
#[derive(Debug)]
pub struct Floppy {
    /// `parameters.txt`: secrets among them.
    pub parameters: Secret,
    /// `token`: sent with the callback.
    pub token: Option<Secret>,
    /// `ca.pem`: the authority that signed the deployer's certificate.
    pub ca_pem: Option<String>,
}

impl Floppy {
    /// Reads the files from the image of a FAT12 or FAT16 volume.
    ///
    /// # Errors
    /// `corrupt` if it is no such volume; `not_found` if its label is another or
    /// `parameters.txt` is missing.
    pub fn read(image: &[u8]) -> Result<Self> {
        Self::read_files(image).map_err(|e| e.op("ramdisk.floppy"))
    }

    fn read_files(image: &[u8]) -> Result<Self> {
        let volume = Volume::open(image)
            .map_err(|why| Error::new(Kind::Corrupt, format!("not a FAT volume: {why}")))?;
        let label = volume.label();
        if !label.eq_ignore_ascii_case(LABEL) {
            return Err(Error::new(
                Kind::NotFound,
                format!("the volume is labelled {label:?}, not {LABEL:?}"),
            ));
        }
        let files = volume.files();
        let text = |name: &str| -> Result<Option<String>> {
            let same = |found: &&super::fat::File| found.name.eq_ignore_ascii_case(name);
            let Some(file) = files.iter().find(same) else {
                return Ok(None);
            };
            let unreadable = |why: &str| Error::new(Kind::Corrupt, format!("{name}: {why}"));
            let bytes = volume.read(file, MAX_FILE_BYTES).map_err(unreadable)?;
            let text = String::from_utf8(bytes).map_err(|_| unreadable("not UTF-8"))?;
            Ok(Some(text))
        };
        let parameters = text("parameters.txt")?
            .ok_or_else(|| Error::new(Kind::NotFound, "no parameters.txt on the floppy"))?;
        let token = text("token")?.map(|token| token.trim().to_owned());
        Ok(Self {
            parameters: Secret::new(parameters),
            token: token.filter(|token| !token.is_empty()).map(Secret::new),
            ca_pem: text("ca.pem")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write};

    fn image(label: [u8; 11], files: &[(&str, &str)]) -> Vec<u8> {
        let mut image = Cursor::new(vec![0_u8; 100 << 10]);
        let options = fatfs::FormatVolumeOptions::new().volume_label(label);
        fatfs::format_volume(&mut image, options).unwrap();
        image.set_position(0);
        {
            let volume = fatfs::FileSystem::new(&mut image, fatfs::FsOptions::new()).unwrap();
            for (name, contents) in files {
                let mut file = volume.root_dir().create_file(name).unwrap();
                file.write_all(contents.as_bytes()).unwrap();
            }
        }
        image.into_inner()
    }

    #[test]
    fn takes_its_three_files() {
        let files = [
            ("parameters.txt", "a=b"),
            ("token", "gAAAA\n"),
            ("ca.pem", "pem"),
        ];
        for label in [*b"ir-vfd-dev ", *b"IR-VFD-DEV "] {
            let floppy = Floppy::read(&image(label, &files)).unwrap();
            assert_eq!(floppy.parameters.expose(), "a=b");
            assert_eq!(floppy.token.unwrap().expose(), "gAAAA");
            assert_eq!(floppy.ca_pem.as_deref(), Some("pem"));
        }
        let floppy = Floppy::read(&image(*b"ir-vfd-dev ", &files[..1])).unwrap();
        assert!(floppy.token.is_none() && floppy.ca_pem.is_none());
    }

    #[test]
    fn says_what_is_missing() {
        let error = Floppy::read(&image(*b"OTHER      ", &[])).unwrap_err();
        assert!(error.message().contains("\"OTHER\""), "{error}");
        let error = Floppy::read(&image(*b"ir-vfd-dev ", &[])).unwrap_err();
        assert!(error.message().contains("parameters.txt"), "{error}");
        let error = Floppy::read(&[0; 1000]).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
    }
}
