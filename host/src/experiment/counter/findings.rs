//! The report on a run of the counter: its figures, its two plots, and every kill in a row of its own.

use std::time::Duration;

use super::super::plot::{Bars, Marks, Plot, Series, Shape};
use super::super::report::grouped;
use super::super::{Environment, Figure, Report, Table};
use super::evidence::Evidence;
use super::faults::{Done, Kill};
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
        tables: tables(evidence),
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
    let mut method = format!(
        "{} senders sent {} requests to one counter, each under an idempotency key of its own, again and again until \
         accepted. Meanwhile a host was killed with SIGKILL and restarted; a kill counts if rows of that host were running \
         right after it. The counter adds one without looking for duplicates. It was read 2 seconds after everything was \
         settled. Starts come from a file outside the database. Hosts: {}.",
        options.clients,
        grouped(options.messages),
        options.hosts,
    );
    if options.faults.database_kills > 0 {
        method.push_str(" The database's server was killed with all its processes, and started again.");
    }
    if options.faults.zombies > 0 {
        method.push_str(
            " Zombies: a host was stopped with SIGSTOP until another had taken over what it was doing, then went on with \
             SIGCONT, every other time with an acknowledgement on the way that the network held back until then.",
        );
    }
    if options.faults.lost_commits > 0 {
        method.push_str(
            " Lost commits: the connection was cut before a COMMIT reached the server, or after the server had committed \
             and before the host heard so, or nothing went either way any more.",
        );
    }
    method
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
        Figure::count("kills", observed.kills),
        Figure::count("kills that hit running work", observed.hits.kills),
        Figure::count("attempts beyond the first", total(&|_, attempt| attempt.saturating_sub(1))),
        Figure::count("starts beyond the first", total(&|id, _| evidence.witness.starts(id).saturating_sub(1))),
        Figure::count("starts that shared a transaction", total(&|id, _| evidence.witness.starts_together(id))),
        Figure::count("refused commits", evidence.counts.refused_commits),
        Figure::count("requests sent again", sent.accepted.iter().map(|accepted| accepted.retries).sum()),
        Figure::count(
            "duplicates refused at the door",
            sent.accepted.iter().filter(|accepted| accepted.duplicate).count() as u64,
        ),
    ];
    if observed.wanted.database_kills > 0 {
        figures.push(Figure::count("kills of the database that hit running work", observed.hits.database_kills));
    }
    if observed.wanted.zombies > 0 {
        figures.extend(zombies(evidence));
    }
    if observed.wanted.lost_commits > 0 {
        figures.extend(lost_commits(evidence));
    }
    figures.extend([
        Figure::measure("rate of acceptance", per_second(observed.accepted, sent.accepting), "messages/s"),
        Figure::measure("rate of completion", per_second(observed.completed, sent.settling), "messages/s"),
        Figure::measure("from the first request until settled", sent.settling.as_secs_f64(), "s"),
    ]);
    figures
}

/// Of the claims that were taken over: what the zombies had to say about them when they went on.
fn zombies(evidence: &Evidence) -> Vec<Figure> {
    let zombies = &evidence.sent.done.zombies;
    let taken: u64 = evidence.taken.values().sum();
    let refused = evidence.taken_as("lost-lease");
    let never = evidence.taken_as("host-lost");
    vec![
        Figure::count("zombies", zombies.len() as u64),
        Figure::count("zombies whose work was taken over", evidence.hits().zombies),
        Figure::count("zombies' claims taken over", taken),
        Figure::count("zombies' commits the fence refused", refused),
        Figure::count(
            "zombies' runs that failed before a commit",
            taken - refused - never - evidence.taken_as("completed"),
        ),
        Figure::count("zombies' runs never heard of again", never),
    ]
}

fn lost_commits(evidence: &Evidence) -> Vec<Figure> {
    let (fired, [done, undone, refused]) = (evidence.lost.fired, evidence.lost.resolved);
    vec![
        Figure::count("commits cut off before the server", fired.before),
        Figure::count("answers cut off after the commit", fired.after),
        Figure::count("commits in a black hole", fired.black_holes),
        Figure::count("unknown commits that were done", done),
        Figure::count("unknown commits that were not done", undone),
        Figure::count("unknown commits of claims lost meanwhile", refused),
    ]
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(0.001)
}

