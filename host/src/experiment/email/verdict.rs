//! The verdict on a run: a pure function of what was observed.

use super::super::{Check, Verdict};
use super::Tried;
use super::trials::Way;

/// Judges a run.
pub(super) fn judge(tried: &[Tried]) -> Verdict {
    let count = |of: &dyn Fn(&Tried) -> bool| tried.iter().filter(|tried| of(tried)).count() as u64;
    let crashes = count(&|tried| tried.trial.crash.is_some());
    let keyed = count(&|tried| tried.trial.way == Way::Keyed);
    let seen = |claim: &str, found: u64| Check::new(claim, found > 0, "1 or more", found.to_string());
    let wrong = wrong(tried);
    let none = wrong.is_empty();
    let checks = vec![
        Check::equal("crashes that hit the step they were meant for", crashes, count(&|tried| tried.fired)),
        Check::new(
            "trials that ended otherwise than they must",
            none,
            "none",
            if none { "none".to_owned() } else { wrong.join("; ") },
        ),
        seen("trials of the protocol in which two mails were sent", count(&|tried| is(tried, Way::Protocol, 2))),
        seen(
            "trials of the protocol under begin-once in which none was sent",
            count(&|tried| is(tried, Way::BeginOnce, 0)),
        ),
        seen("trials with a provider that keeps keys", keyed),
        Check::equal(
            "with deferred-http and a provider that keeps keys: one mail, wherever it crashes",
            keyed,
            count(&|tried| is(tried, Way::Keyed, 1)),
        ),
    ];
    let shown = format!(
        "lock, check, send, record, unlock sends a mail twice or not at all, depending on the contract; a request that is a part \
         of the commit, with one key on every try, was one mail in all {keyed} trials"
    );
    Verdict::of(checks, shown)
}

fn is(tried: &Tried, way: Way, mails: u64) -> bool {
    tried.trial.way == way && tried.mails == mails
}

fn wrong(tried: &[Tried]) -> Vec<String> {
    let wrong =
        tried.iter().filter(|tried| tried.mails != tried.trial.expected() || tried.state != tried.trial.state());
    wrong
        .map(|tried| {
            let (way, place, state) = (tried.trial.way.name(), tried.trial.place(), tried.trial.state());
            format!(
                "{way}, {place}: {} mails and {} instead of {} and {state}",
                tried.mails,
                tried.state,
                tried.trial.expected()
            )
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
            asked: 5,
            mails: trial.expected(),
            state: trial.state().into(),
            attempts: 1,
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
        check("2 mails and completed instead of 1", &|tried| tried[0].mails = 2);
        check("1 mails and dead instead of 1", &|tried| tried[0].state = "dead".into());
        check("two mails were sent", &|tried| tried.retain(|tried| tried.mails < 2));
        check("none was sent", &|tried| tried.retain(|tried| tried.mails > 0));
        check("keeps keys", &|tried| tried.retain(|tried| tried.trial.way != Way::Keyed));
    }
}
