//! The conversion table between `value` of `wit/transaction.wit` and SQLite's five storage classes.
//!
//! | parameter | stored as |
//! |---|---|
//! | null | NULL |
//! | boolean | INTEGER 0 or 1 |
//! | int32, int64 | INTEGER |
//! | float64 | REAL (NaN is refused: SQLite would store NULL) |
//! | decimal, text, json, uuid, other | TEXT as given |
//! | bytes | BLOB |
//! | date, time, timestamp, timestamptz | TEXT in ISO 8601, which SQLite's date functions read; infinities as `infinity`, `-infinity` |
//! | interval | TEXT, ISO 8601 duration (`P1M2DT3.5S`) |
//! | arrays | TEXT, JSON |
//!
//! A column comes back by what is stored, whatever its declared type: null, int64, float64, text or bytes.

use std::ffi::{CStr, c_int};

use jiff::civil;
use libsqlite3_sys as ffi;

use crate::store::Value;

/// Binds `params[0]` to `$1` and so on.
#[expect(unsafe_code, reason = "SQLite's C interface")]
pub(super) fn bind(statement: *mut ffi::sqlite3_stmt, params: &[Value]) -> Result<(), String> {
    // SAFETY: the caller has the connection to itself and the statement is alive; names live as long as it does.
    let count = unsafe { ffi::sqlite3_bind_parameter_count(statement) };
    let mut used = vec![false; params.len()];
    for place in 1..=count {
        // SAFETY: as above.
        let name = unsafe { ffi::sqlite3_bind_parameter_name(statement, place) };
        let number = if name.is_null() {
            usize::try_from(place).ok()
        } else {
            // SAFETY: not null, and NUL-terminated.
            let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
            name.strip_prefix(['$', '?']).and_then(|digits| digits.parse().ok())
        };
        // `?5` alone also counts the places 1 to 4, which have no name and need no value.
        let Some(index) = number.filter(|number| *number >= 1).map(|number| number - 1) else {
            return Err("parameters are written $1, $2, …".into());
        };
        let Some(value) = params.get(index) else {
            return Err(format!("the statement uses ${}, but {} parameters were given", index + 1, params.len()));
        };
        used[index] = true;
        bind_one(statement, place, value).map_err(|why| format!("parameter ${}: {why}", index + 1))?;
    }
    match used.iter().position(|used| !used) {
        Some(index) => Err(format!("parameter ${} is not used in the statement", index + 1)),
        None => Ok(()),
    }
}

#[expect(unsafe_code, reason = "SQLite's C interface")]
fn bind_one(statement: *mut ffi::sqlite3_stmt, place: c_int, value: &Value) -> Result<(), String> {
    // SAFETY: the statement is alive and not running; texts and blobs are copied (SQLITE_TRANSIENT).
    let code = unsafe {
        match stored(value)? {
            Stored::Null => ffi::sqlite3_bind_null(statement, place),
            Stored::Integer(number) => ffi::sqlite3_bind_int64(statement, place, number),
            Stored::Real(number) => ffi::sqlite3_bind_double(statement, place, number),
            Stored::Text(text) => {
                let (pointer, length) = (text.as_ptr().cast(), text.len() as u64);
                let utf8 = u8::try_from(ffi::SQLITE_UTF8).unwrap_or(1);
                ffi::sqlite3_bind_text64(statement, place, pointer, length, ffi::SQLITE_TRANSIENT(), utf8)
            }
            Stored::Blob([]) => ffi::sqlite3_bind_zeroblob(statement, place, 0),
            Stored::Blob(bytes) => ffi::sqlite3_bind_blob64(
                statement,
                place,
                bytes.as_ptr().cast(),
                bytes.len() as u64,
                ffi::SQLITE_TRANSIENT(),
            ),
        }
    };
    match code {
        ffi::SQLITE_OK => Ok(()),
        ffi::SQLITE_TOOBIG => Err("it is too long".into()),
        code => Err(format!("SQLite refused it (code {code})")),
    }
}

enum Stored<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(std::borrow::Cow<'a, str>),
    Blob(&'a [u8]),
}

fn stored(value: &Value) -> Result<Stored<'_>, String> {
    let text = |text: String| Ok(Stored::Text(text.into()));
    match value {
        Value::Null => Ok(Stored::Null),
        Value::Boolean(truth) => Ok(Stored::Integer((*truth).into())),
        Value::Int32(number) => Ok(Stored::Integer((*number).into())),
        Value::Int64(number) => Ok(Stored::Integer(*number)),
        Value::Float64(number) if number.is_nan() => Err("SQLite cannot store NaN".into()),
        Value::Float64(number) => Ok(Stored::Real(*number)),
        Value::Decimal(t) | Value::Text(t) | Value::Json(t) | Value::Uuid(t) | Value::Other { text: t, .. } => {
            if t.contains('\0') { Err("a text must not contain NUL".into()) } else { Ok(Stored::Text(t.into())) }
        }
        Value::Bytes(bytes) => Ok(Stored::Blob(bytes)),
        Value::Date(days) => text(date(*days)?),
        Value::Time(micros) => text(time(*micros)?),
        Value::Timestamp(micros) => text(timestamp(*micros, "")?),
        Value::Timestamptz(micros) => text(timestamp(*micros, "Z")?),
        Value::Interval { months, days, micros } => text(interval(*months, *days, *micros)),
        Value::Int64Array(items) => text(json(items)?),
        Value::Float64Array(items) if items.iter().flatten().any(|item| !item.is_finite()) => {
            Err("JSON has neither NaN nor infinities".into())
        }
        Value::Float64Array(items) => text(json(items)?),
        Value::TextArray(items) => text(json(items)?),
    }
}

