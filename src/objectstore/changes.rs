//! Every change of the store: checked, made durable, then visible. All functions block.

use super::Store;
use super::disk::Upload;
use super::record::{Container, Contents, Headers, Object, now_us};
use crate::clock;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, MutexGuard, PoisonError};

/// Why a change was not made.
#[derive(Debug)]
pub(super) enum Unchanged {
    NoContainer,
    NoObject,
    /// The object is there and the client wanted to be first.
    Exists,
    /// The container still holds objects.
    NotEmpty,
    /// Together with what is there already it would be too much metadata.
    Metadata(String),
    Io(io::Error),
}

impl From<io::Error> for Unchanged {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The outcome of a PUT on a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Created,
    Updated,
}

/// Headers to set, those with an empty value to remove.
pub(super) type Edits = BTreeMap<String, String>;

impl Store {
    /// Changes follow one another, so that files and index agree on the order. Readers do not
    /// wait: the index is locked only for the moment of the exchange.
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn post_account(&self, edits: Edits) -> Result<(), Unchanged> {
        let _turn = self.turn();
        let mut account = self.index().account.clone();
        apply(&mut account.metadata, edits)?;
        self.disk.put_account(&account)?;
        self.index_mut().account = account;
        Ok(())
    }

    pub(super) fn put_container(&self, name: &str, edits: Edits) -> Result<Put, Unchanged> {
        let _turn = self.turn();
        let known = self
            .index()
            .containers
            .get(name)
            .map(|c| c.container.clone());
        let outcome = known.as_ref().map_or(Put::Created, |_| Put::Updated);
        let mut container = known.unwrap_or_else(|| Container {
            name: name.to_owned(),
            created_us: now_us(),
            metadata: Headers::default(),
        });
        apply(&mut container.metadata, edits)?;
        self.disk.put_container(&container)?;
        self.set_container(container);
        Ok(outcome)
    }

    pub(super) fn post_container(&self, name: &str, edits: Edits) -> Result<(), Unchanged> {
        let _turn = self.turn();
        let known = self
            .index()
            .containers
            .get(name)
            .map(|c| c.container.clone());
        let mut container = known.ok_or(Unchanged::NoContainer)?;
        apply(&mut container.metadata, edits)?;
        self.disk.put_container(&container)?;
        self.set_container(container);
        Ok(())
    }

    fn set_container(&self, container: Container) {
        let mut index = self.index_mut();
        match index.containers.get_mut(&container.name) {
            Some(contents) => contents.container = container,
            None => {
                let objects = BTreeMap::new();
                let name = container.name.clone();
                let contents = Contents { container, objects };
                index.containers.insert(name, contents);
            }
        }
    }

    pub(super) fn delete_container(&self, name: &str) -> Result<(), Unchanged> {
        let _turn = self.turn();
        let used = {
            let index = self.index();
            let contents = index.containers.get(name).ok_or(Unchanged::NoContainer)?;
            contents.usage(clock::unix_seconds()).0
        };
        if used > 0 {
            return Err(Unchanged::NotEmpty);
        }
        // First from the index: what is half removed on disk must not be served.
        self.index_mut().containers.remove(name);
        Ok(self.disk.remove_container(name)?)
    }

    /// Puts the upload in place; with `only_new`, unless the object is there by now.
    pub(super) fn put_object(
        &self,
        container: &str,
        upload: &Upload,
        object: Object,
        only_new: bool,
    ) -> Result<(), Unchanged> {
        let _turn = self.turn();
        {
            let index = self.index();
            if !index.containers.contains_key(container) {
                return Err(Unchanged::NoContainer);
            }
            if only_new && index.object(container, &object.name).is_some() {
                return Err(Unchanged::Exists);
            }
        }
        self.disk.put_object(container, upload, &object)?;
        if let Some(old) = self.set_object(container, object) {
            self.disk.remove_data(container, &old.data);
        }
        Ok(())
    }

    /// Replaces the object's metadata by what `edit` makes of it.
    pub(super) fn post_object(
        &self,
        container: &str,
        name: &str,
        edit: impl FnOnce(&mut Object),
    ) -> Result<(), Unchanged> {
        let _turn = self.turn();
        let known = self.index().object(container, name).cloned();
        let mut object = Object::clone(known.as_ref().ok_or(Unchanged::NoObject)?);
        edit(&mut object);
        object.modified_us = now_us();
        self.disk.put_metadata(container, &object)?;
        self.set_object(container, object);
        Ok(())
    }

    fn set_object(&self, container: &str, object: Object) -> Option<Arc<Object>> {
        let expires = object.delete_at.is_some();
        let mut index = self.index_mut();
        let objects = &mut index.containers.get_mut(container)?.objects;
        let old = objects.insert(object.name.clone(), Arc::new(object));
        if expires {
            self.expiry.notify_one();
        }
        old
    }

    pub(super) fn delete_object(&self, container: &str, name: &str) -> Result<(), Unchanged> {
        let _turn = self.turn();
        let known = self.index().object(container, name).cloned();
        let object = known.ok_or(Unchanged::NoObject)?;
        Ok(self.remove(container, &object)?)
    }

    /// Removes what has expired and says when the next object will, in Unix seconds.
    pub(super) fn expire(&self) -> Option<u64> {
        let now = clock::unix_seconds();
        let due: Vec<(String, Arc<Object>)> = {
            let index = self.index();
            let containers = index.containers.iter();
            containers
                .flat_map(|(name, contents)| contents.objects.values().map(move |o| (name, o)))
                .filter(|(_, object)| !object.is_live(now))
                .map(|(name, object)| (name.clone(), Arc::clone(object)))
                .collect()
        };
        for (container, object) in due {
            self.expire_one(&container, &object);
        }
        let index = self.index();
        let objects = index.containers.values().flat_map(|c| c.objects.values());
        objects.filter_map(|object| object.delete_at).min()
    }

    fn expire_one(&self, container: &str, object: &Arc<Object>) {
        let _turn = self.turn();
        let current = {
            let index = self.index();
            let contents = index.containers.get(container);
            contents.and_then(|c| c.objects.get(&object.name)).cloned()
        };
        if !current.is_some_and(|current| Arc::ptr_eq(&current, object)) {
            return;
        }
        let name = &object.name;
        match self.remove(container, object) {
            Ok(()) => tracing::info!(container, name, "object expired"),
            Err(error) => tracing::error!(container, name, %error, "cannot remove expired object"),
        }
    }

    fn remove(&self, container: &str, object: &Object) -> io::Result<()> {
        self.disk.remove_object(container, object)?;
        if let Some(contents) = self.index_mut().containers.get_mut(container) {
            contents.objects.remove(&object.name);
        }
        Ok(())
    }
}

fn apply(metadata: &mut Headers, edits: Edits) -> Result<(), Unchanged> {
    for (name, value) in edits {
        if value.is_empty() {
            metadata.0.remove(&name);
        } else {
            metadata.0.insert(name, value);
        }
    }
    super::limits::check_sum(&metadata.0).map_err(Unchanged::Metadata)
}
