//! README and the pages of `docs/` are what a shell shows: every block of shell in them is run, and has to do what the page says.
//!
//! Each page is one bash in a directory of its own, which gets the page's blocks in their order, so what a page needs it has to
//! make itself. A block is fenced and called `sh`. One with lines that begin with `$ ` is a session: each such line is run, and what
//! stands below has to be what it prints, but for what differs from run to run: digests and durations. Any other block has to
//! exit with 0. A block that cannot be run here says so and why in its first line, `# not run here: WHY`, which readers see; how
//! many there are is written down below, so that one more is noticed.

use crate::support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use support::Place;

/// A test for each page, and how many of its blocks are not run.
macro_rules! pages {
    ($($test:ident $page:literal $not_run:literal,)*) => {
        const PAGES: &[(&str, usize)] = &[$(($page, $not_run)),*];

        mod every_block_of_shell_does_what_is_said_in {
            $(#[test] fn $test() {
                if let Err(fault) = super::run(&super::pages()[$page]) {
                    panic!("{}, {fault}", $page);
                }
            })*
        }
    };
}

pages! {
    readme "README.md" 1,
    benchmarks "docs/benchmarks.md" 0,
    checkpoints "docs/checkpoints.md" 0,
    collection "docs/collection.md" 0,
    criu "docs/criu.md" 2,
    disk "docs/disk.md" 1,
    dragonfly "docs/dragonfly.md" 6,
    firecracker "docs/firecracker.md" 3,
    format "docs/format.md" 0,
    go "docs/go.md" 0,
    json "docs/json.md" 1,
    kubernetes "docs/kubernetes.md" 2,
    library "docs/library.md" 1,
    mount "docs/mount.md" 3,
    nodes "docs/nodes.md" 2,
    packages "docs/packages.md" 1,
    qemu "docs/qemu.md" 3,
    reliability "docs/reliability.md" 1,
    settings "docs/settings.md" 0,
    systemd "docs/systemd.md" 1,
    workspaces "docs/workspaces.md" 1,
}

const NOT_RUN: &str = "# not run here: ";

/// What may be in a fence besides shell.
const OTHERS: [&str; 7] = ["go", "ini", "json", "rust", "text", "toml", "yaml"];

/// A block of shell, and the number of its first line.
struct Block {
    at: usize,
    lines: Vec<String>,
}

/// What is run as one, and what it is said to print, if anything is.
struct Step {
    at: usize,
    script: String,
    shown: Option<Vec<String>>,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The pages that there are, by their names, with their text.
fn pages() -> BTreeMap<String, String> {
    let docs = fs::read_dir(repository().join("docs")).unwrap();
    let names = docs.map(|entry| format!("docs/{}", entry.unwrap().file_name().display()));
    names
        .filter(|name| name.ends_with(".md"))
        .chain(["README.md".to_owned()])
        .map(|name| {
            let text = fs::read_to_string(repository().join(&name)).unwrap();
            (name, text)
        })
        .collect()
}

/// The blocks of shell of a page; an error for what looks like one and would not be run.
fn blocks(page: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut lines = (1..).zip(page.lines());
    while let Some((at, line)) = lines.next() {
        let bare = line.trim_start();
        let Some(info) = bare.strip_prefix("```") else {
            if line.starts_with("    ")
                && (bare.starts_with("$ ") || bare.starts_with("snapshotter "))
            {
                return Err(format!("line {at}: shell without a fence"));
            }
            continue;
        };
        let indent = line.len() - bare.len();
        let inside = lines.by_ref().map(|(_, line)| line);
        let text = inside.take_while(|line| line.trim() != "```");
        let lines: Vec<_> = text
            .map(|line| line.get(indent..).unwrap_or_default().to_owned())
            .collect();
        match info {
            "sh" => blocks.push(Block { at: at + 1, lines }),
            other if OTHERS.contains(&other) => {}
            other => return Err(format!("line {at}: what is `{other}`?")),
        }
    }
    Ok(blocks)
}

impl Block {
    fn is_run(&self) -> bool {
        !self.lines[0].starts_with(NOT_RUN)
    }

