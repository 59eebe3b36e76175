//! The house rules that can be read off the text: who may use whom, how long things are, and
//! which files come in pairs. A rule that is broken names the file and the line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use semel::crash::Point;

use crate::harness::root;

const LONGEST_FUNCTION: usize = 70;
const LONGEST_FILE: usize = 400;
/// Files that may be longer, and why.
const LONG_FILES: [(&str, &str); 0] = [];
/// Functions that may be longer, and why.
const LONG_FUNCTIONS: [(&str, &str); 1] = [("is_computing", "a list, with one function of the database on each line")];

/// What each module may use of the others, from the bottom to the top. Nobody is in nobody's list: `cli`.
const LAYERS: [(&str, &[&str]); 39] = [
    ("crash", &[]),
    ("clock", &[]),
    ("message", &["clock"]),
    ("flow", &["clock"]),
    ("outside", &["crash"]),
    ("deferred", &["message"]),
    ("manifest", &["clock", "deferred", "flow", "message", "outside"]),
    ("settle", &["message", "manifest"]),
    ("running", &["clock", "message"]),
    ("settled", &["message"]),
    ("store", &["clock", "crash", "flow", "message"]),
    ("pace", &[]),
    ("calls", &["crash", "outside", "store"]),
    ("guest", &["calls", "clock", "crash", "deferred", "message", "manifest", "outside", "running", "store", "engine"]),
    ("engine", &["calls", "clock", "crash", "pace", "message", "manifest", "outside", "running", "store", "guest"]),
    ("check", &["clock", "message", "running", "store", "engine", "guest"]),
    ("watch", &["message", "store"]),
    ("ingest", &["store", "watch"]),
    ("bell", &[]),
    ("inbox", &["bell", "message", "source", "store", "watch"]),
    ("cron", &["clock", "engine", "manifest", "message", "store"]),
    ("broker", &[]),
    ("sink", &["broker", "clock", "manifest", "message", "outside"]),
    ("source", &["broker", "clock", "manifest", "message"]),
    ("settlement", &["crash", "message", "settle", "store", "watch"]),
    (
        "worker",
        &[
            "bell",
            "calls",
            "clock",
            "crash",
            "message",
            "manifest",
            "pace",
            "running",
            "store",
            "engine",
            "settle",
            "settled",
            "settlement",
            "watch",
        ],
    ),
    (
        "relay",
        &[
            "bell",
            "calls",
            "crash",
            "deferred",
            "inbox",
            "manifest",
            "message",
            "outside",
            "running",
            "settle",
            "settled",
            "settlement",
            "sink",
            "store",
            "watch",
        ],
    ),
    (
        "api",
        &[
            "clock", "crash", "cron", "deferred", "ingest", "message", "manifest", "relay", "running", "store",
            "engine", "check", "settled", "watch",
        ],
    ),
    ("doors", &[]),
    ("keeper", &["store"]),
    ("config", &["deferred", "engine", "manifest", "sink", "source", "store"]),
    ("folder", &["engine", "manifest"]),
    (
        "host",
        &[
            "bell",
            "calls",
            "api",
            "config",
            "cron",
            "doors",
            "engine",
            "folder",
            "inbox",
            "ingest",
            "keeper",
            "outside",
            "relay",
            "running",
            "settled",
            "settlement",
            "source",
            "store",
            "watch",
            "worker",
        ],
    ),
    ("experiment", &["clock", "crash", "deferred", "folder", "message", "relay", "store"]),
    ("bench", &["clock", "engine", "experiment", "folder", "message", "store"]),
    ("logging", &[]),
    (
        "cli",
        &[
            "api",
            "bench",
            "config",
            "crash",
            "engine",
            "experiment",
            "folder",
            "host",
            "logging",
            "manifest",
            "message",
            "store",
        ],
    ),
    ("main", &["cli", "logging"]),
    ("lib", &[]),
];

/// A source file of the host.
struct Source {
    /// From `host/src`, with `/`.
    name: String,
    /// Without the unit tests at its end.
    code: String,
}

impl Source {
    fn all() -> Vec<Self> {
        let src = root().join("host/src");
        let files = files(&src, "rs").into_iter().map(|path| {
            let name = path.strip_prefix(&src).expect("a path in it").to_string_lossy().into_owned();
            let code = read(&path).split("\n#[cfg(test)]\n").next().unwrap_or_default().to_owned();
            Self { name, code }
        });
        files.collect()
    }

    /// The module of the crate to which it belongs.
    fn module(&self) -> &str {
        let top = self.name.split('/').next().unwrap_or_default();
        top.trim_end_matches(".rs")
    }

