//! What a guest calls.

use std::time::Instant;

use wasmtime::component::Resource;

use super::{Cursor, Transaction, UNANSWERED, UNANSWERED_BYTES, from_guest, types, wit, written};
use crate::engine::limits::{MOST_CURSORS, MOST_SAVEPOINTS, RESULT_BYTES, SAVEPOINT_BYTES};
use crate::guest::value;
use crate::store::{Bounds, Savepoint, SqlError};

impl types::Host for Transaction {}

impl wit::Host for Transaction {
    async fn query(
        &mut self,
        sql: String,
        params: Vec<wit::Value>,
    ) -> wasmtime::Result<Result<wit::ResultSet, wit::Error>> {
        Ok(self.run(sql, params).await?.map(value::result_set))
    }

    async fn execute(&mut self, sql: String, params: Vec<wit::Value>) -> wasmtime::Result<Result<u64, wit::Error>> {
        Ok(self.run(sql, params).await?.map(|rows| rows.changed))
    }

    async fn execute_batch(
        &mut self,
        statements: Vec<wit::Statement>,
    ) -> wasmtime::Result<Result<Vec<u64>, (u32, wit::Error)>> {
        let lost = self.lost.is_some();
        let (mut answers, mut stopped) = (Vec::with_capacity(statements.len()), None);
        for (place, statement) in (0..).zip(statements) {
            match self.send(statement.sql, statement.params).await? {
                Ok(Ok(answer)) => answers.push(answer),
                Ok(Err(error)) => stopped = Some((place, self.refuse(error)?)),
                Err(error) => stopped = Some((place, error)),
            }
            if stopped.is_some() {
                break;
            }
        }
        let began = Instant::now();
        let mut counts = Vec::with_capacity(answers.len());
        for (place, answer) in (0..).zip(answers) {
            match answer.await {
                Ok(rows) => {
                    written();
                    counts.push(rows.changed);
                }
                Err(error) => {
                    stopped = Some((place, self.refuse(error)?)); // Those after it have failed because of it.
                    break;
                }
            }
        }
        self.sql_time += began.elapsed();
        self.settle().await?;
        if self.lost.is_some() && !lost {
            return Ok(Err((0, wit::Error::Failed))); // Deferred before, and known only now.
        }
        Ok(stopped.map_or(Ok(counts), Err))
    }

    async fn execute_deferred(
        &mut self,
        sql: String,
        params: Vec<wit::Value>,
    ) -> wasmtime::Result<Result<(), wit::Error>> {
        match self.send(sql, params).await? {
            Ok(Ok(answer)) => self.deferred.push_back(answer),
            Ok(Err(error @ SqlError::Database(_))) => {
                self.settle().await?; // It may have failed because of one of those.
                self.found(Err(error))?;
            }
            Ok(Err(error)) => return self.refuse(error).map(Err),
            Err(error) => return Ok(Err(error)),
        }
        if self.deferred.len() >= UNANSWERED || self.deferred_bytes >= UNANSWERED_BYTES {
            self.settle().await?;
        }
        Ok(Ok(()))
    }

    async fn open_cursor(
        &mut self,
        sql: String,
        params: Vec<wit::Value>,
    ) -> wasmtime::Result<Result<Resource<Cursor>, wit::Error>> {
        let bounds = match self.statement().await? {
            Ok(bounds) => bounds,
            Err(error) => return Ok(Err(error)),
        };
        if self.cursors >= MOST_CURSORS {
            self.failed = Some("too many open cursors".into());
            return Ok(Err(wit::Error::Limit(wit::Limit::Cursors)));
        }
        let params = match from_guest(params) {
            Ok(params) => params,
            Err(reason) => return Ok(Err(wit::Error::Parameter(reason))),
        };
        match self.session.open_cursor(sql, params, bounds).await {
            Ok((number, columns)) => {
                self.cursors += 1;
                let columns = columns.into_iter().map(value::column).collect();
                Ok(Ok(self.table.push(Cursor { number, columns })?))
            }
            Err(error) => self.refuse(error).map(Err),
        }
    }

    async fn savepoint(&mut self, name: String) -> wasmtime::Result<Result<(), wit::Error>> {
        if self.savepoints == MOST_SAVEPOINTS || name.len() > SAVEPOINT_BYTES {
            return Ok(Err(wit::Error::Parameter(format!(
                "an attempt may set {MOST_SAVEPOINTS} savepoints, with names of at most {SAVEPOINT_BYTES} bytes"
            ))));
        }
        self.savepoints += 1;
        self.step(Savepoint::Set(name)).await
    }

    async fn rollback_to(&mut self, name: String) -> wasmtime::Result<Result<(), wit::Error>> {
        self.step(Savepoint::RollbackTo(name)).await
    }

    async fn release(&mut self, name: String) -> wasmtime::Result<Result<(), wit::Error>> {
        self.step(Savepoint::Release(name)).await
    }
}

impl wit::HostCursor for Transaction {
    async fn columns(&mut self, cursor: Resource<Cursor>) -> wasmtime::Result<Vec<wit::Column>> {
        Ok(self.table.get(&cursor)?.columns.clone())
    }

    async fn next(
        &mut self,
        cursor: Resource<Cursor>,
        max_rows: u32,
    ) -> wasmtime::Result<Result<Vec<wit::Row>, wit::Error>> {
        let number = self.table.get(&cursor)?.number;
        self.settle().await?;
        if let Err(error) = self.enter().await {
            return Ok(Err(error));
        }
        if self.failed.is_some() {
            return Ok(Err(wit::Error::Failed));
        }
        let bounds = Bounds { rows: max_rows.min(self.rows), bytes: RESULT_BYTES, deadline: self.deadline };
        let began = Instant::now();
        let fetched = self.session.fetch(number, bounds).await;
        self.sql_time += began.elapsed();
        match fetched {
            Ok(rows) => Ok(Ok(rows.into_iter().map(value::row).collect())),
            Err(error) => self.refuse(error).map(Err),
        }
    }

    async fn drop(&mut self, cursor: Resource<Cursor>) -> wasmtime::Result<()> {
        let cursor = self.table.delete(cursor)?;
        self.cursors -= 1;
        self.session.close_cursor(cursor.number).await;
        Ok(())
    }
}
