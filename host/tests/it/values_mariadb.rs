//! Values on MariaDB: what each type comes back as, and that it goes in again as it came out. A table; where a row has one
//! value, it is both.

use std::time::{Duration, Instant};

use semel::store::{Bounds, Deployment, Rows, Session, SqlError, Value};

use crate::harness::On;
use crate::store::{Bench, deployment, lane};

/// A transaction of a guest whose app has a table with a column `c0`, `c1`, … of each type.
struct Guest {
    session: Box<dyn Session>,
    _bench: Bench,
}

impl Guest {
    async fn start() -> Self {
        let columns: Vec<String> =
            table().iter().enumerate().map(|(n, (of, _, _))| format!("c{n} {of} NULL")).collect();
        let types = format!("CREATE TABLE types ({}) ROW_FORMAT = DYNAMIC", columns.join(", "));
        let bench = Bench::open(On::Mariadb).await;
        let migrations = vec![("0001_types.sql".into(), types)];
        bench.store.deploy(Deployment { migrations, ..deployment("f") }).await.expect("a deploy");
        bench.enqueue("one").await;
        let claim = bench.claim_one(lane()).await;
        let mut session = bench.store.session();
        session.enter(&claim);
        Self { session, _bench: bench }
    }

    async fn query(&mut self, sql: &str, params: Vec<Value>) -> Result<Rows, SqlError> {
        let bounds = Bounds { rows: 2000, bytes: 1 << 20, deadline: Instant::now() + Duration::from_secs(20) };
        self.session.query(sql.into(), params, bounds).await
    }

    async fn one(&mut self, sql: &str, params: Vec<Value>) -> Result<Value, SqlError> {
        Ok(self.query(sql, params).await?.rows.remove(0).remove(0))
    }

    /// What a column gives back of what is put into it.
    async fn through(&mut self, column: usize, place: &str, params: Vec<Value>) -> Result<Value, SqlError> {
        self.query(&format!("INSERT INTO types (c{column}) VALUES ({place})"), params).await?;
        let came = self.one(&format!("SELECT c{column} FROM types"), vec![]).await;
        self.query("DELETE FROM types", vec![]).await?;
        came
    }
}

fn other(type_name: &str, text: &str) -> Value {
    Value::Other { type_name: type_name.into(), text: text.into() }
}

