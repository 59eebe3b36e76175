//! Hosts that end at a crash point: what arms one, and whether it fired.

use std::ffi::OsString;
use std::path::Path;

use crate::crash::Point;

/// The environment of a host that does this at that point, and then says so in a file.
pub(super) fn armed(point: Point, action: &str, fired: &Path) -> Vec<(String, OsString)> {
    vec![
        ("SEMEL_CRASH".to_owned(), format!("{}:{action}", point.name()).into()),
        ("SEMEL_CRASH_FIRED".to_owned(), fired.into()),
    ]
}

/// The point that fired last, as the host has written it down before it ended.
pub(super) fn last_fired(file: &Path) -> Option<Point> {
    let text = std::fs::read_to_string(file).ok()?;
    let last = text.lines().last()?;
    Point::ALL.iter().copied().find(|point| point.name() == last)
}
