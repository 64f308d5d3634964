//! Files that are differences: what they leave out is as in the parent, what they have is what is meant, zeros too, and one whose
//! holes cannot be believed is refused.

use crate::support_b;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use snapshotter::{
    ContentId, Error, ErrorKind, Format, ParentChoice, Reference, SnapshotReport, SnapshotRequest,
};
use support_b::outside::assert_at_rest;
use support_b::{Handle, refusal};
use testkit::compare::{Holes, Options, assert_same_with};
use testkit::mount::{Kind, LoopMount, OverlayMount, TmpfsMount, or_skip};
use testkit::prng::Prng;

const PAGE: u64 = 4096;
const PAGES: u64 = 700;

/// What a monitor does: a memory, and a file of the pages that have changed since it was last asked for them.
struct Machine {
    handle: Handle,
    root: PathBuf,
    /// With all of the memory.
    whole: PathBuf,
    /// With what has changed.
    changed: PathBuf,
    random: Prng,
}

impl Machine {
    /// With its files below `dir`, and `whole:v1` taken of it. Its last page is part of one.
    fn new(dir: &Path) -> (Self, Reference) {
        let at = |name: &str| dir.join(name);
        fs::create_dir(at("whole")).unwrap();
        fs::create_dir(at("changed")).unwrap();
        let mut machine = Self {
            handle: Handle::open(&at("root")).unwrap(),
            root: at("root"),
            whole: at("whole"),
            changed: at("changed"),
            random: Prng::new(11),
        };
        for name in ["memory", "small"] {
            let file = File::create_new(machine.whole.join(name)).unwrap();
            file.set_len(machine.size(name)).unwrap();
            for page in (0..machine.size(name) / PAGE).filter(|page| page % 5 != 4) {
                file.write_all_at(&machine.page(), page * PAGE).unwrap();
            }
            file.write_all_at(b"the end", machine.size(name) - 7)
                .unwrap();
        }
        fs::write(machine.whole.join("state"), "state").unwrap();
        machine.empty();
        let taken = machine
            .handle
            .snapshot(&paged("whole", "v1", &machine.whole));
        (machine, taken.unwrap().reference)
    }

    fn size(&self, name: &str) -> u64 {
        if name == "small" {
            9 * PAGE + 100
        } else {
            PAGES * PAGE + 100
        }
    }

    fn page(&mut self) -> Vec<u8> {
        let mut page = vec![0; PAGE as usize];
        self.random.fill(&mut page);
        page
    }

    /// Nothing has changed yet.
    fn empty(&self) {
        for name in ["memory", "small"] {
            let file = File::create(self.changed.join(name)).unwrap();
            file.set_len(self.size(name)).unwrap();
        }
        fs::copy(self.whole.join("state"), self.changed.join("state")).unwrap();
    }

    fn write(&self, name: &str, at: u64, bytes: &[u8]) {
        for dir in [&self.whole, &self.changed] {
            let file = File::options().write(true).open(dir.join(name)).unwrap();
            file.write_all_at(bytes, at).unwrap();
        }
    }

    fn change(&mut self, pages: impl IntoIterator<Item = u64>) {
        for at in pages {
            let page = self.page();
            self.write("memory", at * PAGE, &page);
        }
    }

    fn diff(&self, version: &str, parent: &Reference) -> SnapshotRequest {
        paged("diff", version, &self.changed)
            .file(snapshotter::File::new("."))
            .file(snapshotter::File::new("memory").diff(true))
            .file(snapshotter::File::new("small").diff(true))
            .parent(ParentChoice::Snapshot(parent.clone()))
    }

    fn refused(&self, request: &SnapshotRequest) -> Error {
        let before = self.handle.listed();
        let error = refusal(self.handle.snapshot(request));
        assert_eq!(self.handle.listed(), before);
        assert!(error.hint().is_some(), "{error:?}");
        error
    }
}

fn paged(name: &str, version: &str, base: &Path) -> SnapshotRequest {
    SnapshotRequest::new(name, version, base).format(Format::V2)
}

