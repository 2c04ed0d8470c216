//! The registry of primitives.

use super::FnSpec;
use crate::engine::{Primitive, Primitives, Run};
use crate::error::{Error, Kind, Result};
use crate::suggest::near;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// All primitives by full name.
#[derive(Default)]
pub struct Registry {
    functions: BTreeMap<String, Arc<FnSpec>>,
    compare: Option<OfRun>,
    close_left: Option<OfRun>,
}

type OfRun = Box<dyn Fn(Arc<Run>) -> BoxFuture<'static, ()> + Send + Sync>;

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.functions.keys()).finish()
    }
}

impl Registry {
    /// Adds a primitive.
    pub fn add(&mut self, spec: FnSpec) {
        self.functions.insert(spec.full_name(), Arc::new(spec));
    }

    /// Says how a run that goes on compares its node with its journal.
    pub fn on_resumed(
        &mut self,
        compare: impl Fn(Arc<Run>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) {
        self.compare = Some(Box::new(compare));
    }

    /// Says how to close what earlier owners of a run left open.
    pub fn on_left(
        &mut self,
        close: impl Fn(Arc<Run>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) {
        self.close_left = Some(Box::new(close));
    }

    /// The primitive of this name.
    ///
    /// # Errors
    /// `invalid` with the near miss.
    pub fn get(&self, name: &str) -> Result<&Arc<FnSpec>> {
        self.functions.get(name).ok_or_else(|| {
            let names: Vec<_> = self.functions.keys().map(String::as_str).collect();
            let error = Error::new(Kind::Invalid, format!("there is no primitive {name}"));
            match near(name, &names) {
                Some(near) => error.hint(format!("did you mean {near}?")),
                None => error.hint("`flowrun help` lists them"),
            }
        })
    }

    /// Whether primitives are in a module of this name.
    pub(in crate::lua) fn has_module(&self, name: &str) -> bool {
        self.iter()
            .any(|spec| spec.module == name && !name.is_empty())
    }

    /// All of them, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<FnSpec>> {
        self.functions.values()
    }
}

impl Primitives for Registry {
    fn find(&self, name: &str) -> Option<Arc<dyn Primitive>> {
        self.functions
            .get(name)
            .map(|spec| spec.clone() as Arc<dyn Primitive>)
    }

    fn compare(&self, run: Arc<Run>) -> BoxFuture<'static, ()> {
        of_run(self.compare.as_ref(), run)
    }

    fn close_left(&self, run: Arc<Run>) -> BoxFuture<'static, ()> {
        of_run(self.close_left.as_ref(), run)
    }
}

fn of_run(task: Option<&OfRun>, run: Arc<Run>) -> BoxFuture<'static, ()> {
    match task {
        Some(task) => task(run),
        None => Box::pin(async {}),
    }
}
