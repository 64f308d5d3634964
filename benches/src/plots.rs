//! The pictures of the page: bars of a case's times, ours and the peer's, and lines over the checkpoints of a chain.
//!
//! Every number that a picture shows is in it as text as well.

use crate::measure::{Row, Series, median, range};
use crate::report::{spread, target};
use crate::results::{Dated, Results};
use crate::svg::{Svg, WIDTH};

/// A picture.
pub(crate) struct Plot {
    /// The name of its file.
    pub(crate) file: String,
    /// What it shows.
    pub(crate) title: String,
    /// The picture itself.
    pub(crate) svg: String,
}

/// One for each case, with all its comparisons.
pub(crate) fn times(results: &Results) -> Vec<Plot> {
    let groups = results
        .rows
        .chunk_by(|a, b| a.what.spec.case == b.what.spec.case);
    groups.map(bars).collect()
}

/// One for each case and what is counted, with all its lines.
pub(crate) fn generations(results: &Results) -> Vec<Plot> {
    let mut pictures: Vec<(&str, &str)> = Vec::new();
    for Dated { what, .. } in &results.series {
        let picture = (what.case.as_str(), what.what.as_str());
        if !pictures.contains(&picture) {
            pictures.push(picture);
        }
    }
    let of = |(case, what)| {
        let all = results.series.iter().map(|dated| &dated.what);
        let series = all.filter(|series| (&*series.case, &*series.what) == (case, what));
        lines(case, what, &series.collect::<Vec<_>>())
    };
    pictures.into_iter().map(of).collect()
}

const BARS: (f64, f64) = (212.0, WIDTH - 180.0);
const ROW: f64 = 62.0;

fn bars(rows: &[Dated<Row>]) -> Plot {
    let rows: Vec<&Row> = rows.iter().map(|dated| &dated.what).collect();
    let case = &rows[0].spec.case;
    let title = format!("{case}: seconds of ours and of the peer");
    let mut svg = Svg::new(
        &title,
        "Median; the thin line goes from the fastest to the slowest run",
    );
    let all: Vec<f64> = rows
        .iter()
        .flat_map(|row| row.ours.iter().chain(&row.peer))
        .copied()
        .collect();
    let axis = Axis::linear((0.0, range(&all).1), BARS);
    let (top, bottom) = (64.0, 64.0 + rows.len() as f64 * ROW);
    for tick in axis.ticks(8.0) {
        let x = axis.place(tick);
        svg.line(&[(x, top), (x, bottom)], "grid");
        svg.text((x, bottom + 16.0), "quiet middle", &short(tick));
    }
    svg.text((BARS.1 + 12.0, bottom + 16.0), "quiet", "seconds");
    for (index, row) in rows.iter().enumerate() {
        let y = top + index as f64 * ROW;
        svg.text((16.0, y + 18.0), "name", &row.spec.title);
        let class = if row.reached() {
            "quiet end"
        } else {
            "missed end"
        };
        svg.text((WIDTH - 16.0, y + 18.0), class, &verdict(row));
        bar(
            &mut svg,
            &axis,
            y + 25.0,
            (&row.spec.peer, "peer"),
            &row.peer,
        );
        bar(
            &mut svg,
            &axis,
            y + 42.0,
            ("Snapshotter", "ours"),
            &row.ours,
        );
    }
    let file = format!("time-{}.svg", slug(case));
    let svg = svg.finish(bottom + 28.0);
    Plot { file, title, svg }
}

/// Nothing where there is no such side.
fn bar(svg: &mut Svg, axis: &Axis, y: f64, (who, class): (&str, &str), seconds: &[f64]) {
    if seconds.is_empty() {
        return;
    }
    let (least, most) = range(seconds);
    let (start, middle) = (axis.place(0.0), y + 7.0);
    svg.text((start - 8.0, middle + 4.0), "quiet end", who);
    let width = axis.place(median(seconds)) - start;
    svg.rect((start, y), (width, 14.0), class);
    svg.line(
        &[(axis.place(least), middle), (axis.place(most), middle)],
        "spread",
    );
    svg.text(
        (axis.place(most) + 8.0, middle + 4.0),
        "start",
        &spread(seconds),
    );
}

/// How the two sides compare, and what was to be reached.
fn verdict(row: &Row) -> String {
    let ratio = row.ratio().map(|ratio| format!("{ratio:.2} × the peer's"));
    let goal = match target(row).as_str() {
        "–" => None,
        goal => Some(format!(
            "goal {goal}{}",
            if row.reached() { "" } else { ", not reached" }
        )),
    };
    [ratio, goal]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("; ")
}

const ACROSS: (f64, f64) = (64.0, WIDTH - 210.0);
const DOWN: (f64, f64) = (330.0, 80.0);
/// So many points have their numbers beside them.
const FEW: usize = 12;

