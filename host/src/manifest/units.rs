//! How spans of time and sizes are written wherever people write them: a number and a unit, never a bare number.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::flow::Rate;

/// A time span written as `250ms`, `2s`, `5m`, `24h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Span(#[serde(deserialize_with = "span")] pub Duration);

pub(super) fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse_span(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// Reads a span such as `250ms`, `2s`, `5m` or `24h`: a number and a unit, at most ten years.
///
/// # Errors
/// Says what is wrong with the text and which units there are.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("\"{text}\" is not a time span; write a number and a unit, for example 250ms, 2s, 5m or 24h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let ten_years = 3653 * 86_400_000;
    match number.checked_mul(unit) {
        Some(millis) if millis <= ten_years => Ok(Duration::from_millis(millis)),
        _ => Err(format!("\"{text}\" is longer than ten years")),
    }
}

/// A rate written as `100/s`, `10/m` or `5/h`.
pub(super) fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Rate>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let read = text.split_once('/').and_then(|(count, unit)| {
        let unit = ["s", "m", "h"].contains(&unit).then(|| parse_span(&format!("1{unit}")).ok())??;
        Rate::new(count.parse().ok()?, unit)
    });
    let wrong = || format!("\"{text}\" is not a rate; write a whole number per s, m or h, for example 100/s or 10/m");
    read.map(Some).ok_or_else(|| serde::de::Error::custom(wrong()))
}

/// A size written as `64MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        match bytesize::ByteSize::from_str(&text) {
            Ok(size) if !unit.is_empty() => Ok(Self(size.as_u64())),
            _ => Err(serde::de::Error::custom(format!(
                "\"{text}\" is not a size; write a number and a unit, for example 512KiB or 64MiB"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_spans() {
        assert_eq!(parse_span("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_span("24h"), Ok(Duration::from_secs(86_400)));
        for wrong in ["", "5", "s", "-1s", "1.5s", "5 s", "5 minutes", "99999999999999999999s", "99999999d", "٣s"] {
            assert!(parse_span(wrong).is_err(), "{wrong:?}");
        }
    }
}
