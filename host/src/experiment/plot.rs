//! Plots as inline SVG: lines over time with marks, and bars by number.
//!
//! Colours come from the page's style sheet, so that they follow light and dark; series differ in dash as well as in
//! colour. Whatever is in a plot is also in the figures or the tables beside it: nobody needs to see it to know it.

use std::fmt::Write as _;

use serde::Serialize;

use super::matrix::Matrix;
use super::report::{escaped, grouped};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 68.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 50.0;

/// A drawing with the words around it.
#[derive(Debug, Serialize)]
pub struct Plot {
    /// What is drawn.
    pub title: String,
    /// How to read it, in one or two sentences: it also stands in for the drawing where nobody can see it.
    pub caption: String,
    /// What goes to the right, with its unit.
    pub x_label: String,
    /// What goes up, with its unit.
    pub y_label: String,
    /// The drawing.
    #[serde(flatten)]
    pub shape: Shape,
}

/// What is drawn.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Values over time.
    Lines {
        /// The lines.
        series: Vec<Series>,
        /// Instants, drawn as vertical lines.
        marks: Vec<Marks>,
    },
    /// Numbers side by side, on a logarithmic scale: rare things must not vanish beside frequent ones.
    Bars {
        /// What the groups of bars stand for.
        groups: Vec<String>,
        /// One bar per group in each.
        series: Vec<Bars>,
    },
    /// Numbers in rows and columns. Not drawn, but a table.
    Matrix(Matrix),
}

/// One line.
#[derive(Debug, Serialize)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Where it goes; without a value the line is interrupted.
    pub points: Vec<(f64, Option<f64>)>,
}

/// Instants of one kind.
#[derive(Debug, Serialize)]
pub struct Marks {
    /// Their name in the legend.
    pub name: String,
    /// When.
    pub at: Vec<f64>,
}

/// Bars of one kind.
#[derive(Debug, Serialize)]
pub struct Bars {
    /// Their name in the legend.
    pub name: String,
    /// One number per group.
    pub values: Vec<u64>,
}

impl Plot {
    /// The drawing as an element of a page. `id` makes its parts' ids unique there.
    #[must_use]
    pub fn drawing(&self, id: &str) -> String {
        match &self.shape {
            Shape::Matrix(matrix) => matrix.html(),
            Shape::Lines { .. } | Shape::Bars { .. } => self.svg(id),
        }
    }

