//! A month of two nodes: machines that are paused every day, move, are killed in the middle of a checkpoint; versions that are
//! pruned here and in the registry, both collectors, and clocks that jump. At its end every version that the rules keep
//! restores, and bucket and disks hold at most 1.2 times what those need.
//!
//! Each step is the command itself, under `faketime`. The place of contents gets a day older each day by its files' times, so
//! that the collector's grace passes as it would. `SNAPSHOTTER_MONTH_MACHINES=1000` makes it as large as a node is, and
//! `SNAPSHOTTER_MONTH_COMMAND` another build of the command.

use crate::support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use support::Place;
use testkit::clock::Clock;
use testkit::prng::Prng;
use testkit::registry::or_skip;

const DAYS: u32 = 30;
const PAGES: u64 = 24;
const NODES: [&str; 2] = ["a", "b"];
const KEEP: [&str; 7] = [
    "prune",
    "--all",
    "--keep-last=2",
    "--keep-daily=3",
    "--keep-weekly=2",
    "--keep-version=golden-*",
    "--json",
];

/// A machine: what its memory has, and the node that it is on.
struct Machine {
    name: String,
    node: usize,
    pages: Vec<u64>,
    versions: u32,
}

struct Month {
    place: Place,
    clock: Clock,
    random: Prng,
    machines: Vec<Machine>,
    /// What each version's memory has, and the day that it says.
    taken: BTreeMap<String, (Vec<u64>, i64)>,
    day: u32,
}

#[test]
fn after_a_month_what_the_rules_keep_is_there_and_little_else() {
    let Some(clock) = or_skip(Clock::find()) else {
        return;
    };
    let mut month = Month::new(clock, number("SNAPSHOTTER_MONTH_MACHINES", 6));
    for day in 0..DAYS {
        month.day = day;
        month.pass_a_day();
    }
    month.clear_up();
    let kept = month.kept();
    month.assert_the_rules_were_kept(&kept);
    month.assert_all_restore(&kept);
    month.assert_the_bucket_is_small(&kept);
    month.assert_the_disks_are_small();
}

fn number(name: &str, default: usize) -> usize {
    let set = std::env::var(name).ok();
    set.map_or(default, |value| value.parse().unwrap())
}

impl Month {
    fn new(clock: Clock, machines: usize) -> Self {
        let place = Place::with_registry();
        for end in ["place", "copy", "all-of-a", "all-of-b"] {
            fs::create_dir_all(place.path(format!("{end}-contents"))).unwrap();
            let text = format!(
                "[registry]\nendpoint = \"oci-layout:{registry}\"\nnamespace = \"team\"\n\
                 [content]\nprovider = \"fs\"\nroot = \"{contents}\"\n",
                registry = place.path(format!("{end}-registry")).display(),
                contents = place.path(format!("{end}-contents")).display(),
            );
            fs::write(place.path(format!("{end}.toml")), text).unwrap();
        }
        let place = ["ENDPOINT", "NAMESPACE"]
            .into_iter()
            .fold(place, |place, name| {
                place.unset(&format!("SNAPSHOTTER_REGISTRY_{name}"))
            })
            .unset("SNAPSHOTTER_CONTENT_PROVIDER")
            .unset("SNAPSHOTTER_CONTENT_ROOT");
        let mut random = Prng::new(31);
        let machines = (0..machines).map(|number| Machine {
            name: format!("machine-{number}"),
            node: number % NODES.len(),
            pages: (0..PAGES).map(|_| random.number()).collect(),
            versions: 0,
        });
        Self {
            machines: machines.collect(),
            place,
            clock,
            random,
            taken: BTreeMap::new(),
            day: 0,
        }
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random.below(100) < percent
    }

    /// The day by a node's clock: one is three days ahead on the tenth day, and two behind on the twentieth.
    fn today(&self, node: usize) -> i64 {
        let jump = match (node, self.day) {
            (0, 10) => 3,
            (0, 20) => -2,
            _ => 0,
        };
        i64::from(self.day) + jump
    }

    /// The command on a node, by that node's clock.
    fn on(&self, node: usize, args: &[&str]) -> Command {
        let day = self.today(node) + 5;
        let (month, day) = (1 + day / 28, 1 + day % 28);
        let built = std::env::var("SNAPSHOTTER_MONTH_COMMAND");
        let built = built.unwrap_or_else(|_| env!("CARGO_BIN_EXE_snapshotter").to_owned());
        let mut command = self.place.program(built, args);
        command
            .env("SNAPSHOTTER_ROOT_DIR", self.place.path(NODES[node]))
            .args(["--config", "place.toml"]);
        let time = format!("2026-{month:02}-{day:02} 10:00:00");
        self.clock.set(&mut command, &time);
        command
    }

