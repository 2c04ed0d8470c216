//! Where images come from: Glance, Swift, a web server, a file of this machine.

use super::{Identity, ImageCache, Lease, http};
use crate::error::{Error, Kind, Result};
use crate::http::Trust;
use crate::image::checksum::Checksum;
use crate::openstack::glance::{Glance, Image};
use crate::openstack::swift::Swift;
use std::path::PathBuf;
use std::sync::Arc;

/// What `image_source` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An image of Glance, by id or name.
    Glance(String),
    /// An object of Swift.
    Swift {
        /// Its container.
        container: String,
        /// Its name.
        object: String,
    },
    /// `http(s)://…`
    Http(String),
    /// A file, which is used where it is.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether it was given as a URL; then a checksum has to come with it.
        url: bool,
    },
}

impl Origin {
    /// Reads `glance:<id>`, `glance://<id or name>`, a bare id, `swift:<container>/<object>`,
    /// `http(s)://…`, `file://…` or a path.
    ///
    /// # Errors
    /// `unsupported` for another scheme; `invalid` if Swift's container or object is missing.
    pub fn parse(text: &str) -> Result<Self> {
        if uuid::Uuid::parse_str(text).is_ok() {
            return Ok(Self::Glance(text.to_owned()));
        }
        if let Some(image) = text.strip_prefix("glance:") {
            return Ok(Self::Glance(image.trim_start_matches("//").to_owned()));
        }
        if let Some(place) = text.strip_prefix("swift:") {
            let place = place.trim_start_matches('/').split_once('/');
            let (container, object) = place
                .filter(|(container, object)| !container.is_empty() && !object.is_empty())
                .ok_or_else(|| {
                    Error::new(
                        Kind::Invalid,
                        "an image in Swift is swift:<container>/<object>",
                    )
                    .target(text)
                })?;
            return Ok(Self::Swift {
                container: container.to_owned(),
                object: object.to_owned(),
            });
        }
        let (scheme, path) = match text.split_once("://") {
            Some(parts) => parts,
            None => ("", text),
        };
        match scheme {
            "http" | "https" => Ok(Self::Http(text.to_owned())),
            "file" | "" => Ok(Self::File {
                path: path.into(),
                url: scheme == "file",
            }),
            _ => Err(Error::new(
                Kind::Unsupported,
                format!("images are not fetched by {scheme}"),
            )
            .target(text)
            .hint(
                "give glance://<id>, swift:<container>/<object>, http(s)://…, file://… or a path",
            )),
        }
    }
}

/// An image that is on this machine.
#[derive(Debug)]
pub struct Fetched {
    /// Where it is.
    pub path: PathBuf,
    /// What was compared, if there was something to compare with.
    pub checksum: Option<Checksum>,
    /// What Glance knows of it.
    pub record: Option<Image>,
    /// Keeps it from being evicted; a file that is used where it is needs none.
    pub lease: Option<Lease>,
}

/// The services that images come from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// If one is configured.
    pub glance: Option<Arc<Glance>>,
    /// If an object store is configured.
    pub swift: Option<Arc<Swift>>,
    /// For web servers.
    pub trust: Trust,
}

impl ImageCache {
    /// Brings an image to this machine unless it is here, verified.
    ///
    /// # Errors
    /// `invalid` if a checksum is missing or contradicts Glance; `corrupt` if the image is
    /// another; `limit` without space; otherwise as the service fails.
    pub async fn fetch(
        &self,
        sources: &Sources,
        origin: Origin,
        checksum: Option<Checksum>,
    ) -> Result<Fetched> {
        match origin {
            Origin::Glance(name) => {
                let glance = sources.glance.as_ref().ok_or_else(|| {
                    Error::new(Kind::Invalid, "no Glance is configured")
                        .target(&name)
                        .hint("add [keystone] to flowrun.toml, or give a file or URL")
                })?;
                self.of_glance(glance, &name, checksum).await
            }
            Origin::Swift { container, object } => {
                let swift = sources.swift.as_ref().ok_or_else(|| {
                    Error::new(Kind::Invalid, "no object store is configured")
                        .target(format!("{container}/{object}"))
                        .hint("add [keystone] or [swift] to flowrun.toml")
                })?;
                self.of_swift(swift, &container, &object, checksum).await
            }
            Origin::Http(url) => {
                let checksum = checksum.ok_or_else(|| no_checksum(&url))?;
                self.of_web(&sources.trust, &url, checksum).await
            }
            Origin::File { path, url } => {
                if url && checksum.is_none() {
                    return Err(no_checksum(&path.display().to_string()));
                }
                of_file(path, checksum).await
            }
        }
    }

