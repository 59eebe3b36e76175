//! The report on a matrix: the two matrices, the figures, and every cell in a table.

use super::super::matrix::{Columns, Key, Matrix, Mood, Row, Square};
use super::super::plot::{Plot, Shape};
use super::super::{Environment, Figure, Report, Table};
use super::Options;
use super::allowed::{Class, allowed_in};
use super::cells::{Cell, Harm};
use super::measure::{EFFECTS, Seen};
use super::trial::Outcome;
use super::verdict::{excess, is_bounded, judge};
use crate::crash::Point;
use crate::message::Contract;

const LEGEND: [Key; 6] = [
    (Mood::One, "1", "transactional, exactly once"),
    (Mood::Zero, "0", "transactional, undone"),
    (Mood::Never, "0", "outside, never"),
    (Mood::Once, "1", "outside, once"),
    (Mood::Again, "2", "outside, again"),
    (Mood::Bad, "!", "must not be"),
];
const CONTRACTS: [Contract; 2] = [Contract::FinishOnce, Contract::BeginOnce];

pub(super) fn report(options: &Options, outcomes: &[Outcome], environment: Environment) -> Report {
    let grounds = [(false, "On a file, with one host"), (true, "On a server, with hosts that take over")];
    let plots = grounds.into_iter().filter_map(|(shared, title)| matrix(outcomes, shared, title));
    let plots = plots.chain(batches(outcomes));
    Report {
        experiment: "crash-matrix",
        title: "Hosts that die at every step: which effects happen once?".to_owned(),
        method: method(options),
        verdict: judge(outcomes),
        figures: figures(outcomes),
        plots: plots.collect(),
        tables: vec![table(outcomes)],
        environment,
    }
}

fn method(options: &Options) -> String {
    format!(
        "One message does one effect of every class: it writes a row, adds to a counter, calls another server, writes a \
         second row, publishes a message, defers a request and answers. At each of {} named points of the code{} a host of its own is \
         killed, frozen, or loses its power or its database, once under each contract; it starts again and goes on until nothing is \
         left to do. Then every effect is counted, in the database and at the server that was called. The two messages \
         behind the one that was hit must not notice. The same is done to the fourth of eight messages that share a commit, which \
         call nobody; there it may also be the guest that traps, for which the others must not pay with an attempt.",
        Point::ALL.len(),
        if options.reduced { " (here only at a few of them)" } else { "" },
    )
}

fn figures(outcomes: &[Outcome]) -> Vec<Figure> {
    let hits = || outcomes.iter().filter_map(|outcome| Some((outcome.cell.contract, outcome.hit()?)));
    let outside = |of: Contract, times: u64| {
        hits().filter(|(contract, seen)| *contract == of && seen.outside() == times).count() as u64
    };
    let done = |harm: Harm| outcomes.iter().filter(|outcome| outcome.cell.harm == harm && outcome.fired).count() as u64;
    let mut points: Vec<Point> =
        outcomes.iter().filter(|outcome| outcome.fired).map(|outcome| outcome.cell.point).collect();
    points.sort_unstable();
    points.dedup();
    let effects = outcomes.iter().filter_map(|o| Some(excess(o.cell, Class::Transactional, o.hit()?))).sum();
    vec![
        Figure::count("cells", outcomes.len() as u64),
        Figure::count("cells in a batch", outcomes.iter().filter(|outcome| outcome.cell.batch).count() as u64),
        Figure::count("points where hosts were harmed", points.len() as u64),
        Figure::count("hosts killed", done(Harm::Kill)),
        Figure::count("hosts without power", done(Harm::Power)),
        Figure::count("hosts frozen", done(Harm::Stop) + done(Harm::Overtaken)),
        Figure::count("databases killed", done(Harm::DatabaseKill)),
        Figure::count("lines cut", done(Harm::CutBefore) + done(Harm::CutAfter)),
        Figure::count("transactional effects not as promised", effects),
        Figure::count("finish-once: called once", outside(Contract::FinishOnce, 1)),
        Figure::count("finish-once: called twice", outside(Contract::FinishOnce, 2)),
        Figure::count("begin-once: never called", outside(Contract::BeginOnce, 0)),
        Figure::count("begin-once: called once", outside(Contract::BeginOnce, 1)),
        Figure::count("deferred requests sent twice", hits().filter(|(_, seen)| seen.deferred() >= 2).count() as u64),
        Figure::count("begin-once: in doubt", hits().filter(|(_, seen)| seen.state == "in-doubt").count() as u64),
    ]
}

