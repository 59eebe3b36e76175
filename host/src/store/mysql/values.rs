//! The conversion table between `value` of `wit/transaction.wit` and the types of MariaDB and MySQL, in the protocol's binary form.
//!
//! A parameter says its own type, and the server converts it to that of its place; what the driver knows no type for goes in as
//! text, which the server reads as its own literals. A column comes back by its type:
//!
//! | type | value |
//! |---|---|
//! | TINYINT(1) | boolean; int32 if it is neither 0 nor 1 |
//! | TINYINT, SMALLINT, MEDIUMINT, INT, YEAR | int32 |
//! | INT UNSIGNED, BIGINT, BIGINT UNSIGNED, BIT | int64; decimal beyond it |
//! | FLOAT, DOUBLE | float64 |
//! | DECIMAL | decimal |
//! | CHAR, VARCHAR, TEXT, ENUM, SET, and MariaDB's JSON, UUID and INET | text |
//! | BINARY, VARBINARY, BLOB | bytes |
//! | MySQL's JSON | json |
//! | DATE, TIME, DATETIME, TIMESTAMP | date, time, timestamp, timestamptz; `other` for a day that is not in the calendar |
//! | GEOMETRY | `other`, with its bytes in hexadecimal digits |

use std::sync::OnceLock;

use jiff::civil;
use sqlx::mysql::{MySqlArguments, MySqlRow, MySqlTypeInfo};
use sqlx::{Arguments, Column, Decode, Encode, MySql, Row, Type, TypeInfo, encode::IsNull, error::BoxDynError};

use crate::store::Value;

/// The driver's types of exact numbers (as text they would be compared as floats) and of NULL (which of another type would not
/// go into every column). It gives them out with a row alone.
static EXACT: OnceLock<MySqlTypeInfo> = OnceLock::new();
static NULL: OnceLock<MySqlTypeInfo> = OnceLock::new();

/// Digits of an exact number, and those behind its point.
const DIGITS: [usize; 2] = [65, 38];
/// In microseconds.
const DAY: i64 = 86_400_000_000;
/// 838:59:59.999999
const LONGEST_TIME: i64 = 3_020_399_999_999;

/// Takes the types of two columns: of exact numbers, and of NULLs.
pub(super) fn learn(exact: &MySqlTypeInfo, null: &MySqlTypeInfo) {
    EXACT.get_or_init(|| exact.clone());
    NULL.get_or_init(|| null.clone());
}

struct Null;

impl Type<MySql> for Null {
    fn type_info() -> MySqlTypeInfo {
        NULL.get().cloned().unwrap_or_else(<str as Type<MySql>>::type_info)
    }
}

impl Encode<'_, MySql> for Null {
    fn encode_by_ref(&self, _: &mut Vec<u8>) -> Result<IsNull, BoxDynError> {
        Ok(IsNull::Yes)
    }
}

/// An exact number in plain notation.
struct Exact<'a>(&'a str);

impl Type<MySql> for Exact<'_> {
    fn type_info() -> MySqlTypeInfo {
        EXACT.get().cloned().unwrap_or_else(<str as Type<MySql>>::type_info)
    }
}

impl<'q> Encode<'q, MySql> for Exact<'_> {
    fn encode_by_ref(&self, out: &mut Vec<u8>) -> Result<IsNull, BoxDynError> {
        <&str as Encode<'q, MySql>>::encode_by_ref(&self.0, out)
    }
}