    /// The drawing as an `<svg>` element. `id` makes its parts' ids unique on the page.
    #[must_use]
    pub fn svg(&self, id: &str) -> String {
        let mut svg = format!(
            r#"<svg role="img" viewBox="0 0 {WIDTH} {HEIGHT}" aria-labelledby="{id}-title {id}-caption">"#,
            id = escaped(id),
        );
        let _ = write!(svg, r#"<title id="{}-title">{}</title>"#, escaped(id), escaped(&self.title));
        let _ = write!(svg, r#"<desc id="{}-caption">{}</desc>"#, escaped(id), escaped(&self.caption));
        match &self.shape {
            Shape::Lines { series, marks } => lines(&mut svg, series, marks),
            Shape::Bars { groups, series } => bars(&mut svg, groups, series),
            Shape::Matrix(_) => {}
        }
        let (middle, bottom) = (f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - 8.0);
        text(&mut svg, (middle, bottom), "middle", "label", &self.x_label);
        let up = f64::midpoint(TOP, HEIGHT - BOTTOM);
        let _ = write!(
            svg,
            r#"<text class="label" text-anchor="middle" transform="translate(14 {up:.1}) rotate(-90)">{}</text></svg>"#,
            escaped(&self.y_label),
        );
        svg
    }

    /// The legend as an HTML list: each entry has the class that its line, mark or bar has.
    #[must_use]
    pub fn legend(&self) -> String {
        let mut entries: Vec<(String, &str)> = Vec::new();
        match &self.shape {
            Shape::Lines { series, marks } => {
                entries.extend(series.iter().enumerate().map(|(n, line)| (format!("line s{n}"), line.name.as_str())));
                entries.extend(marks.iter().enumerate().map(|(n, mark)| (format!("mark m{n}"), mark.name.as_str())));
            }
            Shape::Bars { series, .. } => {
                entries.extend(series.iter().enumerate().map(|(n, bar)| (format!("bar s{n}"), bar.name.as_str())));
            }
            Shape::Matrix(matrix) => return matrix.legend(),
        }
        let mut list = String::from(r#"<ul class="legend">"#);
        for (class, name) in entries {
            let _ = write!(
                list,
                r#"<li><svg class="swatch" viewBox="0 0 28 12" aria-hidden="true">{}</svg>{}</li>"#,
                swatch(&class),
                escaped(name),
            );
        }
        list + "</ul>"
    }
}

fn swatch(class: &str) -> String {
    if class.starts_with("bar") {
        format!(r#"<rect class="{class}" x="8" width="12" height="12"/>"#)
    } else if class.starts_with("mark") {
        format!(r#"<path class="{class}" d="M14 0V12"/>"#)
    } else {
        format!(r#"<path class="{class}" d="M0 6H28"/>"#)
    }
}

/// A linear way from values to places on the drawing.
#[derive(Debug, Clone, Copy)]
struct Scale {
    from: (f64, f64),
    to: (f64, f64),
}

impl Scale {
    fn x(end: f64) -> Self {
        Self { from: (0.0, end), to: (LEFT, WIDTH - RIGHT) }
    }

    fn y(end: f64) -> Self {
        Self { from: (0.0, end), to: (HEIGHT - BOTTOM, TOP) }
    }

    fn at(self, value: f64) -> f64 {
        let share = (value - self.from.0) / (self.from.1 - self.from.0);
        self.to.0 + share * (self.to.1 - self.to.0)
    }
}

/// Round numbers from 0 to the first one that is not below `highest`, about `count` of them.
fn ticks(highest: f64, count: f64) -> Vec<f64> {
    let rough = (highest / count).max(f64::MIN_POSITIVE);
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().map(|digit| digit * power).find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * power);
    let steps = (highest / step).ceil().max(1.0);
    let mut ticks = vec![0.0];
    while (ticks.len() as f64) <= steps {
        ticks.push(ticks.len() as f64 * step);
    }
    ticks
}

fn lines(svg: &mut String, series: &[Series], marks: &[Marks]) {
    let points = || series.iter().flat_map(|line| &line.points);
    let latest = points().map(|point| point.0).chain(marks.iter().flat_map(|mark| mark.at.iter().copied()));
    let latest = latest.fold(0.0, f64::max).max(0.1);
    let highest = points().filter_map(|point| point.1).fold(1.0, f64::max);
    let (x, up) = (Scale::x(latest), ticks(highest, 5.0));
    let y = Scale::y(up.last().copied().unwrap_or(highest));
    for tick in up {
        rule(svg, y.at(tick), &number(tick));
    }
    for tick in ticks(latest, 8.0).into_iter().filter(|tick| *tick <= latest) {
        text(svg, (x.at(tick), HEIGHT - BOTTOM + 18.0), "middle", "tick", &number(tick));
    }
    for (n, mark) in marks.iter().enumerate() {
        for at in &mark.at {
            let _ = write!(svg, r#"<path class="mark m{n}" d="M{:.1} {TOP}V{}"/>"#, x.at(*at), HEIGHT - BOTTOM);
        }
    }
    for (n, line) in series.iter().enumerate() {
        let _ = write!(svg, r#"<path class="line s{n}" d="{}"/>"#, trail(&line.points, x, y));
    }
}

fn trail(points: &[(f64, Option<f64>)], x: Scale, y: Scale) -> String {
    let mut trail = String::new();
    let mut pen = 'M';
    for (at, value) in points {
        match value {
            Some(value) => {
                let _ = write!(trail, "{pen}{:.1} {:.1}", x.at(*at), y.at(*value));
                if pen == 'M' {
                    // A value between two gaps would otherwise not be seen at all.
                    trail.push_str("h0");
                }
                pen = 'L';
            }
            None => pen = 'M',
        }
    }
    trail
}

fn bars(svg: &mut String, groups: &[String], series: &[Bars]) {
    let highest = series.iter().flat_map(|bars| &bars.values).copied().max().unwrap_or(1).max(10);
    let powers = (highest as f64).log10().ceil();
    // A lone 1 is half a power high: it must not look like nothing.
    let y = Scale { from: (-0.5, powers), to: (HEIGHT - BOTTOM, TOP) };
    for power in (0..=9).filter(|power| f64::from(*power) <= powers) {
        rule(svg, y.at(f64::from(power)), &number(10_f64.powi(power)));
    }
    let room = (WIDTH - LEFT - RIGHT) / groups.len().max(1) as f64;
    let width = (room * 0.8 / series.len().max(1) as f64).min(64.0);
    for (place, group) in groups.iter().enumerate() {
        let middle = LEFT + room * (place as f64 + 0.5);
        text(svg, (middle, HEIGHT - BOTTOM + 18.0), "middle", "tick", group);
        let first = middle - width * series.len() as f64 / 2.0;
        for (n, bars) in series.iter().enumerate() {
            let Some(value @ 1..) = bars.values.get(place).copied() else { continue };
            let (x, top) = (first + width * n as f64, y.at((value as f64).log10()));
            let (thick, high) = (width - 2.0, HEIGHT - BOTTOM - top);
            let _ = write!(
                svg,
                r#"<rect class="bar s{n}" x="{x:.1}" y="{top:.1}" width="{thick:.1}" height="{high:.1}"/>"#
            );
            text(svg, (x + thick / 2.0, (top - 4.0).max(11.0)), "middle", "value", &grouped(value));
        }
    }
}

/// A line across, with its value on the left.
fn rule(svg: &mut String, y: f64, value: &str) {
    let _ = write!(svg, r#"<path class="rule" d="M{LEFT} {y:.1}H{}"/>"#, WIDTH - RIGHT);
    text(svg, (LEFT - 8.0, y + 4.0), "end", "tick", value);
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, class: &str, words: &str) {
    let words = escaped(words);
    let _ = write!(svg, r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{words}</text>"#);
}

/// A tick's number. Ticks are round: what is left of a fraction after two digits is an error of addition.
fn number(value: f64) -> String {
    if value.fract().abs() < 0.005 {
        grouped(value as u64)
    } else {
        format!("{value:.2}").trim_end_matches('0').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_maps_ends_to_ends() {
        let y = Scale::y(200.0);
        assert_eq!(y.at(0.0), HEIGHT - BOTTOM);
        assert_eq!(y.at(200.0), TOP);
        assert_eq!(y.at(100.0), f64::midpoint(TOP, HEIGHT - BOTTOM));
    }

    #[test]
    fn ticks_are_round_and_cover_the_highest_value() {
        assert_eq!(ticks(10_000.0, 5.0), [0.0, 2000.0, 4000.0, 6000.0, 8000.0, 10_000.0]);
        assert_eq!(ticks(7.3, 5.0), [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(ticks(0.0, 5.0).len(), 2);
    }

    #[test]
    fn a_line_is_interrupted_where_nothing_is_known() {
        let points = [(0.0, Some(0.0)), (1.0, None), (2.0, Some(2.0)), (3.0, Some(2.0))];
        assert_eq!(trail(&points, Scale::x(4.0), Scale::y(2.0)).matches('M').count(), 2);
    }

    #[test]
    fn names_cannot_leave_the_drawing() {
        let shape = Shape::Bars { groups: vec!["</svg><script>".into()], series: Vec::new() };
        let plot =
            Plot { title: "<b>".into(), caption: String::new(), x_label: "\"".into(), y_label: "&".into(), shape };
        let svg = plot.svg("p");
        assert!(!svg.contains("<script>") && !svg.contains("<b>"), "{svg}");
    }
}
