//! A report, three ways: a table on the terminal, `report.json` for programs, and `report.html` for people.
//!
//! All three are made from the same [`Report`] and leave nothing out that would change the verdict. The page is one
//! file that loads nothing: it can be mailed, archived, and opened in ten years. Every word in it is escaped.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context as _;

use super::{Environment, Figure, Quantity, Report, Table};

/// Rows of a table that is open from the start.
const READ_AT_ONCE: usize = 40;
const PAGE: &str = include_str!("report.html");

impl Report {
    /// Writes `report.json` and `report.html`.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let files = [("report.json", serde_json::to_string_pretty(self)? + "\n"), ("report.html", self.html())];
        for (name, content) in files {
            let path = folder.join(name);
            std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Prints the figures and the checks, and the verdict as the last line.
    ///
    /// # Errors
    /// If `out` does not take it.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}\n", self.title)?;
        let figures = self.figures.iter().map(|figure| [figure.name.to_owned(), shown(figure), figure.unit.to_owned()]);
        let figures: Vec<_> = figures.collect();
        let named = columns(&figures, |figure| &figure[0]);
        let valued = columns(&figures, |figure| &figure[1]);
        for [name, value, unit] in &figures {
            writeln!(out, "  {}", format!("{name:<named$}  {value:>valued$} {unit}").trim_end())?;
        }
        writeln!(out)?;
        for check in &self.verdict.checks {
            let mark = if check.passed { "ok  " } else { "MISS" };
            write!(out, "  {mark} {}", check.claim)?;
            if check.passed {
                writeln!(out, ": {}", check.found)?;
            } else {
                writeln!(out, ": expected {}, found {}", check.expected, check.found)?;
            }
        }
        let Environment { seed, version, build, system, processors, database, seconds, .. } = &self.environment;
        writeln!(out, "\n  semel {version} ({build}), {database}, {system}, {processors} processors")?;
        writeln!(out, "  seed {seed}, {seconds:.1} s\n")?;
        writeln!(out, "{}: {}", self.word(), self.verdict.summary)
    }

    fn word(&self) -> &'static str {
        if self.verdict.passed { "PASS" } else { "FAIL" }
    }

    /// The page.
    pub(crate) fn html(&self) -> String {
        filled(PAGE, |name| match name {
            "title" => escaped(&self.title),
            "experiment" => escaped(self.experiment),
            "word" => self.word().to_owned(),
            "class" => self.word().to_lowercase(),
            "summary" => escaped(&self.verdict.summary),
            "method" => escaped(&self.method),
            "figures" => self.figures.iter().map(tile).collect(),
            "plots" => self.plots(),
            "checks" => self.checks(),
            "tables" => self.tables.iter().map(folded).collect(),
            "environment" => environment(&self.environment),
            _ => String::new(),
        })
    }

    fn plots(&self) -> String {
        let mut html = String::new();
        for (n, plot) in self.plots.iter().enumerate() {
            let (title, caption) = (escaped(&plot.title), escaped(&plot.caption));
            let (legend, drawing) = (plot.legend(), plot.drawing(&format!("plot{n}")));
            let _ = write!(
                html,
                "<figure><h2>{title}</h2>{legend}<div class=\"wide\">{drawing}</div><figcaption>{caption}</figcaption></figure>"
            );
        }
        html
    }

    fn checks(&self) -> String {
        let mut html = String::new();
        for check in &self.verdict.checks {
            let (class, word) = if check.passed { ("pass", "held") } else { ("fail", "missed") };
            let _ = write!(
                html,
                r#"<tr><td><span class="badge {class}">{word}</span></td><th scope="row">{}</th><td>{}</td><td>{}</td></tr>"#,
                escaped(&check.claim),
                escaped(&check.expected),
                escaped(&check.found),
            );
        }
        html
    }
}

fn columns<T>(rows: &[T], cell: impl Fn(&T) -> &String) -> usize {
    rows.iter().map(|row| cell(row).chars().count()).max().unwrap_or(0)
}

