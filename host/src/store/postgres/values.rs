//! The conversion table between `value` of `wit/transaction.wit` and the types of Postgres, in the protocol's binary form.
//!
//! A parameter is converted to the type that the server infers for its place; where there is no direct way, by the type's
//! own input function on the server (`guest_sql.rs`), from the value's text. A column comes back as its own case, or as
//! `other` with the server's text of it.

use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type};

use crate::store::Value;

/// The types that have a case of their own, by their numbers in `pg_type`.
mod oid {
    pub(super) const BOOL: u32 = 16;
    pub(super) const BYTEA: u32 = 17;
    pub(super) const NAME: u32 = 19;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const INT4: u32 = 23;
    pub(super) const TEXT: u32 = 25;
    pub(super) const JSON: u32 = 114;
    pub(super) const FLOAT4: u32 = 700;
    pub(super) const FLOAT8: u32 = 701;
    pub(super) const INT2_ARRAY: u32 = 1005;
    pub(super) const INT4_ARRAY: u32 = 1007;
    pub(super) const TEXT_ARRAY: u32 = 1009;
    pub(super) const BPCHAR_ARRAY: u32 = 1014;
    pub(super) const VARCHAR_ARRAY: u32 = 1015;
    pub(super) const INT8_ARRAY: u32 = 1016;
    pub(super) const FLOAT4_ARRAY: u32 = 1021;
    pub(super) const FLOAT8_ARRAY: u32 = 1022;
    pub(super) const BPCHAR: u32 = 1042;
    pub(super) const VARCHAR: u32 = 1043;
    pub(super) const DATE: u32 = 1082;
    pub(super) const TIME: u32 = 1083;
    pub(super) const TIMESTAMP: u32 = 1114;
    pub(super) const TIMESTAMPTZ: u32 = 1184;
    pub(super) const INTERVAL: u32 = 1186;
    pub(super) const NUMERIC: u32 = 1700;
    pub(super) const UUID: u32 = 2950;
    pub(super) const JSONB: u32 = 3802;
}

/// The first day and microsecond of Postgres: 2000-01-01, from 1970-01-01.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A value in the protocol's binary form, of any type; none is NULL.
#[derive(Debug, Clone)]
pub(super) struct Raw(pub(super) Option<Vec<u8>>);

impl ToSql for Raw {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let Some(bytes) = &self.0 else { return Ok(IsNull::Yes) };
        out.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, of: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        self.to_sql(of, out)
    }
}

/// A column of a row in the protocol's binary form, of any type.
pub(super) struct Seen<'row>(pub(super) &'row [u8]);

