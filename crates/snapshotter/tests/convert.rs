//! Snapshots in the other format: the same files with the same bytes and attributes, whoever asks for it and whatever happens.

use crate::support_b;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use snapshotter::hook::{self, Action};
use snapshotter::{
    Config, ConvertRequest, ErrorKind, Format, FramePages, Registry, SnapshotDetails,
    SnapshotState, WarningKind,
};
use support_b::children::{part, playing, playing_as_nobody, start, tell, told, told_number};
use support_b::outside::{
    assert_at_rest, assert_rows_and_files_agree, assert_rows_have_files, catalog, content, names,
};
use support_b::steps::{NEVER, for_each_step, quick_dir, reap_until_nobody_is_left};
use support_b::{Handle, checkpoint, kind, refusal, request};
use tempfile::TempDir;
use testkit::child::State;
use testkit::compare::{Holes, Options, assert_same, assert_same_with};
use testkit::{Content, Tree};

const FORMATS: [Format; 2] = [Format::V1, Format::V2];

fn other(format: Format) -> Format {
    match format {
        Format::V1 => Format::V2,
        _ => Format::V1,
    }
}

fn to(reference: &str, version: &str, format: Format) -> ConvertRequest {
    ConvertRequest::new(reference.parse().unwrap(), "vm", version, format)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A file of every kind, with every attribute that this process may give.
fn everything(dir: &Path) {
    let tail = Content::Sparse {
        size: 10 << 20,
        extents: vec![(0, 8, 100), (5 << 20, 9, 5000)],
    };
    let mut tree = checkpoint()
        .file("ro/empty", "")
        .file("page", Content::Random { seed: 5, len: 4096 })
        .file("ro/more", Content::Random { seed: 6, len: 4097 })
        .file("disk.img", tail)
        .hardlink("again", "page")
        .hardlink("empty/and again", "page")
        .dir("empty/deep")
        .mode("empty/deep", 0o2711)
        .mode("page", 0o4711)
        .mtime("page", -1, 999_999_999)
        .xattr("ro/more", "user.note", "a note")
        .xattr("empty", "user.note", "another")
        .symlink("nowhere", "/not/there");
    if is_root() {
        tree = tree
            .owner("page", 12, 34)
            .owner("nowhere", 56, 78)
            .owner("ro/more", 90, 12);
    }
    tree.write_to(dir).unwrap();
    if is_root() {
        let path = dir.join("empty/whiteout");
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, rustix::fs::Mode::empty(), 0).unwrap();
    }
}

/// All that the two formats have in common.
fn entries(details: &SnapshotDetails) -> impl PartialEq + std::fmt::Debug + use<> {
    let files: Vec<_> = details
        .files
        .iter()
        .map(|file| {
            let entry = file.entry.clone();
            (entry, file.read_only, file.size, file.hardlink_of.clone())
        })
        .collect();
    let details = details.clone();
    (
        files,
        details.directories,
        details.symlinks,
        details.whiteouts,
    )
}

/// What the bytes are called.
fn contents(details: &SnapshotDetails) -> impl PartialEq + std::fmt::Debug + use<> {
    let files = details.files.iter();
    files
        .map(|file| (file.digest, file.checksum, file.content))
        .collect::<Vec<_>>()
}

fn assert_restores(handle: &Handle, reference: &str, source: &Path, output: &Path) {
    let request = support_b::restore_request(reference, output).setid(true);
    handle.restore_with(&request).unwrap();
    let options = Options {
        holes: Holes::NoMoreDataThan,
        ..Options::default()
    };
    assert_same_with(source, output, &options);
    fs::remove_dir_all(output).unwrap();
}

