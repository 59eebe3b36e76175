//! The report on a run: how many mails were sent, by way and place, beside what the essay says.

use super::super::matrix::{Columns, Matrix};
use super::super::plot::{Plot, Shape};
use super::super::{Environment, Figure, Report, Table};
use super::Tried;
use super::trials::Way;
use super::verdict::judge;

pub(super) fn report(tried: &[Tried], environment: Environment) -> Report {
    Report {
        experiment: "email",
        title: "Lock, check, send, record, unlock: how many mails, if the process dies between two steps?".to_owned(),
        method: "Each trial is one message to a function that has one mail sent. The essay's protocol keeps its lock and its record \
                 in an HTTP service of this experiment, which also sends the mails and counts them; then the request is \
                 deferred, so that it is a part of the commit and sent after it. When a chosen step is asked for, or is done \
                 and not yet answered, the host gets SIGKILL, once, and is started again. Counted is what the provider had \
                 sent when all was settled."
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
        Figure::count("no mail", count(&|tried| tried.mails == 0)),
        Figure::count("one mail", count(&|tried| tried.mails == 1)),
        Figure::count("two mails or more", count(&|tried| tried.mails > 1)),
    ]
}

fn plot(tried: &[Tried]) -> Plot {
    let mut places: Vec<String> = Vec::new();
    for tried in tried {
        if !places.contains(&tried.trial.place()) {
            places.push(tried.trial.place()); // The first way has all steps that there are.
        }
    }
    let mails = |place: &str, way: usize| {
        let found = tried.iter().find(|tried| tried.trial.way == Way::ALL[way] && tried.trial.place() == place);
        found.map(|tried| tried.mails)
    };
    let columns =
        Columns { name: "mails sent".to_owned(), columns: Way::ALL.iter().map(|way| way.name().to_owned()).collect() };
    Plot {
        title: "How many mails, wherever it crashes".to_owned(),
        caption:
            "What closes the gap is a request that is a part of the commit, a key that is the same on every try, and a \
                  provider that looks at it. Empty: that way has no such step."
                .to_owned(),
        x_label: "way to send".to_owned(),
        y_label: "crash".to_owned(),
        shape: Shape::Matrix(Matrix::of_counts("Where it crashed", columns, places, mails)),
    }
}

fn table(tried: &[Tried]) -> Table {
    let row = |tried: &Tried| {
        let trial = &tried.trial;
        vec![
            trial.way.name().to_owned(),
            trial.place(),
            tried.mails.to_string(),
            trial.essay().to_owned(),
            format!("{}, {} attempts", tried.state, tried.attempts),
        ]
    };
    Table {
        title: "How many mails were sent".to_owned(),
        columns: vec!["way", "crash", "mails", "the essay says", "the message ended"],
        rows: tried.iter().map(row).collect(),
    }
}
