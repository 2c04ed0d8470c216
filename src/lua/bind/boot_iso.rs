//! `boot_iso`: boot ISOs that nodes share, with the specification's `usage_count`.
//!
//! The journal knows which nodes hold an ISO; `usage_count` in the object's metadata is their
//! number, written under the ISO's lock. A node is entered before the object is touched and struck
//! off after it, so that a crash leaves a count that is too high for a while, never one too low.

use super::args::blocking;
use super::iso::BootIso;
use super::site::Site;
use crate::engine::{Class, Reply, Run, is_alive};
use crate::error::{Error, Kind, Result};
use crate::image::checksum::Algorithm;
use crate::imagecache::Origin;
use crate::lua::spec::{FnSpec, Record, Registry, Ty};
use crate::openstack::swift::{Body, Metadata, Swift, UploadOptions};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// How often a lock is asked for that somebody else has.
const AGAIN: Duration = Duration::from_millis(100);

/// The specification's meta-property.
const USAGE_COUNT: &str = "usage_count";
/// Whose journal counts.
const COUNTED_BY: &str = "counted_by";

const SHARED: Record = Record {
    name: "SharedIso",
    doc: "A boot ISO in the object store.",
    fields: &[
        (
            "reference",
            Ty::String,
            "`swift:<container>/<object>`, for `instance_info.boot_iso`",
        ),
        ("usage_count", Ty::Integer, "how many nodes hold it"),
        ("built", Ty::Boolean, "whether this call built it"),
    ],
};

pub(super) fn register(registry: &mut Registry, site: &Arc<Site>) {
    acquire(registry, site);
    release(registry, site);
}

fn acquire(registry: &mut Registry, site: &Arc<Site>) {
    let site = site.clone();
    registry.add(
        BootIso::options(FnSpec::new(
            "boot_iso",
            "acquire",
            Class::Effect,
            "Gives a node the shared boot ISO of its image: found in Swift, else built.",
        ))
        .subject("node", Ty::Node, "who boots from it")
        .required("image", Ty::String, "the deployed image, as `image.fetch` takes it")
        .returns(Ty::Record(&SHARED), "the ISO, held until `boot_iso.release`")
        .error(
            Kind::Conflict,
            "another site counts who uses the object of this name",
        )
        .example(
            "boot_iso.acquire(node, { image = i, kernel = k, ramdisk = r, root_uuid = u }).reference",
        )
        .run(move |call| {
            let site = site.clone();
            async move {
                #[derive(Deserialize)]
                struct Args {
                    node: String,
                    image: String,
                    #[serde(flatten)]
                    iso: BootIso,
                }
                let args: Args = call.decode()?;
                let name = name_of(&site, &args.image, &args.iso).await?;
                let shared = Shared::lock(&site, &call.run, name).await?;
                let held = shared.hold(&args.node, &args.iso).await;
                shared.unlock().await?;
                Reply::of(&held?)
            }
        }),
    );
}

fn release(registry: &mut Registry, site: &Arc<Site>) {
    let site = site.clone();
    registry.add(
        FnSpec::new(
            "boot_iso",
            "release",
            Class::Effect,
            "Takes a node's shared boot ISOs from it, and deletes those that nobody holds then.",
        )
        .subject(
            "node",
            Ty::Node,
            "who does not boot from them any more: it is off",
        )
        .optional(
            "except",
            Ty::String,
            "the `reference` of the one that it keeps",
        )
        .returns(
            Ty::List(&Ty::Record(&RELEASED)),
            "what the node held and holds no more",
        )
        .example("boot_iso.release(node)")
        .run(move |call| {
            let site = site.clone();
            async move {
                #[derive(Deserialize)]
                struct Args {
                    node: String,
                    except: Option<String>,
                }
                let args: Args = call.decode()?;
                let mut released = Vec::new();
                for name in call.run.journal().boot_isos_of(&args.node).await? {
                    if args.except == Some(reference(&site, &name)) {
                        continue;
                    }
                    let shared = Shared::lock(&site, &call.run, name).await?;
                    let done = shared.release(&args.node).await;
                    shared.unlock().await?;
                    released.push(done?);
                }
                Reply::of(&released)
            }
        }),
    );
}

const RELEASED: Record = Record {
    name: "ReleasedIso",
    doc: "A boot ISO that a node held.",
    fields: &[
        ("reference", Ty::String, "as `boot_iso.acquire` gave it"),
        ("usage_count", Ty::Integer, "how many nodes hold it now"),
        ("deleted", Ty::Boolean, "whether the object is gone"),
    ],
};

#[derive(Serialize)]
struct Held {
    reference: String,
    usage_count: u64,
    built: bool,
}

#[derive(Serialize)]
struct Released {
    reference: String,
    usage_count: u64,
    deleted: bool,
}

fn container(site: &Site) -> &str {
    &site.config().swift_ilo_container.0
}

fn reference(site: &Site, name: &str) -> String {
    format!("swift:{}/{name}", container(site))
}

/// `boot-` and a hash over whatever makes two ISOs differ. Lengths keep the parts apart.
async fn name_of(site: &Site, image: &str, iso: &BootIso) -> Result<String> {
    // The image is not on the ISO: its name will do where it has no id.
    let image = match Origin::parse(image)? {
        Origin::Glance(_) => site.identity(image, None).await?,
        _ => image.to_owned(),
    };
    let mut hash = Sha256::new();
    for part in std::iter::once(image).chain(iso.identity(site).await?) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    Ok(format!("boot-{}", hex::encode(hash.finalize())))
}

