//! `swift`: objects and temporary URLs.

use super::args::{Seconds, Text};
use super::iso::{BootIso, ISO_PLAN};
use super::openstack::Credentials;
use super::site::Site;
use crate::engine::{Call, Class, LiveValue, Reply};
use crate::error::{Error, Kind, Result};
use crate::lua::spec::{FnSpec, Record, Registry, Ty};
use crate::openstack::swift::{Body, ListOptions, Metadata, TempUrlOptions, UploadOptions};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

const UPLOADED: Record = Record {
    name: "Uploaded",
    doc: "An object as the store has it.",
    fields: &[
        (
            "etag",
            Ty::String,
            "MD5 of the bytes, confirmed by the store; of the segments' MD5s if there are such",
        ),
        ("bytes", Ty::Integer, "its size"),
    ],
};

const INFO: Record = Record {
    name: "ObjectInfo",
    doc: "What is known of an object.",
    fields: &[
        ("bytes", Ty::Integer, "its size"),
        (
            "etag",
            Ty::String,
            "MD5 of its bytes, unless it is segmented",
        ),
        ("content_type", Ty::String, "its media type"),
        (
            "delete_at",
            Ty::Integer,
            "Unix seconds when it vanishes, if it does",
        ),
    ],
};

fn spec(name: &'static str, class: Class, summary: &'static str) -> FnSpec {
    let spec = FnSpec::new("swift", name, class, summary).subject(
        "container",
        Ty::String,
        "the container",
    );
    Credentials::options(spec)
        .error(Kind::Auth, "the store does not accept user or key")
        .error(Kind::Unreachable, "the store does not answer")
}

fn object(spec: FnSpec) -> FnSpec {
    spec.required("name", Ty::String, "the object's name")
}

#[derive(Deserialize)]
struct Object {
    container: String,
    name: String,
    #[serde(flatten)]
    by: Credentials,
}

pub(super) fn register(registry: &mut Registry, site: &Arc<Site>) {
    upload(registry, site);
    look(registry, site);
    change(registry, site);
    temp_url(registry, site);
}

#[derive(Deserialize)]
struct Upload {
    container: String,
    name: String,
    file: Option<PathBuf>,
    text: Option<Text>,
    iso: Option<Value>,
    delete_after: Option<Seconds>,
    #[serde(default)]
    metadata: Metadata,
    content_type: Option<String>,
    create_container: bool,
    read_acl: Option<String>,
    segment_size: Option<u64>,
    checked: bool,
    #[serde(flatten)]
    by: Credentials,
}

fn upload(registry: &mut Registry, site: &Arc<Site>) {
    let site = site.clone();
    registry.add(
        object(spec(
            "upload",
            Class::Effect,
            "Uploads a file, text or boot ISO; the store confirms its MD5.",
        ))
        .optional(
            "file",
            Ty::String,
            "path of a local file, such as an artifact's `path`",
        )
        .optional("text", Ty::Text, "instead of a file")
        .optional(
            "iso",
            Ty::Record(&ISO_PLAN),
            "instead of a file: what `image.plan_iso` returned, built while it is sent",
        )
        .optional(
            "delete_after",
            Ty::Duration,
            "the store deletes the object after this time",
        )
        .optional(
            "metadata",
            Ty::Map(&Ty::String),
            "names and values kept with it",
        )
        .optional("content_type", Ty::String, "media type")
        .default(
            "create_container",
            Ty::Boolean,
            true,
            "creates the container if needed",
        )
        .optional(
            "read_acl",
            Ty::String,
            "who may read that container (`.r:*`); temporary URLs need none",
        )
        .optional(
            "segment_size",
            Ty::Size,
            "sends a larger file as segments, several at once; default: only over the store's limit",
        )
        .default(
            "checked",
            Ty::Boolean,
            true,
            "compares the MD5 of what was sent with the store's ETag; false where speed counts more",
        )
        .returns(Ty::Record(&UPLOADED), "what the store has now")
        .error(
            Kind::Corrupt,
            "the store received other bytes than were read",
        )
        .example(
            "swift.upload(\"c\", { name = \"floppy\", file = vfat.path, delete_after = \"10m\" })",
        )
        .run(move |call| {
            let site = site.clone();
            async move { do_upload(&site, &call).await }
        }),
    );
}