/// Adds a parameter; or why it cannot be one.
pub(super) fn bind(arguments: &mut MySqlArguments, value: &Value) -> Result<(), String> {
    let done = match value {
        Value::Null => arguments.add(Null),
        Value::Boolean(truth) => arguments.add(*truth),
        Value::Int32(number) => arguments.add(*number),
        Value::Int64(number) => arguments.add(*number),
        Value::Float64(number) if !number.is_finite() => return Err("there are neither NaN nor infinities here".into()),
        Value::Float64(number) => arguments.add(*number),
        Value::Decimal(number) => arguments.add(Exact(exact(number)?)),
        Value::Bytes(bytes) => arguments.add(&bytes[..]),
        Value::Other { type_name, text } if type_name == "geometry" => {
            arguments.add(hex::decode(text).map_err(|_| "a geometry is its bytes in hexadecimal digits".to_owned())?)
        }
        Value::Text(text) | Value::Json(text) | Value::Other { text, .. } if text.contains('\0') => {
            return Err("a text must not contain NUL".into());
        }
        Value::Text(text) | Value::Json(text) | Value::Other { text, .. } => arguments.add(text),
        Value::Uuid(text) => {
            let uuid = uuid::Uuid::parse_str(text).map_err(|_| "it is no UUID".to_owned())?;
            arguments.add(uuid.to_string())
        }
        Value::Date(days) => {
            let date = day(*days).ok_or("the date is out of range")?;
            arguments.add(date.to_string())
        }
        Value::Time(micros) => arguments.add(time_text(*micros)?),
        Value::Timestamp(micros) | Value::Timestamptz(micros) => {
            let days = i32::try_from(micros.div_euclid(DAY)).ok().and_then(day);
            let date = days.ok_or("the time is out of range")?;
            arguments.add(format!("{date} {}", time_text(micros.rem_euclid(DAY))?))
        }
        Value::Interval { .. } => return Err("there is no type for an interval here; write it in the statement".into()),
        Value::Int64Array(_) | Value::Float64Array(_) | Value::TextArray(_) => {
            return Err("there are no arrays here; pass them as JSON and read them with JSON_TABLE".into());
        }
    };
    done.map_err(|error| error.to_string())
}

fn exact(text: &str) -> Result<&str, String> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole = whole.strip_prefix(['-', '+']).unwrap_or(whole);
    let count = [whole.trim_start_matches('0').len() + fraction.len(), fraction.len()];
    match () {
        () if whole.is_empty() && fraction.is_empty() || !digits(whole) || !digits(fraction) => {
            Err("it is no decimal number".into())
        }
        () if count[0] > DIGITS[0] || count[1] > DIGITS[1] => Err("it has too many digits".into()),
        () => Ok(text),
    }
}

/// Of days since 1970-01-01.
fn day(days: i32) -> Option<civil::Date> {
    let span = jiff::Span::new().try_days(days).ok()?;
    civil::date(1970, 1, 1).checked_add(span).ok().filter(|date| date.year() >= 0)
}

fn time_text(micros: i64) -> Result<String, String> {
    if !(-LONGEST_TIME..=LONGEST_TIME).contains(&micros) {
        return Err("a time is at most 838:59:59.999999".into());
    }
    let (sign, micros) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    Ok(format!("{sign}{:02}:{:02}:{:02}.{fraction:06}", seconds / 3600, seconds / 60 % 60, seconds % 60))
}

/// A column of a row.
pub(super) fn value(row: &MySqlRow, column: usize) -> Result<Value, sqlx::Error> {
    let raw = row.try_get_raw(column)?;
    // Not what the driver takes for NULL: to it, a day that is all zeros is one.
    let Ok(bytes) = <&[u8] as Decode<MySql>>::decode(raw) else { return Ok(Value::Null) };
    let of = row.column(column).type_info();
    let unexpected = || sqlx::Error::Protocol(format!("a value of {} bytes of the type {}", bytes.len(), of.name()));
    read(of.name(), is_text(of), bytes).ok_or_else(unexpected)
}

/// The server's name of a column's type. The driver's would be that of bytes wherever texts are compared byte by byte.
pub(super) fn type_name(of: &MySqlTypeInfo) -> String {
    let name = of.name().to_lowercase();
    match name.strip_suffix("blob").or_else(|| name.strip_suffix("binary")) {
        Some(size) if is_text(of) => match name.ends_with("blob") {
            true => format!("{size}text"),
            false => format!("{size}char"),
        },
        _ => name,
    }
}

fn is_text(of: &MySqlTypeInfo) -> bool {
    <str as Type<MySql>>::compatible(of)
}

