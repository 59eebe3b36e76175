//! A guest's statement: one at a time by the prepared protocol, which takes no second one behind it.

use futures_util::TryStreamExt as _;
use sqlx::mysql::{MySqlArguments, MySqlColumn, MySqlConnection, MySqlDatabaseError};
use sqlx::{AssertSqlSafe, Column as _, Either, Executor as _, Row as _, SqlSafeStr as _, Statement as _};

use super::gate::Passed;
use super::values;
use crate::store::{Bounds, Column, DatabaseError, Rows, SqlError, Value, Wanted};

/// After one of these nothing of the transaction can be saved: it is gone (deadlock, changed since it was read, too many locks),
/// or a statement of it is missing (lock wait).
const POISON: [u16; 4] = [1213, 1205, 1020, 1206];
/// A statement that was told to end.
const INTERRUPTED: [u16; 3] = [1317, 1969, 3024];
/// Errors of other statements than the guest's: the session, the server, its disk.
const SERVER: [u16; 12] = [1021, 1037, 1038, 1041, 1053, 1077, 1079, 1114, 1135, 1290, 1836, 1927];

/// Bytes of all parameters, each as often as it is used: a text may name one a thousand times.
const ARGUMENTS: usize = 32 << 20;

/// Whether a session on which that was said is of no use any more.
pub(super) fn spoils(error: &SqlError) -> bool {
    matches!(error, SqlError::Doomed(_) | SqlError::Deadline)
}

/// What the guest is told of a driver's error.
pub(super) fn refused(error: sqlx::Error) -> SqlError {
    let Some(said) = error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>()) else {
        tracing::debug!(%error, "a guest's statement ended without an answer");
        return SqlError::Doomed("the database is not available".into());
    };
    let (number, sqlstate, message) = (said.number(), said.code().unwrap_or("HY000"), said.message());
    if INTERRUPTED.contains(&number) {
        return SqlError::Deadline;
    }
    let class = sqlstate.get(..2).unwrap_or_default();
    if POISON.contains(&number) || SERVER.contains(&number) || matches!(class, "08" | "40" | "70" | "SM") {
        return SqlError::Doomed(message.to_owned());
    }
    let Named { constraint, table, column } = named(number, message);
    SqlError::Database(Box::new(DatabaseError {
        sqlstate: violated(number).unwrap_or(sqlstate).to_owned(),
        message: message.to_owned(),
        constraint,
        table,
        column,
        position: None,
    }))
}

/// The same without the name of the database, which the server says with each table's.
pub(super) fn without(error: SqlError, database: &str) -> SqlError {
    let cut = |text: &str| text.replace(&format!("`{database}`."), "").replace(&format!("{database}."), "");
    match error {
        SqlError::Database(said) => {
            let message = cut(&said.message);
            SqlError::Database(Box::new(DatabaseError { message, ..*said }))
        }
        SqlError::Doomed(why) => SqlError::Doomed(cut(&why)),
        other => other,
    }
}

/// What the server calls 23000 all alike, in the standard's words.
fn violated(number: u16) -> Option<&'static str> {
    match number {
        1062 | 1169 | 1586 => Some("23505"),
        1048 | 1364 => Some("23502"),
        1216 | 1217 | 1451 | 1452 => Some("23503"),
        3819 | 4025 => Some("23514"),
        _ => None,
    }
}

/// What a message names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    constraint: Option<String>,
    table: Option<String>,
    column: Option<String>,
}

/// The server says the names of what was violated in its message alone; the words are the same in every version.
fn named(number: u16, message: &str) -> Named {
    let between = |before: &str, after: &str| {
        let (_, rest) = message.split_once(before)?;
        Some(rest.split_once(after)?.0.to_owned())
    };
    match number {
        // Duplicate entry 'x' for key 'PRIMARY', or 'counters.PRIMARY'.
        1062 | 1586 => {
            let key = message.rsplit_once("for key '").and_then(|(_, key)| key.strip_suffix('\''));
            match key.and_then(|key| key.split_once('.')) {
                Some((table, key)) => Named { constraint: Some(key.into()), table: Some(table.into()), column: None },
                None => Named { constraint: key.map(str::to_owned), ..Named::default() },
            }
        }
        // … (`app`.`child`, CONSTRAINT `child_ibfk_1` FOREIGN KEY (`id`) REFERENCES …
        1451 | 1452 => Named {
            constraint: between("CONSTRAINT `", "`"),
            table: between("`.`", "`"),
            column: between("FOREIGN KEY (`", "`"),
        },
        // CONSTRAINT `positive` failed for `app`.`t`
        4025 => Named { constraint: between("CONSTRAINT `", "`"), table: between("`.`", "`"), column: None },
        // Check constraint 'positive' is violated.
        3819 => Named { constraint: between("constraint '", "'"), ..Named::default() },
        // Column 'a' cannot be null; Field 'a' doesn't have a default value; Data too long for column 'a' at row 1.
        1048 | 1364 => Named { column: between("'", "'"), ..Named::default() },
        1264 | 1265 | 1366 | 1406 => Named { column: between("for column '", "'"), ..Named::default() },
        _ => Named::default(),
    }
}

