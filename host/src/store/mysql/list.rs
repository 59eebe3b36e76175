//! Lists as parameters: one text of JSON each, which a statement reads by `JSON_TABLE`. A value that is not there is left out:
//! the servers differ in what they make of a `null`.

use serde::Serialize;

/// Numbers, as `[1, 2]`; objects, as `[{"f": …}, …]`.
pub(super) fn list<T: Serialize>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<T> = items.into_iter().collect();
    serde_json::to_string(&items).unwrap_or_else(|_| "[]".into()) // Texts and numbers can always be written.
}
