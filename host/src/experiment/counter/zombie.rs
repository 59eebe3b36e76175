//! A zombie: a host that stands still beyond its leases, while others take over what it was doing, and then goes on.
//!
//! Every other one is stopped at the worst moment: when its acknowledgement is on the way. The network holds that back, and
//! it arrives after the message was taken over, which is as late as a zombie can be with everything done. The rest are stopped
//! at any moment: then the database ends the open transaction first, and the fence has nothing left to refuse.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout};

use super::hosts::Hosts;
use crate::store::Held;

/// How long an acknowledgement may let itself be waited for.
const AT_WORK_WITHIN: Duration = Duration::from_secs(2);
/// How long it is left alone afterwards: one that is killed at once cannot tell what became of its commits.
const TO_TELL: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One host that stood still.
#[derive(Debug)]
pub(super) struct Zombie {
    /// Seconds since the first request.
    pub(super) at: f64,
    /// For how long.
    pub(super) stopped: Duration,
    /// An acknowledgement of its was on the way.
    pub(super) acknowledged: bool,
    /// Claims that it held when it was stopped.
    pub(super) held: u64,
    /// Of these, what was taken over before it went on.
    pub(super) taken: Vec<Held>,
}

/// Stops host `number` until another has taken its work over, for two leases at least if no acknowledgement of its is on the way.
pub(super) async fn freeze(
    hosts: &mut Hosts,
    number: usize,
    at: f64,
    lease: Duration,
    acknowledged: bool,
) -> anyhow::Result<Zombie> {
    let other = hosts.member((number + 1) % hosts.count())?.process.client().clone();
    let host = hosts.member(number)?;
    let mut holds = false;
    if let Some(proxy) = host.proxy.as_ref().filter(|_| acknowledged) {
        holds = matches!(timeout(AT_WORK_WITHIN, proxy.hold_acknowledgement()).await, Ok(Ok(())));
    }
    host.process.signal(Signal::STOP)?;
    let (began, id) = (Instant::now(), host.process.id());
    let held = hosts.held_by(id.as_deref()).await?;
    let least = if holds { lease / 2 } else { lease * 2 };
    loop {
        sleep(LOOK_EVERY).await;
        let taken = began.elapsed() > least && hosts.held_by(id.as_deref()).await?.is_empty();
        if taken || began.elapsed() > lease * 4 {
            break;
        }
    }
    let mut taken = Vec::new();
    for claim in &held {
        // Nobody but recovery, on another host, writes so while this one stands still.
        let attempts = other.attempts(&claim.message).await?;
        if attempts.iter().any(|attempt| attempt.attempt == claim.attempt && attempt.outcome == "host-lost") {
            taken.push(claim.clone());
        }
    }
    let host = hosts.member(number)?;
    if let Some(proxy) = &host.proxy {
        proxy.restore();
    }
    host.process.signal(Signal::CONT)?;
    let stopped = began.elapsed();
    sleep(TO_TELL).await;
    Ok(Zombie { at, stopped, acknowledged: holds, held: held.len() as u64, taken })
}