#[test]
fn both_ways_keep_all_that_is_kept() {
    for format in FORMATS {
        let dir = tempfile::tempdir().unwrap();
        let (root, source) = (dir.path().join("root"), dir.path().join("source"));
        everything(&source);
        let handle = Handle::open(&root).unwrap();
        let taken = request("vm", "v1", &source).annotation("kernel", "6.18");
        let first = handle.snapshot(&taken.format(format)).unwrap();
        let there = handle
            .convert(&to("vm:v1", "there", other(format)))
            .unwrap();
        let back = handle.convert(&to("vm:there", "back", format)).unwrap();
        assert_eq!(there.source, first.reference);
        assert_eq!(there.snapshot.warnings, []);
        assert_eq!(there.snapshot.paged.is_some(), format == Format::V1);
        assert_eq!(back.snapshot.files, first.files);
        assert_eq!(back.snapshot.logical_bytes, first.logical_bytes);
        assert_eq!(back.snapshot.whiteouts, first.whiteouts);
        // What was there already is found to be.
        assert_eq!(back.snapshot.blobs_stored, 0, "{back:#?}");
        // As if the files had been taken in that format.
        let direct = request("vm", "direct", &source).format(other(format));
        let direct = direct.parent(snapshotter::ParentChoice::None);
        handle.snapshot(&direct).unwrap();
        let details = |version: &str| handle.inspect(&format!("vm:{version}")).unwrap();
        assert_eq!(contents(&details("there")), contents(&details("direct")));
        assert_eq!(contents(&details("back")), contents(&details("v1")));
        for version in ["there", "back"] {
            let converted = details(version);
            assert_eq!(entries(&converted), entries(&details("v1")), "{version}");
            assert_eq!(converted.annotations["kernel"], "6.18");
            assert_eq!(converted.summary.state, SnapshotState::Unpublished);
        }
        handle.assert_clean();
        for version in ["v1", "there", "back"] {
            let reference = format!("vm:{version}");
            assert_restores(&handle, &reference, &source, &dir.path().join("output"));
            // Each has all that it needs.
            handle.remove(&reference).unwrap();
        }
        handle.remove("vm:direct").unwrap();
        handle.close().unwrap();
        assert_at_rest(&root);
        assert_eq!(files_in(&content(&root)).len(), 0);
    }
}

#[test]
fn files_that_collide_stay_two() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    for (name, path) in ["a", "b"].into_iter().zip(testkit::golden::COLLISION) {
        fs::copy(path, source.join(name)).unwrap();
    }
    let handle = Handle::open(&dir.path().join("root")).unwrap();
    let v1 = request("vm", "v1", &source).format(Format::V1);
    handle.snapshot(&v1).unwrap();
    handle.convert(&to("vm:v1", "there", Format::V2)).unwrap();
    handle.remove("vm:v1").unwrap();
    handle.convert(&to("vm:there", "back", Format::V1)).unwrap();
    let back = handle.inspect("vm:back").unwrap().files;
    assert_eq!(back[0].digest, back[1].digest);
    assert_ne!(back[0].checksum, back[1].checksum);
    for version in ["vm:there", "vm:back"] {
        assert_restores(&handle, version, &source, &dir.path().join("output"));
    }
}

#[test]
fn what_makes_no_sense_is_refused_and_force_replaces() {
    let dir = tempfile::tempdir().unwrap();
    let (root, source) = (dir.path().join("root"), dir.path().join("source"));
    checkpoint().write_to(&source).unwrap();
    let handle = Handle::open(&root).unwrap();
    for version in ["v1", "v2"] {
        handle.snapshot(&request("vm", version, &source)).unwrap();
    }
    let v2 = to("vm:v1", "v2", Format::V2);
    assert_eq!(kind(handle.convert(&v2)), ErrorKind::AlreadyExists);
    let same = to("vm:v1", "v3", Format::V1);
    assert_eq!(kind(handle.convert(&same)), ErrorKind::InvalidInput);
    let nobody = to("vm:v9", "v3", Format::V2);
    assert_eq!(kind(handle.convert(&nobody)), ErrorKind::NotFound);
    let nameless = to("vm:v1", "not a version", Format::V2);
    assert_eq!(kind(handle.convert(&nameless)), ErrorKind::InvalidInput);
    assert_eq!(handle.listed().len(), 2);
    handle.convert(&v2.force(true)).unwrap();
    // It may take its own name away.
    let itself = to("vm:v1", "v1", Format::V2).force(true);
    let itself = itself.frame_pages(FramePages::Four);
    handle.convert(&itself).unwrap();
    assert_eq!(handle.listed().len(), 2);
    for reference in ["vm:v1", "vm:v2"] {
        let found = handle.inspect(reference).unwrap();
        assert_eq!(found.summary.format, Format::V2);
        assert_restores(&handle, reference, &source, &dir.path().join("output"));
    }
    handle.assert_clean();
    handle.close().unwrap();
    assert_at_rest(&root);
    assert_rows_and_files_agree(&root);
}

