//! Functions of SQLite whose own implementation takes time that grows with the square of its arguments, in linear time:
//! `instr`, `replace`, `trim`, `ltrim`, `rtrim` and `unhex` with two arguments. Nothing interrupts a function, so a long
//! one would hold the writer past every deadline.
//!
//! They give what SQLite's give, for any bytes. `json_patch` is as slow and is not rebuilt: guests cannot call it.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, c_int, c_void};
use std::ptr::null_mut;

use libsqlite3_sys as ffi;
use memchr::memmem;

use super::Error;

type Function = unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);

/// Replaces the functions on one connection.
#[expect(unsafe_code, reason = "SQLite's C interface")]
pub(super) fn register(database: *mut ffi::sqlite3) -> Result<(), Error> {
    const FUNCTIONS: [(&CStr, c_int, Function); 9] = [
        (c"instr", 2, call_instr),
        (c"replace", 3, call_replace),
        (c"trim", 1, call_trim::<true, true>),
        (c"trim", 2, call_trim::<true, true>),
        (c"ltrim", 1, call_trim::<true, false>),
        (c"ltrim", 2, call_trim::<true, false>),
        (c"rtrim", 1, call_trim::<false, true>),
        (c"rtrim", 2, call_trim::<false, true>),
        (c"unhex", 2, call_unhex),
    ];
    let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_DETERMINISTIC | ffi::SQLITE_INNOCUOUS;
    for (name, arguments, function) in FUNCTIONS {
        let none: *mut c_void = null_mut();
        // SAFETY: the caller has the connection to itself; the name ends with NUL; the functions live for ever.
        let code = unsafe {
            let (name, call) = (name.as_ptr(), Some(function));
            ffi::sqlite3_create_function_v2(database, name, arguments, flags, none, call, None, None, None)
        };
        if code != ffi::SQLITE_OK {
            return Err(Error::Broken(format!("this SQLite takes no functions (code {code})")));
        }
    }
    Ok(())
}

/// Where the needle begins, counted from 1 in bytes or, in texts, in characters; 0 if it is not there.
fn instr(haystack: &[u8], needle: &[u8], text: bool) -> usize {
    let begins = |byte: u8| !text || !is_continuation(byte);
    match needle.first() {
        None => 1,
        // Not the beginning of a character: nothing after the first byte is compared with it.
        Some(first) if !begins(*first) => haystack.starts_with(needle).into(),
        Some(_) => memmem::find(haystack, needle)
            .map_or(0, |place| 1 + haystack[1..=place].iter().filter(|byte| begins(**byte)).count()),
    }
}

/// With every occurrence replaced; none if the result would be longer than `limit`.
fn replace(text: &[u8], pattern: &[u8], by: &[u8], limit: usize) -> Option<Vec<u8>> {
    if pattern.first().is_none_or(|first| *first == 0) {
        return Some(text.to_vec());
    }
    let mut made = Vec::new();
    let mut rest = 0;
    for place in memmem::find_iter(text, pattern) {
        made.extend_from_slice(&text[rest..place]);
        made.extend_from_slice(by);
        rest = place + pattern.len();
        if made.len() > limit {
            return None;
        }
    }
    made.extend_from_slice(&text[rest..]);
    Some(made).filter(|made| made.len() <= limit)
}

/// What is left without these characters at the sides asked for.
fn trim<'a>(text: &'a [u8], set: &[u8], left: bool, right: bool) -> &'a [u8] {
    let mut known = HashMap::new();
    for (order, character) in characters(set).enumerate() {
        known.entry(character).or_insert(order);
    }
    let longest = known.keys().map(|character| character.len()).max().unwrap_or(0).min(LONGEST_CHARACTER);
    // In bytes that are no UTF-8 one character may begin another: the first in the set counts, as in SQLite.
    let length = |at: &dyn Fn(usize) -> Option<&'a [u8]>| {
        let found = (1..=longest).filter_map(|length| Some((known.get(at(length)?)?, length)));
        found.min().map(|(_, length)| length)
    };
    let mut kept = text;
    while left && let Some(length) = length(&|length| kept.get(..length)) {
        kept = &kept[length..];
    }
    while right && let Some(length) = length(&|length| kept.get(kept.len().checked_sub(length)?..)) {
        kept = &kept[..kept.len() - length];
    }
    kept
}

/// In bytes: four times what UTF-8 has. SQLite takes any number of continuing bytes for one character; longer ones are
/// never trimmed here, which bounds what one place of a text costs.
const LONGEST_CHARACTER: usize = 16;

/// The characters of a text, up to the first NUL. A character is a byte and all that continue it.
fn characters(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = until_nul(text);
    std::iter::from_fn(move || {
        let first = rest.first()?;
        let continued = rest[1..].iter().take_while(|byte| *first >= 0xc0 && is_continuation(**byte)).count();
        let (character, further) = rest.split_at(1 + continued);
        rest = further;
        Some(character)
    })
}

