//! The one writer: a connection, and the two queues in front of it.
//!
//! The engine's short operations go first, on a thread that is there for them; a guest's transaction is served between them.
//! For a guest's turn the connection is lent out: [`Lent`] goes to whoever holds the guest's session, and what is asked of it,
//! the commit included, is done there, without a hand-over. Only what SQLite has to plan goes to the thread, which has the
//! stack for it. Whoever ends a turn hands the connection on himself: to the guest that is next, or home.
//!
//! Every operation is a closure that runs to its end, here or there: whoever asked may go away, nothing is dropped half-way.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
/// Where a guest waits for its turn.
type Opened = oneshot::Sender<Result<Lent, Error>>;

/// For so long the engine's operations go before a guest that waits, and then it gets a turn all the same.
const PATIENCE: Duration = Duration::from_millis(5);

/// Bytes of the thread's stack, of which only what is used takes memory. SQLite parses and plans by recursion, and its JSON
/// functions go as deep as a path has steps or a JSONB is nested: in the largest value that a guest may have that is more
/// than a million times, each time some 280 bytes.
const STACK: usize = 512 << 20;

#[derive(Clone)]
pub(super) struct Writer {
    /// Those of its connection.
    pub(super) walls: Arc<Walls>,
    door: Arc<Door>,
}