fn contents(handle: &Handle, report: &SnapshotReport) -> Vec<Option<ContentId>> {
    let details = handle.inspect(&report.reference.to_string()).unwrap();
    details.files.iter().map(|file| file.content).collect()
}

/// A file of changes and the whole file are one content, at each step of a chain.
fn differences_are_whole(dir: &Path) {
    let (mut machine, mut parent) = Machine::new(dir);
    for (number, pages) in [vec![0, 1, 2, 300, 4], vec![1, 500], vec![], vec![PAGES - 1]]
        .into_iter()
        .enumerate()
    {
        machine.empty();
        machine.change(pages);
        // Zeros that are written are zeros, where there were some and where there were none.
        machine.write(
            "memory",
            (100 + number as u64) * PAGE,
            &[0; 2 * PAGE as usize],
        );
        machine.write("small", 3 * PAGE, &[number as u8; PAGE as usize]);
        if number == 1 {
            machine.write("memory", PAGES * PAGE, &[9; 100]);
        }
        let version = format!("v{}", number + 2);
        let diff = machine.handle.snapshot(&machine.diff(&version, &parent));
        let diff = diff.unwrap();
        let whole = paged("whole", &version, &machine.whole);
        let whole = whole.parent(ParentChoice::Snapshot(parent.clone()));
        let whole = machine.handle.snapshot(&whole).unwrap();
        assert_eq!(
            contents(&machine.handle, &diff),
            contents(&machine.handle, &whole),
            "{version}"
        );
        let (said, all) = (diff.paged.clone().unwrap(), whole.paged.unwrap());
        assert_eq!(said.changed_pages, all.changed_pages);
        assert_eq!(said.stored_pages, all.stored_pages);
        assert!(said.inherited_bytes > 500 * PAGE, "{said:?}");
        assert_eq!(all.inherited_bytes, 0);
        assert_eq!(diff.logical_bytes, whole.logical_bytes);
        // Its own lineage goes on from it, and it needs nobody else.
        machine.handle.remove(&format!("whole:{version}")).unwrap();
        machine.handle.remove(&parent.to_string()).unwrap();
        let output = dir.join("output");
        machine
            .handle
            .restore(&diff.reference.to_string(), &output)
            .unwrap();
        let options = Options {
            holes: Holes::NoMoreDataThan,
            mtime: false,
            ..Options::default()
        };
        assert_same_with(&machine.whole, &output, &options);
        fs::remove_dir_all(&output).unwrap();
        parent = diff.reference;
    }
    machine.handle.assert_clean();
    machine.handle.close().unwrap();
    assert_at_rest(&machine.root);
}

#[test]
fn a_difference_is_the_whole_file_on_every_filesystem_that_tells_holes() {
    for kind in [Kind::Ext4, Kind::Xfs, Kind::Btrfs] {
        if let Some(mount) = or_skip(LoopMount::new(kind, 512 << 20, &[])) {
            differences_are_whole(mount.path());
        }
    }
    if let Some(mount) = or_skip(TmpfsMount::new(256 << 20)) {
        differences_are_whole(mount.path());
    }
}

/// A chain of differences gives up old packs as one of whole files does: what is still needed of them is stored anew, from there.
#[test]
fn a_chain_of_differences_gives_up_old_packs() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, parent) = Machine::new(dir.path());
    let (mut diffs, mut wholes) = (parent.clone(), parent);
    let mut anew = 0;
    for step in 0..25_u64 {
        machine.empty();
        machine.change((0..100).map(|page| (step * 60 + page) % PAGES));
        let version = format!("v{}", step + 2);
        let diff = machine.handle.snapshot(&machine.diff(&version, &diffs));
        let diff = diff.unwrap();
        let whole = paged("whole", &version, &machine.whole);
        let whole = whole.parent(ParentChoice::Snapshot(wholes.clone()));
        let whole = machine.handle.snapshot(&whole).unwrap();
        let files = contents(&machine.handle, &diff);
        assert_eq!(files, contents(&machine.handle, &whole), "{version}");
        let counts = [&diff, &whole].map(|report| {
            let paged = report.paged.clone().unwrap();
            (paged.changed_pages, paged.stored_pages, paged.packs)
        });
        assert_eq!(counts[0], counts[1], "{version}");
        anew += counts[0].1 - 100;
        (diffs, wholes) = (diff.reference, whole.reference);
    }
    assert!(anew > 100, "{anew}");
    let output = dir.path().join("output");
    machine.handle.restore(&diffs.to_string(), &output).unwrap();
    for name in ["memory", "small"] {
        let [wanted, found] = [&machine.whole, &output].map(|dir| fs::read(dir.join(name)));
        assert!(wanted.unwrap() == found.unwrap(), "{name}");
    }
    machine.handle.assert_clean();
}

