//! A host, put together: store, engine, catalog, workers and doors, and their end in the other order.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::sync::watch::{Receiver, channel};

use crate::api::{self, Api};
use crate::calls::LedgerClient;
use crate::config::Config;
use crate::engine::Engine;
use crate::engine::catalog::Catalog;
use crate::ingest::Ingest;
use crate::outside::{self, Client};
use crate::relay::Relay;
use crate::running::Running;
use crate::settled::Settled;
use crate::settlement::Settler;
use crate::store::Ledger;
use crate::watch::{self, Watch};
use crate::worker::Worker;
use crate::{doors, folder, keeper, store};

/// How long runs may take to end, which they do by their own timeouts.
const DRAIN: Duration = Duration::from_secs(30);
/// How long requests may take to be answered after that.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// How long the collector may take over the last spans.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Serves until `stop` resolves, then accepts and claims nothing more, lets what runs end, and returns. Until the end it
/// says to whoever asks that it is stopping.
///
/// # Errors
/// If the host cannot start. What it does after that is in its log.
pub async fn serve(config: Config, workers: bool, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    watch::system::raise_open_files();
    let watch = Watch::new(config.otlp.as_deref())?;
    let store = store::open_with(&config.database, config.apps.clone()).await?;
    let mut engine = Engine::new(config.resources)?;
    match &config.cache {
        Some(folder) => engine.keep_artifacts(folder, &store.secret())?,
        None => tracing::warn!("there is no folder for compiled components (cache): each start compiles them"),
    }
    let engine = Arc::new(engine);
    let catalog = Arc::new(Catalog::open(Arc::clone(&engine), Arc::clone(&store)).await?);
    if let Some(folder) = &config.functions {
        deploy_all(&catalog, folder).await?;
    }
    let settled = Arc::new(Settled::default());
    let running = Arc::new(Running::default());
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
    let (ask_to_stop, stopping) = channel(false);
    let following = tokio::spawn({
        let catalog = Arc::clone(&catalog);
        async move { tokio::join!(catalog.keep_compiled(), catalog.follow()) }
    });
    let worker = workers.then(|| {
        let (settled, running, sendable) = (Arc::clone(&settled), Arc::clone(&running), Arc::<Notify>::default());
        let settler = Settler { store: Arc::clone(&store), watch: Arc::clone(&watch) };
        let ledger = Arc::clone(&store) as Arc<dyn Ledger>;
        let outside = Arc::new(LedgerClient { client: Client::new(outside::Limits::default()), ledger });
        let worker = Worker::new(
            settler.clone(),
            engine,
            Arc::clone(&catalog),
            Arc::clone(&outside),
            Arc::clone(&settled),
            Arc::clone(&running),
            Arc::clone(&sendable),
        );
        let host = worker.host.clone();
        let relay = Arc::new(Relay { settler, outside, running, settled, sendable, host });
        tokio::spawn(work(worker, relay, stopping.clone()))
    });
    let keeper = tokio::spawn(keeper::keep(Arc::clone(&store), config.retention, stopping.clone()));
    let (limits, connections) = limits(&config);
    let (watched, probes, token) = (Arc::clone(&watch), Arc::default(), config.token.map(Arc::from));
    let ingest = Arc::new(Ingest::start(Arc::clone(&store), Arc::clone(&watch)));
    let api = Api { store, ingest, catalog, settled, running, watch: watched, probes, limits, stopping, token };
    let router = api::router(api);
    tracing::info!(address = %listener.local_addr()?, "listening");
    let (close, closing) = channel(false);
    let doors = tokio::spawn(doors::serve(listener, router, connections, closing));
    stop.await;
    tracing::info!("stopping: nothing new is accepted or claimed, what runs may end");
    let _ = ask_to_stop.send(true);
    following.abort();
    let _ = keeper.await; // Its step is one short commit.
    if let Some(worker) = worker {
        match tokio::time::timeout(DRAIN, worker).await {
            Ok(ended) => ended.context("the worker failed")?,
            Err(_) => {
                tracing::warn!("what still runs is given up; its effects are rolled back and its messages run again")
            }
        }
    }
    let _ = close.send(true);
    if let Ok(ended) = tokio::time::timeout(LAST_ANSWERS, doors).await {
        ended.context("the doors failed")?;
    } // Else there are connections on which nobody says anything.
    watch.end(LAST_SPANS).await;
    Ok(())
}

/// Runs messages and sends what was deferred, side by side.
async fn work(worker: Arc<Worker>, relay: Arc<Relay>, stopping: Receiver<bool>) {
    tokio::join!(worker.run(stopping.clone()), relay.run(stopping));
}

fn limits(config: &Config) -> (api::Limits, doors::Limits) {
    let requests = api::Limits {
        body: config.body,
        head: config.head,
        upload: config.upload,
        patience: config.body_time,
        request: config.request_time,
        connections: config.connections,
    };
    let connections = doors::Limits {
        connections: config.connections,
        head: config.head,
        head_time: config.head_time,
        stall: config.body_time,
        last: config.request_time,
    };
    (requests, connections)
}

/// Deploys each folder in a folder. What is deployed already stays as it is, and so does what a person has gone back from
/// or removed: a folder that has not changed since says nothing new.
async fn deploy_all(catalog: &Catalog, folder: &Path) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut folders: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.retain(|path| path.join("function.toml").is_file());
    folders.sort();
    for path in folders {
        let (upload, cannot) = (folder::read(&path, None)?, || format!("cannot deploy {}", path.display()));
        if catalog.was_taken_back(&upload).await.with_context(cannot)? {
            tracing::warn!(folder = %path.display(), "stays rolled back or removed; `semel deploy` brings it back");
            continue;
        }
        let function = catalog.deploy(upload).await.with_context(cannot)?.function;
        tracing::info!(function = function.manifest().name, version = function.version, "deployed");
    }
    Ok(())
}
