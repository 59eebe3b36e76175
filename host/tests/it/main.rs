//! All integration tests, in one binary: it links once. Semel at its boundary (HTTP, the command line, processes that
//! are killed), and the store behind its traits.

mod brokers;
mod cluster;
mod harness;
mod hostile;
mod mariadb;
mod servers;

mod doors;
mod accept;
mod ingest;
mod ahead;
mod cloud_events;
mod outcomes;
mod calls;
mod contracts;
mod waiting;
mod flow;
mod batches;
mod poison;
mod hosts;
mod cron;
mod customers;
mod keys;
mod deploys;
mod versions;
mod decisions;
mod deferred;
mod startup;
mod first_contact;
mod compiling;
mod sandbox;
mod wasi;
mod steering;
mod openapi;
mod watching;
mod probes;
mod commands;

mod sinks_brokers;
mod sources_brokers;
mod broker_kills;
mod inbox;
mod outside;
mod ledger;
mod calling;
mod inward;
mod checking;

mod strangers;
mod faults;
mod network;
mod lost_commits;
mod drivers;
mod outages;
mod sinks;
mod stalls;
mod standstill;
mod rolling;

mod store;
mod interleavings;
mod histories;
mod plans;
mod walls;
mod values;
mod values_mariadb;
mod prison;
mod containment;
mod containment_postgres;
mod containment_mariadb;
mod fuzz_servers;
mod fuzz_postgres;
mod fuzz_mariadb;
mod apps;
mod apps_mariadb;
mod durability;
mod experiments;
mod bench;
mod crash_matrix;

mod tidy;
