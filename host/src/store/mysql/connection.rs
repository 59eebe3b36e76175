//! The engine's sessions, and what begins and ends on them.
//!
//! An operation runs in a task of its own, to its end, whoever still waits for it: a future of the driver that is dropped
//! half-way leaves a session in a state that nobody knows. A session whose transaction was not surely ended is closed.
//!
//! The pool is our own: the driver's asks each session for a sign of life when it comes back, and waits for that without an
//! end. On a dead line that takes its places away, one by one, for as long as the system believes in the line.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::server::{self, Server};
use super::{Error, classify, errors};

/// Sessions at once; the engine's operations are short.
pub(super) const SESSIONS: usize = 8;
/// How long an operation waits for a session.
const WAIT: Duration = Duration::from_secs(5);
/// How long a session may take to give a sign of life, before it is used again.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// Between two tries to connect, at first and at most.
const AGAIN: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];
/// A host that stands still in a transaction lets go of its rows after so long.
const IDLE: Duration = Duration::from_secs(5);
/// Longer than any statement of the engine takes, which waits for a lock for five seconds; and than any transaction. Beyond it
/// the connection is taken for dead.
const STATEMENT: Duration = Duration::from_secs(10);
const TRANSACTION: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_mins(10);

#[derive(Clone)]
pub(super) struct Engine {
    sessions: Arc<Sessions>,
    /// Of the host: operations do not run where a guest computes that asks for one.
    runtime: Handle,
}

/// What came of an operation, and whether its session is as it was before.
type Done<T> = (Result<T, Error>, bool);

impl Engine {
    /// No session is opened yet. To be called in the host's runtime.
    pub(super) fn new(options: MySqlConnectOptions, server: &Server) -> Self {
        let (room, settings) = (Arc::new(Semaphore::new(SESSIONS)), settings(server));
        let sessions = Arc::new(Sessions { options, settings, idle: Mutex::default(), room });
        Self { sessions, runtime: Handle::current() }
    }

