//! The page: the tables as Markdown, with the pictures above them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::measure::{Bench, Figure, Row, Series, StoreSize, Target, median, range};
use crate::options::Options;
use crate::plots::{self, Plot};
use crate::results::{Dated, Results};
use crate::{Result, print};

const HOW: &str = include_str!("how.md");

const MIB: f64 = 1024.0 * 1024.0;

/// Writes the page, and beside it the pictures and the numbers; or shows the page alone.
pub(crate) fn write(results: &Results, options: &Options) -> Result<()> {
    let (Some(page), Some(dir), Some(kept)) = (&options.output, options.plots(), options.results())
    else {
        print(&markdown(results, &[], &[]));
        return Ok(());
    };
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    // First, because everything else can be made of it again.
    put(&kept, &(serde_json::to_string_pretty(results)? + "\n"))?;
    let (times, generations) = (plots::times(results), plots::generations(results));
    for plot in times.iter().chain(&generations) {
        put(&dir.join(&plot.file), &plot.svg)?;
    }
    put(page, &markdown(results, &times, &generations))
}

fn put(file: &Path, text: &str) -> Result<()> {
    Ok(fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?)
}

/// The whole document.
fn markdown(results: &Results, times: &[Plot], generations: &[Plot]) -> String {
    let mut text = format!("# Benchmarks\n\n{HOW}\n{}", runs(results));
    let rows = |cells: fn(&Row) -> Vec<String>| numbered(results, &results.rows, cells);
    text += &section(
        "Time",
        times,
        "Case | Durability | Peer | Peer, s | Ours, s | Ours ÷ peer | Median of pairs | Target | Reached",
        &rows(time_row),
    );
    text += &section(
        "Over generations",
        generations,
        "Case | Unit | First | Median | Most | Last",
        &numbered(results, &results.series, series_row),
    );
    text += &section(
        "Memory",
        &[],
        "Case | Peak, MiB | Target, MiB | Reached",
        &rows(memory_row),
    );
    let with_processor = results.rows.iter().filter(|row| !row.what.cpu.1.is_empty());
    text += &section(
        "Processor time",
        &[],
        "Case | Peer, s | Ours, s | Ours ÷ peer",
        &numbered(results, with_processor, processor_row),
    );
    text += &section(
        "Figures",
        &[],
        "Case | Measured | At most | Reached",
        &numbered(results, &results.figures, figure_row),
    );
    text += &section(
        "Bytes moved",
        &[],
        "Case | Data, MiB | Read, MiB | Read ÷ data | Written, MiB | From disk, MiB | Hardlinked | Copied | Already there",
        &rows(traffic_row),
    );
    text += &section(
        "Space",
        &[],
        "Case | Store, MiB | Source, MiB | Store ÷ source",
        &numbered(results, &results.stores, store_row),
    );
    text
}

