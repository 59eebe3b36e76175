//! A guest's statement: one at a time by the extended protocol, its parameters of the types that the server infers.
//!
//! The driver keeps plans by text alone. A session's are thrown away with its transaction (`guests.rs`), parameters go
//! in as the types of the very plan that will run, and each text of the host's own begins with a comment, which the gate
//! takes from every text of a guest's (`gate.rs`): so none is ever served by a plan that was made for somebody else.

use futures_util::StreamExt;
use sqlx::postgres::{PgArguments, PgConnection, PgRow, PgStatement, PgTypeInfo, PgTypeKind};
use sqlx::{Arguments, AssertSqlSafe, Column as _, Either, Executor, Row, Statement as _, TypeInfo, ValueRef};

use super::values::{self, Parameter, Raw};
use crate::store::{Bounds, Column, DatabaseError, Rows, SqlError, Value};

/// Types with a number below this came with the server; the driver shows their names in capitals.
const FIRST_OWN: u32 = 16_384;
/// Rows of no named type, arrays of them, and nothing at all: the server gives these out and does not take them back.
const ONE_WAY: [u32; 3] = [2249, 2287, 2278];
/// Texts that are asked for at once.
const TEXTS: usize = 500;

/// What the guest is told of a driver's error.
pub(super) fn refused(error: sqlx::Error) -> SqlError {
    if matches!(error, sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::TypeNotFound { .. }) {
        let why = "a type in this statement is unknown to the host's driver: write it as text there (value::text, or \
                   $1::text::its_type)";
        return SqlError::Database(Box::new(DatabaseError {
            sqlstate: "0A000".into(),
            message: why.into(),
            ..DatabaseError::default()
        }));
    }
    let sqlx::Error::Database(error) = error else {
        tracing::debug!(%error, "a guest's statement ended without an answer");
        return SqlError::Doomed("the database is not available".into());
    };
    let sqlstate = error.code().unwrap_or_default().into_owned();
    let class = sqlstate.get(..2).unwrap_or_default();
    if matches!(class, "08" | "40" | "53" | "57" | "58" | "SM" | "XX") && sqlstate != "57014" || sqlstate == "25P03" {
        return SqlError::Doomed(error.message().to_owned());
    }
    let postgres = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>();
    let position = postgres.and_then(|error| match error.position() {
        Some(sqlx::postgres::PgErrorPosition::Original(place)) => u32::try_from(place).ok(),
        _ => None,
    });
    SqlError::Database(Box::new(DatabaseError {
        sqlstate,
        message: error.message().to_owned(),
        constraint: error.constraint().map(str::to_owned),
        table: error.table().map(str::to_owned),
        column: postgres.and_then(|error| error.column()).map(str::to_owned),
        position,
    }))
}

/// Runs a statement that has passed the gate. More rows or bytes than the bounds allow: an error, with the rest unread.
pub(super) async fn query(
    sql: &mut PgConnection,
    text: &str,
    params: &[Value],
    bounds: Bounds,
    reads: bool,
) -> Result<Rows, SqlError> {
    let (statement, arguments) = prepare(sql, text, params).await?;
    let mut rows = run(sql, &statement, arguments, bounds).await?;
    if reads {
        rows.changed = 0; // The server counts rows that were read as well.
    }
    Ok(rows)
}

/// Opens a cursor on the server, for a text that only reads. Returns the columns.
pub(super) async fn declare(
    sql: &mut PgConnection,
    number: u32,
    text: &str,
    params: &[Value],
) -> Result<Vec<Column>, SqlError> {
    let (statement, arguments) = prepare(sql, text, params).await?;
    let declare = AssertSqlSafe(format!("DECLARE {} NO SCROLL CURSOR FOR {text}", cursor(number)));
    sqlx::query_with(declare, arguments).persistent(false).execute(sql).await.map_err(refused)?;
    Ok(columns(&statement))
}

