//! The one writer: a thread that owns the connection, and the two queues in front of it.
//!
//! The engine's short operations go first; a guest's transaction is served between them and holds the connection until
//! it ends. Every operation is a closure that runs *here*, to its end: whoever asked may go away, nothing is dropped
//! half-way.

use std::sync::Arc;

use futures_util::future::LocalBoxFuture;
use sqlx::sqlite::SqliteConnectOptions;
use tokio::sync::{mpsc, oneshot};

use super::connection::Connection;
use super::walls::Walls;
use super::{Error, Lock, classify};
use crate::clock::AnchoredClock;

/// Something to do with the connection.
pub(super) type Work = Box<dyn for<'c> FnOnce(&'c mut Connection) -> LocalBoxFuture<'c, ()> + Send>;

/// Operations of the engine in a row before a guest that waits gets a turn all the same.
const PATIENCE: u32 = 16;

/// A guest's transaction: what it wants done arrives over a channel, and the end of the channel ends it.
struct Turn {
    work: mpsc::Receiver<Work>,
    opened: oneshot::Sender<Result<(), Error>>,
}

#[derive(Clone)]
pub(super) struct Writer {
    /// Those of its connection.
    pub(super) walls: Arc<Walls>,
    engine: mpsc::UnboundedSender<Work>,
    guests: mpsc::UnboundedSender<Turn>,
}

impl Writer {
    /// The thread ends when nobody can ask anything any more, and only then lets go of the lock.
    pub(super) async fn start(options: SqliteConnectOptions, clock: AnchoredClock, lock: Lock) -> Result<Self, Error> {
        let (engine, engine_queue) = mpsc::unbounded_channel();
        let (guests, guest_queue) = mpsc::unbounded_channel();
        let (started, ready) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(|e| Error::Unavailable(e.to_string()))?;
        std::thread::Builder::new()
            .name("semel-writer".into())
            .stack_size(16 << 20) // SQLite parses and plans by recursion.
            .spawn(move || {
                let _guard = AbortOnPanic;
                runtime.block_on(async {
                    match Connection::open(options, clock).await {
                        Ok(connection) => {
                            let _ = started.send(Ok(Arc::clone(&connection.walls)));
                            serve(connection, engine_queue, guest_queue).await;
                            drop(lock);
                        }
                        Err(error) => {
                            let _ = started.send(Err(error));
                        }
                    }
                });
            })
            .map_err(|e| Error::Unavailable(format!("cannot start the writer's thread: {e}")))?;
        let walls = ready.await.map_err(|_| gone())??;
        Ok(Self { walls, engine, guests })
    }

    /// Runs one operation of the engine, before any guest that waits.
    pub(super) async fn run<T, F>(&self, operation: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut Connection) -> LocalBoxFuture<'c, Result<T, Error>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            Box::pin(async move {
                let _ = reply.send(operation(connection).await);
            })
        });
        self.engine.send(work).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Waits for a turn and opens a transaction. What is sent over the channel runs in it; if the channel closes
    /// before the work committed, it is rolled back.
    pub(super) async fn turn(&self) -> Result<mpsc::Sender<Work>, Error> {
        let (sender, work) = mpsc::channel(1);
        let (opened, ready) = oneshot::channel();
        self.guests.send(Turn { work, opened }).map_err(|_| gone())?;
        ready.await.map_err(|_| gone())??;
        Ok(sender)
    }
}

/// A host without its writer could do nothing but hold the file. Its death is what everything else is built for.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

fn gone() -> Error {
    Error::Unavailable("the writer has stopped".into())
}

async fn serve(
    mut connection: Connection,
    mut engine: mpsc::UnboundedReceiver<Work>,
    mut guests: mpsc::UnboundedReceiver<Turn>,
) {
    let mut in_a_row = 0;
    loop {
        if in_a_row >= PATIENCE {
            in_a_row = 0;
            if let Ok(turn) = guests.try_recv() {
                serve_guest(&mut connection, turn).await;
            }
        }
        tokio::select! {
            biased;
            work = engine.recv() => match work {
                Some(work) => {
                    work(&mut connection).await;
                    in_a_row += 1;
                }
                None => break,
            },
            Some(turn) = guests.recv() => {
                serve_guest(&mut connection, turn).await;
                in_a_row = 0;
            }
        }
    }
}

async fn serve_guest(connection: &mut Connection, mut turn: Turn) {
    let begun = connection.begin_guest().await.map_err(classify);
    let open = begun.is_ok();
    if turn.opened.send(begun).is_err() || !open {
        return connection.end_guest().await;
    }
    while let Some(work) = turn.work.recv().await {
        work(connection).await;
    }
    connection.end_guest().await;
}
