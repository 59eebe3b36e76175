//! The database's server on this machine: found by its port, killed as a power cut would, and started again as it was.
//!
//! Only a server whose first process, data folder and user are those of this machine: one in a container or behind a
//! tunnel is somebody else's to start. It is started in a session of its own, since it must outlive the experiment.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use reqwest::Url;
use rustix::process::{Pid, Signal, geteuid, kill_process};

/// After a crash it reads its log from the last checkpoint on.
const UP_WITHIN: Duration = Duration::from_secs(120);
const GONE_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);
/// State `LISTEN` in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Whose server it is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Its first process writes a file into the folder of its data, in which it is.
    Postgres,
    /// It is one process, known by its program. It listens when it has recovered.
    Mysql,
}

impl Kind {
    fn of(database: &Url) -> (Self, u16) {
        match database.scheme() {
            "mysql" | "mariadb" => (Self::Mysql, 3306),
            _ => (Self::Postgres, 5432),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "Postgres",
            Self::Mysql => "MariaDB or MySQL",
        }
    }

    /// Whether a process is a server's first.
    fn is_first(self, process: Pid) -> bool {
        let of = PathBuf::from(format!("/proc/{process}"));
        match self {
            Self::Postgres => first_of(&fs::read_link(of.join("cwd")).unwrap_or_default()) == Some(process),
            Self::Mysql => {
                let program = fs::read_link(of.join("exe")).unwrap_or_default();
                let name = program.file_name().and_then(OsStr::to_str).unwrap_or_default();
                ["mariadbd", "mysqld"].contains(&name.trim_end_matches(" (deleted)"))
            }
        }
    }

    /// What the option for the folder of the data is. The last one counts.
    fn folder(self, folder: &Path) -> Vec<OsString> {
        match self {
            Self::Postgres => vec!["-D".into(), folder.into()],
            Self::Mysql => {
                let mut option = OsString::from("--datadir=");
                option.push(folder);
                vec![option]
            }
        }
    }
}

/// A server, and all that is needed to start it again.
pub(super) struct Server {
    kind: Kind,
    addresses: Vec<SocketAddr>,
    process: Pid,
    folder: PathBuf,
    program: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    /// Words in front of it that make the process its user's.
    as_user: Vec<String>,
    log: PathBuf,
    /// Of ours, since it was started again: to be reaped.
    child: Option<Child>,
}