impl Writer {
    /// The thread ends when nobody can ask anything any more, and only then lets go of the lock.
    pub(super) async fn start(path: PathBuf, clock: AnchoredClock, lock: Lock) -> Result<Self, Error> {
        let desk = Arc::new(Desk::default());
        let (started, ready) = oneshot::channel();
        let its = Arc::clone(&desk);
        std::thread::Builder::new()
            .name("semel-writer".into())
            .stack_size(STACK)
            .spawn(move || {
                let _guard = AbortOnPanic::new();
                match Connection::open(&path, clock) {
                    Ok(connection) => {
                        let walls = Arc::clone(&connection.walls);
                        its.queues().connection = Some(Box::new(connection));
                        let _ = started.send(Ok(walls));
                        serve(&its);
                        drop(lock);
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            })
            .map_err(|e| Error::Unavailable(format!("cannot start the writer's thread: {e}")))?;
        let walls = ready.await.map_err(|_| gone())??;
        Ok(Self { walls, door: Arc::new(Door(desk)) })
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
        let desk = &self.door.0;
        desk.queues().engine.push_back(work);
        desk.called.notify_one(); // If the connection is not here, whoever brings it says so again.
        answer.await.map_err(|_| gone())?
    }

    /// Waits for a turn: the connection, with a transaction open.
    pub(super) async fn turn(&self) -> Result<Lent, Error> {
        let (opened, ready) = oneshot::channel();
        self.door.0.line_up(opened);
        ready.await.map_err(|_| gone())?
    }
}

/// Where those who can ask something go in and out. When the last one has gone, the thread ends.
struct Door(Arc<Desk>);

impl Drop for Door {
    fn drop(&mut self) {
        self.0.queues().closed = true;
        self.0.called.notify_one();
    }
}

/// Where the connection is when nobody has it, and who waits for it.
#[derive(Default)]
struct Desk {
    queues: Mutex<Queues>,
    /// The connection is here, and there is something for the thread to do with it.
    called: Condvar,
}

/// What was asked for and is not done yet.
#[derive(Default)]
struct Queues {
    connection: Option<Box<Connection>>,
    /// What the connection that is here was sent home for, in a turn that is not over.
    errand: Option<Errand>,
    engine: VecDeque<Work>,
    guests: VecDeque<Opened>,
    /// What operations of the engine took since the last turn of a guest.
    in_a_row: Duration,
    closed: bool,
}

/// What is next.
enum Next {
    Errand(Errand),
    Operation(Work),
    Turn(Opened),
}

impl Queues {
    fn next(&mut self) -> Option<Next> {
        if let Some(errand) = self.errand.take() {
            return Some(Next::Errand(errand));
        }
        if !self.is_turn_next()
            && let Some(work) = self.engine.pop_front()
        {
            return Some(Next::Operation(work));
        }
        self.in_a_row = Duration::ZERO;
        self.guests.pop_front().map(Next::Turn)
    }

    fn is_turn_next(&self) -> bool {
        !self.guests.is_empty() && (self.engine.is_empty() || self.in_a_row >= PATIENCE)
    }
}

impl Desk {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A guest waits for its turn, which may begin at once.
    fn line_up(self: &Arc<Self>, opened: Opened) {
        let mut queues = self.queues();
        queues.guests.push_back(opened);
        let idle = if queues.errand.is_none() { queues.connection.take() } else { None };
        drop(queues);
        if let Some(connection) = idle {
            self.hand_on(connection);
        }
    }

    /// Brings the connection home, for something or because its turn is over.
    fn bring(&self, connection: Box<Connection>, errand: Option<Errand>) {
        let mut queues = self.queues();
        (queues.connection, queues.errand) = (Some(connection), errand);
        self.called.notify_one();
    }

    /// After a turn, or when nobody had the connection: gives it to the guest that is next, or leaves it here.
    fn hand_on(self: &Arc<Self>, mut connection: Box<Connection>) {
        let _guard = AbortOnPanic::new();
        loop {
            let mut queues = self.queues();
            if !queues.is_turn_next() {
                drop(queues);
                return self.bring(connection, None);
            }
            let Some(Next::Turn(opened)) = queues.next() else { return };
            drop(queues);
            match connection.begin_guest_lightly() {
                Ok(false) => {
                    self.queues().guests.push_front(opened);
                    return self.bring(connection, None);
                }
                begun => match self.lend(connection, begun.map(drop), opened) {
                    None => return,
                    Some(back) => connection = back,
                },
            }
        }
    }

    /// Gives the connection to a guest, whose transaction has begun. It comes back if that failed, or nobody wants it any more.
    fn lend(
        self: &Arc<Self>,
        connection: Box<Connection>,
        begun: Result<(), Error>,
        opened: Opened,
    ) -> Option<Box<Connection>> {
        if let Err(error) = begun {
            let _ = opened.send(Err(error)); // Whoever asked may have gone away.
            return Some(connection);
        }
        let refused = opened.send(Ok(Lent { connection: Some(connection), desk: Arc::clone(self) })).err()?;
        let mut connection = refused.ok()?.connection.take()?;
        connection.end_guest();
        Some(connection)
    }
}

/// The thread: everything but the turns of guests, and these where a guest that was next needs the stack to begin.
fn serve(desk: &Arc<Desk>) {
    loop {
        let waits = |queues: &mut Queues| {
            let nothing = queues.errand.is_none() && queues.engine.is_empty() && queues.guests.is_empty();
            queues.connection.is_none() || (nothing && !queues.closed)
        };
        let mut queues = desk.called.wait_while(desk.queues(), waits).unwrap_or_else(PoisonError::into_inner);
        let (next, Some(mut connection)) = (queues.next(), queues.connection.take()) else { continue };
        drop(queues);
        match next {
            Some(Next::Errand(errand)) => errand(Lent { connection: Some(connection), desk: Arc::clone(desk) }),
            Some(Next::Operation(work)) => {
                let began = Instant::now();
                work(&mut connection);
                desk.queues().in_a_row += began.elapsed();
                desk.hand_on(connection);
            }
            Some(Next::Turn(opened)) => {
                let begun = connection.begin_guest();
                if let Some(connection) = desk.lend(connection, begun, opened) {
                    desk.hand_on(connection);
                }
            }
            None => return,
        }
    }
}

/// The connection, for one turn. Dropping it hands it on, and what was not committed is rolled back.
pub(super) struct Lent {
    /// There, until it goes home.
    connection: Option<Box<Connection>>,
    desk: Arc<Desk>,
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
        let _guard = AbortOnPanic::new();
        operation(self.connection.as_mut().ok_or_else(over)?)
    }

    /// Does something with the connection on the writer's thread, and gives it back with the answer.
    pub(super) async fn there<T: Send + 'static>(
        mut self,
        operation: impl FnOnce(&mut Connection) -> Result<T, SqlError> + Send + 'static,
    ) -> Result<(Self, Result<T, SqlError>), SqlError> {
        let (reply, answer) = oneshot::channel();
        let errand: Errand = Box::new(move |mut lent| {
            let done = lent.here(operation);
            let _ = reply.send((lent, done)); // If nobody waits any more, this drops it.
        });
        self.desk.bring(self.connection.take().ok_or_else(over)?, Some(errand));
        answer.await.map_err(|_| over())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            let _guard = AbortOnPanic::new();
            connection.end_guest();
            self.desk.hand_on(connection);
        }
    }
}

/// A host without its writer could do nothing but hold the file, and a connection that was left in the middle of an
/// operation is in a state that nobody knows. Its death is what everything else is built for.
struct AbortOnPanic {
    /// There was one before, of something else: the connection is whole.
    before: bool,
}

impl AbortOnPanic {
    fn new() -> Self {
        Self { before: std::thread::panicking() }
    }
}

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.before {
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
