//! The one writer: a thread that has the connection, and the two queues in front of it.
//!
//! The engine's short operations go first; a guest's transaction is served between them. For a guest's turn the connection
//! is lent out: [`Lent`] goes to whoever holds the guest's session, statements run there without a hand-over, and the thread
//! waits until it comes back. What waits for the disk (a commit, a rollback) is done on the thread, as are statements that
//! SQLite has to plan, which takes stack.
//!
//! Every operation is a closure that runs to its end, here or there: whoever asked may go away, nothing is dropped half-way.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use tokio::sync::oneshot;

use super::connection::Connection;
use super::walls::Walls;
use super::{Error, Lock};
use crate::clock::AnchoredClock;
use crate::store::SqlError;

/// An operation of the engine.
type Work = Box<dyn FnOnce(&mut Connection) + Send>;
/// What is done on the writer's thread with a connection that was lent. Dropping it ends the turn.
type Errand = Box<dyn FnOnce(Lent) + Send>;
/// A connection on its way home, and what is still to be done with it in its turn.
type Home = (Box<Connection>, Option<Errand>);

/// Operations of the engine in a row before a guest that waits gets a turn all the same.
const PATIENCE: u32 = 16;

/// Bytes of the thread's stack, of which only what is used takes memory. SQLite parses and plans by recursion, and its JSON
/// functions go as deep as a path has steps or a JSONB is nested: in the largest value that a guest may have that is more
/// than a million times, each time some 280 bytes.
const STACK: usize = 512 << 20;

enum Asked {
    Operation(Work),
    Turn(oneshot::Sender<Result<Lent, Error>>),
}

#[derive(Clone)]
pub(super) struct Writer {
    /// Those of its connection.
    pub(super) walls: Arc<Walls>,
    asked: mpsc::Sender<Asked>,
}

impl Writer {
    /// The thread ends when nobody can ask anything any more, and only then lets go of the lock.
    pub(super) async fn start(path: PathBuf, clock: AnchoredClock, lock: Lock) -> Result<Self, Error> {
        let (asked, queue) = mpsc::channel();
        let (started, ready) = oneshot::channel();
        std::thread::Builder::new()
            .name("semel-writer".into())
            .stack_size(STACK)
            .spawn(move || {
                let _guard = AbortOnPanic;
                match Connection::open(&path, clock) {
                    Ok(connection) => {
                        let _ = started.send(Ok(Arc::clone(&connection.walls)));
                        serve(Box::new(connection), Queues::new(queue));
                        drop(lock);
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            })
            .map_err(|e| Error::Unavailable(format!("cannot start the writer's thread: {e}")))?;
        let walls = ready.await.map_err(|_| gone())??;
        Ok(Self { walls, asked })
    }

    /// Runs one operation of the engine, before any guest that waits.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |connection| {
            let _ = reply.send(operation(connection));
        });
        self.asked.send(Asked::Operation(work)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Waits for a turn: the connection, with a transaction open.
    pub(super) async fn turn(&self) -> Result<Lent, Error> {
        let (opened, ready) = oneshot::channel();
        self.asked.send(Asked::Turn(opened)).map_err(|_| gone())?;
        ready.await.map_err(|_| gone())?
    }
}

/// The connection, for one turn. Dropping it gives it back, and what was not committed is rolled back.
pub(super) struct Lent {
    /// There, until it goes home.
    connection: Option<Box<Connection>>,
    home: mpsc::Sender<Home>,
}

impl Lent {
    /// The connection, to look at.
    pub(super) fn look(&self) -> Option<&Connection> {
        self.connection.as_deref()
    }

    /// Does something with the connection, on this thread.
    pub(super) fn here<T>(
        &mut self,
        operation: impl FnOnce(&mut Connection) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let _guard = AbortOnPanic;
        operation(self.connection.as_mut().ok_or_else(over)?)
    }