fn progress(evidence: &Evidence) -> Plot {
    let samples = &evidence.samples;
    let accepted = samples.iter().map(|sample| (sample.at, Some(sample.accepted as f64))).collect();
    let completed = samples.iter().map(|sample| (sample.at, sample.completed.map(|count| count as f64))).collect();
    let done = &evidence.sent.done;
    let instants = |hit: bool| done.kills.iter().filter(|kill| (kill.running > 0) == hit).map(|kill| kill.at).collect();
    let mut marks = vec![
        Marks { name: "kill that hit running work".to_owned(), at: instants(true) },
        Marks { name: "kill that hit nothing".to_owned(), at: instants(false) },
    ];
    if !(done.outages.is_empty() && done.zombies.is_empty() && done.losses.is_empty()) {
        marks.extend([
            Marks { name: "kill of the database".into(), at: done.outages.iter().map(|outage| outage.at).collect() },
            Marks { name: "zombie".into(), at: done.zombies.iter().map(|zombie| zombie.at).collect() },
            Marks { name: "lost commit".into(), at: done.losses.clone() },
        ]);
    }
    Plot {
        title: "Progress under kills".to_owned(),
        caption: format!(
            "Requests accepted and messages completed over time, with {} kills, of which {} hit running work. The line \
             of completed messages is interrupted while the host is down.",
            done.kills.len(),
            evidence.hits().kills,
        ),
        x_label: "seconds since the first request".to_owned(),
        y_label: "messages".to_owned(),
        shape: Shape::Lines {
            series: vec![
                Series { name: "accepted".to_owned(), points: accepted },
                Series { name: "completed".to_owned(), points: completed },
            ],
            marks,
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

/// Every fault in a row of its own, and how the claims of zombies ended. What there was none of has no table.
fn tables(evidence: &Evidence) -> Vec<Table> {
    let done = &evidence.sent.done;
    let ends = Table {
        title: "How claims ended that were taken over from zombies: `lost-lease` is a commit that the fence refused; \
                `doomed` a transaction that the database had ended, or the fence had not let in; `host-lost` was never \
                heard of again"
            .to_owned(),
        columns: vec!["outcome", "claims"],
        rows: evidence.taken.iter().map(|(outcome, count)| vec![outcome.clone(), count.to_string()]).collect(),
    };
    let tables = [kills(&done.kills), outages(done), zombie_table(done), ends];
    tables.into_iter().filter(|table| !table.rows.is_empty()).collect()
}

fn milliseconds(duration: Duration) -> String {
    duration.as_millis().to_string()
}

fn kills(kills: &[Kill]) -> Table {
    let row = |(n, kill): (usize, &Kill)| {
        vec![
            (n + 1).to_string(),
            format!("{:.2}", kill.at),
            kill.host.to_string(),
            milliseconds(kill.lived),
            kill.running.to_string(),
            milliseconds(kill.ready_after),
        ]
    };
    Table {
        title: format!("All {} kills", kills.len()),
        columns: vec![
            "kill",
            "at (s)",
            "host",
            "since the last fault (ms)",
            "rows running after it",
            "ready again after (ms)",
        ],
        rows: kills.iter().enumerate().map(row).collect(),
    }
}

fn outages(done: &Done) -> Table {
    let rows = done.outages.iter().map(|outage| {
        let (up, ready) = (milliseconds(outage.up_after), milliseconds(outage.ready_after));
        vec![format!("{:.2}", outage.at), outage.running.to_string(), up, ready]
    });
    Table {
        title: format!("All {} kills of the database", done.outages.len()),
        columns: vec!["at (s)", "rows running before it", "up again after (ms)", "all hosts ready after (ms)"],
        rows: rows.collect(),
    }
}

fn zombie_table(done: &Done) -> Table {
    let rows = done.zombies.iter().map(|zombie| {
        let on_the_way = if zombie.acknowledged { "yes" } else { "no" };
        vec![
            format!("{:.2}", zombie.at),
            milliseconds(zombie.stopped),
            on_the_way.to_owned(),
            zombie.held.to_string(),
            zombie.taken.len().to_string(),
        ]
    });
    Table {
        title: format!("All {} zombies", done.zombies.len()),
        columns: vec!["at (s)", "stood still for (ms)", "acknowledgement on the way", "claims held", "taken over"],
        rows: rows.collect(),
    }
}
