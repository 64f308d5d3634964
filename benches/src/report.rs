//! The tables as Markdown.

use std::fmt::Write;
use std::time::Duration;

use crate::machine::Machine;
use crate::measure::{Bench, Figure, Row, StoreSize, Target, median};
use crate::options::Options;

const HOW: &str = include_str!("how.md");

const MIB: f64 = 1024.0 * 1024.0;

/// The whole document.
pub(crate) fn markdown(
    machine: &Machine,
    options: &Options,
    bench: &Bench,
    took: Duration,
) -> String {
    let mut text = format!("# Benchmarks\n\n{HOW}\n");
    text += &facts(machine, options, took);
    text += &noise(bench);
    text += &table(
        "Time",
        &[
            "Case",
            "Durability",
            "Peer",
            "Peer, s",
            "Ours, s",
            "Ours ÷ peer",
            "Median of pairs",
            "Target",
            "Reached",
        ],
        bench.rows.iter().map(time_row),
    );
    text += &table(
        "Memory",
        &["Case", "Peak, MiB", "Target, MiB", "Reached"],
        bench.rows.iter().map(memory_row),
    );
    text += &table(
        "Processor time",
        &["Case", "Peer, s", "Ours, s", "Ours ÷ peer"],
        bench.rows.iter().map(processor_row),
    );
    text += &table(
        "Figures",
        &["Case", "Measured", "At most", "Reached"],
        bench.figures.iter().map(figure_row),
    );
    text += &table(
        "Bytes moved",
        &[
            "Case",
            "Data, MiB",
            "Read, MiB",
            "Read ÷ data",
            "Written, MiB",
            "From disk, MiB",
            "Hardlinked",
            "Copied",
            "Already there",
        ],
        bench.rows.iter().map(traffic_row),
    );
    text += &table(
        "Space",
        &["Case", "Store, MiB", "Source, MiB", "Store ÷ source"],
        bench.stores.iter().map(store_row),
    );
    text
}

fn facts(machine: &Machine, options: &Options, took: Duration) -> String {
    let mut text = String::from("## Machine\n\n");
    for (name, value) in &machine.facts {
        let _ = writeln!(text, "- {name}: {value}");
    }
    let _ = writeln!(text, "- Measured runs of each side: {}", options.runs);
    let _ = writeln!(text, "- Took: {} minutes", took.as_secs().div_ceil(60));
    if options.divisor > 1 {
        let _ = writeln!(
            text,
            "- **Sizes are a {}th of what the names say: a smoke run.**",
            options.divisor
        );
    }
    text
}

/// What else the machine did.
fn noise(bench: &Bench) -> String {
    let others = bench.rows.iter().flat_map(|row| row.others.iter().copied());
    let others: Vec<f64> = others.collect();
    let most = others.iter().copied().fold(0.0, f64::max);
    format!(
        "- Cores busy with something else during a run: median {:.2}, at most {most:.2}\n",
        median(&others)
    )
}

fn table(title: &str, head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = format!("\n## {title}\n\n");
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    text += &line(
        &head
            .iter()
            .map(|cell| (*cell).to_owned())
            .collect::<Vec<_>>(),
    );
    text += &line(&vec!["---".to_owned(); head.len()]);
    for row in rows {
        text += &line(&row);
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
        match row.spec.target {
            Target::None => "–".to_owned(),
            Target::Ratio(most) => format!("≤ {most:.2}"),
            Target::Seconds(most) => format!("≤ {:.0} ms", most * 1000.0),
        },
        yes(row.reached()),
    ]
}

/// Median, smallest and largest.
fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    format!("{:.3} ({least:.3}–{most:.3})", median(values))
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
    let (peer, ours) = (median(&row.cpu.0), median(&row.cpu.1));
    vec![
        row.spec.name(),
        spread(&row.cpu.0),
        spread(&row.cpu.1),
        format!("{:.2}", ours / peer),
    ]
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
