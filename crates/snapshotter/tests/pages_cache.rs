//! Cache entries: restores of format v2 are links and clones of them where they can be, give what decoding gives, and nothing
//! relies on an entry being there or being right.

use crate::support_a::files_below;
use crate::support_b;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use snapshotter::{Cache, Config, Format, RestoreReport};
use support_b::outside::{assert_at_rest, content, names};
use support_b::{Handle, request};
use testkit::compare::{Holes, Options, assert_same_with};
use testkit::mount::{Kind, LoopMount, or_skip};
use testkit::prng::Prng;

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// A directory on a filesystem that clones, with a memory in it that is part hole.
struct Node {
    mount: LoopMount,
    random: Prng,
}

impl Node {
    fn new(kind: Kind) -> Option<Self> {
        let mount = or_skip(LoopMount::new(kind, 512 * MIB, &[]))?;
        let mut node = Self {
            mount,
            random: Prng::new(7),
        };
        fs::create_dir(node.source()).unwrap();
        let memory = File::create_new(node.memory()).unwrap();
        memory.set_len(1024 * PAGE).unwrap();
        node.write(&(0..700).collect::<Vec<_>>());
        fs::write(node.source().join("state"), "state").unwrap();
        Some(node)
    }

    fn source(&self) -> PathBuf {
        self.mount.path().join("source")
    }

    fn memory(&self) -> PathBuf {
        self.source().join("memory")
    }

    fn root(&self) -> PathBuf {
        self.mount.path().join("root")
    }

    fn output(&self, name: &str) -> PathBuf {
        self.mount.path().join(name)
    }

    fn handle(&self, cache: impl FnOnce(&mut Cache)) -> Handle {
        let mut bounds = Cache::default();
        cache(&mut bounds);
        Handle::with(Config::new(self.root()).cache(bounds)).unwrap()
    }

    /// New bytes in these pages of the memory.
    fn write(&mut self, pages: &[u64]) {
        let memory = File::options().write(true).open(self.memory()).unwrap();
        let mut page = [0; PAGE as usize];
        for at in pages {
            self.random.fill(&mut page);
            memory.write_all_at(&page, at * PAGE).unwrap();
        }
    }

    fn take(&self, handle: &Handle, version: &str) {
        let request = request("vm", version, &self.source())
            .format(Format::V2)
            .read_only("kernel");
        handle.snapshot(&request).unwrap();
    }

    /// Restores and compares with the directory as it is.
    fn restores(&self, handle: &Handle, version: &str, output: &str) -> RestoreReport {
        let output = self.output(output);
        let report = handle.restore(&format!("vm:{version}"), &output).unwrap();
        let same = Options {
            holes: Holes::NoMoreDataThan,
            ..Options::default()
        };
        assert_same_with(&self.source(), &output, &same);
        report
    }

    /// The files of the cache.
    fn entries(&self) -> Vec<PathBuf> {
        entries(&self.root())
    }
}

fn entries(root: &Path) -> Vec<PathBuf> {
    let cache = root.join("cache");
    if !cache.exists() {
        return Vec::new();
    }
    let boots = names(&cache).into_iter();
    let within = |boot: String| {
        let dir = cache.join(boot);
        names(&dir).into_iter().map(move |name| dir.join(name))
    };
    boots.flat_map(within).collect()
}

fn cloned(report: &RestoreReport) -> u64 {
    report.placements.reflink.files
}

fn cloning() -> impl Iterator<Item = Node> {
    [Kind::Xfs, Kind::Btrfs].into_iter().filter_map(Node::new)
}

