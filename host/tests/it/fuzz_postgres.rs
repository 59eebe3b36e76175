//! A fuzzer of the walls around guest SQL on Postgres: plain and hostile statements and mutants of both, each run as a
//! guest's through a session of the store. After each:
//!
//! - another session sees what it saw before: nothing is visible without its acknowledgement;
//! - a statement that succeeded is one over rows, by the server's own grammar, which lets PREPARE take nothing else.
//!
//! `SEMEL_FUZZ_SEED` and `SEMEL_FUZZ_STATEMENTS` choose what is run; `make fuzz-sql` runs many.

use std::io::Write as _;
use std::time::{Duration, Instant};

use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use semel::message::Usage;
use semel::store::{Bounds, Commit, Savepoint, SqlError, Value};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::cluster::Cluster;
use crate::harness::On;
use crate::store::{Bench, lane};

/// Statements of one transaction.
const RUN: usize = 20;
/// Of the statements made, so many in a hundred must execute: what is only refused proves little.
const EXECUTED: usize = 30;

const PLAIN: &[&str] = &[
    "SELECT 1",
    "SELECT * FROM scratch",
    "TABLE scratch",
    "VALUES (1), (2)",
    "(SELECT 1) UNION ALL (SELECT 2)",
    "INSERT INTO scratch VALUES (1)",
    "INSERT INTO scratch SELECT generate_series(1, 3) RETURNING id",
    "UPDATE scratch SET id = id + 1",
    "DELETE FROM scratch WHERE id > 3",
    "WITH a AS (SELECT 1 AS id) SELECT * FROM a",
    "WITH a AS (INSERT INTO scratch VALUES (7) RETURNING id) SELECT id FROM a",
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT i FROM n",
    "MERGE INTO scratch s USING (VALUES (1)) AS v (id) ON s.id = v.id WHEN NOT MATCHED THEN INSERT VALUES (v.id)",
    "SELECT count(*), max(id) FROM scratch GROUP BY id HAVING count(*) > 0 ORDER BY 2 LIMIT 3",
    "SELECT * FROM scratch FOR UPDATE",
    "SELECT $1::text",
    "SELECT relname FROM pg_class LIMIT 3",
    "SELECT upper('a;b'), $$COMMIT;$$, E'\\'; COMMIT', \"id\" FROM scratch",
];

const HOSTILE: &[&str] = &[
    "COMMIT",
    "END",
    "COMMIT AND CHAIN",
    "ROLLBACK",
    "ABORT",
    "ROLLBACK AND CHAIN",
    "BEGIN",
    "START TRANSACTION",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "RELEASE semel_0",
    "PREPARE TRANSACTION 'x'",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE ALL",
    "DISCARD ALL",
    "SET ROLE NONE",
    "RESET ALL",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "SET LOCAL synchronous_commit = off",
    "DO $$ BEGIN COMMIT; END $$",
    "CALL p()",
    "COPY scratch TO STDOUT",
    "LISTEN a",
    "NOTIFY a",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "LOCK TABLE scratch",
    "CREATE TABLE t (a int)",
    "CREATE TEMP TABLE t AS SELECT 1",
    "DROP TABLE scratch",
    "TRUNCATE scratch",
    "ALTER ROLE CURRENT_USER PASSWORD 'x'",
    "ALTER TABLE semel.guard DISABLE TRIGGER ALL",
    "GRANT ALL ON scratch TO PUBLIC",
    "EXPLAIN ANALYZE DELETE FROM scratch",
    "VACUUM",
    "SELECT 1; COMMIT",
    "SELECT 1 AS a INTO t",
    "SELECT * FROM semel.queue",
    "DELETE FROM semel.guard",
    "UPDATE semel.queue SET state = 'available'",
    "SELECT set_config('synchronous_commit', 'off', false)",
    "SELECT set_config('role', 'none', true)",
    "SELECT set_config('client_encoding', 'SJIS', false)",
    "SELECT set_config('standard_conforming_strings', 'off', false)",
    "SELECT set_config('backslash_quote', 'on', false)",
    "SELECT query_to_xml('commit', true, false, '')",
    "SELECT query_to_xml('delete from semel.guard', true, false, '')",
    "SELECT * FROM ts_stat('select ''''::tsvector')",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT pg_notify('semel', '')",
    "SELECT lo_from_bytea(0, '\\x00')",
    "SELECT semel_api.ack('{1}', '{1}', '\\x00', '{f}', '{x}', '{x}', '{x}', '{0}', '{0}', '{0}', '{0}', '{0}', '{0}', '{x}', '{0}')",
    "UPDATE pg_settings SET setting = 'off' WHERE name = 'synchronous_commit'",
];

