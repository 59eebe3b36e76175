//! The experiments, smaller than `make demo` and `make torture` run them, against real processes and real SIGKILLs.

use std::path::PathBuf;
use std::time::Duration;

use semel::experiment::counter::{self, Faults, Options};
use semel::experiment::{Quantity, Report, email, failures, fuel, outbox, publish, timeouts};
use semel::message::Contract;
use sqlx::Executor as _;

use crate::cluster::Cluster;
use crate::harness::{On, functions, root};
use crate::servers::{Server, on_every_server};

on_every_server!(
    the_count_is_exact_whatever_happens_to_hosts_database_and_network,
    a_begin_once_message_is_never_started_twice_whatever_happens,
);

const ALL_FAULTS: Faults = Faults { kills: 2, database_kills: 1, zombies: 1, lost_commits: 3 };

/// Runs it with the database and the faults of `options`; what stands there beside them is the same for all.
async fn run(options: Options) -> Report {
    let folder = tempfile::tempdir().expect("a temporary folder");
    eprintln!("seed {}", options.seed);
    let options = Options { out: folder.path().to_owned(), ..options };
    counter::run(&options, &|line| eprintln!("{line}")).await.expect("an experiment")
}

fn options(messages: u64, contract: Contract) -> Options {
    Options {
        program: Some(env!("CARGO_BIN_EXE_semel").into()),
        database: None,
        seed: rand::random::<u32>().into(),
        out: PathBuf::new(),
        messages,
        hosts: 1,
        faults: Faults::for_run(messages, None),
        functions: functions(),
        contract,
        clients: 8,
    }
}

fn said(report: &Report) -> String {
    let mut said = Vec::new();
    report.print(&mut said).expect("a report");
    String::from_utf8_lossy(&said).into_owned()
}

/// What the report says under a name.
#[track_caller]
fn figure(report: &Report, name: &str) -> u64 {
    let figure = report.figures.iter().find(|figure| figure.name == name);
    match figure.unwrap_or_else(|| panic!("no figure is called {name}:\n{}", said(report))).value {
        Quantity::Count(count) => count,
        Quantity::Measure(_) => panic!("{name} is not a count"),
    }
}

