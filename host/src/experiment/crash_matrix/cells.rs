//! The cells: what is done to a host, at which moment, under which contract, on which kind of database.

use super::super::proxy;
use crate::crash::Point;
use crate::message::Contract;

/// One trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    /// On a server, which several hosts share; else on a file.
    pub(super) shared: bool,
    pub(super) point: Point,
    pub(super) harm: Harm,
    pub(super) contract: Contract,
}

impl Cell {
    /// By this they are shown one after another: the files first, and moments as a message meets them.
    pub(super) fn place(&self) -> impl Ord + use<> {
        (self.shared, self.point, self.harm, self.contract == Contract::BeginOnce)
    }

    /// Whether it is the request that a message deferred which is hit, not the message.
    pub(super) fn is_of_relay(&self) -> bool {
        matches!(self.point, Point::RelayClaimed | Point::RelaySent)
    }
}

/// What is done to a host that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Harm {
    /// SIGKILL, and a new host.
    Kill,
    /// The disk forgets what was not synced, and SIGKILL.
    Power,
    /// SIGSTOP for two leases; where hosts share the database, another one takes over.
    Stop,
    /// SIGKILL to all processes of the database's server, which starts again.
    DatabaseKill,
    /// The commit that comes next does not reach the server.
    CutBefore,
    /// The server commits, and its answer does not reach the host.
    CutAfter,
    /// The host stands still with its acknowledgement on the way, which arrives while another runs the message.
    Overtaken,
    /// The server that is called closes the connection instead of answering. Nobody dies.
    Unanswered,
}

impl Harm {
    /// For the table.
    pub(super) fn says(self) -> &'static str {
        match self {
            Self::Kill => "host killed",
            Self::Power => "host loses power",
            Self::Stop => "host frozen for two leases",
            Self::DatabaseKill => "database killed",
            Self::CutBefore => "line cut, commit lost",
            Self::CutAfter => "line cut, answer lost",
            Self::Overtaken => "host frozen, acknowledgement arrives late",
            Self::Unanswered => "called server hangs up",
        }
    }

    /// As the network does it.
    pub(super) fn of_network(self) -> Option<proxy::Fault> {
        match self {
            Self::CutBefore => Some(proxy::Fault::Before),
            Self::CutAfter => Some(proxy::Fault::After),
            _ => None,
        }
    }
}

const STOPS: [Point; 9] = [
    Point::ClaimCommitted,
    Point::BeginCommitted,
    Point::RunStarted,
    Point::CallSent,
    Point::RenewDue,
    Point::Acknowledged,
    Point::CommitSent,
    Point::RelayClaimed,
    Point::RecoverFound,
];
const DATABASE_KILLS: [Point; 9] = [
    Point::AcceptInserted,
    Point::ClaimCommitted,
    Point::RunWritten,
    Point::CallIntended,
    Point::RenewDue,
    Point::RunReturned,
    Point::Acknowledged,
    Point::RelayClaimed,
    Point::RelaySent,
];
/// Moments right before a commit, and whose it is.
const COMMITS: [(Point, proxy::Of); 5] = [
    (Point::AcceptInserted, proxy::Of::Enqueue),
    (Point::ClaimBeforeCommit, proxy::Of::Claim),
    (Point::BeginBeforeCommit, proxy::Of::Begin),
    (Point::Acknowledged, proxy::Of::Acknowledgement),
    (Point::RelaySent, proxy::Of::Acknowledgement),
];
/// Enough to see one of each: what happens 0, 1 and 2 times, what is in doubt, and what the fence is there for.
const REDUCED: [(Point, Harm); 8] = [
    (Point::AcceptCommitted, Harm::Kill),
    (Point::CallIntended, Harm::Kill),
    (Point::CallSent, Harm::Kill),
    (Point::Acknowledged, Harm::Kill),
    (Point::CommitSent, Harm::Kill),
    (Point::Committed, Harm::Kill),
    (Point::Committed, Harm::Power),
    (Point::RelaySent, Harm::Kill),
];
/// There a lost claim takes a lease to be found.
const REDUCED_SHARED: [(Point, Harm); 3] =
    [(Point::CallSent, Harm::Kill), (Point::CommitSent, Harm::Kill), (Point::RunReturned, Harm::Overtaken)];

/// Whose commit comes next after a point.
pub(super) fn commit_after(point: Point) -> Option<proxy::Of> {
    COMMITS.iter().find(|(at, _)| *at == point).map(|(_, of)| *of)
}

/// Every cell, or the few of a reduced run, on one kind of database.
pub(super) fn all(shared: bool, reduced: bool) -> Vec<Cell> {
    let deaths = [Harm::Kill, Harm::Power];
    let mut harms: Vec<_> = Point::ALL.iter().flat_map(|point| deaths.map(|death| (*point, death))).collect();
    harms.extend(STOPS.map(|point| (point, Harm::Stop)));
    harms.push((Point::CallSent, Harm::Unanswered));
    harms.push((Point::RunReturned, Harm::Overtaken));
    harms.extend(DATABASE_KILLS.map(|point| (point, Harm::DatabaseKill)));
    harms.extend(COMMITS.iter().flat_map(|(at, _)| [(*at, Harm::CutBefore), (*at, Harm::CutAfter)]));
    let of_servers = |harm| matches!(harm, Harm::DatabaseKill | Harm::CutBefore | Harm::CutAfter | Harm::Overtaken);
    let of_files = |harm| harm == Harm::Power;
    let few = if shared { &REDUCED_SHARED[..] } else { &REDUCED };
    harms.retain(|(point, harm)| {
        (if shared { !of_files(*harm) } else { !of_servers(*harm) }) && (!reduced || few.contains(&(*point, *harm)))
    });
    let contracts = [Contract::FinishOnce, Contract::BeginOnce];
    let cells =
        harms.into_iter().flat_map(|(point, harm)| contracts.map(|contract| Cell { shared, point, harm, contract }));
    cells.filter(|cell| cell.contract == Contract::BeginOnce || !is_of_begin(cell.point)).collect()
}

/// Messages of a finish-once function never come there.
fn is_of_begin(point: Point) -> bool {
    matches!(point, Point::BeginBeforeCommit | Point::BeginCommitted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_tried_under_every_contract_that_comes_there() {
        for shared in [false, true] {
            let cells = all(shared, false);
            for point in Point::ALL {
                let killed = cells.iter().filter(|cell| cell.point == *point && cell.harm == Harm::Kill).count();
                assert_eq!(killed, if is_of_begin(*point) { 1 } else { 2 }, "{point:?}");
            }
            assert!(!all(shared, true).is_empty() && all(shared, true).iter().all(|cell| cells.contains(cell)));
        }
    }
}
