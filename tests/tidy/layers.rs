//! Who may name whom: the layers of `src/`, the homes of frameworks, the parts without sockets.

use crate::scan::{inline_modules, paths};
use crate::{Finding, Source};
use std::path::Path;

/// A part of `src/` and what it may name. The level of a part is the lowest one that may name it.
struct Layer {
    module: &'static str,
    level: u8,
    /// The highest level it may name.
    sees: u8,
    /// What it may name above that.
    also: &'static [&'static str],
    /// What it must not name although its level would allow it.
    never: &'static [&'static str],
}

const fn layer(module: &'static str, level: u8) -> Layer {
    Layer {
        module,
        level,
        sees: level,
        also: &[],
        never: &[],
    }
}

/// The longest entry that fits a module decides. `ramdisk` and `lab` stand beside the others:
/// they see what a node sees, and only the levels that put a site together see them.
const LAYERS: &[Layer] = &[
    layer("error", 0),
    layer("secret", 0),
    layer("clock", 0),
    layer("backoff", 0),
    layer("buffer", 0),
    layer("config", 0),
    layer("suggest", 0),
    layer("keyed_hash", 0),
    layer("iscsi/proto", 1),
    layer("image", 1),
    layer("disk/plan", 1),
    layer("ilo/model", 1),
    layer("http", 2),
    layer("iscsi", 2),
    layer("ilo", 2),
    layer("openstack", 2),
    layer("objectstore", 2),
    layer("disk", 2),
    layer("imagecache", 2),
    Layer {
        sees: 0,
        never: &["backoff", "config", "suggest"],
        ..layer("journal", 3)
    },
    Layer {
        never: &[
            "iscsi",
            "ilo",
            "objectstore",
            "openstack",
            "image",
            "imagecache",
            "disk",
        ],
        ..layer("engine", 4)
    },
    layer("lua", 5),
    Layer {
        sees: 5,
        ..layer("catalogue", 6)
    },
    layer("api", 6),
    layer("cli", 6),
    Layer {
        sees: 2,
        ..layer("ramdisk", 5)
    },
    Layer {
        sees: 2,
        also: &["ramdisk"],
        ..layer("lab", 6)
    },
];

/// Crates, and the only places in `src/` that name them.
const CRATE_HOMES: &[(&[&str], &[&str])] = &[
    (&["mlua"], &["src/lua/"]),
    (&["rusqlite"], &["src/journal/"]),
    (&["notify"], &["src/catalogue/"]),
    (&["clap", "indicatif"], &["src/cli/", "src/main.rs"]),
    (
        &["axum", "axum_server"],
        &["src/api/", "src/http/", "src/objectstore/", "src/lab/"],
    ),
    (
        &[
            "fatfs",
            "hadris_fs",
            "hadris_io",
            "hadris_iso",
            "hadris_part",
            "hadris_storage",
        ],
        &["src/image/", "src/disk/plan/", "src/ramdisk/", "src/lab/"],
    ),
];

/// Places that know bytes and files only, and the paths that would bring more in.
const SOCKETLESS: &[&str] = &["src/iscsi/proto/", "src/image/"];
const SOCKETS: &[&str] = &["tokio", "std::net"];

/// A lower layer never names a higher one.
pub(crate) fn layers(source: &Source) -> Vec<Finding> {
    let Some(module) = module_of(&source.path).filter(|module| !module.is_empty()) else {
        return Vec::new();
    };
    let Some(from) = layer_of(&module) else {
        return vec![source.finding(0, "belongs to no layer; add it to LAYERS in tests/tidy.rs")];
    };
    let nested = inline_modules(&source.code);
    let mut findings = Vec::new();
    for path in paths(&source.code) {
        let depth = nested
            .iter()
            .filter(|body| body.contains(&path.offset))
            .count();
        let Some(named) = from_root(&path.segments, &module, depth) else {
            continue;
        };
        let why = match layer_of(&named) {
            Some(to) if may_name(from, to) => continue,
            Some(to) => format!("{} must not name {}", from.module, to.module),
            None => format!(
                "crate::{} is in no layer of tests/tidy.rs",
                named.join("::")
            ),
        };
        findings.push(source.finding(path.offset, why));
    }
    findings
}

fn may_name(from: &Layer, to: &Layer) -> bool {
    let belongs = |list: &[&str]| {
        list.iter()
            .any(|part| Path::new(to.module).starts_with(part))
    };
    from.module == to.module
        || belongs(from.also)
        || (to.level <= from.sees && !belongs(from.never))
}

/// The module a file of `src/` is: `src/ilo/model.rs` is `ilo`, `model`; the crate root is empty.
fn module_of(path: &str) -> Option<Vec<String>> {
    let stem = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let mut module: Vec<String> = stem.split('/').map(str::to_owned).collect();
    if matches!(stem, "lib" | "main") || stem.ends_with("/mod") {
        module.pop();
    }
    Some(module)
}

fn layer_of(module: &[String]) -> Option<&'static Layer> {
    let module = module.join("/");
    let fits = LAYERS
        .iter()
        .filter(|layer| Path::new(&module).starts_with(layer.module));
    fits.max_by_key(|layer| layer.module.len())
}

/// Spells a path from the crate root, if it starts at `crate` or leaves the file by `super`.
fn from_root(segments: &[String], module: &[String], inline_depth: usize) -> Option<Vec<String>> {
    let segments = segments
        .strip_prefix(&["self".to_owned()])
        .unwrap_or(segments);
    if segments.first()? == "crate" {
        return (segments.len() > 1).then(|| segments[1..].to_vec());
    }
    let supers = segments
        .iter()
        .take_while(|segment| *segment == "super")
        .count();
    let up = supers.checked_sub(inline_depth).filter(|&up| up > 0)?;
    let base = &module[..module.len().saturating_sub(up)];
    Some([base, &segments[supers..]].concat())
}

