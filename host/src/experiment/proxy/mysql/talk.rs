//! What is said on one connection to MariaDB or MySQL, as far as it tells where a commit is and whose.

use std::collections::HashMap;
use std::sync::Arc;

use crate::experiment::proxy::Of;

// Commands of the host, by their first byte.
const RUN: u8 = 0x03;
const PREPARE: u8 = 0x16;
const RUN_PREPARED: u8 = 0x17;
const LONG_DATA: u8 = 0x18;
const FORGET: u8 = 0x19;

// How a packet of an answer begins.
const DONE: u8 = 0x00;
const END: u8 = 0xfe;
const REFUSED: u8 = 0xff;

// What the server says of its state at the end of an answer.
const IN_TRANSACTION: u16 = 0x0001;
const BY_ITSELF: u16 = 0x0002;
const MORE: u16 = 0x0008;

/// What the host says it can do: there is no packet of its own between columns and rows, and the last one is like [`DONE`].
const ONE_END: u32 = 1 << 24;

/// What both sides have said on one connection.
#[derive(Default)]
pub(super) struct Talk {
    /// Who the host is has been asked and answered.
    known: bool,
    one_end: bool,
    /// Texts of prepared statements, by the server's number.
    statements: HashMap<u32, Arc<str>>,
    preparing: Option<Arc<str>>,
    answer: Answer,
    /// A statement that runs now is one of a transaction that a COMMIT ends.
    in_transaction: bool,
    /// What was run since the last commit.
    pub(super) ran: Vec<Arc<str>>,
    acknowledges: bool,
}

/// How far the answer to a command has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Answer {
    #[default]
    First,
    Columns(u64),
    BeforeRows,
    Rows,
}

impl Talk {
    /// Begins with the host's answer to the greeting, which tells how answers end.
    pub(super) fn of_login(packet: &[u8]) -> Self {
        let can = packet.first_chunk().map_or(0, |can| u32::from_le_bytes(*can));
        Self { one_end: can & ONE_END != 0, ..Self::default() }
    }

    /// Takes the first packet of a command in, or of a login. True if the server would commit by it.
    pub(super) fn hear(&mut self, packet: &[u8]) -> bool {
        self.acknowledges = false;
        let Some((command, rest)) = packet.split_first().filter(|_| self.known) else { return false };
        let number = rest.first_chunk().map_or(0, |number| u32::from_le_bytes(*number));
        if Self::is_answered(packet) {
            self.answer = Answer::First;
        }
        self.preparing = None;
        match *command {
            RUN => self.run(String::from_utf8_lossy(rest).into()),
            PREPARE => {
                self.preparing = Some(String::from_utf8_lossy(rest).into());
                false
            }
            RUN_PREPARED => self.statements.get(&number).cloned().is_some_and(|text| self.run(text)),
            FORGET => {
                self.statements.remove(&number);
                false
            }
            _ => false,
        }
    }

    /// Whether the server says anything to this command.
    pub(super) fn is_answered(packet: &[u8]) -> bool {
        !matches!(packet.first(), Some(&(LONG_DATA | FORGET)))
    }

    /// What was heard last is an acknowledgement.
    pub(super) fn acknowledges(&self) -> bool {
        self.acknowledges
    }

    /// Takes a packet of the server's in. True if the answer to a command ends with it.
    pub(super) fn answer(&mut self, packet: &[u8]) -> bool {
        let first = packet.first().copied().unwrap_or_default();
        if !self.known {
            self.known = first == DONE;
            if self.known {
                self.status(packet);
            }
            return false;
        }
        match self.answer {
            Answer::First => match first {
                DONE => match self.preparing.take() {
                    None => self.ends(packet),
                    Some(text) => {
                        let number = packet.get(1..5).and_then(|number| number.first_chunk());
                        self.statements.insert(number.map_or(0, |number| u32::from_le_bytes(*number)), text);
                        true // Nobody commits by it: what it says of parameters and columns is not counted.
                    }
                },
                REFUSED => true,
                _ => {
                    self.answer = Answer::Columns(length(packet).map_or(0, |(columns, _)| columns));
                    false
                }
            },
            Answer::Columns(left) => {
                self.answer = match (left, self.one_end) {
                    (2.., _) => Answer::Columns(left - 1),
                    (_, true) => Answer::Rows,
                    (_, false) => Answer::BeforeRows,
                };
                false
            }
            Answer::BeforeRows => {
                self.answer = Answer::Rows;
                false
            }
            Answer::Rows => match first {
                END if packet.len() < 0xff_ffff => self.ends(packet),
                other => other == REFUSED,
            },
        }
    }

    /// At the last packet of a result. False if there is a further result.
    fn ends(&mut self, packet: &[u8]) -> bool {
        self.answer = Answer::First;
        self.status(packet) & MORE == 0
    }

    /// What the server says of its state in such a packet, remembered.
    fn status(&mut self, packet: &[u8]) -> u16 {
        let rest = packet.get(1..).unwrap_or_default();
        let at = match packet.first() {
            Some(&END) if !self.one_end => rest.get(2..),
            _ => length(rest).and_then(|(_, rest)| length(rest)).map(|(_, rest)| rest),
        };
        let status = at.and_then(|at| at.first_chunk()).map_or(0, |status| u16::from_le_bytes(*status));
        self.in_transaction = status & IN_TRANSACTION != 0 || status & BY_ITSELF == 0;
        status
    }

