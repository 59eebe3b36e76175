//! What leaves and what comes in beside HTTP, put together: sinks, sources, and requests that were deferred.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::bell::Bell;
use crate::calls::LedgerClient;
use crate::config::{Config, Ways};
use crate::inbox::Inbox;
use crate::relay::{Events, Letters, Relay, Requests, Way};
use crate::source::Source;
use crate::store::{Activation, Store};
use crate::watch::{Standing, Watch};

/// What a host carries.
pub(super) struct Carriers {
    out: Vec<Arc<dyn Way>>,
    sources: Vec<(Arc<dyn Source>, Inbox)>,
    bell: Arc<Bell>,
}

impl Carriers {
    /// Makes sinks and sources known to the database: from then on what is published is kept for them.
    pub(super) async fn install(
        config: &Config,
        store: &Arc<dyn Store>,
        watch: &Arc<Watch>,
        outside: Arc<LedgerClient>,
        stop: &watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let Ways { sinks, sources } = &config.ways;
        let bell = Arc::new(Bell::new(1 + sinks.len() + sources.len()));
        let mut carriers = Self { out: vec![Arc::new(Requests(outside))], sources: Vec::new(), bell };
        for (name, settings) in sinks {
            let (function, sink) = (format!("sink:{name}"), settings.sink()?);
            let (kind, topics) = (settings.kind(), settings.topics().to_vec());
            install(store, kind, &function, topics.clone()).await?;
            watch.standings.add(&function, Standing { kind, topics, guarantee: sink.guarantee(), trouble: None });
            carriers.out.push(Arc::new(Events { function, sink }));
        }
        for (name, settings) in sources {
            let (function, source) = (format!("source:{name}"), settings.source()?);
            let (kind, topic) = (settings.kind(), settings.topic().to_owned());
            install(store, kind, &function, Vec::new()).await?;
            let standing = Standing { kind, topics: vec![topic.clone()], guarantee: source.guarantee(), trouble: None };
            watch.standings.add(&function, standing);
            carriers.out.push(Arc::new(Letters {
                function: function.clone(),
                topic: topic.clone(),
                largest: config.body,
            }));
            let inbox = Inbox {
                store: Arc::clone(store),
                watch: Arc::clone(watch),
                bell: Arc::clone(&carriers.bell),
                stop: stop.clone(),
                function,
                name: name.clone(),
                topic,
                window: settings.window(),
                largest: config.body,
            };
            carriers.sources.push((source, inbox));
        }
        Ok(carriers)
    }

    pub(super) fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    /// Carries until `stop` says so, and lets what is on its way end.
    pub(super) async fn run(self, relay: Relay, stop: watch::Receiver<bool>) {
        let mut receiving = JoinSet::new();
        for (source, inbox) in self.sources {
            let stop = stop.clone();
            receiving.spawn(async move { source.run(&inbox, stop).await });
        }
        relay.run(self.out, &self.bell, stop).await;
        receiving.join_all().await;
    }
}

/// Serial: events of one group wait for each other.
async fn install(store: &Arc<dyn Store>, kind: &str, function: &str, topics: Vec<String>) -> anyhow::Result<()> {
    let activation = Activation {
        function: function.to_owned(),
        app: "semel".into(),
        topics,
        serial: true,
        backlog: None,
        schedules: Vec::new(),
    };
    store.install(kind, activation).await.with_context(|| format!("cannot make {function} known to the database"))
}
