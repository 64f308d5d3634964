//! What these tests share: a handle that blocks, children that play a part, looks at a root from outside, and
//! documents nobody honest would write.

pub mod children;
pub mod document;
pub mod outside;
pub mod steps;

use std::path::Path;
use std::sync::OnceLock;

use snapshotter::{
    Config, Error, ErrorKind, File, Format, RestoreReport, RestoreRequest, SnapshotReport,
    SnapshotRequest, SnapshotSummary, Snapshotter, Usage, VerifyReport, VerifyRequest,
};
use testkit::compare::assert_same;
use testkit::{Content, Tree};

/// A [`Snapshotter`] whose calls block.
pub struct Handle {
    runtime: tokio::runtime::Runtime,
    snapshotter: Snapshotter,
}

impl Handle {
    pub fn open(root: &Path) -> Result<Self, Error> {
        Self::with(Config::new(root))
    }

    pub fn with(config: Config) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let snapshotter = runtime.block_on(Snapshotter::open(config))?;
        Ok(Self {
            runtime,
            snapshotter,
        })
    }

    pub fn observed_by(self, observer: std::sync::Arc<dyn snapshotter::Observer>) -> Self {
        let snapshotter = self.snapshotter.observed_by(observer);
        Self {
            snapshotter,
            ..self
        }
    }

    pub fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotReport, Error> {
        self.runtime.block_on(self.snapshotter.snapshot(request))
    }

    pub fn restore(&self, reference: &str, output: &Path) -> Result<RestoreReport, Error> {
        self.restore_with(&restore_request(reference, output))
    }

    pub fn restore_with(&self, request: &RestoreRequest) -> Result<RestoreReport, Error> {
        self.runtime.block_on(self.snapshotter.restore(request))
    }

    pub fn convert(
        &self,
        request: &snapshotter::ConvertRequest,
    ) -> Result<snapshotter::ConvertReport, Error> {
        self.runtime.block_on(self.snapshotter.convert(request))
    }

    pub fn remove(&self, reference: &str) -> Result<snapshotter::RemoveReport, Error> {
        let reference = reference.parse().expect("a reference");
        self.runtime.block_on(self.snapshotter.remove(&reference))
    }

    #[cfg(feature = "registry")]
    pub fn push(&self, reference: &str) -> Result<snapshotter::PushReport, Error> {
        let request = snapshotter::PushRequest::new(reference.parse().expect("a reference"));
        self.runtime.block_on(self.snapshotter.push(&request))
    }

    #[cfg(feature = "registry")]
    pub fn pull(&self, reference: &str) -> Result<snapshotter::PullReport, Error> {
        let request = snapshotter::PullRequest::new(reference.parse().expect("a reference"));
        self.runtime.block_on(self.snapshotter.pull(&request))
    }

    pub fn list(&self) -> Result<Vec<SnapshotSummary>, Error> {
        self.runtime.block_on(self.snapshotter.list())
    }

    pub fn open_snapshot(&self, reference: &str) -> Result<snapshotter::Opened, Error> {
        let reference = reference.parse().unwrap();
        self.runtime
            .block_on(self.snapshotter.open_snapshot(&reference))
    }

    /// The references that are listed, as text.
    pub fn listed(&self) -> Vec<String> {
        let list = self.list().expect("a list");
        list.iter()
            .map(|summary| summary.reference.to_string())
            .collect()
    }

    pub fn inspect(&self, reference: &str) -> Result<snapshotter::SnapshotDetails, Error> {
        let reference = reference.parse().expect("a reference");
        self.runtime.block_on(self.snapshotter.inspect(&reference))
    }

    pub fn gc(&self, request: &snapshotter::GcRequest) -> Result<snapshotter::GcReport, Error> {
        self.runtime.block_on(self.snapshotter.gc(request))
    }

    pub fn verify(&self) -> Result<VerifyReport, Error> {
        self.runtime
            .block_on(self.snapshotter.verify(&VerifyRequest::all()))
    }

    pub fn repair(&self) -> Result<VerifyReport, Error> {
        let request = VerifyRequest::all().repair(true);
        self.runtime.block_on(self.snapshotter.verify(&request))
    }

    pub fn usage(&self) -> Result<Usage, Error> {
        self.runtime.block_on(self.snapshotter.usage())
    }

    pub fn close(self) -> Result<(), Error> {
        self.runtime.block_on(self.snapshotter.close())
    }

    /// Verifies everything and insists that nothing is wrong.
    #[track_caller]
    pub fn assert_clean(&self) -> VerifyReport {
        let report = self.verify().expect("a verification");
        assert!(
            report.damaged.is_empty() && report.missing.is_empty(),
            "{report:#?}"
        );
        report
    }

    /// Restores every listed snapshot below `into` and compares it with the directory `expected` has for its
    /// reference.
    #[track_caller]
    pub fn assert_all_restore(&self, expected: &[(&str, &Path)], into: &Path) {
        for (number, listed) in self.listed().iter().enumerate() {
            let found = expected.iter().find(|(reference, _)| reference == listed);
            let (_, source) = found.unwrap_or_else(|| panic!("{listed} should not be there"));
            let output = into.join(format!("listed-{number}"));
            self.restore(listed, &output)
                .unwrap_or_else(|error| panic!("{listed}: {error:?}"));
            assert_same(source, &output);
            std::fs::remove_dir_all(&output).expect("the output goes");
        }
    }
}

