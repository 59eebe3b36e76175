//! `semel.toml`, the environment and flags, merged: flags before environment before file before defaults.
//!
//! Defaults stand here, once; `semel.example.toml` shows them and is parsed in a test.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::engine::Resources;
use crate::engine::compiler::Bounds;
use crate::manifest::{Bytes, Span};
use crate::store::{Logins, Retention};
use crate::{sink, source};

mod apps;
mod ways;

pub use apps::App;
pub use ways::Ways;

/// More would be more than any system hands out.
const MOST_CONNECTIONS: usize = 1 << 20;
/// Room for a first line, a host and a few headers, in bytes.
const SMALLEST_HEAD: usize = 1 << 10;

/// What may be said in `semel.toml`, or by flags and environment over it.
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address to listen on [default: 127.0.0.1:7700]
    #[arg(long, env = "SEMEL_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// The database [default: sqlite://semel.db]
    #[arg(long, env = "SEMEL_DATABASE", value_name = "URL")]
    pub database: Option<String>,
    /// A folder of functions that are deployed at start, each a folder with function.toml
    #[arg(long, env = "SEMEL_FUNCTIONS", value_name = "DIR")]
    pub functions: Option<PathBuf>,
    /// The folder for compiled components, of this user alone [default: FILE.cache beside a database file, else semel.cache]
    #[arg(long, env = "SEMEL_CACHE", value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// A file that holds the bearer token of /v1; needed to listen on other than loopback
    #[arg(long, env = "SEMEL_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Bounds on requests and functions; in the file only.
    #[arg(skip)]
    pub limits: Limits,
    /// How long ended messages are kept; in the file only.
    #[arg(skip)]
    pub retention: Keep,
    /// What is told to others.
    #[command(flatten)]
    pub telemetry: Telemetry,
    /// Database logins of apps, by the app's name; in the file only.
    #[arg(skip)]
    pub apps: BTreeMap<String, App>,
    /// Where events go, by the sink's name; in the file only.
    #[arg(skip)]
    pub sinks: BTreeMap<String, sink::Settings>,
    /// Where messages come from, by the source's name; in the file only.
    #[arg(skip)]
    pub sources: BTreeMap<String, source::Settings>,
}

/// `[retention]`: how long messages are kept after their end.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keep {
    /// Completed ones; 7d.
    pub completed: Option<Span>,
    /// Dead ones; 30d.
    pub dead: Option<Span>,
    /// Cancelled ones; 7d.
    pub cancelled: Option<Span>,
}

/// `[telemetry]`
#[derive(Debug, Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// An OpenTelemetry collector that is sent a span per attempt, by OTLP over HTTP [default: none]
    #[arg(long, env = "SEMEL_OTLP", value_name = "URL")]
    pub otlp: Option<String>,
}

/// `[limits]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest message body; 1MiB.
    pub body: Option<Bytes>,
    /// Largest deployment; 64MiB.
    pub upload: Option<Bytes>,
    /// What all running functions together may hold; 1GiB.
    pub memory: Option<Bytes>,
    /// Processor time for compiling a component; 60s.
    pub compile_time: Option<Span>,
    /// Memory for compiling a component; 1GiB.
    pub compile_memory: Option<Bytes>,
    /// Largest head of a request: its first line and its headers; 64KiB.
    pub head: Option<Bytes>,
    /// Connections that may be open at once; 1024.
    pub connections: Option<usize>,
    /// How long the head of a request may take to arrive, and how long a connection is kept without one; 10s.
    pub head_time: Option<Span>,
    /// How long a message body may take to arrive, and an answer to be taken; 30s.
    pub body_time: Option<Span>,
    /// How long a request may take in all; 5m.
    pub request_time: Option<Span>,
}