/// The cells of one kind of database, if there are any.
fn matrix(outcomes: &[Outcome], shared: bool, title: &str) -> Option<Plot> {
    let own = outcomes.iter().map(|outcome| outcome.cell).filter(|cell| cell.shared == shared && !cell.batch);
    let mut rows: Vec<(Point, Harm)> = own.map(|cell| (cell.point, cell.harm)).collect();
    rows.dedup();
    if rows.is_empty() {
        return None;
    }
    let find = |(point, harm): (Point, Harm), contract| {
        outcomes.iter().find(|outcome| outcome.cell == Cell { shared, point, harm, contract, batch: false })
    };
    let row = |at: (Point, Harm)| Row {
        name: at.0.says().to_owned(),
        note: at.1.says().to_owned(),
        squares: CONTRACTS.into_iter().flat_map(|contract| squares(find(at, contract))).collect(),
    };
    let columns = |contract: Contract| Columns {
        name: contract.as_str().to_owned(),
        columns: ["ends as"].into_iter().chain(EFFECTS.map(|(name, _)| name)).map(str::to_owned).collect(),
    };
    Some(Plot {
        title: title.to_owned(),
        caption: "How often each effect of the message that was hit has happened when all was over. The first five \
                  effects are in the transaction: 1 where the message is completed, 0 where it is not, never 2. The \
                  deferred request is asked for there and sent afterwards, again where nobody knows that it was, and always \
                  with the same key. The outside call cannot be taken back, and nobody can know whether it happened."
            .to_owned(),
        x_label: "effect, under each contract".to_owned(),
        y_label: "what had happened, and what happened then".to_owned(),
        shape: Shape::Matrix(Matrix {
            corner: "The host had come so far; then …".to_owned(),
            groups: CONTRACTS.map(columns).into(),
            rows: rows.into_iter().map(row).collect(),
            legend: &LEGEND,
        }),
    })
}

/// The cells in which messages share a commit, on both kinds of database, if there are any.
fn batches(outcomes: &[Outcome]) -> Option<Plot> {
    let of = |messages: &str| Columns {
        name: messages.to_owned(),
        columns: ["ends as"].into_iter().chain(transactional()).map(str::to_owned).collect(),
    };
    let row = |outcome: &Outcome| {
        let ground = if outcome.cell.shared { "server" } else { "file" };
        let hit = squares(Some(outcome)).into_iter().take(1 + transactional().count());
        Row {
            name: outcome.cell.point.says().to_owned(),
            note: format!("{}, on a {ground}", outcome.cell.harm.says()),
            squares: hit.chain(beside(outcome)).collect(),
        }
    };
    let rows: Vec<Row> = outcomes.iter().filter(|outcome| outcome.cell.batch).map(row).collect();
    (!rows.is_empty()).then(|| Plot {
        title: "In the middle of a batch".to_owned(),
        caption: "Eight messages of a finish-once function that calls nobody share a transaction and its commit; what is done is \
                  done to the fourth of them, or to the commit of all. How often each of its effects has happened when all was \
                  over, and how many of the other seven have theirs exactly once."
            .to_owned(),
        x_label: "effect, of the message that was hit and of the others".to_owned(),
        y_label: "what had happened, and what happened then".to_owned(),
        shape: Shape::Matrix(Matrix {
            corner: "The host had come so far; then …".to_owned(),
            groups: vec![of("the fourth"), of("the other seven")],
            rows,
            legend: &LEGEND,
        }),
    })
}

