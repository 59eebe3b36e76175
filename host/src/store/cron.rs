//! How far the schedules of deployed functions have come.
//!
//! A row is made when a function with the schedule becomes active, stays while it is in the active version, whichever that is,
//! and goes with it. So one that is new begins with its deploy, and of one that is not there nothing fires.

use async_trait::async_trait;

use super::Error;
use crate::clock::Timestamp;
use crate::message::Event;

/// The schedules of all functions, which all hosts share.
#[async_trait]
pub trait Timetable: Send + Sync {
    /// How far each schedule has come.
    async fn schedules(&self) -> Result<Vec<ScheduleRecord>, Error>;

    /// Fires one slot: the message is in the queue, and the schedule has come so far, in one commit. Of all who try, on whatever
    /// host, one does.
    async fn fire(&self, firing: Firing) -> Result<Fired, Error>;
}

/// One schedule of the active version of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRecord {
    /// The function.
    pub function: String,
    /// Which of its schedules, see [`crate::message::schedule_key`].
    pub key: String,
    /// What came up to here is fired, or will never be.
    pub reached: Timestamp,
    /// The slot that was fired last.
    pub last: Option<Timestamp>,
}

/// One slot that is to be fired.
#[derive(Debug, Clone)]
pub struct Firing {
    /// The schedule, as it was read: if it has come further since, nothing is done.
    pub schedule: ScheduleRecord,
    /// How far it comes by this.
    pub slot: Timestamp,
    /// For the function alone.
    pub event: Event,
}

/// What became of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fired {
    /// Its message is in the queue.
    Accepted,
    /// It is somebody else's, or the schedule is gone.
    Elsewhere,
    /// There is no room for it in the function's backlog; it is as if nobody had tried.
    BacklogFull,
}
