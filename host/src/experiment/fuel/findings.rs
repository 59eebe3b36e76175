//! The report on a run: fuel beside time, attempt by attempt, and what became of each budget.

use super::super::plot::{Bars, Plot, Series, Shape};
use super::super::report::grouped;
use super::super::{Environment, Figure, Report, Table};
use super::verdict::{Spread, budgeted, judge};
use super::{BUDGETS, Evidence, Kind, Options, TRIES};

pub(super) fn report(options: &Options, evidence: &Evidence, environment: Environment) -> Report {
    Report {
        experiment: "fuel",
        title: "Fuel: does the same message use the same, on every attempt and every host?".to_owned(),
        method: method(options),
        verdict: judge(evidence, options.messages, options.attempts),
        figures: figures(evidence),
        plots: vec![spreads(evidence), budgets(evidence)],
        tables: vec![work(evidence), ends(evidence)],
        environment,
    }
}

fn method(options: &Options) -> String {
    format!(
        "{} messages of each of 4 kinds of work, whose amounts the seed decides, fail {} times each; in between, the host \
         is stopped and another process goes on. Then the same work without the failure, with budgets of {} % of the fuel \
         that it needs, {TRIES} attempts each. Fuel and times are those that the host keeps with each attempt; the rows that \
         were left are read from the database. The fuel of a message must be the same number each time; its time must not.",
        grouped(options.messages),
        options.attempts,
        BUDGETS.map(|budget| budget.to_string()).join(", "),
    )
}

fn figures(evidence: &Evidence) -> Vec<Figure> {
    let widest = |of: fn(&Kind) -> Spread| evidence.kinds.iter().map(|kind| of(kind).parts()).max().unwrap_or(0);
    let ends =
        |name: &str| budgeted(&evidence.kinds).flat_map(|(_, ends)| ends).filter(|end| *end == name).count() as u64;
    let retries = budgeted(&evidence.kinds).map(|(_, ends)| ends.len().saturating_sub(1) as u64).sum();
    vec![
        Figure::count("attempts without a budget", evidence.kinds.iter().map(|kind| kind.runs.len() as u64).sum()),
        Figure::measure("widest spread of fuel", widest(Kind::fuel) as f64 / 10_000.0, "%"),
        Figure::measure("widest spread of wall time", widest(Kind::wall) as f64 / 10_000.0, "%"),
        Figure::count("messages with a budget", budgeted(&evidence.kinds).count() as u64),
        Figure::count("completed", ends("completed")),
        Figure::count("attempts out of fuel", ends("out-of-fuel")),
        Figure::count("retries that did not help", retries),
        Figure::count("rows left", evidence.rows),
    ]
}

/// All attempts, kind after kind, each as a share of the middle of its kind.
fn spreads(evidence: &Evidence) -> Plot {
    let (mut fuel, mut wall) = (Vec::new(), Vec::new());
    for kind in &evidence.kinds {
        let (used, took) = (kind.fuel().middle.max(1) as f64, kind.wall().middle.max(1) as f64);
        for run in &kind.runs {
            let at = fuel.len() as f64 + 1.0;
            fuel.push((at, run.fuel.map(|fuel| fuel as f64 * 100.0 / used)));
            wall.push((at, Some(run.micros as f64 * 100.0 / took)));
        }
    }
    let names: Vec<&str> = evidence.kinds.iter().map(|kind| kind.name).collect();
    Plot {
        title: "Fuel and wall time of each attempt".to_owned(),
        caption: format!(
            "Each attempt in percent of the middle one of its kind of work ({}, one after another). Fuel is a line at 100: \
             not one unit of difference. Time is what the machine had left.",
            names.join(", ")
        ),
        x_label: "attempt".to_owned(),
        y_label: "% of the middle".to_owned(),
        shape: Shape::Lines {
            series: vec![
                Series { name: "wall time".to_owned(), points: wall },
                Series { name: "fuel".to_owned(), points: fuel },
            ],
            marks: Vec::new(),
        },
    }
}

fn budgets(evidence: &Evidence) -> Plot {
    let count = |name: &str| {
        let of = |budget| {
            budgeted(&evidence.kinds)
                .filter(|(of, _)| *of == budget)
                .flat_map(|(_, ends)| ends)
                .filter(|end| *end == name)
                .count()
        };
        BUDGETS.map(|budget| of(budget) as u64).to_vec()
    };
    Plot {
        title: "What a budget does".to_owned(),
        caption:
            "Attempts by how they ended. Below what the work needs none completes, however often it is tried; above it \
                  each does at once."
                .to_owned(),
        x_label: "budget, % of the fuel that the work needs".to_owned(),
        y_label: "attempts (logarithmic)".to_owned(),
        shape: Shape::Bars {
            groups: BUDGETS.iter().map(|budget| format!("{budget} %")).collect(),
            series: ["completed", "out-of-fuel"].map(|name| Bars { name: name.to_owned(), values: count(name) }).into(),
        },
    }
}

fn work(evidence: &Evidence) -> Table {
    let row = |kind: &Kind| {
        let (fuel, wall) = (kind.fuel(), kind.wall());
        let share = |spread: Spread| format!("{:.2} %", spread.parts() as f64 / 10_000.0);
        let cells = [kind.name.to_owned(), kind.order.to_string(), grouped(kind.runs.len() as u64)];
        let of_fuel = [grouped(fuel.least), grouped(fuel.most), share(fuel)];
        cells
            .into_iter()
            .chain(of_fuel)
            .chain([grouped(wall.least), grouped(wall.middle), grouped(wall.most), share(wall)])
            .collect()
    };
    Table {
        title: "Fuel and time by kind of work".to_owned(),
        columns: vec![
            "kind",
            "order",
            "attempts",
            "least fuel",
            "most fuel",
            "spread",
            "least µs",
            "middle µs",
            "most µs",
            "spread",
        ],
        rows: evidence.kinds.iter().map(row).collect(),
    }
}

fn ends(evidence: &Evidence) -> Table {
    let mut rows = Vec::new();
    for kind in &evidence.kinds {
        for (budget, all) in BUDGETS.into_iter().zip(&kind.budgets) {
            let count = |name: &str| grouped(all.iter().flatten().filter(|end| *end == name).count() as u64);
            let fuel = grouped(kind.need * budget / 100);
            let messages = grouped(all.len() as u64);
            rows.push(vec![
                kind.name.to_owned(),
                format!("{budget} %"),
                fuel,
                messages,
                count("completed"),
                count("out-of-fuel"),
            ]);
        }
    }
    Table {
        title: "What became of each budget".to_owned(),
        columns: vec!["kind", "budget", "fuel", "messages", "completed", "attempts out of fuel"],
        rows,
    }
}
