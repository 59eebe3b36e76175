//! A guest's statement: one at a time by the extended protocol, its parameters of the types that the server infers.
//!
//! A session keeps plans by a guest's text, and of guests' texts alone: the host's own statements are planned each time, under
//! no name. Parameters go in as the types of the very plan that will run. So no text is served by what was planned for another.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use futures_util::TryStreamExt;
use futures_util::future::join3;
use tokio_postgres::types::{Kind, ToSql, Type};
use tokio_postgres::{Client, Error, Row, RowStream, Statement};

use super::values::{self, Parameter, Raw, Seen};
use crate::store::{Bounds, Column, DatabaseError, Rows, SqlError, Value, Wanted};

/// Rows of no named type, arrays of them, and nothing at all: the server gives these out and does not take them back.
const ONE_WAY: [u32; 3] = [2249, 2287, 2278];
/// Texts that are asked for at once.
const TEXTS: usize = 500;
/// Texts whose plan a session keeps.
const PLANS: usize = 64;

/// How often a plan in the making is looked at, and how often it is begun again.
const LOOKS: u32 = 32;
const ROUNDS: u32 = 64;

/// A parameter of a statement of the host's own.
pub(super) type Typed<'p> = (&'p (dyn ToSql + Sync), Type);

/// The plans that a session keeps, by the texts of guests.
#[derive(Default)]
pub(super) struct Plans {
    known: HashMap<String, Statement>,
    /// Whether something was left on the server that is known no more.
    pub(super) spoiled: bool,
}

impl Plans {
    /// From now on each text is planned anew.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }

    async fn of(&mut self, client: &Client, text: &str) -> Result<Statement, SqlError> {
        if let Some(known) = self.known.get(text) {
            return Ok(known.clone());
        }
        let plan = self.make(client, text).await?;
        if self.known.len() >= PLANS
            && let Some(any) = self.known.keys().next().cloned()
        {
            self.known.remove(&any);
        }
        self.known.insert(text.to_owned(), plan.clone());
        Ok(plan)
    }

    /// The driver looks up what a type is made of, and what that is made of, and for each takes more of the stack. It takes one
    /// look, at least, for each; and it remembers those types that it has come to the end of.
    async fn make(&mut self, client: &Client, text: &str) -> Result<Statement, SqlError> {
        for _ in 0..ROUNDS {
            if let Some(plan) = in_looks(LOOKS, client.prepare(text)).await {
                return plan.map_err(refused);
            }
            self.spoiled = true;
        }
        let why = "a type in this statement is made of too many others: write it as text there (value::text, or \
                   $1::text::its_type)";
        Err(SqlError::Database(Box::new(DatabaseError {
            sqlstate: "0A000".into(),
            message: why.into(),
            ..DatabaseError::default()
        })))
    }
}

/// What comes of a future that is looked at so many times at most.
async fn in_looks<T>(looks: u32, work: impl Future<Output = T>) -> Option<T> {
    let (mut work, mut left) = (pin!(work), looks);
    let look = poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    });
    look.await
}

/// A guest's statement, ready to be run.
pub(super) struct Prepared {
    statement: Statement,
    arguments: Vec<Raw>,
}

/// What the guest is told of a driver's error.
pub(super) fn refused(error: Error) -> SqlError {
    let Some(error) = error.as_db_error() else {
        tracing::debug!(%error, "a guest's statement ended without an answer");
        return SqlError::Doomed("the database is not available".into());
    };
    let sqlstate = error.code().code().to_owned();
    let class = sqlstate.get(..2).unwrap_or_default();
    if matches!(class, "08" | "40" | "53" | "57" | "58" | "SM" | "XX") && sqlstate != "57014" || sqlstate == "25P03" {
        return SqlError::Doomed(error.message().to_owned());
    }
    let position = match error.position() {
        Some(tokio_postgres::error::ErrorPosition::Original(place)) => Some(*place),
        _ => None,
    };
    SqlError::Database(Box::new(DatabaseError {
        sqlstate,
        message: error.message().to_owned(),
        constraint: error.constraint().map(str::to_owned),
        table: error.table().map(str::to_owned),
        column: error.column().map(str::to_owned),
        position,
    }))
}

