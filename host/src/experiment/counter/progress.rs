//! How far a run is: what the senders know, what the host last said, and both once every 100 ms for the plot.
//!
//! Senders, killer and observer share one [`Progress`]. Only one of them asks the host at a time, since the host's
//! own work is what is measured. While the host is down nothing is known of it, and the samples have a gap.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::super::Notify;
use super::super::client::{Client, Counts};
use super::super::report::grouped;
use super::{FUNCTION, Faults};

const SAMPLE_EVERY: Duration = Duration::from_millis(100);
const SAMPLES_PER_NOTICE: u64 = 10;
/// Longer than any wait of the experiment's own for something to move.
const STALLED_AFTER: Duration = Duration::from_secs(90);

/// The state of a run, shared by all that take part.
#[derive(Debug)]
pub(super) struct Progress {
    began: Instant,
    requests: u64,
    asked: AtomicU64,
    /// Requests that may be sent so far.
    released: watch::Sender<u64>,
    accepted: AtomicU64,
    /// Kills of hosts, and faults of each kind that hit work.
    faults: watch::Sender<(u64, Faults)>,
    host: watch::Sender<Host>,
}

/// What is known of the host.
#[derive(Debug, Clone, Copy, Default)]
struct Host {
    /// The last counts it gave, also while it is down.
    counts: Counts,
    /// It has given counts since it was last killed.
    up: bool,
}

/// One point of the plot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Seconds since the first request.
    pub(super) at: f64,
    /// Requests that were answered.
    pub(super) accepted: u64,
    /// Messages that were completed; nothing while the host is down.
    pub(super) completed: Option<u64>,
}

impl Progress {
    pub(super) fn new(requests: u64) -> Self {
        Self {
            began: Instant::now(),
            requests,
            asked: AtomicU64::new(0),
            released: watch::Sender::default(),
            accepted: AtomicU64::new(0),
            faults: watch::Sender::default(),
            host: watch::Sender::default(),
        }
    }

    /// The number of the next request, once it may be sent; nothing if there is none left.
    pub(super) async fn next_request(&self) -> Option<u64> {
        let number = Some(self.asked.fetch_add(1, Relaxed)).filter(|number| *number < self.requests)?;
        let _ = self.released.subscribe().wait_for(|released| number < *released).await; // The sender is in `self`.
        Some(number)
    }

    /// Lets all requests be sent but the last `kept`.
    pub(super) fn keep_back(&self, kept: u64) {
        let most = self.requests.saturating_sub(kept);
        self.released.send_if_modified(|released| std::mem::replace(released, most.max(*released)) < most);
    }

    /// Lets `more` of the requests be sent that were kept back.
    pub(super) fn release(&self, more: u64) {
        self.released.send_modify(|released| *released = (*released + more).min(self.requests));
    }

    pub(super) fn note_accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    /// All so far. What a host last said is old news now.
    pub(super) fn note_faults(&self, kills: u64, hits: Faults) {
        self.faults.send_replace((kills, hits));
        self.host.send_modify(|host| host.up = false);
    }

    /// Asks the host how far it is. A host that does not say in time leaves what is known as it was.
    pub(super) async fn look(&self, client: &Client, within: Duration) {
        if let Ok(Ok(counts)) = timeout(within, client.counts(FUNCTION)).await {
            self.host.send_replace(Host { counts, up: true });
        }
    }

    /// What the host last said.
    pub(super) fn counts(&self) -> Counts {
        self.host.borrow().counts
    }

    pub(super) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub(super) fn all_accepted(&self) -> bool {
        self.accepted.load(Relaxed) >= self.requests
    }

    /// Nothing is left to send, and nothing to do. Old news will do: it cannot become untrue.
    pub(super) fn is_settled(&self) -> bool {
        let counts = self.counts();
        self.all_accepted() && counts.open() == 0 && counts.settled() >= self.requests
    }

    /// All that may be sent is settled, and more is kept back: nothing happens before that is released.
    pub(super) fn is_starved(&self) -> bool {
        let (released, counts) = (*self.released.borrow(), self.counts());
        released < self.requests && counts.open() == 0 && counts.settled() >= released
    }

    /// Messages that are not settled yet, accepted or not.
    pub(super) fn left(&self) -> u64 {
        self.requests.saturating_sub(self.counts().settled())
    }

    /// Samples and tells for ever, unless nothing moves any more: then it returns what the matter is.
    pub(super) async fn watch(&self, samples: &mut Vec<Sample>, notify: Notify<'_>) -> anyhow::Error {
        let mut ticks = interval(SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut moved = ((0, 0), Instant::now());
        for n in 0_u64.. {
            ticks.tick().await;
            let Host { counts, up } = *self.host.borrow();
            let accepted = self.accepted.load(Relaxed);
            samples.push(Sample { at: self.seconds(), accepted, completed: up.then_some(counts.completed) });
            if n % SAMPLES_PER_NOTICE == 0 {
                notify(&self.line());
            }
            if moved.0 != (accepted, counts.settled()) {
                moved = ((accepted, counts.settled()), Instant::now());
            }
            if moved.1.elapsed() > STALLED_AFTER {
                break;
            }
        }
        anyhow!("nothing was accepted or settled for {STALLED_AFTER:?} ({})", self.line())
    }

    fn line(&self) -> String {
        let (requests, accepted) = (grouped(self.requests), grouped(self.accepted.load(Relaxed)));
        let (completed, seconds) = (grouped(self.counts().completed), self.seconds());
        let (kills, Faults { kills: hits, database_kills, zombies, lost_commits }) = *self.faults.borrow();
        let more = if database_kills + zombies + lost_commits > 0 {
            format!("  database {database_kills}  zombies {zombies}  lost commits {lost_commits}")
        } else {
            String::new()
        };
        format!(
            "{seconds:>4.0} s  accepted {accepted} of {requests}  completed {completed}  kills {kills}, {hits} hit work{more}"
        )
    }
}
