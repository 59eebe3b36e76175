//! The report on a run: how often the message was published, by variant and place, beside what the essay says.

use super::super::matrix::{Columns, Matrix};
use super::super::plot::{Plot, Shape};
use super::super::{Environment, Figure, Report, Table};
use super::trials::Variant;
use super::verdict::judge;
use super::{Options, Tried};

pub(super) fn report(_: &Options, tried: &[Tried], environment: Environment) -> Report {
    Report {
        experiment: "publish",
        title: "Write, then publish: how often, if the process dies between two steps?".to_owned(),
        method: "Each trial is one message to one function that writes a row and publishes a message, in one of four ways. In the \
                 first three the database and the broker are HTTP services of this experiment, called while the function runs; \
                 in the fourth both are the transaction of the message. When the services are asked for a chosen step, or have \
                 done it and not yet answered, the host gets SIGKILL, once. It is started again and the message is delivered \
                 again. Counted is what the broker published when all was settled."
            .to_owned(),
        verdict: judge(tried),
        figures: figures(tried),
        plots: vec![plot(tried)],
        tables: vec![table(tried)],
        environment,
    }
}

fn figures(tried: &[Tried]) -> Vec<Figure> {
    let count = |of: &dyn Fn(&Tried) -> bool| tried.iter().filter(|tried| of(tried)).count() as u64;
    vec![
        Figure::count("trials", tried.len() as u64),
        Figure::count("crashes", count(&|tried| tried.fired)),
        Figure::count("requests that the services saw", tried.iter().map(|tried| tried.asked).sum()),
        Figure::count("published 0 times", count(&|tried| tried.published == 0)),
        Figure::count("published once", count(&|tried| tried.published == 1)),
        Figure::count("published twice or more", count(&|tried| tried.published > 1)),
    ]
}

fn plot(tried: &[Tried]) -> Plot {
    let mut places: Vec<String> = Vec::new();
    // The way with the most steps first: they are in order there.
    for variant in [Variant::Recorded].into_iter().chain(Variant::ALL) {
        for tried in tried.iter().filter(|tried| tried.trial.variant == variant) {
            if !places.contains(&tried.trial.place()) {
                places.push(tried.trial.place());
            }
        }
    }
    let published = |place: &str, variant: usize| {
        let is_it = |tried: &&Tried| tried.trial.variant == Variant::ALL[variant] && tried.trial.place() == place;
        tried.iter().find(is_it).map(|tried| tried.published)
    };
    let columns = Columns {
        name: "times published".to_owned(),
        columns: Variant::ALL.iter().map(|variant| variant.name().to_owned()).collect(),
    };
    Plot {
        title: "How often the message is published, wherever it crashes".to_owned(),
        caption: "Each of the essay's ways has a place where it is published twice or not at all. The outbox has none. Empty: \
                  that way has no such step."
            .to_owned(),
        x_label: "way to write and publish".to_owned(),
        y_label: "crash".to_owned(),
        shape: Shape::Matrix(Matrix::of_counts("Where it crashed", columns, places, published)),
    }
}

fn table(tried: &[Tried]) -> Table {
    let row = |tried: &Tried| {
        let trial = &tried.trial;
        let steps = trial.variant.steps().join(", ");
        vec![
            trial.variant.name().to_owned(),
            steps,
            trial.place(),
            tried.published.to_string(),
            trial.essay().to_owned(),
            format!("{} at attempt {}", tried.state, tried.attempts),
        ]
    };
    Table {
        title: "How often the message was published".to_owned(),
        columns: vec!["variant", "steps", "crash", "published", "the essay says", "the message ended"],
        rows: tried.iter().map(row).collect(),
    }
}
