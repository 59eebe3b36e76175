//! What a host says on one connection, as far as it tells where a commit is and whose.

use std::collections::HashMap;
use std::sync::Arc;

use crate::experiment::proxy::Of;

/// What the host has said on one connection.
#[derive(Default)]
pub(super) struct Talk {
    /// Texts of prepared statements, and of portals, by name.
    statements: HashMap<Vec<u8>, Arc<str>>,
    portals: HashMap<Vec<u8>, Arc<str>>,
    in_transaction: bool,
    /// What was run since the last commit.
    pub(super) ran: Vec<Arc<str>>,
}

impl Talk {
    /// Takes a message in. True if the server would commit by it.
    pub(super) fn hear(&mut self, kind: u8, body: &[u8]) -> bool {
        let mut parts = body.split(|byte| *byte == 0);
        let mut part = || parts.next().unwrap_or_default();
        match kind {
            b'Q' => {
                let text = String::from_utf8_lossy(part()).into();
                self.run(text) || !self.in_transaction
            }
            b'P' => {
                let (name, text) = (part().to_vec(), String::from_utf8_lossy(part()).into());
                self.statements.insert(name, text);
                false
            }
            b'B' => {
                let (portal, name) = (part().to_vec(), part());
                if let Some(text) = self.statements.get(name) {
                    self.portals.insert(portal, Arc::clone(text));
                }
                false
            }
            b'E' => self.portals.get(part()).cloned().is_some_and(|text| self.run(text)),
            b'S' => !self.in_transaction && !self.ran.is_empty(),
            _ => false,
        }
    }

    /// What was run last is an acknowledgement.
    pub(super) fn acknowledges(&self) -> bool {
        self.ran.last().is_some_and(|text| Of::Acknowledgement.is_in(text))
    }

    /// A statement runs. True if it is a COMMIT.
    fn run(&mut self, text: Arc<str>) -> bool {
        let first =
            text.split(|letter: char| !letter.is_ascii_alphabetic()).next().unwrap_or_default().to_ascii_uppercase();
        let (begins, commits) =
            (matches!(first.as_str(), "BEGIN" | "START"), matches!(first.as_str(), "COMMIT" | "END"));
        let undoes = matches!(first.as_str(), "ROLLBACK" | "ABORT") && !text.to_ascii_uppercase().contains(" TO ");
        if begins || undoes {
            self.ran.clear();
        }
        self.in_transaction = (self.in_transaction || begins) && !commits && !undoes;
        if !commits && !undoes {
            self.ran.push(text);
        }
        commits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(talk: &mut Talk, kind: u8, parts: &[&str]) -> bool {
        talk.hear(kind, parts.iter().flat_map(|part| [part.as_bytes(), b"\0"].concat()).collect::<Vec<u8>>().as_slice())
    }

    #[test]
    fn a_commit_is_known_however_it_is_said() {
        let mut talk = Talk::default();
        assert!(!hear(&mut talk, b'Q', &["BEGIN ISOLATION LEVEL READ COMMITTED"]));
        assert!(!hear(&mut talk, b'P', &["s1", "SELECT semel_api.ack($1)"]));
        assert!(!hear(&mut talk, b'S', &[]), "prepared is not run");
        assert!(!hear(&mut talk, b'B', &["", "s1"]));
        assert!(!hear(&mut talk, b'E', &[""]));
        assert!(!hear(&mut talk, b'S', &[]), "inside of a transaction");
        assert!(!hear(&mut talk, b'Q', &["ROLLBACK TO semel_0"]));
        assert!(hear(&mut talk, b'Q', &["commit"]));
        assert!(talk.ran.iter().any(|text| text.contains("semel_api.ack(")));

        talk.ran.clear();
        assert!(!hear(&mut talk, b'B', &["p", "s1"]));
        assert!(!hear(&mut talk, b'E', &["p"]));
        assert!(hear(&mut talk, b'S', &[]), "outside of a transaction a statement commits by itself");

        talk.ran.clear();
        assert!(!hear(&mut talk, b'Q', &["BEGIN"]));
        assert!(!hear(&mut talk, b'P', &["", "COMMIT"]));
        assert!(!hear(&mut talk, b'B', &["", ""]));
        assert!(hear(&mut talk, b'E', &[""]), "by a prepared statement");
    }
}
