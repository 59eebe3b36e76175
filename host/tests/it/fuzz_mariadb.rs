//! A fuzzer of the walls around guest SQL on MariaDB, where the gate is the only wall around the transaction. What somebody
//! else can tell of a statement that succeeded: it began as one over rows does, and a second session sees nothing of it.

use sqlx::{AssertSqlSafe, MySqlConnection};

use crate::fuzz_servers::{Dialect, Onlooker, fuzz};
use crate::harness::On;
use crate::mariadb::Mariadb;
use crate::servers::{name_of, of_app};
use crate::store::Bench;

const PLAIN: &[&str] = &[
    "SELECT 1",
    "SELECT * FROM scratch",
    "VALUES (1), (2)",
    "(SELECT 1) UNION ALL (SELECT 2)",
    "INSERT INTO scratch VALUES (1)",
    "INSERT INTO scratch SELECT seq FROM seq_1_to_3",
    "INSERT INTO scratch VALUES (4) RETURNING id",
    "REPLACE INTO scratch VALUES (5)",
    "UPDATE scratch SET id = id + 1",
    "DELETE FROM scratch WHERE id > 3",
    "WITH a AS (SELECT 1 AS id) SELECT * FROM a",
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT i FROM n",
    "SELECT count(*), max(id) FROM scratch GROUP BY id HAVING count(*) > 0 ORDER BY 2 LIMIT 3",
    "SELECT * FROM scratch FOR UPDATE",
    "SELECT CONCAT($1, ';')",
    "SELECT table_name FROM information_schema.tables LIMIT 3",
    "SELECT upper('a;b'), 'COMMIT;', \"it's\", '\\'; COMMIT', `id` FROM scratch",
    "SELECT 1 -- COMMIT",
    "SELECT 1 # COMMIT",
    "SELECT 1 /* COMMIT */ + 1",
];

const HOSTILE: &[&str] = &[
    "COMMIT",
    "COMMIT AND CHAIN",
    "COMMIT RELEASE",
    "ROLLBACK",
    "ROLLBACK AND CHAIN",
    "BEGIN",
    "BEGIN NOT ATOMIC COMMIT; END",
    "START TRANSACTION",
    "/*!COMMIT*/",
    "/*M!COMMIT*/",
    "/*!50000 COMMIT */",
    "SELECT 1 /*! INTO OUTFILE '/tmp/semel-fuzz' */",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "RELEASE SAVEPOINT s",
    "XA START 'x'",
    "XA COMMIT 'x'",
    "PREPARE p FROM 'COMMIT'",
    "EXECUTE IMMEDIATE 'COMMIT'",
    "EXECUTE p",
    "SET autocommit = 1",
    "SET STATEMENT max_statement_time = 0 FOR SELECT 1",
    "SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
    "SET ROLE NONE",
    "CALL ack('x', '[]')",
    "DO SLEEP(0)",
    "HANDLER scratch OPEN",
    "LOCK TABLES scratch WRITE",
    "UNLOCK TABLES",
    "FLUSH TABLES",
    "CREATE TABLE t (a int)",
    "CREATE TEMPORARY TABLE t (a int)",
    "CREATE OR REPLACE TABLE t (a int)",
    "ALTER TABLE scratch ADD COLUMN stolen int",
    "DROP TABLE scratch",
    "TRUNCATE scratch",
    "RENAME TABLE scratch TO t",
    "ANALYZE TABLE scratch",
    "ANALYZE DELETE FROM scratch",
    "OPTIMIZE TABLE scratch",
    "GRANT ALL ON *.* TO CURRENT_USER",
    "SET PASSWORD = PASSWORD('x')",
    "KILL CONNECTION_ID()",
    "SHOW PROCESSLIST",
    "EXPLAIN DELETE FROM scratch",
    "USE mysql",
    "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE scratch",
    "INSTALL SONAME 'x'",
    "SELECT 1; COMMIT",
    "SELECT 1 INTO @leak",
    "SELECT @leak := 1",
    "SELECT 1 INTO OUTFILE '/tmp/semel-fuzz'",
    "SELECT LOAD_FILE('/etc/passwd')",
    "SELECT * FROM mysql.user",
    "SELECT GET_LOCK('semel', 0)",
    "SELECT RELEASE_ALL_LOCKS()",
    "INSERT DELAYED INTO scratch VALUES (9)",
    "WITH a AS (SELECT 1) COMMIT",
    "VALUES (1); COMMIT",
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
    "-- ",
    "--\n",
    "-- x\n",
    "#",
    "# x\n",
    "/* */",
    "/*",
    "*/",
    "/*! COMMIT */",
    "/*!",
    "/*M!",
    "/*+ SET_VAR(autocommit = 1) */",
    "'",
    "\"",
    "`",
    "\\",
    "\\'",
    "''",
    "DELIMITER //",
    "COMMIT",
    "SELECT",
    "WITH",
    "AS",
    "ALL",
    "@a",
    "@@autocommit",
    ":=",
    "?",
    "$1",
    "$2",
    "a$1",
    ",",
];

const FIRST_WORDS: &[&str] = &["SELECT", "WITH", "VALUES", "INSERT", "UPDATE", "DELETE", "REPLACE"];

/// A superuser, and where the app's table is.
struct Outside {
    session: MySqlConnection,
    look: String,
}

impl Onlooker for Outside {
    async fn visible(&mut self) -> (i64, i64, i64) {
        sqlx::query_as(AssertSqlSafe(self.look.as_str())).fetch_one(&mut self.session).await.expect("a look")
    }

    /// Once the comments in front are gone, which the host takes away as well.
    async fn is_over_rows(&mut self, text: &str) -> bool {
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}' || c == '(');
            let end = match rest {
                line if line.starts_with("--") || line.starts_with('#') => line.find('\n'),
                block if block.starts_with("/*") && !block.starts_with("/*!") && !block.starts_with("/*M!") => {
                    block.find("*/").map(|end| end + 1)
                }
                _ => break,
            };
            let Some(end) = end else { return false };
            rest = &rest[end + 1..];
        }
        FIRST_WORDS.iter().any(|word| rest.get(..word.len()).is_some_and(|first| first.eq_ignore_ascii_case(word)))
    }
}

#[tokio::test]
async fn no_statement_gets_out_of_mariadb() {
    let bench = Bench::new(On::Mariadb).await;
    let (scratch, name) = (of_app(bench.url(), "scratch"), name_of(bench.url()).to_owned());
    let look = format!(
        "SELECT (SELECT count(*) FROM {scratch}), (SELECT count(*) FROM history),
                (SELECT count(*) FROM information_schema.tables WHERE table_schema = '{name}_app' AND table_name <> 'scratch')
                + (SELECT count(*) FROM information_schema.columns WHERE table_schema = '{name}_app' AND column_name = 'stolen')"
    );
    let outside = Outside { session: Mariadb::shared().superuser(&name).await, look };
    let dialect = Dialect { plain: PLAIN, hostile: HOSTILE, pieces: PIECES, parameter: "CONCAT($1" };
    fuzz("MariaDB", "SEMEL_FUZZ_STATEMENTS_MARIADB", bench, dialect, outside).await;
}
