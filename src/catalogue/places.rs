//! Where to look for changes of a folder: in it, and on every step of the way to it, since a link
//! or a folder on the way may be swapped for another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// As many links as Linux follows in a path.
const MAX_LINKS: u32 = 40;

/// Magic numbers of file systems that other machines change without telling this kernel
/// (statfs(2), linux/magic.h): NFS, SMB, SMB2, CIFS, 9P, Ceph, AFS, Coda, FUSE, Lustre, GFS2,
/// OCFS2.
const REMOTE: [u32; 12] = [
    0x6969,
    0x517b,
    0xfe53_4d42,
    0xff53_4d42,
    0x0102_1997,
    0x00c3_6400,
    0x5346_414f,
    0x7375_7245,
    0x6573_5546,
    0x0bd0_0bd0,
    0x0116_1970,
    0x7461_636f,
];

/// Directories, and the names in them that matter; `None`: all of them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Places(pub(super) BTreeMap<PathBuf, Option<BTreeSet<OsString>>>);

impl Places {
    /// Those of these flow folders.
    pub(super) fn of(folders: &[PathBuf]) -> Self {
        let mut places = Self::default();
        for folder in folders {
            let Some(real) = places.walk(folder) else {
                continue;
            };
            places.whole(&real);
            for item in std::fs::read_dir(&real).into_iter().flatten().flatten() {
                let is_link = item.file_type().is_ok_and(|kind| kind.is_symlink());
                let is_quirks = item.file_name() == crate::engine::QUIRKS;
                if (is_link || is_quirks)
                    && let Some(end) = places.walk(&item.path())
                    && is_quirks
                {
                    places.whole(&end);
                }
            }
        }
        places
    }

    /// Whether something happened there that matters.
    pub(super) fn concern(&self, path: &Path) -> bool {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return true;
        };
        if self.0.contains_key(path) {
            return true;
        }
        match self.0.get(folder) {
            Some(Some(names)) => names.contains(name),
            Some(None) => true,
            None => false,
        }
    }

    fn whole(&mut self, folder: &Path) {
        self.0.insert(folder.to_owned(), None);
    }

    fn step(&mut self, folder: &Path, name: &OsString) {
        let names = self.0.entry(folder.to_owned());
        if let Some(names) = names.or_insert_with(|| Some(BTreeSet::new())) {
            names.insert(name.clone());
        }
    }

    /// Notes every step to `path` and answers where it ends, if it exists.
    fn walk(&mut self, path: &Path) -> Option<PathBuf> {
        let absolute = std::path::absolute(path).ok()?;
        let mut rest: VecDeque<OsString> = names(&absolute);
        let (mut at, mut links) = (PathBuf::from("/"), 0);
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            self.step(&at, &name);
            let next = at.join(&name);
            let about = std::fs::symlink_metadata(&next).ok()?;
            if !about.is_symlink() {
                at = next;
                continue;
            }
            links += 1;
            let target = std::fs::read_link(&next)
                .ok()
                .filter(|_| links <= MAX_LINKS)?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            for name in names(&target).into_iter().rev() {
                rest.push_front(name);
            }
        }
        Some(at)
    }
}

fn names(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    parts.collect()
}

/// Whether other machines may change this folder without this kernel telling.
pub(super) fn is_remote(folder: &Path) -> bool {
    let about = rustix::fs::statfs(folder);
    about.is_ok_and(|about| u32::try_from(about.f_type).is_ok_and(|kind| REMOTE.contains(&kind)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_link_on_the_way_is_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(dir.join("releases/1/flows/quirks")).unwrap();
        std::fs::create_dir_all(dir.join("shared")).unwrap();
        std::fs::write(dir.join("shared/s.lua"), "").unwrap();
        symlink("releases/1", dir.join("current")).unwrap();
        symlink("../../../shared/s.lua", dir.join("releases/1/flows/s.lua")).unwrap();
        let places = Places::of(&[dir.join("current/flows")]);
        for (path, matters) in [
            ("current", true),
            ("other", false),
            ("releases/1", true),
            ("releases/2", false),
            ("releases/1/flows", true),
            ("releases/1/flows/any.lua", true),
            ("releases/1/flows/quirks/any.lua", true),
            ("shared/s.lua", true),
            ("shared/other", false),
        ] {
            assert_eq!(places.concern(&dir.join(path)), matters, "{path}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_awaited_and_a_loop_of_links_ends() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        symlink("b", dir.join("a")).unwrap();
        symlink("a", dir.join("b")).unwrap();
        let places = Places::of(&[dir.join("x/flows"), dir.join("a")]);
        assert!(places.concern(&dir.join("x")) && places.concern(&dir.join("b")));
    }
}