/// What is known of a run, beside the machine's facts, when it is over.
pub(crate) fn facts(options: &Options, bench: &Bench, took: Duration) -> Vec<(String, String)> {
    let others = bench.rows.iter().flat_map(|row| row.others.iter().copied());
    let others: Vec<f64> = others.collect();
    let minutes = took.as_secs().div_ceil(60);
    let mut facts = vec![
        ("Measured runs of each side", options.runs.to_string()),
        ("Took", format!("{minutes} minutes")),
        (
            "Cores busy with something else during a run",
            format!(
                "median {:.2}, at most {:.2}",
                median(&others),
                range(&others).1
            ),
        ),
    ];
    if options.divisor > 1 {
        let divisor = options.divisor;
        let what = format!("**a {divisor}th of what the names say: a smoke run**");
        facts.push(("Sizes", what));
    }
    let owned = facts.into_iter();
    owned
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

fn runs(results: &Results) -> String {
    let mut text = String::from("## Runs\n");
    for (run, facts) in &results.runs {
        text += &format!("\n{}. {run}\n", results.number(run));
        for (name, value) in facts {
            text += &format!("   - {name}: {value}\n");
        }
    }
    text
}

/// The rows of a table, each with its run at the end.
fn numbered<'a, T: 'a>(
    results: &Results,
    measured: impl IntoIterator<Item = &'a Dated<T>>,
    cells: impl Fn(&T) -> Vec<String>,
) -> Vec<Vec<String>> {
    let row = |Dated { run, what }: &Dated<T>| {
        let mut cells = cells(what);
        cells.push(results.number(run).to_string());
        cells
    };
    measured.into_iter().map(row).collect()
}

/// A table and its pictures; nothing where there are no rows.
fn section(title: &str, plots: &[Plot], head: &str, rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut text = format!("\n## {title}\n\n");
    for Plot { file, title, .. } in plots {
        text += &format!("![{title}](plots/{file})\n\n");
    }
    let columns = head.split(" | ").count() + 1;
    text += &format!("| {head} | Run |\n|{}\n", " --- |".repeat(columns));
    for row in rows {
        text += &format!("| {} |\n", row.join(" | "));
    }
    text
}

fn time_row(row: &Row) -> Vec<String> {
    let ratio = |ratio: Option<f64>| ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
    vec![
        row.spec.name(),
        row.spec.durability.to_owned(),
        row.spec.peer.to_owned(),
        spread(&row.peer),
        spread(&row.ours),
        ratio(row.ratio()),
        ratio(row.pair_ratio()),
        target(row),
        yes(row.reached()),
    ]
}

/// What a row is to reach.
pub(crate) fn target(row: &Row) -> String {
    match row.spec.target {
        Target::None => "–".to_owned(),
        Target::Ratio(most) => format!("≤ {most:.2}"),
        Target::Seconds(most) => format!("≤ {:.0} ms", most * 1000.0),
    }
}

/// Median, smallest and largest.
pub(crate) fn spread(values: &[f64]) -> String {
    if values.is_empty() {
        return String::new();
    }
    let (least, most) = range(values);
    format!("{:.3} ({least:.3}–{most:.3})", median(values))
}

fn series_row(series: &Series) -> Vec<String> {
    let values = &series.values;
    vec![
        format!("{}: {}, {}", series.case, series.what, series.line),
        series.unit.clone(),
        plots::short(values.first().copied().unwrap_or(f64::NAN)),
        plots::short(median(values)),
        plots::short(range(values).1),
        plots::short(values.last().copied().unwrap_or(f64::NAN)),
    ]
}

fn memory_row(row: &Row) -> Vec<String> {
    vec![
        row.spec.name(),
        mib(row.peak()),
        format!("≤ {}", row.spec.memory / MIB as u64),
        yes(row.peak() <= row.spec.memory),
    ]
}

fn processor_row(row: &Row) -> Vec<String> {
    let (peer, ours) = (&row.cpu.0, &row.cpu.1);
    let ratio = match peer.is_empty() {
        true => String::new(),
        false => format!("{:.2}", median(ours) / median(peer)),
    };
    vec![row.spec.name(), spread(peer), spread(ours), ratio]
}

fn figure_row(figure: &Figure) -> Vec<String> {
    vec![
        format!("{}: {}", figure.case, figure.what),
        format!("{:.4}", figure.value),
        format!("{:.4}", figure.most),
        yes(figure.value <= figure.most),
    ]
}

fn traffic_row(row: &Row) -> Vec<String> {
    let read = row.most(|outcome| outcome.read);
    vec![
        row.spec.name(),
        mib(row.spec.data),
        mib(read),
        format!("{:.3}", read as f64 / row.spec.data as f64),
        mib(row.most(|outcome| outcome.written)),
        mib(row.most(|outcome| outcome.fetched)),
        row.most(|outcome| outcome.hardlinked).to_string(),
        row.most(|outcome| outcome.copied).to_string(),
        row.most(|outcome| outcome.present).to_string(),
    ]
}

fn store_row(store: &StoreSize) -> Vec<String> {
    vec![
        format!("{}: {}", store.case, store.title),
        mib(store.allocated),
        mib(store.source),
        format!("{:.3}", store.allocated as f64 / store.source as f64),
    ]
}

fn mib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / MIB)
}

fn yes(reached: bool) -> String {
    if reached { "yes" } else { "**no**" }.to_owned()
}