fn read(name: &str, is_text: bool, bytes: &[u8]) -> Option<Value> {
    let string =
        || String::from_utf8(bytes.to_vec()).map_or_else(|error| Value::Bytes(error.into_bytes()), Value::Text);
    Some(match name {
        "BOOLEAN" => match i8::from_le_bytes(bytes.try_into().ok()?) {
            number @ (0 | 1) => Value::Boolean(number == 1),
            number => Value::Int32(number.into()),
        },
        "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" => Value::Int32(i32::try_from(signed(bytes)?).ok()?),
        "TINYINT UNSIGNED" | "SMALLINT UNSIGNED" | "MEDIUMINT UNSIGNED" | "YEAR" => {
            Value::Int32(i32::try_from(unsigned(bytes)?).ok()?)
        }
        "BIGINT" => Value::Int64(signed(bytes)?),
        "INT UNSIGNED" | "BIGINT UNSIGNED" => whole(unsigned(bytes)?),
        // The most significant byte comes first.
        "BIT" => whole(unsigned(&bytes.iter().rev().copied().collect::<Vec<_>>())?),
        "FLOAT" if bytes.len() == 4 => Value::Float64(f32::from_le_bytes(bytes.try_into().ok()?).into()),
        "FLOAT" | "DOUBLE" => Value::Float64(f64::from_le_bytes(bytes.try_into().ok()?)),
        "DECIMAL" => Value::Decimal(String::from_utf8(bytes.to_vec()).ok()?),
        "JSON" => Value::Json(String::from_utf8(bytes.to_vec()).ok()?),
        "DATE" | "DATETIME" | "TIMESTAMP" => calendar(name, bytes.get(1..)?)?,
        "TIME" => time(bytes.get(1..)?)?,
        "GEOMETRY" => Value::Other { type_name: "geometry".into(), text: hex::encode(bytes) },
        "NULL" => Value::Null,
        "ENUM" | "SET" => string(),
        _ if is_text => string(),
        _ => Value::Bytes(bytes.to_vec()),
    })
}

fn whole(number: u64) -> Value {
    i64::try_from(number).map_or_else(|_| Value::Decimal(number.to_string()), Value::Int64)
}

fn unsigned(bytes: &[u8]) -> Option<u64> {
    let mut all = [0; 8];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u64::from_le_bytes(all))
}

fn signed(bytes: &[u8]) -> Option<i64> {
    let unused = 8_u32.checked_sub(u32::try_from(bytes.len()).ok()?).filter(|unused| *unused < 8)? * 8;
    Some((unsigned(bytes)? << unused).cast_signed() >> unused)
}

/// Of year, month, day, hour, minute, second and microsecond those that are not zero, up to the last.
fn calendar(name: &str, bytes: &[u8]) -> Option<Value> {
    let mut all = [0; 11];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let [year_0, year_1, month, day, hour, minute, second, micros @ ..] = all;
    let (year, micros) = (u16::from_le_bytes([year_0, year_1]), u32::from_le_bytes(micros));
    let date =
        i16::try_from(year).ok().and_then(|year| civil::Date::new(year, month.cast_signed(), day.cast_signed()).ok());
    let since = date.and_then(|date| civil::date(1970, 1, 1).until(date).ok()); // In days, unless asked otherwise.
    let Some(days) = since.map(|since| since.get_days()) else {
        let date = format!("{year:04}-{month:02}-{day:02}");
        let text = match name {
            "DATE" => date,
            _ => format!("{date} {hour:02}:{minute:02}:{second:02}.{micros:06}"),
        };
        return Some(Value::Other { type_name: name.to_lowercase(), text });
    };
    let seconds = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
    let at = i64::from(days) * DAY + seconds * 1_000_000 + i64::from(micros);
    Some(match name {
        "DATE" => Value::Date(days),
        "DATETIME" => Value::Timestamp(at),
        _ => Value::Timestamptz(at),
    })
}

