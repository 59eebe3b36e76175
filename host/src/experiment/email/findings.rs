//! The report on a run: how many mails were sent, by way and place, beside what the essay says.

use super::super::plot::{Bars, Plot, Shape};
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
    let with = |none: bool| {
        let wrong = |way: &Way| {
            let of = tried.iter().filter(|tried| tried.trial.way == *way);
            of.filter(|tried| if none { tried.mails == 0 } else { tried.mails > 1 }).count() as u64
        };
        Way::ALL.iter().map(wrong).collect()
    };
    Plot {
        title: "Places where it is not one mail".to_owned(),
        caption: "Trials by how many mails were sent. No bar means none. What closes the gap is a key that is the same on every \
                  try, and a provider that looks at it."
            .to_owned(),
        x_label: "way to send".to_owned(),
        y_label: "trials (logarithmic)".to_owned(),
        shape: Shape::Bars {
            groups: Way::ALL.iter().map(|way| way.name().to_owned()).collect(),
            series: vec![
                Bars { name: "no mail".to_owned(), values: with(true) },
                Bars { name: "two mails or more".to_owned(), values: with(false) },
            ],
        },
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
