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
    /// To one of several messages that share a commit; else to one that has its own.
    pub(super) batch: bool,
}

impl Cell {
    /// By this they are shown one after another: the files first, and moments as a message meets them.
    pub(super) fn place(&self) -> impl Ord + use<> {
        (self.shared, self.batch, self.point, self.harm, self.contract == Contract::BeginOnce)
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
    /// The guest traps, on its first attempt. Nobody dies.
    Trap,
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
            Self::Trap => "guest traps",
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
/// Moments of a message that shares a commit, from its start to the end of that commit; at the last one it runs alone, since
/// another of them failed.
const IN_BATCH: [Point; 7] = [
    Point::RunStarted,
    Point::RunWritten,
    Point::RunReturned,
    Point::Acknowledged,
    Point::CommitSent,
    Point::Committed,
    Point::RolledBack,
];
const STOPS_IN_BATCH: [Point; 3] = [Point::RunWritten, Point::Acknowledged, Point::CommitSent];
const REDUCED_IN_BATCH: [(Point, Harm); 4] = [
    (Point::RunWritten, Harm::Kill),
    (Point::RunWritten, Harm::Trap),
    (Point::CommitSent, Harm::Kill),
    (Point::Committed, Harm::Power),
];
const REDUCED_IN_BATCH_SHARED: [(Point, Harm); 2] =
    [(Point::RunWritten, Harm::Trap), (Point::Acknowledged, Harm::Kill)];

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
    let few = if shared { &REDUCED_SHARED[..] } else { &REDUCED };
    let harms = possible(harms, shared, reduced.then_some(few));
    let contracts = [Contract::FinishOnce, Contract::BeginOnce];
    let cell = |point, harm, contract| Cell { shared, point, harm, contract, batch: false };
    let cells = harms.flat_map(|(point, harm)| contracts.map(|contract| cell(point, harm, contract)));
    let cells = cells.filter(|cell| cell.contract == Contract::BeginOnce || !is_of_begin(cell.point));
    cells.chain(in_batch(shared, reduced)).collect()
}

/// The same where messages share a commit: only those that may begin more than once do.
fn in_batch(shared: bool, reduced: bool) -> impl Iterator<Item = Cell> {
    let deaths = [Harm::Kill, Harm::Power];
    let mut harms: Vec<_> = IN_BATCH.iter().flat_map(|point| deaths.map(|death| (*point, death))).collect();
    harms.extend(STOPS_IN_BATCH.map(|point| (point, Harm::Stop)));
    harms.push((Point::RunWritten, Harm::Trap));
    harms.extend([Point::RunWritten, Point::Acknowledged].map(|point| (point, Harm::DatabaseKill)));
    harms.extend([Harm::CutBefore, Harm::CutAfter].map(|cut| (Point::Acknowledged, cut)));
    let few = if shared { &REDUCED_IN_BATCH_SHARED[..] } else { &REDUCED_IN_BATCH };
    let harms = possible(harms, shared, reduced.then_some(few));
    harms.map(move |(point, harm)| Cell { shared, point, harm, contract: Contract::FinishOnce, batch: true })
}

/// What can be done to this kind of database, and of that only a few if they are given.
fn possible(
    harms: Vec<(Point, Harm)>,
    shared: bool,
    few: Option<&[(Point, Harm)]>,
) -> impl Iterator<Item = (Point, Harm)> {
    let of_servers = |harm| matches!(harm, Harm::DatabaseKill | Harm::CutBefore | Harm::CutAfter | Harm::Overtaken);
    let can_be = move |harm| if shared { harm != Harm::Power } else { !of_servers(harm) };
    harms.into_iter().filter(move |at| can_be(at.1) && few.is_none_or(|few| few.contains(at)))
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
                let killed = cells.iter().filter(|cell| cell.point == *point && cell.harm == Harm::Kill);
                let (batch, own): (Vec<Cell>, Vec<Cell>) = killed.partition(|cell| cell.batch);
                assert_eq!(own.len(), if is_of_begin(*point) { 1 } else { 2 }, "{point:?}");
                assert_eq!(batch.len(), usize::from(IN_BATCH.contains(point)), "{point:?}");
            }
            let few = all(shared, true);
            assert!(few.iter().all(|cell| cells.contains(cell)));
            assert!([true, false].iter().all(|batch| few.iter().any(|cell| cell.batch == *batch)));
        }
    }
}