/// What is put between, before or after words.
const PIECES: &[&str] = &[
    " ",
    "\t",
    "\n",
    "\r\n",
    "\u{b}",
    "\u{c}",
    "\u{a0}",
    "\u{2003}",
    "\u{feff}",
    "\0",
    ";",
    ";;",
    "(",
    ")",
    "--",
    "--\n",
    "-- x\n",
    "/* */",
    "/*",
    "*/",
    "/* /* */ */",
    "/*! COMMIT */",
    "'",
    "\"",
    "$$",
    "$a$",
    "E'\\'",
    "U&'",
    "\\",
    "COMMIT",
    "SELECT",
    "WITH",
    "AS",
    "ALL",
    "::",
    "$1",
    "$2",
    ",",
];

struct Grammar(ChaCha8Rng);

impl Grammar {
    fn pick(&mut self, list: &'static [&'static str]) -> &'static str {
        list.choose(&mut self.0).copied().unwrap_or_default()
    }

    fn statement(&mut self) -> String {
        match self.0.random_range(0..100) {
            0..45 => self.pick(PLAIN).to_owned(),
            45..65 => self.pick(HOSTILE).to_owned(),
            _ => {
                let mut text = if self.0.random() { self.pick(PLAIN) } else { self.pick(HOSTILE) }.to_owned();
                for _ in 0..self.0.random_range(1..4) {
                    text = self.mutant(&text);
                }
                text
            }
        }
    }

    fn mutant(&mut self, text: &str) -> String {
        let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let (one, two) = (self.0.random_range(0..words.len()), self.0.random_range(0..words.len()));
        match self.0.random_range(0..9) {
            0 => words.swap(one, two),
            1 => words[one].push_str(PIECES.choose(&mut self.0).copied().unwrap_or_default()),
            2 => words.insert(one, self.pick(PIECES).to_owned()),
            3 => return format!("{}{text}", self.pick(PIECES)),
            4 => return format!("{text}{}{}", self.pick(PIECES), self.pick(HOSTILE)),
            5 => return format!("WITH x AS ({text}) SELECT 1"),
            6 => return format!("({text})"),
            7 => return format!("SELECT * FROM ({text}) AS x"),
            _ => {
                words[one] =
                    words[one].chars().map(|c| if self.0.random() { c.to_ascii_lowercase() } else { c }).collect()
            }
        }
        words.join(" ")
    }
}

#[derive(Debug, Default)]
struct Report {
    tried: usize,
    executed: usize,
    forbidden: usize,
    refused: usize,
    doomed: usize,
    committed: usize,
}

struct Fuzzer {
    bench: Bench,
    grammar: Grammar,
    /// Somebody who looks on, and who says what kind of statement a text is.
    outside: PgConnection,
    report: Report,
}

impl Fuzzer {
    async fn visible(&mut self) -> (i64, i64, i64) {
        let look = "SELECT (SELECT count(*) FROM app.scratch), (SELECT count(*) FROM semel.history), \
                    (SELECT count(*) FROM pg_class WHERE relname = 't')";
        sqlx::query_as(look).fetch_one(&mut self.outside).await.expect("a look")
    }