#[test]
fn it_stays_here_until_it_is_pushed_and_no_directory_has_come_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let (root, source) = (dir.path().join("root"), dir.path().join("source"));
    let layout = dir.path().join("layout");
    checkpoint().write_to(&source).unwrap();
    let registry = Registry::new(format!("oci-layout:{}", layout.display()), "snapshots");
    let place = snapshotter::Content::new(snapshotter::ContentProvider::Registry);
    let handle = Handle::with(Config::new(&root).registry(registry).content(place)).unwrap();
    let v2 = request("vm", "v1", &source).format(Format::V2).local(true);
    handle.snapshot(&v2).unwrap();
    let origins = || -> i64 {
        let count = "SELECT count(*) FROM origins";
        catalog(&root)
            .query_row(count, [], |row| row.get(0))
            .unwrap()
    };
    let before = origins();
    handle
        .convert(&to("vm:v1", "v1-files", Format::V1))
        .unwrap();
    handle
        .convert(&to("vm:v1-files", "v1-pages", Format::V2))
        .unwrap();
    assert_eq!(origins(), before);
    for summary in handle.list().unwrap() {
        assert_eq!(summary.state, SnapshotState::Unpublished);
    }
    assert!(!layout.exists() || names(&layout).is_empty());
    // The parent is still what the directory was taken as.
    let next = request("vm", "v2", &source).format(Format::V2).local(true);
    let next = handle.snapshot(&next).unwrap();
    let parent = next.paged.unwrap().parent.unwrap();
    assert_eq!(parent.reference.to_string(), "vm:v1");
    // And a converted one is one as good as any.
    let named = request("vm", "v3", &source).format(Format::V2).local(true);
    let named = named.parent("vm:v1-pages".parse().unwrap());
    let named = handle.snapshot(&named).unwrap();
    assert_eq!(named.paged.unwrap().stored_pages, 0);
    handle.push("vm:v1-files").unwrap();
    assert!(!names(&layout).is_empty());
}

