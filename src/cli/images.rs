//! `images`: what is in the image cache.

use super::Exit;
use super::args::Cli;
use super::format::{bytes, elapsed, seconds, time};
use super::site::configured;
use crate::cli::output::out;
use crate::clock;
use crate::config::Config;
use crate::error::Result;
use crate::imagecache::ImageCache;
use serde_json::json;
use std::time::UNIX_EPOCH;

pub(super) fn images(cli: &Cli) -> Result<Exit> {
    let config = match &cli.lab_dir {
        Some(dir) => {
            let mut config = Config::default();
            config.site.state_dir = Some(dir.join("state"));
            config
        }
        None => configured(cli)?,
    };
    let images = ImageCache::of(&config)?.list()?;
    if !cli.json {
        out!(
            "{:>10}  {:<19}  {:>10}  {:<6}  SOURCE",
            "SIZE",
            "FETCHED (UTC)",
            "UNUSED FOR",
            "IN USE"
        );
    }
    for image in images {
        let used = image.used.duration_since(UNIX_EPOCH).unwrap_or_default();
        let used_ms = u64::try_from(used.as_millis()).unwrap_or(u64::MAX);
        let entry = &image.entry;
        if cli.json {
            out!(
                "{}",
                json!({
                    "key": entry.key, "source": entry.source, "version": entry.version,
                    "bytes": entry.bytes, "fetched_ms": entry.fetched_ms, "used_ms": used_ms,
                    "in_use": image.in_use,
                })
            );
            continue;
        }
        let unused = match image.in_use {
            true => "-".to_owned(),
            false => seconds(elapsed(used_ms, clock::unix_ms())),
        };
        out!(
            "{:>10}  {:<19}  {unused:>10}  {:<6}  {}",
            bytes(entry.bytes),
            time(entry.fetched_ms),
            if image.in_use { "yes" } else { "no" },
            entry.source,
        );
    }
    Ok(Exit::Done)
}