    fn run(&self, node: usize, args: &[&str]) -> String {
        self.place.said(&mut self.on(node, args)).succeeded().out
    }

    /// Starts it and kills it after a while, if it is still there.
    fn kill(&mut self, node: usize, args: &[&str]) {
        let after = Duration::from_micros(self.random.below(40_000));
        let mut command = self.on(node, args);
        command.stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(after);
        let _ = child.kill();
        child.wait().unwrap();
    }

    fn pass_a_day(&mut self) {
        for index in 0..self.machines.len() {
            if self.chance(60) {
                self.pause(index);
            }
            if self.chance(10) {
                self.move_away(index);
            }
        }
        self.tidy_up();
        self.grow_older();
    }

    /// Works, and takes a checkpoint of a machine.
    fn pause(&mut self, index: usize) {
        let (page, number) = (self.random.below(PAGES), self.random.number());
        let machine = &mut self.machines[index];
        machine.pages[page as usize] = number;
        machine.versions += 1;
        let word = if machine.versions % 9 == 4 {
            "golden"
        } else {
            "v"
        };
        let reference = format!("{}:{word}-{}", machine.name, machine.versions);
        let (node, pages) = (machine.node, machine.pages.clone());
        let source = self.source(index);
        fs::create_dir_all(self.place.path(&source)).unwrap();
        fs::write(self.place.path(&source).join("memory"), memory(&pages)).unwrap();
        let take = ["snapshot", &reference, &source, "--format", "v2", "--quiet"];
        if self.chance(8) {
            self.kill(node, &take);
        }
        // Whatever became of the first try.
        let again = [&take[..], &["--force"]].concat();
        self.run(node, &again);
        let today = self.today(node);
        self.taken.insert(reference, (pages, today));
    }

    /// Where a machine's files are; another directory on each node.
    fn source(&self, index: usize) -> String {
        let machine = &self.machines[index];
        format!("files-{}/{}", NODES[machine.node], machine.name)
    }

    /// Resumes a machine's newest checkpoint on the other node.
    fn move_away(&mut self, index: usize) {
        let name = self.machines[index].name.clone();
        // By a clock that was behind, the last one taken may be older than those that the rules keep, and have gone.
        let here = match self.taken.range(name.clone() + ":"..).next() {
            Some((first, _)) if first.starts_with(&(name.clone() + ":")) => {
                self.listed(0, &["--remote", &name])
            }
            _ => return,
        };
        let number = |reference: &str| -> u32 {
            let (_, number) = reference.rsplit_once('-').unwrap();
            number.parse().unwrap()
        };
        let newest = here.into_iter().max_by_key(|one| number(one)).unwrap();
        let pages = self.taken[&newest].0.clone();
        let machine = &mut self.machines[index];
        machine.node = 1 - machine.node;
        machine.pages.clone_from(&pages);
        let (node, output) = (machine.node, self.source(index));
        let restore = ["restore", &newest, &output, "--quiet"];
        if self.chance(10) {
            self.kill(node, &restore);
        }
        self.run(node, &restore);
        let is = fs::read(self.place.path(&output).join("memory")).unwrap();
        assert_eq!(is, memory(&pages), "{newest}");
    }

    /// What a timer does each night.
    fn tidy_up(&mut self) {
        for node in 0..NODES.len() {
            if self.chance(20) {
                self.kill(node, &KEEP);
            }
            self.run(node, &KEEP);
            let gc = ["gc", "--max-bytes=2MiB", "--retention=0"];
            if self.chance(20) {
                self.kill(node, &gc);
            }
            self.run(node, &gc);
        }
        self.run(0, &[&KEEP[..], &["--remote"]].concat());
        if self.day.is_multiple_of(2) {
            self.collect_remote();
        }
    }

    fn collect_remote(&mut self) {
        let collect = ["gc", "--remote", "--grace=12h", "--no-other-publishers"];
        if self.chance(30) {
            self.kill(1, &collect);
            // It is waited for for five minutes.
            self.grow_older();
        }
        self.run(0, &collect);
    }

    /// Makes everything in the bucket a day older.
    fn grow_older(&self) {
        for file in files_in(&self.place.path("place-contents")) {
            let file = File::open(file).unwrap();
            let modified = file.metadata().unwrap().modified().unwrap();
            let before = modified - Duration::from_secs(24 * 3600);
            file.set_times(FileTimes::new().set_modified(before))
                .unwrap();
        }
    }

    fn clear_up(&mut self) {
        self.tidy_up();
        for _ in 0..3 {
            self.grow_older();
            self.collect_remote();
        }
    }

