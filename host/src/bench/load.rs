//! Which message is for which counter, and what every counter must show at the end.

use anyhow::ensure;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// What Semel was given to count. The same for the same seed.
pub(super) struct Load {
    random: ChaCha8Rng,
    expected: Vec<i64>,
}

impl Load {
    pub(super) fn new(seed: u64, counters: u32) -> Self {
        Self { random: ChaCha8Rng::seed_from_u64(seed), expected: vec![0; counters as usize] }
    }

    pub(super) fn counters(&self) -> u32 {
        u32::try_from(self.expected.len()).unwrap_or(u32::MAX)
    }

    /// A counter for each of so many messages, as chance has it.
    pub(super) fn picks(&mut self, count: u32) -> Vec<u32> {
        let counters = self.counters();
        (0..count).map(|_| self.random.random_range(0..counters)).collect()
    }

    /// These are counted once more, by a message each.
    pub(super) fn count(&mut self, picks: &[u32]) {
        tally(&mut self.expected, picks);
    }

    /// The sum over all counters.
    pub(super) fn sum(&self) -> i64 {
        self.expected.iter().sum()
    }

    /// That every counter is right.
    pub(super) fn check(&self, found: Vec<(String, i64)>) -> anyhow::Result<()> {
        check(&self.expected, found)
    }
}

/// The body of a message, and the key of a row.
pub(super) fn name(counter: u32) -> String {
    format!("counter-{counter}")
}

pub(super) fn bodies(picks: &[u32]) -> Vec<String> {
    picks.iter().map(|counter| name(*counter)).collect()
}

/// That the floor has counted right as well: one that does less than it must would be too fast.
pub(super) fn check_floor(counters: u32, picks: &[u32], found: Vec<(String, i64)>) -> anyhow::Result<()> {
    let mut expected = vec![0; counters as usize];
    tally(&mut expected, picks);
    check(&expected, found)
}

/// As many counters as these messages need.
pub(super) fn counters(picks: &[u32]) -> u32 {
    picks.iter().max().map_or(1, |most| most + 1)
}

fn tally(expected: &mut [i64], picks: &[u32]) {
    for counter in picks {
        if let Some(count) = expected.get_mut(*counter as usize) {
            *count += 1;
        }
    }
}

fn check(expected: &[i64], mut found: Vec<(String, i64)>) -> anyhow::Result<()> {
    let names = (0..).map(name).zip(expected.iter().copied());
    let mut expected: Vec<(String, i64)> = names.filter(|(_, count)| *count > 0).collect();
    found.retain(|(_, count)| *count != 0);
    expected.sort();
    found.sort();
    let wrong = expected.iter().zip(&found).find(|(expected, found)| expected != found);
    ensure!(
        wrong.is_none() && expected.len() == found.len(),
        "the counters are wrong: {} of them instead of {}, the first difference (expected, found) is {wrong:?}",
        found.len(),
        expected.len(),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_counter_is_found() {
        let mut load = Load::new(1, 3);
        load.count(&[0, 2, 2]);
        let row = |counter, n| (name(counter), n);
        assert!(load.check(vec![row(2, 2), row(0, 1)]).is_ok());
        for wrong in [vec![row(0, 1)], vec![row(0, 1), row(2, 3)], vec![row(0, 1), row(2, 2), row(1, 1)]] {
            assert!(load.check(wrong).is_err());
        }
        assert_eq!(load.sum(), 3);
    }

    #[test]
    fn the_same_seed_makes_the_same_load() {
        assert_eq!(Load::new(7, 1000).picks(50), Load::new(7, 1000).picks(50));
        assert_ne!(Load::new(7, 1000).picks(50), Load::new(8, 1000).picks(50));
    }
}