/// The bytes that hexadecimal digits stand for, with only these characters between them.
fn unhex(text: &[u8], between: &[u8]) -> Option<Vec<u8>> {
    let mut allowed = HashSet::new();
    let mut rest = between;
    while let Some((point, length)) = code_point(rest) {
        allowed.insert(point);
        rest = &rest[length..];
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut made = Vec::new();
    let mut rest = until_nul(text);
    while let Some(first) = rest.first() {
        if let Some(high) = digit(*first) {
            made.push(high << 4 | digit(*rest.get(1)?)?);
            rest = &rest[2..];
        } else {
            let (point, length) = code_point(rest)?;
            allowed.contains(&point).then_some(())?;
            rest = &rest[length..];
        }
    }
    Some(made)
}

/// The first code point as SQLite reads it, also where it is none, and its length in bytes.
fn code_point(text: &[u8]) -> Option<(u32, usize)> {
    let first = *text.first()?;
    if first < 0xc0 {
        return Some((first.into(), 1));
    }
    let lead = match first {
        0xc0..0xe0 => first & 0x1f,
        0xe0..0xf0 => first & 0x0f,
        0xf0..0xf8 => first & 0x07,
        0xf8..0xfc => first & 0x03,
        _ => first & 0x01,
    };
    let lead = if first >= 0xfe { 0 } else { lead };
    let continued = text[1..].iter().take_while(|byte| is_continuation(**byte));
    let (point, length) =
        continued.fold((u32::from(lead), 1), |(point, length), byte| (point << 6 | u32::from(byte & 0x3f), length + 1));
    let wrong = point < 0x80 || point & 0xffff_f800 == 0xd800 || point & 0xffff_fffe == 0xfffe;
    Some((if wrong { 0xfffd } else { point }, length))
}

fn until_nul(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

#[expect(unsafe_code, reason = "called by SQLite's C code")]
unsafe extern "C" fn call_instr(context: *mut ffi::sqlite3_context, _: c_int, arguments: *mut *mut ffi::sqlite3_value) {
    // SAFETY: SQLite passes as many arguments as were registered, and they live until the function returns.
    unsafe {
        let blob = |index| ffi::sqlite3_value_type(*arguments.add(index)) == ffi::SQLITE_BLOB;
        let text = !(blob(0) && blob(1));
        if let (Some(haystack), Some(needle)) = (bytes(*arguments), bytes(*arguments.add(1))) {
            let place = instr(haystack, needle, text);
            ffi::sqlite3_result_int64(context, i64::try_from(place).unwrap_or(i64::MAX));
        }
    }
}

#[expect(unsafe_code, reason = "called by SQLite's C code")]
unsafe extern "C" fn call_replace(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: as in `call_instr`.
    unsafe {
        let (Some(text), Some(pattern)) = (bytes(*arguments), bytes(*arguments.add(1))) else { return };
        // SQLite does not look at the third argument if there is nothing to look for.
        let by = if pattern.first().is_none_or(|first| *first == 0) { Some(&[][..]) } else { bytes(*arguments.add(2)) };
        let Some(by) = by else { return };
        let database = ffi::sqlite3_context_db_handle(context);
        let limit = usize::try_from(ffi::sqlite3_limit(database, ffi::SQLITE_LIMIT_LENGTH, -1)).unwrap_or(0);
        match replace(text, pattern, by, limit) {
            Some(made) => result_text(context, &made),
            None => ffi::sqlite3_result_error_toobig(context),
        }
    }
}

#[expect(unsafe_code, reason = "called by SQLite's C code")]
unsafe extern "C" fn call_trim<const LEFT: bool, const RIGHT: bool>(
    context: *mut ffi::sqlite3_context,
    count: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: as in `call_instr`.
    unsafe {
        let set = if count == 1 { Some(&b" "[..]) } else { bytes(*arguments.add(1)) };
        if let (Some(text), Some(set)) = (bytes(*arguments), set) {
            result_text(context, trim(text, set, LEFT, RIGHT));
        }
    }
}

#[expect(unsafe_code, reason = "called by SQLite's C code")]
unsafe extern "C" fn call_unhex(context: *mut ffi::sqlite3_context, _: c_int, arguments: *mut *mut ffi::sqlite3_value) {
    // SAFETY: as in `call_instr`; the result is copied.
    unsafe {
        let (Some(text), Some(between)) = (bytes(*arguments), bytes(*arguments.add(1))) else { return };
        if let Some(made) = unhex(text, between) {
            let pointer = made.as_ptr().cast();
            ffi::sqlite3_result_blob64(context, pointer, made.len() as u64, ffi::SQLITE_TRANSIENT());
        }
    }
}

/// The bytes of a value; of a number, those of its text. None for NULL.
#[expect(unsafe_code, reason = "SQLite's C interface")]
unsafe fn bytes<'a>(value: *mut ffi::sqlite3_value) -> Option<&'a [u8]> {
    // SAFETY: the caller's value is alive, and nothing else converts it while the bytes are used.
    unsafe {
        let pointer = match ffi::sqlite3_value_type(value) {
            ffi::SQLITE_NULL => return None,
            ffi::SQLITE_BLOB => ffi::sqlite3_value_blob(value).cast(),
            _ => ffi::sqlite3_value_text(value),
        };
        let length = usize::try_from(ffi::sqlite3_value_bytes(value)).unwrap_or(0);
        match (pointer.is_null(), length) {
            (true, 0) => Some(&[]), // SQLite has no pointer for an empty blob.
            (true, _) => None,
            (false, _) => Some(std::slice::from_raw_parts(pointer, length)),
        }
    }
}

#[expect(unsafe_code, reason = "SQLite's C interface")]
unsafe fn result_text(context: *mut ffi::sqlite3_context, text: &[u8]) {
    let utf8 = u8::try_from(ffi::SQLITE_UTF8).unwrap_or(1);
    // SAFETY: the context is the caller's; the text is copied.
    unsafe {
        let (pointer, length) = (text.as_ptr().cast(), text.len() as u64);
        ffi::sqlite3_result_text64(context, pointer, length, ffi::SQLITE_TRANSIENT(), utf8);
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::super::connection::handle;
    use super::*;

    const CALLS: [&str; 9] = [
        "instr($a, $b)",
        "replace($a, $b, $c)",
        "trim($a)",
        "trim($a, $b)",
        "ltrim($a)",
        "ltrim($a, $b)",
        "rtrim($a)",
        "rtrim($a, $b)",
        "unhex($a, $b)",
    ];

    fn opened() -> rusqlite::Connection {
        rusqlite::Connection::open_in_memory().expect("a connection")
    }

    fn answer(connection: &rusqlite::Connection, sql: &str) -> String {
        connection.query_row(sql, (), |row| row.get(0)).unwrap_or_else(|error| error.to_string())
    }

    /// A value as SQL: few different bytes, so that they match each other, and bytes that are no UTF-8.
    fn value(random: &mut ChaCha8Rng) -> String {
        const PARTS: [&str; 14] =
            ["61", "61", "62", "20", "30", "46", "c3a9", "f09f9880", "c3", "a9", "ff", "2d", "6161", "fe80"];
        let most = if random.random_bool(0.3) { 12 } else { 4 };
        let count = random.random_range(0..most);
        let bytes: String = (0..count).map(|_| PARTS[random.random_range(0..PARTS.len())]).collect();
        match random.random_range(0..12) {
            0 => "NULL".into(),
            1 => random.random_range(-3..120).to_string(),
            2 => "1.25".into(),
            3 => format!("CAST(x'{bytes}00{bytes}' AS TEXT)"),
            4..6 => format!("x'{bytes}'"),
            _ => format!("CAST(x'{bytes}' AS TEXT)"),
        }
    }

    #[test]
    fn they_give_what_sqlites_own_give() {
        let seed = rand::random();
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (plain, ours) = (opened(), opened());
        register(handle(&ours)).expect("functions");
        // A character that is longer than UTF-8 has any is one to SQLite.
        let long = ["CAST(x'62f09f9880a9' AS TEXT)", "x'f09f9880a9ff'", "NULL"].map(String::from);
        let drawn = std::iter::repeat_with(|| std::array::from_fn(|_| value(&mut random)));
        for [a, b, c] in std::iter::once(long).chain(drawn.take(1500)) {
            let shown = CALLS.map(|call| {
                let call = call.replace("$a", &a).replace("$b", &b).replace("$c", &c);
                format!("'{}: ' || typeof({call}) || ' ' || coalesce(hex({call}), '')", call.replace('\'', ""))
            });
            let sql = format!("SELECT {}", shown.join(" || char(10) || "));
            assert_eq!(answer(&ours, &sql), answer(&plain, &sql), "seed {seed}");
        }
    }

    /// What takes SQLite's own functions minutes is done at once: only a hang fails here.
    #[test]
    fn long_texts_take_no_minutes() {
        let connection = opened();
        register(handle(&connection)).expect("functions");
        let (text, pattern) = ("printf('%.*c', 3000000, 'a')", "printf('%.*c', 1500000, 'a') || 'b'");
        for call in [
            format!("instr({text}, {pattern})"),
            format!("length(replace({text}, {pattern}, 'x'))"),
            format!("length(trim({text}, replace(printf('%.*c', 1000000, 'x'), 'x', 'é') || 'a'))"),
            format!("length(unhex({text}, {pattern}))"),
        ] {
            let began = std::time::Instant::now();
            answer(&connection, &format!("SELECT CAST({call} AS TEXT)"));
            assert!(began.elapsed() < std::time::Duration::from_secs(20), "{call} takes too long");
        }
    }
}
