//! Postgres servers of the tests' own, started by `.ci/postgres`: one that all tests share, each with a database and a
//! login of its own in it, and one for each test that does harm to its server.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::harness::root;

/// A running server. It ends when this is dropped, or when the process ends, however it ends.
pub(crate) struct Cluster {
    keeper: Child,
    folder: PathBuf,
    port: u16,
}

impl Cluster {
    /// The one for all who do no harm. It does not wait for disks.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&["fsync=off"]))
    }

    /// One of a test's own, with settings as in postgresql.conf.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder").keep();
        let port = semel::experiment::host::free_address().expect("a free port").port();
        let mut script = Command::new(root().join(".ci/postgres"));
        script.arg(&folder).arg(port.to_string()).args(settings).stdin(Stdio::piped());
        let keeper = script.spawn().expect(".ci/postgres");
        let mut cluster = Self { keeper, folder, port };
        cluster.until_up();
        cluster
    }

    /// The URL of a new database and of the login that owns it: it may make roles and is no superuser.
    pub(crate) async fn database(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("semel_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut superuser = self.superuser("postgres").await;
        for sql in [
            format!("CREATE ROLE {name} LOGIN CREATEROLE PASSWORD '{name}'"),
            format!("CREATE DATABASE {name} OWNER {name} TEMPLATE template0"),
        ] {
            superuser.execute(AssertSqlSafe(sql)).await.expect("a database");
        }
        superuser.close().await.expect("an end");
        format!("postgres://{name}:{name}@127.0.0.1:{}/{name}", self.port)
    }

    /// A session of the superuser in a database.
    pub(crate) async fn superuser(&self, database: &str) -> PgConnection {
        let url = format!("postgres://postgres:postgres@127.0.0.1:{}/{database}", self.port);
        PgConnection::connect(&url).await.expect("the superuser's session")
    }

    /// From now on it lets nobody in who does not encrypt.
    pub(crate) async fn only_encrypted(&self) {
        let rules = self.folder.join("data/pg_hba.conf");
        std::fs::write(&rules, "hostssl all all 127.0.0.1/32 scram-sha-256\n").expect("rules");
        let reload = PgConnection::connect(&format!(
            "postgres://postgres:postgres@127.0.0.1:{}/postgres?sslmode=require",
            self.port
        ));
        let mut superuser = reload.await.expect("the superuser's session");
        superuser.execute("SELECT pg_reload_conf()").await.expect("new rules");
        superuser.close().await.expect("an end");
    }

    /// The certificate with which it encrypts, if it was started so.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join("server.crt")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Lets logins in from other addresses than this machine's, if it listens there.
    pub(crate) async fn let_in(&self, network: &str) {
        let rules = self.folder.join("data/pg_hba.conf");
        let mut rules = std::fs::File::options().append(true).open(rules).expect("the rules");
        writeln!(rules, "host all all {network} scram-sha-256").expect("a rule");
        self.superuser("postgres").await.execute("SELECT pg_reload_conf()").await.expect("new rules");
    }

    /// What the server has said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// SIGKILL to the server and to all its sessions, at once.
    pub(crate) fn kill(&self) {
        let server = self.server().expect("a server that is up");
        kill_process(server, Signal::STOP).expect("a server that is up"); // It starts nobody while they are listed.
        for process in children(server).into_iter().chain([server]) {
            let _ = kill_process(process, Signal::KILL); // Some end by themselves.
        }
        while self.server().is_some() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Up again after it was killed.
    pub(crate) fn restart(&mut self) {
        let stdin = self.keeper.stdin.as_mut().expect("a pipe");
        stdin.write_all(b"start\n").expect("a keeper");
        self.until_up();
    }

    /// The server's first process, while it takes connections.
    fn server(&self) -> Option<Pid> {
        let file = std::fs::read_to_string(self.folder.join("data/postmaster.pid")).ok()?;
        let ready = file.lines().nth(7)?.trim() == "ready";
        let process = Pid::from_raw(file.lines().next()?.parse().ok()?)?;
        (ready && !is_over(process)).then_some(process)
    }

    fn until_up(&mut self) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.server().is_none() {
            let ended = self.keeper.try_wait().expect("a keeper");
            assert!(ended.is_none() && Instant::now() < end, "Postgres does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait(); // It has nothing more to do.
    }
}

/// The processes that a process has started.
fn children(of: Pid) -> Vec<Pid> {
    let list = format!("/proc/{of}/task/{of}/children");
    let list = std::fs::read_to_string(list).expect("the processes of a server");
    list.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

fn is_over(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('Z'))
}