    /// Runs one or a few statements that each commit by themselves.
    pub(super) async fn run<T, F>(&self, operation: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, Error>> + Send + 'static,
    {
        self.run_if(|_| true, operation).await
    }

    /// The same, for as long as it takes to make tables.
    pub(super) async fn long<T, F>(&self, operation: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, Error>> + Send + 'static,
    {
        self.held(First::SignOfLife, LONG, move |connection| {
            Box::pin(async move { Ok((operation(connection).await, false)) })
        })
        .await
    }

    /// The same, on a session that is closed afterwards unless what came out says that nothing is open on it.
    pub(super) async fn run_if<T, F>(&self, clean: fn(&T) -> bool, operation: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, Error>> + Send + 'static,
    {
        self.held(First::SignOfLife, STATEMENT, move |connection| {
            Box::pin(async move {
                let done = operation(connection).await;
                let clean = done.as_ref().is_ok_and(clean);
                Ok((done, clean))
            })
        })
        .await
    }

    /// Runs an operation in a transaction of its own: committed if it is ok, else without a trace.
    pub(super) async fn transaction<T, F>(&self, operation: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, Error>> + Send + 'static,
    {
        self.transaction_if(|_| true, operation).await
    }

    /// The same, committed only if what came out is to be kept.
    pub(super) async fn transaction_if<T, F>(&self, keep: fn(&T) -> bool, operation: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, Error>> + Send + 'static,
    {
        self.held(First::Begin, TRANSACTION, move |connection| Box::pin(transaction(connection, keep, operation))).await
    }

    /// The same, waiting so many seconds for a lock at most.
    pub(super) async fn transaction_within<T, F>(&self, seconds: u32, operation: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, Error>> + Send + 'static,
    {
        self.held(First::Begin, TRANSACTION, move |connection| {
            Box::pin(async move {
                let wait = format!("SET SESSION innodb_lock_wait_timeout = {seconds}");
                connection.execute(AssertSqlSafe(wait)).await.map_err(classify)?;
                let (done, _) = transaction(connection, |_| true, operation).await?;
                Ok((done, false)) // Its patience is not the others'.
            })
        })
        .await
    }

    /// Begins what goes on to its end, whoever waits for it.
    pub(super) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.runtime.spawn(work)
    }

    async fn held<T, F>(&self, first: First, longest: Duration, operation: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut MySqlConnection) -> BoxFuture<'c, Result<Done<T>, Error>> + Send + 'static,
    {
        let sessions = Arc::clone(&self.sessions);
        let task = self.spawn(async move {
            let (mut connection, _room) = sessions.take(first).await?;
            let late = |_| Error::Unavailable("it does not answer".into());
            let (done, clean) = timeout(longest, operation(&mut connection)).await.map_err(late)??;
            if clean {
                sessions.give(connection);
            }
            done
        });
        task.await.map_err(|e| Error::Broken(format!("an operation of the store failed: {e}")))?
    }
}

/// Sessions, and those of them that wait for the next operation.
struct Sessions {
    options: MySqlConnectOptions,
    /// Said first of all on each.
    settings: String,
    idle: Mutex<Vec<MySqlConnection>>,
    room: Arc<Semaphore>,
}

impl Sessions {
    /// One on which this was said, and answered.
    async fn take(&self, first: First) -> Result<(MySqlConnection, OwnedSemaphorePermit), Error> {
        let taken = timeout(WAIT, async {
            let room = Arc::clone(&self.room).acquire_owned().await;
            let room = room.map_err(|_| Error::Unavailable("the store is closed".into()))?;
            while let Some(mut connection) = self.pop() {
                if matches!(timeout(SIGN_OF_LIFE, begin(&mut connection, first)).await, Ok(Ok(()))) {
                    return Ok((connection, room));
                }
            }
            let mut connection = self.connect().await?;
            begin(&mut connection, first).await.map_err(classify)?;
            Ok((connection, room))
        });
        taken.await.map_err(|_| Error::Unavailable("no session was to be had in time".into()))?
    }

    /// Tries again while the server is starting.
    async fn connect(&self) -> Result<MySqlConnection, Error> {
        let [mut pause, longest] = AGAIN;
        loop {
            match self.options.connect().await {
                Ok(mut connection) => {
                    sqlx::raw_sql(AssertSqlSafe(self.settings.clone()))
                        .execute(&mut connection)
                        .await
                        .map_err(classify)?;
                    return Ok(connection);
                }
                Err(sqlx::Error::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                Err(error) if errors::passes(&error) => {}
                Err(error) => return Err(classify(error)),
            }
            tokio::time::sleep(pause).await;
            pause = longest.min(pause * 2);
        }
    }

    fn pop(&self) -> Option<MySqlConnection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give(&self, connection: MySqlConnection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }
}

/// What the contract in 0001_engine.sql asks for.
fn settings(server: &Server) -> String {
    let (session, idle, subqueries) = (server::SESSION, server.idle_transaction(IDLE), server.subqueries());
    format!("{session}; SET SESSION innodb_lock_wait_timeout = 5; {idle}; {subqueries}")
}

/// What is said first on a session: an answer shows that it is alive.
#[derive(Clone, Copy)]
enum First {
    SignOfLife,
    Begin,
}

async fn begin(connection: &mut MySqlConnection, first: First) -> Result<(), sqlx::Error> {
    match first {
        First::SignOfLife => connection.ping().await,
        First::Begin => connection.execute("START TRANSACTION").await.map(drop),
    }
}

/// In a transaction that has begun: what came of it, and whether it is surely over. After a statement that waited too long the
/// transaction goes on, so it is ended here in any case.
async fn transaction<T, F>(
    connection: &mut MySqlConnection,
    keep: fn(&T) -> bool,
    operation: F,
) -> Result<Done<T>, Error>
where
    T: Send,
    F: for<'c> FnOnce(&'c mut MySqlConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
{
    let done = operation(connection).await;
    if matches!(&done, Ok(value) if keep(value)) {
        connection.execute("COMMIT").await.map_err(classify)?;
        return Ok((done, true));
    }
    let undone = connection.execute("ROLLBACK").await.is_ok();
    Ok((done, undone))
}
