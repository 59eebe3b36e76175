//! Wake-ups: LISTEN and NOTIFY, outside of every transaction that carries a message. A hint and no more: guests can forge
//! one and a lost connection loses one, so everybody looks from time to time without any.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Executor;
use sqlx::postgres::{PgListener, PgPool};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::classify;
use super::connection::Engine;

const CHANNEL: &str = "semel";
const NOTIFY: &str = "SELECT pg_notify('semel', $1)";
/// What is said on the channel.
const WORK: &str = "work";
const DEPLOYED: &str = "deployed";
/// Between two notifications of one host: many messages wake the others once.
const PAUSE: Duration = Duration::from_millis(20);
/// After so long without a word the listener asks whether the server is there.
const QUIET: Duration = Duration::from_secs(10);
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// Before the next try to listen.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Wake {
    work: Arc<Hint>,
    deployed: Arc<Hint>,
    /// End with this.
    _tasks: JoinSet<()>,
}

/// There may be something to see, for whoever waits in this process and in others.
#[derive(Default)]
pub(super) struct Hint {
    here: Notify,
    others: Notify,
}

impl Hint {
    pub(super) fn all(&self) {
        self.here.notify_one();
        self.others.notify_one();
    }

    /// Returns when there may be something, or after `longest`.
    async fn wait(&self, longest: Duration) {
        let _ = tokio::time::timeout(longest, self.here.notified()).await; // Either way there may be something.
    }
}

impl Wake {
    pub(super) fn start(engine: Engine, readers: PgPool) -> Self {
        let (work, deployed) = (Arc::<Hint>::default(), Arc::<Hint>::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(tell(engine.clone(), Arc::clone(&work), WORK));
        tasks.spawn(tell(engine, Arc::clone(&deployed), DEPLOYED));
        tasks.spawn(listen(readers, Arc::clone(&work), Arc::clone(&deployed)));
        Self { work, deployed, _tasks: tasks }
    }

    /// There may be something to claim, here and elsewhere.
    pub(super) fn all(&self) {
        self.work.all();
    }

    /// What is deployed has changed; with it, there may be something to claim.
    pub(super) fn all_deployed(&self) {
        self.deployed.all();
        self.work.all();
    }

    /// What a session needs to say that there may be something to claim.
    pub(super) fn hint(&self) -> Arc<Hint> {
        Arc::clone(&self.work)
    }

    pub(super) async fn wait(&self, longest: Duration) {
        self.work.wait(longest).await;
    }

    /// Returns when what is deployed may have changed, or after `longest`.
    pub(super) async fn deployed(&self, longest: Duration) {
        self.deployed.wait(longest).await;
    }
}

async fn tell(engine: Engine, hint: Arc<Hint>, what: &'static str) {
    loop {
        hint.others.notified().await;
        let told = engine.run(move |connection| {
            Box::pin(
                async move { sqlx::query(NOTIFY).bind(what).execute(connection).await.map(drop).map_err(classify) },
            )
        });
        if let Err(error) = told.await {
            tracing::debug!(%error, "the other hosts were not woken");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn listen(readers: PgPool, work: Arc<Hint>, deployed: Arc<Hint>) {
    loop {
        let error = match PgListener::connect_with(&readers).await {
            Ok(mut listener) => hear(&mut listener, &work, &deployed).await,
            Err(error) => error,
        };
        tracing::debug!(%error, "not listening for wake-ups");
        tokio::time::sleep(AGAIN).await;
    }
}

/// Until the connection is lost.
async fn hear(listener: &mut PgListener, work: &Hint, deployed: &Hint) -> sqlx::Error {
    if let Err(error) = listener.listen(CHANNEL).await {
        return error;
    }
    loop {
        match timeout(QUIET, listener.try_recv()).await {
            Ok(Ok(Some(said))) if said.payload() == DEPLOYED => deployed.here.notify_one(),
            Ok(Ok(Some(_))) => work.here.notify_one(),
            // It was lost and is there again; nobody knows what was said in between.
            Ok(Ok(None)) => [work, deployed].iter().for_each(|hint| hint.here.notify_one()),
            Ok(Err(error)) => return error,
            // Nobody has anything to say, or the line is dead and nobody will ever know.
            Err(_) => {
                let sign = timeout(SIGN_OF_LIFE, listener.execute("SELECT 1"));
                if let Err(error) = sign.await.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                    return error;
                }
            }
        }
    }
}