/// The configuration of a host, complete and checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its database.
    pub database: String,
    /// What it deploys at start.
    pub functions: Option<PathBuf>,
    /// Where compiled components are kept; none compiles them at each start.
    pub cache: Option<PathBuf>,
    /// The bearer token of `/v1`.
    pub token: Option<String>,
    /// The collector that is sent spans, an `http:` URL.
    pub otlp: Option<String>,
    /// Largest message body, in bytes.
    pub body: usize,
    /// Largest deployment, in bytes.
    pub upload: usize,
    /// How long ended messages are kept.
    pub retention: Retention,
    /// Database logins that somebody else made for apps.
    pub apps: Logins,
    /// Where events go, and where messages come from.
    pub ways: Ways,
    /// What functions may use of this machine.
    pub resources: Resources,
    /// Largest head of a request, in bytes.
    pub head: usize,
    /// Connections at once.
    pub connections: usize,
    /// Longest time for the head of a request to arrive.
    pub head_time: Duration,
    /// Longest time for a message body to arrive.
    pub body_time: Duration,
    /// Longest time for a request in all.
    pub request_time: Duration,
}

impl Config {
    /// Merges flags and environment over the file. Without `file`, `semel.toml` of this folder is read if it exists.
    ///
    /// # Errors
    /// If the file cannot be read, has an unknown key (its line is named), or something does not fit together.
    pub fn load(flags: Settings, file: Option<&Path>) -> anyhow::Result<Self> {
        let default = Path::new("semel.toml");
        let path = file.or_else(|| default.exists().then_some(default));
        let file = match path {
            None => Settings::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                toml::from_str(&text).with_context(|| format!("{} is not right", path.display()))?
            }
        };
        Self::complete(Settings {
            listen: flags.listen.or(file.listen),
            database: flags.database.or(file.database),
            functions: flags.functions.or(file.functions),
            cache: flags.cache.or(file.cache),
            token_file: flags.token_file.or(file.token_file),
            limits: file.limits,
            retention: file.retention,
            telemetry: Telemetry { otlp: flags.telemetry.otlp.or(file.telemetry.otlp) },
            apps: file.apps,
            sinks: file.sinks,
            sources: file.sources,
        })
    }

    fn complete(settings: Settings) -> anyhow::Result<Self> {
        let listen = settings.listen.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7700));
        let token = settings.token_file.as_deref().map(read_token).transpose()?;
        if token.is_none() && !listen.ip().is_loopback() {
            bail!(
                "{listen} is reachable from other machines, and /v1 deploys code: give a token with token_file (or \
                 --token-file), or listen on 127.0.0.1"
            );
        }
        let limits = settings.limits;
        let size =
            |given: Option<Bytes>, default| given.map_or(default, |b| usize::try_from(b.0).unwrap_or(usize::MAX));
        let days = |given: Option<Span>, default: u64| given.map_or(Duration::from_hours(24 * default), |span| span.0);
        let database = settings.database.unwrap_or_else(|| "sqlite://semel.db".into());
        let seconds = |given: Option<Span>, default| given.map_or(Duration::from_secs(default), |span| span.0);
        let connections = limits.connections.unwrap_or(1024);
        if !(1..=MOST_CONNECTIONS).contains(&connections) {
            bail!("[limits] connections must be from 1 to {MOST_CONNECTIONS}, not {connections}");
        }
        let head = size(limits.head, 64 << 10);
        if head < SMALLEST_HEAD {
            bail!("[limits] head must be at least {SMALLEST_HEAD} bytes, or no client can say what it wants");
        }
        let otlp = settings.telemetry.otlp.filter(|url| !url.is_empty());
        if otlp.as_ref().is_some_and(|url| !url.starts_with("http://")) {
            bail!("[telemetry] otlp must be the http:// URL of a collector, for example http://127.0.0.1:4318");
        }
        Ok(Self {
            listen,
            cache: settings.cache.or_else(|| Some(beside(&database))),
            database,
            functions: settings.functions,
            token,
            body: size(limits.body, 1 << 20),
            upload: size(limits.upload, 64 << 20),
            retention: Retention {
                completed: days(settings.retention.completed, 7),
                dead: days(settings.retention.dead, 30),
                cancelled: days(settings.retention.cancelled, 7),
            },
            apps: apps::logins(&settings.apps)?,
            ways: Ways { sinks: settings.sinks, sources: settings.sources }.check()?,
            resources: resources(&limits)?,
            otlp,
            head,
            connections,
            head_time: seconds(limits.head_time, 10),
            body_time: seconds(limits.body_time, 30),
            request_time: seconds(limits.request_time, 300),
        })
    }
}

