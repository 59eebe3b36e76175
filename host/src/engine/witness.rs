//! A witness of starts outside the database, for experiments and tests: with `SEMEL_WITNESS` set to a file, each start
//! of a guest appends a line `MESSAGE ATTEMPT` to it before the guest's first instruction, with ` together` behind it if
//! other messages have a part in the transaction. Inert otherwise.

use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;

/// A guest is about to start, on this attempt, and alone in its transaction or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) attempt: u32,
    pub(super) shares: bool,
}

/// The witness was asked for and could not write: then nothing may start.
#[derive(Debug, thiserror::Error)]
#[error("the witness file of SEMEL_WITNESS cannot be written: {0}")]
pub(super) struct Failed(String);

static FILE: OnceLock<Option<Result<File, String>>> = OnceLock::new();

/// Writes a start down. One `write` of one line, so that lines of several threads do not mix.
pub(super) fn saw(message: &str, Start { attempt, shares }: Start) -> Result<(), Failed> {
    let open = |path| File::options().append(true).create(true).open(path).map_err(|e| e.to_string());
    match FILE.get_or_init(|| std::env::var_os("SEMEL_WITNESS").map(open)) {
        None => Ok(()),
        Some(Ok(file)) => {
            let (mut file, together) = (file, if shares { " together" } else { "" });
            file.write_all(format!("{message} {attempt}{together}\n").as_bytes()).map_err(|e| Failed(e.to_string()))
        }
        Some(Err(error)) => Err(Failed(error.clone())),
    }
}
