//! Crash points: named moments at which an experiment lets this process die, stand still, or lose power.
//!
//! Inert unless armed; then each is one relaxed load. `SEMEL_CRASH=NAME:kill`, `NAME:stop` or `NAME:power` arms one of them,
//! at the N-th time that it is reached with `:N` behind it. Before the process ends or stands still, the name is written,
//! durably, to the file that `SEMEL_CRASH_FIRED` names: a fault that did not fire must not be taken for one that did no harm.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// The one list of them, in the order in which a message meets them: how it is called, and what has happened by then.
macro_rules! points {
    ($($point:ident $name:literal $says:literal)*) => {
        /// A moment in the life of a message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Point { $(#[doc = $says] $point),* }

        impl Point {
            /// All of them, in the order in which a message meets them.
            pub const ALL: &[Self] = &[$(Self::$point),*];

            /// How it is called where it is armed.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$point => $name),* }
            }

            /// What has happened by then, and what has not.
            #[must_use]
            pub fn says(self) -> &'static str {
                match self { $(Self::$point => $says),* }
            }
        }
    };
}

points! {
    AcceptRead "accept.read" "request read, transaction not begun"
    AcceptInserted "accept.inserted" "message inserted, before COMMIT"
    AcceptCommitted "accept.committed" "message committed, nobody woken"
    AcceptAnswering "accept.answering" "workers woken, 202 not written"
    ClaimBeforeCommit "claim.before-commit" "claimed, before COMMIT"
    ClaimCommitted "claim.committed" "claimed, not begun"
    BeginBeforeCommit "begin.before-commit" "begin mark not committed"
    BeginCommitted "begin.committed" "begun, no instance yet"
    RunInstantiating "run.instantiating" "about to make the instance"
    RunStarted "run.started" "guest starts, before its first SQL"
    RunWritten "run.written" "guest has written, transaction open"
    CallIntended "call.intended" "call in the ledger, not sent"
    CallSent "call.sent" "request sent, no answer yet"
    CallAnswered "call.answered" "answer read, ledger not updated"
    RenewDue "renew.due" "leases due to be renewed, nothing asked"
    RunReturned "run.returned" "guest returned ok, before acknowledgement"
    Acknowledged "acknowledged" "acknowledged, before COMMIT"
    CommitSent "commit.sent" "COMMIT sent, no answer yet"
    Committed "committed" "committed, nobody told"
    RolledBack "rolled-back" "guest failed, rolled back, failure not recorded"
    RelayClaimed "relay.claimed" "deferred request claimed, not sent"
    RelaySent "relay.sent" "deferred request sent, not settled"
    RecoverFound "recover.found" "recovery found a lost claim, before COMMIT"
}

/// Number of the armed point; 0 if there is none.
static ARMED: AtomicU8 = AtomicU8::new(0);
static PLAN: OnceLock<Plan> = OnceLock::new();
/// How the disk forgets what was not synced, said by whoever writes to it.
static DISK: OnceLock<LosePower> = OnceLock::new();

/// Undoes what was not synced, and lets nobody write or read any more.
pub type LosePower = fn() -> io::Result<()>;

/// How long a signal takes to reach every thread, and much more.
const UNTIL_ALL_HAVE_IT: Duration = Duration::from_millis(100);

/// How long a task takes that sends what another one said, and much more.
const UNTIL_SENT: Duration = Duration::from_millis(2);

struct Plan {
    wish: Wish,
    fired: PathBuf,
    /// Times that it is still to be passed, this one included.
    left: AtomicU32,
}

/// What `SEMEL_CRASH` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wish {
    point: Point,
    action: Action,
    times: u32,
}

/// What happens at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Kill,
    Stop,
    /// The disk forgets what was not synced, and the process is killed.
    Power,
}

impl Action {
    fn signal(self) -> Signal {
        match self {
            Self::Kill | Self::Power => Signal::KILL,
            Self::Stop => Signal::STOP,
        }
    }
}

/// Arms what the environment asks for, and says what that is.
///
/// # Errors
/// If there is no such point, or it is not said where it is written down that it fired.
pub fn arm() -> Result<Option<&'static str>, String> {
    let Some(text) = std::env::var_os("SEMEL_CRASH") else { return Ok(None) };
    let wish = parse(&text.to_string_lossy())?;
    let fired = std::env::var_os("SEMEL_CRASH_FIRED").filter(|path| !path.is_empty());
    let fired = fired.ok_or("SEMEL_CRASH needs SEMEL_CRASH_FIRED, the file in which it is written down")?.into();
    if PLAN.set(Plan { wish, fired, left: AtomicU32::new(wish.times) }).is_ok() {
        ARMED.store(wish.point as u8 + 1, Ordering::SeqCst);
    }
    Ok(armed())
}