/// Each framework is named in its own folders only.
pub(crate) fn crate_homes(source: &Source) -> Vec<Finding> {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for path in paths(&source.code) {
        let home = CRATE_HOMES
            .iter()
            .find(|(crates, _)| crates.contains(&path.segments[0].as_str()));
        let Some((_, homes)) = home else { continue };
        let used =
            path.segments.len() > 1 || source.code[..path.offset].trim_end().ends_with("use");
        if used && !homes.iter().any(|home| source.path.starts_with(home)) {
            let why = format!("{} is for {} only", path.segments[0], homes.join(", "));
            findings.push(source.finding(path.offset, why));
        }
    }
    findings
}

/// The parts that know bytes and files name no socket and no runtime.
pub(crate) fn socketless(source: &Source) -> Vec<Finding> {
    if !SOCKETLESS.iter().any(|part| source.path.starts_with(part)) {
        return Vec::new();
    }
    let named = paths(&source.code).into_iter().filter_map(|path| {
        let spelled = path.segments.join("::");
        let socket = SOCKETS.iter().find(|socket| {
            spelled
                .strip_prefix(**socket)
                .is_some_and(|rest| rest.starts_with("::"))
        })?;
        Some(source.finding(path.offset, format!("{socket} does not belong here")))
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{lines, why};

    #[test]
    fn a_layer_does_not_name_a_higher_one() {
        let bad = "use crate::{error::Error, engine::{Engine, run::Run}};\n\
            fn f() { crate::lua::start() }";
        assert_eq!(lines(layers, "src/iscsi/io.rs", bad), [1, 1, 2]);
        assert_eq!(
            why(
                layers,
                "src/iscsi/proto/bhs.rs",
                "\nuse crate::iscsi::{proto::pdu, io};"
            ),
            "src/iscsi/proto/bhs.rs:2: iscsi/proto must not name iscsi"
        );
        let good = "use crate::{iscsi::proto::pdu, http, disk::plan::Plan, secret::Secret};\n\
            // crate::lua\n";
        assert!(lines(layers, "src/disk/write.rs", good).is_empty());
    }

    #[test]
    fn super_is_followed_out_of_the_file_only() {
        assert_eq!(
            lines(
                layers,
                "src/iscsi/proto/bhs.rs",
                "use super::super::io::Tcp;"
            ),
            [1]
        );
        assert_eq!(
            lines(
                layers,
                "src/ilo/model.rs",
                "fn a() {}\nuse super::ribcl::Reply;"
            ),
            [2]
        );
        let inside = "use super::pdu;\nmod tests { use super::*; use super::super::text; }";
        assert!(lines(layers, "src/iscsi/proto/bhs.rs", inside).is_empty());
    }

    #[test]
    fn layers_with_their_own_lists_keep_to_them() {
        for (path, bad) in [
            ("src/journal/sqlite.rs", "backoff"),
            ("src/engine/mod.rs", "disk::plan"),
            ("src/engine/mod.rs", "ramdisk"),
            ("src/engine/mod.rs", "image"),
            ("src/ramdisk/mod.rs", "lab"),
            ("src/lab/node.rs", "journal"),
            ("src/lua/mod.rs", "lab"),
            ("src/http/mod.rs", "ramdisk"),
            ("src/lua/mod.rs", "nowhere"),
        ] {
            assert_eq!(
                lines(layers, path, &format!("use crate::{bad}::X;")),
                [1],
                "{path} {bad}"
            );
        }
        for (path, good) in [
            ("src/journal/sqlite.rs", "clock"),
            ("src/engine/run.rs", "journal"),
            ("src/lab/node.rs", "ramdisk"),
            ("src/lab/ilo.rs", "ilo::model"),
            ("src/cli/run.rs", "lab"),
            ("src/lua/bind/ramdisk.rs", "ramdisk"),
            ("src/lib.rs", "nowhere"),
        ] {
            assert!(
                lines(layers, path, &format!("use crate::{good}::X;")).is_empty(),
                "{path} {good}"
            );
        }
        assert_eq!(lines(layers, "src/utils.rs", ""), [1]);
    }

    #[test]
    fn crates_stay_in_their_folders() {
        assert_eq!(
            lines(
                crate_homes,
                "src/engine/run.rs",
                "use mlua;\nfn f(l: &mlua::Lua) {}"
            ),
            [1, 2]
        );
        assert_eq!(
            lines(
                crate_homes,
                "src/engine/run.rs",
                "\n#[derive(clap::Parser)]"
            ),
            [2]
        );
        assert_eq!(
            lines(
                crate_homes,
                "src/ilo/mod.rs",
                "use {hadris_iso::X, fatfs::Y};"
            ),
            [1, 1]
        );
        assert!(lines(crate_homes, "src/lua/mod.rs", "use mlua::Lua;").is_empty());
        assert!(
            lines(
                crate_homes,
                "src/engine/run.rs",
                "// mlua::Lua\nlet axum = 1;"
            )
            .is_empty()
        );
        assert!(lines(crate_homes, "tests/it/api.rs", "use axum::Router;").is_empty());
    }

    #[test]
    fn the_protocol_core_knows_no_socket() {
        let bad = "use std::{fmt, net::TcpStream};\n#[tokio::test]";
        assert_eq!(lines(socketless, "src/iscsi/proto/pdu.rs", bad), [1, 2]);
        assert!(lines(socketless, "src/iscsi/io.rs", bad).is_empty());
        assert!(lines(socketless, "src/image/mod.rs", "use std::io::Read;").is_empty());
    }
}
