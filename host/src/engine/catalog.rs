//! The functions that are deployed: checked, compiled, and found by name or by route.
//!
//! A deploy is checked whole before anything is stored; if any check fails, the old version keeps serving.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::Engine;
use super::label::{Class, Label};
use crate::guest::bindings::MessageHandlerPre;
use crate::guest::{Settings, State};
use crate::manifest::Manifest;
use crate::message::Contract;
use crate::store::{self, Deployment, Store};

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
}

/// A component that is ready to run.
pub(crate) struct Compiled {
    pub(crate) handler: MessageHandlerPre<State>,
    pub(crate) label: Label,
}

impl Function {
    /// What its deployment asks for.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.settings.manifest
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

/// Why a deploy was not done.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// What was uploaded is not right; the text says what and where.
    #[error("{0}")]
    Invalid(String),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Whom a path belongs to, and for which methods.
#[derive(Debug, Clone)]
struct Bound {
    function: String,
    methods: Vec<String>,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Routed {
    /// To this function, with these path parameters.
    To(String, Vec<(String, String)>),
    /// The path is known, the method is not; the methods that are.
    OtherMethods(Vec<String>),
    /// Nowhere.
    Nowhere,
}

#[derive(Default)]
struct Table {
    functions: BTreeMap<String, Arc<Function>>,
    routes: matchit::Router<Vec<Bound>>,
}

/// All deployed functions of this host.
pub struct Catalog {
    engine: Arc<Engine>,
    store: Arc<dyn Store>,
    table: RwLock<Table>,
    deploying: Mutex<()>,
}

impl Catalog {
    /// Reads what is deployed; nothing is compiled yet.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn open(engine: Arc<Engine>, store: Arc<dyn Store>) -> Result<Self, store::Error> {
        let secret = store.secret();
        let mut functions = BTreeMap::new();
        for record in store.functions().await? {
            let version = record.active;
            let read = Manifest::parse(&version.manifest);
            let class = Class::parse(&version.label);
            let (Ok(mut manifest), Some(class)) = (read, class) else {
                tracing::error!(
                    function = record.name,
                    "its stored manifest cannot be read by this version; deploy it again"
                );
                continue;
            };
            manifest.contract = version.contract;
            manifest.name.clone_from(&record.name);
            let function = Function {
                version: version.version,
                digest: version.digest,
                text: version.manifest,
                settings: Arc::new(Settings { manifest, class, secret }),
                compiled: OnceLock::new(),
            };
            functions.insert(record.name, Arc::new(function));
        }
        let routes = routes(&functions).map_err(store::Error::Broken)?;
        Ok(Self { engine, store, table: RwLock::new(Table { functions, routes }), deploying: Mutex::new(()) })
    }

    /// Compiles what is deployed and not compiled yet, one after another; a function runs as soon as it is ready.
    pub async fn compile_all(&self) {
        for function in self.all().into_iter().filter(|function| function.compiled.get().is_none()) {
            let name = &function.manifest().name;
            let compiled = match self.store.component(&function.digest).await {
                Ok(Some(bytes)) => self.compile(bytes).await,
                Ok(None) => Err("its component is missing in the database".into()),
                Err(error) => Err(error.to_string()),
            };
            match compiled {
                Ok(compiled) => {
                    let _ = function.compiled.set(compiled); // Somebody else was faster: the same component.
                }
                Err(error) => tracing::error!(function = name, error, "cannot be run; its messages wait"),
            }
        }
    }