    async fn of_glance(
        &self,
        glance: &Glance,
        name: &str,
        given: Option<Checksum>,
    ) -> Result<Fetched> {
        let image = glance.image(name).await?;
        let checksum = image.checksum().map_err(|e| e.target(&image.id))?;
        if let Some(given) = given
            && given.algorithm == checksum.algorithm
            && given != checksum
        {
            let message = format!("image_checksum is {given}, Glance says {checksum}");
            return Err(Error::new(Kind::Corrupt, message).target(&image.id));
        }
        let updated = image.updated_at.as_deref().unwrap_or_default();
        let identity = Identity {
            source: format!("glance:{}", image.id),
            version: format!("{checksum} {updated}"),
            bytes: image.size,
        };
        let lease = self
            .get(&identity, async |to| glance.download(&image, to).await)
            .await?;
        Ok(Fetched {
            path: lease.path.clone(),
            checksum: Some(checksum),
            record: Some(image),
            lease: Some(lease),
        })
    }

    /// The ETag names the version; it is compared too, unless the object is made of segments.
    async fn of_swift(
        &self,
        swift: &Swift,
        container: &str,
        object: &str,
        given: Option<Checksum>,
    ) -> Result<Fetched> {
        let source = format!("swift:{container}/{object}");
        let info = swift.head(container, object).await?.ok_or_else(|| {
            Error::new(Kind::NotFound, "there is no such object")
                .target(&source)
                .hint("`swift.list` tells what the container holds")
        })?;
        let checksum = match given {
            Some(given) => given,
            None if info.segmented => {
                return Err(
                    Error::new(Kind::Invalid, "an object of segments needs a checksum")
                        .target(&source)
                        .hint("give its SHA-256 or SHA-512: Swift knows no hash of the whole"),
                );
            }
            None => {
                Checksum::parse(&format!("md5:{}", info.etag)).map_err(|e| e.target(&source))?
            }
        };
        let identity = Identity {
            source,
            version: format!("{checksum} {}", info.etag),
            bytes: Some(info.bytes),
        };
        let lease = self
            .get(&identity, async |to| {
                let bytes = swift.download(container, object, to).await?.bytes;
                let (checksum, to) = (checksum.clone(), to.to_owned());
                checked(
                    checksum,
                    to,
                    "the object is not what it should be: upload it again",
                )
                .await?;
                Ok(bytes)
            })
            .await?;
        Ok(Fetched {
            path: lease.path.clone(),
            checksum: Some(checksum),
            record: None,
            lease: Some(lease),
        })
    }

    async fn of_web(&self, trust: &Trust, url: &str, checksum: Checksum) -> Result<Fetched> {
        let client = http::Web::new(trust)?;
        let shown = http::shown(url);
        let mut identity = Identity {
            source: shown,
            version: checksum.to_string(),
            bytes: None,
        };
        if self.entry(&identity.key()).is_none() {
            identity.bytes = client.length(url).await;
        }
        let lease = self
            .get(&identity, async |to| {
                client.download(url, &checksum, to).await
            })
            .await?;
        Ok(Fetched {
            path: lease.path.clone(),
            checksum: Some(checksum),
            record: None,
            lease: Some(lease),
        })
    }
}

async fn of_file(path: PathBuf, checksum: Option<Checksum>) -> Result<Fetched> {
    if let Some(checksum) = &checksum {
        let hint = "fetch the image again, or correct its checksum";
        checked(checksum.clone(), path.clone(), hint).await?;
    }
    Ok(Fetched {
        path,
        checksum,
        record: None,
        lease: None,
    })
}

async fn checked(checksum: Checksum, path: PathBuf, hint: &'static str) -> Result<()> {
    let checked = tokio::task::spawn_blocking(move || checksum.check_file(&path));
    let checked = checked
        .await
        .map_err(|e| Error::new(Kind::Internal, "the check of an image broke").caused_by(&e))?;
    checked.map_err(|e| e.hint(hint))
}

fn no_checksum(target: &str) -> Error {
    Error::new(Kind::Invalid, "an image by URL needs a checksum")
        .target(http::shown(target))
        .hint("give its SHA-256 or SHA-512, for an OS image as image_checksum")
}
