//! Values that must not be recorded: secrets, signed URLs, sessions.
//!
//! The journal and Lua hold a reference, `{"$live": [key, part]}`: the call that made the value
//! and which part of its reply it is. After a crash the call is executed again when, and only
//! when, something uses the reference.

use crate::secret::Secret;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Names a part of a call's reply.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LiveRef {
    /// `[key of the call, part]`.
    #[serde(rename = "$live")]
    pub origin: (String, usize),
}

impl LiveRef {
    /// The reference that `value` is, if it is one.
    #[must_use]
    pub fn from_value(value: &Value) -> Option<Self> {
        let object = value
            .as_object()
            .filter(|o| o.len() == 1 && o.contains_key("$live"))?;
        Self::deserialize(Value::Object(object.clone())).ok()
    }
}

/// Something with an end: it is closed when the run ends, whatever way.
pub trait Handle: Any + Send + Sync + fmt::Debug {
    /// Ends it; called once, within a short deadline.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A value behind a reference.
#[derive(Clone)]
pub enum LiveValue {
    /// A text that is never printed.
    Secret(Secret),
    /// An open session.
    Handle(Arc<dyn Handle>),
}

impl fmt::Debug for LiveValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(_) => f.write_str("secret"),
            Self::Handle(handle) => handle.fmt(f),
        }
    }
}

/// What this process holds of a run's live values.
#[derive(Debug, Default)]
pub(super) struct LiveTable {
    parts: Mutex<HashMap<String, Vec<LiveValue>>>,
}

impl LiveTable {
    pub(super) fn get(&self, reference: &LiveRef) -> Option<LiveValue> {
        let (key, part) = &reference.origin;
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.get(key)?.get(*part).cloned()
    }

    pub(super) fn put(&self, key: &str, live: Vec<LiveValue>) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.insert(key.to_owned(), live);
    }

    /// Takes every handle out, for closing.
    pub(super) fn drain_handles(&self) -> Vec<Arc<dyn Handle>> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts
            .drain()
            .flat_map(|(_, live)| live)
            .filter_map(|value| match value {
                LiveValue::Handle(handle) => Some(handle),
                LiveValue::Secret(_) => None,
            })
            .collect()
    }
}

/// Replaces the placeholders of a reply by references to `key`.
pub(super) fn bind(value: &mut Value, key: &str) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| bind(item, key)),
        Value::Object(fields) => {
            if let (1, Some(part)) = (fields.len(), fields.get("$live").and_then(Value::as_u64)) {
                *value = serde_json::json!({ "$live": [key, part] });
            } else {
                fields.values_mut().for_each(|field| bind(field, key));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn placeholders_become_references() {
        let mut value = json!({ "a": { "$live": 1 }, "b": [{ "$live": 0 }, 2] });
        bind(&mut value, "step/ramdisk.expect#1");
        assert_eq!(
            value["b"][0],
            json!({ "$live": ["step/ramdisk.expect#1", 0] })
        );
        let reference = LiveRef::from_value(&value["a"]).unwrap();
        assert_eq!(reference.origin, ("step/ramdisk.expect#1".to_owned(), 1));
        assert!(LiveRef::from_value(&value).is_none());
    }
}
