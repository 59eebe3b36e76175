//! The report on a run: what each broker was given, and what was handled.

use super::super::{Environment, Figure, Report, Table};
use super::verdict::{duplicates, judge};
use super::{Options, Run, Seen};

pub(super) fn report(options: &Options, run: &Run, environment: Environment) -> Report {
    Report {
        experiment: "outbox",
        title: "Outbox, relay, broker, inbox: what is committed arrives, and is handled once".to_owned(),
        method: "A function publishes events of eight keys, in order; every tenth message is rolled back. Sinks relay them to \
                 RabbitMQ and to NATS JetStream. From each broker a host with a database of its own receives them, and a function \
                 there writes a row for each. Meanwhile hosts that relay and hosts that receive get SIGKILL and are started again, and so do \
                 the brokers; each broker also stands still for a while. What a broker was given is read from a queue of the \
                 experiment's own; what was handled, from the rows."
            .to_owned(),
        verdict: judge(options, run),
        figures: figures(run),
        plots: Vec::new(),
        tables: vec![brokers(run), faults(run)],
        environment,
    }
}

fn figures(run: &Run) -> Vec<Figure> {
    vec![
        Figure::count("events committed", run.committed),
        Figure::count("events rolled back", run.rolled_back),
        Figure::count("hosts that relay", run.relays),
        Figure::count("kills of these", run.done.relay_kills),
        Figure::count("of these between a confirmation and its record", run.done.confirmed),
        Figure::count("kills of hosts that receive", run.done.receiver_kills),
        Figure::count("kills of brokers", run.brokers.iter().map(|seen| seen.kills).sum()),
        Figure::count("duplicates at the brokers", run.brokers.iter().map(duplicates).sum()),
        Figure::measure("until all was handled", run.seconds, "s"),
    ]
}

fn brokers(run: &Run) -> Table {
    let row = |seen: &Seen| {
        let numbers = [seen.kills, seen.arrived.len() as u64, duplicates(seen), seen.handled.len() as u64];
        std::iter::once(seen.kind.name().to_owned()).chain(numbers.map(|number| number.to_string())).collect()
    };
    Table {
        title: "What each broker was given".to_owned(),
        columns: vec!["broker", "kills", "given", "of these duplicates", "handled"],
        rows: run.brokers.iter().map(row).collect(),
    }
}

fn faults(run: &Run) -> Table {
    let row = |(number, what): (usize, &String)| vec![(number + 1).to_string(), what.clone()];
    Table {
        title: "What went wrong".to_owned(),
        columns: vec!["number", "fault"],
        rows: run.done.list.iter().enumerate().map(row).collect(),
    }
}
