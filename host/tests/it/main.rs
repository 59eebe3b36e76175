//! All integration tests, in one binary: it links once. Semel at its boundary (HTTP, the command line, processes that
//! are killed), and the store behind its traits.

mod harness;
mod hostile;

mod doors;
mod accept;
mod cloud_events;
mod outcomes;
mod calls;
mod contracts;
mod waiting;
mod flow;
mod keys;
mod deploys;
mod versions;
mod decisions;
mod startup;
mod compiling;
mod sandbox;
mod steering;
mod openapi;
mod watching;
mod probes;
mod commands;

mod strangers;
mod faults;
mod rolling;

mod store;
mod interleavings;
mod plans;
mod walls;
mod containment;
mod durability;
mod experiments;

mod tidy;