    /// By the server's grammar: PREPARE takes statements over rows and nothing else.
    async fn is_over_rows(&mut self, text: &str) -> bool {
        let prepare = AssertSqlSafe(format!("PREPARE judge AS {text}"));
        match sqlx::query(prepare).persistent(false).execute(&mut self.outside).await {
            Ok(_) => sqlx::query("DEALLOCATE judge").persistent(false).execute(&mut self.outside).await.is_ok(),
            Err(error) => error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code != "42601"),
        }
    }

    async fn transaction(&mut self) -> Result<(), (String, Vec<String>)> {
        let before = self.visible().await;
        let id = self.bench.enqueue(&self.report.tried.to_string()).await;
        let claim = self.bench.claim_one(lane()).await;
        let mut session = self.bench.store.session();
        session.enter(&claim);
        let mut said = Vec::new();
        for _ in 0..RUN {
            let text = self.grammar.statement();
            said.push(text.clone());
            self.report.tried += 1;
            if session.savepoint(Savepoint::Set("s".into())).await.is_err() {
                break;
            }
            let params = if text.contains("$1::text") { vec![Value::Text("x".into())] } else { vec![] };
            let bounds = Bounds { rows: 1000, bytes: 1 << 20, deadline: Instant::now() + Duration::from_secs(2) };
            let done = session.query(text.clone(), params, bounds).await;
            if self.visible().await != before {
                return Err(("it is visible".into(), said));
            }
            match done {
                Ok(_) if !self.is_over_rows(&text).await => return Err(("it is no statement over rows".into(), said)),
                Ok(_) => self.report.executed += 1,
                Err(SqlError::Forbidden(_)) => self.report.forbidden += 1,
                Err(SqlError::Doomed(_) | SqlError::Deadline) => {
                    self.report.doomed += 1;
                    break;
                }
                Err(_) => {
                    self.report.refused += 1;
                    if session.savepoint(Savepoint::RollbackTo("s".into())).await.is_err() {
                        break;
                    }
                }
            }
        }
        if self.grammar.0.random_range(0..3) > 0 {
            session.rollback().await;
            return if self.visible().await == before { Ok(()) } else { Err(("after a rollback".into(), said)) };
        }
        session.leave(None, Usage::default());
        let commit = session.commit().await;
        let completed = self.bench.state(&id).await == semel::message::State::Completed;
        self.report.committed += usize::from(completed);
        let changed = self.visible().await != before;
        if (commit == Commit::Committed) != completed || changed != completed {
            return Err((format!("after {commit:?}, completed is {completed} and changed {changed}"), said));
        }
        Ok(())
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[tokio::test]
async fn no_statement_gets_out_of_postgres() {
    let seed = number("SEMEL_FUZZ_SEED", 1);
    let statements = usize::try_from(number("SEMEL_FUZZ_STATEMENTS_POSTGRES", 2_000)).expect("a number of statements");
    let bench = Bench::new(On::Postgres).await;
    let name = bench.url().rsplit('/').next().expect("a name").to_owned();
    let outside = Cluster::shared().superuser(&name).await;
    let mut fuzzer =
        Fuzzer { bench, grammar: Grammar(ChaCha8Rng::seed_from_u64(seed)), outside, report: Report::default() };
    let began = Instant::now();
    while fuzzer.report.tried < statements {
        if let Err((escape, said)) = fuzzer.transaction().await {
            panic!("SEMEL_FUZZ_SEED={seed}: {escape} after {said:#?}");
        }
    }
    let Report { tried, executed, committed, .. } = fuzzer.report;
    let line = format!("fuzz: Postgres, SEMEL_FUZZ_SEED={seed}: in {:.1?} {:?}\n", began.elapsed(), fuzzer.report);
    std::io::stderr().write_all(line.as_bytes()).expect("standard error");
    assert!(executed * 100 >= tried * EXECUTED, "too few statements executed to prove anything");
    assert!(committed > 0, "nothing was ever committed");
}
