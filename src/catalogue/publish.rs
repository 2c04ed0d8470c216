//! Puts a folder of flows in the place of another, at once: whoever reads meanwhile, and whoever
//! is killed meanwhile, finds all of the old one or all of the new one.
//!
//! Beside the flow folder `flows` stands `flows.versions/`, which holds a numbered copy of each
//! publication; `flows` is a link to one of them. A folder that was there before anything was
//! published becomes the first of them.

use super::{BrokenEdit, Edition, Snapshot, check_folders};
use crate::engine::{Folder, QUIRKS, read_folder, seal_bundle};
use crate::error::{Error, Kind, Result};
use crate::lua::LuaRuntime;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// How many publications are kept to go back to.
const KEPT: usize = 10;
/// Folders below the flow folder that are copied, at most so deep.
const MAX_DEPTH: u32 = 4;

/// What a publication changes, or would change.
#[derive(Debug, Serialize)]
pub struct Publication {
    /// Number and content hash, `0004-69817fc676e0`.
    pub name: String,
    /// What was there before, if it was published.
    pub before: Option<String>,
    /// Files that are new.
    pub added: Vec<String>,
    /// Files that are others now.
    pub changed: Vec<String>,
    /// Files that are gone.
    pub removed: Vec<String>,
}

/// Why nothing was published.
#[derive(Debug)]
pub enum Refused {
    /// The folder does not check.
    Broken(BrokenEdit),
    /// Something else.
    Failed(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// The place of one flow folder and its publications.
#[derive(Debug)]
pub struct Shelf {
    target: PathBuf,
    versions: PathBuf,
    /// Where the new link is made, and where an old folder is for a moment.
    aside: PathBuf,
}

impl Shelf {
    /// That of this flow folder.
    ///
    /// # Errors
    /// `invalid` for a path without a name.
    pub fn of(target: &Path) -> Result<Self> {
        let name = target.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| {
            Error::new(Kind::Invalid, "not the path of a flow folder")
                .target(target.display().to_string())
        })?;
        Ok(Self {
            versions: target.with_file_name(format!("{name}.versions")),
            aside: target.with_file_name(format!(".{name}.aside")),
            target: target.to_owned(),
        })
    }

    /// Publishes `dir`. `folders` are the site's flow folders, the target among them: everything
    /// is checked as it would be with `dir` in the target's place. With `dry` nothing is written.
    ///
    /// # Errors
    /// `Broken` if it does not check, `conflict` if the target is somebody else's link or `dir`
    /// changes meanwhile, else `io`.
    pub async fn publish(
        &self,
        runtime: &LuaRuntime,
        folders: &[PathBuf],
        dir: &Path,
        dry: bool,
    ) -> Result<Publication, Refused> {
        let new = read_folder(dir)?;
        self.check(runtime, folders, dir).await?;
        let current = self.current()?;
        let taken = self.names()?.last().map_or(0, |name| number(name));
        // The number before is left to a folder that was never published.
        let next = taken + if self.is_folder() { 2 } else { 1 };
        let name = format!("{next:04}-{}", content(&new, dir));
        let publication = self.compare(&new, dir, name, current);
        if dry {
            return Ok(publication);
        }
        fs::create_dir_all(&self.versions).map_err(|e| self.failed("make the versions", &e))?;
        let _lock = self.lock()?;
        self.tidy()?;
        self.store(dir, &new, &publication.name)?;
        self.point_to(&publication.name)?;
        self.prune()?;
        Ok(publication)
    }

    /// Publishes a former publication again: the one before, or the one whose name begins so.
    ///
    /// # Errors
    /// `not_found` if there is none, else as [`Self::publish`].
    pub async fn roll_back(
        &self,
        runtime: &LuaRuntime,
        folders: &[PathBuf],
        wanted: Option<&str>,
        dry: bool,
    ) -> Result<Publication, Refused> {
        let current = self.current()?;
        let names = self.names()?;
        let found = match wanted {
            Some(begin) => names.iter().find(|name| name.starts_with(begin)),
            None => {
                let now = current.as_deref().map_or(0, number);
                names.iter().rfind(|name| number(name) < now)
            }
        };
        let name = found.ok_or_else(|| {
            Error::new(Kind::NotFound, "there is no such publication to go back to")
                .target(self.versions.display().to_string())
                .hint(format!("there are: {}", names.join(", ")))
        })?;
        let dir = self.versions.join(name);
        self.check(runtime, folders, &dir).await?;
        let publication = self.compare(&read_folder(&dir)?, &dir, name.clone(), current);
        if !dry {
            let _lock = self.lock()?;
            self.tidy()?;
            self.point_to(name)?;
        }
        Ok(publication)
    }

    /// The publication that the folder is now.
    ///
    /// # Errors
    /// `conflict` if it is a link to something else.
    pub fn current(&self) -> Result<Option<String>> {
        let Ok(link) = fs::read_link(&self.target) else {
            return Ok(None);
        };
        let ours = link.parent().is_some_and(|parent| parent == self.shelf());
        let name = link.file_name().and_then(|name| name.to_str());
        match name.filter(|_| ours) {
            Some(name) => Ok(Some(name.to_owned())),
            None => Err(Error::new(
                Kind::Conflict,
                format!("the flow folder is a link to {}", link.display()),
            )
            .target(self.target.display().to_string())
            .hint("whatever made the link publishes here; flowrun follows it when it is swapped")),
        }
    }

    /// Publications, oldest first.
    ///
    /// # Errors
    /// `io`.
    pub fn names(&self) -> Result<Vec<String>> {
        let listing = match fs::read_dir(&self.versions) {
            Ok(listing) => listing,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(self.failed("list the versions", &e)),
        };
        let names = listing
            .flatten()
            .filter_map(|f| f.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| number(name) > 0).collect();
        names.sort_by_key(|name| number(name));
        Ok(names)
    }

    async fn check(
        &self,
        runtime: &LuaRuntime,
        folders: &[PathBuf],
        dir: &Path,
    ) -> Result<Edition, Refused> {
        let now = Snapshot::read(folders);
        let mut before = check_folders(runtime, &now, &Edition::default())
            .await
            .unwrap_or_default();
        for flow in before.flows.values_mut() {
            if let Ok(rest) = Path::new(&flow.entry).strip_prefix(&self.target) {
                flow.entry = dir.join(rest).display().to_string();
            }
        }
        let replaced = folders.iter().map(|folder| match *folder == self.target {
            true => dir.to_owned(),
            false => folder.clone(),
        });
        let then = Snapshot::read(&replaced.collect::<Vec<_>>());
        check_folders(runtime, &then, &before)
            .await
            .map_err(Refused::Broken)
    }

    fn compare(
        &self,
        new: &Folder,
        dir: &Path,
        name: String,
        before: Option<String>,
    ) -> Publication {
        let old = read_folder(&self.target).map(|folder| relative(&folder, &self.target));
        let (old, new) = (old.unwrap_or_default(), relative(new, dir));
        let only = |these: &BTreeMap<String, String>, others: &BTreeMap<String, String>| {
            let names = these.keys().filter(|name| !others.contains_key(*name));
            names.cloned().collect()
        };
        let both = new
            .iter()
            .filter(|(name, text)| old.get(*name).is_some_and(|o| o != *text));
        Publication {
            name,
            before,
            changed: both.map(|(name, _)| name.clone()).collect(),
            added: only(&new, &old),
            removed: only(&old, &new),
        }
    }

    /// Copies `dir` to a place where nobody looks, onto the disk, and gives it its name.
    fn store(&self, dir: &Path, checked: &Folder, name: &str) -> Result<()> {
        let staging = tempfile::Builder::new()
            .prefix(STAGING)
            .tempdir_in(&self.versions)
            .map_err(|e| self.failed("copy the flows", &e))?;
        copy(dir, staging.path(), 0)?;
        let copied = read_folder(staging.path())?;
        if relative(&copied, staging.path()) != relative(checked, dir) {
            let message = "the folder changed while it was published; nothing is";
            return Err(Error::new(Kind::Conflict, message).target(dir.display().to_string()));
        }
        fs::rename(staging.keep(), self.versions.join(name))
            .map_err(|e| self.failed("name the version", &e))?;
        sync(&self.versions)
    }

    /// Makes the flow folder a link to a version. One rename decides.
    fn point_to(&self, name: &str) -> Result<()> {
        let failed = |e: &std::io::Error| self.failed("swap the flow folder", e);
        let link = Path::new(self.shelf()).join(name);
        std::os::unix::fs::symlink(link, &self.aside).map_err(|e| failed(&e))?;
        if self.is_folder() {
            renameat_with(CWD, &self.aside, CWD, &self.target, RenameFlags::EXCHANGE)
                .map_err(|e| failed(&e.into()).hint("move the folder away, then publish"))?;
            self.tidy()?;
        } else {
            fs::rename(&self.aside, &self.target).map_err(|e| failed(&e))?;
        }
        sync(&parent(&self.target))
    }

    /// Finishes what a publisher left that was killed: a copy half made, a link not yet used, a
    /// folder that a link has replaced.
    fn tidy(&self) -> Result<()> {
        let failed = |e: std::io::Error| self.failed("clear what is left", &e);
        for item in fs::read_dir(&self.versions).map_err(failed)?.flatten() {
            if item
                .file_name()
                .as_encoded_bytes()
                .starts_with(STAGING.as_bytes())
            {
                fs::remove_dir_all(item.path()).map_err(failed)?;
            }
        }
        match fs::symlink_metadata(&self.aside) {
            Err(_) => Ok(()),
            Ok(about) if about.is_symlink() => fs::remove_file(&self.aside).map_err(failed),
            Ok(_) => {
                let current = self.current()?.as_deref().map_or(1, number);
                let hash = content(&read_folder(&self.aside)?, &self.aside);
                let name = format!("{:04}-{hash}", current.saturating_sub(1));
                fs::rename(&self.aside, self.versions.join(name)).map_err(failed)
            }
        }
    }

    fn prune(&self) -> Result<()> {
        let (names, current) = (self.names()?, self.current()?);
        let spare = names.len().saturating_sub(KEPT);
        let old = names.iter().take(spare);
        for name in old.filter(|name| Some(*name) != current.as_ref()) {
            fs::remove_dir_all(self.versions.join(name))
                .map_err(|e| self.failed("remove an old version", &e))?;
        }
        Ok(())
    }

    /// One publisher at a time.
    fn lock(&self) -> Result<File> {
        let failed = |e: std::io::Error| self.failed("lock the versions", &e);
        let file = File::create(self.versions.join(".lock")).map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(file)
    }

    fn is_folder(&self) -> bool {
        fs::symlink_metadata(&self.target).is_ok_and(|about| about.is_dir())
    }

    /// The versions' folder, as a link beside it names it.
    fn shelf(&self) -> &Path {
        self.versions
            .file_name()
            .map_or_else(|| Path::new(""), Path::new)
    }

    fn failed(&self, doing: &str, e: &std::io::Error) -> Error {
        Error::io(&self.target, doing, e)
    }
}

const STAGING: &str = ".staging-";

/// Number of a publication; 0 for what is none.
fn number(name: &str) -> u32 {
    let digits = name.split_once('-').map(|(digits, _)| digits.parse());
    digits.and_then(Result::ok).unwrap_or_default()
}

/// Hash of what counts in the folder, wherever it lies.
fn content(folder: &Folder, at: &Path) -> String {
    let mut hash = seal_bundle(relative(folder, at)).hash;
    hash.truncate(12);
    hash
}

fn relative(folder: &Folder, at: &Path) -> BTreeMap<String, String> {
    let files = folder.modules.iter().chain(&folder.quirks);
    let inside = files.filter_map(|(path, text)| {
        let path = Path::new(path).strip_prefix(at).ok()?;
        Some((path.display().to_string(), text.clone()))
    });
    inside.collect()
}

/// Copies what is not hidden, with its permissions, onto the disk.
fn copy(from: &Path, to: &Path, depth: u32) -> Result<()> {
    let failed = |e: std::io::Error| Error::io(from, "copy the flows", &e);
    for item in fs::read_dir(from).map_err(failed)? {
        let item = item.map_err(failed)?;
        let (name, path) = (item.file_name(), item.path());
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let about = fs::metadata(&path).map_err(|e| Error::io(&path, "copy the flows", &e))?;
        let copied = to.join(&name);
        if about.is_file() {
            fs::copy(&path, &copied).map_err(|e| Error::io(&path, "copy the flows", &e))?;
            sync(&copied)?;
        } else if about.is_dir() && (depth < MAX_DEPTH || name == QUIRKS) {
            fs::create_dir(&copied).map_err(failed)?;
            copy(&path, &copied, depth + 1)?;
        }
    }
    let mode = fs::metadata(from).map_err(failed)?.permissions();
    fs::set_permissions(to, mode).map_err(failed)?;
    sync(to)
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn sync(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|file| file.sync_all());
    synced.map_err(|e| Error::io(path, "write to the disk", &e))
}