#[test]
fn a_file_of_which_an_entry_is_here_is_read_from_that_and_without_it_from_packs() {
    let Some(node) = Node::new(Kind::Xfs) else {
        return;
    };
    let handle = node.handle(|_| {});
    node.take(&handle, "v1");
    node.restores(&handle, "v1", "one");
    let wanted = fs::read(node.memory()).unwrap();
    let read = || {
        let opened = handle.open_snapshot("vm:v1").unwrap();
        let reader = opened.reader("memory").unwrap();
        let mut found = vec![1; wanted.len()];
        reader
            .read_at(&mut found, 0)
            .map(|_| assert!(found == wanted))
    };
    read().unwrap();
    // The first frames are damaged now: what is read is the entry.
    let opened = handle.open_snapshot("vm:v1").unwrap();
    let packs = content(&node.root()).join("0000");
    for pack in names(&packs) {
        let pack = File::options().write(true).open(packs.join(pack));
        pack.unwrap().write_all_at(&[1; 64 << 10], 4096).unwrap();
    }
    drop(opened);
    read().unwrap();
    node.entries()
        .iter()
        .for_each(|entry| fs::remove_file(entry).unwrap());
    assert_eq!(read().unwrap_err().raw_os_error(), Some(5));
}

#[test]
fn a_second_restore_is_a_clone_and_a_child_is_one_with_what_differs() {
    // With copies too: where the filesystem clones, there are none.
    let all = [false, true].into_iter();
    let all = all.flat_map(|copies| cloning().map(move |node| (node, copies)));
    for (mut node, copies) in all {
        let handle = node.handle(|cache| cache.copies = copies);
        node.take(&handle, "v1");
        assert_eq!(cloned(&node.restores(&handle, "v1", "one")), 0);
        assert_eq!(cloned(&node.restores(&handle, "v1", "two")), 1);
        // Nobody's writes reach anybody else.
        let two = File::options().write(true).open(node.output("two/memory"));
        two.unwrap().write_all_at(b"mine", 0).unwrap();
        node.restores(&handle, "v1", "three");
        // Pages change, become holes, come to be where holes were; the file grows, and ends within a page.
        node.write(&[3, 4, 5, 99, 900]);
        let memory = File::options().write(true).open(node.memory()).unwrap();
        memory
            .write_all_at(&[0; 2 * PAGE as usize], 200 * PAGE)
            .unwrap();
        memory.set_len(1500 * PAGE + 17).unwrap();
        memory.write_all_at(b"end", 1500 * PAGE).unwrap();
        node.take(&handle, "v2");
        let memory_of_v2 = node.output("four/memory");
        assert_eq!(cloned(&node.restores(&handle, "v2", "four")), 1);
        assert!(fs::metadata(memory_of_v2).unwrap().blocks() * 512 < 800 * PAGE);
        // And shrinks.
        memory.set_len(650 * PAGE + 1).unwrap();
        node.take(&handle, "v3");
        assert_eq!(cloned(&node.restores(&handle, "v3", "five")), 1);
        handle.assert_clean();
        handle.close().unwrap();
        assert_at_rest(&node.root());
    }
}

#[test]
fn of_a_name_and_path_the_newest_entry_is_kept_and_none_of_what_was_removed() {
    let Some(mut node) = Node::new(Kind::Xfs) else {
        return;
    };
    let handle = node.handle(|_| {});
    node.take(&handle, "v1");
    node.restores(&handle, "v1", "one");
    assert_eq!(node.entries().len(), 1);
    // So much that a clone is not worth it.
    node.write(&(0..600).collect::<Vec<_>>());
    node.take(&handle, "v2");
    assert_eq!(cloned(&node.restores(&handle, "v2", "two")), 0);
    assert_eq!(node.entries().len(), 1);
    let used = handle.usage().unwrap();
    assert_eq!(used.cache_entries, 1);
    assert!(used.cache_bytes >= 700 * PAGE, "{}", used.cache_bytes);
    assert_eq!(cloned(&node.restores(&handle, "v2", "three")), 1);
    handle.remove("vm:v2").unwrap();
    assert_eq!(node.entries().len(), 0);
    assert_eq!(handle.usage().unwrap().cache_bytes, 0);
    handle.assert_clean();
}

#[test]
fn a_limit_of_zero_keeps_nothing_and_a_small_one_little() {
    let Some(node) = Node::new(Kind::Xfs) else {
        return;
    };
    for (most, kept) in [(0, 0), (MIB, 0), (64 * MIB, 1)] {
        let handle = node.handle(|cache| cache.max_bytes = Some(most));
        if handle.listed().is_empty() {
            node.take(&handle, "v1");
        }
        node.restores(&handle, "v1", &format!("output-{most}"));
        assert_eq!(node.entries().len(), kept, "{most}");
        handle.close().unwrap();
    }
}

