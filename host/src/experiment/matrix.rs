//! A matrix on a page: a table whose squares hold a number each, coloured by what it means.
//!
//! A number says the same as its colour, so nobody needs to see colours, and a screen reader reads a table.

use std::fmt::Write as _;

use serde::Serialize;

use super::report::escaped;

/// Rows of squares under columns in groups.
#[derive(Debug, Serialize)]
pub struct Matrix {
    /// What the names of the rows are.
    pub corner: String,
    /// Columns, group by group.
    pub groups: Vec<Columns>,
    /// The rows.
    pub rows: Vec<Row>,
    /// What its colours mean.
    pub legend: &'static [Key],
}

/// A line of a legend: a colour, what may stand in it, and what it means.
pub type Key = (Mood, &'static str, &'static str);

/// Columns that belong together.
#[derive(Debug, Serialize)]
pub struct Columns {
    /// Their name.
    pub name: String,
    /// One name for each.
    pub columns: Vec<String>,
}

/// One row.
#[derive(Debug, Serialize)]
pub struct Row {
    /// What it is about.
    pub name: String,
    /// What is said of it in small print.
    pub note: String,
    /// As many as there are columns in all groups.
    pub squares: Vec<Square>,
}

/// One number, or a word.
#[derive(Debug, Clone, Serialize)]
pub struct Square {
    /// What stands there.
    pub text: String,
    /// What it means.
    pub mood: Mood,
}

/// What a square means: its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mood {
    /// There is nothing to say.
    None,
    /// A word.
    Text,
    /// In the transaction, which was not committed.
    Zero,
    /// In the transaction, which was committed once.
    One,
    /// Outside, and never.
    Never,
    /// Outside, and once.
    Once,
    /// Outside, and more than once.
    Again,
    /// What must not be.
    Bad,
}

/// What is counted of things that ought to happen once.
const COUNTS: [Key; 3] =
    [(Mood::Never, "0", "not at all"), (Mood::One, "1", "once"), (Mood::Again, "2", "more than once")];

impl Mood {
    fn class(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Text => "word",
            Self::Zero => "zero",
            Self::One => "one",
            Self::Never => "never",
            Self::Once => "once",
            Self::Again => "again",
            Self::Bad => "bad",
        }
    }
}

impl Matrix {
    /// How often something happened, in every way to do it and wherever it was disturbed; nothing where that cannot be.
    pub(super) fn of_counts(
        corner: &str,
        columns: Columns,
        places: Vec<String>,
        count: impl Fn(&str, usize) -> Option<u64>,
    ) -> Self {
        let square = |count: Option<u64>| {
            let mood = match count {
                None => Mood::None,
                Some(0) => Mood::Never,
                Some(1) => Mood::One,
                Some(_) => Mood::Again,
            };
            Square { text: count.map(|count| count.to_string()).unwrap_or_default(), mood }
        };
        let row = |name: String| {
            let squares = (0..columns.columns.len()).map(|column| square(count(&name, column))).collect();
            Row { name, note: String::new(), squares }
        };
        let rows = places.into_iter().map(row).collect();
        Self { corner: corner.to_owned(), groups: vec![columns], rows, legend: &COUNTS }
    }

    /// As an HTML table.
    pub(super) fn html(&self) -> String {
        let mut html = String::from(r#"<table class="matrix"><thead><tr>"#);
        let _ = write!(html, r#"<th scope="col" rowspan="2">{}</th>"#, escaped(&self.corner));
        for group in &self.groups {
            let (count, name) = (group.columns.len(), escaped(&group.name));
            let _ = write!(html, r#"<th scope="colgroup" class="first" colspan="{count}">{name}</th>"#);
        }
        html.push_str("</tr><tr>");
        for group in &self.groups {
            for (n, column) in group.columns.iter().enumerate() {
                let class = if n == 0 { r#" class="first""# } else { "" };
                let _ = write!(html, r#"<th scope="col"{class}><span>{}</span></th>"#, escaped(column));
            }
        }
        html.push_str("</tr></thead><tbody>");
        for row in &self.rows {
            let name = escaped(&row.name);
            let note = match escaped(&row.note) {
                note if note.is_empty() => note,
                note => format!(" <small>{note}</small>"),
            };
            let _ = write!(html, r#"<tr><th scope="row">{name}{note}</th>"#);
            for square in &row.squares {
                let _ = write!(html, r#"<td class="{}">{}</td>"#, square.mood.class(), escaped(&square.text));
            }
            html.push_str("</tr>");
        }
        html + "</tbody></table>"
    }

    /// What the colours mean, as an HTML list.
    pub(super) fn legend(&self) -> String {
        let entry = |(mood, sign, says): &Key| {
            format!(r#"<li><span class="sign {}" aria-hidden="true">{sign}</span>{says}</li>"#, mood.class())
        };
        let entries: String = self.legend.iter().map(entry).collect();
        format!(r#"<ul class="legend">{entries}</ul>"#)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_a_table_whose_words_are_text() {
        let square = |text: &str, mood| Square { text: text.into(), mood };
        let row = Row { name: "<b>".into(), note: "&".into(), squares: vec![square("2", Mood::Bad)] };
        let groups = vec![Columns { name: "group".into(), columns: vec!["column".into()] }];
        let html = Matrix { corner: "corner".into(), groups, rows: vec![row], legend: &COUNTS }.html();
        assert!(html.contains(r#"<td class="bad">2</td>"#) && !html.contains("<b>"), "{html}");
    }
}
