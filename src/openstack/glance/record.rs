//! What Glance knows of an image.

use crate::error::{Error, Kind, Result};
use crate::image::checksum::{Algorithm, Checksum};
use crate::secret::Secret;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An image's record. Properties that the operator gave it are in `properties`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    /// Its id.
    pub id: String,
    /// Its name, which need not be unique.
    pub name: Option<String>,
    /// `active` when it has its data.
    pub status: String,
    /// Size of the data in bytes.
    pub size: Option<u64>,
    /// MD5 of the data.
    pub checksum: Option<String>,
    /// The hash function of `os_hash_value`.
    pub os_hash_algo: Option<String>,
    /// Hash of the data.
    pub os_hash_value: Option<String>,
    /// `raw`, `qcow2`, `iso`, `aki`, `ari`, …
    pub disk_format: Option<String>,
    /// Least disk in GiB.
    #[serde(default)]
    pub min_disk: u64,
    /// When the record or the data last changed.
    pub updated_at: Option<String>,
    /// The kernel's image, for a partition image.
    pub kernel_id: Option<String>,
    /// The ramdisk's image, for a partition image.
    pub ramdisk_id: Option<String>,
    /// The image of an ISO that boots what this one deploys.
    pub boot_iso: Option<String>,
    /// Where the data is, if this site tells. It may hold a password.
    #[serde(skip_serializing)]
    direct_url: Option<Secret>,
    /// Everything else.
    #[serde(flatten)]
    pub properties: Map<String, Value>,
}

impl Image {
    /// What the data has to be: `os_hash_value`, or `checksum` where it is missing.
    ///
    /// # Errors
    /// `corrupt` if Glance tells neither.
    pub fn checksum(&self) -> Result<Checksum> {
        let algorithm = self.os_hash_algo.as_deref().and_then(Algorithm::parse);
        if let (Some(algorithm), Some(hex)) = (algorithm, &self.os_hash_value) {
            return Checksum::parse(&format!("{}:{hex}", algorithm.as_str()));
        }
        match &self.checksum {
            Some(hex) => Checksum::parse(&format!("md5:{hex}")),
            None => Err(
                Error::new(Kind::Corrupt, "Glance tells no hash of the image")
                    .hint("upload the image again"),
            ),
        }
    }

    pub(super) fn check_active(&self) -> Result<()> {
        if self.status == "active" {
            return Ok(());
        }
        let message = format!("the image is {}, not active", self.status);
        Err(Error::new(Kind::Conflict, message).hint("wait for its upload, or upload it again"))
    }

    /// Container and object in Swift. Glance's URLs end in both:
    /// `swift+config://<reference>/<container>/<object>`, `swift+https://user:key@host/…`.
    pub(super) fn swift_location(&self, container: &str) -> Result<(String, String)> {
        let Some(url) = &self.direct_url else {
            return Ok((container.to_owned(), self.id.clone()));
        };
        let (scheme, rest) = url.expose().split_once("://").unwrap_or(("", ""));
        let mut parts = rest.rsplit('/');
        match (parts.next(), parts.next()) {
            (Some(object), Some(container)) if scheme.starts_with("swift") => {
                Ok((container.to_owned(), object.to_owned()))
            }
            _ => {
                let message = format!("Glance keeps the image in its {scheme} store, not in Swift");
                Err(Error::new(Kind::Unsupported, message)
                    .hint("upload it into Glance's Swift store, or into a container"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(more: &Value) -> Image {
        let mut fields = json!({ "id": "i", "status": "active" });
        let more = more.as_object().unwrap().clone();
        fields.as_object_mut().unwrap().extend(more);
        serde_json::from_value(fields).unwrap()
    }

    #[test]
    fn the_strong_hash_goes_before_the_old_one() {
        let (md5, sha) = ("a".repeat(32), "b".repeat(128));
        let both = json!({ "checksum": md5, "os_hash_algo": "sha512", "os_hash_value": sha });
        assert_eq!(
            image(&both).checksum().unwrap().algorithm,
            Algorithm::Sha512
        );
        let unknown = json!({ "checksum": md5, "os_hash_algo": "blake9", "os_hash_value": sha });
        assert_eq!(
            image(&unknown).checksum().unwrap().algorithm,
            Algorithm::Md5
        );
        assert_eq!(
            image(&json!({})).checksum().unwrap_err().kind(),
            Kind::Corrupt
        );
        let broken = json!({ "os_hash_algo": "sha512", "os_hash_value": "zz" });
        assert!(image(&broken).checksum().is_err());
    }

    #[test]
    fn a_url_tells_where_in_swift_the_data_is() {
        let at = |url: &str| image(&json!({ "direct_url": url })).swift_location("glance");
        let there = ("c".to_owned(), "o".to_owned());
        assert_eq!(at("swift+config://ref1/c/o").unwrap(), there);
        assert_eq!(
            at("swift+https://a%3Au:hunter2@host/v3/c/o").unwrap(),
            there
        );
        let error = at("file:///var/lib/glance/hunter2").unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(!format!("{error:?}").contains("hunter2"));
        let untold = image(&json!({})).swift_location("glance").unwrap();
        assert_eq!(untold, ("glance".to_owned(), "i".to_owned()));
        let image = image(&json!({ "direct_url": "swift://u:hunter2@h/c/o", "x": "y" }));
        let printed = format!("{image:?} {}", serde_json::to_string(&image).unwrap());
        assert!(!printed.contains("hunter2"), "{printed}");
        assert_eq!(image.properties["x"], "y");
    }
}
