//! The frame of the break-out suites: a host with `sqlshell` in it, secrets, and somebody who looks on from outside.
//!
//! Each vector is one message: a row is written, then the attack, then another row, and errors are swallowed. All the while
//! a second connection reads the database: at no time are there rows without the acknowledgement that belongs to them. No
//! answer and no reason of a refusal holds anything of the engine's tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, MySqlConnection, PgConnection};
use tokio::task::JoinHandle;

use crate::harness::{Function, On, Semel, Start, built};
use crate::servers::of_app;

/// How the run of a vector must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The statement was not let through.
    Forbidden,
    /// The transaction could not be saved.
    Doomed,
    /// The database refused the statement, and that failed the run.
    Failed,
    /// The deadline ended it.
    TimedOut,
    /// It did no harm: the run completed.
    Completed,
}

impl End {
    fn outcome(self) -> &'static str {
        match self {
            Self::Forbidden => "sql-forbidden",
            Self::Doomed => "doomed",
            Self::Failed => "failed",
            Self::TimedOut => "timed-out",
            Self::Completed => "completed",
        }
    }
}

pub(crate) struct Prison {
    pub(crate) semel: Semel,
    secrets: Vec<String>,
    done: Arc<AtomicBool>,
    watch: Option<JoinHandle<u32>>,
}

impl Prison {
    /// A host in which `sqlshell` and `hasty`, the same with little time, have these tables beside `scratch`.
    pub(crate) async fn start(start: Start<'_>, tables: &str) -> Self {
        let on = start.on;
        let semel = Semel::start_as(start, &[]).await;
        semel.deploy(once(built("sqlshell")).migration("0002_tables.sql", tables)).await;
        let hasty = once(built("sqlshell")).with(r#"timeout = "5s""#, r#"timeout = "300ms""#);
        semel.deploy(hasty.named("hasty").with("name = \"sqlshell\"", "name = \"hasty\"")).await;
        let other = json!({ "statements": [{ "sql": "SELECT $1", "params": ["body-of-another"] }] }).to_string();
        let id = semel.post("/fn/hasty", other).key("key-of-another").wait(60).send().await.id();
        let secret: String = semel
            .in_store(match on {
                On::Sqlite => "SELECT lower(hex(secret)) FROM semel_store",
                On::Postgres => "SELECT encode(secret, 'hex') FROM semel_store",
                On::Mariadb => "SELECT LOWER(HEX(secret)) FROM semel_store",
            })
            .await;
        let secrets = vec![secret, id, "body-of-another".into(), "key-of-another".into(), "CREATE TABLE semel_".into()];
        let done = Arc::new(AtomicBool::new(false));
        let watch = match on {
            On::Sqlite => {
                let file = SqliteConnectOptions::new().filename(semel.folder().join("test.db")).read_only(true);
                tokio::spawn(look_at_file(file, Arc::clone(&done)))
            }
            On::Postgres => tokio::spawn(look_at_postgres(semel.database().to_owned(), Arc::clone(&done))),
            On::Mariadb => tokio::spawn(look_at_mariadb(semel.database().to_owned(), Arc::clone(&done))),
        };
        Self { semel, secrets, done, watch: Some(watch) }
    }

    /// Runs the statements between two that write a row, and checks how that ends. Returns what was said.
    pub(crate) async fn run(&self, function: &str, name: &str, statements: &[Value], end: End) -> String {
        let (outcomes, told) = self.attempt(function, statements).await;
        assert_eq!(outcomes, [end.outcome()], "{name}: {statements:?}: {told}");
        told
    }

    /// The same where more than one end is harmless: returns how it ended, and what was said.
    pub(crate) async fn attempt(&self, function: &str, statements: &[Value]) -> (Vec<String>, String) {
        let row = json!({ "sql": "INSERT INTO scratch (value) VALUES (NULL)" });
        let script = [std::slice::from_ref(&row), statements, std::slice::from_ref(&row)].concat();
        let body = json!({ "statements": script, "swallow": true }).to_string();
        let answer = self.semel.call(function, &body).await;
        let id = answer.id();
        let outcomes = self.semel.outcomes(&id).await;
        let reason = self.semel.message(&id).await["last_error"].take();
        let told = format!("{} {reason}", answer.text());
        for secret in &self.secrets {
            let found = told.to_lowercase().contains(&secret.to_lowercase());
            assert!(!found, "{statements:?}: {secret} in {told}");
        }
        (outcomes, told)
    }

    /// One statement each.
    pub(crate) async fn each(&self, name: &str, end: End, statements: &[&str]) {
        for sql in statements {
            self.run("sqlshell", name, &[json!({ "sql": sql })], end).await;
        }
    }

    /// What was seen from outside.
    pub(crate) async fn end(mut self) {
        self.done.store(true, Ordering::SeqCst);
        let watch = self.watch.take().expect("a watch");
        let looks = watch.await.expect("nothing visible without its acknowledgement");
        assert!(looks > 3, "the second connection looked only {looks} times");
    }
}

impl Drop for Prison {
    fn drop(&mut self) {
        assert!(self.watch.is_none() || std::thread::panicking(), "nobody asked what was seen from outside");
    }
}

/// With one attempt for each message.
pub(crate) fn once(function: Function) -> Function {
    function.with("max_attempts = 2", "max_attempts = 1")
}

async fn look_at_file(file: SqliteConnectOptions, done: Arc<AtomicBool>) -> u32 {
    const LOOK: &str =
        "SELECT (SELECT count(*) FROM scratch), (SELECT count(*) FROM semel_history WHERE state = 'completed')";
    let mut file = file.connect().await.expect("the file");
    let mut looks = 0;
    while !done.load(Ordering::SeqCst) {
        balanced(sqlx::query_as(LOOK).fetch_one(&mut file).await.expect("a look"));
        looks += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    looks
}

async fn look_at_postgres(url: String, done: Arc<AtomicBool>) -> u32 {
    const LOOK: &str =
        "SELECT (SELECT count(*) FROM app.scratch), (SELECT count(*) FROM semel.history WHERE state = 'completed')";
    let mut server = PgConnection::connect(&url).await.expect("a session");
    let mut looks = 0;
    while !done.load(Ordering::SeqCst) {
        balanced(sqlx::query_as(LOOK).fetch_one(&mut server).await.expect("a look"));
        looks += 1;
        tokio::time::sleep(Duration::from_millis(5)).await; // The looks are the server's work as well.
    }
    looks
}

async fn look_at_mariadb(url: String, done: Arc<AtomicBool>) -> u32 {
    let look = format!(
        "SELECT (SELECT count(*) FROM {}), (SELECT count(*) FROM history WHERE state = 'completed')",
        of_app(&url, "scratch")
    );
    let mut server = MySqlConnection::connect(&url).await.expect("a session");
    let mut looks = 0;
    while !done.load(Ordering::SeqCst) {
        let seen = sqlx::query_as(AssertSqlSafe(look.as_str())).fetch_one(&mut server).await;
        balanced(seen.expect("a look"));
        looks += 1;
        tokio::time::sleep(Duration::from_millis(5)).await; // The looks are the server's work as well.
    }
    looks
}

/// In one snapshot: two rows for each completed message of the functions, but for the one that writes none.
fn balanced((rows, completed): (i64, i64)) {
    assert_eq!(rows, 2 * (completed - 1), "rows are visible without their acknowledgement");
}