    /// Number and text of each line that is no comment.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.lines().enumerate().map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The modules of the crate that a line names: `crate::a::b`, `crate::{a, b::c}`.
    fn uses(line: &str) -> Vec<&str> {
        let mut found = Vec::new();
        for (_, rest) in line.match_indices("crate::").map(|(at, word)| line.split_at(at + word.len())) {
            let listed = rest.strip_prefix('{').unwrap_or(rest);
            let end = if listed == rest { listed.find([':', ';', ',', ')', '>']) } else { listed.find('}') };
            let names = listed[..end.unwrap_or(listed.len())].split(',');
            found.extend(names.map(|name| name.trim().split("::").next().unwrap_or_default()));
        }
        found
    }

    /// Line, name and length of each function, by the indentation that rustfmt gives its last brace.
    fn functions(&self) -> Vec<(usize, &str, usize)> {
        let lines: Vec<&str> = self.code.lines().collect();
        let mut found = Vec::new();
        for (start, line) in lines.iter().enumerate() {
            let text = line.trim_start();
            let before = text.split("fn ").next().unwrap_or_default();
            let words = ["pub", "async", "const", "unsafe", "extern", "\"C\"", "pub(crate)", "pub(super)"];
            if !text.contains("fn ") || !before.split_whitespace().all(|word| words.contains(&word)) {
                continue;
            }
            let name = text[before.len() + 3..].split(['(', '<']).next().unwrap_or_default();
            let last = format!("{}}}", &line[..line.len() - text.len()]);
            let length = lines[start..].iter().position(|line| *line == last).unwrap_or(0) + 1;
            let one_line = line.ends_with(['}', ';']);
            found.push((start + 1, name, if one_line { 1 } else { length }));
        }
        found
    }
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn stem(path: &Path) -> String {
    path.file_stem().expect("a name").to_string_lossy().into_owned()
}

/// All violations at once: who mends one wants to see the others.
#[track_caller]
fn none(broken: Vec<String>) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn modules_use_only_what_is_below_them() {
    let layers = BTreeMap::from(LAYERS);
    let mut broken = Vec::new();
    for source in Source::all() {
        let module = source.module();
        let Some(below) = layers.get(module) else {
            broken.push(format!("{}: the module `{module}` has no place in LAYERS", source.name));
            continue;
        };
        for (number, line) in source.lines() {
            for used in Source::uses(line).into_iter().filter(|used| *used != module && !below.contains(used)) {
                broken.push(format!("host/src/{}:{number}: `{module}` may not use `{used}`", source.name));
            }
        }
    }
    none(broken);
}

/// One moment, one place; where databases differ, one in each.
#[test]
fn every_crash_point_is_in_the_code_once() {
    let mut broken = Vec::new();
    for point in Point::ALL {
        let (inner, last) = (format!("Point::{point:?})"), format!("Point::{point:?},"));
        let uses = |line: &str| line.contains("crash::") && (line.contains(&inner) || line.contains(&last));
        let places: Vec<String> = Source::all()
            .into_iter()
            .filter(|source| source.module() != "experiment")
            .flat_map(|source| vec![source.name.clone(); source.lines().filter(|(_, line)| uses(line)).count()])
            .collect();
        let in_stores = ["store/sqlite/", "store/postgres/", "store/mysql/"]
            .map(|store| places.iter().filter(|place| place.starts_with(store)).count());
        if places.len() != 1 && (places.len() != 3 || in_stores != [1, 1, 1]) {
            broken.push(format!("{point:?} is passed at {places:?}"));
        }
    }
    none(broken);
}

#[test]
fn files_and_functions_are_the_size_of_a_thought() {
    let allowed = |list: &[(&str, &str)], name: &str| list.iter().any(|(long, _)| *long == name);
    let mut broken = Vec::new();
    for source in Source::all() {
        let length = source.code.lines().count();
        if length > LONGEST_FILE && !allowed(&LONG_FILES, &source.name) {
            broken.push(format!("host/src/{}: {length} lines", source.name));
        }
        for (number, name, length) in source.functions() {
            if length > LONGEST_FUNCTION && !allowed(&LONG_FUNCTIONS, name) {
                broken.push(format!("host/src/{}:{number}: fn {name} has {length} lines", source.name));
            }
        }
    }
    none(broken);
}

/// Above the store nobody knows which database there is.
#[test]
fn databases_are_named_in_the_store_alone() {
    let default_url = ["config.rs", "experiment/place.rs"];
    let speaks_its_protocol = ["experiment/proxy.rs", "experiment/proxy/", "experiment/server.rs"];
    // What a database does without Semel can only be said in its own words.
    let is_measured = ["bench/file.rs", "bench/server.rs", "bench/server/"];
    let may_name = [&default_url[..], &speaks_its_protocol, &is_measured].concat();
    let mut broken = Vec::new();
    for source in Source::all().into_iter().filter(|source| source.module() != "store") {
        for (number, line) in source.code.lines().enumerate() {
            let named =
                ["sqlite", "postgres", "mysql", "mariadb"].iter().any(|word| line.to_lowercase().contains(word));
            if named && !may_name.iter().any(|place| source.name.starts_with(place)) {
                broken.push(format!("host/src/{}:{}: {}", source.name, number + 1, line.trim()));
            }
        }
    }
    none(broken);
}

#[test]
fn no_leftovers() {
    let mut broken = Vec::new();
    for source in Source::all() {
        let mut words = vec!["todo!", "unimplemented!", "dbg!", "#[allow(", "#![allow("];
        if source.module() != "cli" {
            words.extend(["println!", "print!"]); // Standard output and standard error both.
        }
        if !source.code.starts_with("//!") {
            broken.push(format!("host/src/{}: it does not begin with what it is (//!)", source.name));
        }
        for (number, line) in source.lines() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                broken.push(format!("host/src/{}:{number}: {word}", source.name));
            }
        }
    }
    none(broken);
}

