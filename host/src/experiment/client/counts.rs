//! How the messages of a function stand.

use serde::{Deserialize, Serialize};

/// `GET /v1/counts`, of one function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Messages that wait for their turn, also those that wait for a retry.
    pub available: u64,
    /// Messages that are claimed.
    pub running: u64,
    /// Messages whose effects are committed.
    pub completed: u64,
    /// Messages that were given up, with a reason.
    pub dead: u64,
    /// Begin-once messages whose end nobody knows.
    #[serde(rename = "in-doubt")]
    pub in_doubt: u64,
    /// Messages that somebody took back.
    pub cancelled: u64,
    /// Attempts at all of them.
    pub attempts: u64,
    /// Commits that the fence turned away.
    pub refused_commits: u64,
}

impl Counts {
    /// Messages that something will still happen to by itself.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.available + self.running
    }

    /// Messages that are at rest for good.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.completed + self.dead + self.in_doubt + self.cancelled
    }
}