/// The list of the parent's page digests is a cache: without it, it is made again.
#[test]
fn without_the_parents_page_digests_the_content_is_known_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, parent) = Machine::new(dir.path());
    machine.change([7, 9]);
    for list in fs::read_dir(machine.root.join("digests")).unwrap() {
        fs::remove_file(list.unwrap().path()).unwrap();
    }
    let diff = machine
        .handle
        .snapshot(&machine.diff("v2", &parent))
        .unwrap();
    let whole = machine
        .handle
        .snapshot(&paged("whole", "v2", &machine.whole));
    let whole = contents(&machine.handle, &whole.unwrap());
    assert!(whole.iter().all(Option::is_some));
    assert_eq!(contents(&machine.handle, &diff), whole);
}

#[test]
fn a_difference_to_nothing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, parent) = Machine::new(dir.path());
    machine.change([7, 9]);
    let good = machine.diff("v2", &parent);
    let mut nameless = Vec::new();
    for parent in [
        ParentChoice::Origin,
        ParentChoice::Latest,
        ParentChoice::None,
        ParentChoice::Snapshot("whole:v1".parse().unwrap()),
    ] {
        nameless.push(good.clone().parent(parent));
    }
    nameless.push(good.clone().format(Format::V1));
    for request in nameless {
        let error = machine.refused(&request);
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.path(), Some(Path::new("memory")));
    }
    // Another snapshot of that name by now.
    let other = format!("whole:v1@sha256:{}", "0".repeat(64));
    let other = good
        .clone()
        .parent(ParentChoice::Snapshot(other.parse().unwrap()));
    let error = refusal(machine.handle.snapshot(&other));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    // One that lacks a file.
    fs::remove_file(machine.whole.join("small")).unwrap();
    let lacking = machine
        .handle
        .snapshot(&paged("lacking", "v1", &machine.whole));
    let lacking = machine.diff("v2", &lacking.unwrap().reference);
    let error = machine.refused(&lacking);
    assert_eq!(error.path(), Some(Path::new("small")));
    assert!(error.to_string().contains("does not have it"), "{error}");
    // One of format v1.
    let v1 = paged("files", "v1", &machine.whole).format(Format::V1);
    let v1 = machine.handle.snapshot(&v1).unwrap().reference;
    let error = machine.refused(&machine.diff("v2", &v1));
    assert!(error.to_string().contains("convert"), "{error}");
    // Another size, a directory, both at once.
    let memory = File::options()
        .write(true)
        .open(machine.changed.join("memory"));
    memory
        .as_ref()
        .unwrap()
        .set_len(machine.size("memory") + 1)
        .unwrap();
    let error = machine.refused(&good);
    assert!(error.to_string().contains("another size"), "{error}");
    memory.unwrap().set_len(machine.size("memory")).unwrap();
    fs::create_dir(machine.changed.join("dir")).unwrap();
    let directory = snapshotter::File::new("dir").diff(true);
    refuses(&machine, &good.clone().file(directory));
    let whole = snapshotter::File::new("memory");
    refuses(&machine, &good.clone().file(whole));
    // And all of it is good after all.
    machine.handle.snapshot(&good).unwrap();
}

