//! This process and the machine it is on, as the system shows them in `/proc`.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::store::Fact;

/// Open files that are needed beside connections: the database, its log, what the program itself holds.
const OTHER_FILES: u64 = 256;

/// What this process takes. What cannot be read is 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    pub(crate) resident_bytes: u64,
    pub(crate) open_files: u64,
    pub(crate) most_files: u64,
}

impl Process {
    pub(crate) fn now() -> Self {
        let files = std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64);
        Self {
            resident_bytes: kibibytes("/proc/self/status", "VmRSS:").unwrap_or(0) << 10,
            open_files: files.saturating_sub(1), // One of them is the listing itself.
            most_files: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        }
    }
}

/// Takes as many open files as this user may have: the soft limit is small for the sake of programs that cannot count
/// beyond it.
pub(crate) fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// What `semel doctor` says of process and machine; `connections` is how many clients there may be.
pub(crate) fn facts(connections: usize) -> Vec<Fact> {
    vec![kernel(), open_files(connections as u64), memory(), swap(), overcommit()]
}

fn fact(name: &str, value: String, advice: Option<&str>) -> Fact {
    Fact::new("host", name, value, advice.map(str::to_owned))
}

fn kernel() -> Fact {
    let system = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    fact("kernel", format!("{} {} {}", text(system.sysname()), text(system.release()), text(system.machine())), None)
}

fn open_files(connections: u64) -> Fact {
    let Process { open_files, most_files, .. } = Process::now();
    let needed = connections + OTHER_FILES;
    let advice = (most_files < needed).then(|| {
        format!(
            "[limits] connections may need {needed}: raise the hard limit (`ulimit -Hn`, or LimitNOFILE of the unit), or \
             lower connections"
        )
    });
    let most = if most_files == u64::MAX { "no limit".to_owned() } else { most_files.to_string() };
    Fact::new("host", "open files", format!("{open_files} of {most}"), advice)
}

fn memory() -> Fact {
    let all = kibibytes("/proc/meminfo", "MemTotal:").unwrap_or(0);
    let free = kibibytes("/proc/meminfo", "MemAvailable:").unwrap_or(0);
    let low = free < all / 20;
    let value = format!("{} of {} available", size(free << 10), size(all << 10));
    fact("memory", value, low.then_some("the system may end this process: give the machine more, or run less on it"))
}

/// Resetting a guest's memory by the kernel's list of dirty pages (`PAGEMAP_SCAN`) would miss swapped ones. Semel does
/// not use it; where there is no swap, it could.
fn swap() -> Fact {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let swap = kibibytes("/proc/self/status", "VmSwap:").unwrap_or(0);
    let value = match (swaps.lines().skip(1).count(), swap) {
        (0, _) => "none".to_owned(),
        (areas, swap) => format!("{areas} area(s), {} of this process in it", size(swap << 10)),
    };
    let advice = "part of this process is swapped out, and runs wait for it: give the machine more memory, or keep the \
                  host out of swap (MemorySwapMax=0 in its unit)";
    fact("swap", value, (swap > 0).then_some(advice))
}

/// Guests' memories are reserved, not used: a system that counts reservations runs out of them early.
fn overcommit() -> Fact {
    let policy = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").unwrap_or_default();
    let policy = policy.trim();
    let advice = "guests' memories are reserved ahead: set vm.overcommit_memory to 0";
    fact("overcommit", format!("policy {policy}"), (policy == "2").then_some(advice))
}

/// A number behind a name in one of the tables of `/proc`.
fn kibibytes(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).to_string()
}
