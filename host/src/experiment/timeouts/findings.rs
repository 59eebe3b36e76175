//! The report on a run: attempts cell by cell, with and without heartbeat.

use std::time::Duration;

use super::super::plot::{Bars, Plot, Shape};
use super::super::report::grouped;
use super::super::{Environment, Figure, Report, Table};
use super::grid::Cell;
use super::verdict::{is_taken_over, judge};
use super::{Ended, Evidence, Options};

pub(super) fn report(options: &Options, evidence: &Evidence, environment: Environment) -> Report {
    Report {
        experiment: "timeouts",
        title: "Timeouts: why does the hard timeout belong below the lease?".to_owned(),
        method: method(options, evidence),
        verdict: judge(evidence, options.messages),
        figures: figures(evidence),
        plots: vec![attempts(evidence)],
        tables: vec![table(evidence)],
        environment,
    }
}

fn method(options: &Options, evidence: &Evidence) -> String {
    let hosts = match evidence.hosts {
        1 => {
            "One host on a file: when a lease of its own runs out, it takes its message over from itself. (Another process \
              cannot be at work there, so with the heartbeat a host that lives keeps what it claimed.)"
        }
        _ => "Two hosts share the database: what one lets run out, either takes over.",
    };
    format!(
        "{} messages for each combination of a lease, a hard timeout and a run time of the first attempt (the second takes \
         none), first with the heartbeat, then without. {hosts} A deploy refuses a hard timeout that is not a second below the \
         lease; these hosts were started with SEMEL_EXPERIMENT_UNSAFE_LEASES, which lets it pass. Attempts are those of each \
         message's trace; effects are its rows in the database. Where a claim is taken over, the first run was in vain.",
        grouped(options.messages)
    )
}

fn figures(evidence: &Evidence) -> Vec<Figure> {
    let with =
        |end: &str| evidence.ended.iter().filter(|ended| ended.outcomes.iter().any(|word| word == end)).count() as u64;
    vec![
        Figure::count("cells", evidence.cells.len() as u64),
        Figure::count("hosts", evidence.hosts),
        Figure::count("messages", evidence.ended.len() as u64),
        Figure::count("attempts begun", evidence.ended.iter().map(|ended| ended.outcomes.len() as u64).sum()),
        Figure::count("claims taken over", evidence.ended.iter().filter(|ended| is_taken_over(ended)).count() as u64),
        Figure::count("commits refused by the fence", with("lost-lease")),
        Figure::count("ended by the hard timeout", with("timed-out")),
        Figure::count("effects", evidence.ended.iter().map(|ended| ended.effects).sum()),
    ]
}

fn seconds(span: Duration) -> String {
    format!("{:.2}", span.as_secs_f64()).trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn of(evidence: &Evidence, cell: usize) -> impl Iterator<Item = &Ended> {
    evidence.ended.iter().filter(move |ended| ended.cell == cell)
}

fn attempts(evidence: &Evidence) -> Plot {
    let mut functions: Vec<&Cell> = evidence.cells.iter().collect();
    functions.dedup_by_key(|cell| cell.function());
    let taken = |renewed: bool| {
        let of = |function: &&Cell| {
            let is_of = |ended: &&Ended| {
                let cell = evidence.cells[ended.cell];
                cell.renewed == renewed && cell.function() == function.function()
            };
            evidence.ended.iter().filter(is_of).filter(|ended| is_taken_over(ended)).count() as u64
        };
        functions.iter().map(of).collect()
    };
    let label = |cell: &&Cell| format!("lease {} s, timeout {} s", seconds(cell.lease), seconds(cell.timeout));
    Plot {
        title: "Messages that were taken over while they ran".to_owned(),
        caption: "For each lease and hard timeout, over all run times. No bar means none. One stands only where the hard timeout \
                  is longer than the lease, and nobody renews it: the fence refuses what the first run did."
            .to_owned(),
        x_label: "lease and hard timeout".to_owned(),
        y_label: "messages (logarithmic)".to_owned(),
        shape: Shape::Bars {
            groups: functions.iter().map(label).collect(),
            series: vec![
                Bars { name: "leases renewed".to_owned(), values: taken(true) },
                Bars { name: "not renewed".to_owned(), values: taken(false) },
            ],
        },
    }
}

fn table(evidence: &Evidence) -> Table {
    let row = |(number, cell): (usize, &Cell)| {
        let spans = [cell.lease, cell.timeout, cell.run].map(|span| format!("{} s", seconds(span)));
        let renewed = if cell.renewed { "yes" } else { "no" };
        let sum = |value: fn(&Ended) -> u64| grouped(of(evidence, number).map(value).sum());
        let mut ends: Vec<String> = of(evidence, number).map(|ended| ended.outcomes.join(", ")).collect();
        ends.sort();
        ends.dedup();
        let numbers = [
            sum(|_| 1),
            sum(|ended| ended.outcomes.len() as u64),
            sum(|ended| u64::from(is_taken_over(ended))),
            sum(|ended| ended.effects),
        ];
        spans.into_iter().chain([renewed.to_owned()]).chain(numbers).chain([ends.join("; ")]).collect()
    };
    Table {
        title: format!("All {} cells", evidence.cells.len()),
        columns: vec![
            "lease",
            "hard timeout",
            "first run",
            "renewed",
            "messages",
            "attempts",
            "taken over",
            "effects",
            "ends",
        ],
        rows: evidence.cells.iter().enumerate().map(row).collect(),
    }
}
