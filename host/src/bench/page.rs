//! The findings as a page: the targets as checks, the rates as bars, and beside them what others were measured at, elsewhere.

use std::path::Path;

use anyhow::Context as _;

use super::findings::{FIGURES, Findings, RATIOS, Spread};
use super::text::number;
use crate::experiment::plot::{Bars, Plot, Shape};
use crate::experiment::report::grouped;
use crate::experiment::{Check, Figure, Report, Table, Verdict};

impl Findings {
    /// Writes `bench.json` and `index.html`.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let document = serde_json::to_string_pretty(&self.document())? + "\n";
        for (name, content) in [("bench.json", document), ("index.html", self.report().html())] {
            let path = folder.join(name);
            std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn report(&self) -> Report {
        let targets = self.targets();
        let checks: Vec<Check> = targets
            .iter()
            .map(|target| {
                let moonshot = target.moonshot.as_ref().map(|moonshot| format!(" (better: {moonshot})"));
                let expected = format!("{}{}", target.target, moonshot.unwrap_or_default());
                Check::new(format!("{}: {}", target.name, target.what), target.reached, expected, number(target.found))
            })
            .collect();
        let shown = format!("every count was right, and all {} targets were reached", checks.len());
        Report {
            experiment: "bench",
            title: "Semel beside what its database can do".to_owned(),
            method: self.method(),
            verdict: Verdict::of(checks, shown),
            figures: self.headlines(),
            plots: self.plots(),
            tables: vec![
                self.table("Figures", &FIGURES.map(|(name, what, unit)| (name, what.to_owned(), unit)), Self::figure),
                self.table(
                    "Ratios, each made within one round",
                    &RATIOS.map(|(name, over, under)| (name, format!("{over} ÷ {under}"), "")),
                    Self::ratio,
                ),
                self.settings(),
            ],
            environment: self.environment.clone(),
        }
    }

    fn method(&self) -> String {
        let warnings: String = self.warnings().iter().map(|warning| format!(" Note: {warning}.")).collect();
        format!(
            "{} messages of `counter` wait in the queue of a host of its own before the clock starts, {} rounds. The floors \
             are plain loops over a table in the same database, with the same statements and without Semel; they and Semel \
             take turns, and a ratio is made within one round. Every figure is the median over the rounds. Every counter \
             was compared with what it must show, and every message was completed.{warnings}",
            grouped(self.messages.into()),
            self.rounds,
        )
    }

    fn headlines(&self) -> Vec<Figure> {
        let chosen =
            ["drain_batched", "floor_single", "ingest", "latency_p50_us", "sandbox_us", "rss_idle_mb", "rss_load_mb"];
        let known = FIGURES.iter().filter(|(name, ..)| chosen.contains(name));
        known.filter_map(|(name, _, unit)| Some(Figure::measure(name, self.figure(name)?.median, unit))).collect()
    }

    fn plots(&self) -> Vec<Plot> {
        let rate = |name: &str| self.figure(name).map(|spread| spread.median as u64);
        let here = [
            ("a commit each", "floor_single", "floor_hot_single"),
            ("100 per commit", "floor_batched", "floor_hot_batched"),
            ("Semel", "drain_batched", "hot_batched"),
            ("Semel, batch off", "drain_single", "hot_single"),
        ];
        let values = |of: fn(&(&str, &'static str, &'static str)) -> &'static str| {
            here.iter().map(|row| rate(of(row)).unwrap_or(0)).collect()
        };
        let mut plots = Vec::new();
        if rate("drain_batched").is_some() || rate("floor_single").is_some() {
            plots.push(Plot {
                title: "Messages per second".to_owned(),
                caption: "The first two without Semel, by a plain loop. What was not measured has no bar.".to_owned(),
                x_label: "who works off the queue".to_owned(),
                y_label: "messages per second (logarithmic)".to_owned(),
                shape: Shape::Bars {
                    groups: here.iter().map(|(name, ..)| (*name).to_owned()).collect(),
                    series: vec![
                        Bars { name: "many counters".to_owned(), values: values(|row| row.1) },
                        Bars { name: "one counter".to_owned(), values: values(|row| row.2) },
                    ],
                },
            });
        }
        plots.extend(rate("drain_batched").map(|semel| self.beside_others(semel)));
        plots
    }

    fn beside_others(&self, semel: u64) -> Plot {
        let others = self.others;
        let groups = std::iter::once("Semel").chain(others.iter().map(|(name, _)| *name)).map(str::to_owned).collect();
        let apart = std::iter::once(0).chain(others.iter().map(|(_, rate)| *rate)).collect();
        Plot {
            title: "Beside others that give the same guarantee".to_owned(),
            caption: "The others were measured apart, on another run, and are here for the order of magnitude; ratios of this \
                      page are never made with them."
                .to_owned(),
            x_label: "system".to_owned(),
            y_label: "messages per second (logarithmic)".to_owned(),
            shape: Shape::Bars {
                groups,
                series: vec![
                    Bars { name: "this run".to_owned(), values: vec![semel] },
                    Bars { name: "measured apart, on another run".to_owned(), values: apart },
                ],
            },
        }
    }

    fn table(
        &self,
        title: &str,
        names: &[(&'static str, String, &'static str)],
        of: fn(&Self, &str) -> Option<Spread>,
    ) -> Table {
        let row = |(name, what, unit): &(&'static str, String, &'static str)| {
            let Spread { min, median, max, runs } = of(self, name)?;
            let numbers = [median, min, max].map(number);
            let [median, min, max] = numbers;
            Some(vec![(*name).to_owned(), what.clone(), median, (*unit).to_owned(), min, max, runs.to_string()])
        };
        Table {
            title: title.to_owned(),
            columns: vec!["name", "what", "median", "unit", "least", "most", "runs"],
            rows: names.iter().filter_map(row).collect(),
        }
    }

    fn settings(&self) -> Table {
        let settings = self.database["settings"].as_object().into_iter().flatten();
        let row = |(name, value): (&String, &serde_json::Value)| {
            vec![name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)]
        };
        let version = vec!["version".to_owned(), self.database["version"].as_str().unwrap_or_default().to_owned()];
        let rows = std::iter::once(version).chain(settings.map(row)).collect();
        Table { title: "The database".to_owned(), columns: vec!["setting", "value"], rows }
    }
}
