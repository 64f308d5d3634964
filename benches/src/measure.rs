//! Comparisons: runs of two sides in turn, and the numbers that come of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::operation::{Operation, Outcome};
use crate::options::Options;
use crate::process::{self, Timed};
use crate::{Result, say};

/// All measured so far, and how to measure.
pub(crate) struct Bench {
    /// Where to work.
    pub(crate) dir: PathBuf,
    /// Divides every size.
    pub(crate) divisor: u64,
    /// The finished comparisons.
    pub(crate) rows: Vec<Row>,
    /// What stores were found to allocate.
    pub(crate) stores: Vec<StoreSize>,
    /// What is not a time.
    pub(crate) figures: Vec<Figure>,
    /// What changes from one checkpoint to the next.
    pub(crate) series: Vec<Series>,
    runs: usize,
    only: Option<String>,
}

/// What was said of a comparison before it was run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// The case: `dense-1g`.
    pub(crate) case: String,
    /// The operation.
    pub(crate) title: String,
    /// What is on the disk when ours returns.
    pub(crate) durability: String,
    /// The peer; empty where there is none.
    pub(crate) peer: String,
    /// What to reach.
    pub(crate) target: Target,
    /// Bytes of data the operation is about.
    pub(crate) data: u64,
    /// Most memory ours may use, in bytes.
    pub(crate) memory: u64,
}

/// What a comparison is to reach.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Target {
    /// None for the time: the row is there for its memory, or to be known.
    None,
    /// At most this many times the peer's time.
    Ratio(f64),
    /// At most this many seconds.
    Seconds(f64),
}

/// One finished comparison.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What it was.
    pub(crate) spec: Spec,
    /// The peer's seconds, in the order of the runs; empty where there is none.
    pub(crate) peer: Vec<f64>,
    /// Our seconds, in the order of the runs.
    pub(crate) ours: Vec<f64>,
    /// Ours ÷ the peer's, of each pair.
    pub(crate) pairs: Vec<f64>,
    /// What our processes said.
    pub(crate) outcomes: Vec<Outcome>,
    /// Processor seconds of both sides.
    pub(crate) cpu: (Vec<f64>, Vec<f64>),
    /// Cores busy with something else, in every run of both sides.
    pub(crate) others: Vec<f64>,
}

/// What a store takes on the disk.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoreSize {
    /// The case.
    pub(crate) case: String,
    /// How the snapshot was taken.
    pub(crate) title: String,
    /// Bytes allocated below the store's `storage/`.
    pub(crate) allocated: u64,
    /// Bytes allocated for the source.
    pub(crate) source: u64,
}

/// A number that is to be small.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// The case.
    pub(crate) case: String,
    /// What of it.
    pub(crate) what: String,
    /// How much it is.
    pub(crate) value: f64,
    /// How much it may be.
    pub(crate) most: f64,
}

/// A number of each checkpoint of a chain, the first one's first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    /// The case.
    pub(crate) case: String,
    /// What of it: one picture shows all lines of one case and this.
    pub(crate) what: String,
    /// Whose numbers these are.
    pub(crate) line: String,
    /// What they count.
    pub(crate) unit: String,
    /// The numbers.
    pub(crate) values: Vec<f64>,
}

/// One side of a comparison; both functions are given the number of the run, 0 for the warm-up.
pub(crate) struct Side<'a, C> {
    /// Brings everything into place.
    pub(crate) prepare: Box<dyn Fn(usize) -> Result<()> + 'a>,
    /// What is measured.
    pub(crate) command: Box<dyn Fn(usize) -> C + 'a>,
}

impl<'a, C> Side<'a, C> {
    /// A side of a comparison.
    pub(crate) fn new(
        prepare: impl Fn(usize) -> Result<()> + 'a,
        command: impl Fn(usize) -> C + 'a,
    ) -> Self {
        Self {
            prepare: Box::new(prepare),
            command: Box::new(command),
        }
    }

    fn run(&self, run: usize, commands: impl FnOnce(C) -> Result<Vec<Command>>) -> Result<Timed> {
        (self.prepare)(run)?;
        let mut commands = commands((self.command)(run))?;
        process::timed(&mut commands)
    }
}

impl Bench {
    /// Nothing measured yet.
    pub(crate) fn new(options: &Options, dir: &Path) -> Result<Self> {
        Ok(Self {
            dir: dir.into(),
            divisor: options.divisor,
            rows: Vec::new(),
            stores: Vec::new(),
            figures: Vec::new(),
            series: Vec::new(),
            runs: options.runs,
            only: options.only.clone(),
        })
    }

