//! A fuzzer of the walls around guest SQL on Postgres. What somebody else can tell of a statement that succeeded: the
//! server's own grammar lets PREPARE take statements over rows and nothing else.

use sqlx::{AssertSqlSafe, PgConnection};

use crate::cluster::Cluster;
use crate::fuzz_servers::{Dialect, Onlooker, fuzz};
use crate::harness::On;
use crate::store::Bench;

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

/// A superuser.
struct Outside(PgConnection);

impl Onlooker for Outside {
    async fn visible(&mut self) -> (i64, i64, i64) {
        let look = "SELECT (SELECT count(*) FROM app.scratch), (SELECT count(*) FROM semel.history), \
                    (SELECT count(*) FROM pg_class WHERE relname = 't')";
        sqlx::query_as(look).fetch_one(&mut self.0).await.expect("a look")
    }

    /// By the server's grammar: PREPARE takes statements over rows and nothing else.
    async fn is_over_rows(&mut self, text: &str) -> bool {
        let prepare = AssertSqlSafe(format!("PREPARE judge AS {text}"));
        match sqlx::query(prepare).persistent(false).execute(&mut self.0).await {
            Ok(_) => sqlx::query("DEALLOCATE judge").persistent(false).execute(&mut self.0).await.is_ok(),
            Err(error) => error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code != "42601"),
        }
    }
}

#[tokio::test]
async fn no_statement_gets_out_of_postgres() {
    let bench = Bench::new(On::Postgres).await;
    let name = bench.url().rsplit('/').next().expect("a name").to_owned();
    let outside = Outside(Cluster::shared().superuser(&name).await);
    let dialect = Dialect { plain: PLAIN, hostile: HOSTILE, pieces: PIECES, parameter: "$1::text" };
    fuzz("Postgres", "SEMEL_FUZZ_STATEMENTS_POSTGRES", bench, dialect, outside).await;
}
