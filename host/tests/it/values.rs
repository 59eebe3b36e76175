//! Values on Postgres: what each type comes back as, and that it goes in again as it came out. A table; where a row has one
//! value, it is both.

use std::time::{Duration, Instant};

use semel::message::{State, Usage};
use semel::store::{Bounds, Deployment, Failure, Rows, Session, SqlError, Value};

use crate::harness::On;
use crate::store::{Bench, deployment, lane};

const TYPES: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'so-so', 'happy');
    CREATE DOMAIN percent AS integer CHECK (VALUE BETWEEN 0 AND 100);
    CREATE DOMAIN price AS numeric(20, 4);
    CREATE TYPE pair AS (a integer, b text);
    CREATE TYPE span AS RANGE (SUBTYPE = float8);
    CREATE TYPE \"Odd Name\" AS ENUM ('x');";

/// A transaction of a guest whose app has these types.
struct Guest {
    session: Box<dyn Session>,
    _bench: Bench,
}

impl Guest {
    async fn start() -> Self {
        Self::start_with(TYPES).await
    }

    async fn start_with(types: &str) -> Self {
        let bench = Bench::open(On::Postgres).await;
        let migrations = vec![("0001_types.sql".into(), types.into())];
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

    async fn one(&mut self, sql: &str, params: Vec<Value>) -> Value {
        let rows = self.query(sql, params).await;
        let mut rows = rows.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        rows.rows.remove(0).remove(0)
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
    let uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    let digits = "123456789012345678901234567890.000000000000000000000123456789";
    vec![
        ("boolean", "true", Value::Boolean(true)),
        ("smallint", "-32768", Value::Int32(-32768)),
        ("integer", "2147483647", Value::Int32(i32::MAX)),
        ("bigint", "-9223372036854775808", Value::Int64(i64::MIN)),
        ("real", "1.5", Value::Float64(1.5)),
        ("double precision", "0.1", Value::Float64(0.1)),
        ("double precision", "-0", Value::Float64(-0.0)),
        ("double precision", "Infinity", Value::Float64(f64::INFINITY)),
        ("real", "-Infinity", Value::Float64(f64::NEG_INFINITY)),
        ("numeric", digits, decimal(digits)),
        ("numeric", "-0.00000000000000000001", decimal("-0.00000000000000000001")),
        ("numeric", "1e40", decimal(&format!("1{}", "0".repeat(40)))),
        ("numeric", "120.00", decimal("120.00")),
        ("numeric", "0", decimal("0")),
        ("numeric", "NaN", decimal("NaN")),
        ("numeric", "-Infinity", decimal("-Infinity")),
        ("price", "1.5", decimal("1.5000")),
        ("text", "héllo 🦀 \\ ' \" $1", text("héllo 🦀 \\ ' \" $1")),
        ("text", "", text("")),
        ("varchar(5)", "abc", text("abc")),
        ("char(5)", "abc", text("abc  ")),
        ("name", "abc", text("abc")),
        ("bytea", "\\x00ff80", Value::Bytes(vec![0, 0xff, 0x80])),
        ("json", "{\"b\" : 1, \"a\":[1.0]}", Value::Json("{\"b\" : 1, \"a\":[1.0]}".into())),
        ("jsonb", "{\"b\": 1, \"a\": [1.0]}", Value::Json("{\"a\": [1.0], \"b\": 1}".into())),
        ("uuid", uuid, Value::Uuid(uuid.into())),
        ("date", "1970-01-02", Value::Date(1)),
        ("date", "0044-03-15 BC", Value::Date(-735_160)),
        ("date", "infinity", Value::Date(i32::MAX)),
        ("date", "-infinity", Value::Date(i32::MIN)),
        ("time", "24:00:00", Value::Time(86_400 * microsecond)),
        ("time", "00:00:00.000001", Value::Time(1)),
        ("timestamp", "1970-01-01 00:00:01", Value::Timestamp(microsecond)),
        ("timestamp", "-infinity", Value::Timestamp(i64::MIN)),
        ("timestamptz", "1970-01-01 01:00:00+01", Value::Timestamptz(0)),
        ("timestamptz", "1969-12-31 23:59:59.999999Z", Value::Timestamptz(-1)),
        ("timestamptz", "infinity", Value::Timestamptz(i64::MAX)),
        ("interval", "1 mon -2 days 3.5 s", Value::Interval { months: 1, days: -2, micros: 3_500_000 }),
        ("bigint[]", "{1,NULL,-3}", Value::Int64Array(vec![Some(1), None, Some(-3)])),
        ("smallint[]", "{1,2}", Value::Int64Array(vec![Some(1), Some(2)])),
        ("integer[]", "{}", Value::Int64Array(vec![])),
        ("double precision[]", "{0.5,NULL,Infinity}", Value::Float64Array(vec![Some(0.5), None, Some(f64::INFINITY)])),
        ("real[]", "{0.5}", Value::Float64Array(vec![Some(0.5)])),
        (
            "text[]",
            "{a,NULL,\"NULL\",\"\",\"x,\\\"y\\\\\"}",
            Value::TextArray(vec![
                Some("a".into()),
                None,
                Some("NULL".into()),
                Some(String::new()),
                Some("x,\"y\\".into()),
            ]),
        ),
        ("varchar[]", "{a}", Value::TextArray(vec![Some("a".into())])),
        ("integer[]", "{{1,2},{3,4}}", other("int4[]", "{{1,2},{3,4}}")),
        ("integer[]", "[0:1]={1,2}", other("int4[]", "[0:1]={1,2}")),
        ("numeric[]", "{1.50,NaN}", other("numeric[]", "{1.50,NaN}")),
        ("uuid[]", "{}", other("uuid[]", "{}")),
        ("mood", "so-so", other("mood", "so-so")),
        ("mood[]", "{sad,happy}", other("mood[]", "{sad,happy}")),
        ("\"Odd Name\"", "x", other("Odd Name", "x")),
        ("percent", "42", Value::Int32(42)),
        ("pair", "(1,\"a b\")", other("pair", "(1,\"a b\")")),
        ("int4range", "[1,5)", other("int4range", "[1,5)")),
        ("int4range", "empty", other("int4range", "empty")),
        ("tstzrange", "[,)", other("tstzrange", "(,)")),
        ("span", "[1.5,2.5]", other("span", "[1.5,2.5]")),
        ("nummultirange", "{[1,2)}", other("nummultirange", "{[1,2)}")),
        ("inet", "192.168.0.1/24", other("inet", "192.168.0.1/24")),
        ("cidr", "10.0.0.0/8", other("cidr", "10.0.0.0/8")),
        ("macaddr", "08:00:2b:01:02:03", other("macaddr", "08:00:2b:01:02:03")),
        ("bit(3)", "101", other("bit", "101")),
        ("varbit", "1010", other("varbit", "1010")),
        ("money", "1.50", other("money", "$1.50")),
        ("timetz", "12:00:00+02", other("timetz", "12:00:00+02")),
        ("point", "(1,2)", other("point", "(1,2)")),
        ("polygon", "((0,0),(1,1),(1,0))", other("polygon", "((0,0),(1,1),(1,0))")),
        ("tsvector", "'a':1 'b':2", other("tsvector", "'a':1 'b':2")),
        ("tsquery", "'a' & 'b'", other("tsquery", "'a' & 'b'")),
        ("xml", "<a/>", other("xml", "<a/>")),
        ("jsonpath", "$.\"a\"", other("jsonpath", "$.\"a\"")),
        ("oid", "42", other("oid", "42")),
        ("regclass", "pg_class", other("regclass", "pg_class")),
        ("pg_lsn", "16/B374D848", other("pg_lsn", "16/B374D848")),
        ("xid8", "42", other("xid8", "42")),
        ("\"char\"", "a", other("char", "a")),
    ]
}

#[tokio::test]
async fn each_type_comes_back_as_what_it_is_and_goes_in_again() {
    let mut guest = Guest::start().await;
    let mut wrong = Vec::new();
    for (of, literal, expected) in table() {
        let came = guest.query(&format!("SELECT '{}'::{of}", literal.replace('\'', "''")), vec![]).await;
        let came = came.map(|mut rows| rows.rows.remove(0).remove(0));
        if came.as_ref() != Ok(&expected) {
            wrong.push(format!("{of} {literal} came out as {came:?}, not as {expected:?}"));
        }
        let back = guest.query(&format!("SELECT $1::{of}"), vec![expected.clone()]).await;
        let back = back.map(|mut rows| rows.rows.remove(0).remove(0));
        if back.as_ref() != Ok(&expected) {
            wrong.push(format!("{expected:?} went into {of} as {back:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // NaN is not equal to itself.
    let nan = guest.one("SELECT $1::float8", vec![Value::Float64(f64::NAN)]).await;
    assert!(matches!(nan, Value::Float64(number) if number.is_nan()), "{nan:?}");
    assert_eq!(guest.one("SELECT $1::float4::text", vec![Value::Float64(f64::NAN)]).await, text("NaN"));
}

/// A parameter is of the type that the server infers for its place, whatever case the guest had at hand.
#[tokio::test]
async fn a_parameter_becomes_what_its_place_is() {
    let mut guest = Guest::start().await;
    let cases = [
        ("SELECT $1::int8 = 5", Value::Int32(5)),
        ("SELECT $1::int2 = 5", Value::Int64(5)),
        ("SELECT $1::int4 = 5", decimal("5")),
        ("SELECT $1::int8 = 9007199254740993", text("9007199254740993")),
        ("SELECT $1::numeric = 5", Value::Int64(5)),
        ("SELECT $1::numeric = 0.1", Value::Float64(0.1)),
        ("SELECT $1::float8 = 5", Value::Int64(5)),
        ("SELECT $1::float4 = 0.1::float4", Value::Float64(0.1)),
        ("SELECT $1 || 'x' = '5x'", Value::Int64(5)),
        ("SELECT $1::uuid IS NOT NULL", text("A0EEBC999C0B4EF8BB6D6BB9BD380A11")),
        ("SELECT $1::uuid IS NOT NULL", Value::Uuid("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11".into())),
        ("SELECT $1::timestamptz = '2026-01-01Z'", text("2026-01-01T00:00:00Z")),
        ("SELECT $1::date = '2026-01-01'", text("2026-01-01")),
        ("SELECT $1::jsonb->>'a' = '1'", text("{\"a\": 1}")),
        ("SELECT $1::jsonb->>'a' = '1'", Value::Json("{\"a\": 1}".into())),
        ("SELECT $1::numeric[] = '{1,NULL}'", Value::Int64Array(vec![Some(1), None])),
        ("SELECT $1::uuid[] = '{}'", Value::TextArray(vec![])),
        ("SELECT $1::mood > 'sad'", text("happy")),
        ("SELECT $1::inet << '10.0.0.0/8'", text("10.1.2.3")),
        ("SELECT 7 = ANY ($1)", Value::Int64Array(vec![Some(7)])),
        ("SELECT $1::int4 IS NULL", Value::Null),
        ("SELECT $1::pair IS NULL", Value::Null),
    ];
    for (sql, value) in cases {
        assert_eq!(guest.one(sql, vec![value.clone()]).await, Value::Boolean(true), "{sql} with {value:?}");
    }
}

/// What cannot be is the guest's error, says which parameter, and leaves the transaction as it was.
#[tokio::test]
async fn a_parameter_that_does_not_fit_is_refused_and_nothing_is_lost() {
    let mut guest = Guest::start().await;
    let cases = [
        ("SELECT $1::int2", Value::Int64(40_000)),
        ("SELECT $1::int4", text("five")),
        ("SELECT $1::int4", Value::Float64(1.5)),
        ("SELECT $1::float4", Value::Float64(1e300)),
        ("SELECT $1::uuid", text("nobody")),
        ("SELECT $1::percent", text("101")),
        ("SELECT $1::mood", text("angry")),
        ("SELECT $1::date", Value::Timestamp(1)),
        ("SELECT $1::date", Value::Date(i32::MIN + 1)),
        ("SELECT $1::time", Value::Time(-1)),
        ("SELECT $1::text", text("a\0b")),
        ("SELECT $1::jsonb", Value::Json("{".into())),
        ("SELECT $1::boolean", Value::Int32(1)),
        ("SELECT 1", Value::Int32(1)),
    ];
    for (sql, value) in cases {
        let refused = guest.query(sql, vec![value.clone()]).await;
        let said = matches!(&refused, Err(SqlError::Parameter(_) | SqlError::Database(_)));
        assert!(said, "{sql} with {value:?}: {refused:?}");
        if matches!(refused, Err(SqlError::Database(_))) {
            guest = Guest::start().await; // The statement itself failed, and with it the transaction.
        }
        assert_eq!(guest.one("SELECT 1", vec![]).await, Value::Int32(1), "after {sql} with {value:?}");
    }
}

/// Plans are kept by text alone: neither another kind of value under the same text, nor a guest that sends the
/// very text of a statement of the engine's, gets what was planned for something else.
#[tokio::test]
async fn a_text_is_served_by_no_plan_of_another() {
    let mut guest = Guest::start().await;
    assert_eq!(guest.one("SELECT $1", vec![Value::Int64(7)]).await, text("7"));
    assert_eq!(guest.one("SELECT $1", vec![text("ABCDEFGH")]).await, text("ABCDEFGH"));
    let api = concat!("SELECT xid, pid, migrations FROM ", "semel_api.enter($1, $2, $3)");
    let stolen = guest.query(api, vec![text("{1}"), text("{1}"), Value::Bytes(vec![0; 16])]).await;
    assert!(matches!(stolen, Err(SqlError::Doomed(_))), "{stolen:?}");
}

/// Values whose text only the server knows are asked for in portions; one that it cannot tell spoils no other.
#[tokio::test]
async fn values_without_a_case_are_many_and_mixed() {
    let mut guest = Guest::start().await;
    let sql = "SELECT point(n, n), CASE WHEN n % 100 = 0 THEN ROW(n, 'a') END, void FROM generate_series(1, 700) AS n, \
               LATERAL (SELECT pg_sleep(0) AS void) AS nothing";
    let rows = guest.query(sql, vec![]).await.expect("rows").rows;
    assert_eq!(rows.len(), 700);
    assert_eq!(rows[698][0], other("point", "(699,699)"));
    assert!(matches!(&rows[99][1], Value::Other { type_name, .. } if type_name == "record"), "{:?}", rows[99]);
    assert_eq!(rows[0][1], Value::Null);
}

/// The driver looks types up by itself: many of them are no trouble, and neither is one that is made to take its stack away.
#[tokio::test]
async fn types_may_be_many_and_are_not_looked_up_without_an_end() {
    let mut guest = Guest::start_with(
        "DO $$ BEGIN
            FOR i IN 1..200 LOOP EXECUTE format('CREATE TYPE mood_%s AS ENUM (''a'')', i); END LOOP;
            CREATE DOMAIN deep_0 AS integer;
            FOR i IN 1..3000 LOOP EXECUTE format('CREATE DOMAIN deep_%s AS deep_%s', i, i - 1); END LOOP;
        END $$",
    )
    .await;
    let moods: Vec<String> = (1..=200).map(|n| format!("'a'::mood_{n}")).collect();
    let rows = guest.query(&format!("SELECT {}", moods.join(", ")), vec![]).await.expect("a row").rows;
    assert_eq!((rows[0].len(), &rows[0][199]), (200, &other("mood_200", "a")));
    assert_eq!(guest.one("SELECT $1::deep_9", vec![Value::Int64(9)]).await, Value::Int32(9));
    let Err(SqlError::Database(error)) = guest.query("SELECT $1::deep_3000", vec![Value::Int64(1)]).await else {
        panic!("it was looked up to its end");
    };
    assert_eq!((error.sqlstate.as_str(), error.message.contains("::text")), ("0A000", true), "{error:?}");
}

/// A text of Postgres holds no NUL; a guest's reason may.
#[tokio::test]
async fn a_reason_with_a_nul_is_no_reason_to_lose_an_end() {
    let bench = Bench::new(On::Postgres).await;
    let id = bench.enqueue("one").await;
    let claim = bench.claim_one(lane()).await;
    let end = Failure { kind: "refused", message: "a\0b".into(), retry_after: None };
    assert_eq!(bench.store.settle(&claim, end, Usage::default()).await, Ok(true));
    let record = bench.store.message(&id).await.expect("a working store").expect("the message");
    assert_eq!((record.state, record.last_error), (State::Dead, Some(("refused".into(), "a\u{fffd}b".into()))));
}
