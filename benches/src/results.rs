//! What was measured, and in which run: the numbers of the page, kept beside its pictures as `results.json`.
//!
//! A page may be of several runs. Every number has the run that it is of, so a run of some rows replaces these, and the
//! others stay what they were: numbers of another day, of another revision.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::cases::ALL;
use crate::measure::{Bench, Figure, Row, Series, StoreSize};

/// All numbers of a page.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    /// What sizes are divided by: a smoke run's numbers are never mixed with real ones.
    divisor: u64,
    /// The runs by their dates and revisions; what is known of each, in the order to show it.
    pub(crate) runs: BTreeMap<String, Vec<(String, String)>>,
    /// The comparisons.
    pub(crate) rows: Vec<Dated<Row>>,
    /// What is not a time.
    pub(crate) figures: Vec<Dated<Figure>>,
    /// What stores were found to allocate.
    pub(crate) stores: Vec<Dated<StoreSize>>,
    /// What changes from one checkpoint to the next.
    pub(crate) series: Vec<Dated<Series>>,
}

/// Something measured, with the run that it is of.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Dated<T> {
    /// The run's key in [`Results::runs`].
    pub(crate) run: String,
    /// What was measured.
    #[serde(flatten)]
    pub(crate) what: T,
}

/// What says whether two measurements are of the same thing.
trait Named {
    /// Its case, and what tells it from others of the case.
    fn name(&self) -> (&str, &str, &str);
}

impl Results {
    /// What one run measured.
    pub(crate) fn of(run: &str, facts: Vec<(String, String)>, bench: Bench) -> Self {
        Self {
            divisor: bench.divisor,
            runs: BTreeMap::from([(run.to_owned(), facts)]),
            rows: dated(run, bench.rows),
            figures: dated(run, bench.figures),
            stores: dated(run, bench.stores),
            series: dated(run, bench.series),
        }
    }

    /// Those in a file; none where it is not there.
    pub(crate) fn kept(file: &Path) -> Result<Self> {
        match fs::read(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            _ => Self::read(file),
        }
    }

    /// Those in a file.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let say = |error: &dyn std::error::Error| format!("{}: {error}", file.display());
        let text = fs::read(file).map_err(|error| say(&error))?;
        Ok(serde_json::from_slice(&text).map_err(|error| say(&error))?)
    }

    /// That numbers of such sizes may be added.
    pub(crate) fn admits(&self, divisor: u64) -> Result<()> {
        if self.runs.is_empty() || self.divisor == divisor {
            return Ok(());
        }
        Err("these results are of other sizes: give --output another directory".into())
    }

    /// Adds those of other runs, in place of those of the same names.
    pub(crate) fn add(&mut self, newer: Self) -> Result<()> {
        self.admits(newer.divisor)?;
        self.divisor = newer.divisor;
        replace(&mut self.rows, newer.rows);
        replace(&mut self.figures, newer.figures);
        replace(&mut self.stores, newer.stores);
        replace(&mut self.series, newer.series);
        self.runs.extend(newer.runs);
        let used = self.used();
        self.runs.retain(|run, _| used.contains(run));
        Ok(())
    }

    /// The number that a run has on the page: the oldest has 1.
    pub(crate) fn number(&self, run: &str) -> usize {
        self.runs.keys().filter(|key| key.as_str() <= run).count()
    }

    fn used(&self) -> BTreeSet<String> {
        let rows = self.rows.iter().map(|dated| &dated.run);
        let figures = self.figures.iter().map(|dated| &dated.run);
        let stores = self.stores.iter().map(|dated| &dated.run);
        let series = self.series.iter().map(|dated| &dated.run);
        let used = rows.chain(figures).chain(stores).chain(series);
        used.cloned().collect()
    }
}

fn dated<T>(run: &str, measured: Vec<T>) -> Vec<Dated<T>> {
    let of_run = |what| Dated {
        run: run.to_owned(),
        what,
    };
    measured.into_iter().map(of_run).collect()
}

/// What is new comes after what is there of its case; cases have the order in which they run.
fn replace<T: Named>(old: &mut Vec<Dated<T>>, new: Vec<Dated<T>>) {
    for new in new {
        match old
            .iter_mut()
            .find(|old| old.what.name() == new.what.name())
        {
            Some(old) => *old = new,
            None => old.push(new),
        }
    }
    old.sort_by_key(|dated| {
        let (case, ..) = dated.what.name();
        let known = ALL.iter().position(|known| known.name == case);
        known.unwrap_or(ALL.len())
    });
}

impl Named for Row {
    fn name(&self) -> (&str, &str, &str) {
        (&self.spec.case, &self.spec.title, "")
    }
}

impl Named for Figure {
    fn name(&self) -> (&str, &str, &str) {
        (&self.case, &self.what, "")
    }
}

impl Named for StoreSize {
    fn name(&self) -> (&str, &str, &str) {
        (&self.case, &self.title, "")
    }
}

impl Named for Series {
    fn name(&self) -> (&str, &str, &str) {
        (&self.case, &self.what, &self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(what: &str, value: f64) -> Figure {
        Figure {
            case: "chain".into(),
            what: what.into(),
            value,
            most: 9.0,
        }
    }

    fn run(run: &str, figures: Vec<Figure>) -> Results {
        Results {
            divisor: 1,
            runs: BTreeMap::from([(run.to_owned(), vec![("CPU".into(), run.to_owned())])]),
            figures: dated(run, figures),
            ..Results::default()
        }
    }

    fn values(results: &Results) -> Vec<(usize, &str, f64)> {
        let figures = results.figures.iter();
        figures
            .map(|Dated { run, what }| (results.number(run), what.what.as_str(), what.value))
            .collect()
    }

    #[test]
    fn a_run_replaces_what_it_measured_and_leaves_the_rest_to_the_runs_they_are_of() {
        let mut page = Results::default();
        let first = run("2026-11-22", vec![figure("a", 1.0), figure("b", 2.0)]);
        page.add(first).unwrap();
        let mut second = run("2026-11-30", vec![figure("b", 3.0), figure("c", 4.0)]);
        second.figures.extend(dated(
            "2026-11-30",
            vec![Figure {
                case: "small-20k".into(),
                ..figure("b", 5.0)
            }],
        ));
        page.add(second).unwrap();
        let text = serde_json::to_vec(&page).unwrap();
        let page: Results = serde_json::from_slice(&text).unwrap();
        let expected = [(2, "b", 5.0), (1, "a", 1.0), (2, "b", 3.0), (2, "c", 4.0)];
        assert_eq!(values(&page), expected);
    }

    #[test]
    fn a_run_of_which_nothing_is_left_is_forgotten() {
        let mut page = run("2026-11-22", vec![figure("a", 1.0)]);
        page.add(run("2026-11-30", vec![figure("a", 2.0)])).unwrap();
        assert_eq!(values(&page), [(1, "a", 2.0)]);
        assert_eq!(page.runs.len(), 1);
    }

    #[test]
    fn a_smoke_run_is_not_added_to_real_numbers() {
        let mut page = run("2026-11-22", vec![figure("a", 1.0)]);
        let smoke = Results {
            divisor: 16,
            ..run("2026-11-30", vec![figure("a", 2.0)])
        };
        page.add(smoke).unwrap_err();
        assert_eq!(values(&page), [(1, "a", 1.0)]);
    }
}
