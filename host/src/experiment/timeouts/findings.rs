//! The report on a run: attempts cell by cell, with and without heartbeat.

use std::time::Duration;

use super::super::matrix::{Columns, Key, Matrix, Mood, Row, Square};
use super::super::plot::{Plot, Shape};
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

const LEGEND: [Key; 4] = [
    (Mood::One, "1", "one attempt was enough"),
    (Mood::Zero, "2", "the hard timeout ended the first"),
    (Mood::Again, "2", "taken over while it ran: the first was in vain"),
    (Mood::Bad, "!", "an effect that is not there once"),
];

fn attempts(evidence: &Evidence) -> Plot {
    let mut functions: Vec<&Cell> = evidence.cells.iter().collect();
    functions.dedup_by_key(|cell| cell.function());
    let mut runs: Vec<Duration> = evidence.cells.iter().map(|cell| cell.run).collect();
    runs.sort_unstable();
    runs.dedup();
    let square = |function: &Cell, renewed: bool, run: Duration| {
        let is_it = |cell: &Cell| cell.function() == function.function() && cell.renewed == renewed && cell.run == run;
        let number = evidence.cells.iter().position(is_it);
        number.map_or_else(|| Square { text: String::new(), mood: Mood::None }, |number| square(evidence, number))
    };
    let row = |function: &&Cell| Row {
        name: format!("lease {} s", seconds(function.lease)),
        note: format!("hard timeout {} s", seconds(function.timeout)),
        squares: [true, false]
            .into_iter()
            .flat_map(|renewed| runs.iter().map(move |run| square(function, renewed, *run)))
            .collect(),
    };
    let columns = |name: &str| Columns {
        name: name.to_owned(),
        columns: runs.iter().map(|run| format!("runs {} s", seconds(*run))).collect(),
    };
    Plot {
        title: "Attempts of a message".to_owned(),
        caption: "A message is taken over while it runs only where the hard timeout is longer than the lease, and nobody renews \
                  it: the fence refuses what the first run did. Every effect is there once, in every combination."
            .to_owned(),
        x_label: "run time of the first attempt".to_owned(),
        y_label: "lease and hard timeout".to_owned(),
        shape: Shape::Matrix(Matrix {
            corner: "The function has …".to_owned(),
            groups: vec![columns("leases renewed"), columns("leases not renewed")],
            rows: functions.iter().map(row).collect(),
            legend: &LEGEND,
        }),
    }
}

/// The most attempts of a message of a cell, and how they ended.
fn square(evidence: &Evidence, cell: usize) -> Square {
    let any = |wanted: &dyn Fn(&Ended) -> bool| of(evidence, cell).any(wanted);
    let most = of(evidence, cell).map(|ended| ended.outcomes.len()).max().unwrap_or(0);
    let mood = if any(&|ended| ended.effects != 1) {
        Mood::Bad
    } else if any(&is_taken_over) {
        Mood::Again
    } else if any(&|ended| ended.outcomes.iter().any(|word| word == "timed-out")) {
        Mood::Zero
    } else {
        Mood::One
    };
    Square { text: most.to_string(), mood }
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
