//! The experiments, smaller than `make demo` and `make torture` run them, against real processes and real SIGKILLs.

use semel::experiment::counter::{self, Options};
use semel::experiment::failures;
use semel::message::Contract;

use crate::harness::functions;

async fn killed_counter(contract: Contract, messages: u64) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let seed = rand::random::<u32>().into();
    eprintln!("seed {seed}");
    let options = Options {
        program: Some(env!("CARGO_BIN_EXE_semel").into()),
        database: None,
        seed,
        out: folder.path().to_owned(),
        messages,
        kills: Options::kills_for(messages),
        functions: functions(),
        contract,
        clients: 8,
    };
    let report = counter::run(&options, &|line| eprintln!("{line}")).await.expect("an experiment");
    let mut said = Vec::new();
    report.print(&mut said).expect("a report");
    assert!(report.verdict.passed, "{}", String::from_utf8_lossy(&said));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_count_is_exact_however_often_the_host_is_killed() {
    killed_counter(Contract::FinishOnce, 2_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_begin_once_message_is_never_started_twice() {
    killed_counter(Contract::BeginOnce, 1_500).await;
}

/// Outcomes and counts are exact. What is measured is for a run that is long enough to tell: `make torture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misbehaviour_in_bulk_takes_nothing_but_itself() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let seed = rand::random::<u32>().into();
    eprintln!("seed {seed}");
    let options = failures::Options {
        program: Some(env!("CARGO_BIN_EXE_semel").into()),
        seed,
        out: folder.path().to_owned(),
        messages: 100,
        functions: functions(),
        clients: 8,
        samples: 10,
    };
    let report = failures::run(&options, &|line| eprintln!("{line}")).await.expect("an experiment");
    let mut said = Vec::new();
    report.print(&mut said).expect("a report");
    let said = String::from_utf8_lossy(&said);
    let (measured, counted): (Vec<_>, Vec<_>) =
        report.verdict.checks.iter().partition(|check| check.claim.contains("within 10 %"));
    assert_eq!((measured.len(), counted.len()), (3, 8), "{said}");
    assert!(counted.iter().all(|check| check.passed), "{said}");
}