    fn steps(&self) -> Vec<Step> {
        if !self.lines.iter().any(|line| line.starts_with("$ ")) {
            return vec![Step {
                at: self.at,
                script: self.lines.join("\n"),
                shown: None,
            }];
        }
        let mut steps: Vec<Step> = Vec::new();
        for (at, line) in (self.at..).zip(&self.lines) {
            match line.strip_prefix("$ ") {
                Some(line) => steps.push(Step {
                    at,
                    script: line.to_owned(),
                    shown: Some(Vec::new()),
                }),
                None => {
                    let shown = steps.last_mut().and_then(|step| step.shown.as_mut());
                    shown.unwrap().push(line.clone());
                }
            }
        }
        steps
    }
}

/// Runs what a page says; an error names the line that does something else.
fn run(page: &str) -> Result<(), String> {
    let blocks = blocks(page)?;
    let steps: Vec<_> = blocks
        .iter()
        .filter(|block| block.is_run())
        .flat_map(Block::steps)
        .collect();
    let place = Place::new();
    fs::remove_dir_all(place.path("vm")).unwrap();
    // Beside the page's directory nothing would be removed with it.
    let said = place.path("said");
    fs::create_dir(&said).unwrap();
    // The directory has a name that readers can imagine.
    let home = place.path("");
    let script: String = steps
        .iter()
        .map(|step| {
            let to = said.join(step.at.to_string());
            let to = to.display();
            format!("{{\n{}\n}} >{to}.out 2>{to}.err\necho >{to}\n", step.script)
        })
        .collect();
    let shell = place.run_in_shell(&script);
    for step in &steps {
        let read = |kind: &str| {
            let path = said.join(format!("{}{kind}", step.at));
            let text = fs::read_to_string(path).unwrap_or_default();
            text.replace(home.to_str().unwrap(), "/home/me/")
        };
        let (out, err) = (read(".out"), read(".err"));
        let fault = |what: &str| {
            Err(format!(
                "line {}: {what}\n{}\n{out}{err}{}",
                step.at, step.script, shell.err
            ))
        };
        if !said.join(step.at.to_string()).exists() {
            return fault("failed");
        }
        let Some(shown) = &step.shown else { continue };
        let lines: Vec<_> = out.lines().collect();
        let is_alike = shown.len() == lines.len()
            && shown
                .iter()
                .zip(&lines)
                .all(|(shown, said)| alike(shown, said));
        if !is_alike || !err.is_empty() {
            return fault("printed something else");
        }
    }
    Ok(())
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
fn what_is_not_run_is_counted() {
    let counted: Vec<_> = pages()
        .into_iter()
        .map(|(name, text)| {
            let blocks = blocks(&text).unwrap();
            let not_run = blocks.iter().filter(|block| !block.is_run()).count();
            (name, not_run)
        })
        .collect();
    let expected: Vec<_> = PAGES
        .iter()
        .map(|(name, not_run)| ((*name).to_owned(), *not_run))
        .collect();
    assert_eq!(counted, expected);
}

#[test]
fn a_page_that_is_not_true_is_found() {
    let sh = |block: &str| format!("A page.\n\n```sh\n{block}\n```\n");
    for good in [
        sh("$ true\n$ echo a; echo b\na\nb"),
        sh("here=there") + &sh("$ echo $here\nthere"),
        sh("# not run here: it fails\nfalse"),
        sh("snapshotter --version"),
        "```toml\n$ x\n```\n".to_owned(),
    ] {
        assert_eq!(run(&good), Ok(()));
    }
    for bad in [
        sh("false"),
        sh("# not run\nfalse"),
        sh("$ false"),
        sh("$ echo a\nb"),
        sh("$ echo a"),
        sh("$ true\na"),
        sh("$ echo a >&2"),
        sh("exit 0") + &sh("true"),
        sh("$ ( "),
        "```\ntrue\n```\n".to_owned(),
        "A page.\n\n    $ true\n".to_owned(),
        "A page.\n\n    snapshotter list\n".to_owned(),
    ] {
        assert!(run(&bad).is_err(), "{bad}");
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
