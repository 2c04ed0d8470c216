//! The store's files. Every change has one instant, a rename or an unlink, at which it counts.
//!
//! ```text
//! lock                        held while a store has the folder open
//! account.json
//! tmp/                        uploads and JSON not yet renamed; emptied at start
//! c/<sha256 of name>/
//!   container.json            the container exists once this file does
//!   o/<sha256 of name>.json   metadata of an object, which exists once this file does
//!   d/<random>                its bytes, named by that JSON and never rewritten
//! ```
//! File names are hashes, so that no name of a client can mean a place in the file system.
//! All functions block.

use super::record::{Account, Container, Contents, Headers, Index, Object, now_us};
use crate::error::{Error, Kind, Result};
use bytes::Bytes;
use md5::{Digest, Md5};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    _lock: File,
}

impl Disk {
    /// Opens or creates the folder, reads what it holds and removes what a crash left behind.
    pub(super) fn open(root: &Path) -> Result<(Self, Index)> {
        let failed = |e: io::Error| Error::io(root, "open the object store", &e);
        for dir in [root.to_path_buf(), root.join("c"), root.join("tmp")] {
            make_dir(&dir).map_err(failed)?;
        }
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(root.join("lock"))
            .map_err(failed)?;
        lock.try_lock().map_err(|e| match e {
            fs::TryLockError::WouldBlock => {
                Error::new(Kind::Conflict, "another process has this object store open")
                    .target(root.display().to_string())
            }
            fs::TryLockError::Error(e) => failed(e),
        })?;
        let disk = Self {
            root: root.to_path_buf(),
            _lock: lock,
        };
        empty(&disk.root.join("tmp")).map_err(failed)?;
        let index = disk.load()?;
        Ok((disk, index))
    }

    fn load(&self) -> Result<Index> {
        let account = read_json(&self.root.join("account.json"))?.unwrap_or_else(|| Account {
            created_us: now_us(),
            metadata: Headers::default(),
        });
        let mut containers = BTreeMap::new();
        for dir in entries(&self.root.join("c"))? {
            // Without container.json it was being made when the power went.
            match read_json::<Container>(&dir.join("container.json"))? {
                None => fs::remove_dir_all(&dir)
                    .map_err(|e| Error::io(&dir, "remove an unfinished container", &e))?,
                Some(container) => {
                    let objects = load_objects(&dir)?;
                    let name = container.name.clone();
                    containers.insert(name, Contents { container, objects });
                }
            }
        }
        Ok(Index {
            account,
            containers,
        })
    }

    pub(super) fn put_account(&self, account: &Account) -> io::Result<()> {
        self.put_json(&self.root.join("account.json"), account)
    }

    /// Creates the container or replaces its metadata.
    pub(super) fn put_container(&self, container: &Container) -> io::Result<()> {
        let dir = self.container(&container.name);
        for dir in [dir.clone(), dir.join("o"), dir.join("d")] {
            make_dir(&dir)?;
        }
        sync_dir(&self.root.join("c"))?;
        self.put_json(&dir.join("container.json"), container)
    }

    /// Removes the container with whatever is in it.
    pub(super) fn remove_container(&self, name: &str) -> io::Result<()> {
        let trash = self.root.join("tmp").join(random_name()?);
        fs::rename(self.container(name), &trash)?;
        sync_dir(&self.root.join("c"))?;
        fs::remove_dir_all(trash)
    }

    /// Begins an upload that nobody sees before [`put_object`](Self::put_object).
    pub(super) fn upload(&self) -> io::Result<Upload> {
        let name = random_name()?;
        let path = self.root.join("tmp").join(&name);
        let file = private().open(&path)?;
        Ok(Upload {
            file,
            unfinished: Unfinished(path),
            name,
            md5: Md5::new(),
            bytes: 0,
        })
    }

    /// Makes the uploaded bytes durable and the object visible in place of an earlier one.
    pub(super) fn put_object(
        &self,
        container: &str,
        upload: &Upload,
        object: &Object,
    ) -> io::Result<()> {
        // Written before anything moves: a full disk stops here and leaves no trace.
        let metadata = self.stage(object)?;
        let data = self.data(container, &upload.name);
        fs::rename(&upload.unfinished.0, &data)?;
        data.parent().map_or(Ok(()), sync_dir)?;
        place(&metadata, &self.object(container, &object.name))
    }