/// A shared ISO whose lock a run has.
struct Shared<'a> {
    site: &'a Site,
    run: &'a Arc<Run>,
    swift: Arc<Swift>,
    name: String,
}

impl<'a> Shared<'a> {
    /// Waits for whoever changes it. A dead owner's lock is taken over: what it left is put right
    /// by counting anew.
    async fn lock(site: &'a Site, run: &'a Arc<Run>, name: String) -> Result<Self> {
        let swift = site.swift()?.clone();
        let (mut from, mut told) = (None, false);
        loop {
            let locked = run.journal().lock_boot_iso(&name, &run.id, from.take());
            let Some(holder) = locked.await? else {
                break;
            };
            if !is_alive(&holder.owner, holder.alive_ms) {
                from = Some(holder.run);
                continue;
            }
            if !told {
                let short = holder.run.get(..12).unwrap_or_default();
                run.log(
                    "info",
                    "",
                    &format!("waiting for run {short}, which has the boot ISO"),
                );
                told = true;
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(Self {
            site,
            run,
            swift,
            name,
        })
    }

    async fn unlock(&self) -> Result<()> {
        self.run
            .journal()
            .unlock_boot_iso(&self.name, &self.run.id)
            .await
    }

    async fn hold(&self, node: &str, iso: &BootIso) -> Result<Held> {
        let (journal, container) = (self.run.journal(), container(self.site));
        let found = self.swift.head(container, &self.name).await?;
        if let Some(found) = &found {
            self.check_ours(&found.metadata).await?;
        }
        let usage_count = journal
            .hold_boot_iso(&self.name, node, &self.run.id)
            .await?;
        let built = found.is_none();
        match found {
            Some(found) => self.count(&found.metadata, usage_count).await?,
            None => self.build(iso, usage_count).await?,
        }
        Ok(Held {
            reference: reference(self.site, &self.name),
            usage_count,
            built,
        })
    }

    async fn build(&self, iso: &BootIso, usage_count: u64) -> Result<()> {
        let plan = iso.plan(self.site).await?;
        let metadata = [
            (USAGE_COUNT.to_owned(), usage_count.to_string()),
            (COUNTED_BY.to_owned(), self.run.journal().site_id().await?),
        ];
        let options = UploadOptions {
            metadata: metadata.into(),
            create_container: true,
            ..UploadOptions::default()
        };
        let body = Body::Iso(plan.iso.clone());
        let upload = self
            .swift
            .upload(container(self.site), &self.name, body, options);
        upload.await.map(drop)
    }

    async fn release(&self, node: &str) -> Result<Released> {
        let (journal, container) = (self.run.journal(), container(self.site));
        let mut holders = journal.boot_iso_holders(&self.name).await?;
        holders.retain(|holder| holder != node);
        let usage_count = holders.len() as u64;
        let found = self.swift.head(container, &self.name).await?;
        let mut deleted = found.is_none();
        if let Some(found) = found {
            self.check_ours(&found.metadata).await?;
            if usage_count == 0 {
                self.swift.delete(container, &self.name).await?;
                deleted = true;
            } else {
                self.count(&found.metadata, usage_count).await?;
            }
        }
        journal.drop_boot_iso(&self.name, node).await?;
        Ok(Released {
            reference: reference(self.site, &self.name),
            usage_count,
            deleted,
        })
    }

    /// Writes the count, unless it stands there.
    async fn count(&self, metadata: &Metadata, usage_count: u64) -> Result<()> {
        let stands = metadata.get(USAGE_COUNT).map(String::as_str);
        if stands == Some(usage_count.to_string().as_str()) {
            return Ok(());
        }
        let near = |stood: u64| stood.abs_diff(usage_count) == 1;
        if !stands.and_then(|text| text.parse().ok()).is_some_and(near) {
            let message = format!(
                "usage_count of {} was {}; {usage_count} nodes hold it",
                self.name,
                stands.unwrap_or("missing")
            );
            self.run.log("warn", "", &message);
        }
        let change = [(USAGE_COUNT.to_owned(), Some(usage_count.to_string()))].into();
        let container = container(self.site);
        self.swift
            .set_metadata(container, &self.name, &change)
            .await
            .map(drop)
    }

    /// What another site counts, or somebody else uploaded, is not counted and not deleted here.
    async fn check_ours(&self, metadata: &Metadata) -> Result<()> {
        let ours = self.run.journal().site_id().await?;
        if metadata.get(COUNTED_BY) == Some(&ours) {
            return Ok(());
        }
        Err(
            Error::new(Kind::Conflict, "another site counts who uses this boot ISO")
                .target(reference(self.site, &self.name))
                .hint("give each site a container of its own: swift_ilo_container"),
        )
    }
}

impl Site {
    /// What stays the same as long as the content does: the id of an image of Glance, else the
    /// SHA-256 of the file.
    pub(super) async fn identity(&self, source: &str, checksum: Option<&str>) -> Result<String> {
        if let Origin::Glance(name) = Origin::parse(source)? {
            return Ok(self.glance()?.image(&name).await?.id);
        }
        let fetched = self.image(source, checksum).await?;
        let hashing = blocking(move || Algorithm::Sha256.hash_file(&fetched.path));
        hashing.await
    }
}