/// The next rows of a cursor on the server.
pub(super) async fn fetch(sql: &mut PgConnection, number: u32, bounds: Bounds) -> Result<Rows, SqlError> {
    let text = format!("FETCH FORWARD {} FROM {}", bounds.rows, cursor(number));
    let (statement, arguments) = prepare(sql, &text, &[]).await?;
    run(sql, &statement, arguments, bounds).await
}

/// The name of a cursor.
pub(super) fn cursor(number: u32) -> String {
    format!("semel_cursor_{number}")
}

/// The number of the type itself, of a domain's that of what it is over.
fn base(info: &PgTypeInfo) -> u32 {
    match info.kind() {
        PgTypeKind::Domain(over) => base(over),
        _ => info.oid().map_or(0, |oid| oid.0),
    }
}

fn name(info: &PgTypeInfo) -> String {
    let name = info.name().trim_matches('"');
    if info.oid().is_none_or(|oid| oid.0 < FIRST_OWN) { name.to_ascii_lowercase() } else { name.to_owned() }
}

fn columns(statement: &PgStatement) -> Vec<Column> {
    let column = |column: &sqlx::postgres::PgColumn| Column {
        name: column.name().to_owned(),
        type_name: name(column.type_info()),
    };
    statement.columns().iter().map(column).collect()
}

async fn prepare(sql: &mut PgConnection, text: &str, params: &[Value]) -> Result<(PgStatement, PgArguments), SqlError> {
    let statement: PgStatement =
        sql.prepare(sqlx::SqlSafeStr::into_sql_str(AssertSqlSafe(text.to_owned()))).await.map_err(refused)?;
    let types = match statement.parameters() {
        Some(Either::Left(types)) => types.to_vec(),
        _ => Vec::new(),
    };
    if types.len() != params.len() {
        let (uses, given) = (types.len(), params.len());
        return Err(SqlError::Parameter(format!("the statement uses {uses} parameters, but {given} were given")));
    }
    let mut arguments = PgArguments::default();
    for (place, (value, info)) in params.iter().zip(types).enumerate() {
        let wrong = |why: String| SqlError::Parameter(format!("parameter ${}: {why}", place + 1));
        let bytes = match values::parameter(value, base(&info)).map_err(wrong)? {
            Parameter::Binary(bytes) => bytes,
            Parameter::Text(text) => Some(by_input_function(sql, &info, text).await?.map_err(wrong)?),
        };
        let oid = info.oid().map_or(0, |oid| oid.0);
        arguments.add(Raw { oid, bytes }).map_err(|error| wrong(error.to_string()))?;
    }
    Ok((statement, arguments))
}

/// What a type's input function makes of a text, in binary form. A text that it refuses leaves the transaction as it was.
async fn by_input_function(
    sql: &mut PgConnection,
    info: &PgTypeInfo,
    text: String,
) -> Result<Result<Vec<u8>, String>, SqlError> {
    let number = info.oid().map_or(0, |oid| i64::from(oid.0));
    let called = sqlx::query_scalar("-- host\nSELECT pg_catalog.format_type($1::bigint::oid, -1)").bind(number);
    let called: String = called.fetch_one(&mut *sql).await.map_err(refused)?; // With -1: of no length, which would cut.
    sql.execute("SAVEPOINT semel_convert").await.map_err(refused)?;
    let convert = AssertSqlSafe(format!("-- host\nSELECT CAST($1::text AS {called})"));
    let converted = sqlx::query(convert).persistent(false).bind(text).fetch_one(&mut *sql).await;
    let converted = match converted {
        Ok(row) => {
            Ok(row.try_get_raw(0).ok().and_then(|raw| raw.as_bytes().map(<[u8]>::to_vec).ok()).unwrap_or_default())
        }
        Err(sqlx::Error::Database(error)) => {
            sql.execute("ROLLBACK TO semel_convert").await.map_err(refused)?;
            Err(error.message().to_owned())
        }
        Err(error) => return Err(refused(error)),
    };
    sql.execute("RELEASE semel_convert").await.map_err(refused)?;
    Ok(converted)
}

/// A value whose text only the server knows: its row and column, and what it is.
struct Unread {
    row: usize,
    column: usize,
    type_name: String,
    raw: Raw,
}

