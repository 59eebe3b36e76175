//! The hosts of an experiment that deploys, sends and looks: one on a file, as many as it likes on a database that they share.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::time::sleep;
use uuid::Uuid;

use super::client::Client;
use super::host::{HostOptions, HostProcess};
use super::place::Place;
use crate::store;

/// If messages are open for this long after everything was sent, they always will be.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A folder, a database, and the hosts on it.
pub(super) struct Stage {
    pub(super) place: Place,
    pub(super) hosts: Vec<HostProcess>,
    database: String,
    program: Option<OsString>,
    started: usize,
}

impl Stage {
    /// Takes the folder. Without a database it is a fresh file there.
    pub(super) fn take(out: &Path, database: Option<&str>, program: Option<&Path>) -> anyhow::Result<Self> {
        let place = Place::take(out)?;
        let database = database.map_or_else(|| place.database("semel"), str::to_owned);
        let program = program.map(|program| program.as_os_str().to_owned());
        Ok(Self { place, hosts: Vec::new(), database, program, started: 0 })
    }

    /// The URL of the database.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// Whether more than one host can be at work.
    pub(super) fn is_shared(&self) -> bool {
        store::is_shared(&self.database)
    }

    /// Starts one more host, with these environment variables.
    pub(super) async fn start(&mut self, variables: &[(&str, OsString)]) -> anyhow::Result<()> {
        self.started += 1;
        let folder = self.place.folder().join(format!("host-{}", self.started));
        let mut host = HostOptions::new(&self.database, &folder)?;
        if let Some(program) = &self.program {
            host.program = program.into();
        }
        for (name, value) in variables {
            host = host.variable(*name, value);
        }
        let first = self.hosts.is_empty();
        self.hosts.push(HostProcess::start(host).await?);
        if first && self.client()?.open().await? > 0 {
            bail!("the database holds messages that wait already: give one without, or none");
        }
        Ok(())
    }

    /// A client of the first host.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        Ok(self.hosts.first().context("there is no host")?.client().clone())
    }

    /// Sends a message, and says its id.
    pub(super) async fn send(&self, function: &str, body: &str) -> anyhow::Result<String> {
        let (client, path, key) = (self.client()?, format!("/fn/{function}"), Uuid::now_v7().to_string());
        Ok(client.send(&path, &key, body.as_bytes()).await?.id)
    }

    /// Returns when every message is at rest.
    pub(super) async fn until_settled(&mut self) -> anyhow::Result<()> {
        let (began, client) = (Instant::now(), self.client()?);
        loop {
            self.hosts.iter_mut().try_for_each(HostProcess::check_alive)?;
            let open = client.open().await?;
            if open == 0 {
                return Ok(());
            }
            if began.elapsed() > SETTLED_WITHIN {
                bail!(
                    "{open} messages were not settled within {SETTLED_WITHIN:?}; the hosts' logs are in {}",
                    self.logs()
                );
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// SIGKILL to all.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        for host in &mut self.hosts {
            host.kill().await?;
        }
        self.hosts.clear();
        Ok(())
    }

    fn logs(&self) -> String {
        self.place.folder().display().to_string()
    }
}