impl<'row> FromSql<'row> for Seen<'row> {
    fn from_sql(_: &Type, bytes: &'row [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(bytes))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// How a parameter gets to the server.
#[derive(Debug, PartialEq)]
pub(super) enum Parameter {
    Binary(Option<Vec<u8>>),
    /// By the type's input function.
    Text(String),
}

/// A parameter for a place of this type.
pub(super) fn parameter(value: &Value, oid: u32) -> Result<Parameter, String> {
    if let Value::Text(text) | Value::Json(text) | Value::Decimal(text) | Value::Other { text, .. } = value
        && text.contains('\0')
    {
        return Err("a text must not contain NUL".into());
    }
    match direct(value, oid)? {
        Some(bytes) => Ok(Parameter::Binary(bytes)),
        None => text(value, oid)
            .map(Parameter::Text)
            .ok_or_else(|| "there is no conversion to the type of its place".into()),
    }
}

/// In binary form, where the value's case is the type's own; none where it is not.
fn direct(value: &Value, oid: u32) -> Result<Option<Option<Vec<u8>>>, String> {
    let bytes = match (value, oid) {
        (Value::Null, _) => return Ok(Some(None)),
        (Value::Boolean(truth), oid::BOOL) => vec![u8::from(*truth)],
        (Value::Int32(number), _) => return integer(i64::from(*number), oid),
        (Value::Int64(number), _) => return integer(*number, oid),
        (Value::Float64(number), oid::FLOAT8) => number.to_be_bytes().to_vec(),
        (Value::Float64(number), oid::FLOAT4) => {
            #[expect(clippy::cast_possible_truncation, reason = "the type is for numbers that are not exact")]
            let short = *number as f32;
            if short.is_infinite() && number.is_finite() {
                return Err("it is out of range of its place".into());
            }
            short.to_be_bytes().to_vec()
        }
        (Value::Text(text), oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::JSON)
        | (Value::Json(text), oid::JSON | oid::TEXT | oid::VARCHAR) => text.clone().into_bytes(),
        (Value::Json(text) | Value::Text(text), oid::JSONB) => [&[1], text.as_bytes()].concat(),
        (Value::Bytes(bytes), oid::BYTEA) => bytes.clone(),
        (Value::Uuid(text), oid::UUID) => {
            let uuid = uuid::Uuid::parse_str(text).map_err(|_| "it is no UUID".to_owned())?;
            uuid.as_bytes().to_vec()
        }
        (Value::Date(days), oid::DATE) => match *days {
            infinity @ (i32::MIN | i32::MAX) => infinity,
            days => days.checked_sub(EPOCH_DAYS).ok_or("the date is out of range")?,
        }
        .to_be_bytes()
        .to_vec(),
        (Value::Time(micros), oid::TIME) => {
            if !(0..=86_400_000_000).contains(micros) {
                return Err("a time of day is 0 to 86400000000 microseconds".into());
            }
            micros.to_be_bytes().to_vec()
        }
        (Value::Timestamp(micros), oid::TIMESTAMP) | (Value::Timestamptz(micros), oid::TIMESTAMPTZ) => match *micros {
            infinity @ (i64::MIN | i64::MAX) => infinity,
            micros => micros.checked_sub(EPOCH_MICROS).ok_or("the time is out of range")?,
        }
        .to_be_bytes()
        .to_vec(),
        (Value::Interval { months, days, micros }, oid::INTERVAL) => {
            [&micros.to_be_bytes()[..], &days.to_be_bytes(), &months.to_be_bytes()].concat()
        }
        (Value::Int64Array(items), oid::INT8_ARRAY) => array(oid::INT8, items, |item| item.to_be_bytes().to_vec()),
        (Value::Float64Array(items), oid::FLOAT8_ARRAY) => {
            array(oid::FLOAT8, items, |item| item.to_be_bytes().to_vec())
        }
        (Value::TextArray(items), oid::TEXT_ARRAY) => array(oid::TEXT, items, |item| item.clone().into_bytes()),
        _ => return Ok(None),
    };
    Ok(Some(Some(bytes)))
}

fn integer(number: i64, oid: u32) -> Result<Option<Option<Vec<u8>>>, String> {
    let range = |_| "it is out of range of its place".to_owned();
    Ok(match oid {
        oid::INT2 => Some(Some(i16::try_from(number).map_err(range)?.to_be_bytes().to_vec())),
        oid::INT4 => Some(Some(i32::try_from(number).map_err(range)?.to_be_bytes().to_vec())),
        oid::INT8 => Some(Some(number.to_be_bytes().to_vec())),
        oid::FLOAT8 if number.unsigned_abs() <= 1 << 53 => {
            #[expect(clippy::cast_precision_loss, reason = "no more than 53 bits")]
            let float = number as f64;
            Some(Some(float.to_be_bytes().to_vec()))
        }
        _ => None,
    })
}

fn array<T>(oid: u32, items: &[Option<T>], bytes: impl Fn(&T) -> Vec<u8>) -> Vec<u8> {
    let length = |length: usize| i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes();
    let dimensions = i32::from(!items.is_empty());
    let mut out = [dimensions.to_be_bytes(), 1_i32.to_be_bytes(), oid.to_be_bytes()].concat();
    if !items.is_empty() {
        out.extend([length(items.len()), 1_i32.to_be_bytes()].concat());
    }
    for item in items {
        match item.as_ref().map(&bytes) {
            None => out.extend((-1_i32).to_be_bytes()),
            Some(item) => {
                out.extend(length(item.len()));
                out.extend(item);
            }
        }
    }
    out
}

/// As text, for the type's input function; none where something could get lost on the way.
fn text(value: &Value, oid: u32) -> Option<String> {
    let texts = matches!(oid, oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME);
    let one = |item: &Option<String>| match item {
        None => "NULL".to_owned(),
        Some(item) => format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\"")),
    };
    let list = |items: Vec<String>| Some(format!("{{{}}}", items.join(",")));
    match value {
        Value::Text(text)
        | Value::Decimal(text)
        | Value::Uuid(text)
        | Value::Json(text)
        | Value::Other { text, .. } => Some(text.clone()),
        Value::Int32(number) if texts || oid == oid::NUMERIC => Some(number.to_string()),
        Value::Int64(number) if texts || oid == oid::NUMERIC => Some(number.to_string()),
        Value::Float64(number) if texts || oid == oid::NUMERIC => Some(number.to_string()),
        Value::Int64Array(items) => list(items.iter().map(|item| one(&item.map(|item| item.to_string()))).collect()),
        Value::Float64Array(items) => list(items.iter().map(|item| one(&item.map(|item| item.to_string()))).collect()),
        Value::TextArray(items) => list(items.iter().map(one).collect()),
        _ => None,
    }
}

