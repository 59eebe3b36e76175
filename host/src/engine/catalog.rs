//! The functions that are deployed: checked, compiled, and found by name or by route.
//!
//! A deploy is checked whole before anything is stored; if any check fails, the old version keeps serving.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, Notify};

use super::Engine;
use super::label::{Class, Import, Label};
pub use super::routes::Routed;
use super::routes::Routes;
use crate::guest::bindings::MessageHandlerPre;
use crate::guest::{Settings, State};
use crate::manifest::{Cron, Manifest};
use crate::message::Contract;
use crate::pace::Pace;
use crate::store::{self, Activation, Deployed, Deployment, Store, VersionRecord};

mod follow;
mod gate;

use gate::{check_label, keeps_others_waiting};

/// A deployed function at its active version.
pub struct Function {
    /// Counts up from 1.
    pub version: i64,
    /// SHA-256 of the component.
    pub digest: String,
    /// The text of the manifest, as it was deployed.
    pub text: String,
    pub(crate) settings: Arc<Settings>,
    /// Set once it is compiled.
    pub(crate) compiled: OnceLock<Compiled>,
    paused: AtomicBool,
    pub(crate) pace: Pace,
}

/// A component that is ready to run.
pub(crate) struct Compiled {
    pub(crate) handler: MessageHandlerPre<State>,
    pub(crate) label: Label,
}

impl Function {
    /// As it was stored.
    fn stored(name: &str, version: VersionRecord, secret: [u8; 32]) -> Result<Self, String> {
        let read = Manifest::parse(&version.manifest);
        let class = Class::parse(&version.label);
        let (Ok(mut manifest), Some(class)) = (read, class) else {
            return Err("its stored manifest cannot be read by this version of semel; deploy it again".into());
        };
        manifest.contract = version.contract;
        name.clone_into(&mut manifest.name);
        Ok(Self {
            version: version.version,
            digest: version.digest,
            text: version.manifest,
            settings: Arc::new(Settings::new(manifest, class, secret)),
            compiled: OnceLock::new(),
            paused: AtomicBool::new(false),
            pace: Pace::default(),
        })
    }

    /// Whether its messages are left waiting for now.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// What its deployment asks for.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.settings.manifest
    }

    /// Its imports, as they are granted; none while it is not compiled.
    #[must_use]
    pub fn imports(&self) -> Option<Vec<Import>> {
        self.compiled.get().map(|compiled| compiled.label.under(&self.manifest().grants).imports)
    }

    /// The strongest class among its imports.
    #[must_use]
    pub fn class(&self) -> Class {
        self.settings.class
    }
}

/// What somebody wants to deploy.
#[derive(Debug, Clone, Default)]
pub struct Upload {
    /// The text of `function.toml`.
    pub manifest: String,
    /// The name under which it shall run, if it is not the manifest's.
    pub name: Option<String>,
    /// The contract, if it is not the manifest's.
    pub contract: Option<Contract>,
    /// The component.
    pub component: Vec<u8>,
    /// App migrations: file name and text.
    pub migrations: Vec<(String, String)>,
    /// Whether a version with a weaker guarantee than the running one's may replace it.
    pub accept_weaker: bool,
}

/// What came of a deploy or a rollback.
pub struct Steered {
    /// The active version from now on.
    pub function: Arc<Function>,
    /// What the deployer should know.
    pub warnings: Vec<String>,
}

/// Why a deploy or a rollback was not done.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No function of this name is deployed.
    #[error("no such function is deployed")]
    Unknown,
    /// It does not fit what is deployed; the text says why.
    #[error("{0}")]
    Conflict(String),
    /// What was uploaded is not right; the text says what and where.
    #[error("{0}")]
    Invalid(String),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] store::Error),
}

#[derive(Default)]
struct Table {
    functions: BTreeMap<String, Arc<Function>>,
    routes: Routes,
    /// Counts what this host itself has changed.
    changes: u64,
    /// Versions of which it was said that they cannot be read.
    unreadable: BTreeSet<(String, i64)>,
}

impl Table {
    fn find_routes(&mut self) {
        match Routes::of(self.functions.values().map(|function| function.manifest())) {
            Ok(routes) => self.routes = routes,
            // Checked before anything is stored, but two hosts may store at once.
            Err(error) => tracing::error!(error, "the routes stay what they were; deploy one of the functions again"),
        }
    }
}

