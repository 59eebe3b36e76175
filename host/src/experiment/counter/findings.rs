//! The report on a run of the counter: its figures, its two plots, and every kill in a row of its own.

use std::time::Duration;

use super::super::plot::{Bars, Marks, Plot, Series, Shape};
use super::super::report::grouped;
use super::super::{Environment, Figure, Report, Table};
use super::evidence::Evidence;
use super::killer::Kill;
use super::verdict::{Observed, judge};
use super::{Contract, Options};

/// Groups of bars; the last one holds all that are higher.
const BAR_GROUPS: usize = 8;

pub(super) fn report(options: &Options, evidence: &Evidence, environment: Environment) -> Report {
    let observed = evidence.observed(options);
    Report {
        experiment: "counter",
        title: title(options.contract).to_owned(),
        method: method(options),
        verdict: judge(&observed),
        figures: figures(evidence, &observed),
        plots: vec![progress(evidence), attempts(evidence)],
        tables: vec![kills(&evidence.sent.kills)],
        environment,
    }
}

fn title(contract: Contract) -> &'static str {
    match contract {
        Contract::FinishOnce => "The killed counter, finish-once: is the count exact?",
        Contract::BeginOnce => "The killed counter, begin-once: is nothing started twice?",
    }
}

fn method(options: &Options) -> String {
    format!(
        "{} senders sent {} requests to one counter, each under an idempotency key of its own, again and again until \
         accepted. Meanwhile the host was killed with SIGKILL and restarted; a kill counts if rows were running right \
         after it. The counter adds one without looking for duplicates. It was read 2 seconds after everything was \
         settled. Starts come from a file outside the database.",
        options.clients,
        grouped(options.messages),
    )
}

fn figures(evidence: &Evidence, observed: &Observed) -> Vec<Figure> {
    let (sent, messages) = (&evidence.sent, &evidence.messages);
    let total = |count: &dyn Fn(&str, u64) -> u64| messages.iter().map(|m| count(&m.id, m.attempt)).sum();
    let mut figures = vec![
        Figure::count("count", observed.count),
        Figure::count("requests", observed.requests),
        Figure::count("accepted", observed.accepted),
        Figure::count("completed", observed.completed),
        Figure::count("in doubt", observed.in_doubt),
        Figure::count("dead", observed.dead),
        Figure::count("kills", sent.kills.len() as u64),
        Figure::count("kills that hit running work", observed.hits),
        Figure::count("attempts beyond the first", total(&|_, attempt| attempt.saturating_sub(1))),
        Figure::count("starts beyond the first", total(&|id, _| evidence.witness.starts(id).saturating_sub(1))),
        Figure::count("refused commits", evidence.counts.refused_commits),
        Figure::count("requests sent again", sent.accepted.iter().map(|accepted| accepted.retries).sum()),
        Figure::count(
            "duplicates refused at the door",
            sent.accepted.iter().filter(|accepted| accepted.duplicate).count() as u64,
        ),
    ];
    figures.extend([
        Figure::measure("rate of acceptance", per_second(observed.accepted, sent.accepting), "messages/s"),
        Figure::measure("rate of completion", per_second(observed.completed, sent.settling), "messages/s"),
        Figure::measure("from the first request until settled", sent.settling.as_secs_f64(), "s"),
    ]);
    figures
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(0.001)
}

fn progress(evidence: &Evidence) -> Plot {
    let samples = &evidence.samples;
    let accepted = samples.iter().map(|sample| (sample.at, Some(sample.accepted as f64))).collect();
    let completed = samples.iter().map(|sample| (sample.at, sample.completed.map(|count| count as f64))).collect();
    let instants = |hit: bool| {
        let kills = evidence.sent.kills.iter().filter(|kill| (kill.running > 0) == hit);
        kills.map(|kill| kill.at).collect()
    };
    Plot {
        title: "Progress under kills".to_owned(),
        caption: format!(
            "Requests accepted and messages completed over time, with {} kills, of which {} hit running work. The line \
             of completed messages is interrupted while the host is down.",
            evidence.sent.kills.len(),
            evidence.hits(),
        ),
        x_label: "seconds since the first request".to_owned(),
        y_label: "messages".to_owned(),
        shape: Shape::Lines {
            series: vec![
                Series { name: "accepted".to_owned(), points: accepted },
                Series { name: "completed".to_owned(), points: completed },
            ],
            marks: vec![
                Marks { name: "kill that hit running work".to_owned(), at: instants(true) },
                Marks { name: "kill that hit nothing".to_owned(), at: instants(false) },
            ],
        },
    }
}

fn attempts(evidence: &Evidence) -> Plot {
    let by = |count: &dyn Fn(&str, u64) -> u64| {
        let mut values = vec![0; BAR_GROUPS];
        for message in &evidence.messages {
            let group = usize::try_from(count(&message.id, message.attempt)).unwrap_or(usize::MAX);
            values[group.min(BAR_GROUPS - 1)] += 1;
        }
        values
    };
    let last = BAR_GROUPS - 1;
    Plot {
        title: "Attempts and starts".to_owned(),
        caption: "How many messages took how many attempts, as the database counts them, and how many starts, as the \
                  witness saw them. An attempt that was killed before its guest began has no start."
            .to_owned(),
        x_label: "attempts or starts of one message".to_owned(),
        y_label: "messages (logarithmic)".to_owned(),
        shape: Shape::Bars {
            groups: (0..last).map(|n| n.to_string()).chain([format!("{last} or more")]).collect(),
            series: vec![
                Bars { name: "attempts".to_owned(), values: by(&|_, attempt| attempt) },
                Bars { name: "starts".to_owned(), values: by(&|id, _| evidence.witness.starts(id)) },
            ],
        },
    }
}

fn kills(kills: &[Kill]) -> Table {
    let milliseconds = |duration: Duration| duration.as_millis().to_string();
    let row = |(n, kill): (usize, &Kill)| {
        vec![
            (n + 1).to_string(),
            format!("{:.2}", kill.at),
            milliseconds(kill.lived),
            kill.running.to_string(),
            milliseconds(kill.ready_after),
        ]
    };
    Table {
        title: format!("All {} kills", kills.len()),
        columns: vec!["kill", "at (s)", "host was ready for (ms)", "rows running after it", "ready again after (ms)"],
        rows: kills.iter().enumerate().map(row).collect(),
    }
}