    fn listed(&self, node: usize, args: &[&str]) -> BTreeSet<String> {
        let said = self.run(node, &[&["list", "--json"], args].concat());
        let said: Value = serde_json::from_str(&said).unwrap();
        let all = said["snapshots"].as_array().unwrap();
        let names = all.iter().map(|one| one["reference"].as_str().unwrap());
        names.map(str::to_owned).collect()
    }

    /// What the registry has.
    fn kept(&self) -> BTreeSet<String> {
        self.listed(0, &["--remote"])
    }

    /// The rules as a reader of their names would apply them: what is golden stays, and what each machine's last day has.
    fn assert_the_rules_were_kept(&self, kept: &BTreeSet<String>) {
        for machine in &self.machines {
            for number in 1..=machine.versions {
                let word = if number % 9 == 4 { "golden" } else { "v" };
                let reference = format!("{}:{word}-{number}", machine.name);
                if word == "golden" {
                    assert!(kept.contains(&reference), "{reference} went");
                }
            }
            let prefix = format!("{}:", machine.name);
            let of_it = self
                .taken
                .iter()
                .filter(|(one, _)| one.starts_with(&prefix));
            // Of two that say one day, either.
            let last = of_it.clone().map(|(_, (_, day))| *day).max();
            let mut newest = of_it.filter(|(_, (_, day))| Some(*day) == last).peekable();
            let stays = newest.peek().is_none() || newest.any(|(one, _)| kept.contains(one));
            assert!(stays, "nothing of {}'s last day is left", machine.name);
            let count = kept.iter().filter(|one| one.starts_with(&prefix)).count();
            assert!(count <= 10, "{count} of {} stay", machine.name);
        }
    }

    fn assert_all_restore(&self, kept: &BTreeSet<String>) {
        for (number, reference) in kept.iter().enumerate() {
            let output = format!("restored-{number}");
            let mut restore = self.on(0, &["restore", reference, &output, "--quiet"]);
            let fresh = self.place.path("fresh");
            self.place
                .said(restore.env("SNAPSHOTTER_ROOT_DIR", fresh))
                .succeeded();
            self.assert_is(reference, &output);
        }
        for node in 0..NODES.len() {
            for (number, reference) in self.listed(node, &[]).iter().enumerate() {
                let output = format!("restored-{node}-{number}");
                self.run(node, &["restore", reference, &output, "--quiet"]);
                self.assert_is(reference, &output);
            }
        }
    }

    fn assert_is(&self, reference: &str, output: &str) {
        let output = self.place.path(output);
        let is = fs::read(output.join("memory")).unwrap();
        assert_eq!(is, memory(&self.taken[reference].0), "{reference}");
        fs::remove_dir_all(output).unwrap();
    }

    /// What else there is than what the kept ones alone take where they are copied to.
    fn assert_the_bucket_is_small(&self, kept: &BTreeSet<String>) {
        let kept: Vec<&str> = kept.iter().map(String::as_str).collect();
        for some in kept.chunks(100) {
            let copy = ["copy", "--from", "place.toml", "--to", "copy.toml"];
            let mut command = self.place.command([&copy[..], some].concat());
            self.place.said(&mut command).succeeded();
        }
        let packs = |end: &str| length(&self.place.path(format!("{end}-contents/packs")));
        assert!(packs("copy") > 0);
        assert_at_most(packs("place"), packs("copy"), "the bucket");
    }

    /// What else there is than what its snapshots take where they are published to.
    fn assert_the_disks_are_small(&self) {
        for (node, name) in NODES.into_iter().enumerate() {
            let all = format!("all-of-{name}");
            for reference in self.listed(node, &[]) {
                let config = format!("{all}.toml");
                let push = ["push", &reference, "--quiet", "--config", &config];
                self.place.on(name, push).succeeded();
            }
            let is = length(&self.place.path(name).join("storage"));
            let needed = length(&self.place.path(format!("{all}-contents/packs")));
            assert_at_most(is, needed, "a disk");
        }
    }
}

#[expect(
    clippy::print_stdout,
    reason = "who runs it at full size wants to know how near it is"
)]
fn assert_at_most(is: u64, needed: u64, what: &str) {
    println!("{what}: {is} / {needed}");
    assert!(is * 10 <= needed * 12, "{what}: {is} / {needed}");
}

/// A machine's memory.
fn memory(pages: &[u64]) -> Vec<u8> {
    let mut bytes = vec![0; pages.len() * 4096];
    for (page, number) in bytes.chunks_exact_mut(4096).zip(pages) {
        Prng::new(*number).fill(page);
    }
    bytes
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| match path.is_dir() {
            true => files_in(&path),
            false => vec![path],
        })
        .collect()
}

fn length(dir: &Path) -> u64 {
    let files = files_in(dir);
    files
        .iter()
        .map(|file| fs::metadata(file).unwrap().len())
        .sum()
}
