//! What the store knows of an account, a container, an object: the JSON on disk and the index.

use crate::clock;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Names and values as sent, the names in lower case (`x-object-meta-kernel-id`). Among them may
/// be temp URL keys, so `Debug` shows the names only.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Headers(pub(super) BTreeMap<String, String>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The one account of a store.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) created_us: u64,
    pub(super) metadata: Headers,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) created_us: u64,
    pub(super) metadata: Headers,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Object {
    pub(super) name: String,
    /// Name of the file with its bytes; a new upload is a new file.
    pub(super) data: String,
    pub(super) bytes: u64,
    /// MD5 of the bytes, in hex.
    pub(super) etag: String,
    /// Set if the bytes are the manifest of a static large object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) slo: Option<Slo>,
    pub(super) content_type: String,
    /// When it was uploaded or its metadata posted, in microseconds since 1970.
    pub(super) modified_us: u64,
    /// When it vanishes, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) delete_at: Option<u64>,
    /// `x-object-meta-*` and the standing headers such as `content-disposition`.
    pub(super) metadata: Headers,
}

/// What a static large object amounts to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Slo {
    /// Of all segments together.
    pub(super) bytes: u64,
    /// MD5 of the segments' MD5s, in hex.
    pub(super) etag: String,
}

impl Object {
    /// Whether it is still to be seen at `now`, in Unix seconds.
    pub(super) fn is_live(&self, now: u64) -> bool {
        self.delete_at.is_none_or(|at| at > now)
    }

    /// Its age in whole seconds; rounded up, as Swift's `Last-Modified` is.
    pub(super) fn modified_seconds(&self) -> u64 {
        self.modified_us.div_ceil(1_000_000)
    }
}

/// Everything, in memory; the files are what survives.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) account: Account,
    pub(super) containers: BTreeMap<String, Contents>,
}

/// A container with its objects, expired ones included until they are removed.
#[derive(Debug, Clone)]
pub(super) struct Contents {
    pub(super) container: Container,
    pub(super) objects: BTreeMap<String, Arc<Object>>,
}

impl Contents {
    /// How many objects are live at `now`, and their bytes.
    pub(super) fn usage(&self, now: u64) -> (u64, u64) {
        let live = self.objects.values().filter(|object| object.is_live(now));
        live.fold((0, 0), |(count, bytes), object| {
            (count + 1, bytes + object.bytes)
        })
    }
}

impl Index {
    /// The object of this name, unless it has expired.
    pub(super) fn object(&self, container: &str, name: &str) -> Option<&Arc<Object>> {
        let object = self.containers.get(container)?.objects.get(name)?;
        object.is_live(clock::unix_seconds()).then_some(object)
    }
}

/// Microseconds since 1970.
pub(super) fn now_us() -> u64 {
    let now = clock::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
