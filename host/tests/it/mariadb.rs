//! MariaDB servers of the tests' own, started by `.ci/mariadb`: one that all tests share, each with a database and a login
//! of its own in it, and one for each test that does harm to its server.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use crate::harness::root;

/// A running server. It ends when this is dropped, or when the process ends, however it ends.
pub(crate) struct Mariadb {
    keeper: Child,
    folder: PathBuf,
    port: u16,
}

impl Mariadb {
    /// The one for all who do no harm. It does not wait for disks.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Mariadb> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&["innodb_flush_method=nosync"]))
    }

    /// One of a test's own, with settings as in my.cnf.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder").keep();
        let port = semel::experiment::host::free_address().expect("a free port").port();
        let mut script = Command::new(root().join(".ci/mariadb"));
        script.arg(&folder).arg(port.to_string()).args(settings).stdin(Stdio::piped());
        let keeper = script.spawn().expect(".ci/mariadb");
        let mut server = Self { keeper, folder, port };
        server.until_up();
        server
    }

    /// The URL of a new database and of its login, which may make users, and databases whose name begins as this one's.
    pub(crate) async fn database(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("semel_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let quoted = name.replace('_', "\\_");
        self.as_superuser(&[
            &format!("CREATE USER {name} IDENTIFIED BY '{name}'"),
            &format!("CREATE DATABASE {name}"),
            &format!("GRANT ALL PRIVILEGES ON `{quoted}`.* TO {name} WITH GRANT OPTION"),
            &format!("GRANT ALL PRIVILEGES ON `{quoted}\\_%`.* TO {name} WITH GRANT OPTION"),
            &format!("GRANT CREATE USER, CONNECTION ADMIN, PROCESS ON *.* TO {name}"),
        ])
        .await;
        format!("mysql://{name}:{name}@127.0.0.1:{}/{name}", self.port)
    }

    /// A session of the superuser in a database.
    pub(crate) async fn superuser(&self, database: &str) -> MySqlConnection {
        let url = format!("mysql://root:root@127.0.0.1:{}/{database}", self.port);
        MySqlConnection::connect(&url).await.expect("the superuser's session")
    }

    /// Runs statements as the superuser.
    pub(crate) async fn as_superuser(&self, statements: &[&str]) {
        let mut superuser = self.superuser("mysql").await;
        for sql in statements {
            superuser.execute(AssertSqlSafe(*sql)).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        superuser.close().await.expect("an end");
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What the server has said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// SIGKILL to the server.
    pub(crate) fn kill(&self) {
        let server = self.server().expect("a server that is up");
        kill_process(server, Signal::KILL).expect("a server that is up");
        while !is_over(server) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Up again after it was killed.
    pub(crate) fn restart(&mut self) {
        let stdin = self.keeper.stdin.as_mut().expect("a pipe");
        stdin.write_all(b"start\n").expect("a keeper");
        self.until_up();
    }

    /// The server's process, while it takes connections.
    fn server(&self) -> Option<Pid> {
        let file = std::fs::read_to_string(self.folder.join("data/pid")).ok()?;
        let process = Pid::from_raw(file.trim().parse().ok()?)?;
        let ready = !is_over(process) && std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        ready.then_some(process)
    }

    fn until_up(&mut self) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.server().is_none() {
            let ended = self.keeper.try_wait().expect("a keeper");
            assert!(ended.is_none() && Instant::now() < end, "MariaDB does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait(); // It has nothing more to do.
    }
}

fn is_over(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('Z'))
}
