//! Checksums of images: which hash, and what it has to be.

use crate::error::{Error, Kind, Result};
use md5::Md5;
use sha2::digest::DynDigest;
use sha2::{Sha256, Sha384, Sha512};
use std::fmt;
use std::io::Read;
use std::path::Path;

/// A hash function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Finds damage, not fraud; Glance's `checksum`.
    Md5,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// Glance's default `os_hash_algo`.
    Sha512,
}

impl Algorithm {
    const ALL: [(Self, &'static str, usize); 4] = [
        (Self::Md5, "md5", 32),
        (Self::Sha256, "sha256", 64),
        (Self::Sha384, "sha384", 96),
        (Self::Sha512, "sha512", 128),
    ];

    /// The hash of this name, as Glance spells it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find_map(|(algorithm, known, _)| (known == name).then_some(algorithm))
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Begins a hash.
    #[must_use]
    pub fn hasher(self) -> Hasher {
        Hasher(match self {
            Self::Md5 => Box::new(Md5::default()),
            Self::Sha256 => Box::new(Sha256::default()),
            Self::Sha384 => Box::new(Sha384::default()),
            Self::Sha512 => Box::new(Sha512::default()),
        })
    }

    /// The hash of a file in hex. Blocks.
    ///
    /// # Errors
    /// `not_found` or `io` if it cannot be read.
    pub fn hash_file(self, path: &Path) -> Result<String> {
        let failed = |e: std::io::Error| Error::io(path, "read the image", &e);
        let mut file = std::fs::File::open(path).map_err(failed)?;
        let mut hasher = self.hasher();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = file.read(&mut buffer).map_err(failed)?;
            if count == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(buffer.get(..count).unwrap_or_default());
        }
    }
}

/// A hash in the making.
pub struct Hasher(Box<dyn DynDigest + Send + Sync>);

impl Hasher {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash in hex; the hasher begins anew.
    pub fn finish(&mut self) -> String {
        hex::encode(self.0.finalize_reset())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// What the hash of an image has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    /// The function.
    pub algorithm: Algorithm,
    /// Its value, in lower case.
    pub hex: String,
}

impl Checksum {
    /// Reads `sha256:<hex>`, or hex alone, whose length names the function.
    ///
    /// # Errors
    /// `invalid` if it is neither.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, hex) = match text.split_once(':') {
            Some((name, hex)) => (Some(name.to_ascii_lowercase()), hex),
            None => (None, text),
        };
        let fits = |(_, known, length): &(Algorithm, &str, usize)| {
            *length == hex.len() && name.as_deref().is_none_or(|name| name == *known)
        };
        let found = Algorithm::ALL.into_iter().find(fits);
        match found.filter(|_| hex.bytes().all(|b| b.is_ascii_hexdigit())) {
            Some((algorithm, ..)) => Ok(Self {
                algorithm,
                hex: hex.to_ascii_lowercase(),
            }),
            None => Err(
                Error::new(Kind::Invalid, format!("{text:?} is no checksum"))
                    .hint("give SHA-256 or SHA-512 in hex, or md5:<hex>"),
            ),
        }
    }

    /// Compares with what was found.
    ///
    /// # Errors
    /// `corrupt` if it is another.
    pub fn compare(&self, found: &str) -> Result<()> {
        if self.hex == found {
            return Ok(());
        }
        let name = self.algorithm.as_str();
        let message = format!("the image's {name} is {found}, not {}", self.hex);
        Err(Error::new(Kind::Corrupt, message))
    }

    /// Hashes a file and compares. Blocks.
    ///
    /// # Errors
    /// `not_found` or `io` if it cannot be read; `corrupt` if it is another.
    pub fn check_file(&self, path: &Path) -> Result<()> {
        self.compare(&self.algorithm.hash_file(path)?)
            .map_err(|e| e.target(path.display().to_string()))
    }
}

/// `sha256:<hex>`
impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.hex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_length_or_a_name_tells_the_function() {
        let parsed = Checksum::parse(&ABC.to_uppercase()).unwrap();
        assert_eq!(parsed.to_string(), format!("sha256:{ABC}"));
        assert_eq!(Checksum::parse(&parsed.to_string()).unwrap(), parsed);
        let md5 = Checksum::parse("md5:900150983cd24fb0d6963f7d28e17f72").unwrap();
        assert_eq!(md5.algorithm, Algorithm::Md5);
        for broken in [
            "",
            "abc",
            &format!("md5:{ABC}"),
            &"zz".repeat(32),
            "sha256:",
        ] {
            assert_eq!(Checksum::parse(broken).unwrap_err().kind(), Kind::Invalid);
        }
    }

    #[test]
    fn a_file_is_what_it_has_to_be_or_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "abc").unwrap();
        let checksum = Checksum::parse(ABC).unwrap();
        checksum.check_file(file.path()).unwrap();
        std::fs::write(&file, "abd").unwrap();
        let error = checksum.check_file(file.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        for (algorithm, name, length) in Algorithm::ALL {
            assert_eq!(Algorithm::parse(name), Some(algorithm));
            assert_eq!(algorithm.as_str(), name);
            assert_eq!(algorithm.hasher().finish().len(), length);
        }
    }
}
