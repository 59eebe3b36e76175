//! The findings on a terminal: rates and times with their spread, then the targets.

use std::io::{self, Write};

use super::findings::{FIGURES, Findings, Spread};
use crate::experiment::report::grouped;

impl Findings {
    /// Prints everything that was measured, and what was reached.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let version = self.database["version"].as_str().unwrap_or_default();
        writeln!(
            out,
            "{} messages, medians of {} rounds (least to most)\n",
            grouped(self.messages.into()),
            self.rounds
        )?;
        for (name, what, unit) in FIGURES {
            if let Some(spread) = self.figure(name) {
                writeln!(out, "  {:>11} {unit:<3} {:<19} {what}", number(spread.median), range(&spread))?;
            }
        }
        if let Some(semel) = self.figure("drain_batched") {
            let others = self.others.iter().map(|(name, rate)| {
                format!("{name} {} (Semel: {} times as many)", grouped(*rate), number(semel.median / *rate as f64))
            });
            let others: Vec<_> = others.collect();
            writeln!(out, "\n  measured apart, on another run, messages per second: {}", others.join(", "))?;
        }
        writeln!(out)?;
        let targets = self.targets();
        for target in &targets {
            let mark = if target.reached { "ok  " } else { "MISS" };
            let moonshot = target.moonshot.as_ref().map(|moonshot| format!(" ({moonshot})")).unwrap_or_default();
            writeln!(
                out,
                "  {mark} {:>9}   {:<16} {:<40} {}",
                number(target.found),
                format!("{}{moonshot}", target.target),
                target.what,
                target.name
            )?;
        }
        let reached = targets.iter().filter(|target| target.reached).count();
        let environment = &self.environment;
        writeln!(
            out,
            "\n  semel {} ({}), {} {version}, {}, {} processors, seed {}, {:.0} s",
            environment.version,
            environment.build,
            environment.database,
            environment.system,
            environment.processors,
            environment.seed,
            environment.seconds
        )?;
        for warning in self.warnings() {
            writeln!(out, "  {warning}")?;
        }
        writeln!(out, "\nevery count was right; {reached} of {} targets reached", targets.len())
    }

    /// Why the figures may say nothing about production.
    pub(super) fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        if self.environment.build == "debug" {
            warnings.push("a debug build: Semel is much slower than it is, and the floors are not");
        }
        if self.database["waits_for_the_disk"] != true {
            warnings.push("no commit waits for a disk here: commits cost nothing, and sharing them is worth nothing");
        }
        warnings
    }
}

fn range(spread: &Spread) -> String {
    if spread.runs < 2 { String::new() } else { format!("({} to {})", number(spread.min), number(spread.max)) }
}

/// With as many digits as say something.
pub(super) fn number(value: f64) -> String {
    let sign = if value < 0.0 { "-" } else { "" };
    let value = value.abs();
    if value >= 100.0 || value.fract() == 0.0 {
        return format!("{sign}{}", grouped(value.round() as u64));
    }
    let digits = if value >= 10.0 { 1 } else { 2 };
    format!("{sign}{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_many_digits_as_say_something() {
        assert_eq!([12_345.6, 12.34, 1.234, 0.0, -3.21].map(number), ["12,346", "12.3", "1.23", "0", "-3.21"]);
    }
}
