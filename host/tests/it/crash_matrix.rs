//! Crash points, and a small crash matrix over files and each kind of server: `make torture` runs all of it.

use semel::experiment::crash_matrix::{self, Options};
use semel::experiment::host::{HostOptions, HostProcess};

use crate::harness::{On, functions};
use crate::servers::{database, on_every_server};

const PROGRAM: &str = env!("CARGO_BIN_EXE_semel");

on_every_server!(wherever_a_host_dies_every_effect_happens_as_often_as_its_contract_allows);

async fn wherever_a_host_dies_every_effect_happens_as_often_as_its_contract_allows(on: On) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    assert!(functions().join("effects").is_dir(), "make guests");
    let seed = rand::random::<u32>().into();
    eprintln!("seed {seed}");
    let options = Options {
        program: Some(PROGRAM.into()),
        database: Some(database(on).await),
        seed,
        out: folder.path().to_owned(),
        functions: functions(),
        reduced: true,
    };
    let report = crash_matrix::run(&options, &|line| eprintln!("{line}")).await.expect("an experiment");
    let mut said = Vec::new();
    report.print(&mut said).expect("a report");
    let said = String::from_utf8_lossy(&said);
    assert!(report.verdict.passed, "{said}");
    assert_eq!(report.plots.len(), 3, "one matrix for files, one for servers, and one for batches\n{said}");
}

/// A host that could not be armed would live through its experiment, which would then prove nothing.
#[tokio::test]
async fn a_host_that_cannot_be_armed_does_not_start_and_one_that_is_says_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let database = format!("sqlite://{}", folder.path().join("semel.db").display());
    let start = async |crash: &str, fired: &str| {
        let mut host = HostOptions::new(database.clone(), folder.path()).expect("this program");
        host.program = PROGRAM.into();
        HostProcess::start(host.variable("SEMEL_CRASH", crash).variable("SEMEL_CRASH_FIRED", fired)).await
    };
    for (crash, fired, why) in [
        ("begun:kill", "fired", "there is no crash point `begun`"),
        ("run.started:burn", "fired", "NAME:kill, NAME:stop or NAME:power"),
        ("run.started:kill:0", "fired", "N is a number from 1"),
        ("run.started:kill", "", "needs SEMEL_CRASH_FIRED"),
    ] {
        let error = format!("{:#}", start(crash, fired).await.expect_err(crash));
        assert!(error.contains(why), "{crash}: {error}");
    }
    let mut host = start("committed:kill", "fired").await.expect("a host");
    let facts = reqwest::get(host.client().url("/v1/health").expect("a path")).await.expect("an answer");
    let facts = facts.text().await.expect("facts");
    assert!(facts.contains("committed is armed") && facts.contains("unset SEMEL_CRASH"), "{facts}");
    host.kill().await.expect("an end");
}
