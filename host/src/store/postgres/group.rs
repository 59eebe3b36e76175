//! The order of groups on Postgres: locks before the rows, order after them (see `semel.order_group`).

use sqlx::postgres::PgConnection;

use super::{Error, classify};

const LOCK: &str = include_str!("group_lock.sql");
const ORDER: &str = include_str!("group_order.sql");

/// Functions and group keys, side by side; only messages with a group.
#[derive(Default)]
pub(super) struct Groups {
    functions: Vec<String>,
    keys: Vec<String>,
}

impl Groups {
    pub(super) fn one(function: &str, group: Option<&str>) -> Self {
        let mut groups = Self::default();
        groups.add(function, group);
        groups
    }

    pub(super) fn add(&mut self, function: &str, group: Option<&str>) {
        if let Some(group) = group {
            self.functions.push(function.to_owned());
            self.keys.push(group.to_owned());
        }
    }

    pub(super) fn functions(&self) -> &[String] {
        &self.functions
    }

    pub(super) fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Locks them until the end of the transaction, before any row is touched.
    pub(super) async fn lock(&self, connection: &mut PgConnection) -> Result<(), Error> {
        self.call(connection, LOCK).await
    }

    /// Puts them in order, under their locks and after their rows were changed.
    pub(super) async fn order(&self, connection: &mut PgConnection) -> Result<(), Error> {
        self.call(connection, ORDER).await
    }

    async fn call(&self, connection: &mut PgConnection, sql: &'static str) -> Result<(), Error> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let call = sqlx::query(sql).bind(&self.functions).bind(&self.keys);
        call.execute(connection).await.map(drop).map_err(classify)
    }
}
