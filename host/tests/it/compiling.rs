//! Compilation: in a child process within its bounds, once per component; and the artifacts that are kept of it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{PROGRAM, Semel, built, made, run, until};
use crate::hostile::bomb;

/// How often the host has compiled, as its log says.
fn compiled(semel: &Semel) -> usize {
    semel.log().matches("compiled a component").count()
}

fn warnings(semel: &Semel) -> usize {
    semel.log().matches("an artifact is not used").count()
}

fn cache(semel: &Semel) -> PathBuf {
    semel.folder().join("test.db.cache")
}

/// The only artifact.
fn artifact(semel: &Semel) -> PathBuf {
    let mut files = fs::read_dir(cache(semel)).expect("the cache").map(|entry| entry.expect("an entry").path());
    let file = files.next().expect("an artifact");
    assert!(files.next().is_none(), "more than one file");
    file
}

/// Started again with these `[limits]`.
pub(crate) async fn configured(semel: &mut Semel, limits: &str) {
    semel.stop().await;
    fs::write(semel.folder().join("semel.toml"), format!("[limits]\n{limits}")).expect("a configuration");
    semel.restart().await;
}

async fn restarted(semel: &mut Semel) {
    semel.stop().await;
    semel.restart().await;
    semel.call("counter", "visits").await.ok();
}

#[tokio::test]
async fn a_restart_does_not_compile_again() {
    let mut semel = Semel::start(&["counter"]).await;
    assert_eq!(compiled(&semel), 1);
    let (folder, file) =
        (fs::metadata(cache(&semel)).expect("a cache"), fs::metadata(artifact(&semel)).expect("a file"));
    assert_eq!((folder.mode() & 0o777, file.mode() & 0o777), (0o700, 0o600));
    restarted(&mut semel).await;
    semel.kill().await;
    semel.restart().await;
    semel.call("counter", "visits").await.ok();
    semel.deploy(built("counter").with("timeout = \"2s\"", "timeout = \"3s\"")).await;
    assert_eq!((compiled(&semel), warnings(&semel)), (1, 0), "{}", semel.log());
}

/// Whatever is wrong with a file, nothing of it is loaded: it is said, and the component is compiled again.
#[tokio::test]
async fn an_artifact_that_is_not_right_is_compiled_anew() {
    let mut semel = Semel::start(&["counter"]).await;
    let path = artifact(&semel);
    let whole = fs::read(&path).expect("an artifact");
    let flipped = |place: usize| {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        bytes
    };
    let wrong = [
        flipped(0),
        flipped(40),
        flipped(whole.len() / 2),
        whole[..whole.len() - 1].to_vec(),
        whole[32..].to_vec(),
        vec![],
    ];
    for (count, bytes) in wrong.into_iter().enumerate() {
        fs::write(&path, bytes).expect("a changed artifact");
        restarted(&mut semel).await;
        assert_eq!((compiled(&semel), warnings(&semel)), (count + 2, count + 1), "{}", semel.log());
        assert_eq!(fs::read(&path).expect("an artifact"), whole, "it was not made anew");
    }
    // Whole, but others may write to it.
    let before = compiled(&semel);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).expect("other permissions");
    restarted(&mut semel).await;
    assert_eq!(compiled(&semel), before + 1);
    // Whole, but of another component: its name is part of what is checked.
    fs::rename(&path, cache(&semel).join("0".repeat(64))).expect("another name");
    restarted(&mut semel).await;
    assert_eq!(compiled(&semel), before + 2);
    // Whole, but of another installation, whose secret is another.
    let mut other = Semel::start(&["counter"]).await;
    fs::copy(&path, artifact(&other)).expect("a foreign artifact");
    restarted(&mut other).await;
    assert_eq!((compiled(&other), warnings(&other)), (2, 1), "{}", other.log());
}

#[tokio::test]
async fn what_was_left_half_written_is_removed() {
    let mut semel = Semel::start(&["counter"]).await;
    fs::write(cache(&semel).join("0123456789abcdef.tmp"), "half").expect("half a file");
    restarted(&mut semel).await;
    artifact(&semel);
}

/// A folder to which others may write is no place for native code.
#[tokio::test]
async fn a_cache_that_others_may_write_to_keeps_the_host_from_starting() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().join("cache");
    let serve = ["serve", "--database", "sqlite://test.db", "--listen", "127.0.0.1:0", "--cache", "cache"];
    for (mode, clue) in [(0o770, "others may write"), (0o707, "others may write")] {
        fs::create_dir_all(&cache).expect("a folder");
        fs::set_permissions(&cache, fs::Permissions::from_mode(mode)).expect("permissions");
        let refused = run(folder.path(), &serve, &[], "").await;
        assert!(refused.code == 1 && refused.stderr.contains(clue), "{mode:o}: {refused:?}");
    }
    fs::remove_dir(&cache).expect("an empty folder");
    std::os::unix::fs::symlink(folder.path(), &cache).expect("a link");
    let refused = run(folder.path(), &serve, &[], "").await;
    assert!(refused.code == 1 && refused.stderr.contains("is no folder"), "{refused:?}");
}

