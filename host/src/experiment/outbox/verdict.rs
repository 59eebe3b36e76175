//! The verdict on a run: a pure function of what was observed.

use std::collections::{BTreeMap, HashSet};

use super::super::{Check, Verdict};
use super::broker::Kind;
use super::evidence::Arrived;
use super::{Options, Run, Seen};

/// Judges a run.
pub(super) fn judge(options: &Options, run: &Run) -> Verdict {
    let at_least = |claim: String, least: u64, found: u64| {
        Check::new(claim, found >= least, format!("{least} or more"), found.to_string())
    };
    let mut checks = vec![
        at_least("kills of hosts that relay".into(), options.kills, run.done.relay_kills),
        at_least("… with events under way".into(), options.kills.min(1), run.done.hits),
        at_least("… between a confirmation and its record".into(), options.kills.div_ceil(2), run.done.confirmed),
        at_least("kills of hosts that receive".into(), 2 * options.broker_kills, run.done.receiver_kills),
        at_least("brokers that stood still for a while".into(), 2, run.done.freezes),
        at_least("messages that were rolled back".into(), 1, run.rolled_back),
    ];
    for seen in &run.brokers {
        let name = seen.kind.name();
        let bodies = || bodies(&seen.arrived);
        let handled = || seen.handled.iter().map(String::as_str);
        checks.push(at_least(format!("{name}: kills"), options.broker_kills, seen.kills));
        checks.push(Check::equal(format!("{name}: committed events that arrived"), run.committed, distinct(bodies())));
        checks.push(Check::equal(format!("{name}: ids of these"), run.committed, distinct(ids(seen))));
        checks.push(Check::equal(
            format!("{name}: events of messages that were rolled back"),
            0,
            rolled_back(bodies()),
        ));
        if seen.kind == Kind::RabbitMq && options.kills > 0 {
            checks.push(at_least(format!("{name}: duplicates"), 1, duplicates(seen)));
        }
        checks.push(Check::equal(format!("{name}: events that were handled"), run.committed, distinct(handled())));
        let twice = seen.handled.len() as u64 - distinct(handled());
        checks.push(Check::equal(format!("{name}: events that were handled twice"), 0, twice));
        checks.push(Check::equal(format!("{name}: keys out of order at the broker"), 0, out_of_order(bodies())));
        checks.push(Check::equal(
            format!("{name}: keys out of order where they are handled"),
            0,
            out_of_order(handled()),
        ));
    }
    let duplicates: u64 = run.brokers.iter().map(duplicates).sum();
    let shown = format!(
        "all {} committed events arrived at both brokers, {duplicates} of them more than once, and each was handled exactly once, in \
         the order of its key; none of the {} that were rolled back",
        run.committed, run.rolled_back
    );
    Verdict::of(checks, shown)
}

/// What a broker was given beyond the first time.
pub(super) fn duplicates(seen: &Seen) -> u64 {
    seen.arrived.len() as u64 - distinct(ids(seen))
}

fn ids(seen: &Seen) -> impl Iterator<Item = &str> {
    seen.arrived.iter().map(|arrived| arrived.id.as_str())
}

/// What the events say, in the order in which the broker was given them.
pub(super) fn bodies(arrived: &[Arrived]) -> impl Iterator<Item = &str> {
    arrived.iter().map(|arrived| arrived.body.as_str())
}

pub(super) fn distinct<'a>(of: impl Iterator<Item = &'a str>) -> u64 {
    of.collect::<HashSet<_>>().len() as u64
}

fn rolled_back<'a>(bodies: impl Iterator<Item = &'a str>) -> u64 {
    let number = |body: &str| body.split_once(' ')?.1.parse().ok();
    bodies.filter(|body| number(body).is_none_or(super::is_rolled_back)).count() as u64
}

/// Keys of which an event came for the first time after a later one.
pub(super) fn out_of_order<'a>(bodies: impl Iterator<Item = &'a str>) -> u64 {
    let (mut known, mut last, mut wrong) = (HashSet::new(), BTreeMap::new(), HashSet::new());
    for body in bodies.filter(|body| known.insert(*body)) {
        let key = body.split_once(' ').map_or(body, |(key, _)| key);
        if last.insert(key, body).is_some_and(|before| before > body) {
            wrong.insert(key);
        }
    }
    wrong.len() as u64
}

#[cfg(test)]
mod tests {
    use super::super::faults::Done;
    use super::*;

    fn options() -> Options {
        Options {
            program: None,
            database: None,
            seed: 1,
            out: "out".into(),
            messages: 20,
            kills: 10,
            broker_kills: 3,
            functions: "functions".into(),
            scripts: "scripts".into(),
        }
    }

    fn good() -> Run {
        let numbers = || (0..20).filter(|number| !super::super::is_rolled_back(*number));
        let body = |number: u64| super::super::event(number % 2, number);
        let seen = |kind| {
            let mut arrived: Vec<_> =
                numbers().map(|number| Arrived { id: format!("id-{number}"), body: body(number) }).collect();
            arrived.push(arrived[0].clone());
            Seen { kind, kills: 3, arrived, handled: numbers().map(body).collect() }
        };
        let done = Done { relay_kills: 10, hits: 9, confirmed: 5, receiver_kills: 6, freezes: 2, list: Vec::new() };
        Run { done, relays: 1, committed: 18, rolled_back: 2, brokers: Kind::ALL.map(seen).into(), seconds: 1.0 }
    }

    #[test]
    fn every_way_to_be_wrong_fails() {
        assert!(judge(&options(), &good()).passed, "{}", judge(&options(), &good()).summary);
        let check = |what: &str, change: &dyn Fn(&mut Run)| {
            let mut run = good();
            change(&mut run);
            let verdict = judge(&options(), &run);
            assert!(!verdict.passed && verdict.summary.contains(what), "{what}: {}", verdict.summary);
        };
        check("kills of hosts", &|run| run.done.relay_kills = 9);
        check("under way", &|run| run.done.hits = 0);
        check("its record", &|run| run.done.confirmed = 4);
        check("that receive", &|run| run.done.receiver_kills = 5);
        check("stood still", &|run| run.done.freezes = 1);
        check("nats: kills", &|run| run.brokers[1].kills = 2);
        check("committed events that arrived", &|run| drop(run.brokers[0].arrived.remove(5)));
        check("rolled back", &|run| run.brokers[0].arrived[3].body = super::super::event(1, 9));
        check("rabbitmq: duplicates", &|run| drop(run.brokers[0].arrived.pop()));
        check("ids of these", &|run| run.brokers[1].arrived[18].id = "another".into());
        check("events that were handled:", &|run| drop(run.brokers[0].handled.pop()));
        check("handled twice", &|run| run.brokers[1].handled.push(super::super::event(0, 0)));
        check("out of order at the broker", &|run| run.brokers[0].arrived.swap(0, 2));
        check("out of order where", &|run| run.brokers[1].handled.swap(1, 3));
    }
}
