//! A host under test: `semel serve` as a child process, so that it can be killed as nothing else in here can.
//!
//! It keeps its port over every restart, as a service behind one address does, and writes all it has to say to one
//! log file. SIGKILL is the fault that experiments are about; [`HostProcess::stop`] is the polite end. No way of
//! dropping a [`HostProcess`] leaves a process behind.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::client::Client;
use crate::store;

/// A host that is not ready after this long never will be.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A host that has not drained after this long is stuck.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);
const LOG: &str = "host.log";
/// Below the range from which Linux takes the ports of outgoing connections: while the host is down, no sender that
/// knocks at its port can be given that very port as its own.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// How to start a host.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// The `semel` binary.
    pub program: PathBuf,
    /// Words before its command line, such as `nice -n 10`. What they name must become the host by `exec`.
    pub through: Vec<String>,
    /// The database that it serves, with an absolute path if it is a file.
    pub database: String,
    /// Where it works: its log and its configuration file are put here. Made if missing.
    pub folder: PathBuf,
    /// What stands in its configuration file.
    pub configuration: String,
    /// Where it listens; none: on a free port of this machine.
    pub address: Option<SocketAddr>,
    /// Environment variables for it; of its parent's it keeps none that begins with `SEMEL_`.
    pub variables: Vec<(String, OsString)>,
}

impl HostOptions {
    /// A host of the program that is running now.
    ///
    /// # Errors
    /// If the system does not say which program that is.
    pub fn new(database: impl Into<String>, folder: impl Into<PathBuf>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let (database, folder) = (database.into(), folder.into());
        Ok(Self {
            program,
            through: Vec::new(),
            database,
            folder,
            address: None,
            variables: Vec::new(),
            configuration: String::new(),
        })
    }

    /// With an environment variable.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }
}

/// A running host, or one that was killed and can be restarted.
#[derive(Debug)]
pub struct HostProcess {
    options: HostOptions,
    address: SocketAddr,
    client: Client,
    child: Option<Child>,
}

impl HostProcess {
    /// Starts a host on a free port, and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot be started, or ends before it is ready. What it said last is in the error.
    pub async fn start(options: HostOptions) -> anyhow::Result<Self> {
        let folder = &options.folder;
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        // A file of its own, since `./semel.toml` would be somebody else's.
        std::fs::write(folder.join("semel.toml"), &options.configuration)
            .context("cannot write the host's configuration")?;
        File::create(folder.join(LOG)).context("cannot make the host's log")?;
        let address = match options.address {
            Some(address) => address,
            None => free_address()?,
        };
        let client = Client::new(&format!("http://{address}"))?;
        let mut host = Self { options, address, client, child: None };
        host.restart().await?;
        Ok(host)
    }

    /// A client of this host. It stays good over restarts.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where it listens, over all its restarts.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id; none while it is down.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// The database that it serves.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.options.database
    }

    /// The random id under which it claims messages, or last did; none if it has not said so yet.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        let said = std::fs::read(self.log()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let line = said.lines().rev().find(|line| line.contains("claims messages under this id"))?;
        line.split_once("host=").map(|(_, id)| id.trim().trim_matches('"').to_owned())
    }

    /// The file with all that the host has said, over all its restarts.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.options.folder.join(LOG)
    }

    /// Starts a host that is down again, on the same port, and says how long it took to be ready.
    ///
    /// # Errors
    /// If it is still up, cannot be started, or ends before it is ready.
    pub async fn restart(&mut self) -> anyhow::Result<Duration> {
        if self.child.is_some() {
            bail!("the host is still up");
        }
        let began = Instant::now();
        self.child = Some(self.spawn()?);
        while !self.client.is_ready().await {
            self.check_alive()?;
            if began.elapsed() > READY_WITHIN {
                bail!("the host was not ready within {READY_WITHIN:?}. It said:\n{}", self.last_words());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(began.elapsed())
    }

    /// What the host finds in its environment from its next start on.
    pub fn set_variables(&mut self, variables: Vec<(String, OsString)>) {
        self.options.variables = variables;
    }

    /// Whether the process stands still, by SIGSTOP.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let Some(id) = self.process() else { return false };
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T'))
    }

    /// SIGKILL, and returns when the process is gone.
    ///
    /// # Errors
    /// If it was gone before: then something else ended it.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.check_alive()?;
        let mut child = self.child.take().context("the host is down already")?;
        child.kill().await.context("cannot kill the host")
    }

    /// SIGTERM, and returns when the host has drained and ended.
    ///
    /// # Errors
    /// If it was gone before, or does not end within a minute.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.ended().await
    }

    /// Sends a signal, and does not wait for what it does.
    ///
    /// # Errors
    /// If the host was gone before.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        self.check_alive()?;
        let process =
            self.process().and_then(|id| Pid::from_raw(id.cast_signed())).context("the host is down already")?;
        kill_process(process, signal).with_context(|| format!("cannot send {signal:?} to the host"))
    }

    /// Returns when the host, which was told to stop, has ended.
    ///
    /// # Errors
    /// If it is down already, or does not end within a minute.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        let mut child = self.child.take().context("the host is down already")?;
        let ended = tokio::time::timeout(STOPPED_WITHIN, child.wait()).await;
        let status = ended.with_context(|| format!("the host did not stop within {STOPPED_WITHIN:?}"))?;
        status.context("cannot wait for the host")
    }

    /// That nobody but the experiment ended the host.
    ///
    /// # Errors
    /// If it ended by itself, with what it said last.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        match child.try_wait().context("cannot look after the host")? {
            None => Ok(()),
            Some(status) => {
                self.child = None;
                bail!("the host ended by itself ({status}). It said:\n{}", self.last_words())
            }
        }
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let options = &self.options;
        let log = || OpenOptions::new().append(true).open(self.log()).context("cannot open the host's log");
        let program = options.program.as_os_str();
        let mut words = options.through.iter().map(OsString::from).chain([program.to_owned()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command.args(["serve", "--database", &options.database, "--listen", &self.address.to_string(), "--config"]);
        command.arg(options.folder.join("semel.toml"));
        command.stdin(Stdio::null()).stdout(log()?).stderr(log()?).kill_on_drop(true);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SEMEL_")) {
            command.env_remove(name);
        }
        if store::is_shared(&options.database) {
            command.env("SEMEL_CACHE", options.folder.join("semel.cache"));
        }
        command.envs(options.variables.iter().map(|(name, value)| (name, value)));
        command.spawn().with_context(|| format!("cannot start {}", options.program.display()))
    }

    fn last_words(&self) -> String {
        last_lines(&self.log(), 20)
    }
}

fn last_lines(path: &Path, count: usize) -> String {
    let said = std::fs::read(path).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// An address of this machine at which nobody listens.
///
/// # Errors
/// If none was found.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    // Not from the seed: experiments that run side by side must not meet.
    let candidates = std::iter::repeat_with(|| SocketAddr::from((Ipv4Addr::LOCALHOST, rand::random_range(PORTS))));
    candidates.take(100).find(|address| TcpListener::bind(address).is_ok()).context("found no free port")
}
