//! Walls between the rooms of the house: what may import what, who speaks to the system, what a reader finds where.
//!
//! The code is read as text, without comments and without tests, so that nothing has to be built for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of the library, the lowest first: each may import those before it.
const ROOMS: [&str; 37] = [
    "lock",
    "words",
    "format",
    "fs",
    "pass",
    "rate",
    "patience",
    "pace",
    "tls",
    "threads",
    "http",
    "activity",
    "limit",
    "catalog",
    "confirmation",
    "metrics",
    "store",
    "diagnose",
    "inspect",
    "transport",
    "registry",
    "config",
    "remote",
    "snapshot",
    "restore",
    "opened",
    "mount",
    "convert",
    "read",
    "rebuild",
    "verify",
    "gc",
    "prune",
    "reports",
    "snapshotter",
    "fuzzing",
    "lib",
];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// A production file: its path below `crates/`, how long it is without inline tests, and its lines without comments too.
struct Source {
    path: String,
    length: usize,
    lines: Vec<(usize, String)>,
}

impl Source {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let code = text
            .split_once("#[cfg(test)]\nmod tests {")
            .map_or(text.as_str(), |(code, _)| code);
        let lines = code.lines().enumerate();
        Self {
            length: code.lines().count(),
            path: path
                .strip_prefix(crates())
                .unwrap()
                .to_string_lossy()
                .into_owned(),
            lines: lines
                .filter(|(_, line)| !line.trim_start().starts_with("//"))
                .map(|(number, line)| (number + 1, line.to_owned()))
                .collect(),
        }
    }

    /// The file or directory directly below `src/` that it is in.
    fn room(&self) -> &str {
        let (_, inside) = self.path.split_once("/src/").unwrap();
        let room = inside.split('/').next().unwrap();
        let room = room.strip_suffix(".rs").unwrap_or(room);
        if room == "remote_absent" {
            "remote"
        } else {
            room
        }
    }

    /// Where a line is that `is_wrong`.
    fn faults(&self, is_wrong: impl Fn(&str) -> bool) -> Vec<String> {
        let wrong = self.lines.iter().filter(|(_, line)| is_wrong(line));
        wrong
            .map(|(number, line)| format!("{}:{number}: {}", self.path, line.trim()))
            .collect()
    }
}

fn visit(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            visit(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

fn sources(of: &str) -> Vec<Source> {
    let mut found = Vec::new();
    visit(&crates().join(of).join("src"), &mut found);
    found.sort();
    assert!(found.len() > 20, "{found:?}");
    found.iter().map(|path| Source::read(path)).collect()
}

fn all_sources() -> Vec<Source> {
    [sources("snapshotter"), sources("snapshotter-cli")]
        .into_iter()
        .flatten()
        .collect()
}

/// The rooms that a line names by `crate::`.
fn imports(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("crate::").map(|(at, prefix)| {
        let rest = &line[at + prefix.len()..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
        &rest[..end.unwrap_or(rest.len())]
    })
}

#[track_caller]
fn assert_none(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn imports_go_downward_only() {
    let level = |room: &str| ROOMS.iter().position(|known| *known == room);
    let mut faults = Vec::new();
    for source in sources("snapshotter") {
        let own = level(source.room());
        assert!(own.is_some(), "{} is in no room", source.path);
        faults.extend(source.faults(|line| {
            let mut rooms = imports(line).filter_map(level);
            rooms.any(|imported| Some(imported) > own)
        }));
    }
    assert_none(&faults);
}

/// The numbers of the system's errors may be named anywhere.
fn speaks_to_the_system(line: &str) -> bool {
    let is_number = |(at, prefix): (usize, &str)| {
        let name = &line[at + prefix.len()..];
        name.starts_with('E') && name.chars().nth(1).is_some_and(|c| c.is_ascii_uppercase())
    };
    line.contains("rustix::")
        || line.contains("unsafe ")
        || !line.match_indices("libc::").all(is_number)
}

#[test]
fn one_room_speaks_to_the_system() {
    let outside = sources("snapshotter")
        .into_iter()
        .filter(|source| source.room() != "fs");
    let faults: Vec<_> = outside
        .flat_map(|source| source.faults(speaks_to_the_system))
        .collect();
    assert_none(&faults);
}

#[test]
fn a_thread_that_cannot_be_had_is_no_panic() {
    let panics = |line: &str| line.contains("thread::spawn(") || line.contains("scope.spawn(");
    let faults: Vec<_> = all_sources()
        .iter()
        .flat_map(|source| source.faults(panics))
        .collect();
    assert_none(&faults);
}

/// Longer than a file should be, each still to be divided. This list only gets shorter.
const LONG: [&str; 3] = [
    // A table: a key is a row.
    "snapshotter-cli/src/settings/table.rs",
    "snapshotter/src/fs/dir.rs",
    "snapshotter/src/snapshot/capture.rs",
];

#[test]
fn files_are_short() {
    let sources = all_sources();
    let long = sources.iter().filter(|source| source.length > 400);
    let paths: BTreeSet<_> = long.map(|source| source.path.as_str()).collect();
    assert_eq!(paths, BTreeSet::from(LONG));
}

/// Every room is in the layout of ARCHITECTURE.md, and whatever that names is there.
#[test]
fn the_layout_is_the_one_that_is_described() {
    let page = fs::read_to_string(crates().join("../ARCHITECTURE.md")).unwrap();
    let (_, layout) = page.split_once("## Layout of the code").unwrap();
    let (layout, _) = layout.split_once("\n## ").unwrap();
    let described: BTreeSet<String> = layout
        .lines()
        .filter(|line| line.starts_with("    ") && !line.starts_with("     "))
        .flat_map(|line| {
            let (names, _) = line.trim().split_once("  ").unwrap();
            names.split(", ").map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    let mut there = BTreeSet::new();
    for of in ["snapshotter", "snapshotter-cli"] {
        for entry in fs::read_dir(crates().join(of).join("src")).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            there.insert(if entry.path().is_dir() {
                format!("{name}/")
            } else {
                name
            });
        }
    }
    let missing: Vec<_> = described.symmetric_difference(&there).collect();
    assert!(
        missing.is_empty(),
        "described or there, not both: {missing:?}"
    );
}