    /// Replaces the object's metadata.
    pub(super) fn put_metadata(&self, container: &str, object: &Object) -> io::Result<()> {
        self.put_json(&self.object(container, &object.name), object)
    }

    /// Removes the object, then its bytes; whoever is reading them may finish.
    pub(super) fn remove_object(&self, container: &str, object: &Object) -> io::Result<()> {
        let json = self.object(container, &object.name);
        fs::remove_file(&json)?;
        json.parent().map_or(Ok(()), sync_dir)?;
        self.remove_data(container, &object.data);
        Ok(())
    }

    /// Removes bytes that no object names any more; if that fails the next start does it.
    pub(super) fn remove_data(&self, container: &str, data: &str) {
        let path = self.data(container, data);
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove replaced object data");
        }
    }

    /// The file with an object's bytes.
    pub(super) fn data(&self, container: &str, data: &str) -> PathBuf {
        self.container(container).join("d").join(data)
    }

    fn container(&self, name: &str) -> PathBuf {
        self.root.join("c").join(hashed(name))
    }

    fn object(&self, container: &str, name: &str) -> PathBuf {
        let file = format!("{}.json", hashed(name));
        self.container(container).join("o").join(file)
    }

    fn put_json(&self, path: &Path, value: &impl Serialize) -> io::Result<()> {
        place(&self.stage(value)?, path)
    }

    fn stage(&self, value: &impl Serialize) -> io::Result<Unfinished> {
        let unfinished = Unfinished(self.root.join("tmp").join(random_name()?));
        let mut file = private().open(&unfinished.0)?;
        file.write_all(&serde_json::to_vec_pretty(value)?)?;
        file.sync_all()?;
        Ok(unfinished)
    }
}

fn place(staged: &Unfinished, path: &Path) -> io::Result<()> {
    fs::rename(&staged.0, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Bytes on their way in: dropped without [`Disk::put_object`], they leave nothing behind.
#[derive(Debug)]
pub(super) struct Upload {
    file: File,
    unfinished: Unfinished,
    name: String,
    md5: Md5,
    bytes: u64,
}

impl Upload {
    /// Appends.
    pub(super) fn write(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        for chunk in chunks {
            self.file.write_all(chunk)?;
            self.md5.update(chunk);
            self.bytes += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        }
        Ok(())
    }

    /// Makes the bytes durable and says how many there are, their MD5 and the file's name.
    pub(super) fn finish(&mut self) -> io::Result<(u64, String, String)> {
        self.file.sync_all()?;
        let etag = hex::encode(self.md5.finalize_reset());
        Ok((self.bytes, etag, self.name.clone()))
    }
}

/// A file in `tmp/`; removed on drop unless it was renamed away.
#[derive(Debug)]
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

fn load_objects(dir: &Path) -> Result<BTreeMap<String, Arc<Object>>> {
    let mut objects = BTreeMap::new();
    let mut named = BTreeSet::new();
    for path in entries(&dir.join("o"))? {
        let Some(object) = read_json::<Object>(&path)? else {
            continue;
        };
        let data = dir.join("d").join(&object.data);
        let length = fs::metadata(&data).map(|found| found.len());
        if length.as_ref().ok() != Some(&object.bytes) {
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "object {:?} should have {} bytes in {}, found {}",
                    object.name,
                    object.bytes,
                    data.display(),
                    length.map_or_else(|e| e.to_string(), |n| n.to_string()),
                ),
            )
            .target(path.display().to_string())
            .hint("restore the data file, or remove the JSON file to give the object up"));
        }
        named.insert(data);
        objects.insert(object.name.clone(), Arc::new(object));
    }
    for data in entries(&dir.join("d"))? {
        if !named.contains(&data) {
            fs::remove_file(&data).map_err(|e| Error::io(&data, "remove orphaned data", &e))?;
        }
    }
    Ok(objects)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, "read object store metadata", &e)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|e| {
        Error::new(Kind::Corrupt, "object store metadata is not readable JSON")
            .target(path.display().to_string())
            .hint("restore the file, or remove it to give up what it describes")
            .caused_by(&e)
    })
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e: io::Error| Error::io(dir, "read the object store", &e);
    fs::read_dir(dir)
        .map_err(failed)?
        .map(|entry| Ok(entry.map_err(failed)?.path()))
        .collect()
}

fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options
}

/// Makes renames and unlinks in `dir` survive a power cut.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn hashed(name: &str) -> String {
    hex::encode(Sha256::digest(name))
}

/// 32 hex digits that nobody can guess.
pub(super) fn random_name() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(name: &str) -> Container {
        Container {
            name: name.to_owned(),
            created_us: 1,
            metadata: Headers::default(),
        }
    }

    fn put(disk: &Disk, name: &str, body: &'static [u8]) -> Object {
        let mut upload = disk.upload().unwrap();
        upload.write(&[Bytes::from_static(body)]).unwrap();
        let (bytes, etag, data) = upload.finish().unwrap();
        let object = Object {
            name: name.to_owned(),
            data,
            bytes,
            etag,
            slo: None,
            content_type: "text/plain".to_owned(),
            modified_us: 1,
            delete_at: None,
            metadata: Headers::default(),
        };
        disk.put_object("c", &upload, &object).unwrap();
        object
    }

    fn files(dir: &Path) -> usize {
        entries(dir)
            .unwrap()
            .iter()
            .fold(0, |n, path| n + if path.is_dir() { files(path) } else { 1 })
    }

    #[test]
    fn reopens_with_what_was_finished_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let (disk, _) = Disk::open(root.path()).unwrap();
        disk.put_container(&container("c")).unwrap();
        disk.put_container(&container("gone")).unwrap();
        disk.remove_container("gone").unwrap();
        let kept = put(&disk, "../../etc/passwd", b"kept");
        let old = put(&disk, "twice", b"old");
        put(&disk, "twice", b"new!");
        let removed = put(&disk, "removed", b"x");
        disk.remove_object("c", &removed).unwrap();
        // A power cut: an upload and a container half made, old bytes not yet removed.
        let mut upload = disk.upload().unwrap();
        upload.write(&[Bytes::from_static(b"half")]).unwrap();
        std::mem::forget(upload);
        make_dir(&root.path().join("c").join(hashed("half"))).unwrap();
        assert!(disk.data("c", &old.data).exists());
        drop(disk);

        let (disk, index) = Disk::open(root.path()).unwrap();
        assert_eq!(index.containers.keys().collect::<Vec<_>>(), ["c"]);
        let objects = &index.containers["c"].objects;
        assert_eq!(
            objects.keys().collect::<Vec<_>>(),
            ["../../etc/passwd", "twice"]
        );
        assert_eq!(objects["twice"].bytes, 4);
        assert_eq!(objects["twice"].etag, hex::encode(Md5::digest(b"new!")));
        assert_eq!(fs::read(disk.data("c", &kept.data)).unwrap(), b"kept");
        // lock, container.json, and two files for each of two objects
        assert_eq!(files(root.path()), 6);
    }

    /// Among the metadata are keys that sign temporary URLs.
    #[test]
    fn files_are_their_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let (disk, _) = Disk::open(&root.path().join("store")).unwrap();
        disk.put_account(&Account::default()).unwrap();
        disk.put_container(&container("c")).unwrap();
        put(&disk, "o", b"x");
        let mut folders = vec![root.path().join("store")];
        while let Some(folder) = folders.pop() {
            let mode = folder.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", folder.display());
            folders.extend(
                entries(&folder)
                    .unwrap()
                    .into_iter()
                    .filter(|path| path.is_dir()),
            );
        }
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&root.path().join("store/account.json")), 0o600);
    }

    #[test]
    fn one_process_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let open = Disk::open(root.path()).unwrap();
        let error = Disk::open(root.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        drop(open);
        Disk::open(root.path()).unwrap();
    }

    #[test]
    fn says_which_object_lost_its_bytes() {
        let root = tempfile::tempdir().unwrap();
        let (disk, _) = Disk::open(root.path()).unwrap();
        disk.put_container(&container("c")).unwrap();
        let object = put(&disk, "o", b"four");
        fs::write(disk.data("c", &object.data), b"thr").unwrap();
        drop(disk);
        let error = Disk::open(root.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(
            error.message().contains("\"o\" should have 4 bytes"),
            "{error}"
        );
    }
}