/// A column of a row: a value of its own case; none if only the server knows its text.
pub(super) fn value(oid: u32, bytes: &[u8]) -> Option<Value> {
    let string = || String::from_utf8(bytes.to_vec()).ok();
    Some(match oid {
        oid::BOOL => Value::Boolean(bytes.first() == Some(&1)),
        oid::BYTEA => Value::Bytes(bytes.to_vec()),
        oid::INT2 => Value::Int32(i16::from_be_bytes(bytes.try_into().ok()?).into()),
        oid::INT4 => Value::Int32(i32::from_be_bytes(bytes.try_into().ok()?)),
        oid::INT8 => Value::Int64(i64::from_be_bytes(bytes.try_into().ok()?)),
        oid::FLOAT4 => Value::Float64(f32::from_be_bytes(bytes.try_into().ok()?).into()),
        oid::FLOAT8 => Value::Float64(f64::from_be_bytes(bytes.try_into().ok()?)),
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME => Value::Text(string()?),
        oid::JSON => Value::Json(string()?),
        oid::JSONB => Value::Json(String::from_utf8(bytes.get(1..)?.to_vec()).ok()?),
        oid::UUID => Value::Uuid(uuid::Uuid::from_slice(bytes).ok()?.to_string()),
        oid::NUMERIC => Value::Decimal(numeric(bytes)?),
        oid::DATE => Value::Date(match i32::from_be_bytes(bytes.try_into().ok()?) {
            infinity @ (i32::MIN | i32::MAX) => infinity,
            days => days.checked_add(EPOCH_DAYS)?,
        }),
        oid::TIME => Value::Time(i64::from_be_bytes(bytes.try_into().ok()?)),
        oid::TIMESTAMP => Value::Timestamp(micros(bytes)?),
        oid::TIMESTAMPTZ => Value::Timestamptz(micros(bytes)?),
        oid::INTERVAL => Value::Interval {
            micros: i64::from_be_bytes(bytes.get(..8)?.try_into().ok()?),
            days: i32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?),
            months: i32::from_be_bytes(bytes.get(12..16)?.try_into().ok()?),
        },
        oid::INT2_ARRAY | oid::INT4_ARRAY | oid::INT8_ARRAY => {
            Value::Int64Array(items(bytes, |element, item| match value(element, item)? {
                Value::Int32(number) => Some(number.into()),
                Value::Int64(number) => Some(number),
                _ => None,
            })?)
        }
        oid::FLOAT4_ARRAY | oid::FLOAT8_ARRAY => {
            Value::Float64Array(items(bytes, |element, item| match value(element, item)? {
                Value::Float64(number) => Some(number),
                _ => None,
            })?)
        }
        oid::TEXT_ARRAY | oid::VARCHAR_ARRAY | oid::BPCHAR_ARRAY => {
            Value::TextArray(items(bytes, |_, item| String::from_utf8(item.to_vec()).ok())?)
        }
        _ => return None,
    })
}