fn shown(figure: &Figure) -> String {
    match figure.value {
        Quantity::Count(value) => grouped(value),
        Quantity::Measure(value) => {
            let tenths = (value * 10.0).round() as u64;
            format!("{}.{}", grouped(tenths / 10), tenths % 10)
        }
    }
}

fn tile(figure: &Figure) -> String {
    let (name, value, unit) = (escaped(figure.name), escaped(&shown(figure)), escaped(figure.unit));
    format!("<div><dt>{name}</dt><dd>{value} <small>{unit}</small></dd></div>")
}

fn folded(table: &Table) -> String {
    let of_numbers = |column: usize| table.rows.iter().filter_map(|row| row.get(column)).all(|cell| is_number(cell));
    let sides: Vec<&str> =
        (0..table.columns.len()).map(|n| if of_numbers(n) { "" } else { " class=\"text\"" }).collect();
    let head = |(name, side): (&&str, &&str)| format!(r#"<th scope="col"{side}>{}</th>"#, escaped(name));
    let heads: String = table.columns.iter().zip(&sides).map(head).collect();
    let mut rows = String::new();
    for row in &table.rows {
        let cells: String =
            row.iter().zip(&sides).map(|(cell, side)| format!("<td{side}>{}</td>", escaped(cell))).collect();
        let _ = write!(rows, "<tr>{cells}</tr>");
    }
    let title = escaped(&table.title);
    // What fits on a screen or two is there to be read at once.
    let open = if table.rows.len() <= READ_AT_ONCE { " open" } else { "" };
    format!(
        r#"<details{open}><summary>{title}</summary><div class="wide"><table class="plain"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>"#
    )
}

/// With a unit or without, or nothing at all.
fn is_number(cell: &str) -> bool {
    cell.split(' ').next().is_none_or(|first| first.chars().all(|c| c.is_ascii_digit() || ",.+-".contains(c)))
}

fn environment(environment: &Environment) -> String {
    let entries = [
        ("seed", environment.seed.to_string()),
        ("semel", format!("{} ({} build)", environment.version, environment.build)),
        ("commit", environment.commit.unwrap_or("not known").to_owned()),
        ("system", environment.system.clone()),
        ("processors", environment.processors.to_string()),
        ("database", environment.database.clone()),
        ("started", environment.started_at.clone()),
        ("took", format!("{:.1} s", environment.seconds)),
    ];
    entries.iter().map(|(name, value)| format!("<div><dt>{name}</dt><dd>{}</dd></div>", escaped(value))).collect()
}

/// The template with each `{{name}}` replaced, in one pass: what is put in is not looked at again.
fn filled(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut parts = template.split("{{");
    let mut page = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once("}}") {
            Some((name, rest)) => page.extend([value(name.trim()).as_str(), rest]),
            None => page.extend(["{{", part]),
        }
    }
    page
}

/// As text in HTML or SVG, between tags or in an attribute.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// With a comma at every third digit.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_from_the_right() {
        assert_eq!(
            ["0", "999", "1,000", "10,000,000"],
            [0, 999, 1000, 10_000_000].map(grouped).each_ref().map(|s| &**s)
        );
    }

    #[test]
    fn what_fills_a_template_is_not_filled_again() {
        assert_eq!(filled("<{{ a }}{{b}}>{{", |name| format!("{{{{{name}}}}}")), "<{{a}}{{b}}>{{");
    }

    #[test]
    fn every_name_in_the_page_is_known() {
        let names: Vec<&str> = PAGE.split("{{").skip(1).filter_map(|part| part.split("}}").next()).collect();
        let known = "title experiment word class summary method figures plots checks tables environment";
        assert!(names.iter().all(|name| known.split(' ').any(|known| known == *name)), "{names:?}");
    }

    #[test]
    fn markup_is_text() {
        assert_eq!(escaped(r#"<a href="x">&'"#), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;");
    }
}