/// Makes a statement that has passed the gate ready to run.
pub(super) async fn prepare(
    client: &Client,
    plans: &mut Plans,
    text: &str,
    params: &[Value],
) -> Result<Prepared, SqlError> {
    let statement = plans.of(client, text).await?;
    let types = statement.params();
    if types.len() != params.len() {
        let (uses, given) = (types.len(), params.len());
        return Err(SqlError::Parameter(format!("the statement uses {uses} parameters, but {given} were given")));
    }
    let mut arguments = Vec::with_capacity(params.len());
    for (place, (value, of)) in params.iter().zip(types).enumerate() {
        let wrong = |why: String| SqlError::Parameter(format!("parameter ${}: {why}", place + 1));
        arguments.push(Raw(match values::parameter(value, base(of)).map_err(wrong)? {
            Parameter::Binary(bytes) => bytes,
            Parameter::Text(text) => Some(by_input_function(client, of, &text).await?.map_err(wrong)?),
        }));
    }
    Ok(Prepared { statement, arguments })
}

/// Runs a statement. More rows or bytes than the bounds allow: an error, with the rest unread.
pub(super) async fn query(client: &Client, prepared: Prepared, bounds: Bounds, reads: bool) -> Result<Rows, SqlError> {
    let Prepared { statement, arguments } = prepared;
    let answers = client.query_raw(&statement, arguments).await.map_err(refused)?;
    let mut rows = in_full(client, read_all(answers, bounds).await?).await?;
    rows.columns = columns(&statement);
    if reads {
        rows.changed = 0; // The server counts rows that were read as well.
    }
    Ok(rows)
}

/// Runs a statement while others that come after it are sent already: nothing more can be asked about its answer.
pub(super) async fn answer(
    client: &Client,
    prepared: Prepared,
    bounds: Bounds,
    reads: bool,
    wanted: Wanted,
) -> Result<Rows, SqlError> {
    let Prepared { statement, arguments } = prepared;
    if wanted == Wanted::Count {
        let changed = client.execute_raw(&statement, arguments).await.map_err(refused)?;
        return Ok(Rows { changed: if reads { 0 } else { changed }, ..Rows::default() });
    }
    let answers = client.query_raw(&statement, arguments).await.map_err(refused)?;
    let (rows, unread) = read_all(answers, bounds).await?;
    if !unread.is_empty() {
        return Err(SqlError::Doomed("a value of a type that takes a question of its own".into()));
    }
    Ok(Rows { columns: columns(&statement), changed: if reads { 0 } else { rows.changed }, ..rows })
}

/// Opens a cursor on the server, for a text that only reads. Returns the columns.
pub(super) async fn declare(
    client: &Client,
    plans: &mut Plans,
    number: u32,
    text: &str,
    params: &[Value],
) -> Result<Vec<Column>, SqlError> {
    let Prepared { statement, arguments } = prepare(client, plans, text, params).await?;
    let declare = format!("DECLARE {} NO SCROLL CURSOR FOR {text}", cursor(number));
    let types = statement.params().iter().cloned();
    let typed: Vec<Typed<'_>> = arguments.iter().zip(types).map(|(argument, of)| (argument as _, of)).collect();
    client.execute_typed(&declare, &typed).await.map_err(refused)?;
    Ok(columns(&statement))
}

/// The next rows of a cursor on the server.
pub(super) async fn fetch(client: &Client, number: u32, bounds: Bounds) -> Result<Rows, SqlError> {
    let text = format!("FETCH FORWARD {} FROM {}", bounds.rows, cursor(number));
    let answers = client.query_typed_raw(&text, Vec::<(Raw, Type)>::new()).await.map_err(refused)?;
    in_full(client, read_all(answers, bounds).await?).await
}

/// The name of a cursor.
pub(super) fn cursor(number: u32) -> String {
    format!("semel_cursor_{number}")
}

/// The number of the type itself, of a domain's that of what it is over.
fn base(of: &Type) -> u32 {
    match of.kind() {
        Kind::Domain(over) => base(over),
        _ => of.oid(),
    }
}

fn name(of: &Type) -> String {
    match of.kind() {
        Kind::Array(item) if of.name().starts_with('_') => format!("{}[]", name(item)),
        _ => of.name().to_owned(),
    }
}

fn columns(statement: &Statement) -> Vec<Column> {
    let columns = statement.columns().iter();
    columns.map(|column| Column { name: column.name().to_owned(), type_name: name(column.type_()) }).collect()
}

