//! The README's quick start is what a shell shows: every line of it is run, in one directory and in order, and has to say
//! what the README says it does. Only what differs from run to run may differ: digests and durations.

mod support;

use std::fs;
use std::path::Path;

use support::Place;

/// A command line and what it is said to print.
struct Step {
    line: String,
    shown: Vec<String>,
}

/// The indented lines of the quick start: `$ ` begins a command, the rest is what it printed.
fn quick_start() -> Vec<Step> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let section = readme.split("\n## ").find(|part| part.starts_with("Quick"));
    let mut steps: Vec<Step> = Vec::new();
    for line in section.unwrap().lines() {
        let Some(line) = line.strip_prefix("    ") else {
            continue;
        };
        match line.strip_prefix("$ ") {
            Some(line) => steps.push(Step {
                line: line.to_owned(),
                shown: Vec::new(),
            }),
            None => steps.last_mut().unwrap().shown.push(line.to_owned()),
        }
    }
    steps
}

/// What `ls -s` says a file occupies, in MiB rounded up: where the disk is busy a file gets more extents, and ext4 counts the
/// block that lists them too.
fn is_occupied_alike(words: [&str; 2]) -> bool {
    let number = |word: &str| word.strip_suffix('M')?.parse::<u64>().ok();
    let [shown, said] = words.map(number);
    shown
        .zip(said)
        .is_some_and(|(shown, said)| said == shown || said == shown + 1)
}

/// Whether two lines are the same but for digests and durations.
fn alike(shown: &str, said: &str) -> bool {
    let (shown, said): (Vec<_>, Vec<_>) = (shown.split(' ').collect(), said.split(' ').collect());
    let is_unit = |word: Option<&&str>| matches!(word, Some(&"ms" | &"s"));
    let may_differ = |at: usize| {
        let words = [shown[at], said[at]];
        let next = [shown.get(at + 1), said.get(at + 1)];
        let is_duration = |at: usize| {
            [shown[at], said[at]]
                .iter()
                .all(|word| word.parse::<f64>().is_ok())
        };
        words.iter().all(|word| word.starts_with("sha256:"))
            || is_occupied_alike(words)
            || is_duration(at) && next.iter().all(|word| is_unit(*word))
            || words.iter().all(|word| is_unit(Some(word))) && at > 0 && is_duration(at - 1)
    };
    shown.len() == said.len() && (0..shown.len()).all(|at| shown[at] == said[at] || may_differ(at))
}

#[test]
fn the_quick_start_is_what_a_shell_shows() {
    let place = Place::new();
    fs::remove_dir_all(place.path("vm")).unwrap();
    let steps = quick_start();
    assert!(steps[0].line.starts_with("cargo install --locked --path "));
    assert!(steps.len() > 10, "the quick start is not where it was");
    for step in &steps[1..] {
        let said = place.run_in_shell(&step.line).succeeded();
        let lines: Vec<_> = said.out.lines().collect();
        assert_eq!(
            (lines.len(), &*said.err),
            (step.shown.len(), ""),
            "{said:?}"
        );
        for (shown, said) in step.shown.iter().zip(lines) {
            assert!(alike(shown, said), "README: {shown}\nhere:   {said}");
        }
    }
}

#[test]
fn only_digests_and_durations_may_differ() {
    assert!(alike("a sha256:1 in 78 ms", "a sha256:2 in 1.2 s"));
    assert!(alike("64M memory", "65M memory"));
    for (shown, said) in [
        ("2 files", "3 files"),
        ("64.0 MiB new", "13.0 MiB new"),
        ("in 78 ms", "in 78 ms more"),
        ("64M memory", "66M memory"),
        ("64M memory", "1024M memory"),
        ("a", "b"),
        ("1", "2"),
    ] {
        assert!(!alike(shown, said), "{shown} / {said}");
    }
}