impl Server {
    /// Finds the server that a database's URL names. What it says from its next start on goes to `log`.
    ///
    /// # Errors
    /// If it is not on this machine, is no server that we know, or belongs to somebody else.
    pub(super) fn find(database: &str, log: PathBuf) -> anyhow::Result<Self> {
        // Not the parser's words: the URL may hold a password.
        let url = Url::parse(database).ok().context("its URL is not understood")?;
        let (kind, port) = Kind::of(&url);
        let addresses = addresses(&url, port)?;
        let process = first_process(kind, &addresses)?;
        let of = PathBuf::from(format!("/proc/{process}"));
        let same_files = fs::read_link(of.join("ns/mnt")).ok() == fs::read_link("/proc/self/ns/mnt").ok();
        ensure!(same_files, "its process {process} is in a container");
        let status = fs::read_to_string(of.join("status")).context("its process is gone")?;
        let numbers = |name: &str| -> Vec<String> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().map(str::to_owned).collect()
        };
        let (users, groups) = (numbers("Uid:"), numbers("Gid:"));
        let (user, group) = (users.get(1).context("it has no user")?, groups.get(1).context("it has no group")?);
        let me = geteuid();
        let mine = me.as_raw().to_string() == *user;
        ensure!(mine || me.is_root(), "its process {process} belongs to another user");
        let mut as_user = Vec::new();
        if !mine {
            as_user.extend(["setpriv", "--reuid", user, "--regid", group].map(str::to_owned));
            match numbers("Groups:") {
                none if none.is_empty() => as_user.push("--clear-groups".into()),
                groups => as_user.extend(["--groups".into(), groups.join(",")]),
            }
        }
        let read = |name: &str| fs::read(of.join(name)).with_context(|| format!("cannot read its {name}"));
        let words = |bytes: &[u8]| -> Vec<OsString> {
            let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
            words.map(|word| OsStr::from_bytes(word).to_owned()).collect()
        };
        let variable = |word: OsString| {
            let (name, value) = word.as_bytes().split_at_checked(word.as_bytes().iter().position(|b| *b == b'=')?)?;
            Some((OsStr::from_bytes(name).to_owned(), OsStr::from_bytes(value.get(1..)?).to_owned()))
        };
        Ok(Self {
            kind,
            addresses,
            process,
            folder: fs::read_link(of.join("cwd")).context("cannot tell its folder")?,
            program: fs::read_link(of.join("exe")).context("cannot tell its program")?,
            arguments: words(&read("cmdline")?).into_iter().skip(1).collect(),
            variables: words(&read("environ")?).into_iter().filter_map(variable).collect(),
            as_user,
            log,
            child: None,
        })
    }

    /// SIGKILL to the server and to all its processes, at once. Returns when they are gone.
    ///
    /// # Errors
    /// If it was gone before, or does not go.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        let cannot = || format!("cannot kill the database's server, process {}", self.process);
        kill_process(self.process, Signal::STOP).with_context(cannot)?; // It starts nobody while they are listed.
        let all: Vec<Pid> = descendants(self.process).into_iter().chain([self.process]).collect();
        for process in &all {
            let _ = kill_process(*process, Signal::KILL); // Some end by themselves.
        }
        if let Some(mut child) = self.child.take() {
            child.wait().with_context(cannot)?;
        }
        let end = Instant::now() + GONE_WITHIN;
        while !all.iter().all(|process| is_over(*process)) {
            ensure!(Instant::now() < end, "processes of the killed database do not go");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Starts it again as it was, and returns when it takes connections.
    ///
    /// # Errors
    /// If it does not start.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let log = || OpenOptions::new().create(true).append(true).open(&self.log).context("cannot write its log");
        let mut command = Command::new("setsid");
        command.args(&self.as_user).arg(&self.program).args(&self.arguments);
        // What stood there may have been relative to a folder that nobody knows any more.
        command.args(self.kind.folder(&self.folder)).current_dir(&self.folder);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").envs(self.variables.iter().cloned());
        command.stdin(Stdio::null()).stdout(log()?).stderr(log()?);
        self.child = Some(command.spawn().context("cannot start the database's server")?);
        let end = Instant::now() + UP_WITHIN;
        loop {
            // Perhaps somebody else, who looks after it, was faster.
            if let Some(process) = self.ready().filter(|process| *process != self.process) {
                self.process = process;
                return Ok(());
            }
            let child = self.child.as_mut().context("nobody was started")?;
            let ended = child.try_wait()?.is_some() && self.running().is_none();
            if ended || Instant::now() > end {
                bail!("the database's server does not start again; its log is {}", self.log.display());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The process of the server that was started last, if it lives.
    fn running(&self) -> Option<Pid> {
        match self.kind {
            Kind::Postgres => first_of(&self.folder).filter(|process| !is_over(*process)),
            Kind::Mysql => self.ready(),
        }
    }

    /// The same, if it takes connections.
    fn ready(&self) -> Option<Pid> {
        match self.kind {
            Kind::Postgres => ready(&self.folder),
            Kind::Mysql => {
                // Looking through all processes takes longer than knocking.
                self.addresses.iter().find(|address| TcpStream::connect(address).is_ok())?;
                first_process(self.kind, &self.addresses).ok()
            }
        }
    }
}

/// Where the URL's server listens, if that is on this machine.
fn addresses(url: &Url, port: u16) -> anyhow::Result<Vec<SocketAddr>> {
    let host =
        url.host_str().filter(|host| !host.is_empty()).context("its URL names no server")?.trim_matches(['[', ']']);
    let found = (host, url.port().unwrap_or(port)).to_socket_addrs().context("its name is not known")?;
    let here: Vec<SocketAddr> = found.filter(|address| UdpSocket::bind((address.ip(), 0)).is_ok()).collect();
    ensure!(!here.is_empty(), "it is on another machine");
    Ok(here)
}

/// The first process of the server that listens at one of these.
fn first_process(kind: Kind, addresses: &[SocketAddr]) -> anyhow::Result<Pid> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let listeners: HashMap<OsString, SocketAddr> =
        tables.iter().flat_map(|table| table.lines()).filter_map(listener).collect();
    let meant = |at: &SocketAddr| {
        addresses.iter().any(|a| a.port() == at.port() && (at.ip().is_unspecified() || at.ip() == a.ip()))
    };
    let sockets: Vec<&OsString> = listeners.iter().filter(|(_, at)| meant(at)).map(|(socket, _)| socket).collect();
    ensure!(!sockets.is_empty(), "nobody listens on its port");
    let mut hidden = true;
    for process in processes() {
        let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { continue };
        let mut targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        if !targets.any(|target| sockets.iter().any(|socket| **socket == *target)) {
            continue;
        }
        hidden = false;
        if kind.is_first(process) {
            return Ok(process);
        }
    }
    ensure!(!hidden, "the process that listens on its port is another user's");
    bail!("the process that listens on its port is not a {} of this machine", kind.name())
}

/// What its file descriptor links to, and where it listens: a line of `/proc/net/tcp` or `tcp6`.
fn listener(line: &str) -> Option<(OsString, SocketAddr)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, socket) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of 32 bits, each in this machine's own order.
    let word = |n: usize| u32::from_str_radix(address.get(8 * n..8 * n + 8)?, 16).ok().map(u32::to_ne_bytes);
    let address: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        _ => {
            Ipv6Addr::from(<[u8; 16]>::try_from([word(0)?, word(1)?, word(2)?, word(3)?].concat()).ok()?).to_canonical()
        }
    };
    (*state == LISTEN).then(|| (format!("socket:[{socket}]").into(), SocketAddr::new(address, port)))
}

