//! Snapshots of format v2: what comes back is what went in, and a checkpoint costs its changed pages.

use crate::support_b;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use snapshotter::{Format, ParentChoice, ParentChosen, SnapshotReport, SnapshotRequest};
use support_b::outside::assert_at_rest;
use support_b::{Handle, checkpoint, request};
use testkit::compare::{Holes, Options, assert_same, assert_same_with};
use testkit::prng::Prng;

fn paged(name: &str, version: &str, base: &Path) -> SnapshotRequest {
    request(name, version, base).format(Format::V2)
}

fn page(random: &mut Prng) -> [u8; 4096] {
    let mut page = [0; 4096];
    random.fill(&mut page);
    page
}

/// A memory of so many pages, every fourth of them zero.
fn memory(path: &Path, pages: u64, random: &mut Prng) -> fs::File {
    let file = fs::File::create_new(path).unwrap();
    file.set_len(pages * 4096).unwrap();
    for at in (0..pages).filter(|at| at % 4 != 3) {
        file.write_all_at(&page(random), at * 4096).unwrap();
    }
    file
}

fn counts(report: &SnapshotReport) -> (u64, u64, u64) {
    let paged = report.paged.as_ref().unwrap();
    (paged.changed_pages, paged.reused_pages, paged.stored_pages)
}

#[test]
fn everything_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    checkpoint().write_to(&source).unwrap();
    let handle = Handle::open(&dir.path().join("root")).unwrap();
    let report = handle.snapshot(&paged("vm", "v1", &source)).unwrap();
    assert_eq!(report.files, 4);
    assert_eq!(handle.listed(), ["vm:v1"]);
    let output = dir.path().join("output");
    handle.restore("vm:v1", &output).unwrap();
    assert_same(&source, &output);
    // What is there already is left.
    let again = handle.restore("vm:v1", &output).unwrap();
    assert_eq!(again.placements.present.files, 3);
    handle.remove("vm:v1").unwrap();
    handle.close().unwrap();
    assert_at_rest(&dir.path().join("root"));
}

#[test]
fn a_checkpoint_stores_its_changed_pages() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    let mut random = Prng::new(1);
    let file = memory(&source.join("memory"), 4000, &mut random);
    fs::write(source.join("state"), "state 1").unwrap();
    let handle = Handle::open(&dir.path().join("root")).unwrap();
    let first = handle.snapshot(&paged("vm", "v1", &source)).unwrap();
    assert_eq!(counts(&first), (3001, 0, 3001));
    for at in [0, 77, 78, 79, 3999] {
        file.write_all_at(&page(&mut random), at * 4096).unwrap();
    }
    // A page that moved, and one that is zero by now.
    let mut moved = [0; 4096];
    file.read_exact_at(&mut moved, 500 * 4096).unwrap();
    file.write_all_at(&moved, 1003 * 4096).unwrap();
    file.write_all_at(&[0; 4096], 2000 * 4096).unwrap();
    fs::write(source.join("state"), "state 2").unwrap();
    let second = handle.snapshot(&paged("vm", "v2", &source)).unwrap();
    assert_eq!(counts(&second), (7, 2997, 6));
    let parent = second.paged.as_ref().unwrap().parent.clone().unwrap();
    assert_eq!(parent.reference.to_string(), "vm:v1");
    assert_eq!(parent.chosen, ParentChosen::Origin);
    assert!(second.stored_bytes < 7 * 4096 + 2048, "{second:?}");
    // Nothing has changed: no pack is made.
    let third = handle.snapshot(&paged("vm", "v3", &source)).unwrap();
    assert_eq!(counts(&third), (0, 3003, 0));
    assert_eq!((third.stored_bytes, third.blobs_stored), (0, 0));
    let output = dir.path().join("output");
    handle.remove("vm:v1").unwrap();
    for version in ["vm:v2", "vm:v3"] {
        handle.restore(version, &output).unwrap();
        // A page of zeros that was written comes back as a hole.
        let options = Options {
            holes: Holes::NoMoreDataThan,
            ..Options::default()
        };
        assert_same_with(&source, &output, &options);
        fs::remove_dir_all(&output).unwrap();
    }
    // Without a parent all of it is stored again, and is found to be there.
    let request = paged("vm", "v4", &source).parent(ParentChoice::None);
    let fourth = handle.snapshot(&request).unwrap();
    assert_eq!(counts(&fourth).2, 3002);
    for version in ["vm:v2", "vm:v3", "vm:v4"] {
        handle.remove(version).unwrap();
    }
    handle.close().unwrap();
    assert_at_rest(&dir.path().join("root"));
}

/// What was restored is the parent of what is taken of it next.
#[test]
fn a_restored_directory_knows_where_it_is_from() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    let mut random = Prng::new(2);
    memory(&source.join("memory"), 300, &mut random);
    let handle = Handle::open(&dir.path().join("root")).unwrap();
    handle.snapshot(&paged("base", "v1", &source)).unwrap();
    let fork = dir.path().join("fork");
    handle.restore("base:v1", &fork).unwrap();
    let file = fs::File::options()
        .write(true)
        .open(fork.join("memory"))
        .unwrap();
    file.write_all_at(&page(&mut random), 8 * 4096).unwrap();
    let report = handle.snapshot(&paged("fork", "v1", &fork)).unwrap();
    assert_eq!(counts(&report).2, 1);
    let parent = report.paged.unwrap().parent.unwrap();
    assert_eq!(parent.reference.to_string(), "base:v1");
    // The list of digests is a cache.
    fs::remove_dir_all(dir.path().join("root/digests")).unwrap();
    file.write_all_at(&page(&mut random), 9 * 4096).unwrap();
    let report = handle.snapshot(&paged("fork", "v2", &fork)).unwrap();
    assert_eq!(counts(&report).2, 1);
    handle.close().unwrap();
}

/// Frames of four pages after frames of sixteen and before them: which a pack has, the pack says.
#[test]
fn a_chain_mixes_packs_with_frames_of_four_and_of_sixteen() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    let mut random = Prng::new(3);
    let file = memory(&source.join("memory"), 500, &mut random);
    let handle = Handle::open(&dir.path().join("root")).unwrap();
    for (number, frame_pages) in [16, 4, 16, 4].into_iter().enumerate() {
        // Whole frames, and a last one that is not.
        for at in 100 * number as u64..100 * number as u64 + 37 {
            file.write_all_at(&page(&mut random), at * 4096).unwrap();
        }
        let request = paged("vm", &format!("v{number}"), &source);
        let frame_pages = frame_pages.to_string().parse().unwrap();
        let report = handle.snapshot(&request.frame_pages(frame_pages)).unwrap();
        assert_eq!(report.paged.unwrap().packs, number as u64 + 1);
        let output = dir.path().join("output");
        handle.restore(&format!("vm:v{number}"), &output).unwrap();
        assert_same(&source, &output);
        fs::remove_dir_all(&output).unwrap();
    }
    // The footer of each pack says it.
    let packs = handle.inspect("vm:v3").unwrap().packs;
    let content = dir.path().join("root/storage/content/blake3/0000");
    let frame_pages = packs.iter().map(|pack| {
        let name = pack.id.to_string().replace("blake3:", "") + ".pack";
        let bytes = fs::read(content.join(name)).unwrap();
        let footer = &bytes[bytes.len() - 80..];
        u32::from_le_bytes(footer[8..12].try_into().unwrap())
    });
    let mut frame_pages: Vec<_> = frame_pages.collect();
    frame_pages.sort_unstable();
    assert_eq!(frame_pages, [4, 4, 16, 16]);
    handle.assert_clean();
}
