//! What these tests share: a place to work in, an observer that remembers, an independent SPF1.

use std::collections::BTreeMap;
use std::fs::{self, File as FsFile};
use std::hash::Hasher as _;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use snapshotter::{
    Config, Error, Event, File, Observer, Placement, Reference, RestoreReport, RestoreRequest,
    SnapshotReport, SnapshotRequest, Snapshotter, VerifyReport, VerifyRequest,
};
use tempfile::TempDir;
use testkit::compare::{Options, Sharing};
use testkit::{Content as Bytes, Tree};

/// When files are written that are to be older than any test.
pub const OLD: (i64, u32) = (1_600_000_000, 123_456_789);

pub fn random(seed: u64, len: u64) -> Bytes {
    Bytes::Random { seed, len }
}

/// One file of its own and one that all versions share.
pub fn vm(seed: u64) -> Tree {
    Tree::new()
        .file("own", random(seed, 40_000))
        .file("shared", random(99, 50_000))
}

/// A temporary directory with a store in it, removed at the end whatever the modes inside are.
pub struct Place {
    dir: TempDir,
    next: AtomicUsize,
}

impl Place {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            next: AtomicUsize::new(0),
        }
    }

    /// In memory, where there is: for hundreds of stores, whose syncs would say nothing.
    pub fn quick() -> Self {
        let made = TempDir::new_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self {
            dir: made.unwrap(),
            next: AtomicUsize::new(0),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn root(&self) -> PathBuf {
        self.path("store")
    }

    pub async fn open(&self) -> Snapshotter {
        self.open_with(|config| config).await
    }

    pub async fn open_with(&self, change: impl FnOnce(Config) -> Config) -> Snapshotter {
        Snapshotter::open(change(Config::new(self.root())))
            .await
            .unwrap()
    }

    /// Writes a tree into a directory of this name.
    pub fn write(&self, name: &str, tree: &Tree) -> PathBuf {
        let at = self.path(name);
        tree.write_to(&at).unwrap();
        at
    }

    /// A directory that is not there yet.
    pub fn fresh(&self) -> PathBuf {
        self.path(&format!(
            "out-{}",
            self.next.fetch_add(1, Ordering::Relaxed)
        ))
    }

    /// Where blobs are: the first 65,536 of a store are in one directory.
    pub fn content(&self) -> PathBuf {
        self.root().join("storage/content/blake3/0000")
    }

    /// Where views are.
    pub fn views(&self) -> PathBuf {
        self.root().join("storage/snapshot/blake3/0000")
    }

    /// The names of all blobs.
    pub fn blobs(&self) -> Vec<PathBuf> {
        files_in(&self.content())
    }

    /// The only blob there is.
    pub fn only_blob(&self) -> PathBuf {
        let blobs = self.blobs();
        assert_eq!(blobs.len(), 1, "{blobs:?}");
        blobs[0].clone()
    }

    /// Whether nothing at all is stored, being stored or being thrown away.
    pub fn assert_empty(&self) {
        for part in [
            "storage/content/blake3",
            "storage/snapshot/blake3",
            "staging",
            "trash",
        ] {
            let left = files_below(&self.root().join(part));
            assert!(left.is_empty(), "{part} still has {left:?}");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = testkit::tree::unlock(self.dir.path());
    }
}

/// What is in a directory, sorted. Nothing is where there is none: shards are made when they are needed.
pub fn files_in(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// All paths below a directory that are no directories.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = testkit::fsstat::entries(dir).unwrap();
    let files = entries.into_iter().filter(|(_, stat)| !stat.is_dir());
    files.map(|(path, _)| path).collect()
}

/// Those of contents, without the records beside them.
pub fn objects_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = files_below(dir);
    found.retain(|path| {
        !path
            .components()
            .any(|part| part.as_os_str() == "snapshotter")
    });
    found
}

pub fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// A snapshot of everything below a directory.
pub fn all(version: &str, base: &Path) -> SnapshotRequest {
    SnapshotRequest::new("test", version, base)
}

/// The same, read-only.
pub fn all_read_only(version: &str, base: &Path) -> SnapshotRequest {
    all(version, base).file(File::new(".").read_only(true))
}

pub fn to(version: &str, output: &Path) -> RestoreRequest {
    RestoreRequest::new(reference(&format!("test:{version}")), output)
}

/// Takes a snapshot of everything below a directory.
pub async fn take(store: &Snapshotter, version: &str, base: &Path) -> SnapshotReport {
    store.snapshot(&all(version, base)).await.unwrap()
}

/// The same, read-only.
pub async fn take_read_only(store: &Snapshotter, version: &str, base: &Path) -> SnapshotReport {
    store.snapshot(&all_read_only(version, base)).await.unwrap()
}

/// Restores everything.
pub async fn give(store: &Snapshotter, version: &str, output: &Path) -> RestoreReport {
    store.restore(&to(version, output)).await.unwrap()
}

/// Restores everything and expects that it does not work.
pub async fn give_fails(store: &Snapshotter, version: &str, output: &Path) -> Error {
    store.restore(&to(version, output)).await.unwrap_err()
}

pub async fn verify(store: &Snapshotter) -> VerifyReport {
    store.verify(&VerifyRequest::all()).await.unwrap()
}

/// Nothing is wrong with the store.
pub async fn assert_sound(store: &Snapshotter) {
    let report = verify(store).await;
    assert!(
        report.damaged.is_empty() && report.missing.is_empty() && report.swept_names == 0,
        "{report:?}"
    );
}

/// What read-only restores may do that writable ones may not: equal files are one inode.
pub fn shared() -> Options {
    Options {
        sharing: Sharing::MayShareMore,
        ..Options::default()
    }
}

pub fn stat(path: &Path) -> fs::Metadata {
    fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Device and number.
pub fn inode(path: &Path) -> (u64, u64) {
    let stat = stat(path);
    (stat.dev(), stat.ino())
}

/// Makes files and directories old, so that any later change moves their times.
pub fn age(path: &Path) {
    testkit::tree::set_mtime(path, OLD).unwrap();
}

pub fn mtime(path: &Path) -> (i64, u32) {
    let stat = stat(path);
    (stat.mtime(), u32::try_from(stat.mtime_nsec()).unwrap())
}

/// Changes bytes in place and moves the modification time, as any write does.
pub fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = FsFile::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// The same, but the modification time is put back.
pub fn overwrite_secretly(path: &Path, at: u64, bytes: &[u8]) {
    let before = mtime(path);
    overwrite(path, at, bytes);
    testkit::tree::set_mtime(path, before).unwrap();
}

/// Objects in a bucket, reached at `endpoint`.
#[cfg(feature = "object-storage-s3")]
pub fn in_bucket(s3: &testkit::s3::S3, endpoint: String) -> snapshotter::Content {
    use testkit::s3::{ACCESS_KEY, SECRET_KEY};
    let mut content = snapshotter::Content::new(snapshotter::ContentProvider::S3);
    content.bucket = Some(s3.bucket().to_owned());
    content.endpoint = Some(endpoint);
    content.access_key_id = Some(ACCESS_KEY.to_owned());
    content.access_key_secret = Some(SECRET_KEY.to_owned());
    content
}

/// Makes an index of a catalog that nobody has open unreadable.
pub fn break_index(catalog: &Path) {
    let connection = rusqlite::Connection::open(catalog).unwrap();
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let sql = "SELECT rootpage FROM sqlite_master WHERE name = 'snapshots_by_name'";
    let page: i64 = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    drop(connection);
    overwrite(catalog, (page.cast_unsigned() - 1) * 4096, &[0xff; 4096]);
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Digest and checksum of a file as format v1 wants them, worked out the simple way.
pub fn spf1(path: &Path) -> (String, String) {
    let file = FsFile::open(path).unwrap();
    let extents = testkit::extents::of_path(path).unwrap();
    let mut stream = b"SPF1".to_vec();
    stream.extend(file.metadata().unwrap().len().to_be_bytes());
    stream.extend((extents.len() as u64).to_be_bytes());
    for (offset, length) in extents {
        stream.extend(offset.to_be_bytes());
        stream.extend(length.to_be_bytes());
        let start = stream.len();
        stream.resize(start + usize::try_from(length).unwrap(), 0);
        file.read_exact_at(&mut stream[start..], offset).unwrap();
    }
    let mut xxh3 = twox_hash::XxHash3_64::new();
    xxh3.write(&stream);
    (
        format!("xxh3:{:x}", xxh3.finish()),
        format!("blake3:{}", blake3::hash(&stream).to_hex()),
    )
}

/// Bytes of data in a tree, holes excluded, each inode once.
pub fn data_bytes(dir: &Path) -> u64 {
    let mut inodes = BTreeMap::new();
    for (path, stat) in testkit::fsstat::entries(dir).unwrap() {
        if stat.is_file() {
            let extents = testkit::extents::of_path(&dir.join(path)).unwrap();
            let bytes: u64 = extents.iter().map(|(_, length)| length).sum();
            inodes.insert((stat.dev(), stat.ino()), bytes);
        }
    }
    inodes.values().sum()
}

/// Remembers what it hears.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<Event>>);

impl Observer for Recorder {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

impl Recorder {
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap().clone()
    }

    /// Files and bytes that were planned; exactly one plan.
    pub fn planned(&self) -> (u64, u64) {
        let events = self.events();
        let mut planned = events.iter().filter_map(|event| match event {
            Event::Planned { files, bytes, .. } => Some((*files, *bytes)),
            _ => None,
        });
        let found = planned.next().expect("a plan");
        assert_eq!(planned.next(), None, "two plans");
        found
    }

    pub fn progressed(&self) -> u64 {
        let bytes = |event: &Event| match event {
            Event::Progressed { bytes } => *bytes,
            _ => 0,
        };
        self.events().iter().map(bytes).sum()
    }

    /// The files that finished, sorted.
    pub fn finished(&self) -> Vec<(PathBuf, Placement)> {
        let mut found: Vec<(PathBuf, Placement)> = self
            .events()
            .iter()
            .filter_map(|event| match event {
                Event::FileFinished { path, placement } => Some((path.clone(), *placement)),
                _ => None,
            })
            .collect();
        found.sort_by(|one, other| one.0.cmp(&other.0));
        found
    }
}

/// Does something when it hears of progress: at each event, with the number of events before it.
pub struct OnProgress<F>(F, AtomicUsize);

impl<F: Fn(usize) + Send + Sync> OnProgress<F> {
    pub fn new(act: F) -> Arc<Self> {
        Arc::new(Self(act, AtomicUsize::new(0)))
    }
}

impl<F: Fn(usize) + Send + Sync> Observer for OnProgress<F> {
    fn event(&self, event: &Event) {
        if matches!(event, Event::Progressed { .. }) {
            (self.0)(self.1.fetch_add(1, Ordering::SeqCst));
        }
    }
}

/// Stops the first call that hears of progress until it is told to go on.
#[derive(Default)]
pub struct Gate {
    reached: tokio::sync::Notify,
    state: Mutex<(bool, bool)>,
    opened: std::sync::Condvar,
}

impl Gate {
    /// Waits until a call has come to the gate.
    pub async fn reached(&self) {
        self.reached.notified().await;
    }

    pub fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.opened.notify_all();
    }
}

impl Observer for Gate {
    fn event(&self, event: &Event) {
        if !matches!(event, Event::Progressed { .. }) {
            return;
        }
        let mut state = self.state.lock().unwrap();
        if !state.0 {
            state.0 = true;
            self.reached.notify_one();
        }
        while !state.1 {
            state = self.opened.wait(state).unwrap();
        }
    }
}

/// Waits until nobody holds an observer any more: the calls that had it are over.
pub async fn gone<T: ?Sized>(observer: Weak<T>) {
    let start = Instant::now();
    while observer.strong_count() > 0 {
        assert!(start.elapsed() < Duration::from_secs(120), "still running");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// No temporary name was left in an output directory.
pub fn assert_no_litter(dir: &Path) {
    let litter: Vec<PathBuf> = testkit::fsstat::paths(dir)
        .unwrap()
        .into_iter()
        .filter(|path| path.to_string_lossy().contains(".snapshotter-"))
        .collect();
    assert!(litter.is_empty(), "{litter:?}");
}
