//! Open snapshots: any bytes of any file, of both formats, as they were when they were captured or an error; kept from everybody
//! who would take them away, for exactly as long as somebody reads.

use crate::{support_a, support_b};

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use snapshotter::{ErrorKind, Format, GcRequest, Opened, Operation, Reader, Snapshotter};
use support_a::*;
use testkit::Tree;
use testkit::prng::Prng;

const PAGE: u64 = 4096;
const STEPS: u64 = 8;

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(dir: &Path) -> Files {
    let files = files_below(dir).into_iter();
    files
        .map(|path| (path.clone(), fs::read(dir.join(path)).unwrap()))
        .collect()
}

async fn open(store: &Snapshotter, version: &str) -> Opened {
    let reference = reference(&format!("test:{version}"));
    store.open_snapshot(&reference).await.unwrap()
}

/// Writes, zeroes, punches and resizes somewhere in a file.
fn edit(path: &Path, random: &mut Prng) {
    let options = File::options().read(true).write(true).open(path);
    let file = options.unwrap();
    let size = file.metadata().unwrap().len();
    let at = random.below(size + 1);
    match random.below(4) {
        0 => file.set_len(size / 2 + random.below(size + 9000)).unwrap(),
        1 => file.write_all_at(&[0; 3 * PAGE as usize], at).unwrap(),
        _ => {
            let mut bytes = vec![0; 1 + random.below(20 * PAGE) as usize];
            random.fill(&mut bytes);
            file.write_all_at(&bytes, at).unwrap();
        }
    }
}

/// Any ranges of a file, and what it says of its holes.
fn assert_reads(reader: &Reader, wanted: &[u8], random: &mut Prng) {
    let size = wanted.len() as u64;
    assert_eq!(reader.details().size, size);
    for _ in 0..40 {
        let offset = random.below(size + 5000);
        let mut found = vec![7; random.below(100_000) as usize];
        let length = reader.read_at(&mut found, offset).unwrap();
        let from = &wanted[offset.min(size) as usize..];
        assert_eq!(length, from.len().min(found.len()));
        assert!(found[..length] == from[..length], "{length} at {offset}");
    }
    let mut end = 0;
    for data in reader.extents().unwrap() {
        assert!(data.start < data.end && data.end <= size);
        let hole = &wanted[end as usize..data.start as usize];
        assert!(hole.iter().all(|byte| *byte == 0), "{data:?}");
        end = data.end;
    }
    assert!(wanted[end as usize..].iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn any_bytes_of_any_file_of_a_chain_are_read_by_many_threads_at_once() {
    let place = Place::quick();
    let tree = Tree::new()
        .file("memory", random(1, 150 * PAGE + 11))
        .file("d/disk", random(2, 90 * PAGE))
        .file("small", "s")
        .file("empty", "")
        .hardlink("second", "d/disk");
    let base = place.write("base", &tree);
    let store = place.open().await;
    let mut random = Prng::new(20);
    let mut taken = Vec::new();
    for step in 0..STEPS {
        let version = format!("v{step}");
        let format = [Format::V2, Format::V2, Format::V1][step as usize % 3];
        let request = all(&version, &base).format(format);
        store.snapshot(&request).await.unwrap();
        taken.push((version, files(&base)));
        for _ in 0..3 {
            let path = ["memory", "d/disk"][random.below(2) as usize];
            edit(&base.join(path), &mut random);
        }
    }
    for (version, wanted) in &taken {
        let opened = open(&store, version).await;
        assert_eq!(opened.files().len(), wanted.len());
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let opened = &opened;
                let reads = move || {
                    let mut random = Prng::new(seed);
                    for (path, bytes) in wanted {
                        let reader = opened.reader(path).unwrap();
                        assert_reads(&reader, bytes, &mut random);
                    }
                };
                std::thread::Builder::new()
                    .spawn_scoped(scope, reads)
                    .unwrap();
            }
        });
    }
    for path in ["nothing", "d", "../x", ""] {
        let error = open(&store, "v0").await.reader(path).unwrap_err();
        let kinds = [ErrorKind::NotFound, ErrorKind::InvalidInput];
        assert!(kinds.contains(&error.kind()), "{path}: {error}");
    }
}

