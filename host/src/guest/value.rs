//! Between the values of `wit/transaction.wit` and those of [`crate::store`]: case by case, nothing is decided here.

use super::bindings::semel::function::transaction as wit;
use crate::store::{Column, DatabaseError, Rows, Value};

pub(super) fn from_guest(value: wit::Value) -> Value {
    match value {
        wit::Value::Null => Value::Null,
        wit::Value::Boolean(v) => Value::Boolean(v),
        wit::Value::Int32(v) => Value::Int32(v),
        wit::Value::Int64(v) => Value::Int64(v),
        wit::Value::Float64(v) => Value::Float64(v),
        wit::Value::Decimal(v) => Value::Decimal(v),
        wit::Value::Text(v) => Value::Text(v),
        wit::Value::Bytes(v) => Value::Bytes(v),
        wit::Value::Json(v) => Value::Json(v),
        wit::Value::Uuid(v) => Value::Uuid(v),
        wit::Value::Date(v) => Value::Date(v),
        wit::Value::Time(v) => Value::Time(v),
        wit::Value::Timestamp(v) => Value::Timestamp(v),
        wit::Value::Timestamptz(v) => Value::Timestamptz(v),
        wit::Value::Interval(wit::Interval { months, days, micros }) => Value::Interval { months, days, micros },
        wit::Value::Int64Array(v) => Value::Int64Array(v),
        wit::Value::Float64Array(v) => Value::Float64Array(v),
        wit::Value::TextArray(v) => Value::TextArray(v),
        wit::Value::Other(wit::OtherValue { type_name, text }) => Value::Other { type_name, text },
    }
}

fn to_guest(value: Value) -> wit::Value {
    match value {
        Value::Null => wit::Value::Null,
        Value::Boolean(v) => wit::Value::Boolean(v),
        Value::Int32(v) => wit::Value::Int32(v),
        Value::Int64(v) => wit::Value::Int64(v),
        Value::Float64(v) => wit::Value::Float64(v),
        Value::Decimal(v) => wit::Value::Decimal(v),
        Value::Text(v) => wit::Value::Text(v),
        Value::Bytes(v) => wit::Value::Bytes(v),
        Value::Json(v) => wit::Value::Json(v),
        Value::Uuid(v) => wit::Value::Uuid(v),
        Value::Date(v) => wit::Value::Date(v),
        Value::Time(v) => wit::Value::Time(v),
        Value::Timestamp(v) => wit::Value::Timestamp(v),
        Value::Timestamptz(v) => wit::Value::Timestamptz(v),
        Value::Interval { months, days, micros } => wit::Value::Interval(wit::Interval { months, days, micros }),
        Value::Int64Array(v) => wit::Value::Int64Array(v),
        Value::Float64Array(v) => wit::Value::Float64Array(v),
        Value::TextArray(v) => wit::Value::TextArray(v),
        Value::Other { type_name, text } => wit::Value::Other(wit::OtherValue { type_name, text }),
    }
}

pub(super) fn row(row: Vec<Value>) -> wit::Row {
    row.into_iter().map(to_guest).collect()
}

pub(super) fn column(column: Column) -> wit::Column {
    wit::Column { name: column.name, type_name: column.type_name }
}

pub(super) fn result_set(rows: Rows) -> wit::ResultSet {
    wit::ResultSet {
        columns: rows.columns.into_iter().map(column).collect(),
        rows: rows.rows.into_iter().map(row).collect(),
    }
}

pub(super) fn database_error(error: DatabaseError) -> wit::DatabaseError {
    wit::DatabaseError {
        sqlstate: error.sqlstate,
        message: error.message,
        detail: None,
        hint: None,
        constraint: error.constraint,
        table: error.table,
        column: error.column,
        position: error.position,
    }
}
