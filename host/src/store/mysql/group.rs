//! The order of groups: locks before the rows, order after them (see the procedure `order_group`).

use serde::Serialize;
use sqlx::mysql::MySqlConnection;

use super::list::list;
use super::{Error, classify};

const LOCK: &str = include_str!("group_lock.sql");
const ORDER: &str = include_str!("group_order.sql");

/// A group of messages of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Group {
    #[serde(rename = "f")]
    pub(super) function: String,
    #[serde(rename = "g")]
    pub(super) key: String,
}

/// Only messages with a group.
#[derive(Default)]
pub(super) struct Groups(Vec<Group>);

impl Groups {
    pub(super) fn one(function: &str, group: Option<&str>) -> Self {
        let mut groups = Self::default();
        groups.add(function, group);
        groups
    }

    pub(super) fn add(&mut self, function: &str, group: Option<&str>) {
        let Some(key) = group else { return };
        let group = Group { function: function.to_owned(), key: key.to_owned() };
        if self.0.last() != Some(&group) {
            self.0.push(group);
        }
    }

    pub(super) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub(super) fn all(&self) -> &[Group] {
        &self.0
    }

    /// Locks them until the end of the transaction, before any row is touched.
    pub(super) async fn lock(&self, connection: &mut MySqlConnection) -> Result<(), Error> {
        self.call(connection, LOCK).await
    }

    /// Puts them in order, under their locks and after their rows were changed.
    pub(super) async fn order(&self, connection: &mut MySqlConnection) -> Result<(), Error> {
        self.call(connection, ORDER).await
    }

    async fn call(&self, connection: &mut MySqlConnection, sql: &'static str) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        sqlx::query(sql).bind(list(&self.0)).execute(connection).await.map(drop).map_err(classify)
    }
}