fn decimal(text: &str) -> Value {
    Value::Decimal(text.into())
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

/// A type, a literal of it, and what that is to a guest.
fn table() -> Vec<(&'static str, &'static str, Value)> {
    let microsecond = 1_000_000;
    let digits = "123456789012345678901234567890.000000000000000000000123456789";
    let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    vec![
        ("BOOLEAN", "TRUE", Value::Boolean(true)),
        ("TINYINT(1)", "-7", Value::Int32(-7)),
        ("TINYINT", "-128", Value::Int32(-128)),
        ("TINYINT UNSIGNED", "255", Value::Int32(255)),
        ("SMALLINT", "-32768", Value::Int32(-32768)),
        ("SMALLINT UNSIGNED", "65535", Value::Int32(65535)),
        ("MEDIUMINT", "-8388608", Value::Int32(-8_388_608)),
        ("MEDIUMINT UNSIGNED", "16777215", Value::Int32(16_777_215)),
        ("INT", "-2147483648", Value::Int32(i32::MIN)),
        ("INT UNSIGNED", "4294967295", Value::Int64(4_294_967_295)),
        ("BIGINT", "-9223372036854775808", Value::Int64(i64::MIN)),
        ("BIGINT UNSIGNED", "9223372036854775807", Value::Int64(i64::MAX)),
        ("BIGINT UNSIGNED", "18446744073709551615", decimal("18446744073709551615")),
        ("YEAR", "2026", Value::Int32(2026)),
        ("FLOAT", "1.5", Value::Float64(1.5)),
        ("DOUBLE", "0.1", Value::Float64(0.1)),
        ("DOUBLE", "-1.7976931348623157e308", Value::Float64(f64::MIN)),
        ("DECIMAL(10, 2)", "-0.50", decimal("-0.50")),
        ("DECIMAL(65, 30)", digits, decimal("123456789012345678901234567890.000000000000000000000123456789")),
        ("CHAR(5)", "'a'", text("a")),
        ("VARCHAR(20)", "'é😀 '", text("é😀 ")),
        ("VARCHAR(20) COLLATE utf8mb4_bin", "'É'", text("É")),
        ("TEXT", "'it''s \\\\ \\n'", text("it's \\ \n")),
        ("LONGTEXT", "''", text("")),
        ("ENUM('sad', 'so-so')", "'so-so'", text("so-so")),
        ("SET('a', 'b', 'c')", "'c,a'", text("a,c")),
        ("JSON", "'{\"b\" : 1}'", text("{\"b\" : 1}")),
        ("UUID", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", text(uuid)),
        ("INET6", "'::1'", text("::1")),
        ("BINARY(3)", "X'00FF80'", Value::Bytes(vec![0, 0xff, 0x80])),
        ("VARBINARY(20)", "X'00FF80'", Value::Bytes(vec![0, 0xff, 0x80])),
        ("BLOB", "''", Value::Bytes(vec![])),
        ("LONGBLOB", "X'C3'", Value::Bytes(vec![0xc3])),
        ("BIT(3)", "b'101'", Value::Int64(5)),
        ("BIT(64)", "b'1000000000'", Value::Int64(512)),
        ("DATE", "'1970-01-02'", Value::Date(1)),
        ("DATE", "'9999-12-31'", Value::Date(2_932_896)),
        ("DATE", "'0000-00-00'", other("date", "0000-00-00")),
        ("DATE", "'2026-02-00'", other("date", "2026-02-00")),
        ("TIME", "'00:00:00'", Value::Time(0)),
        ("TIME(6)", "'23:59:59.999999'", Value::Time(86_400 * microsecond - 1)),
        ("TIME", "'-838:59:59'", Value::Time(-3_020_399 * microsecond)),
        ("DATETIME", "'1970-01-01 00:00:02'", Value::Timestamp(2 * microsecond)),
        ("DATETIME(6)", "'1969-12-31 23:59:59.999999'", Value::Timestamp(-1)),
        ("DATETIME(6)", "'9999-12-31 23:59:59.999999'", Value::Timestamp(253_402_300_799_999_999)),
        ("DATETIME", "'0000-00-00 00:00:00'", other("datetime", "0000-00-00 00:00:00.000000")),
        ("TIMESTAMP(6)", "'2026-01-01 00:00:00.5'", Value::Timestamptz(1_767_225_600_500_000)),
        ("POINT", "POINT(1, 2)", other("geometry", "000000000101000000000000000000f03f0000000000000040")),
    ]
}

#[tokio::test]
async fn each_type_of_mariadb_comes_back_as_what_it_is_and_goes_in_again() {
    let mut guest = Guest::start().await;
    let mut wrong = Vec::new();
    for (column, (of, literal, expected)) in table().into_iter().enumerate() {
        let came = guest.through(column, literal, vec![]).await;
        if came.as_ref() != Ok(&expected) {
            wrong.push(format!("{of} {literal} came out as {came:?}, not as {expected:?}"));
        }
        let back = guest.through(column, "$1", vec![expected.clone()]).await;
        if back.as_ref() != Ok(&expected) {
            wrong.push(format!("{expected:?} went into {of} as {back:?}"));
        }
        let null = guest.through(column, "$1", vec![Value::Null]).await;
        if null != Ok(Value::Null) {
            wrong.push(format!("NULL went into {of} as {null:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_parameter_of_mariadb_is_as_exact_as_it_was_given() {
    let mut guest = Guest::start().await;
    let large = "12345678901234567890123456789012345.1";
    for (sql, value, expected) in [
        ("SELECT $1 = 12345678901234567890123456789012345.1", decimal(large), Value::Int32(1)),
        ("SELECT $1 = 12345678901234567890123456789012345.2", decimal(large), Value::Int32(0)),
        ("SELECT $1 + 0.1", decimal(large), decimal("12345678901234567890123456789012345.2")),
        ("SELECT $1 = 9007199254740993", Value::Int64(9_007_199_254_740_993), Value::Int32(1)),
        ("SELECT $1 = 9007199254740992", Value::Int64(9_007_199_254_740_993), Value::Int32(0)),
        ("SELECT DATE_ADD($1, INTERVAL 1 DAY) = '1970-01-03'", Value::Date(1), Value::Int32(1)),
        ("SELECT UNIX_TIMESTAMP($1)", Value::Timestamptz(1_500_000), decimal("1.500000")),
        ("SELECT HEX($1)", Value::Bytes(vec![0, 0xff]), text("00FF")),
        ("SELECT JSON_VALUE($1, '$.a')", Value::Json("{\"a\": \"b\"}".into()), text("b")),
        (
            "SELECT CAST($1 AS UUID)",
            Value::Uuid("A0EEBC999C0B4EF8BB6D6BB9BD380A11".into()),
            text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ),
        ("SELECT $1 IS NULL", Value::Null, Value::Int32(1)),
        ("SELECT $1 AND TRUE", Value::Boolean(true), Value::Int32(1)),
        ("SELECT CONCAT($1, $1)", text("é😀"), text("é😀é😀")),
    ] {
        assert_eq!(guest.one(sql, vec![value.clone()]).await, Ok(expected), "{sql} with {value:?}");
    }
}

/// What cannot be is the guest's error, says which parameter, and leaves the transaction as it was.
#[tokio::test]
async fn a_parameter_that_mariadb_has_no_type_for_is_refused_and_nothing_is_lost() {
    let mut guest = Guest::start().await;
    let interval = Value::Interval { months: 0, days: 1, micros: 0 };
    for (value, why) in [
        (Value::Int64Array(vec![Some(1)]), "JSON"),
        (Value::Float64Array(vec![]), "JSON"),
        (Value::TextArray(vec![None]), "JSON"),
        (interval, "interval"),
        (Value::Float64(f64::NAN), "NaN"),
        (Value::Float64(f64::INFINITY), "NaN"),
        (decimal("NaN"), "decimal"),
        (decimal(&"9".repeat(66)), "digits"),
        (text("a\0b"), "NUL"),
        (Value::Uuid("nobody".into()), "UUID"),
        (Value::Date(i32::MAX), "range"),
        (Value::Timestamp(i64::MIN), "range"),
        (Value::Time(i64::MAX), "838"),
        (other("geometry", "xyz"), "hexadecimal"),
    ] {
        let refused = guest.query("SELECT $1", vec![value.clone()]).await;
        let Err(SqlError::Parameter(said)) = &refused else { panic!("{value:?}: {refused:?}") };
        assert!(said.contains("$1") && said.contains(why), "{value:?}: {said}");
        assert_eq!(guest.one("SELECT 1", vec![]).await, Ok(Value::Int32(1)), "after {value:?}");
    }
    for (sql, params) in [("SELECT 1", vec![Value::Null]), ("SELECT $2", vec![Value::Null]), ("SELECT $1", vec![])] {
        let refused = guest.query(sql, params.clone()).await;
        assert!(matches!(refused, Err(SqlError::Parameter(_))), "{sql} with {params:?}: {refused:?}");
    }
    // One that is named a thousand times is sent a thousand times.
    let many = vec!["$1"; 10_000].join(", ");
    let refused = guest.query(&format!("SELECT {many}"), vec![text(&"x".repeat(10_000))]).await;
    assert!(matches!(refused, Err(SqlError::Parameter(_))), "{refused:?}");
}

/// The names of types are the server's, also where texts are compared byte by byte.
#[tokio::test]
async fn columns_of_mariadb_have_the_servers_names_of_types() {
    let mut guest = Guest::start().await;
    let names = async |guest: &mut Guest, sql: &str| {
        let columns = guest.query(sql, vec![]).await.expect("columns").columns;
        columns.into_iter().map(|column| format!("{} {}", column.name, column.type_name)).collect::<Vec<_>>().join(", ")
    };
    let column = |of: &str| table().iter().position(|(name, _, _)| *name == of).expect("a type");
    let (bin, binary) = (column("VARCHAR(20) COLLATE utf8mb4_bin"), column("VARBINARY(20)"));
    let found = names(&mut guest, &format!("SELECT c{bin} AS a, c{binary} AS b, 1 AS c FROM types")).await;
    assert_eq!(found, "a varchar, b varbinary, c int");
    assert_eq!(
        names(&mut guest, "SELECT 1 AS n, 'a' AS t, NULL AS z, 1.5 AS d").await,
        "n int, t varchar, z null, d decimal"
    );
}
