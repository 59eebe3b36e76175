//! What other hosts deploy, roll back, pause and remove: this host's table follows the store.
//!
//! Nothing depends on how soon: the store accepts for what is deployed, and lets only the active version of a function be
//! claimed, whatever this host believes.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::{Catalog, Function, Refusal, Routed, Table};
use crate::store::{self, FunctionRecord};

/// Between two looks, however often somebody says that something changed.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two tries to read a component.
const AGAIN: Duration = Duration::from_secs(5);

impl Catalog {
    /// Follows what other hosts change, for as long as somebody waits for it.
    pub async fn follow(&self) {
        loop {
            self.store.changed().await;
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "cannot read what is deployed");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Compiles what is deployed and not compiled yet, now and whenever something new is found, for as long as somebody
    /// waits for it.
    pub async fn keep_compiled(&self) {
        loop {
            if self.compile_all().await {
                self.uncompiled.notified().await;
            } else {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// Compiles what is deployed and not compiled yet, one after another; a function runs as soon as it is ready. False if
    /// the store did not give out a component.
    async fn compile_all(&self) -> bool {
        let mut all = true;
        for function in self.all().into_iter().filter(|function| function.compiled.get().is_none()) {
            let name = &function.manifest().name;
            match self.compile_stored(&function.digest).await {
                Ok(compiled) => {
                    let _ = function.compiled.set(compiled); // Somebody else was faster: the same component.
                }
                Err(error) => {
                    tracing::error!(function = name, %error, "cannot be run; its messages wait");
                    all &= !matches!(error, Refusal::Store(_));
                }
            }
        }
        all
    }

    /// Returns when something is deployed that was not. For one who asks again and again.
    pub(crate) async fn altered(&self) {
        self.altered.notified().await;
    }

    /// One function. If this host does not know it, the store is asked.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn find(&self, name: &str) -> Result<Option<Arc<Function>>, store::Error> {
        if let Some(function) = self.get(name) {
            return Ok(Some(function));
        }
        self.refresh().await?;
        Ok(self.get(name))
    }

    /// Where a path of a manifest leads. If it leads nowhere that this host knows of, the store is asked.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn find_route(&self, method: &str, path: &str) -> Result<Routed, store::Error> {
        match self.route(method, path) {
            Routed::To(name, params) => Ok(Routed::To(name, params)),
            Routed::OtherMethods(_) | Routed::Nowhere => {
                self.refresh().await?;
                Ok(self.route(method, path))
            }
        }
    }

    /// Reads what is deployed, if other hosts may have changed it. Many who ask at once are one look.
    pub(super) async fn refresh(&self) -> Result<(), store::Error> {
        if !self.store.is_shared() {
            return Ok(());
        }
        let asked = Instant::now();
        let mut looked = self.looked.lock().await;
        if looked.is_some_and(|began| began >= asked) {
            return Ok(());
        }
        loop {
            let (began, changes) = (Instant::now(), self.read().changes);
            let records = self.store.functions().await?;
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            if table.changes != changes {
                continue; // This host has changed something itself in between: what was read is old.
            }
            if table.take(records, self.store.secret()) {
                self.uncompiled.notify_one();
                self.altered.notify_one();
            }
            *looked = Some(began);
            return Ok(());
        }
    }
}

impl Table {
    /// Becomes what the store says. What this host knows already stays, compiled; true if there is something new.
    pub(super) fn take(&mut self, records: Vec<FunctionRecord>, secret: [u8; 32]) -> bool {
        let (mut functions, mut new) = (BTreeMap::new(), false);
        for FunctionRecord { name, active, paused } in records {
            let known = self.functions.get(&name).filter(|known| known.version == active.version);
            let function = match known {
                Some(known) => Arc::clone(known),
                None => {
                    let version = (name.clone(), active.version);
                    match Function::stored(&name, active, secret) {
                        Ok(function) => Arc::new(function),
                        Err(error) => {
                            if self.unreadable.insert(version) {
                                tracing::error!(function = name, error, "its messages wait");
                            }
                            continue;
                        }
                    }
                }
            };
            new |= known.is_none();
            function.paused.store(paused, Ordering::Relaxed);
            functions.insert(name, function);
        }
        let gone = functions.len() != self.functions.len();
        self.functions = functions;
        if new || gone {
            self.find_routes();
        }
        new
    }
}