fn resources(limits: &Limits) -> anyhow::Result<Resources> {
    let default = Resources::default();
    let seconds = limits.compile_time.map_or(default.compile.seconds, |time| time.0.as_secs().max(1));
    let memory = limits.compile_memory.map_or(default.compile.memory, |bytes| bytes.0);
    if memory < 256 << 20 {
        bail!("[limits] compile_memory must be at least 256MiB: the compiler itself takes half of that");
    }
    let runs = limits.memory.map_or(default.memory, |bytes| bytes.0);
    Ok(Resources { memory: runs, compile: Bounds { seconds, memory } })
}

/// `FILE.cache` beside a database file; for a database elsewhere in the working folder.
fn beside(database: &str) -> PathBuf {
    let file = database.strip_prefix("sqlite:").map_or("semel", |path| path.trim_start_matches("//"));
    PathBuf::from(format!("{file}.cache"))
}

fn read_token(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the token in {}", path.display()))?;
    let token = text.trim();
    if token.len() < 16 || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("the token in {} must be at least 16 visible ASCII characters", path.display());
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_complete_and_shows_the_defaults() {
        let text = include_str!("../../semel.example.toml");
        let shown = text.lines().map(|line| line.strip_prefix("#! ").unwrap_or(line)).collect::<Vec<_>>().join("\n");
        let example: Settings = toml::from_str(&shown).expect("every key of the example is known");
        assert!(example.listen.is_some() && example.database.is_some() && example.functions.is_some());
        let keep = &example.retention;
        assert!(keep.completed.is_some() && keep.dead.is_some() && keep.cancelled.is_some());
        assert!(example.token_file.is_some() && example.cache.is_some());
        assert!(example.token_file.is_some() && example.telemetry.otlp.is_some());
        let limits = &example.limits;
        assert!(limits.body.is_some() && limits.upload.is_some() && limits.head.is_some());
        assert!(limits.connections.is_some() && limits.head_time.is_some());
        assert!(limits.body_time.is_some() && limits.request_time.is_some());
        assert!(limits.memory.is_some() && limits.compile_time.is_some() && limits.compile_memory.is_some());
        let app = &example.apps["shop"];
        assert!(app.owner.is_some() && app.owner_password_file.is_some());
        assert_eq!(
            example.sinks.values().map(sink::Settings::kind).collect::<Vec<_>>(),
            ["rabbitmq", "nats", "webhook"]
        );
        assert_eq!(example.sources.values().map(source::Settings::kind).collect::<Vec<_>>(), ["rabbitmq", "nats"]);
        let defaults = Config::complete(Settings::default()).expect("defaults");
        let example = Config::complete(Settings {
            token_file: None,
            functions: None,
            telemetry: Telemetry::default(),
            apps: BTreeMap::new(),
            sinks: BTreeMap::new(),
            sources: BTreeMap::new(),
            ..example
        })
        .expect("example");
        assert_eq!(format!("{defaults:?}"), format!("{example:?}"));
    }

    #[test]
    fn other_addresses_need_a_token() {
        let open = Settings { listen: Some("0.0.0.0:1".parse().expect("an address")), ..Settings::default() };
        assert!(Config::complete(open).expect_err("open to all").to_string().contains("token"));
    }
}
