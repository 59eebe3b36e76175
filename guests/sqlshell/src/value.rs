//! SQL values as JSON, the same in both directions.
//!
//! Null, booleans, 64-bit integers, floating point numbers and text are what they are in JSON. Every
//! other case of `value` is an object with the name of the case: `{"int32": 1}`, `{"bytes": "00ff"}`,
//! `{"interval": {"months": 1, "days": 2, "micros": 3}}`, `{"other": {"type": "inet", "text": "::1"}}`.

use crate::semel::function::transaction::{Interval, OtherValue, Value};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value as Json, json};

#[derive(Deserialize)]
struct Span {
    months: i32,
    days: i32,
    micros: i64,
}

#[derive(Deserialize)]
struct Other {
    r#type: String,
    text: String,
}

pub fn from_json(json: &Json) -> Result<Value, String> {
    let tagged = match json {
        Json::Null => return Ok(Value::Null),
        Json::Bool(flag) => return Ok(Value::Boolean(*flag)),
        Json::String(text) => return Ok(Value::Text(text.clone())),
        Json::Number(number) => {
            let float = || number.as_f64().filter(|_| number.is_f64()).map(Value::Float64);
            let value = number.as_i64().map(Value::Int64).or_else(float);
            return value.ok_or_else(|| format!("{number} does not fit 64 bits; write {{\"decimal\": \"{number}\"}}"));
        }
        Json::Object(tagged) if tagged.len() == 1 => tagged.iter().next(),
        Json::Object(_) | Json::Array(_) => None,
    };
    let Some((case, inner)) = tagged else {
        return Err(format!("{json} is not a value; see value.rs"));
    };
    Ok(match case.as_str() {
        "int32" => Value::Int32(read(inner)?),
        "int64" => Value::Int64(read(inner)?),
        "float64" => Value::Float64(float_from_json(inner)?),
        "decimal" => Value::Decimal(read(inner)?),
        "text" => Value::Text(read(inner)?),
        "bytes" => Value::Bytes(from_hex(&read::<String>(inner)?).ok_or("bytes are written as hexadecimal digits")?),
        "json" => Value::Json(read(inner)?),
        "uuid" => Value::Uuid(read(inner)?),
        "date" => Value::Date(read(inner)?),
        "time" => Value::Time(read(inner)?),
        "timestamp" => Value::Timestamp(read(inner)?),
        "timestamptz" => Value::Timestamptz(read(inner)?),
        "interval" => {
            let Span { months, days, micros } = read(inner)?;
            Value::Interval(Interval { months, days, micros })
        }
        "int64-array" => Value::Int64Array(read(inner)?),
        "float64-array" => {
            let items: Vec<Json> = read(inner)?;
            let float = |item: &Json| if item.is_null() { Ok(None) } else { float_from_json(item).map(Some) };
            Value::Float64Array(items.iter().map(float).collect::<Result<_, _>>()?)
        }
        "text-array" => Value::TextArray(read(inner)?),
        "other" => {
            let Other { r#type: type_name, text } = read(inner)?;
            Value::Other(OtherValue { type_name, text })
        }
        unknown => return Err(format!("there is no case {unknown} of value")),
    })
}

pub fn to_json(value: Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Boolean(flag) => json!(flag),
        Value::Int64(number) => json!(number),
        Value::Float64(number) if number.is_finite() => json!(number),
        Value::Text(text) => json!(text),
        Value::Float64(number) => json!({ "float64": float_to_json(number) }),
        Value::Int32(number) => json!({ "int32": number }),
        Value::Decimal(digits) => json!({ "decimal": digits }),
        Value::Bytes(bytes) => json!({ "bytes": to_hex(&bytes) }),
        Value::Json(text) => json!({ "json": text }),
        Value::Uuid(text) => json!({ "uuid": text }),
        Value::Date(days) => json!({ "date": days }),
        Value::Time(micros) => json!({ "time": micros }),
        Value::Timestamp(micros) => json!({ "timestamp": micros }),
        Value::Timestamptz(micros) => json!({ "timestamptz": micros }),
        Value::Interval(Interval { months, days, micros }) => {
            json!({ "interval": { "months": months, "days": days, "micros": micros } })
        }
        Value::Int64Array(items) => json!({ "int64-array": items }),
        Value::Float64Array(items) => {
            let items: Vec<_> = items.into_iter().map(|item| item.map(float_to_json)).collect();
            json!({ "float64-array": items })
        }
        Value::TextArray(items) => json!({ "text-array": items }),
        Value::Other(OtherValue { type_name, text }) => json!({ "other": { "type": type_name, "text": text } }),
    }
}

fn read<T: DeserializeOwned>(json: &Json) -> Result<T, String> {
    T::deserialize(json).map_err(|error| format!("{json}: {error}"))
}

/// JSON has no infinities and no NaN: those are texts.
fn float_to_json(number: f64) -> Json {
    if number.is_finite() { json!(number) } else { json!(number.to_string()) }
}

fn float_from_json(json: &Json) -> Result<f64, String> {
    let number = json.as_f64().or_else(|| json.as_str()?.parse().ok());
    number.ok_or_else(|| format!("{json} is not a floating point number"))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some((digit(high)? * 16 + digit(low)?) as u8));
    if rest.is_empty() { bytes.collect() } else { None }
}
