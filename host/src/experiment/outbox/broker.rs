//! A broker of the experiment's own: started by a script, killed as nothing else can be, and started again on what it kept.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::TOPIC;

/// Erlang takes its time.
const UP_WITHIN: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    RabbitMq,
    Nats,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::RabbitMq, Self::Nats];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RabbitMq => "rabbitmq",
            Self::Nats => "nats",
        }
    }
}

/// It ends with its script, and that with this.
pub(super) struct Broker {
    pub(super) kind: Kind,
    pub(super) kills: u64,
    port: u16,
    folder: PathBuf,
    script: Child,
}

impl Broker {
    pub(super) async fn start(kind: Kind, scripts: &Path) -> anyhow::Result<Self> {
        let script = scripts.join(kind.name());
        if !script.is_file() {
            bail!("there is no script {}: --scripts says where they are", script.display());
        }
        let folder = folder(kind)?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut command = Command::new(&script);
        command.arg(&folder).arg(port.to_string()).stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let script = command.spawn().with_context(|| format!("cannot run {}", script.display()))?;
        let mut broker = Self { kind, kills: 0, port, folder, script };
        broker.until_up().await?;
        Ok(broker)
    }

    pub(super) fn url(&self) -> String {
        let scheme = if self.kind == Kind::Nats { "nats" } else { "amqp" };
        format!("{scheme}://{USER}:{USER}@{}", self.address())
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.kills += 1;
        Ok(())
    }

    /// After a kill.
    pub(super) async fn restart(&mut self) -> anyhow::Result<()> {
        let input = self.script.stdin.as_mut().context("the script has no input")?;
        writeln!(input).context("the script has ended")?;
        self.until_up().await
    }

    /// It stands still: its connections stand, and nothing comes back from it.
    pub(super) fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    pub(super) fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let text =
            std::fs::read_to_string(self.folder.join("pid")).context("the script has not said its process id")?;
        let process = Pid::from_raw(text.trim().parse()?).context("no process id")?;
        kill_process(process, signal).with_context(|| format!("cannot send {signal:?} to {}", self.kind.name()))
    }

    async fn until_up(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while super::evidence::Tap::reach(self).await.is_err() {
            if let Some(status) = self.script.try_wait()? {
                bail!("{} did not start ({status}): is it installed? `.ci/setup` does that", self.kind.name());
            }
            if began.elapsed() > UP_WITHIN {
                bail!("{} was not up within {UP_WITHIN:?}", self.kind.name());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// The section of the host that relays to it.
    pub(super) fn sink(&self) -> String {
        let (name, url) = (self.kind.name(), self.url());
        let own = match self.kind {
            Kind::RabbitMq => format!("exchange = \"{EXCHANGE}\"\nrouting_key = \"{TOPIC}\"\n"),
            Kind::Nats => format!("subject = \"{TOPIC}\"\n"),
        };
        format!("[sinks.{name}]\nkind = \"{name}\"\ntopics = [\"{TOPIC}\"]\nurl = \"{url}\"\n{own}\n")
    }

    /// The section of the host that receives from it.
    pub(super) fn source(&self) -> String {
        let (name, url) = (self.kind.name(), self.url());
        let own = match self.kind {
            Kind::RabbitMq => format!("queue = \"{QUEUE}\"\n"),
            Kind::Nats => {
                format!("stream = \"{STREAM}\"\nconsumer = \"semel\"\ndeclare = true\nsubjects = [\"{TOPIC}\"]\n")
            }
        };
        format!("[sources.{name}]\nkind = \"{name}\"\ntopic = \"{TOPIC}\"\nurl = \"{url}\"\n{own}\n")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.thaw(); // Else it could not end.
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

/// Whom the scripts let in, and the password.
pub(super) const USER: &str = "semel";
/// What events go to, and the queue of the host that receives.
pub(super) const EXCHANGE: &str = "semel-experiment";
pub(super) const QUEUE: &str = "semel-experiment";
/// What the experiment reads.
pub(super) const TAP: &str = "semel-experiment-tap";
pub(super) const STREAM: &str = "SEMEL";

/// Its user is another one, who must be able to come there.
fn folder(kind: Kind) -> anyhow::Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("semel-{}-{}", kind.name(), uuid::Uuid::now_v7().simple()));
    std::fs::create_dir(&folder).with_context(|| format!("cannot make a folder for {}", kind.name()))?;
    Ok(folder)
}
