//! The ledger of outside calls: what was about to be called, and what is known of it afterwards.
//!
//! A call is *intended*, durably, before the first byte of its request leaves, and becomes *done*, *failed* or *unknown*.
//! So a call that is not in the ledger did not happen, and one that is has bounds on how often it did.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::Error;
use crate::clock::Timestamp;

/// What the engine wants of a ledger. No operation is part of a guest's transaction.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Records that a call is about to be made. Durable when it returns, and committed on its own.
    ///
    /// # Errors
    /// Then the call must not be made. [`Error::Fenced`] if the claim under which it would be made no longer holds.
    async fn intend(&self, call: Intent) -> Result<CallId, Error>;

    /// Records what became of it. A call that was given up as unknown may still end; one that has ended does so once.
    async fn finish(&self, call: CallId, end: CallEnd) -> Result<(), Error>;

    /// The claim on a message is over: what it left intended is unknown. Says how many.
    async fn abandon(&self, message: &str, fence: i64, why: &str) -> Result<u64, Error>;

    /// The first calls of one message: those with an ordinal below `ordinals`, over all its attempts, oldest first.
    async fn calls(&self, message: &str, ordinals: u32) -> Result<Vec<CallRecord>, Error>;

    /// A page of calls, newest first, for [`by_call`]: those whose newest row that fits is on the page, each with all its
    /// rows.
    async fn ledger(&self, filter: CallFilter) -> Result<Vec<CallRecord>, Error>;

    /// Which of these messages have calls that may have happened.
    async fn called(&self, messages: &[String]) -> Result<Vec<String>, Error>;
}

/// Which calls to list.
#[derive(Debug, Clone, Default)]
pub struct CallFilter {
    /// Of this function.
    pub function: Option<String>,
    /// With an attempt that stands so.
    pub state: Option<CallState>,
    /// Of this message.
    pub message: Option<String>,
    /// Older than this row, see [`Call::place`].
    pub before: Option<CallId>,
    /// At most so many.
    pub limit: u32,
}

/// A row of the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct CallId(pub i64);

/// A call that is about to be made.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The message that is handled.
    pub message: String,
    /// Its function.
    pub function: String,
    /// The fence of the claim that makes the call.
    pub fence: i64,
    /// Its attempt.
    pub attempt: u32,
    /// From 0 within the attempt.
    pub ordinal: u32,
    /// The method.
    pub method: String,
    /// Scheme, host, port and path, without the query.
    pub url: String,
    /// The `Idempotency-Key` that is sent.
    pub key: String,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallEnd {
    /// The server has answered, with this status.
    Done(u16),
    /// It certainly did not happen.
    Failed(String),
    /// It may have happened.
    Unknown(String),
}

/// Bytes of a text (URL, method, key, reason) that are kept.
const KEPT_BYTES: usize = 2 << 10;

/// The longest beginning that is kept and ends between characters.
pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(KEPT_BYTES)]
}

impl CallEnd {
    /// As the columns have it: state, status, detail.
    pub(super) fn columns(&self) -> (&'static str, Option<u16>, Option<&str>) {
        match self {
            Self::Done(status) => (CallState::Done.as_str(), Some(*status), None),
            Self::Failed(why) => (CallState::Failed.as_str(), None, Some(cut(why))),
            Self::Unknown(why) => (CallState::Unknown.as_str(), None, Some(cut(why))),
        }
    }
}

/// Where a call stands. There are no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallState {
    /// It is being made now, or its host died.
    Intended,
    /// The server has answered: it happened.
    Done,
    /// No byte of it left: it did not happen.
    Failed,
    /// It may have happened.
    Unknown,
}

impl CallState {
    /// The name used in the database and every listing.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Intended, Self::Done, Self::Failed, Self::Unknown].into_iter().find(|state| state.as_str() == name)
    }
}

/// A call as it stands in the ledger.
#[derive(Debug, Clone)]
pub struct CallRecord {
    /// Its row.
    pub id: CallId,
    /// As it was intended.
    pub intent: Intent,
    /// Where it stands.
    pub state: CallState,
    /// Status of the answer.
    pub status: Option<u16>,
    /// Why it failed, or is unknown.
    pub detail: Option<String>,
    /// When it was intended, by the store's clock.
    pub intended_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// How often something happened, as far as anybody can know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Happened {
    /// At least so often.
    pub least: u32,
    /// At most so often.
    pub most: u32,
}