fn lines(case: &str, what: &str, series: &[&Series]) -> Plot {
    let title = format!("{case}: {what}");
    let all: Vec<f64> = series
        .iter()
        .flat_map(|series| series.values.iter().copied())
        .collect();
    let up = Axis::over(range(&all));
    let scale = if up.is_log {
        ", each line of the grid ten times the one below"
    } else {
        ""
    };
    let mut svg = Svg::new(&title, &format!("{}{scale}", series[0].unit));
    let count = series.iter().map(|series| series.values.len()).max();
    let across = Axis::linear(
        (1.0, count.unwrap_or_default() as f64),
        (ACROSS.0 + 18.0, ACROSS.1),
    );
    for tick in up.ticks(5.0) {
        let y = up.place(tick);
        svg.line(&[(ACROSS.0, y), (ACROSS.1, y)], "grid");
        svg.text((ACROSS.0 - 12.0, y + 4.0), "quiet end", &short(tick));
    }
    for tick in across.ticks(12.0) {
        svg.text(
            (across.place(tick), DOWN.0 + 20.0),
            "quiet middle",
            &tick.to_string(),
        );
    }
    svg.text((ACROSS.1 + 24.0, DOWN.0 + 20.0), "quiet", "checkpoint");
    let mut lowest = f64::INFINITY;
    let mut order: Vec<usize> = (0..series.len()).collect();
    order.sort_by(|&a, &b| last(series[a]).total_cmp(&last(series[b])));
    for (rank, index) in order.into_iter().enumerate() {
        // Neither numbers nor names cover one another where lines come close.
        let numbers = if rank == 0 && series.len() > 1 {
            17.0
        } else {
            -8.0
        };
        line(&mut svg, series[index], (&across, &up), index, numbers);
        lowest = up.place(last(series[index])).min(lowest - 34.0);
        name(&mut svg, series[index], index, lowest);
    }
    let file = format!("{}-{}.svg", slug(case), slug(what));
    let svg = svg.finish(DOWN.0 + 36.0);
    Plot { file, title, svg }
}

/// One line, with its numbers above or below its points.
fn line(svg: &mut Svg, series: &Series, (across, up): (&Axis, &Axis), colour: usize, numbers: f64) {
    let values = series.values.iter().enumerate();
    let place =
        |(index, &value): (usize, &f64)| (across.place(index as f64 + 1.0), up.place(value));
    let points: Vec<(f64, f64)> = values.clone().map(place).collect();
    svg.line(&points, &format!("line stroke{colour}"));
    let is_few = points.len() <= FEW;
    for ((index, &value), &(x, y)) in values.zip(&points) {
        let (number, radius) = (short(value), if is_few { 3.5 } else { 1.5 });
        let words = format!(
            "{}, checkpoint {}: {number} {}",
            series.line,
            index + 1,
            series.unit
        );
        svg.point((x, y), radius, &format!("fill{colour}"), &words);
        if is_few {
            svg.text((x, y + numbers), "small middle", &number);
        }
    }
}

/// A line's name, and what it says in short, beside its end.
fn name(svg: &mut Svg, series: &Series, colour: usize, y: f64) {
    let (least, most) = range(&series.values);
    let (x, middle) = (ACROSS.1 + 24.0, short(median(&series.values)));
    svg.text((x, y), &format!("name fill{colour}"), &series.line);
    let words = format!("median {middle} ({}–{})", short(least), short(most));
    svg.text((x, y + 15.0), "quiet", &words);
}

fn last(series: &Series) -> f64 {
    series.values.last().copied().unwrap_or_default()
}

/// Where values are on the picture.
struct Axis {
    from: f64,
    to: f64,
    place: (f64, f64),
    is_log: bool,
}

impl Axis {
    fn linear((from, to): (f64, f64), place: (f64, f64)) -> Self {
        let (to, is_log) = (to.max(from + 1e-9), false);
        Self {
            from,
            to,
            place,
            is_log,
        }
    }

    /// For lines: by powers of ten where the largest would make the others flat.
    fn over((least, most): (f64, f64)) -> Self {
        if least > 0.0 && most > 20.0 * least {
            let (from, to) = (least.log10().floor(), most.log10().ceil());
            return Self {
                is_log: true,
                ..Self::linear((from, to), DOWN)
            };
        }
        let step = step(most / 5.0);
        Self::linear((0.0, (most / step).ceil() * step), DOWN)
    }

    fn place(&self, value: f64) -> f64 {
        let value = if self.is_log { value.log10() } else { value };
        let part = (value - self.from) / (self.to - self.from);
        self.place.0 + part * (self.place.1 - self.place.0)
    }

    /// Round numbers, about as many.
    fn ticks(&self, about: f64) -> Vec<f64> {
        let step = if self.is_log {
            1.0
        } else {
            step((self.to - self.from) / about)
        };
        let first = (self.from / step).ceil();
        let count = ((self.to / step + 1e-6).floor() - first) as usize;
        let ticks = (0..=count).map(|index| (first + index as f64) * step);
        ticks
            .map(|tick| if self.is_log { 10_f64.powf(tick) } else { tick })
            .collect()
    }
}