#[test]
fn an_entry_that_was_written_to_is_not_used() {
    let Some(node) = Node::new(Kind::Xfs) else {
        return;
    };
    let handle = node.handle(|_| {});
    node.take(&handle, "v1");
    node.restores(&handle, "v1", "one");
    let entry = node.entries().remove(0);
    fs::OpenOptions::new()
        .write(true)
        .open(&entry)
        .unwrap()
        .write_all_at(b"wrong", 0)
        .unwrap();
    assert_eq!(cloned(&node.restores(&handle, "v1", "two")), 0);
    assert!(!entry.exists());
    // One that has a further name may be written by that.
    fs::hard_link(node.entries().remove(0), node.output("link")).unwrap();
    assert_eq!(cloned(&node.restores(&handle, "v1", "three")), 0);
}

// What puts the time back is not seen by a restore that clones; verify sees it.
#[test]
fn verify_forgets_entries_that_are_wrong() {
    let Some(node) = Node::new(Kind::Xfs) else {
        return;
    };
    let read_only = node.source().join("kernel");
    fs::copy(node.memory(), &read_only).unwrap();
    fs::set_permissions(&read_only, fs::Permissions::from_mode(0o444)).unwrap();
    let handle = node.handle(|_| {});
    node.take(&handle, "v1");
    node.restores(&handle, "v1", "one");
    assert_eq!(node.entries().len(), 2);
    handle.assert_clean();
    assert_eq!(node.entries().len(), 2, "those that are right stay");
    for entry in node.entries() {
        let before = fs::metadata(&entry).unwrap().modified().unwrap();
        let file = File::options().write(true).open(&entry).unwrap();
        file.write_all_at(b"wrong", 0).unwrap();
        file.set_modified(before).unwrap();
    }
    handle.assert_clean();
    assert_eq!(node.entries().len(), 0);
    // What was linked to it is the caller's.
    fs::remove_dir_all(node.output("one")).unwrap();
    node.restores(&handle, "v1", "two");
}

#[test]
fn read_only_files_share_one_inode_however_it_came() {
    for kind in [Kind::Ext4, Kind::Xfs] {
        let Some(node) = Node::new(kind) else {
            continue;
        };
        fs::rename(node.memory(), node.source().join("kernel")).unwrap();
        let handle = node.handle(|_| {});
        node.take(&handle, "v1");
        let inode = |output: &str| {
            fs::metadata(node.output(output).join("kernel"))
                .unwrap()
                .ino()
        };
        let first = node.restores(&handle, "v1", "one");
        let second = node.restores(&handle, "v1", "two");
        for report in [&first, &second] {
            assert_eq!(report.placements.hardlink.files, 1, "{report:?}");
        }
        assert_eq!(inode("one"), inode("two"));
        // Another snapshot has the same bytes.
        fs::write(node.source().join("state"), "another state").unwrap();
        node.take(&handle, "v2");
        node.restores(&handle, "v2", "three");
        assert_eq!(inode("three"), inode("one"));
        // It costs nothing that an output does not.
        assert_eq!(handle.usage().unwrap().cache_bytes, 0);
        handle.assert_clean();
    }
}

#[test]
fn collection_takes_entries_before_snapshots() {
    let Some(node) = Node::new(Kind::Xfs) else {
        return;
    };
    let handle = node.handle(|_| {});
    node.take(&handle, "v1");
    node.restores(&handle, "v1", "one");
    fs::remove_dir_all(node.output("one")).unwrap();
    handle.close().unwrap();
    let mut gc = snapshotter::Gc::default();
    gc.background = false;
    gc.disk_high_threshold_percent = 0.1;
    gc.disk_low_threshold_percent = 0.1;
    let handle = Handle::with(Config::new(node.root()).gc(gc)).unwrap();
    let request = snapshotter::GcRequest::new();
    let would = handle.gc(&request.clone().dry_run(true)).unwrap();
    assert_eq!((would.cache_entries, node.entries().len()), (1, 1));
    let did = handle.gc(&request).unwrap();
    assert_eq!((did.cache_entries, node.entries().len()), (1, 0));
    assert_eq!(did.cache_bytes, would.cache_bytes);
    assert!(did.released.is_empty(), "it is young");
    node.restores(&handle, "v1", "two");
}