/// A second name of a difference was taken as the same content as the first, whatever the parent has under it.
#[test]
fn a_difference_with_names_that_are_not_the_parents_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, parent) = Machine::new(dir.path());
    machine.change([7, 9]);
    let link = |dir: &Path, name: &str| fs::hard_link(dir.join("memory"), dir.join(name)).unwrap();
    link(&machine.changed, "other");
    let refused = machine.diff("v2", &parent);
    let error = machine.refused(&refused);
    assert_eq!(error.path(), Some(Path::new("memory")));
    assert!(error.to_string().contains("further names"), "{error}");
    // A file of its own there, of the same size.
    fs::copy(machine.whole.join("memory"), machine.whole.join("other")).unwrap();
    let apart = machine
        .handle
        .snapshot(&paged("whole", "v3", &machine.whole));
    let error = machine.refused(&machine.diff("v2", &apart.unwrap().reference));
    assert!(error.to_string().contains("further names"), "{error}");
    // One file with both names there too.
    fs::remove_file(machine.whole.join("other")).unwrap();
    link(&machine.whole, "other");
    let one = machine
        .handle
        .snapshot(&paged("whole", "v4", &machine.whole));
    let diff = machine.diff("v2", &one.unwrap().reference);
    machine.handle.snapshot(&diff).unwrap();
    machine.handle.assert_clean();
}

fn refuses(machine: &Machine, request: &SnapshotRequest) {
    let error = refusal(machine.handle.snapshot(request));
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// A guest's memory was zeroed by a difference that `cp` had filled with zeros.
#[test]
fn a_copy_that_lost_its_holes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, parent) = Machine::new(dir.path());
    machine.change([7, 9]);
    let memory = machine.changed.join("memory");
    let full = dir.path().join("full");
    let copied = Command::new("cp")
        .arg("--sparse=never")
        .args([&memory, &full])
        .status();
    assert!(copied.unwrap().success());
    assert!(fs::metadata(&full).unwrap().blocks() * 512 >= machine.size("memory"));
    fs::rename(&full, &memory).unwrap();
    let error = machine.refused(&machine.diff("v2", &parent));
    assert_eq!(error.path(), Some(Path::new("memory")));
    assert!(error.to_string().contains("no holes"), "{error}");
}

#[test]
fn holes_that_do_not_go_by_pages_are_refused() {
    let small = LoopMount::formatted(Kind::Ext4, 256 << 20, &["-b", "1024"], &[]);
    let Some(mount) = or_skip(small) else { return };
    let (machine, parent) = Machine::new(mount.path());
    machine.write("memory", 9 * PAGE + 1024, &[1; 1024]);
    let error = machine.refused(&machine.diff("v2", &parent));
    assert!(error.to_string().contains("where pages do"), "{error}");
    // All of a page is one.
    machine.write("memory", 9 * PAGE, &[1; PAGE as usize]);
    machine
        .handle
        .snapshot(&machine.diff("v2", &parent))
        .unwrap();
}

#[test]
fn filesystems_that_are_not_known_to_tell_holes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, parent) = Machine::new(dir.path());
    machine.change([7]);
    let at = |name: &str| dir.path().join(name);
    for name in ["upper", "work"] {
        fs::create_dir(at(name)).unwrap();
    }
    let mount = OverlayMount::new(&machine.changed, &at("upper"), &at("work"));
    if let Some(mount) = or_skip(mount) {
        machine.changed = mount.path().to_owned();
        let error = machine.refused(&machine.diff("v2", &parent));
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    if let Some(mount) = or_skip(TmpfsMount::with_options(64 << 20, &["huge=always"])) {
        machine.changed = mount.path().to_owned();
        machine.empty();
        let error = machine.refused(&machine.diff("v2", &parent));
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
}

/// What is taken over unread has to be there.
#[test]
fn a_parent_that_lacks_a_pack_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, parent) = Machine::new(dir.path());
    machine.change([7]);
    let packs = machine.root.join("storage/content/blake3/0000");
    for pack in fs::read_dir(&packs).unwrap() {
        fs::remove_file(pack.unwrap().path()).unwrap();
    }
    let error = refusal(machine.handle.snapshot(&machine.diff("v2", &parent)));
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!(machine.handle.listed(), ["whole:v1"]);
}