fn micros(bytes: &[u8]) -> Option<i64> {
    match i64::from_be_bytes(bytes.try_into().ok()?) {
        infinity @ (i64::MIN | i64::MAX) => Some(infinity),
        micros => micros.checked_add(EPOCH_MICROS),
    }
}

/// The items of an array of one dimension that begins at 1; others have no case.
fn items<T>(bytes: &[u8], read: impl Fn(u32, &[u8]) -> Option<T>) -> Option<Vec<Option<T>>> {
    let number = |at: usize| Some(i32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let element = number(8)?.cast_unsigned();
    match number(0)? {
        0 => return Some(Vec::new()),
        1 if number(16)? == 1 => {}
        _ => return None,
    }
    let mut items = Vec::new();
    let mut at = 20;
    for _ in 0..number(12)? {
        let length = number(at)?;
        at += 4;
        let Ok(length) = usize::try_from(length) else {
            items.push(None); // -1: NULL.
            continue;
        };
        items.push(Some(read(element, bytes.get(at..at + length)?)?));
        at += length;
    }
    Some(items)
}

/// Plain decimal notation of a `numeric`: groups of four digits, the first of weight 10000^`weight`.
fn numeric(bytes: &[u8]) -> Option<String> {
    let word = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let (count, weight, sign, scale) = (word(0)?, word(2)?.cast_signed(), word(4)?, usize::from(word(6)?));
    let sign = match sign {
        0xC000 => return Some("NaN".into()),
        0xD000 => return Some("Infinity".into()),
        0xF000 => return Some("-Infinity".into()),
        0x4000 => "-",
        _ => "",
    };
    let group = |weight_of: i32| {
        let place = usize::try_from(i32::from(weight) - weight_of).ok().filter(|place| *place < usize::from(count));
        place.and_then(|place| word(8 + 2 * place)).unwrap_or(0)
    };
    let mut whole = String::new();
    for weight_of in (0..=i32::from(weight)).rev() {
        whole.push_str(&format!("{:04}", group(weight_of)));
    }
    let whole = whole.trim_start_matches('0');
    let mut fraction = String::new();
    let mut weight_of = -1;
    while fraction.len() < scale {
        fraction.push_str(&format!("{:04}", group(weight_of)));
        weight_of -= 1;
    }
    fraction.truncate(scale);
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{}{point}{fraction}", if whole.is_empty() { "0" } else { whole }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerics_become_plain_decimals() {
        let words = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
        assert_eq!(numeric(&words(&[2, 0, 0, 2, 1, 2300])).as_deref(), Some("1.23"));
        assert_eq!(numeric(&words(&[1, 1, 0x4000, 0, 12])).as_deref(), Some("-120000"));
        assert_eq!(numeric(&words(&[1, 0xFFFE, 0, 8, 5])).as_deref(), Some("0.00000005"));
        assert_eq!(numeric(&words(&[0, 0, 0, 0])).as_deref(), Some("0"));
        assert_eq!(numeric(&words(&[0, 0, 0xC000, 0])).as_deref(), Some("NaN"));
    }

    #[test]
    fn arrays_come_back_as_they_went() {
        let items_sent = vec![Some(1_i64), None, Some(i64::MIN)];
        let Ok(Parameter::Binary(Some(bytes))) = parameter(&Value::Int64Array(items_sent.clone()), oid::INT8_ARRAY)
        else {
            panic!("no binary form");
        };
        assert_eq!(value(oid::INT8_ARRAY, &bytes), Some(Value::Int64Array(items_sent)));
    }

    #[test]
    fn what_would_get_lost_is_refused() {
        assert!(parameter(&Value::Int64(40_000), oid::INT2).is_err());
        assert!(parameter(&Value::Float64(1e300), oid::FLOAT4).is_err());
        assert!(parameter(&Value::Timestamp(1), oid::DATE).is_err());
        assert!(parameter(&Value::Text("a\0".into()), oid::TEXT).is_err());
    }
}