/// Runs a statement that has passed the gate. More rows or bytes than the bounds allow: an error, with the rest unread.
pub(super) async fn query(
    connection: &mut MySqlConnection,
    passed: &Passed,
    params: &[Value],
    bounds: Bounds,
    wanted: Wanted,
) -> Result<Rows, SqlError> {
    let arguments = arguments(passed, params)?;
    // Not kept: what is kept is the host's own.
    let statement = sqlx::query_with(AssertSqlSafe(passed.text.clone()), arguments);
    let mut answers = connection.fetch_many(statement);
    let (mut rows, mut bytes) = (Rows::default(), 0);
    while let Some(answer) = answers.try_next().await.map_err(refused)? {
        let row = match answer {
            Either::Left(done) => {
                rows.changed += done.rows_affected();
                continue;
            }
            Either::Right(_) if wanted == Wanted::Count => continue,
            Either::Right(row) => row,
        };
        if rows.rows.len() >= bounds.rows as usize {
            return Err(SqlError::TooManyRows);
        }
        if rows.columns.is_empty() {
            rows.columns = columns(row.columns());
        }
        let values = (0..row.len()).map(|column| values::value(&row, column)).collect::<Result<Vec<_>, _>>();
        let values = values.map_err(refused)?;
        bytes += values.iter().map(Value::size).sum::<usize>();
        if bytes > bounds.bytes {
            return Err(SqlError::TooManyBytes);
        }
        rows.rows.push(values);
    }
    drop(answers);
    if passed.reads {
        rows.changed = 0;
        if rows.rows.is_empty() && wanted == Wanted::Rows {
            // The driver tells columns by their rows alone.
            let text = AssertSqlSafe(passed.text.clone()).into_sql_str();
            rows.columns = columns(connection.prepare(text).await.map_err(refused)?.columns());
        }
    }
    Ok(rows)
}

/// As many as the text asks for, in the order of their places.
fn arguments(passed: &Passed, params: &[Value]) -> Result<MySqlArguments, SqlError> {
    let uses = passed.order.iter().map(|place| place + 1).max().unwrap_or(0);
    if uses != params.len() {
        let given = params.len();
        return Err(SqlError::Parameter(format!("the statement uses {uses} parameters, but {given} were given")));
    }
    if passed.order.iter().map(|place| params[*place].size()).sum::<usize>() > ARGUMENTS {
        return Err(SqlError::Parameter(format!("all together are larger than {} MiB", ARGUMENTS >> 20)));
    }
    let mut arguments = MySqlArguments::default();
    for place in &passed.order {
        let wrong = |why| SqlError::Parameter(format!("parameter ${}: {why}", place + 1));
        values::bind(&mut arguments, &params[*place]).map_err(wrong)?;
    }
    Ok(arguments)
}

fn columns(columns: &[MySqlColumn]) -> Vec<Column> {
    let name = |column: &MySqlColumn| Column {
        name: column.name().to_owned(),
        type_name: values::type_name(column.type_info()),
    };
    columns.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_violated_has_a_name() {
        let all = |constraint: &str, table: &str, column: &str| {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            Named { constraint: some(constraint), table: some(table), column: some(column) }
        };
        for (number, message, found) in [
            (1062, "Duplicate entry 'it's for key 'a'' for key 'PRIMARY'", all("PRIMARY", "", "")),
            (1062, "Duplicate entry 'a' for key 'counters.PRIMARY'", all("PRIMARY", "counters", "")),
            (
                1452,
                "Cannot add or update a child row: a foreign key constraint fails (`app`.`child`, CONSTRAINT `to_parent` FOREIGN \
                 KEY (`parent`) REFERENCES `parents` (`id`))",
                all("to_parent", "child", "parent"),
            ),
            (4025, "CONSTRAINT `positive` failed for `app`.`t`", all("positive", "t", "")),
            (3819, "Check constraint 'positive' is violated.", all("positive", "", "")),
            (1048, "Column 'a' cannot be null", all("", "", "a")),
            (1406, "Data too long for column 'a' at row 1", all("", "", "a")),
            (1064, "You have an error in your SQL syntax", Named::default()),
        ] {
            assert_eq!(named(number, message), found, "{message}");
        }
    }
}