    async fn compile(&self, bytes: Vec<u8>) -> Result<Compiled, String> {
        let engine = Arc::clone(&self.engine);
        let compiled = tokio::task::spawn_blocking(move || engine.compile(&bytes)).await;
        compiled.unwrap_or_else(|_| Err("the compiler panicked on this component".into()))
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

    /// Where a path of a manifest leads.
    #[must_use]
    pub fn route(&self, method: &str, path: &str) -> Routed {
        let table = self.read();
        let Ok(found) = table.routes.at(path) else { return Routed::Nowhere };
        let Some(bound) = found.value.iter().find(|bound| bound.methods.iter().any(|m| m == method)) else {
            return Routed::OtherMethods(found.value.iter().flat_map(|bound| bound.methods.clone()).collect());
        };
        let params = found.params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Routed::To(bound.function.clone(), params)
    }

    /// Checks and stores a deploy, and makes it the active version.
    ///
    /// # Errors
    /// If anything about it is not right; then nothing was changed.
    pub async fn deploy(&self, upload: Upload) -> Result<Arc<Function>, Refusal> {
        let _one_at_a_time = self.deploying.lock().await;
        let mut manifest = Manifest::parse(&upload.manifest).map_err(Refusal::Invalid)?;
        if let Some(name) = upload.name {
            Manifest::bare(&name).map_err(Refusal::Invalid)?;
            manifest.name = name;
        }
        manifest.contract = upload.contract.unwrap_or(manifest.contract);
        if manifest.limits.memory.0 > super::limits::LARGEST_MEMORY {
            let most = super::limits::LARGEST_MEMORY >> 20;
            return Err(Refusal::Invalid(format!("[limits] memory: this host allows at most {most}MiB")));
        }
        let digest = hex::encode(Sha256::digest(&upload.component));
        let compiled = self.compile(upload.component.clone()).await.map_err(Refusal::Invalid)?;
        check_label(self.get(&manifest.name).as_deref(), &manifest, compiled.label.class, upload.accept_weaker)
            .map_err(Refusal::Invalid)?;
        self.check_routes(&manifest).map_err(Refusal::Invalid)?;
        let deployment = Deployment {
            function: manifest.name.clone(),
            app: manifest.app.clone(),
            manifest: upload.manifest.clone(),
            contract: manifest.contract,
            label: compiled.label.class.to_string(),
            digest: digest.clone(),
            component: upload.component,
            topics: manifest.trigger.topics.clone(),
            migrations: upload.migrations,
        };
        let version = self.store.deploy(deployment).await?;
        let name = manifest.name.clone();
        let settings = Arc::new(Settings { manifest, class: compiled.label.class, secret: self.store.secret() });
        let function =
            Function { version, digest, text: upload.manifest, settings, compiled: OnceLock::from(compiled) };
        let function = Arc::new(function);
        self.activate(name, Arc::clone(&function));
        Ok(function)
    }

    fn activate(&self, name: String, function: Arc<Function>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.functions.insert(name, function);
        if let Ok(routes) = routes(&table.functions) {
            table.routes = routes; // Checked before the deploy was stored.
        }
    }

    fn check_routes(&self, manifest: &Manifest) -> Result<(), String> {
        let mut functions: BTreeMap<_, _> =
            self.read().functions.iter().map(|(name, f)| (name.clone(), f.manifest().clone())).collect();
        functions.insert(manifest.name.clone(), manifest.clone());
        routes_of(functions.values()).map(|_| ())
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A weaker guarantee than the running version's needs a word from the deployer.
fn check_label(old: Option<&Function>, new: &Manifest, class: Class, accepted: bool) -> Result<(), String> {
    let Some(old) = old.filter(|_| !accepted) else { return Ok(()) };
    let external = |class| class == Class::External;
    if external(class) && !external(old.class()) {
        return Err(format!(
            "the label of {} would go from {} to {class}: its effects could happen more than once; deploy with \
             --accept-weaker-guarantee if that is meant",
            new.name,
            old.class()
        ));
    }
    if old.manifest().contract != new.contract {
        return Err(format!(
            "the contract of {} would go from {} to {}; deploy with --accept-weaker-guarantee if that is meant",
            new.name,
            old.manifest().contract.as_str(),
            new.contract.as_str()
        ));
    }
    Ok(())
}

fn routes(functions: &BTreeMap<String, Arc<Function>>) -> Result<matchit::Router<Vec<Bound>>, String> {
    routes_of(functions.values().map(|function| function.manifest()))
}

/// All routes in one table; two functions may share a path if their methods differ.
fn routes_of<'a>(manifests: impl Iterator<Item = &'a Manifest>) -> Result<matchit::Router<Vec<Bound>>, String> {
    let mut paths: BTreeMap<&str, Vec<Bound>> = BTreeMap::new();
    for manifest in manifests {
        for route in &manifest.trigger.http {
            let bound = paths.entry(&route.path).or_default();
            let taken = bound.iter().find(|other| other.methods.iter().any(|m| route.methods.contains(m)));
            if let Some(other) = taken {
                return Err(format!("[trigger] http: {} already belongs to function {}", route.path, other.function));
            }
            bound.push(Bound { function: manifest.name.clone(), methods: route.methods.clone() });
        }
    }
    let mut router = matchit::Router::new();
    for (path, bound) in paths {
        let owner = bound.first().map(|bound| bound.function.clone()).unwrap_or_default();
        router.insert(path, bound).map_err(|e| format!("[trigger] http path {path} of function {owner}: {e}"))?;
    }
    Ok(router)
}