async fn killed_counter(contract: Contract, messages: u64, kills: u64) {
    let faults = Faults { kills, ..Faults::default() };
    let report = run(Options { faults, ..options(messages, contract) }).await;
    assert!(report.verdict.passed, "{}", said(&report));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_count_is_exact_however_often_the_host_is_killed() {
    killed_counter(Contract::FinishOnce, 600, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_begin_once_message_is_never_started_twice() {
    killed_counter(Contract::BeginOnce, 500, 3).await;
}

async fn harmed_counter(on: On, contract: Contract, messages: u64, faults: Faults) {
    let server = Server::start(on, &[]);
    let database = Some(server.database().await);
    let report = run(Options { database, hosts: 2, faults, ..options(messages, contract) }).await;
    let said = said(&report);
    assert!(report.verdict.passed, "{said}");
    assert!(figure(&report, "kills that hit running work") >= faults.kills, "{said}");
    if faults.database_kills > 0 {
        assert!(figure(&report, "kills of the database that hit running work") >= faults.database_kills, "{said}");
    }
    assert!(figure(&report, "zombies' claims taken over") >= 1, "{said}");
    let lost = ["commits cut off before the server", "answers cut off after the commit", "commits in a black hole"];
    assert!(lost.map(|name| figure(&report, name)).iter().sum::<u64>() >= faults.lost_commits, "{said}");
}

async fn the_count_is_exact_whatever_happens_to_hosts_database_and_network(on: On) {
    harmed_counter(on, Contract::FinishOnce, 240, ALL_FAULTS).await;
}

async fn a_begin_once_message_is_never_started_twice_whatever_happens(on: On) {
    let faults = Faults { kills: 1, database_kills: 0, zombies: 1, lost_commits: 2 };
    harmed_counter(on, Contract::BeginOnce, 100, faults).await;
}

/// A database that counts every tenth message twice, and a fault that nobody has time for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_verdict_is_a_failure_when_the_count_is_wrong_or_a_fault_did_not_fire() {
    let cluster = Cluster::start(&["fsync=off"]);
    let url = cluster.database().await;
    let name = url.rsplit('/').next().expect("a database").to_owned();
    let cheat = async {
        let mut superuser = cluster.superuser(&name).await;
        let cheat = "CREATE FUNCTION public.cheat() RETURNS trigger LANGUAGE plpgsql AS
                         $$ BEGIN NEW.n := NEW.n + (NEW.n % 10 = 0)::int; RETURN NEW; END $$;
                     DO $$ BEGIN
                         EXECUTE (SELECT format('CREATE TRIGGER cheat BEFORE UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION \
                             public.cheat()', oid::regclass) FROM pg_class WHERE relname = 'counters');
                     END $$";
        while superuser.execute(cheat).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let faults = Faults { kills: 1000, ..Faults::default() };
    let options = Options { database: Some(url.clone()), hosts: 2, faults, ..options(10, Contract::FinishOnce) };
    let (report, ()) = tokio::join!(run(options), cheat);
    let said = said(&report);
    assert!(
        !report.verdict.passed && said.contains("overshoot") && said.contains("never fired often enough"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_cannot_be_killed_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let refused = |database: Option<&str>, hosts, faults| {
        let (database, out) = (database.map(str::to_owned), folder.path().to_owned());
        let options = Options { database, hosts, faults, out, ..options(10, Contract::FinishOnce) };
        async move { format!("{:#}", counter::run(&options, &|_| {}).await.expect_err("refused")) }
    };
    let elsewhere = "postgres://semel:secret@192.0.2.1/semel";
    let error = refused(Some(elsewhere), 2, ALL_FAULTS).await;
    assert!(error.contains("--database-kills 0") && error.contains("another machine"), "{error}");
    assert!(!error.contains("secret"), "{error}");
    let error = refused(None, 2, Faults::default()).await;
    assert!(error.contains("--database with the URL of a server"), "{error}");
    let error = refused(Some(elsewhere), 1, ALL_FAULTS).await;
    assert!(error.contains("--hosts 2"), "{error}");
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
    assert_eq!((measured.len(), counted.len()), (3, 12), "{said}");
    assert!(counted.iter().all(|check| check.passed), "{said}");
}

/// Where an experiment of its own writes, and how it is judged.
async fn passes<Run>(experiment: impl FnOnce(Common) -> Run) -> Report
where
    Run: Future<Output = anyhow::Result<Report>>,
{
    let folder = tempfile::tempdir().expect("a temporary folder");
    let seed = rand::random::<u32>().into();
    eprintln!("seed {seed}");
    let common = Common {
        program: Some(env!("CARGO_BIN_EXE_semel").into()),
        seed,
        out: folder.path().to_owned(),
        functions: functions(),
    };
    let report = experiment(common).await.expect("an experiment");
    assert!(report.verdict.passed, "{}", said(&report));
    report.write(folder.path()).expect("a page");
    report
}

struct Common {
    program: Option<PathBuf>,
    seed: u64,
    out: PathBuf,
    functions: PathBuf,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_message_uses_the_same_fuel_on_every_attempt_and_every_host() {
    let report = passes(async |Common { program, seed, out, functions }| {
        let options = fuel::Options { program, database: None, seed, out, messages: 2, attempts: 5, functions };
        fuel::run(&options, &|line| eprintln!("{line}")).await
    });
    assert!(figure(&report.await, "attempts without a budget") >= 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_is_taken_over_only_where_the_lease_is_shorter_than_the_run_and_nobody_renews_it() {
    let report = passes(async |Common { program, seed, out, functions }| {
        let unit = Duration::from_millis(250);
        let options = timeouts::Options { program, database: None, seed, out, messages: 1, unit, functions };
        timeouts::run(&options, &|line| eprintln!("{line}")).await
    });
    assert!(figure(&report.await, "claims taken over") >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_write_and_publish_but_the_outbox_has_a_place_where_a_crash_derails_it() {
    let report = passes(async |Common { program, seed, out, functions }| {
        let trials = publish::trials::Trial::telling();
        let options = publish::Options { program, database: None, seed, out, trials, functions };
        publish::run(&options, &|line| eprintln!("{line}")).await
    });
    assert_eq!(figure(&report.await, "crashes"), 4);
}

/// Two mails, none, and one: at one place each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_is_sent_once_where_its_request_is_a_part_of_the_commit() {
    let report = passes(async |Common { program, seed, out, functions }| {
        let trials = email::trials::Trial::telling();
        let options = email::Options { program, database: None, seed, out, trials, functions };
        email::run(&options, &|line| eprintln!("{line}")).await
    });
    assert_eq!(figure(&report.await, "crashes"), 4);
}

/// Killed are: twice the host that relays (once it has just had a confirmation), each broker, and each host that receives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_is_handled_once_at_the_other_end_of_each_broker() {
    let report = passes(async |Common { program, seed, out, functions }| {
        let (kills, broker_kills, scripts) = (2, 1, root().join(".ci"));
        let options = outbox::Options {
            program,
            database: None,
            seed,
            out,
            messages: 300,
            kills,
            broker_kills,
            functions,
            scripts,
        };
        outbox::run(&options, &|line| eprintln!("{line}")).await
    });
    assert!(figure(&report.await, "duplicates at the brokers") >= 1);
}