fn json<T: serde::Serialize>(items: &T) -> Result<String, String> {
    serde_json::to_string(items).map_err(|e| e.to_string())
}

fn date(days: i32) -> Result<String, String> {
    match days {
        i32::MIN => Ok("-infinity".into()),
        i32::MAX => Ok("infinity".into()),
        _ => civil::date(1970, 1, 1)
            .checked_add(jiff::Span::new().try_days(days).map_err(|e| e.to_string())?)
            .map(|date| date.to_string())
            .map_err(|_| "the date is out of range".to_owned()),
    }
}

fn time(micros: i64) -> Result<String, String> {
    if !(0..86_400_000_000).contains(&micros) {
        return Err("a time of day is 0 to 86399999999 microseconds".into());
    }
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    Ok(format!("{:02}:{:02}:{:02}.{fraction:06}", seconds / 3600, seconds / 60 % 60, seconds % 60))
}

fn timestamp(micros: i64, zone: &str) -> Result<String, String> {
    match micros {
        i64::MIN => Ok("-infinity".into()),
        i64::MAX => Ok("infinity".into()),
        _ => {
            let time = jiff::Timestamp::from_microsecond(micros).map_err(|_| "the time is out of range".to_owned())?;
            Ok(format!("{}{zone}", jiff::tz::Offset::UTC.to_datetime(time).strftime("%Y-%m-%d %H:%M:%S.%6f")))
        }
    }
}

fn interval(months: i32, days: i32, micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let (seconds, fraction) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
    format!("P{months}M{days}DT{sign}{seconds}.{fraction:06}S")
}

/// Reads the row that the statement stands on.
#[expect(unsafe_code, reason = "SQLite's C interface")]
pub(super) fn row(statement: *mut ffi::sqlite3_stmt, columns: usize) -> Vec<Value> {
    let columns = c_int::try_from(columns).unwrap_or(c_int::MAX);
    (0..columns)
        .map(|index| {
            // SAFETY: the statement has just returned a row with this many columns; the bytes live until the next call
            // on the column and are copied before it.
            unsafe {
                let bytes = |pointer: *const u8| {
                    let length = usize::try_from(ffi::sqlite3_column_bytes(statement, index)).unwrap_or(0);
                    if pointer.is_null() { &[][..] } else { std::slice::from_raw_parts(pointer, length) }
                };
                match ffi::sqlite3_column_type(statement, index) {
                    ffi::SQLITE_INTEGER => Value::Int64(ffi::sqlite3_column_int64(statement, index)),
                    ffi::SQLITE_FLOAT => Value::Float64(ffi::sqlite3_column_double(statement, index)),
                    ffi::SQLITE_TEXT => {
                        let text = bytes(ffi::sqlite3_column_text(statement, index));
                        // SQLite does not check: what is no UTF-8 comes back as the bytes it is.
                        String::from_utf8(text.to_vec()).map_or_else(|e| Value::Bytes(e.into_bytes()), Value::Text)
                    }
                    ffi::SQLITE_BLOB => Value::Bytes(bytes(ffi::sqlite3_column_blob(statement, index).cast()).to_vec()),
                    _ => Value::Null,
                }
            }
        })
        .collect()
}

/// Roughly how much memory the row that the statement stands on will take.
#[expect(unsafe_code, reason = "SQLite's C interface")]
pub(super) fn size(statement: *mut ffi::sqlite3_stmt, columns: usize) -> usize {
    let columns = c_int::try_from(columns).unwrap_or(c_int::MAX);
    let one = |index| {
        // SAFETY: as in `row`; only texts and blobs are asked for their length, so nothing is converted.
        let length = unsafe {
            match ffi::sqlite3_column_type(statement, index) {
                ffi::SQLITE_TEXT | ffi::SQLITE_BLOB => ffi::sqlite3_column_bytes(statement, index),
                _ => 0,
            }
        };
        usize::try_from(length).unwrap_or(0) + size_of::<Value>()
    };
    (0..columns).map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_values_become_iso_text() {
        assert_eq!(date(0).as_deref(), Ok("1970-01-01"));
        assert_eq!(date(-1).as_deref(), Ok("1969-12-31"));
        assert_eq!(date(i32::MAX).as_deref(), Ok("infinity"));
        assert!(date(i32::MAX - 1).is_err());
        assert_eq!(time(3_661_000_001).as_deref(), Ok("01:01:01.000001"));
        assert!(time(-1).is_err());
        assert_eq!(timestamp(1_500_000, "Z").as_deref(), Ok("1970-01-01 00:00:01.500000Z"));
        assert_eq!(timestamp(-1, "").as_deref(), Ok("1969-12-31 23:59:59.999999"));
        assert_eq!(timestamp(i64::MIN, "").as_deref(), Ok("-infinity"));
        assert_eq!(interval(1, 2, -1_500_000), "P1M2DT-1.500000S");
    }
}
