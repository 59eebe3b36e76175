//! What a deployer is told about guarantees: refused, or warned.

use super::Function;
use crate::engine::label::Class;
use crate::manifest::Manifest;

/// A weaker guarantee than the running version's needs a word from the deployer.
pub(super) fn check_label(old: Option<&Function>, new: &Manifest, class: Class, accepted: bool) -> Result<(), String> {
    let Some(old) = old.filter(|_| !accepted) else { return Ok(()) };
    let external = |class| class == Class::External;
    if external(class) && !external(old.class()) {
        return Err(format!(
            "the label of {} would go from {} to {class}: its effects could happen more than once; deploy with \
             --accept-weaker-guarantee if that is meant",
            new.name,
            old.class()
        ));
    }
    if old.manifest().contract != new.contract {
        return Err(format!(
            "the contract of {} would go from {} to {}; deploy with --accept-weaker-guarantee if that is meant",
            new.name,
            old.manifest().contract.as_str(),
            new.contract.as_str()
        ));
    }
    Ok(())
}

/// Of a function with outside effects, on a database with one writer.
pub(super) fn keeps_others_waiting(function: &Function) -> Option<String> {
    let timeout = function.manifest().timeout();
    (function.class() == Class::External).then(|| {
        format!(
            "it calls other servers while it runs: from its first use of the database until its end it holds the one write \
             lock, and everybody else waits, at most {timeout:?} (its hard timeout). Call before you write, or move to a \
             database with many writers"
        )
    })
}
