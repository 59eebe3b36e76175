//! The hosts under test: one on a file, any number on a database that they share, each with a network of its own to it.

use std::time::Duration;

use anyhow::Context as _;

use super::super::client::Client;
use super::super::host::{HostOptions, HostProcess};
use super::super::place::Place;
use super::super::proxy::{Fired, Proxy};
use super::{FUNCTION, Options};
use crate::store::{self, Held};

/// All hosts of a run, in the order in which they were started.
pub(super) struct Hosts {
    members: Vec<Member>,
    database: String,
}

pub(super) struct Member {
    pub(super) process: HostProcess,
    /// What stands between it and the database, if something does.
    pub(super) proxy: Option<Proxy>,
}

impl Hosts {
    /// Starts the first one.
    pub(super) async fn start(place: &Place, database: String, options: &Options) -> anyhow::Result<Self> {
        let mut hosts = Self { members: Vec::new(), database };
        hosts.add(place, options).await?;
        Ok(hosts)
    }

    /// Starts one more. It serves what is deployed.
    pub(super) async fn add(&mut self, place: &Place, options: &Options) -> anyhow::Result<()> {
        let folder = place.folder().join(format!("host-{}", self.members.len() + 1));
        let proxy = if options.faults.lost_commits > 0 { Some(Proxy::start(&self.database).await?) } else { None };
        let database = proxy.as_ref().map_or(self.database.as_str(), Proxy::url);
        let mut host = HostOptions::new(database, &folder)?
            .variable("SEMEL_WITNESS", place.witness_file())
            .variable("SEMEL_CACHE", folder.join("cache"));
        if let Some(program) = &options.program {
            host.program.clone_from(program);
        }
        self.members.push(Member { process: HostProcess::start(host).await?, proxy });
        Ok(())
    }

    pub(super) fn count(&self) -> usize {
        self.members.len()
    }

    pub(super) fn member(&mut self, number: usize) -> anyhow::Result<&mut Member> {
        self.members.get_mut(number).context("there is no such host")
    }

    /// A client of the first one.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        Ok(self.members.first().context("there is no host")?.process.client().clone())
    }

    pub(super) fn clients(&self) -> Vec<Client> {
        self.members.iter().map(|member| member.process.client().clone()).collect()
    }

    /// That nobody but the experiment ended one.
    pub(super) fn check_alive(&mut self) -> anyhow::Result<()> {
        self.members.iter_mut().try_for_each(|member| member.process.check_alive())
    }

    /// Returns when all that are up are ready.
    pub(super) async fn until_ready(&mut self, longest: Duration) -> anyhow::Result<()> {
        let ready = async {
            for client in self.clients() {
                while !client.is_ready().await {
                    tokio::time::sleep(super::POLL).await;
                }
            }
        };
        tokio::time::timeout(longest, ready)
            .await
            .context("the hosts are not ready again after the database was killed")
    }

    /// What one host has claimed, as the database says; on a file no host may be up, and it is what the last one had.
    pub(super) async fn held_by(&self, id: Option<&str>) -> anyhow::Result<Vec<Held>> {
        let mut held = store::held(&self.database).await?;
        held.retain(|held| !store::is_shared(&self.database) || Some(held.host.as_str()) == id);
        Ok(held)
    }

    /// What all have claimed.
    pub(super) async fn held(&self) -> anyhow::Result<Vec<Held>> {
        store::held(&self.database).await
    }

    /// Which of them are at work. On a file the one host says so itself.
    pub(super) async fn busy(&self) -> anyhow::Result<Vec<usize>> {
        if !store::is_shared(&self.database) {
            let counts = self.client()?.counts(FUNCTION).await?;
            return Ok(if counts.running > 0 { vec![0] } else { Vec::new() });
        }
        let held = self.held().await?;
        let ids = self.members.iter().map(|member| member.process.id()).enumerate();
        let busy = ids.filter(|(_, id)| held.iter().any(|held| Some(held.host.as_str()) == id.as_deref()));
        Ok(busy.map(|(number, _)| number).collect())
    }

    /// Commits whose answers were lost, by what the proxies did to them.
    pub(super) fn lost_commits(&self) -> Fired {
        self.members.iter().filter_map(|member| member.proxy.as_ref()).fold(Fired::default(), |sum, proxy| {
            let fired = proxy.fired();
            Fired {
                before: sum.before + fired.before,
                after: sum.after + fired.after,
                black_holes: sum.black_holes + fired.black_holes,
            }
        })
    }

    /// How often hosts found out that an unknown commit had this outcome. From their logs: a number that is kept in a
    /// host dies with it.
    pub(super) fn resolved(&self, outcome: &str) -> anyhow::Result<u64> {
        let mut found = 0;
        for member in &self.members {
            let log = std::fs::read(member.process.log()).context("cannot read a host's log")?;
            let says = |line: &&str| {
                line.contains("what became of an unknown commit is known")
                    && line.split(['=', '"', ' ']).any(|word| word == outcome)
            };
            found += String::from_utf8_lossy(&log).lines().filter(says).count() as u64;
        }
        Ok(found)
    }

    /// The last of all, so that none finds the others gone.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        for member in &mut self.members {
            member.process.kill().await?;
        }
        Ok(())
    }

    /// Where they say what they do, for people.
    pub(super) fn logs(&self) -> String {
        let logs: Vec<String> = self.members.iter().map(|member| member.process.log().display().to_string()).collect();
        logs.join(", ")
    }
}