async fn do_upload(site: &Site, call: &Call) -> Result<Reply> {
    let args: Upload = call.decode()?;
    let plan = match args.iso {
        Some(iso) => Some(BootIso::planned(iso)?.plan(site).await?),
        None => None,
    };
    let body = match (args.file, args.text, &plan) {
        (Some(path), None, None) => Body::File(path),
        (None, Some(text), None) => Body::Bytes(text.read(call).await?.expose().to_owned().into()),
        (None, None, Some(plan)) => Body::Iso(plan.iso.clone()),
        _ => {
            let message = "give one of `file`, `text` and `iso`";
            return Err(Error::new(Kind::Invalid, message));
        }
    };
    let options = UploadOptions {
        delete_after: args.delete_after.map(Seconds::duration),
        metadata: args.metadata,
        content_type: args.content_type,
        create_container: args.create_container,
        read_acl: args.read_acl,
        segment_bytes: args.segment_size,
        unchecked: !args.checked,
    };
    let done = site
        .swift_as(call, args.by)
        .await?
        .upload(&args.container, &args.name, body, options)
        .await?;
    Ok(json!({ "etag": done.etag, "bytes": done.bytes }).into())
}

#[derive(Deserialize)]
struct Download {
    container: String,
    name: String,
    file: PathBuf,
    #[serde(flatten)]
    by: Credentials,
}

#[derive(Deserialize)]
struct List {
    container: String,
    prefix: Option<String>,
    limit: Option<usize>,
    #[serde(flatten)]
    by: Credentials,
}

fn look(registry: &mut Registry, site: &Arc<Site>) {
    let head = site.clone();
    registry.add(
        object(spec(
            "head",
            Class::Read,
            "Tells what is known of an object.",
        ))
        .returns(Ty::Record(&INFO), "nil if there is no such object")
        .example("swift.head(\"c\", { name = \"x\" })   --> nil")
        .run(move |call| {
            let site = head.clone();
            async move {
                let Object {
                    container,
                    name,
                    by,
                } = call.decode()?;
                let found = site
                    .swift_as(&call, by)
                    .await?
                    .head(&container, &name)
                    .await?;
                let value = found.map_or(Value::Null, |info| {
                    json!({
                        "bytes": info.bytes,
                        "etag": info.etag,
                        "content_type": info.content_type,
                        "delete_at": info.delete_at,
                        "metadata": info.metadata,
                    })
                });
                Ok(value.into())
            }
        }),
    );
    let list = site.clone();
    registry.add(
        spec("list", Class::Read, "Lists the objects of a container.")
            .optional("prefix", Ty::String, "only names that begin with it")
            .optional("limit", Ty::Integer, "at most so many")
            .returns(Ty::List(&Ty::String), "names in order")
            .example("#swift.list(\"c\", { prefix = \"boot-\" })   --> 3")
            .run(move |call| {
                let site = list.clone();
                async move {
                    let List {
                        container,
                        prefix,
                        limit,
                        by,
                    } = call.decode()?;
                    let options = ListOptions {
                        prefix,
                        limit,
                        ..ListOptions::default()
                    };
                    let rows = site
                        .swift_as(&call, by)
                        .await?
                        .list(&container, options)
                        .await?;
                    let names: Vec<&str> = rows.iter().map(|row| row.name()).collect();
                    Reply::of(&names)
                }
            }),
    );
    download(registry, site);
}

fn download(registry: &mut Registry, site: &Arc<Site>) {
    let download = site.clone();
    registry.add(
        object(spec(
            "download",
            Class::Effect,
            "Downloads an object to a file, whole or not at all.",
        ))
        .required("file", Ty::String, "path of the local file")
        .returns(Ty::Integer, "its size in bytes")
        .error(Kind::NotFound, "there is no such object")
        .error(Kind::Corrupt, "the bytes are not what the store's MD5 says")
        .example("swift.download(\"c\", { name = \"x\", file = \"/tmp/x\" })   --> 1474560")
        .run(move |call| {
            let site = download.clone();
            async move {
                let Download {
                    container,
                    name,
                    file,
                    by,
                } = call.decode()?;
                let done = site
                    .swift_as(&call, by)
                    .await?
                    .download(&container, &name, &file)
                    .await?;
                Ok(Value::from(done.bytes).into())
            }
        }),
    );
}

