//! Deployed functions, as they are kept: every version, and which one is active.

use async_trait::async_trait;

use super::Error;
use crate::clock::Timestamp;
use crate::message::Contract;

/// Deployed functions, kept in the database since all hosts share them.
#[async_trait]
pub trait Catalog: Send + Sync {
    /// The secret from which pinned randomness and idempotency keys are derived.
    fn secret(&self) -> [u8; 32];

    /// Applies new app migrations, stores component and version, and makes the version active: one commit. Deploying
    /// what is active already changes nothing. A function that was removed is there again.
    async fn deploy(&self, deployment: Deployment) -> Result<Deployed, Error>;

    /// Makes known what a part of the host handles under a name that nobody can deploy, as version 1; `what` says in a word what
    /// it is. Harmless to repeat.
    async fn install(&self, what: &str, activation: Activation) -> Result<(), Error>;

    /// Makes a version that was deployed before the active one. Returns the names of the app migrations that this
    /// function's later versions brought along: they stay applied.
    async fn activate(&self, version: i64, activation: Activation) -> Result<Vec<String>, Error>;

    /// Stops or resumes claiming a function's messages; they are accepted all the same. False if there is no such
    /// function.
    async fn pause(&self, function: &str, paused: bool) -> Result<bool, Error>;

    /// Removes a function: nothing is accepted for it any more, none of its schedules fires, and [`super::Steering::sweep`] makes what waits dead.
    /// Its versions are kept. Returns how many messages wait for it, or nothing if there is no such function.
    async fn remove(&self, function: &str) -> Result<Option<u32>, Error>;

    /// Whether other hosts may work on this database at the same time, and so change what is deployed.
    fn is_shared(&self) -> bool;

    /// Returns when another host may have changed what is deployed: after about a second at the latest, or never where
    /// there is no other.
    async fn changed(&self);

    /// The active version of every function.
    async fn functions(&self) -> Result<Vec<FunctionRecord>, Error>;

    /// Every version of a function, newest first; also of one that was removed.
    async fn versions(&self, function: &str) -> Result<Vec<VersionRecord>, Error>;

    /// The bytes of a component.
    async fn component(&self, digest: &str) -> Result<Option<Vec<u8>>, Error>;
}

/// Everything one deploy changes.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// What the store itself acts on.
    pub activation: Activation,
    /// The text of the manifest.
    pub manifest: String,
    /// The contract, which may have been given at deploy instead of in the manifest.
    pub contract: Contract,
    /// The label, as computed.
    pub label: String,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// The component.
    pub component: Vec<u8>,
    /// App migrations in order: file name and SQL text.
    pub migrations: Vec<(String, String)>,
}

/// What the store acts on of a version while it is active.
#[derive(Debug, Clone)]
pub struct Activation {
    /// Name of the function.
    pub function: String,
    /// Whose tables.
    pub app: String,
    /// Topics it subscribes to.
    pub topics: Vec<String>,
    /// Whether messages of one group run one after another, in the order of acceptance.
    pub serial: bool,
    /// Most messages in the queue.
    pub backlog: Option<u32>,
    /// Its schedules, see [`crate::message::schedule_key`]: those that are new begin now.
    pub schedules: Vec<String>,
}

/// What a deploy did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// The number of the version.
    pub version: i64,
    /// App migrations that were applied now.
    pub migrations: Vec<String>,
}

/// The active version of one function.
#[derive(Debug, Clone)]
pub struct FunctionRecord {
    /// Name of the function.
    pub name: String,
    /// The active version.
    pub active: VersionRecord,
    /// Whether its messages are not claimed for now.
    pub paused: bool,
}

/// One deployed version.
#[derive(Debug, Clone)]
pub struct VersionRecord {
    /// Counts up from 1 per function.
    pub version: i64,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    /// The text of the manifest.
    pub manifest: String,
    /// The contract.
    pub contract: Contract,
    /// The label.
    pub label: String,
    /// When it was deployed.
    pub created_at: Timestamp,
    /// The version that was active before it was deployed.
    pub previous: Option<i64>,
}