#[test]
fn what_another_boot_left_is_not_used_and_goes() {
    let Some(node) = Node::new(Kind::Xfs) else {
        return;
    };
    let handle = node.handle(|_| {});
    node.take(&handle, "v1");
    node.restores(&handle, "v1", "one");
    let entry = node.entries().remove(0);
    let other = node.root().join("cache/another-boot");
    fs::rename(entry.parent().unwrap(), &other).unwrap();
    assert_eq!(cloned(&node.restores(&handle, "v1", "two")), 0);
    handle.gc(&snapshotter::GcRequest::new()).unwrap();
    assert!(!other.exists());
    assert_eq!(node.entries().len(), 1);
}

// Each restore whose inode was changed by its user kept another one, and nothing took the old ones away.
#[test]
fn an_inode_that_its_user_changed_is_replaced_by_one() {
    let Some(node) = Node::new(Kind::Xfs) else {
        return;
    };
    fs::rename(node.memory(), node.source().join("kernel")).unwrap();
    let handle = node.handle(|_| {});
    node.take(&handle, "v1");
    for (number, mode) in [0o600, 0o640, 0o644].into_iter().enumerate() {
        let output = format!("{number}");
        node.restores(&handle, "v1", &output);
        assert_eq!(node.entries().len(), 1, "{mode:o}");
        let kernel = node.output(&output).join("kernel");
        fs::set_permissions(kernel, fs::Permissions::from_mode(mode)).unwrap();
    }
    node.restores(&handle, "v1", "last");
    assert_eq!(node.entries().len(), 1);
}

// Inodes without another name stayed for ever: nobody could link to them any more.
#[test]
fn what_is_cached_of_a_snapshot_goes_with_it() {
    let Some(mut node) = Node::new(Kind::Xfs) else {
        return;
    };
    fs::copy(node.memory(), node.source().join("kernel")).unwrap();
    let handle = node.handle(|_| {});
    node.take(&handle, "v1");
    node.restores(&handle, "v1", "one");
    assert_eq!(node.entries().len(), 2);
    fs::remove_dir_all(node.output("one")).unwrap();
    handle.remove("vm:v1").unwrap();
    assert_eq!(node.entries().len(), 0);
    // And with one that another takes the place of.
    node.take(&handle, "v1");
    node.restores(&handle, "v1", "two");
    fs::remove_dir_all(node.output("two")).unwrap();
    node.write(&[1]);
    fs::write(node.source().join("kernel"), "another").unwrap();
    let again = request("vm", "v1", &node.source())
        .format(Format::V2)
        .force(true);
    handle.snapshot(&again).unwrap();
    assert_eq!(node.entries().len(), 0);
    handle.assert_clean();
}

// A restore failed for what only makes the next one quicker.
#[test]
fn a_restore_needs_no_cache() {
    let Some(node) = Node::new(Kind::Xfs) else {
        return;
    };
    let handle = node.handle(|_| {});
    node.take(&handle, "v1");
    fs::write(node.root().join("cache"), "in the way").unwrap();
    node.restores(&handle, "v1", "one");
}

