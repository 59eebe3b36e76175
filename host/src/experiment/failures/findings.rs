//! The report on a run: its figures, its plot, and how the runs of each kind ended.

use std::time::Duration;

use super::super::matrix::{Columns, Key, Matrix, Mood, Row, Square};
use super::super::plot::{Bars, Plot, Shape};
use super::super::report::grouped;
use super::super::{Environment, Figure, Report, Table};
use super::deaths::CONTRACTS;
use super::essay::{self, ALL, Line};
use super::verdict::{WITHIN, cut_off, judge};
use super::{Evidence, Options, kinds};
use crate::message::Contract;

pub(super) fn report(options: &Options, evidence: &Evidence, environment: Environment) -> Report {
    Report {
        experiment: "failures",
        title: "Misbehaviour in bulk: does it take anything but its own run with it?".to_owned(),
        method: method(options),
        verdict: judge(evidence, options.of_each_kind()),
        figures: figures(evidence),
        plots: vec![the_list(evidence), plot(evidence)],
        tables: vec![table(evidence)],
        environment,
    }
}

fn method(options: &Options) -> String {
    format!(
        "{} messages of each of {} kinds of misbehaviour, one attempt and 100 ms each, sent in a random order by {} \
         senders, and a message to `counter` after every twenty. Before and after: memory and open files once they \
         stood still for two seconds, and the median of {} calls of `counter`, in turn with the same calls of a second \
         host that got none of it. What counts as {WITHIN} is compared with the state after a warm-up of {} messages \
         of each kind. Then each line of the essay's list of what can go wrong, under both contracts, on a host of its own, which \
         most of them end; where power is lost, the database forgets all that was not synced. Starts come from a file \
         outside of it, effects from the rows that are there in the end.",
        grouped(options.of_each_kind()),
        kinds::ALL.len(),
        options.clients,
        grouped(options.samples as u64),
        options.to_warm_up(),
    )
}

fn figures(evidence: &Evidence) -> Vec<Figure> {
    let Evidence { tallies, counted, starts, left, start, before, after, .. } = evidence;
    let milliseconds = |latency: Duration| latency.as_secs_f64() * 1000.0;
    let mebibytes = |resident: u64| resident as f64 / 1024.0;
    vec![
        Figure::count("messages that misbehaved", tallies.iter().map(|tally| tally.accepted).sum()),
        Figure::count("kinds", tallies.len() as u64),
        Figure::count("fewest of a kind", tallies.iter().map(|tally| tally.accepted).min().unwrap_or(0)),
        Figure::count("cut off by the clock before they could", tallies.iter().map(cut_off).sum()),
        Figure::count("starts", *starts),
        Figure::count("rows and messages left by them", *left),
        Figure::count("messages to counter", counted.asked),
        Figure::count("count", counted.count),
        Figure::measure("memory at the start", mebibytes(start.resident), "MiB"),
        Figure::measure("memory before", mebibytes(before.tested.resident), "MiB"),
        Figure::measure("memory after", mebibytes(after.tested.resident), "MiB"),
        Figure::count("open files before", before.tested.files),
        Figure::count("open files after", after.tested.files),
        Figure::measure("latency before", milliseconds(before.tested.latency), "ms"),
        Figure::measure("latency after", milliseconds(after.tested.latency), "ms"),
        Figure::measure("latency beside, before", milliseconds(before.beside.latency), "ms"),
        Figure::measure("latency beside, after", milliseconds(after.beside.latency), "ms"),
    ]
}

/// Every end that any run came to, in the order of the alphabet.
fn ends(evidence: &Evidence) -> Vec<&str> {
    let mut ends: Vec<&str> = evidence.tallies.iter().flat_map(|tally| tally.ends.keys()).map(String::as_str).collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}

fn plot(evidence: &Evidence) -> Plot {
    let ends = ends(evidence);
    let values = |end: &&str| {
        let runs = evidence.tallies.iter().filter_map(|tally| tally.ends.get(*end));
        runs.sum()
    };
    Plot {
        title: "How they ended".to_owned(),
        caption: "Runs by the end they came to, over all kinds; the table says which kind came to which.".to_owned(),
        x_label: "end".to_owned(),
        y_label: "runs (logarithmic)".to_owned(),
        shape: Shape::Bars {
            groups: ends.iter().map(|end| (*end).to_owned()).collect(),
            series: vec![Bars { name: "runs".to_owned(), values: ends.iter().map(values).collect() }],
        },
    }
}

fn table(evidence: &Evidence) -> Table {
    let row = |tally: &super::load::Tally| {
        let ends: Vec<String> = tally.ends.iter().map(|(end, runs)| format!("{end} {}", grouped(*runs))).collect();
        vec![tally.kind.name.to_owned(), grouped(tally.accepted), tally.kind.outcomes.join(", "), ends.join(", ")]
    };
    Table {
        title: format!("All {} kinds", evidence.tallies.len()),
        columns: vec!["kind", "messages", "may end", "ended"],
        rows: evidence.tallies.iter().map(row).collect(),
    }
}

const LEGEND: [Key; 3] = [
    (Mood::One, "1", "effect, exactly once"),
    (Mood::Zero, "0", "effect undone"),
    (Mood::Bad, "!", "not what the contract says"),
];

/// Beside the essay's words: what the same failure leaves behind under each contract.
fn the_list(evidence: &Evidence) -> Plot {
    let squares = |line: Line, contract: Contract| {
        let found = evidence.essay.iter().find(|row| row.line == line && row.contract == contract);
        let Some(essay::Row { end, .. }) = found else {
            return vec![Square { text: "?".to_owned(), mood: Mood::Bad }; 3];
        };
        let mood = if *end != line.expected(contract) {
            Mood::Bad
        } else if end.effects == 0 {
            Mood::Zero
        } else {
            Mood::One
        };
        let word = |text: String| Square { text, mood: Mood::Text };
        let effects = Square { text: grouped(end.effects), mood };
        vec![word(end.state.replace('-', "\u{2011}")), word(grouped(end.starts)), effects]
    };
    let row = |line: &Line| Row {
        name: line.says.to_owned(),
        note: line.done.to_owned(),
        squares: CONTRACTS.into_iter().flat_map(|contract| squares(*line, contract)).collect(),
    };
    let columns = |contract: Contract| Columns {
        name: contract.as_str().to_owned(),
        columns: ["ended", "starts", "effects"].map(str::to_owned).into(),
    };
    Plot {
        title: "The essay's list".to_owned(),
        caption: "What ends the run alone is known: the message is dead, with the reason. What ends the process is not, and the \
                  contract decides: finished by a second start, or in doubt. What was committed stays."
            .to_owned(),
        x_label: "what was left, under each contract".to_owned(),
        y_label: "what the essay says".to_owned(),
        shape: Shape::Matrix(Matrix {
            corner: "What can go wrong".to_owned(),
            groups: CONTRACTS.map(columns).into(),
            rows: ALL.iter().map(row).collect(),
            legend: &LEGEND,
        }),
    }
}
