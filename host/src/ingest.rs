//! Group commit at the door: what comes while a commit is under way shares the next one.
//!
//! Before it: [`crate::api`] made events of requests. After it: [`crate::store`] puts them into the queue. Nobody waits for
//! company: who finds no commit under way begins one at once, alone.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::store::{Accept, Enqueued, Error, Store};
use crate::watch::Watch;

/// Messages, and bytes of their bodies, with which a commit is full: what is left waits for the next one.
const FULL: (usize, usize) = (256, 4 << 20);
/// Commits under way at once.
const AT_ONCE: usize = 1;
/// One that takes longer than this, for a lock or a dead line, keeps the next one waiting no more.
const LONG: Duration = Duration::from_millis(100);

/// What became of each message of a request, in order.
pub(crate) type Answers = Vec<Result<Enqueued, Error>>;

/// Where requests hand in what is to be enqueued.
pub(crate) struct Ingest {
    shared: Arc<Shared>,
    parcels: UnboundedSender<Parcel>,
}

struct Shared {
    store: Arc<dyn Store>,
    watch: Arc<Watch>,
    room: Arc<Semaphore>,
}

/// The messages of a request, and where it waits for its answers.
struct Parcel {
    list: Vec<Accept>,
    reply: oneshot::Sender<Answers>,
}

impl Ingest {
    /// To be called in the host's runtime.
    pub(crate) fn start(store: Arc<dyn Store>, watch: Arc<Watch>) -> Self {
        let shared = Arc::new(Shared { store, watch, room: Arc::new(Semaphore::new(AT_ONCE)) });
        let (parcels, waiting) = unbounded_channel();
        tokio::spawn(gather(Arc::clone(&shared), waiting)); // Ends with this.
        Self { shared, parcels }
    }

    /// Enqueues the messages of one request in order, and in one commit unless the database refuses that. What is answered
    /// with `Ok` is durable. Whoever does not wait for the answer may be accepted all the same.
    pub(crate) async fn accept(&self, list: Vec<Accept>) -> Answers {
        let _waiting = self.shared.watch.metrics.accepting(list.len());
        if let Ok(_room) = self.shared.room.try_acquire() {
            return self.shared.commit(vec![list]).await.pop().unwrap_or_default();
        }
        let (count, (reply, answers)) = (list.len(), oneshot::channel());
        let sent = self.parcels.send(Parcel { list, reply });
        let gone = |_| vec![Err(Error::Unavailable("nothing is accepted any more".into())); count];
        if sent.is_err() { gone(()) } else { answers.await.unwrap_or_else(|_| gone(())) }
    }
}

/// Commits what has gathered whenever there is room for it.
async fn gather(shared: Arc<Shared>, mut parcels: UnboundedReceiver<Parcel>) {
    while let Some(first) = parcels.recv().await {
        let room = timeout(LONG, Arc::clone(&shared.room).acquire_owned()).await;
        let load = fill(first, &mut parcels);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let (lists, replies): (Vec<_>, Vec<_>) =
                load.into_iter().map(|Parcel { list, reply }| (list, reply)).unzip();
            let answers = shared.commit(lists).await;
            drop(room);
            for (reply, answers) in replies.into_iter().zip(answers) {
                let _ = reply.send(answers); // Who has gone needs none.
            }
        });
    }
}

/// Whoever waits, until the commit is full.
fn fill(first: Parcel, parcels: &mut UnboundedReceiver<Parcel>) -> Vec<Parcel> {
    let mut load = vec![first];
    let (mut count, mut bytes) = (0, 0);
    while let Some(last) = load.last() {
        count += last.list.len();
        bytes += last.list.iter().map(|accept| accept.event.body.len()).sum::<usize>();
        if count >= FULL.0 || bytes >= FULL.1 {
            break;
        }
        let Ok(next) = parcels.try_recv() else { break };
        load.push(next);
    }
    load
}

impl Shared {
    /// All in one commit. If the database is there and refuses that, each request is tried by itself, so that nobody gets
    /// another's error.
    async fn commit(&self, lists: Vec<Vec<Accept>>) -> Vec<Answers> {
        let sizes: Vec<usize> = lists.iter().map(Vec::len).collect();
        let all: Arc<[Accept]> = lists.into_iter().flatten().collect();
        match self.enqueue(Arc::clone(&all)).await {
            Ok(answers) => {
                let mut answers = answers.into_iter().map(Ok);
                sizes.iter().map(|size| answers.by_ref().take(*size).collect()).collect()
            }
            Err(error) if all.len() <= 1 || matches!(error, Error::Unavailable(_)) => {
                sizes.iter().map(|size| vec![Err(error.clone()); *size]).collect()
            }
            Err(_) => {
                let mut rest = &all[..];
                let alone = sizes.iter().map(|size| {
                    let (list, others) = rest.split_at(*size);
                    rest = others;
                    self.one_by_one(list)
                });
                join_all(alone.collect::<Vec<_>>()).await
            }
        }
    }

    /// In order. What holds one of them up would hold up the next ones as well: then they are not tried.
    async fn one_by_one(&self, list: &[Accept]) -> Answers {
        let mut answers = Answers::with_capacity(list.len());
        for accept in list {
            if let Some(Err(error @ (Error::Busy(_) | Error::Unavailable(_)))) = answers.last() {
                answers.push(Err(error.clone()));
                continue;
            }
            let answer = self.enqueue([accept.clone()].into()).await;
            answers.extend(answer.map_or_else(|error| vec![Err(error)], |found| found.into_iter().map(Ok).collect()));
        }
        answers
    }

    async fn enqueue(&self, list: Arc<[Accept]>) -> Result<Vec<Enqueued>, Error> {
        self.watch.metrics.accept_committed();
        self.store.enqueue_all(list).await
    }
}