    /// A statement runs. True if it commits.
    fn run(&mut self, text: Arc<str>) -> bool {
        let text: Arc<str> = text.replace('`', "").into();
        let words = text.split(|letter: char| !letter.is_ascii_alphabetic());
        let first = words.into_iter().next().unwrap_or_default().to_ascii_uppercase();
        self.acknowledges = Of::Acknowledgement.is_in(&text);
        match first.as_str() {
            "COMMIT" => return true,
            "BEGIN" | "START" => self.ran.clear(),
            "ROLLBACK" if text.to_ascii_uppercase().contains(" TO ") => {}
            "ROLLBACK" => self.ran.clear(),
            _ => {
                self.ran.push(text);
                return !self.in_transaction;
            }
        }
        false
    }
}

/// A number of the length that its first byte tells, and what stands behind it.
fn length(packet: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = packet.split_first()?;
    let bytes = match first {
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        small => return Some(((*small).into(), rest)),
    };
    let (number, rest) = rest.split_at_checked(bytes)?;
    let mut whole = [0; 8];
    whole.get_mut(..bytes)?.copy_from_slice(number);
    Some((u64::from_le_bytes(whole), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(talk: &mut Talk, command: u8, rest: impl AsRef<[u8]>) -> bool {
        talk.hear(&[&[command], rest.as_ref()].concat())
    }

    /// The server has done what it was asked, and is in this state.
    fn done(talk: &mut Talk, status: u16) {
        let [low, high] = status.to_le_bytes();
        assert!(talk.answer(&[DONE, 1, 0, low, high, 0, 0]));
    }

    fn known(one_end: bool) -> Talk {
        let mut talk = Talk::of_login(&(if one_end { ONE_END } else { 0 }).to_le_bytes());
        assert!(!hear(&mut talk, RUN, "COMMIT"), "part of a password");
        assert!(!talk.answer(&[END, b'x']), "another way to log in");
        assert!(!talk.answer(&[DONE, 0, 0, 2, 0, 0, 0]));
        talk
    }

    #[test]
    fn a_commit_is_known_however_it_is_said() {
        let mut talk = known(true);
        assert!(!hear(&mut talk, RUN, "BEGIN"));
        done(&mut talk, IN_TRANSACTION | BY_ITSELF);
        assert!(!hear(&mut talk, PREPARE, "CALL `semel`.`ack`(?)"));
        assert!(talk.answer(&[DONE, 7, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]));
        assert!(!talk.acknowledges(), "prepared is not run");
        assert!(!hear(&mut talk, RUN_PREPARED, [7, 0, 0, 0, 0]) && talk.acknowledges());
        done(&mut talk, IN_TRANSACTION | BY_ITSELF);
        assert!(!hear(&mut talk, FORGET, [7, 0, 0, 0]));
        assert!(!hear(&mut talk, RUN, "ROLLBACK TO SAVEPOINT semel_0") && !talk.acknowledges());
        done(&mut talk, IN_TRANSACTION | BY_ITSELF);
        assert!(hear(&mut talk, RUN, "commit"));
        assert!(talk.ran.iter().any(|text| text.contains(".ack(")));
        done(&mut talk, BY_ITSELF);

        talk.ran.clear();
        assert!(hear(&mut talk, RUN, "UPDATE t"), "outside of a transaction a statement commits by itself");
        done(&mut talk, 0);
        assert!(!hear(&mut talk, RUN, "UPDATE t"), "but not without autocommit");
        done(&mut talk, IN_TRANSACTION);
        assert!(!hear(&mut talk, PREPARE, "COMMIT"));
        assert!(talk.answer(&[DONE, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        assert!(hear(&mut talk, RUN_PREPARED, [9, 0, 0, 0, 0]), "by a prepared statement");
    }

    #[test]
    fn an_answer_ends_with_its_last_result() {
        for one_end in [true, false] {
            let mut talk = known(one_end);
            hear(&mut talk, RUN, "CALL enter()");
            let end = |status: u8| if one_end { vec![END, 0, 0, status, 0, 0, 0] } else { vec![END, 0, 0, status, 0] };
            assert!(!talk.answer(&[2]) && !talk.answer(b"\x03def") && !talk.answer(b"\x03def"));
            if !one_end {
                assert!(!talk.answer(&end(2)), "of the columns");
            }
            assert!(!talk.answer(&[0, 0, 1]), "a row that begins as an end may");
            assert!(!talk.answer(&end(8 | 2)), "there is one more result");
            assert!(talk.answer(&[DONE, 0, 0, 3, 0, 0, 0]));
            assert!(talk.in_transaction);
            hear(&mut talk, RUN, "SELECT 1");
            assert!(talk.answer(&[REFUSED, 1, 4]));
        }
    }

    #[test]
    fn a_number_is_as_long_as_it_says() {
        assert_eq!(length(&[5, 6]), Some((5, &[6][..])));
        assert_eq!(length(&[0xfc, 1, 1, 6]), Some((257, &[6][..])));
        assert_eq!(length(&[0xfd, 1]), None);
    }
}
