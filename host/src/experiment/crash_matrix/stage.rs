//! Where a cell is tried: a database with the functions deployed, and how a host of it is started.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::super::client::Client;
use super::super::host::{HostOptions, HostProcess};
use super::super::place::Place;
use super::super::receiver::Receiver;
use super::super::server::Server;
use super::{FUNCTION, Options, RECEIPTS, batch};
use crate::deferred;
use crate::message::Contract;

/// What the functions' leases are: a trial takes a few of them.
pub(super) const LEASE: Duration = Duration::from_secs(3);
const LIMITS: &str = "timeout = \"1900ms\"\nlease = \"3s\"";
const RETRY: &str = "max_attempts = 5\nbackoff = { initial = \"50ms\", max = \"200ms\" }";
/// One at a time: the message that is sent first is the one that is hit.
const FLOW: &str = "concurrency = 1";
/// What a database in a file consists of, its lock aside.
const FILES: [&str; 3] = ["", "-wal", ".ledger"];

/// A place for trials, one after another.
#[derive(Clone)]
pub(super) struct Stage {
    program: Option<PathBuf>,
    folder: PathBuf,
    pub(super) receiver: Arc<Receiver>,
    functions: [PathBuf; 3],
    ground: Ground,
}

#[derive(Clone)]
enum Ground {
    /// Files that are copied for each cell, one for each contract.
    Files {
        finish: PathBuf,
        begin: PathBuf,
    },
    Server {
        url: String,
        deployed: Option<Contract>,
        server: Option<Arc<tokio::sync::Mutex<Server>>>,
    },
}

impl Stage {
    /// On files of its own. The functions are deployed to one for each contract.
    pub(super) async fn on_files(options: &Options, place: &Place, receiver: Arc<Receiver>) -> anyhow::Result<Self> {
        let file = |name: &str| place.folder().join(format!("{name}.db"));
        let (finish, begin) = (file("template-finish-once"), file("template-begin-once"));
        let ground = Ground::Files { finish: finish.clone(), begin: begin.clone() };
        let stage = Self::new(options, place, receiver, ground)?;
        for (path, contract) in [(finish, Contract::FinishOnce), (begin, Contract::BeginOnce)] {
            stage.deploy(&Place::url(&path), contract).await?;
        }
        Ok(stage)
    }

    /// On the database of a server, whose processes may be killed if it is given.
    pub(super) async fn on_server(
        options: &Options,
        place: &Place,
        receiver: Arc<Receiver>,
        url: String,
        server: Option<Server>,
    ) -> anyhow::Result<Self> {
        let server = server.map(|server| Arc::new(tokio::sync::Mutex::new(server)));
        Self::new(options, place, receiver, Ground::Server { url, deployed: None, server })
    }

    fn new(options: &Options, place: &Place, receiver: Arc<Receiver>, ground: Ground) -> anyhow::Result<Self> {
        let grants = format!("topics = [\"{RECEIPTS}\"]\nhttp = [\"{}\"]", receiver.origin());
        let tables = [("limits", LIMITS), ("retry", RETRY), ("flow", FLOW), ("grants", &grants)];
        let effects = place.variant(&options.functions.join(FUNCTION), &tables)?;
        let receipts = place.variant(&options.functions.join(RECEIPTS), &tables[..2])?;
        let together = format!("[limits]\n{LIMITS}\n[retry]\n{RETRY}\n[grants]\ntopics = [\"{RECEIPTS}\"]");
        let together = place.function(batch::FUNCTION, &options.functions.join(FUNCTION), &together)?;
        Ok(Self {
            program: options.program.clone(),
            folder: place.folder().to_owned(),
            receiver,
            functions: [receipts, effects, together],
            ground,
        })
    }

    async fn deploy(&self, database: &str, contract: Contract) -> anyhow::Result<()> {
        let mut host = self.host("deploys", database, contract, Vec::new()).await?;
        let [receipts, effects, together] = &self.functions;
        host.client().deploy(receipts, None).await?;
        host.client().deploy(effects, Some(contract.as_str())).await?;
        host.client().deploy(together, None).await?;
        host.stop().await?;
        Ok(())
    }

    /// The database for a cell, with the functions deployed. A file is fresh; a server's has all that was before.
    pub(super) async fn database(&mut self, name: &str, contract: Contract) -> anyhow::Result<String> {
        match &self.ground {
            Ground::Files { finish, begin } => {
                let template = if contract == Contract::FinishOnce { finish } else { begin };
                let path = self.folder.join(format!("{name}.db"));
                for ending in FILES {
                    copy(&with(template, ending), &with(&path, ending))?;
                }
                Ok(Place::url(&path))
            }
            Ground::Server { url, deployed, .. } => {
                let url = url.clone();
                if *deployed != Some(contract) {
                    self.deploy(&url, contract).await?;
                    if let Ground::Server { deployed, .. } = &mut self.ground {
                        *deployed = Some(contract);
                    }
                }
                Ok(url)
            }
        }
    }

    /// Starts a host with these variables in its environment.
    pub(super) async fn host(
        &self,
        name: &str,
        database: &str,
        contract: Contract,
        variables: Vec<(String, OsString)>,
    ) -> anyhow::Result<HostProcess> {
        let mut options = HostOptions::new(database, self.folder.join(name))?;
        if let Some(program) = &self.program {
            options.program.clone_from(program);
        }
        options.variables = variables;
        options.variables.extend(self.variables(contract));
        HostProcess::start(options).await
    }

    /// What every host has in its environment: one folder of compiled components for each installation.
    pub(super) fn variables(&self, contract: Contract) -> Vec<(String, OsString)> {
        let name = if matches!(self.ground, Ground::Files { .. }) { contract.as_str() } else { "server" };
        vec![("SEMEL_CACHE".to_owned(), self.folder.join(format!("cache-{name}")).into())]
    }

    /// A file of a cell's.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Kills the database's server, and starts it again.
    pub(super) async fn kill_database(&self) -> anyhow::Result<()> {
        let Ground::Server { server: Some(server), .. } = &self.ground else {
            anyhow::bail!("there is no server to kill")
        };
        let mut server = server.lock().await;
        server.kill().await?;
        server.start().await
    }

    /// That all is settled: nothing available, nothing running, and so it stays.
    pub(super) async fn until_settled(&self, client: &Client) -> anyhow::Result<()> {
        const LONGEST: Duration = Duration::from_secs(60);
        const LOOK_EVERY: Duration = Duration::from_millis(100);
        /// Whoever overshoots does it now.
        const LOOKS: u32 = 4;
        let settled = async {
            let mut quiet = 0;
            while quiet < LOOKS {
                quiet = if self.is_quiet(client).await { quiet + 1 } else { 0 };
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(LONGEST, settled).await.context("messages are still available or running after a minute")
    }

    async fn is_quiet(&self, client: &Client) -> bool {
        for function in [FUNCTION, batch::FUNCTION, RECEIPTS, deferred::FUNCTION] {
            if !client.counts(function).await.is_ok_and(|counts| counts.open() == 0) {
                return false;
            }
        }
        true
    }
}

fn with(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// The same bytes, or no file where there is none.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let done = if from.exists() { std::fs::copy(from, to).map(drop) } else { Ok(()) };
    done.with_context(|| format!("cannot copy {}", from.display()))
}