    /// Does something with the connection on the writer's thread, and gives it back with the answer.
    pub(super) async fn there<T: Send + 'static>(
        self,
        operation: impl FnOnce(&mut Connection) -> Result<T, SqlError> + Send + 'static,
    ) -> Result<(Self, Result<T, SqlError>), SqlError> {
        let (reply, answer) = oneshot::channel();
        self.send_home(Box::new(move |mut lent| {
            let done = lent.here(operation);
            let _ = reply.send((lent, done)); // If nobody waits any more, this drops it.
        }));
        answer.await.map_err(|_| over())
    }

    /// The last thing that is done in the turn, on the writer's thread.
    pub(super) async fn last<T: Send + 'static>(
        self,
        operation: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, SqlError> {
        let (reply, answer) = oneshot::channel();
        self.send_home(Box::new(move |mut lent| {
            let done = lent.here(|connection| Ok(operation(connection)));
            drop(lent);
            let _ = reply.send(done);
        }));
        answer.await.map_err(|_| over())?
    }

    fn send_home(mut self, errand: Errand) {
        if let Some(connection) = self.connection.take() {
            let _ = self.home.send((connection, Some(errand))); // The writer's thread waits for it, or the process is ending.
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = self.home.send((connection, None)); // As above.
        }
    }
}

/// A host without its writer could do nothing but hold the file, and a connection that was left in the middle of an
/// operation is in a state that nobody knows. Its death is what everything else is built for.
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

fn over() -> SqlError {
    SqlError::Doomed("the transaction is over".into())
}

/// What was asked for and is not done yet.
struct Queues {
    asked: mpsc::Receiver<Asked>,
    engine: VecDeque<Work>,
    guests: VecDeque<oneshot::Sender<Result<Lent, Error>>>,
    /// Operations of the engine since the last turn of a guest.
    in_a_row: u32,
}

impl Queues {
    fn new(asked: mpsc::Receiver<Asked>) -> Self {
        Self { asked, engine: VecDeque::new(), guests: VecDeque::new(), in_a_row: 0 }
    }

    /// Waits for what is next. None if nobody can ask any more.
    fn next(&mut self) -> Option<Asked> {
        while let Ok(asked) = self.asked.try_recv() {
            self.sort(asked);
        }
        if self.engine.is_empty() && self.guests.is_empty() {
            let asked = self.asked.recv().ok()?;
            self.sort(asked);
        }
        let impatient = self.in_a_row >= PATIENCE && !self.guests.is_empty();
        if !impatient && let Some(work) = self.engine.pop_front() {
            self.in_a_row += 1;
            return Some(Asked::Operation(work));
        }
        self.in_a_row = 0;
        self.guests.pop_front().map(Asked::Turn)
    }

    fn sort(&mut self, asked: Asked) {
        match asked {
            Asked::Operation(work) => self.engine.push_back(work),
            Asked::Turn(opened) => self.guests.push_back(opened),
        }
    }
}

fn serve(mut connection: Box<Connection>, mut queues: Queues) {
    while let Some(asked) = queues.next() {
        match asked {
            Asked::Operation(work) => work(&mut connection),
            Asked::Turn(opened) => connection = lend(connection, opened),
        }
    }
}

/// One turn of a guest, until the connection is back and what it did is over.
fn lend(mut connection: Box<Connection>, opened: oneshot::Sender<Result<Lent, Error>>) -> Box<Connection> {
    if let Err(error) = connection.begin_guest() {
        let _ = opened.send(Err(error)); // Whoever asked may have gone away.
        return connection;
    }
    let (home, back) = mpsc::channel();
    let lent = |connection| Lent { connection: Some(connection), home: home.clone() };
    let _ = opened.send(Ok(lent(connection))); // If he has gone away, this drops it, and it comes back at once.
    loop {
        match back.recv() {
            Ok((connection, Some(errand))) => errand(lent(connection)),
            Ok((mut connection, None)) => {
                connection.end_guest();
                return connection;
            }
            Err(_) => std::process::abort(), // Not while `home` is here.
        }
    }
}