/// Sign, days, hours, minutes, seconds and microseconds, in the same way.
fn time(bytes: &[u8]) -> Option<Value> {
    let mut all = [0; 12];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let [negative, day_0, day_1, day_2, day_3, hours, minutes, seconds, micros @ ..] = all;
    let days = i64::from(u32::from_le_bytes([day_0, day_1, day_2, day_3]));
    let seconds = ((days * 24 + i64::from(hours)) * 60 + i64::from(minutes)) * 60 + i64::from(seconds);
    let micros = seconds * 1_000_000 + i64::from(u32::from_le_bytes(micros));
    Some(Value::Time(if negative == 0 { micros } else { -micros }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_by_their_type() {
        assert_eq!(read("INT", false, &(-5_i32).to_le_bytes()), Some(Value::Int32(-5)));
        assert_eq!(read("SMALLINT", false, &[0, 0x80]), Some(Value::Int32(-32768)));
        assert_eq!(read("INT UNSIGNED", false, &[0xff; 4]), Some(Value::Int64(4_294_967_295)));
        assert_eq!(read("BIGINT", false, &i64::MIN.to_le_bytes()), Some(Value::Int64(i64::MIN)));
        assert_eq!(read("BIGINT UNSIGNED", false, &[0xff; 8]), Some(Value::Decimal(u64::MAX.to_string())));
        assert_eq!(read("BIT", false, &[1, 2]), Some(Value::Int64(258)));
        assert_eq!(read("BOOLEAN", false, &[1]), Some(Value::Boolean(true)));
        assert_eq!(read("BOOLEAN", false, &[0xff]), Some(Value::Int32(-1)));
        assert_eq!(read("INT", false, &[]), None);
        assert_eq!(read("BIGINT", false, &[0; 9]), None);
    }

    #[test]
    fn calendars_come_back_and_days_that_are_none() {
        assert_eq!(read("DATE", false, &[4, 0xb2, 0x07, 1, 2]), Some(Value::Date(1)));
        assert_eq!(read("DATE", false, &[4, 0xb1, 0x07, 12, 31]), Some(Value::Date(-1)));
        assert_eq!(read("DATE", false, &[4, 0x0f, 0x27, 12, 31]), Some(Value::Date(2_932_896)));
        assert_eq!(read("DATETIME", false, &[7, 0xb2, 0x07, 1, 1, 0, 0, 2]), Some(Value::Timestamp(2_000_000)));
        let micros = [11, 0xb1, 0x07, 12, 31, 23, 59, 59, 0x3f, 0x42, 0x0f, 0];
        assert_eq!(read("TIMESTAMP", false, &micros), Some(Value::Timestamptz(-1)));
        let other = |type_name: &str, text: &str| Some(Value::Other { type_name: type_name.into(), text: text.into() });
        assert_eq!(read("DATE", false, &[0]), other("date", "0000-00-00"));
        assert_eq!(read("DATETIME", false, &[0]), other("datetime", "0000-00-00 00:00:00.000000"));
        assert_eq!(read("TIME", false, &[0]), Some(Value::Time(0)));
        assert_eq!(read("TIME", false, &[8, 1, 1, 0, 0, 0, 1, 2, 3]), Some(Value::Time(-(86_400 + 3_723) * 1_000_000)));
    }

    #[test]
    fn parameters_are_written_as_the_server_reads_them() {
        assert_eq!(time_text(-3_661_000_001).as_deref(), Ok("-01:01:01.000001"));
        assert!(time_text(LONGEST_TIME + 1).is_err());
        assert_eq!(day(-1).map(|date| date.to_string()).as_deref(), Some("1969-12-31"));
        assert_eq!((day(i32::MAX), day(i32::MIN)), (None, None));
        for (text, fits) in
            [("1", true), ("-0.50", true), (".5", true), ("", false), ("-", false), ("1e5", false), ("NaN", false)]
        {
            assert_eq!(exact(text).is_ok(), fits, "{text}");
        }
        assert!(exact(&"9".repeat(65)).is_ok() && exact(&"9".repeat(66)).is_err());
    }
}