/// What a type's input function makes of a text, in binary form. A text that it refuses leaves the transaction as it was.
async fn by_input_function(client: &Client, of: &Type, text: &str) -> Result<Result<Vec<u8>, String>, SqlError> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    // By its name in the catalog a type is of no length, which would cut.
    let convert = format!("SELECT CAST($1::pg_catalog.text AS {}.{})", quoted(of.schema()), quoted(of.name()));
    let (set, converted, released) = join3(
        client.batch_execute("SAVEPOINT semel_convert"),
        client.query_typed_one(&convert, &[(&text, Type::TEXT)]),
        client.batch_execute("RELEASE semel_convert"),
    )
    .await;
    set.map_err(refused)?;
    match converted {
        Ok(row) => {
            released.map_err(refused)?;
            Ok(Ok(seen(&row, 0)?.unwrap_or_default().to_vec()))
        }
        Err(error) if error.as_db_error().is_some() => {
            let undo = client.batch_execute("ROLLBACK TO semel_convert; RELEASE semel_convert");
            undo.await.map_err(refused)?;
            Ok(Err(error.as_db_error().map(|error| error.message().to_owned()).unwrap_or_default()))
        }
        Err(error) => Err(refused(error)),
    }
}

/// A value whose text only the server knows: its row and column, and what it is.
struct Unread {
    row: usize,
    column: usize,
    of: Type,
    raw: Raw,
}

/// All rows, and what of them is yet to be asked for.
async fn read_all(answers: RowStream, bounds: Bounds) -> Result<(Rows, Vec<Unread>), SqlError> {
    let mut answers = pin!(answers);
    let (mut rows, mut bytes, mut unread) = (Rows::default(), 0, Vec::new());
    while let Some(row) = answers.try_next().await.map_err(refused)? {
        if rows.rows.len() >= bounds.rows as usize {
            return Err(SqlError::TooManyRows);
        }
        let values = read(&row, rows.rows.len(), &mut bytes, &mut unread)?;
        if bytes > bounds.bytes {
            return Err(SqlError::TooManyBytes);
        }
        rows.rows.push(values);
    }
    rows.changed = answers.rows_affected().unwrap_or_default();
    Ok((rows, unread))
}

/// With the texts that only the server knows.
async fn in_full(client: &Client, (mut rows, unread): (Rows, Vec<Unread>)) -> Result<Rows, SqlError> {
    for unread in unread.chunks(TEXTS) {
        for (Unread { row, column, of, .. }, text) in unread.iter().zip(texts(client, unread).await?) {
            rows.rows[*row][*column] = Value::Other { type_name: name(of), text };
        }
    }
    Ok(rows)
}

fn seen(row: &Row, column: usize) -> Result<Option<&[u8]>, SqlError> {
    Ok(row.try_get::<_, Option<Seen<'_>>>(column).map_err(refused)?.map(|seen| seen.0))
}

fn read(row: &Row, place: usize, bytes: &mut usize, unread: &mut Vec<Unread>) -> Result<Vec<Value>, SqlError> {
    let mut values = Vec::with_capacity(row.len());
    for (column, of) in row.columns().iter().map(tokio_postgres::Column::type_).enumerate() {
        let binary = seen(row, column)?;
        *bytes += binary.map_or(0, <[u8]>::len) + size_of::<Value>();
        let Some(binary) = binary else {
            values.push(Value::Null);
            continue;
        };
        let other = |text| Value::Other { type_name: name(of), text };
        values.push(match (values::value(of.oid(), binary), of.kind()) {
            (Some(value), _) => value,
            (None, Kind::Enum(_)) => other(String::from_utf8_lossy(binary).into_owned()),
            (None, _) if ONE_WAY.contains(&of.oid()) => other(in_hexadecimal(binary)),
            (None, _) => {
                unread.push(Unread { row: place, column, of: of.clone(), raw: Raw(Some(binary.to_vec())) });
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
async fn texts(client: &Client, unread: &[Unread]) -> Result<Vec<String>, SqlError> {
    let list: Vec<String> = (1..=unread.len()).map(|place| format!("${place}::pg_catalog.text")).collect();
    let ask = format!("SELECT ARRAY[{}]", list.join(", "));
    let typed: Vec<Typed<'_>> = unread.iter().map(|Unread { raw, of, .. }| (raw as _, of.clone())).collect();
    let (set, asked, released) = join3(
        client.batch_execute("SAVEPOINT semel_texts"),
        client.query_typed_one(&ask, &typed),
        client.batch_execute("RELEASE semel_texts"),
    )
    .await;
    set.map_err(refused)?;
    match asked {
        Ok(row) => {
            released.map_err(refused)?;
            row.try_get(0).map_err(refused)
        }
        Err(error) if error.as_db_error().is_some() => {
            let undo = client.batch_execute("ROLLBACK TO semel_texts; RELEASE semel_texts");
            undo.await.map_err(refused)?;
            let bytes = |unread: &Unread| in_hexadecimal(unread.raw.0.as_deref().unwrap_or_default());
            Ok(unread.iter().map(bytes).collect())
        }
        Err(error) => Err(refused(error)),
    }
}
