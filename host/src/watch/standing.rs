//! How the ways in and out stand: sinks and sources, as far as this host uses them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// One of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// What kind it is, the topics that belong to it, and what it promises; for people.
    pub(crate) kind: &'static str,
    pub(crate) topics: Vec<String>,
    pub(crate) guarantee: &'static str,
    /// Why nothing goes through now.
    pub(crate) trouble: Option<String>,
}

/// All of them, by their names in the queue.
#[derive(Default)]
pub(crate) struct Standings(Mutex<BTreeMap<String, Standing>>);

impl Standings {
    pub(crate) fn add(&self, function: &str, standing: Standing) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(function.to_owned(), standing);
    }

    /// Nothing goes through for this reason, or everything does. What was not added has no standing.
    pub(crate) fn set(&self, function: &str, trouble: Option<String>) {
        if let Some(standing) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(function) {
            standing.trouble = trouble;
        }
    }

    pub(crate) fn all(&self) -> BTreeMap<String, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