/// A v1 parent counts as none: the warning says how to have one.
#[test]
fn the_warning_about_a_parent_of_format_v1_names_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    checkpoint().write_to(&source).unwrap();
    let handle = Handle::open(&dir.path().join("root")).unwrap();
    let v1 = request("vm", "v1", &source).format(Format::V1);
    handle.snapshot(&v1).unwrap();
    let v2 = request("vm", "v2", &source).format(Format::V2);
    let warnings = handle.snapshot(&v2).unwrap().warnings;
    assert_eq!(warnings[0].kind, WarningKind::ParentIncomplete);
    assert!(warnings[0].message.contains("convert"), "{warnings:?}");
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                files_in(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn what_is_damaged_is_not_converted() {
    for format in FORMATS {
        let dir = tempfile::tempdir().unwrap();
        let (root, source) = (dir.path().join("root"), dir.path().join("source"));
        let tree = Tree::new().file(
            "a",
            Content::Random {
                seed: 1,
                len: 3 << 20,
            },
        );
        tree.file("b", "b").write_to(&source).unwrap();
        let handle = Handle::open(&root).unwrap();
        handle
            .snapshot(&request("vm", "v1", &source).format(format))
            .unwrap();
        let mut stored = files_in(&content(&root));
        stored.sort_by_key(|path| fs::metadata(path).unwrap().len());
        let largest = stored.last().unwrap();
        // So that nothing but reading it tells.
        let time = fs::metadata(largest).unwrap().modified().unwrap();
        let file = File::options().write(true).open(largest).unwrap();
        file.write_all_at(b"wrong", 2 << 20).unwrap();
        file.set_modified(time).unwrap();
        drop(file);
        let before = files_in(&content(&root)).len();
        let error = refusal(handle.convert(&to("vm:v1", "other", other(format))));
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert_eq!(error.path(), Some(Path::new("a")));
        assert_eq!(error.reference().unwrap().to_string(), "vm:v1");
        assert_eq!(handle.listed(), ["vm:v1"]);
        assert_eq!(files_in(&content(&root)).len(), before);
        handle.close().unwrap();
        assert!(files_in(&root.join("staging")).is_empty());
        // The same is missing.
        fs::remove_file(largest).unwrap();
        let handle = Handle::open(&root).unwrap();
        let error = refusal(handle.convert(&to("vm:v1", "other", other(format))));
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert_eq!(handle.listed(), ["vm:v1"]);
    }
}

/// A blob that is the caller's file too, which somebody has open for writing: a copy of it is read, which nobody can write.
#[test]
fn a_blob_that_somebody_may_write_is_copied_first() {
    let dir = tempfile::tempdir().unwrap();
    let (root, source) = (dir.path().join("root"), dir.path().join("source"));
    checkpoint().write_to(&source).unwrap();
    let handle = Handle::open(&root).unwrap();
    let taken = request("vm", "v1", &source).format(Format::V1);
    let taken = handle.snapshot(&taken).unwrap();
    assert!(taken.placements.hardlink.files > 0, "{taken:?}");
    let memory = source.join("ro/memory");
    assert!(fs::metadata(&memory).unwrap().nlink() > 1);
    let _writer = File::options().write(true).open(&memory).unwrap();
    let converted = handle.convert(&to("vm:v1", "there", Format::V2)).unwrap();
    assert_eq!(converted.snapshot.warnings, []);
    assert_restores(&handle, "vm:there", &source, &dir.path().join("output"));
}

/// Children: the part is what they do.
#[test]
fn children_start_here() {
    match part().as_deref() {
        Some("ordinary user") => ordinary_user(),
        Some("convert") => convert_once(),
        Some(part) => panic!("nobody plays {part}"),
        None => {}
    }
}

fn ordinary_user() {
    let handle = Handle::open(&told("ROOT")).unwrap();
    let source = told("SOURCE");
    handle
        .snapshot(&request("vm", "v1", &source).format(Format::V1))
        .unwrap();
    handle.convert(&to("vm:v1", "there", Format::V2)).unwrap();
    handle.convert(&to("vm:there", "back", Format::V1)).unwrap();
    let first = handle.inspect("vm:v1").unwrap();
    let owner = fs::metadata(source.join("disk")).unwrap().uid();
    assert_ne!(owner, rustix::process::geteuid().as_raw());
    for version in ["vm:there", "vm:back"] {
        let details = handle.inspect(version).unwrap();
        assert!(details.files.iter().all(|file| file.entry.uid == owner));
        assert_eq!(entries(&details), entries(&first));
    }
    handle.close().unwrap();
}

/// Attributes went onto files on the way, and an ordinary user lost what it could not set.
#[test]
fn it_takes_no_privileges() {
    if !is_root() {
        testkit::mount::report_skip("another user takes root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    fs::set_permissions(dir.path(), everybody).unwrap();
    let (root, source) = (dir.path().join("root"), dir.path().join("source"));
    let tree = checkpoint().mode("disk", 0o644).mode("ro/memory", 0o6755);
    tree.write_to(&source).unwrap();
    let mut command = playing_as_nobody(module_path!(), "ordinary user");
    tell(&mut command, "ROOT", &root);
    tell(&mut command, "SOURCE", &source);
    assert_eq!(start(&mut command).wait().unwrap(), State::Exited(0));
}

fn convert_once() -> ! {
    let action = match told("ACTION").to_str() {
        Some("stop") => Action::Stop,
        _ => Action::Abort,
    };
    let root = told("ROOT");
    hook::arm(action, told_number("AT"));
    let handle = Handle::with(Config::new(&root).snapshot_concurrency(1)).unwrap();
    let format = told("TO").to_str().unwrap().parse().unwrap();
    handle.convert(&to("vm:v1", "there", format)).unwrap();
    handle.close().unwrap();
    fs::write(told("COUNT"), hook::count().to_string()).unwrap();
    std::process::exit(0)
}

/// A copy of a store with `vm:v1`, in which a child converts it, up to a step.
fn child(template: &Path, format: Format, action: &str, at: u64) -> (TempDir, State) {
    let dir = TempDir::new_in(template.parent().unwrap()).unwrap();
    let root = dir.path().join("root");
    let copied = Command::new("cp")
        .arg("-a")
        .args([template, &root])
        .status();
    assert!(copied.unwrap().success());
    let mut command = playing(module_path!(), "convert");
    tell(&mut command, "ROOT", &root);
    tell(&mut command, "ACTION", action);
    tell(&mut command, "AT", at.to_string());
    tell(&mut command, "TO", format.as_str());
    tell(&mut command, "COUNT", dir.path().join("count"));
    let state = start(&mut command).wait().unwrap();
    (dir, state)
}

#[test]
fn a_conversion_killed_anywhere_is_there_whole_or_leaves_nothing() {
    for format in FORMATS {
        let dir = quick_dir();
        let (template, source) = (dir.path().join("template"), dir.path().join("source"));
        checkpoint().write_to(&source).unwrap();
        let handle = Handle::open(&template).unwrap();
        handle
            .snapshot(&request("vm", "v1", &source).format(format))
            .unwrap();
        handle.close().unwrap();
        // A few MiB to copy each time for nothing; opening makes it again.
        let _ = fs::remove_dir_all(template.join("reserve"));
        let (counted, state) = child(&template, other(format), "stop", NEVER);
        assert_eq!(state, State::Exited(0));
        let steps = fs::read_to_string(counted.path().join("count")).unwrap();
        for_each_step(steps.parse().unwrap(), |step| {
            let (stage, state) = child(&template, other(format), "abort", step);
            assert_eq!(state, State::Signaled(6));
            let root = stage.path().join("root");
            assert_rows_have_files(&root);
            let handle = Handle::open(&root).unwrap();
            let expected = [("vm:v1", &*source), ("vm:there", &*source)];
            let listed = handle.listed();
            assert!(listed.contains(&"vm:v1".to_owned()), "{listed:?}");
            handle.assert_all_restore(&expected, stage.path());
            handle.assert_clean();
            handle.close().unwrap();
            reap_until_nobody_is_left(&root);
            assert_at_rest(&root);
            assert_rows_have_files(&root);
        });
        let root = counted.path().join("root");
        let handle = Handle::open(&root).unwrap();
        handle
            .restore("vm:there", &counted.path().join("out"))
            .unwrap();
        assert_same(&source, &counted.path().join("out"));
    }
}
