//! A host, put together: store, engine, catalog, workers and doors, and their end in the other order.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
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
use crate::store::{Ledger, Retention, Store};
use crate::watch::{self, Watch};
use crate::worker::Worker;
use crate::{cron, doors, folder, keeper, store};

mod ways;

use ways::Carriers;

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
    let ledger = Arc::clone(&store) as Arc<dyn Ledger>;
    let outside = Arc::new(LedgerClient { client: Client::new(outside::Limits::default()), ledger });
    let carriers = Carriers::install(&config, &store, &watch, Arc::clone(&outside), &stopping).await?;
    let worker = workers.then(|| {
        let (settled, running) = (Arc::clone(&settled), Arc::clone(&running));
        let settler = Settler { store: Arc::clone(&store), watch: Arc::clone(&watch) };
        let worker = Worker::new(
            settler.clone(),
            engine,
            Arc::clone(&catalog),
            outside,
            Arc::clone(&settled),
            Arc::clone(&running),
            carriers.bell(),
        );
        let relay = Relay { settler, running, settled, host: worker.host.clone() };
        tokio::spawn(work(worker, carriers, relay, stopping.clone()))
    });
    let keepers = tokio::spawn(keep(Arc::clone(&store), Arc::clone(&catalog), config.retention, stopping.clone()));
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
    let _ = keepers.await; // Their steps are short commits.
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

/// Runs messages, and carries what is not for functions, side by side.
async fn work(worker: Arc<Worker>, carriers: Carriers, relay: Relay, stopping: Receiver<bool>) {
    tokio::join!(worker.run(stopping.clone()), carriers.run(relay, stopping));
}

/// Fires schedules and keeps house, side by side.
async fn keep(store: Arc<dyn Store>, catalog: Arc<Catalog>, retention: Retention, stopping: Receiver<bool>) {
    let house = keeper::keep(Arc::clone(&store), retention, stopping.clone());
    tokio::join!(cron::keep(store, catalog, stopping), house);
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