// Entries filled the disk, and a restore was refused for lack of the space that they took; and on a busy machine again,
// where XFS gives back what was removed a while later.
#[test]
fn entries_make_room_for_a_restore() {
    let Some(mut node) = Node::new(Kind::Xfs) else {
        return;
    };
    node.write(&(0..10_240).collect::<Vec<_>>());
    let handle = node.handle(|_| {});
    node.take(&handle, "v1");
    node.restores(&handle, "v1", "one");
    fs::remove_dir_all(node.output("one")).unwrap();
    assert_eq!(node.entries().len(), 1);
    // Another machine's, for which the entry is no base.
    node.write(&(0..10_240).collect::<Vec<_>>());
    let other = request("other", "v1", &node.source()).format(Format::V2);
    handle.snapshot(&other).unwrap();
    let filesystem = rustix::fs::statvfs(node.mount.path()).unwrap();
    let free = filesystem.f_bavail * filesystem.f_frsize - 20 * MIB;
    let ballast = File::create_new(node.output("ballast")).unwrap();
    rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, free).unwrap();
    let output = node.output("two");
    handle.restore("other:v1", &output).unwrap();
    testkit::compare::assert_same(&node.source(), &output);
    assert!(!node.entries().is_empty(), "its own");
}

/// Breaks a byte in the middle of each pack, with its time put back: what decodes it is refused.
fn break_packs(root: &Path) {
    for path in files_below(&root.join("storage/content/blake3")) {
        if path.extension().is_some_and(|end| end == "pack") {
            let path = root.join("storage/content/blake3").join(path);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let pack = File::options().read(true).write(true).open(&path).unwrap();
            let stat = pack.metadata().unwrap();
            let (middle, mut byte) = (stat.len() / 2, [0]);
            pack.read_exact_at(&mut byte, middle).unwrap();
            pack.write_all_at(&[byte[0] ^ 1], middle).unwrap();
            pack.set_modified(stat.modified().unwrap()).unwrap();
        }
    }
}

// Where the filesystem does not clone, each restore decoded all pages again.
#[test]
fn where_nothing_clones_an_entry_is_copied_if_that_is_asked_for() {
    let Some(mut node) = Node::new(Kind::Ext4) else {
        return;
    };
    let handle = node.handle(|cache| cache.copies = true);
    node.take(&handle, "v1");
    node.restores(&handle, "v1", "one");
    assert_eq!(node.entries().len(), 1);
    // Pages change, become holes, come to be where holes were; the file grows, and ends within a page.
    node.write(&[3, 4, 5, 99, 900]);
    let memory = File::options().write(true).open(node.memory()).unwrap();
    let zeros = [0; 2 * PAGE as usize];
    memory.write_all_at(&zeros, 200 * PAGE).unwrap();
    memory.set_len(1500 * PAGE + 17).unwrap();
    memory.write_all_at(b"end", 1500 * PAGE).unwrap();
    break_packs(&node.root());
    node.take(&handle, "v2");
    let report = node.restores(&handle, "v2", "two");
    assert_eq!(report.placements.copy.files, 2, "{report:?}");
    assert_eq!(node.entries().len(), 1, "it is near");
    // It goes by its bytes: one that is wrong, with its time put back, is not used, and packs are broken.
    let entry = node.entries().remove(0);
    let before = fs::metadata(&entry).unwrap().modified().unwrap();
    let file = File::options().write(true).open(&entry).unwrap();
    file.write_all_at(b"wrong", 0).unwrap();
    file.set_modified(before).unwrap();
    handle.restore("vm:v2", &node.output("three")).unwrap_err();
    assert_eq!(node.entries().len(), 0);
}

#[test]
fn where_nothing_clones_no_entry_is_kept_unless_that_is_asked_for() {
    let Some(node) = Node::new(Kind::Ext4) else {
        return;
    };
    let handle = node.handle(|_| {});
    node.take(&handle, "v1");
    node.restores(&handle, "v1", "one");
    assert_eq!(node.entries().len(), 0);
    // To another filesystem nothing can be cloned either, and what is kept here is copied there.
    handle.close().unwrap();
    let handle = node.handle(|cache| cache.copies = true);
    node.restores(&handle, "v1", "two");
    break_packs(&node.root());
    let elsewhere = tempfile::tempdir().unwrap();
    handle
        .restore("vm:v1", &elsewhere.path().join("three"))
        .unwrap();
    assert_same_with(
        &node.source(),
        &elsewhere.path().join("three"),
        &Options::default(),
    );
}