/// The point that is armed.
#[must_use]
pub fn armed() -> Option<&'static str> {
    PLAN.get().map(|plan| plan.wish.point.name())
}

/// Whether this process is to lose power: then its disk must be one that can.
#[must_use]
pub fn takes_power() -> bool {
    PLAN.get().is_some_and(|plan| plan.wish.action == Action::Power)
}

/// Says how power is lost. Whoever says it first is heard.
pub fn on_loss_of_power(lose: LosePower) {
    let _ = DISK.set(lose);
}

/// This moment: nothing happens here, unless it is the armed one.
#[inline]
pub fn point(here: Point) {
    if ARMED.load(Ordering::Relaxed) == here as u8 + 1 {
        reached();
    }
}

/// The moment after something was sent off and before anybody knows what became of it.
pub async fn during<F: Future>(here: Point, work: F) -> F::Output {
    if ARMED.load(Ordering::Relaxed) != here as u8 + 1 {
        return work.await;
    }
    let mut work = pin!(work);
    let first = std::future::poll_fn(|cx| std::task::Poll::Ready(work.as_mut().poll(cx))).await;
    tokio::time::sleep(UNTIL_SENT).await;
    point(here);
    match first {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => work.await,
    }
}

/// The same for work that is done on this thread: the moment comes while it goes on.
pub fn beside<T>(here: Point, work: impl FnOnce() -> T) -> T {
    if ARMED.load(Ordering::Relaxed) != here as u8 + 1 {
        return work();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| point(here));
        work()
    })
}

#[cold]
fn reached() {
    let Some(plan) = PLAN.get() else { return };
    let left = plan.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    if left != Ok(1) {
        return;
    }
    if let Err(error) = happen(plan) {
        tracing::error!(%error, point = plan.wish.point.name(), "an armed crash point did not fire");
    }
    // Another thread may get the signal first; this one goes no further before all have it.
    std::thread::sleep(UNTIL_ALL_HAVE_IT);
}

fn happen(plan: &Plan) -> io::Result<()> {
    let Wish { point, action, .. } = plan.wish;
    if action == Action::Power {
        let lose = DISK.get().ok_or_else(|| io::Error::other("there is no disk that can lose power"))?;
        lose()?;
    }
    let mut file = File::options().append(true).create(true).open(&plan.fired)?;
    file.write_all(format!("{}\n", point.name()).as_bytes())?;
    file.sync_all()?;
    Ok(kill_process(getpid(), action.signal())?)
}

fn parse(text: &str) -> Result<Wish, String> {
    const RIGHT: &str = "write NAME:kill, NAME:stop or NAME:power, and :N for the N-th time";
    let wrong = |what: &str| Err(format!("SEMEL_CRASH: {what}; {RIGHT}"));
    let mut parts = text.split(':');
    let name = parts.next().unwrap_or_default();
    let Some(point) = Point::ALL.iter().find(|point| point.name() == name) else {
        let known: Vec<_> = Point::ALL.iter().map(|point| point.name()).collect();
        return wrong(&format!("there is no crash point `{name}`, only {}", known.join(", ")));
    };
    let action = match parts.next() {
        Some("kill") => Action::Kill,
        Some("stop") => Action::Stop,
        Some("power") => Action::Power,
        _ => return wrong("it must say what happens"),
    };
    let times = match parts.next().map(str::parse) {
        None => 1,
        Some(Ok(times @ 1..)) => times,
        Some(_) => return wrong("N is a number from 1"),
    };
    if parts.next().is_some() {
        return wrong("there is too much");
    }
    Ok(Wish { point: *point, action, times })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_read_or_refused_with_what_to_write() {
        let wish = |point, action, times| Ok(Wish { point, action, times });
        assert_eq!(parse("run.started:kill"), wish(Point::RunStarted, Action::Kill, 1));
        assert_eq!(parse("commit.sent:stop:3"), wish(Point::CommitSent, Action::Stop, 3));
        assert_eq!(parse("committed:power"), wish(Point::Committed, Action::Power, 1));
        for wrong in ["", "run.started", "run.started:burn", "run.started:kill:0", "run.started:kill:1:2", "begun:kill"]
        {
            assert!(parse(wrong).expect_err(wrong).contains("NAME:kill"), "{wrong}");
        }
        assert!(parse("begun:kill").expect_err("a name").contains("begin.committed"));
    }

    #[test]
    fn names_are_names_of_one_point() {
        let mut names: Vec<_> = Point::ALL.iter().map(|point| point.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Point::ALL.len());
    }

    #[tokio::test]
    async fn unarmed_points_are_passed() {
        point(Point::Committed);
        assert_eq!(during(Point::CommitSent, async { 7 }).await, 7);
        assert_eq!(beside(Point::CommitSent, || 7), 7);
        assert_eq!((armed(), takes_power()), (None, false));
    }
}
