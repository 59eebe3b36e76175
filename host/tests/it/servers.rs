//! Servers of the tests' own, of whichever kind: for what several hosts do on one database, and for what they do when it is
//! gone.

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection, PgConnection};

use crate::cluster::Cluster;
use crate::harness::On;
use crate::mariadb::Mariadb;

/// Makes of each test that takes an [`On`] one for each database of a server.
macro_rules! on_every_server {
    ($($test:ident),+ $(,)?) => { $(
        mod $test {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                super::$test($crate::harness::On::Postgres).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn mariadb() {
                super::$test($crate::harness::On::Mariadb).await;
            }
        }
    )+ };
}
pub(crate) use on_every_server;

/// A running server. It ends when this is dropped.
pub(crate) enum Server {
    Postgres(Cluster),
    Mariadb(Mariadb),
}

impl Server {
    /// With these settings, by the names that it knows them by.
    pub(crate) fn start(on: On, settings: &[&str]) -> Self {
        match on {
            On::Sqlite => panic!("a file has no server"),
            On::Postgres => Self::Postgres(Cluster::start(settings)),
            On::Mariadb => Self::Mariadb(Mariadb::start(settings)),
        }
    }

    /// The URL of a new database.
    pub(crate) async fn database(&self) -> String {
        match self {
            Self::Postgres(server) => server.database().await,
            Self::Mariadb(server) => server.database().await,
        }
    }

    /// SIGKILL to all of it.
    pub(crate) fn kill(&self) {
        match self {
            Self::Postgres(server) => server.kill(),
            Self::Mariadb(server) => server.kill(),
        }
    }

    /// Up again after it was killed.
    pub(crate) fn restart(&mut self) {
        match self {
            Self::Postgres(server) => server.restart(),
            Self::Mariadb(server) => server.restart(),
        }
    }
}

/// A fresh database of the shared server.
pub(crate) async fn database(on: On) -> String {
    assert!(on.is_shared(), "a file has no server");
    on.fresh(std::path::Path::new("")).await
}

/// The name of a URL's database, which is that of its login as well.
pub(crate) fn name_of(url: &str) -> &str {
    url.rsplit('/').next().expect("a name")
}

/// A table of the app `app`, as the engine's login sees it.
pub(crate) fn of_app(url: &str, table: &str) -> String {
    if url.starts_with("postgres") { format!("app.{table}") } else { format!("`{}_app`.{table}", name_of(url)) }
}

/// The URL of a shared server's database for its superuser.
pub(crate) fn as_superuser(on: On, url: &str) -> String {
    match on {
        On::Sqlite => panic!("a file has no superuser"),
        On::Postgres => {
            format!("postgres://postgres:postgres@127.0.0.1:{}/{}", Cluster::shared().port(), name_of(url))
        }
        On::Mariadb => format!("mysql://root:root@127.0.0.1:{}/{}", Mariadb::shared().port(), name_of(url)),
    }
}

/// A transaction beside all hosts, which holds what a statement has locked until it ends.
pub(crate) enum Holder {
    Postgres(PgConnection),
    Mariadb(MySqlConnection),
}

impl Holder {
    pub(crate) async fn of(url: &str, sql: &str) -> Self {
        if url.starts_with("postgres") {
            let mut session = PgConnection::connect(url).await.expect("a session");
            session.execute("BEGIN").await.expect("a transaction");
            session.execute(AssertSqlSafe(sql)).await.expect(sql);
            return Self::Postgres(session);
        }
        let mut session = MySqlConnection::connect(url).await.expect("a session");
        session.execute("BEGIN").await.expect("a transaction");
        session.execute(AssertSqlSafe(sql)).await.expect(sql);
        Self::Mariadb(session)
    }

    pub(crate) async fn end(self) {
        match self {
            Self::Postgres(session) => session.close().await.expect("an end"),
            Self::Mariadb(session) => session.close().await.expect("an end"),
        }
    }
}