/// All deployed functions of this host.
pub struct Catalog {
    engine: Arc<Engine>,
    store: Arc<dyn Store>,
    table: RwLock<Table>,
    deploying: Mutex<()>,
    /// When somebody last began to read what is deployed.
    looked: Mutex<Option<Instant>>,
    /// Says that there is something to compile.
    uncompiled: Notify,
    /// Says that something is deployed that was not, or is gone.
    altered: Notify,
}

impl Catalog {
    /// Reads what is deployed; nothing is compiled yet.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn open(engine: Arc<Engine>, store: Arc<dyn Store>) -> Result<Self, store::Error> {
        let mut table = Table::default();
        table.take(store.functions().await?, store.secret());
        let (table, deploying, looked) = (RwLock::new(table), Mutex::default(), Mutex::default());
        let (uncompiled, altered) = (Notify::new(), Notify::new());
        Ok(Self { engine, store, table, deploying, looked, uncompiled, altered })
    }

    async fn compile_stored(&self, digest: &str) -> Result<Compiled, Refusal> {
        let bytes = self.store.component(digest).await?;
        let bytes = bytes.ok_or_else(|| Refusal::Invalid("its component is missing in the database".into()))?;
        self.compile(bytes).await.map_err(Refusal::Invalid)
    }

    async fn compile(&self, bytes: Vec<u8>) -> Result<Compiled, String> {
        self.engine.prepare(&bytes).await
    }

    /// What is deployed, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Function>> {
        self.read().functions.values().cloned().collect()
    }

    /// One function.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Function>> {
        self.read().functions.get(name).cloned()
    }

    /// What runs them.
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Where a path of a manifest leads.
    #[must_use]
    pub fn route(&self, method: &str, path: &str) -> Routed {
        self.read().routes.find(method, path)
    }

    /// Checks and stores a deploy, and makes it the active version.
    ///
    /// # Errors
    /// If anything about it is not right; then nothing was changed.
    pub async fn deploy(&self, upload: Upload) -> Result<Steered, Refusal> {
        let _one_at_a_time = self.deploying.lock().await;
        let mut manifest = Manifest::parse(&upload.manifest).map_err(Refusal::Invalid)?;
        if let Some(name) = upload.name {
            Manifest::bare(&name).map_err(Refusal::Invalid)?;
            manifest.name = name;
        }
        manifest.contract = upload.contract.unwrap_or(manifest.contract);
        super::limits::check(&manifest.limits).map_err(Refusal::Invalid)?;
        let digest = hex::encode(Sha256::digest(&upload.component));
        let compiled = self.compile(upload.component.clone()).await.map_err(Refusal::Invalid)?;
        self.refresh().await?;
        let class = compiled.label.under(&manifest.grants).class;
        self.check(&manifest, class, upload.accept_weaker)?;
        let deployment = Deployment {
            activation: activation(&manifest),
            manifest: upload.manifest.clone(),
            contract: manifest.contract,
            label: class.to_string(),
            digest: digest.clone(),
            component: upload.component,
            migrations: upload.migrations,
        };
        let Deployed { version, migrations } = self.store.deploy(deployment).await?;
        let settings = Arc::new(Settings::new(manifest, class, self.store.secret()));
        let function = Function {
            version,
            digest,
            text: upload.manifest,
            settings,
            compiled: OnceLock::from(compiled),
            paused: AtomicBool::new(false),
            pace: Pace::default(),
        };
        let warn = |name| format!("migration {name} was applied; a rollback does not undo it");
        Ok(self.steered(function, migrations.iter().map(warn)))
    }

    /// Whether this is what was deployed last of its function, and not what is active: somebody has gone back from it, or
    /// removed it.
    ///
    /// # Errors
    /// If the manifest is not right, or the store cannot be read.
    pub async fn was_taken_back(&self, upload: &Upload) -> Result<bool, Refusal> {
        let manifest = Manifest::parse(&upload.manifest).map_err(Refusal::Invalid)?;
        self.refresh().await?;
        let active = self.get(&manifest.name).map(|function| function.version);
        let versions = self.store.versions(&manifest.name).await?;
        Ok(versions.first().is_some_and(|last| {
            active != Some(last.version)
                && last.manifest == upload.manifest
                && last.contract == manifest.contract
                && last.digest == hex::encode(Sha256::digest(&upload.component))
        }))
    }

    /// Makes an earlier version the active one: `to`, or the one that was active before the active one was deployed.
    ///
    /// # Errors
    /// If there is no such version, or it would not be taken as a deploy; then nothing was changed.
    pub async fn rollback(&self, name: &str, to: Option<i64>, accept_weaker: bool) -> Result<Steered, Refusal> {
        let _one_at_a_time = self.deploying.lock().await;
        self.refresh().await?;
        let active = self.get(name).ok_or(Refusal::Unknown)?;
        let versions = self.store.versions(name).await?;
        let previous = versions.iter().find(|v| v.version == active.version).and_then(|v| v.previous);
        let to = to.or(previous).ok_or_else(|| {
            Refusal::Conflict(format!("version {} of {name} is the first one: there is none before it", active.version))
        })?;
        let Some(target) = versions.into_iter().find(|v| v.version == to) else {
            return Err(Refusal::Conflict(format!("{name} has no version {to}; `semel functions {name}` lists them")));
        };
        let function = Function::stored(name, target, self.store.secret()).map_err(Refusal::Invalid)?;
        self.check(function.manifest(), function.class(), accept_weaker)?;
        let compiled = self.compile_stored(&function.digest).await?;
        let _ = function.compiled.set(compiled); // It was empty.
        let kept = self.store.activate(to, activation(function.manifest())).await?;
        let warn = |migration| format!("migration {migration} of a later version stays applied");
        Ok(self.steered(function, kept.iter().map(warn)))
    }

    /// Leaves a function's messages waiting, or goes on with them.
    ///
    /// # Errors
    /// If there is no such function.
    pub async fn pause(&self, name: &str, paused: bool) -> Result<Arc<Function>, Refusal> {
        let _one_at_a_time = self.deploying.lock().await;
        self.refresh().await?;
        let function = self.get(name).ok_or(Refusal::Unknown)?;
        self.store.pause(name, paused).await?;
        let _table = self.change();
        function.paused.store(paused, Ordering::Relaxed);
        Ok(function)
    }

    /// Removes a function. What runs may end; what waits is for [`crate::store::Steering::sweep`]. Returns how many wait.
    ///
    /// # Errors
    /// If there is no such function.
    pub async fn remove(&self, name: &str) -> Result<u32, Refusal> {
        let _one_at_a_time = self.deploying.lock().await;
        let waiting = self.store.remove(name).await?.ok_or(Refusal::Unknown)?;
        let mut table = self.change();
        table.functions.remove(name);
        table.find_routes();
        Ok(waiting)
    }

    /// What holds for every version that is to become active.
    fn check(&self, manifest: &Manifest, class: Class, accept_weaker: bool) -> Result<(), Refusal> {
        check_label(self.get(&manifest.name).as_deref(), manifest, class, accept_weaker).map_err(Refusal::Invalid)?;
        let table = self.read();
        let others = table.functions.values().map(|f| f.manifest()).filter(|other| other.name != manifest.name);
        Routes::of(others.chain([manifest])).map(drop).map_err(Refusal::Invalid)
    }

    fn steered(&self, function: Function, warnings: impl Iterator<Item = String>) -> Steered {
        let function = self.activate(function);
        let waiting = self.keeps_others_waiting(&function);
        Steered { warnings: warnings.chain(waiting).collect(), function }
    }

    /// Where there is one writer: what everybody should know of a function that calls others while it runs.
    pub fn keeps_others_waiting(&self, function: &Function) -> Option<String> {
        (!self.store.is_shared()).then(|| keeps_others_waiting(function))?
    }

    fn activate(&self, function: Function) -> Arc<Function> {
        let mut table = self.change();
        let name = function.manifest().name.clone();
        if let Some(old) = table.functions.get(&name) {
            function.paused.store(old.is_paused(), Ordering::Relaxed);
        }
        let function = Arc::new(function);
        table.functions.insert(name, Arc::clone(&function));
        table.find_routes();
        function
    }

    /// For what this host changes itself.
    fn change(&self) -> std::sync::RwLockWriteGuard<'_, Table> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.changes += 1;
        self.altered.notify_one(); // Who looks now waits for the table.
        table
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the store acts on of a manifest.
fn activation(manifest: &Manifest) -> Activation {
    Activation {
        function: manifest.name.clone(),
        app: manifest.app.clone(),
        topics: manifest.trigger.topics.clone(),
        serial: manifest.is_serial(),
        backlog: manifest.backlog(),
        schedules: manifest.trigger.cron.iter().map(Cron::key).collect(),
    }
}
