//! Semel: functions whose effects happen once.
//!
//! The life of one message, and the module where each step is:
//!
//! 1. a request comes through the `doors`, is **accepted** and becomes an event (`api`)
//! 2. the event is **enqueued** as one message per function, durably, before the 202 ([`store`])
//! 3. a worker **claims** the message: attempt and fence count up (`worker`)
//! 4. a begin-once message is marked as **begun** (`worker`)
//! 5. the component is **invoked** in a fresh sandbox ([`engine`])
//! 6. it touches the database through the interfaces of `wit/` only (`guest`)
//! 7. the outcome is **settled** ([`settle`]): effects and acknowledgement in one commit, or nothing of either
//!
//! ARCHITECTURE.md walks the same way with the invariants beside it.

pub mod crash;
pub mod message;
pub mod clock;
pub mod flow;
pub mod outside;
mod calls;
pub mod deferred;
pub mod manifest;

mod doors;
mod api;
mod ingest;
mod cron;
pub mod store;
mod worker;
mod bell;
mod inbox;
mod relay;
mod broker;
pub mod sink;
pub mod source;
mod settlement;
mod pace;
mod running;
mod settled;
pub mod engine;
mod guest;
mod check;
pub mod settle;
mod watch;

pub mod config;
pub mod folder;
mod keeper;
pub mod host;
pub mod logging;

pub mod experiment;
mod bench;
pub mod cli;
