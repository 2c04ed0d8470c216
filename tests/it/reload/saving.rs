//! The ways in which editors and tools save.

use super::{Flows, light, swap_link, until, until_text};
use flowrun::catalogue::Noticed;
use std::fs;
use std::io::Write;
use std::path::Path;

type Save = fn(&Path, &str);

/// One file, as editors do it.
const ONE_FILE: &[(&str, Save)] = &[
    ("in place", |path, text| fs::write(path, text).unwrap()),
    ("in pieces", |path, text| {
        let mut file = fs::File::create(path).unwrap();
        for piece in text.as_bytes().chunks(16) {
            file.write_all(piece).unwrap();
            file.sync_data().unwrap();
        }
    }),
    ("vim, with a backup", |path, text| {
        fs::write(path.with_file_name("4913"), "").unwrap();
        fs::remove_file(path.with_file_name("4913")).unwrap();
        fs::rename(path, path.with_extension("lua~")).unwrap();
        fs::write(path, text).unwrap();
        fs::remove_file(path.with_extension("lua~")).unwrap();
    }),
    ("renamed over, from a hidden file", |path, text| {
        let hidden = path.with_file_name(".light.lua");
        fs::write(&hidden, text).unwrap();
        fs::rename(&hidden, path).unwrap();
    }),
    ("renamed over, from elsewhere", |path, text| {
        let outside = path.parent().unwrap().with_extension("tmp");
        fs::write(&outside, text).unwrap();
        fs::rename(&outside, path).unwrap();
    }),
    ("Emacs, with a lock", |path, text| {
        let lock = path.with_file_name(".#light.lua");
        std::os::unix::fs::symlink("user@host.1", &lock).unwrap();
        fs::write(path, text).unwrap();
        fs::remove_file(&lock).unwrap();
    }),
    ("removed and written", |path, text| {
        fs::remove_file(path).unwrap();
        fs::write(path, text).unwrap();
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_seen_however_it_is_saved() {
    let flows = Flows::new();
    flows.write_light(1000);
    let catalogue = flows.open().await;
    let told = catalogue.state().noticed == Noticed::Told;
    assert!(told, "tests run on a local file system");
    for (n, (how, save)) in (1001..).zip(ONE_FILE) {
        save(&flows.path("flows/light.lua"), &light(n));
        until_text(&catalogue, how, &n.to_string()).await;
        let flow = catalogue.flow("light").unwrap();
        let names: Vec<_> = flow.version.files.keys().collect();
        let own = names.iter().filter(|name| !name.starts_with("stdlib/"));
        assert_eq!(own.count(), 1, "{how}: {names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_seen_however_it_is_replaced() {
    let flows = Flows::new();
    let release = |n: u32| {
        let folder = flows.path(&format!("releases/{n}/flows"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("light.lua"), light(n)).unwrap();
        folder
    };
    let catalogue = flows.open().await;
    assert!(catalogue.flow("light").is_err());
    let path = flows.path("flows");

    fs::rename(release(2001), &path).unwrap();
    until_text(&catalogue, "a folder that comes", "2001").await;
    fs::rename(&path, flows.path("old")).unwrap();
    fs::rename(release(2002), &path).unwrap();
    until_text(&catalogue, "a folder moved in for another", "2002").await;
    fs::remove_dir_all(&path).unwrap();
    until(&catalogue, "that the folder is gone", |state| {
        state.broken.is_some() && state.edition.flows.contains_key("light")
    })
    .await;
    flows.write_light(2003);
    until_text(&catalogue, "the folder made anew", "2003").await;
    flows.write_light(2004);
    until_text(&catalogue, "an edit in the new folder", "2004").await;

    // A link to a release, and a link in the middle of the path: checkouts of a whole tree.
    release(2005);
    fs::remove_dir_all(&path).unwrap();
    swap_link(&path, "releases/2005/flows");
    until_text(&catalogue, "a link in place of the folder", "2005").await;
    release(2006);
    swap_link(&path, "releases/2006/flows");
    until_text(&catalogue, "a link that was swapped", "2006").await;
    swap_link(&flows.path("current"), "releases/2006");
    swap_link(&path, "current/flows");
    until_text(&catalogue, "a link to a link", "2006").await;
    // Again at once, while the folder before is still being taken up: what is told of must be
    // what is read.
    for n in (2010..2070).step_by(10) {
        release(n);
        swap_link(&flows.path("current"), &format!("releases/{n}"));
        until_text(
            &catalogue,
            "a link on the way that was swapped",
            &n.to_string(),
        )
        .await;
        let edited = flows.path(&format!("releases/{n}/flows/light.lua"));
        fs::write(edited, light(n + 1)).unwrap();
        until_text(&catalogue, "an edit behind two links", &(n + 1).to_string()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_belong_together_come_together() {
    let flows = Flows::new();
    let save = |version: u32| {
        for n in 0..20 {
            let text = format!("return {{ version = {version} }}");
            flows.write(&format!("part{n}.lua"), &text);
        }
    };
    save(1);
    let text = "local first = require('part0').version
        for n = 1, 19 do
          if require('part' .. n).version ~= first then fail('invalid', 'half of an edit') end
        end
        return flow { name = 'light', actions = { go = function() return first end } }";
    flows.write("light.lua", text);
    let catalogue = flows.open().await;
    for version in 2..6 {
        save(version);
        until_text(&catalogue, "the whole", &format!("version = {version}")).await;
        let flow = catalogue.flow("light").unwrap();
        let parts = flow
            .version
            .files
            .iter()
            .filter(|(path, _)| path.contains("/part"));
        assert!(
            parts
                .clone()
                .all(|(_, text)| text.contains(&format!("version = {version}")))
        );
        assert_eq!(parts.count(), 20);
    }
    flows.write(
        "quirks/q.lua",
        "quirk { id = 'q', why = 'w', match = { ilo = 5 }, set = { properties = { x = 1 } } }",
    );
    until_text(&catalogue, "a quirk", "id = 'q'").await;
    let stock = catalogue.flow("ilo_vmedia_iscsi").unwrap();
    let has_quirk = stock
        .version
        .files
        .values()
        .any(|text| text.contains("id = 'q'"));
    assert!(has_quirk, "what is built in has the site's quirks");
    let text = "local power = require 'stock:power'
        power.reboot = power.off
        return power";
    flows.write("power.lua", text);
    until_text(
        &catalogue,
        "a module of the library's name",
        "power.reboot = power.off",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_kernel_does_not_tell_folders_are_polled() {
    let flows = Flows::new().polled();
    flows.write_light(3001);
    let catalogue = flows.open().await;
    assert_eq!(catalogue.state().noticed, Noticed::Polled);
    for (n, (how, save)) in (3002..).zip(ONE_FILE) {
        save(&flows.path("flows/light.lua"), &light(n));
        until_text(&catalogue, how, &n.to_string()).await;
    }
}