    /// Whether any row of a case was asked for.
    pub(crate) fn wants_case(&self, case: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| case.contains(only.as_str()) || only.starts_with(case))
    }

    /// How often each side is measured.
    pub(crate) fn runs(&self) -> usize {
        self.runs
    }

    /// Notes a number.
    pub(crate) fn figure(&mut self, case: &'static str, what: &'static str, value: f64, most: f64) {
        say(&format!("{case}: {what}: {value:.4}, at most {most:.4}"));
        self.figures.push(Figure {
            case: case.into(),
            what: what.into(),
            value,
            most,
        });
    }

    /// Notes a number of each checkpoint.
    pub(crate) fn series(
        &mut self,
        case: &str,
        what: &str,
        line: &str,
        unit: &str,
        values: Vec<f64>,
    ) {
        self.series.push(Series {
            case: case.into(),
            what: what.into(),
            line: line.into(),
            unit: unit.into(),
            values,
        });
    }

    /// Whether a row was asked for.
    pub(crate) fn wants(&self, spec: &Spec) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| spec.name().contains(only.as_str()))
    }

    /// Runs a comparison: one pair unmeasured, then peer, ours, peer, ours… `false`: it was not asked for.
    pub(crate) fn compare(
        &mut self,
        spec: Spec,
        peer: Option<&Side<'_, Vec<Command>>>,
        ours: &Side<'_, Operation>,
    ) -> Result<bool> {
        if !self.wants(&spec) {
            return Ok(false);
        }
        let mut row = Row {
            spec,
            peer: Vec::new(),
            ours: Vec::new(),
            pairs: Vec::new(),
            outcomes: Vec::new(),
            cpu: (Vec::new(), Vec::new()),
            others: Vec::new(),
        };
        for run in 0..=self.runs {
            row.run(run, peer, ours)?;
        }
        say(&row.summary());
        self.rows.push(row);
        Ok(true)
    }
}

impl Spec {
    /// The name that `--only` looks at.
    pub(crate) fn name(&self) -> String {
        format!("{}: {}", self.case, self.title)
    }
}

impl Row {
    fn run(
        &mut self,
        run: usize,
        peer: Option<&Side<'_, Vec<Command>>>,
        ours: &Side<'_, Operation>,
    ) -> Result<()> {
        if let Some(peer) = peer {
            let timed = peer.run(run, Ok)?;
            if run > 0 {
                self.peer.push(timed.seconds);
                self.cpu.0.push(timed.cpu);
                self.others.push(timed.others);
            }
        }
        let timed = ours.run(run, |operation| Ok(vec![operation.command()?]))?;
        if run > 0 {
            let pair = self.peer.last().map(|peer| timed.seconds / peer);
            self.pairs.extend(pair);
            self.ours.push(timed.seconds);
            self.cpu.1.push(timed.cpu);
            self.others.push(timed.others);
            self.outcomes.push(timed.outcome()?);
        }
        Ok(())
    }

    /// The ratio of the medians.
    pub(crate) fn ratio(&self) -> Option<f64> {
        (!self.peer.is_empty()).then(|| median(&self.ours) / median(&self.peer))
    }

    /// The median of the ratios of each pair.
    pub(crate) fn pair_ratio(&self) -> Option<f64> {
        (!self.pairs.is_empty()).then(|| median(&self.pairs))
    }

    /// Whether both ways to look at it reach the target.
    pub(crate) fn reached(&self) -> bool {
        match self.spec.target {
            Target::None => true,
            Target::Seconds(most) => median(&self.ours) <= most,
            Target::Ratio(most) => [self.ratio(), self.pair_ratio()]
                .iter()
                .all(|ratio| ratio.is_some_and(|ratio| ratio <= most)),
        }
    }

    /// The most memory any run used, in bytes.
    pub(crate) fn peak(&self) -> u64 {
        self.most(|outcome| outcome.peak)
    }

    /// The most that any run has of something.
    pub(crate) fn most(&self, of: impl Fn(&Outcome) -> u64) -> u64 {
        self.outcomes.iter().map(of).max().unwrap_or_default()
    }

    fn summary(&self) -> String {
        format!(
            "{:60} {:.3} s, peer {:.3} s, ratio {:.2} / {:.2} {:?} {}",
            self.spec.name(),
            median(&self.ours),
            median(&self.peer),
            self.ratio().unwrap_or(f64::NAN),
            self.pair_ratio().unwrap_or(f64::NAN),
            self.spec.target,
            if self.reached() {
                "reached"
            } else {
                "NOT reached"
            },
        )
    }
}

/// The middle value, or the mean of the middle two; not a number where there is none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The smallest and the largest.
pub(crate) fn range(values: &[f64]) -> (f64, f64) {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    (least, values.iter().copied().fold(0.0, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