/// 1, 2 or 5 times a power of ten, at least this.
fn step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|step| step * power);
    steps
        .into_iter()
        .find(|&step| step >= least)
        .unwrap_or(10.0 * power)
}

/// Three digits that say something, and no zeros behind the point.
pub(crate) fn short(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// What a file is called.
fn slug(words: &str) -> String {
    let words = words.split(|letter: char| !letter.is_ascii_alphanumeric());
    words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join("-")
        .to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Spec, Target};

    /// The words of a document, which fails the test where it is not well-formed.
    fn words(svg: &str) -> Vec<String> {
        use quick_xml::events::Event;
        let mut reader = quick_xml::Reader::from_str(svg);
        let (mut words, mut open) = (String::new(), 0);
        loop {
            match reader.read_event().unwrap() {
                Event::Start(tag) => {
                    open += 1;
                    tag.attributes()
                        .for_each(|attribute| drop(attribute.unwrap()));
                }
                Event::Empty(tag) => tag
                    .attributes()
                    .for_each(|attribute| drop(attribute.unwrap())),
                Event::End(_) => {
                    open -= 1;
                    words.push('\n');
                }
                Event::Text(text) => words += &text.decode().unwrap(),
                Event::GeneralRef(entity) => {
                    words += match &*entity.decode().unwrap() {
                        "amp" => "&",
                        "lt" => "<",
                        "gt" => ">",
                        "quot" => "\"",
                        other => panic!("{other}"),
                    }
                }
                Event::Eof => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(open, 0);
        words.lines().map(str::to_owned).collect()
    }

    fn assert_has(words: &[String], expected: &[&str]) {
        for expected in expected {
            assert!(
                words.iter().any(|word| word == expected),
                "no {expected:?} in {words:#?}"
            );
        }
    }

    fn row(title: &str, peer: &[f64], ours: &[f64]) -> Dated<Row> {
        let spec = Spec {
            case: "dense-1g".into(),
            title: title.into(),
            durability: "full".into(),
            peer: "cp & <sync>".into(),
            target: Target::Ratio(1.25),
            data: 1,
            memory: 1,
        };
        let what = Row {
            spec,
            peer: peer.into(),
            ours: ours.into(),
            pairs: ours
                .iter()
                .zip(peer)
                .map(|(ours, peer)| ours / peer)
                .collect(),
            outcomes: Vec::new(),
            cpu: Default::default(),
            others: Vec::new(),
        };
        Dated {
            run: String::new(),
            what,
        }
    }

    #[test]
    fn bars_have_every_number_beside_them() {
        let mut results = Results::default();
        results
            .rows
            .push(row("restore \"a\"", &[1.5, 1.25, 2.0], &[3.0, 3.5, 2.75]));
        results.rows.push(row("alone", &[], &[0.125]));
        let [plot] = times(&results).try_into().ok().unwrap();
        assert_eq!(plot.file, "time-dense-1g.svg");
        let expected = [
            "restore \"a\"",
            "cp & <sync>",
            "1.500 (1.250–2.000)",
            "3.000 (2.750–3.500)",
            "2.00 × the peer's; goal ≤ 1.25, not reached",
            "0.125 (0.125–0.125)",
            "seconds",
        ];
        assert_has(&words(&plot.svg), &expected);
    }

    #[test]
    fn lines_have_every_number_and_share_a_picture_where_they_count_the_same() {
        let mut results = Results::default();
        for (line, values) in [
            ("v2", vec![400.0, 4.5, 0.0625]),
            ("v1", vec![1000.0, 350.0, 355.5]),
        ] {
            let [case, what, unit] =
                ["chain", "stored by each checkpoint", "MiB"].map(str::to_owned);
            let what = Series {
                case,
                what,
                unit,
                line: line.into(),
                values,
            };
            results.series.push(Dated {
                run: String::new(),
                what,
            });
        }
        let [plot] = generations(&results).try_into().ok().unwrap();
        assert_eq!(plot.file, "chain-stored-by-each-checkpoint.svg");
        let expected = [
            "v2, checkpoint 1: 400 MiB",
            "v2, checkpoint 2: 4.5 MiB",
            "v2, checkpoint 3: 0.062 MiB",
            "v1, checkpoint 3: 356 MiB",
            "median 4.5 (0.062–400)",
            "1000",
            "0.01",
            "checkpoint",
        ];
        assert_has(&words(&plot.svg), &expected);
    }

    #[test]
    fn ticks_are_round_and_within_the_axis() {
        assert_eq!(
            Axis::linear((1.0, 10.0), ACROSS).ticks(5.0),
            [2.0, 4.0, 6.0, 8.0, 10.0]
        );
        assert_eq!(
            Axis::over((0.02, 0.31)).ticks(5.0),
            [0.0, 0.1, 0.2, 0.30000000000000004, 0.4]
        );
        assert_eq!(
            Axis::over((3.0, 400.0)).ticks(5.0),
            [1.0, 10.0, 100.0, 1000.0]
        );
    }
}