fn transactional() -> impl Iterator<Item = &'static str> {
    EFFECTS.iter().filter(|(_, class)| *class == Class::Transactional).map(|(name, _)| *name)
}

/// How many messages beside the one that was hit are completed, and have each effect once.
fn beside(outcome: &Outcome) -> Vec<Square> {
    let others = outcome.messages.get(1..).unwrap_or_default();
    let square = |has: &dyn Fn(&Seen) -> bool| {
        let count = others.iter().filter(|seen| has(seen)).count();
        let mood = if count == others.len() && count > 0 { Mood::One } else { Mood::Bad };
        Square { text: count.to_string(), mood }
    };
    let end = square(&|seen| seen.state == "completed");
    let once = (0..transactional().count()).map(|effect| square(&|seen| seen.counts[effect] == 1));
    [end].into_iter().chain(once).collect()
}

/// The end and the effects of the message that was hit; nothing where no message comes.
fn squares(outcome: Option<&Outcome>) -> Vec<Square> {
    let empty = |text: &str, mood| vec![Square { text: text.to_owned(), mood }; EFFECTS.len() + 1];
    let Some(outcome) = outcome else { return empty("", Mood::None) };
    let Some(hit) = outcome.hit() else { return empty("?", Mood::Bad) };
    let mood = |class: Class, count: u64| {
        let good = allowed_in(outcome.cell, class, &hit.state).contains(&count);
        match (good, class, count) {
            (false, ..) => Mood::Bad,
            (_, Class::Transactional | Class::Deferred, 0) => Mood::Zero,
            (_, Class::Transactional, _) => Mood::One,
            (_, Class::Outside, 0) => Mood::Never,
            (_, Class::Deferred | Class::Outside, 1) => Mood::Once,
            (_, Class::Deferred | Class::Outside, _) => Mood::Again,
        }
    };
    let effects = EFFECTS.iter().zip(hit.counts);
    let effects = effects.map(|((_, class), count)| Square { text: count.to_string(), mood: mood(*class, count) });
    let end = Square { text: hit.state.replace('-', "\u{a0}"), mood: Mood::Text };
    [end].into_iter().chain(effects).collect()
}

fn table(outcomes: &[Outcome]) -> Table {
    let row = |outcome: &Outcome| {
        let Cell { shared, point, harm, contract, batch } = outcome.cell;
        let ground = if shared { "server" } else { "file" };
        let contract = format!("{}{}", contract.as_str(), if batch { ", in a batch" } else { "" });
        let mut row = vec![point.name().to_owned(), harm.says().to_owned(), contract, ground.to_owned()];
        row.extend(outcome.hit().map_or_else(|| vec![String::new(); 7], columns_of));
        row.push(format!("{:.1}", outcome.took.as_secs_f64()));
        row.push(outcome.trouble.clone().unwrap_or_default());
        row
    };
    Table {
        title: format!("All {} cells", outcomes.len()),
        columns: vec![
            "point",
            "what was done",
            "contract",
            "database",
            "message",
            "ended",
            "attempts",
            "effects",
            "deferred",
            "called",
            "ledger: happened",
            "seconds",
            "trouble",
        ],
        rows: outcomes.iter().map(row).collect(),
    }
}

fn columns_of(hit: &Seen) -> Vec<String> {
    let attempts: Vec<&str> = hit.attempts.iter().map(|attempt| attempt.outcome.as_str()).collect();
    let effects: Vec<String> = hit.counts_of(Class::Transactional).map(|count| count.to_string()).collect();
    let bounds =
        format!("{} to {}{}", hit.bounds.least, hit.bounds.most, if is_bounded(hit) { "" } else { " (wrong)" });
    vec![
        hit.id.clone(),
        hit.state.clone(),
        attempts.join(", "),
        effects.join(" "),
        hit.deferred().to_string(),
        hit.outside().to_string(),
        bounds,
    ]
}
