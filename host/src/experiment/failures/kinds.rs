//! The kinds of misbehaviour, and the ends that each may come to: the one table of them.
//!
//! `guests/misbehave` does what the name says. All are the failures of the seed (an exception, an endless loop, an end
//! that comes too late, a resource that is missing, a panic, no memory left) and what a hostile author would add.

/// One kind of misbehaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its name in `{"do": NAME}`.
    pub name: &'static str,
    /// How it ends when it has the time for it, the usual end first.
    pub outcomes: &'static [&'static str],
    /// Its messages are sent to a function with a limit on fuel.
    pub thirsty: bool,
}

impl Kind {
    /// The body of a message.
    #[must_use]
    pub fn body(&self) -> String {
        let order = if self.thirsty { "loop" } else { self.name };
        // Only `sleep-loop` looks at it: longer than the timeout of the experiment, and than that of the manifest.
        serde_json::json!({ "do": order, "millis": 5000 }).to_string()
    }
}

const fn kind(name: &'static str, outcomes: &'static [&'static str]) -> Kind {
    Kind { name, outcomes, thirsty: false }
}

/// All of them: twenty, so that ten thousand messages are five hundred of each.
pub const ALL: [Kind; 20] = [
    kind("error", &["failed"]),
    kind("panic", &["trapped"]),
    kind("loop", &["timed-out"]),
    kind("sleep-loop", &["timed-out"]),
    kind("missing", &["failed"]),
    kind("allocate", &["out-of-memory"]),
    kind("recursion", &["trapped"]),
    kind("swallow", &["failed"]),
    kind("write-then-trap", &["trapped"]),
    kind("commit", &["sql-forbidden"]),
    kind("endless-sql", &["timed-out"]),
    kind("slow-sql", &["timed-out"]),
    kind("big-value", &["failed"]),
    // Refused early, and asked for again a million times.
    kind("handles", &["failed", "timed-out", "trapped"]),
    kind("many-statements", &["failed", "timed-out", "trapped"]),
    kind("many-publishes", &["failed", "timed-out", "trapped"]),
    // What is too much is dropped, and the run is none the worse for it.
    kind("log-flood", &["completed", "timed-out"]),
    kind("huge-string", &["trapped"]),
    kind("huge-answer", &["out-of-memory"]),
    Kind { name: "fuel", outcomes: &["out-of-fuel"], thirsty: true },
];