pub fn restore_request(reference: &str, output: &Path) -> RestoreRequest {
    RestoreRequest::new(reference.parse().expect("a reference"), output)
}

/// A checkpoint in small: two read-only files, one of more than a MiB and with a hole, one with a second name; a
/// writable file, a symlink, an empty directory. All older than now.
pub fn checkpoint() -> Tree {
    let memory = Content::Sparse {
        size: 3 << 20,
        extents: vec![(4096, 1, 1 << 20), (2 << 20, 2, 200_000)],
    };
    let state = Content::Random { seed: 3, len: 5000 };
    let disk = Content::Random { seed: 4, len: 9000 };
    let tree = Tree::new()
        .file("ro/memory", memory)
        .mode("ro/memory", 0o640)
        .file("ro/state", state)
        .hardlink("ro/state-again", "ro/state")
        .file("disk", disk)
        .mode("disk", 0o600)
        .dir("empty")
        .symlink("latest", "ro/state");
    [
        "ro/memory",
        "ro/state",
        "disk",
        "latest",
        "empty",
        "ro",
        "ro/memory",
    ]
    .iter()
    .enumerate()
    .fold(tree, |tree, (index, path)| {
        tree.mtime(path, 1_700_000_000 + index as i64, 123_456_789)
    })
}

/// Another tree that shares the bytes of `ro/state`, not its attributes, with [`checkpoint`].
pub fn keepsake() -> Tree {
    Tree::new()
        .file("ro/state", Content::Random { seed: 3, len: 5000 })
        .mode("ro/state", 0o400)
        .mtime("ro/state", 1_600_000_000, 1)
        .file("own", Content::Random { seed: 9, len: 7000 })
        .mtime("own", 1_600_000_000, 2)
        .mtime("ro", 1_600_000_000, 3)
}

/// In which format this process, and the children it starts, take snapshots.
static FORMAT: OnceLock<Format> = OnceLock::new();

/// The one that was asked for, or that the parent has told.
pub fn format() -> Format {
    let told = || std::env::var(FORMAT_VARIABLE).ok()?.parse().ok();
    *FORMAT.get_or_init(|| told().unwrap_or_default())
}

/// The environment variable that tells a child.
pub const FORMAT_VARIABLE: &str = "SNAPSHOTTER_TEST_FORMAT";

/// Has this process take snapshots in pages. Each test has a process of its own.
pub fn take_pages() {
    assert_eq!(*FORMAT.get_or_init(|| Format::V2), Format::V2);
}

/// The same tests once more, with snapshots in pages.
macro_rules! in_pages_too {
    ($($test:ident),* $(,)?) => {
        mod in_pages {
            $(
                #[test]
                fn $test() {
                    crate::support_b::take_pages();
                    super::$test();
                }
            )*
        }
    };
}

/// Everything below `base`, what is in `ro` read-only.
pub fn request(name: &str, version: &str, base: &Path) -> SnapshotRequest {
    let request = SnapshotRequest::new(name, version, base)
        .file(File::new("."))
        .format(format());
    if base.join("ro").is_dir() {
        return request.file(File::new("ro").read_only(true));
    }
    request
}

/// What a call gave, or nothing where somebody else held the catalog.
#[track_caller]
pub fn unless_busy<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if error.kind() == ErrorKind::Busy => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// The error's kind; a success is a failure.
#[track_caller]
pub fn kind<T>(result: Result<T, Error>) -> ErrorKind {
    match result {
        Ok(_) => panic!("it should have been refused"),
        Err(error) => error.kind(),
    }
}

/// The error; a success is a failure.
#[track_caller]
pub fn refusal<T>(result: Result<T, Error>) -> Error {
    match result {
        Ok(_) => panic!("it should have been refused"),
        Err(error) => error,
    }
}