async fn run(
    sql: &mut PgConnection,
    statement: &PgStatement,
    arguments: PgArguments,
    bounds: Bounds,
) -> Result<Rows, SqlError> {
    let mut rows = Rows { columns: columns(statement), ..Rows::default() };
    let (mut bytes, mut unread) = (0, Vec::new());
    let mut answers = Executor::fetch_many(&mut *sql, statement.query_with(arguments));
    while let Some(answer) = answers.next().await {
        let row = match answer.map_err(refused)? {
            Either::Left(done) => {
                rows.changed += done.rows_affected();
                continue;
            }
            Either::Right(row) => row,
        };
        if rows.rows.len() >= bounds.rows as usize {
            return Err(SqlError::TooManyRows);
        }
        let values = read(&row, rows.rows.len(), &mut bytes, &mut unread)?;
        if bytes > bounds.bytes {
            return Err(SqlError::TooManyBytes);
        }
        rows.rows.push(values);
    }
    drop(answers);
    for unread in unread.chunks(TEXTS) {
        for (Unread { row, column, type_name, .. }, text) in unread.iter().zip(texts(sql, unread).await?) {
            rows.rows[*row][*column] = Value::Other { type_name: type_name.clone(), text };
        }
    }
    Ok(rows)
}

fn read(row: &PgRow, place: usize, bytes: &mut usize, unread: &mut Vec<Unread>) -> Result<Vec<Value>, SqlError> {
    let mut values = Vec::with_capacity(row.len());
    for column in 0..row.len() {
        let raw = row.try_get_raw(column).map_err(refused)?;
        let binary = if raw.is_null() { None } else { raw.as_bytes().ok() };
        *bytes += binary.map_or(0, <[u8]>::len) + size_of::<Value>();
        let Some(binary) = binary else {
            values.push(Value::Null);
            continue;
        };
        let info = raw.type_info();
        let oid = info.oid().map_or(0, |oid| oid.0);
        values.push(match (values::value(oid, binary), info.kind()) {
            (Some(value), _) => value,
            (None, PgTypeKind::Enum(_)) => {
                Value::Other { type_name: name(&info), text: String::from_utf8_lossy(binary).into_owned() }
            }
            (None, _) if ONE_WAY.contains(&oid) => {
                Value::Other { type_name: name(&info), text: in_hexadecimal(binary) }
            }
            (None, _) => {
                let raw = Raw { oid, bytes: Some(binary.to_vec()) };
                unread.push(Unread { row: place, column, type_name: name(&info), raw });
                Value::Null // Until the server has said its text.
            }
        });
    }
    Ok(values)
}

fn in_hexadecimal(bytes: &[u8]) -> String {
    format!("\\x{}", hex::encode(bytes))
}

/// The server's texts of values; their bytes, if it does not take one of them back.
async fn texts(sql: &mut PgConnection, unread: &[Unread]) -> Result<Vec<String>, SqlError> {
    let list: Vec<String> = (1..=unread.len()).map(|place| format!("${place}::text")).collect();
    let text = format!("-- host\nSELECT ARRAY[{}]", list.join(", "));
    let mut arguments = PgArguments::default();
    for Unread { raw, .. } in unread {
        arguments.add(raw.clone()).map_err(|error| SqlError::Doomed(error.to_string()))?;
    }
    sql.execute("SAVEPOINT semel_texts").await.map_err(refused)?;
    let ask = sqlx::query_scalar_with(AssertSqlSafe(text), arguments).persistent(false);
    let texts: Vec<String> = match ask.fetch_one(&mut *sql).await {
        Ok(texts) => texts,
        Err(sqlx::Error::Database(_)) => {
            sql.execute("ROLLBACK TO semel_texts").await.map_err(refused)?;
            let bytes = |unread: &Unread| in_hexadecimal(unread.raw.bytes.as_deref().unwrap_or_default());
            unread.iter().map(bytes).collect()
        }
        Err(error) => return Err(refused(error)),
    };
    sql.execute("RELEASE semel_texts").await.map_err(refused)?;
    Ok(texts)
}