#[test]
fn every_interface_has_its_file() {
    let interfaces: BTreeSet<String> = files(&root().join("wit"), "wit").iter().map(|path| stem(path)).collect();
    let implemented: BTreeSet<String> =
        files(&root().join("host/src/guest"), "rs").iter().map(|path| stem(path).replace('_', "-")).collect();
    let without = ["types", "handler", "worlds"].map(str::to_owned).into();
    let helpers =
        ["bindings", "calls", "value", "wasi", "http", "output", "io", "refused", "time"].map(str::to_owned).into();
    let expected: BTreeSet<String> = &interfaces - &without;
    assert_eq!(expected, &implemented - &helpers, "wit/*.wit and host/src/guest/*.rs");
}

#[test]
fn every_sql_file_is_used_once_and_says_what_it_does() {
    let store = root().join("host/src/store");
    let code: String = files(&store, "rs").iter().map(|path| read(path)).collect();
    // A database's files are used by its own code.
    let of_database = |path: &Path| {
        let folder = path.parent().expect("a folder");
        let sources = files(folder, "rs").into_iter().chain([folder.with_extension("rs")]);
        sources.map(|path| read(&path)).collect::<String>()
    };
    let mut broken = Vec::new();
    for path in files(&store, "sql") {
        let name = path.file_name().expect("a name").to_string_lossy();
        let code = of_database(&path);
        let folder = path.parent().map(stem).unwrap_or_default();
        let used = code.matches(&format!("include_str!(\"{name}\")")).count()
            + code.matches(&format!("include_str!(\"{folder}/{name}\")")).count();
        if used != 1 {
            broken.push(format!("{name} is included {used} times"));
        }
        let text = read(&path);
        if !text.starts_with("-- ") && text.lines().count() > 3 {
            broken.push(format!("{name} is long and does not begin with a comment"));
        }
        // `$1` is a name to SQLite: it would be the number of the place where it stands first.
        if folder == "sqlite" && text.contains('$') {
            broken.push(format!("{name}: the first parameter is written ?1"));
        }
    }
    for migration in files(&root().join("migrations"), "sql") {
        let name = migration.strip_prefix(root()).expect("a path in it").to_string_lossy().into_owned();
        if code.matches(&format!("{name}\")")).count() != 1 {
            broken.push(format!("{name} is not included once"));
        }
    }
    none(broken);
}

#[test]
fn every_guest_is_in_a_test_and_in_the_readme() {
    // Experiments are run by tests.
    let tests = ["host/tests/it", "host/src/experiment"].map(|place| files(&root().join(place), "rs")).concat();
    let tests: String = tests.iter().filter(|path| !path.ends_with("tidy.rs")).map(|path| read(path)).collect();
    let readme = read(&root().join("guests/README.md"));
    let mut broken = Vec::new();
    for entry in fs::read_dir(root().join("guests")).expect("the guests") {
        let path = entry.expect("an entry").path();
        let name = stem(&path);
        if path.is_dir() && !tests.contains(&format!("\"{name}\"")) {
            broken.push(format!("guests/{name} is in no test"));
        }
        if path.is_dir() && !readme.contains(&format!("[{name}]({name}/")) {
            broken.push(format!("guests/{name} is not in guests/README.md"));
        }
    }
    none(broken);
}

/// Every test file of this binary is one that `main.rs` knows.
#[test]
fn every_test_file_is_run() {
    let main = read(&root().join("host/tests/it/main.rs"));
    let files = files(&root().join("host/tests/it"), "rs");
    let forgotten =
        files.iter().map(|path| stem(path)).filter(|name| name != "main" && !main.contains(&format!("mod {name};")));
    none(forgotten.map(|name| format!("host/tests/it/{name}.rs")).collect());
}