/// Artifacts are native code: nobody can send one.
#[tokio::test]
async fn artifacts_are_not_accepted_from_outside() {
    let semel = Semel::start(&["counter"]).await;
    let kept = fs::read(artifact(&semel)).expect("an artifact");
    let elf = semel.try_deploy(built("counter").component(&kept[32..])).await.problem(422);
    assert!(elf.contains("ELF") && elf.contains("artifact"), "{elf}");
    let with_mac = semel.try_deploy(built("counter").component(kept)).await.problem(422);
    assert!(with_mac.contains("not WebAssembly"), "{with_mac}");
}

/// While the compiler is at its bound, others are served; then the deploy is refused, and says which bound it was.
#[tokio::test]
async fn a_component_that_compiles_for_too_long_is_refused_and_the_host_serves_meanwhile() {
    let mut semel = Semel::start(&["counter"]).await;
    configured(&mut semel, "compile_time = \"1s\"").await;
    let function = made("bomb", "name = \"bomb\"", bomb(20_000));
    let began = Instant::now();
    let mut deploy = std::pin::pin!(semel.try_deploy(function));
    let mut served = 0;
    let refused = loop {
        tokio::select! {
            refused = &mut deploy => break refused,
            answer = semel.call("counter", "visits") => {
                answer.ok();
                served += 1;
            }
        }
    };
    let reason = refused.problem(422);
    assert!(reason.contains("too long to compile") && reason.contains("1 s"), "{reason}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(served > 10, "{served} messages were served meanwhile");
    no_children(&semel).await;
}

#[tokio::test]
async fn a_component_that_takes_too_much_memory_to_compile_is_refused() {
    let mut semel = Semel::start(&["counter"]).await;
    configured(&mut semel, "compile_memory = \"256MiB\"").await;
    let reason = semel.try_deploy(made("bomb", "name = \"bomb\"", bomb(20_000))).await.problem(422);
    assert!(reason.contains("too much memory to compile") && reason.contains("256 MiB"), "{reason}");
    semel.call("counter", "visits").await.ok();
    no_children(&semel).await;
}

/// The compilers that run for a host, or have not been reaped. (A child is listed under the thread that started it.)
fn children(semel: &Semel) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{}/task", semel.process())).expect("a process");
    let listed = threads.map(|thread| {
        let path = thread.expect("a thread").path().join("children");
        fs::read_to_string(path).unwrap_or_default() // A thread that has just ended has none.
    });
    let listed: String = listed.collect();
    listed.split_whitespace().map(|id| id.parse().expect("a process")).collect()
}

async fn no_children(semel: &Semel) {
    until("the end of the compiler", async || children(semel).is_empty().then_some(())).await;
}

/// One that takes no processor time, but does not end either.
#[tokio::test]
async fn a_compiler_that_stands_still_is_ended() {
    let mut semel = Semel::start(&["counter"]).await;
    configured(&mut semel, "compile_time = \"1s\"").await;
    let deploy = semel.try_deploy(made("bomb", "name = \"bomb\"", bomb(20_000)));
    let stop = async {
        let child = until("a compiler", async || children(&semel).first().copied()).await;
        let child = Pid::from_raw(child).expect("a process");
        kill_process(child, Signal::STOP).expect("a compiler that runs");
    };
    let (refused, ()) = tokio::join!(deploy, stop);
    let reason = refused.problem(422);
    assert!(reason.contains("too long to compile"), "{reason}");
    no_children(&semel).await;
    semel.call("counter", "visits").await.ok();
}

/// What the compiler's process may do, seen from outside while it waits for its input.
#[tokio::test]
async fn the_compiler_gives_up_all_that_it_does_not_need() {
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(["compile", "--seconds", "7", "--memory", "268435456"]).kill_on_drop(true);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().expect("the compiler");
    let id = child.id().expect("a process");
    let limits = until("limits", async || {
        let limits = fs::read_to_string(format!("/proc/{id}/limits")).expect("limits");
        let row = |name: &str| limits.lines().find(|line| line.starts_with(name)).map(|line| line.replace(name, ""));
        let soft = |name| row(name)?.split_whitespace().next().map(str::to_owned);
        let names = ["Max core file size", "Max file size", "Max open files", "Max address space", "Max cpu time"];
        let found: Vec<String> = names.iter().filter_map(|name| soft(name)).collect();
        (found[4] != "unlimited").then_some(found)
    })
    .await;
    assert_eq!(limits, ["0", "0", "0", "268435456", "7"]);
    child.kill().await.expect("an end");
}