/// The marks of bad packs and blobs in the catalog.
fn marked(place: &Place) -> i64 {
    let catalog = support_b::outside::catalog(&place.root());
    let sql = "SELECT count(*) FROM objects WHERE state <> 0";
    catalog.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn what_is_damaged_is_an_error_of_the_reads_that_need_it_and_the_pack_is_marked() {
    let place = Place::new();
    let base = place.write("base", &Tree::new().file("memory", random(1, 256 * PAGE)));
    let store = place.open().await;
    let request = all("v1", &base).format(Format::V2);
    store.snapshot(&request).await.unwrap();
    let wanted = fs::read(base.join("memory")).unwrap();
    let opened = open(&store, "v1").await;
    let pack = place.only_blob();
    overwrite_secretly(&pack, stat(&pack).len() / 2, b"not what was there");
    assert_eq!(marked(&place), 0);
    let reader = opened.reader("memory").unwrap();
    let read = |page: u64| {
        let mut found = [0; PAGE as usize];
        let at = page * PAGE;
        match reader.read_at(&mut found, at) {
            Ok(length) => {
                assert_eq!(length, found.len());
                assert!(found == wanted[at as usize..][..found.len()], "page {page}");
                true
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(5), "{error}");
                false
            }
        }
    };
    let good = (0..256).filter(|page| read(*page)).count();
    // One frame, of either length, has gone.
    assert!(good == 256 - 16 || good == 256 - 4, "{good}");
    assert_eq!(marked(&place), 1);
    let error = opened.reader("memory").unwrap().verify().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
    assert_eq!(error.path(), Some(Path::new("memory")));
    assert_eq!((0..256).filter(|page| read(*page)).count(), good);
}

#[tokio::test]
async fn a_file_that_is_removed_while_it_is_open_is_read_to_its_end_and_goes_when_it_is_closed() {
    for format in [Format::V1, Format::V2] {
        let place = Place::new();
        let base = place.write("base", &vm(1));
        let wanted = files(&base);
        let store = place.open().await;
        let request = all("v1", &base).format(format);
        store.snapshot(&request).await.unwrap();
        let opened = open(&store, "v1").await;
        let early = opened.reader("own").unwrap();
        let other = place.open().await;
        let holders = other.holders().await.unwrap();
        let read = holders
            .iter()
            .find(|one| one.operation == Some(Operation::Read));
        let held = read.and_then(|one| one.reference.clone());
        assert_eq!(held, Some(reference("test:v1")), "{holders:?}");
        other.remove(&reference("test:v1")).await.unwrap();
        other.gc(&GcRequest::new()).await.unwrap();
        assert!(other.list().await.unwrap().is_empty());
        let late = opened.reader("shared").unwrap();
        drop(opened);
        other.gc(&GcRequest::new()).await.unwrap();
        let mut random = Prng::new(3);
        assert_reads(&early, &wanted[Path::new("own")], &mut random);
        assert_reads(&late, &wanted[Path::new("shared")], &mut random);
        drop(early);
        assert!(!place.blobs().is_empty());
        drop(late);
        other.gc(&GcRequest::new()).await.unwrap();
        assert_eq!(place.blobs(), Vec::<PathBuf>::new(), "{format:?}");
        assert_eq!(other.holders().await.unwrap(), []);
    }
}

#[tokio::test]
async fn what_is_open_keeps_the_store_open_until_the_store_is_closed() {
    let place = Place::new();
    let base = place.write("base", &vm(1));
    let wanted = fs::read(base.join("own")).unwrap();
    let store = place.open().await;
    take(&store, "v1", &base).await;
    let opened = open(&store, "v1").await;
    drop(store);
    let reader = opened.reader("own").unwrap();
    let mut found = vec![0; wanted.len()];
    assert_eq!(reader.read_at(&mut found, 0).unwrap(), wanted.len());
    assert!(found == wanted);
    drop((opened, reader));
    assert_eq!(
        files_in(&place.root().join("leases")),
        Vec::<PathBuf>::new()
    );
}
