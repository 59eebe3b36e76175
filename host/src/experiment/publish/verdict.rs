//! The verdict on a run: a pure function of what was observed.

use super::super::{Check, Verdict};
use super::Tried;
use super::trials::Variant;

/// Judges a run.
pub(super) fn judge(tried: &[Tried]) -> Verdict {
    let count = |of: &dyn Fn(&Tried) -> bool| tried.iter().filter(|tried| of(tried)).count() as u64;
    let crashes = count(&|tried| tried.trial.crash.is_some());
    let outside = |tried: &Tried| tried.trial.variant != Variant::Outbox;
    let outbox = count(&|tried| !outside(tried));
    let seen = |claim: &str, found: u64| Check::new(claim, found > 0, "1 or more", found.to_string());
    let checks = vec![
        Check::equal("crashes that hit the step they were meant for", crashes, count(&|tried| tried.fired)),
        Check::equal(
            "messages that were delivered again after it",
            crashes,
            count(&|tried| tried.fired && tried.attempts > 1),
        ),
        Check::new(
            "trials that ended otherwise than they must",
            wrong(tried).is_empty(),
            "none",
            if wrong(tried).is_empty() { "none".to_owned() } else { wrong(tried).join("; ") },
        ),
        Check::equal(
            "with `outbox`: published once and written once, wherever it crashes",
            outbox,
            count(&|tried| !outside(tried) && tried.published == 1 && tried.written == 1 && tried.state == "completed"),
        ),
        seen("trials with `outbox`", outbox),
        seen(
            "outside services: trials in which it was published 0 times",
            count(&|tried| outside(tried) && tried.published == 0),
        ),
        seen(
            "outside services: trials in which it was published twice",
            count(&|tried| outside(tried) && tried.published == 2),
        ),
    ];
    let shown = format!(
        "each of the essay's ways fails where the essay says that it does; with the outbox the message was published once in all \
         {outbox} trials"
    );
    Verdict::of(checks, shown)
}

fn wrong(tried: &[Tried]) -> Vec<String> {
    let wrong = tried.iter().filter(|tried| tried.published != tried.trial.expected());
    wrong
        .map(|tried| {
            let (variant, place) = (tried.trial.variant.name(), tried.trial.place());
            format!("{variant}, {place}: {} instead of {}", tried.published, tried.trial.expected())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::trials::Trial;
    use super::*;

    fn good() -> Vec<Tried> {
        let tried = |trial: Trial| Tried {
            trial,
            fired: trial.crash.is_some(),
            asked: 2,
            published: trial.expected(),
            written: 1,
            state: "completed".into(),
            attempts: 1 + u64::from(trial.crash.is_some()),
        };
        Trial::all().into_iter().map(tried).collect()
    }

    #[test]
    fn every_way_to_be_wrong_fails() {
        assert!(judge(&good()).passed, "{}", judge(&good()).summary);
        let check = |what: &str, change: &dyn Fn(&mut Vec<Tried>)| {
            let mut tried = good();
            change(&mut tried);
            let verdict = judge(&tried);
            assert!(!verdict.passed && verdict.summary.contains(what), "{what}: {}", verdict.summary);
        };
        check("crashes that hit", &|tried| tried[1].fired = false);
        check("delivered again", &|tried| tried[1].attempts = 1);
        check("0 instead of 1", &|tried| tried[0].published = 0);
        check("with `outbox`", &|tried| tried.last_mut().expect("one").written = 2);
        check("trials with `outbox`", &|tried| tried.retain(|tried| tried.trial.variant != Variant::Outbox));
        check("published twice", &|tried| tried.retain(|tried| tried.published < 2));
    }
}