/// How often a call happened that stands so, one state for each attempt that made it. An answer is proof; what is
/// unknown, or goes on now, may have happened.
#[must_use]
pub fn happened(states: impl IntoIterator<Item = CallState>) -> Happened {
    states.into_iter().fold(Happened::default(), |so_far, state| {
        let (least, most) = match state {
            CallState::Done => (1, 1),
            CallState::Unknown | CallState::Intended => (0, 1),
            CallState::Failed => (0, 0),
        };
        Happened { least: so_far.least + least, most: so_far.most + most }
    })
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.least, self.most) {
            (_, 0) => f.write_str("did not happen"),
            (1, 1) => f.write_str("happened once"),
            (0, 1) => f.write_str("happened once or not at all"),
            (least, most) if least == most => write!(f, "happened {most} times"),
            (least, most) => write!(f, "happened {least} to {most} times"),
        }
    }
}

/// One call as a receiver sees it: the same request from every attempt that made it.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// How often it happened.
    pub happened: Happened,
    /// One for each attempt that made it, oldest first; never empty.
    pub attempts: Vec<&'a CallRecord>,
}

impl Call<'_> {
    /// As it was intended: by every attempt the same, but for attempt and fence.
    #[must_use]
    pub fn intent(&self) -> &Intent {
        &self.attempts[0].intent
    }

    /// Where it stands on a page of calls of which an attempt stands so: its newest row that does.
    #[must_use]
    pub fn place(&self, state: Option<CallState>) -> Option<CallId> {
        let fits = |record: &&&CallRecord| state.is_none_or(|state| state == record.state);
        self.attempts.iter().filter(fits).map(|record| record.id).max()
    }
}

/// The calls that these rows are of, in the order of the first row of each. Attempts that went another way made other
/// calls: what has another ordinal, method, URL or key is another call.
#[must_use]
pub fn by_call(records: &[CallRecord]) -> Vec<Call<'_>> {
    let mut calls: Vec<Vec<&CallRecord>> = Vec::new();
    let mut places = HashMap::new();
    for record in records {
        let Intent { message, ordinal, method, url, key, .. } = &record.intent;
        let place = *places.entry((message, ordinal, method, url, key)).or_insert(calls.len());
        match calls.get_mut(place) {
            Some(call) => call.push(record),
            None => calls.push(vec![record]),
        }
    }
    let bounds = |attempts: &[&CallRecord]| happened(attempts.iter().map(|record| record.state));
    calls.into_iter().map(|attempts| Call { happened: bounds(&attempts), attempts }).collect()
}

#[cfg(test)]
mod tests {
    use super::CallState::{Done, Failed, Intended, Unknown};
    use super::*;

    #[test]
    fn bounds_are_what_is_proved_and_what_is_possible() {
        for (states, text) in [
            (&[][..], "did not happen"),
            (&[Failed], "did not happen"),
            (&[Failed, Failed], "did not happen"),
            (&[Done], "happened once"),
            (&[Failed, Done], "happened once"),
            (&[Unknown], "happened once or not at all"),
            (&[Intended], "happened once or not at all"),
            (&[Failed, Unknown, Failed], "happened once or not at all"),
            (&[Unknown, Done], "happened 1 to 2 times"),
            (&[Unknown, Unknown], "happened 0 to 2 times"),
            (&[Done, Done], "happened 2 times"),
            (&[Unknown, Unknown, Done, Failed, Intended], "happened 1 to 4 times"),
        ] {
            assert_eq!(happened(states.iter().copied()).to_string(), text, "{states:?}");
        }
    }

    #[test]
    fn another_way_is_another_call() {
        let record = |attempt, ordinal, url: &str, state| CallRecord {
            id: CallId(0),
            intent: Intent {
                message: "m".into(),
                function: "f".into(),
                fence: i64::from(attempt),
                attempt,
                ordinal,
                method: "POST".into(),
                url: url.into(),
                key: format!("k{ordinal}"),
            },
            state,
            status: None,
            detail: None,
            intended_at: Timestamp(0),
            ended_at: None,
        };
        let records = [
            record(1, 0, "/a", Unknown),
            record(2, 0, "/a", Done),
            record(2, 1, "/a", Done),
            record(3, 0, "/b", Failed),
            record(3, 1, "/a", Done),
        ];
        let found: Vec<_> = by_call(&records)
            .iter()
            .map(|call| (call.attempts[0].intent.url.as_str(), call.attempts.len(), call.happened.to_string()))
            .collect();
        let expected = [("/a", 2, "happened 1 to 2 times"), ("/a", 2, "happened 2 times"), ("/b", 1, "did not happen")];
        assert_eq!(found, expected.map(|(url, attempts, text)| (url, attempts, text.to_owned())));
    }
}