#[derive(Deserialize)]
struct SetMetadata {
    container: String,
    name: String,
    metadata: Metadata,
    #[serde(flatten)]
    by: Credentials,
}

fn change(registry: &mut Registry, site: &Arc<Site>) {
    let delete = site.clone();
    registry.add(
        object(spec("delete", Class::Effect, "Deletes an object."))
            .returns(Ty::Boolean, "false if there was none")
            .example("swift.delete(\"c\", { name = \"x\" })   --> true")
            .run(move |call| {
                let site = delete.clone();
                async move {
                    let Object {
                        container,
                        name,
                        by,
                    } = call.decode()?;
                    Ok(Value::from(
                        site.swift_as(&call, by)
                            .await?
                            .delete(&container, &name)
                            .await?,
                    )
                    .into())
                }
            }),
    );
    let set = site.clone();
    registry.add(
        object(spec(
            "set_metadata",
            Class::Effect,
            "Changes an object's metadata; other names and the expiry stay.",
        ))
        .required(
            "metadata",
            Ty::Map(&Ty::String),
            "names and their new values",
        )
        .error(Kind::NotFound, "there is no such object")
        .example("swift.set_metadata(\"c\", { name = \"x\", metadata = { usage_count = \"2\" } })")
        .run(move |call| {
            let site = set.clone();
            async move {
                let SetMetadata {
                    container,
                    name,
                    metadata,
                    by,
                } = call.decode()?;
                let changes = metadata
                    .into_iter()
                    .map(|(name, value)| (name, Some(value)))
                    .collect();
                site.swift_as(&call, by)
                    .await?
                    .set_metadata(&container, &name, &changes)
                    .await?;
                Ok(Reply::default())
            }
        }),
    );
}

#[derive(Deserialize)]
struct TempUrl {
    container: String,
    name: String,
    ttl: Option<Seconds>,
    filename: Option<String>,
    #[serde(flatten)]
    by: Credentials,
}

fn temp_url(registry: &mut Registry, site: &Arc<Site>) {
    let site = site.clone();
    registry.add(
        object(spec(
            "temp_url",
            Class::Live,
            "Signs a URL that reads the object until it expires; one in segments by the account's key.",
        ))
        .optional(
            "ttl",
            Ty::Duration,
            "how long it is good; default deploy_helper_images_ttl",
        )
        .optional(
            "filename",
            Ty::String,
            "makes the URL end in this name, for iLOs that insist",
        )
        .returns(
            Ty::Live("secret"),
            "the URL; a run that is resumed gets a fresh one",
        )
        .error(
            Kind::NotFound,
            "neither configuration, account nor container have a temporary-URL key",
        )
        .error(
            Kind::Auth,
            "the store does not accept the URL: another key, or clocks that differ",
        )
        .example("local url = swift.temp_url(\"c\", { name = \"floppy\", ttl = \"15m\" })")
        .run(move |call| {
            let site = site.clone();
            async move {
                let args: TempUrl = call.decode()?;
                let minutes = u64::from(site.config().deploy_helper_images_ttl.0);
                let default = std::time::Duration::from_secs(minutes * 60);
                let options = TempUrlOptions {
                    ttl: args.ttl.map_or(default, Seconds::duration),
                    filename: args.filename,
                    ..TempUrlOptions::default()
                };
                let swift = site.swift_as(&call, args.by).await?;
                let (container, name) = (&args.container, &args.name);
                let url = swift.temp_url(container, name, options).await?;
                swift
                    .check_temp_url(&format!("{container}/{name}"), &url)
                    .await?;
                let mut reply = Reply::default();
                reply.value = reply.hold(LiveValue::Secret(url));
                Ok(reply)
            }
        }),
    );
}
