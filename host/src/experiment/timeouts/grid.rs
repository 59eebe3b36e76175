//! The grid: leases, hard timeouts and run times, and what each combination must lead to. Pure.

use std::time::Duration;

/// In units; a lease that is shorter than the longest runs, and one that is longer than all of them.
const LEASES: [u32; 2] = [4, 28];
/// One below both leases, and one between them.
const TIMEOUTS: [u32; 2] = [2, 18];
/// Within everything; beyond the short times; beyond everything but the long lease.
const RUNS: [u32; 3] = [0, 10, 24];
/// A run that takes no time at all would show nothing.
const QUICK: Duration = Duration::from_millis(10);

/// One combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) lease: Duration,
    pub(super) timeout: Duration,
    /// Of the first attempt. Later ones take no time to speak of.
    pub(super) run: Duration,
    /// Whether the host renews leases.
    pub(super) renewed: bool,
}

/// Every combination, those of one function side by side.
pub(super) fn all(unit: Duration) -> Vec<Cell> {
    let mut cells = Vec::new();
    for lease in LEASES {
        for timeout in TIMEOUTS {
            for run in RUNS {
                for renewed in [true, false] {
                    let run = QUICK.max(unit * run);
                    cells.push(Cell { lease: unit * lease, timeout: unit * timeout, run, renewed });
                }
            }
        }
    }
    cells
}

impl Cell {
    /// The function that has these times.
    pub(super) fn function(&self) -> String {
        format!("lease-{}-timeout-{}", self.lease.as_millis(), self.timeout.as_millis())
    }

    /// For how long the first attempt goes on.
    fn lives(&self) -> Duration {
        self.run.min(self.timeout)
    }

    /// Whether its claim is taken over while it goes on.
    pub(super) fn is_taken_over(&self) -> bool {
        !self.renewed && self.lease < self.lives()
    }

    /// How the attempts must end. `taken-over` stands for both ways to write that down: by who took it, and by who lost it.
    pub(super) fn expected(&self) -> &'static [&'static str] {
        if self.is_taken_over() {
            &["taken-over", "completed"]
        } else if self.run >= self.timeout {
            &["timed-out", "completed"]
        } else {
            &["completed"]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_the_lease_is_shorter_than_the_run_and_nobody_renews_it_is_work_taken_over() {
        let cells = all(Duration::from_millis(100));
        assert_eq!(cells.len(), 24);
        let taken: Vec<&Cell> = cells.iter().filter(|cell| cell.is_taken_over()).collect();
        assert!(taken.iter().all(|cell| cell.timeout > cell.lease && !cell.renewed), "{taken:?}");
        assert_eq!(taken.len(), 2, "one that commits too late, and one that its timeout ends too late");
        let late = cells.iter().filter(|cell| cell.expected() == ["timed-out", "completed"]).count();
        assert_eq!(late, 11, "three of every four, of which one is taken over first");
    }

    #[test]
    fn no_two_times_are_so_close_that_chance_decides() {
        let cells = all(Duration::from_millis(100));
        let apart = |a: Duration, b: Duration| a.max(b).as_millis() * 10 >= a.min(b).as_millis() * 13;
        for cell in cells {
            assert!(apart(cell.run, cell.timeout) && apart(cell.lease, cell.lives()), "{cell:?}");
        }
    }
}