fn processes() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

/// The first process of the Postgres of a data folder, as it says itself.
fn first_of(folder: &Path) -> Option<Pid> {
    let file = fs::read_to_string(folder.join("postmaster.pid")).ok()?;
    Pid::from_raw(file.lines().next()?.trim().parse().ok()?)
}

/// The same, if it lives and takes connections.
fn ready(folder: &Path) -> Option<Pid> {
    let file = fs::read_to_string(folder.join("postmaster.pid")).ok()?;
    let ready = file.lines().nth(7)?.trim() == "ready";
    first_of(folder).filter(|process| ready && !is_over(*process))
}

/// The processes that a process has started, and those that these have.
fn descendants(of: Pid) -> Vec<Pid> {
    let list = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    let children: Vec<Pid> = list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect();
    children.iter().flat_map(|child| descendants(*child)).chain(children.iter().copied()).collect()
}

fn is_over(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('Z'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_read_from_the_systems_table() {
        let line =
            "   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   105        0 4711 1 0";
        let (socket, at) = listener(line).expect("a listener");
        assert_eq!((socket.to_str(), at.to_string().as_str()), (Some("socket:[4711]"), "127.0.0.1:5432"));
        assert!(listener(&line.replace(" 0A ", " 01 ")).is_none(), "a connection");
        assert!(listener("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when").is_none());
        let line = line.replace("0100007F:", "00000000000000000000000001000000:");
        assert_eq!(listener(&line).expect("a listener").1.to_string(), "[::1]:5432");
    }

    #[test]
    fn a_server_elsewhere_is_not_touched() {
        let found = |url| Server::find(url, PathBuf::new()).err().expect("a refusal").to_string();
        assert!(found("postgres://u:secret@192.0.2.1/db").contains("another machine"));
        assert!(found("postgres:///db?host=/tmp").contains("names no server"));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("postgres://127.0.0.1:{}/db", listener.local_addr().expect("an address").port());
        assert!(found(&url).contains("not a Postgres"), "{}", found(&url));
        let url = url.replace("postgres", "mysql");
        assert!(found(&url).contains("not a MariaDB or MySQL"), "{}", found(&url));
    }
}
