//! `Snapshotter::copy`: from one registry and place of contents to another, with no store between them.

use crate::support_a;

use std::fs;
use std::path::{Path, PathBuf};

use snapshotter::{
    Config, Content, ContentProvider, CopyReport, CopyRequest, Error, ErrorKind, Registry,
    RestoreRequest, SnapshotRequest, Snapshotter,
};
use support_a::*;
use testkit::compare::assert_same;
use testkit::s3::S3;
use testkit::{Content as Bytes, Tree};

const MIB: u64 = 1 << 20;

fn checkpoint() -> Tree {
    let extents = vec![(0, 1, 65536), (5 * MIB, 2, 3 * MIB)];
    let memory = Bytes::Sparse {
        size: 24 * MIB,
        extents,
    };
    Tree::new()
        .file("memory", memory)
        .file("disk", random(4, 10 * MIB))
        .file("state.json", "{}")
        .file("empty", "")
        .symlink("latest", "state.json")
        .hardlink("state-too.json", "state.json")
}

/// A registry in a directory, and contents in one, in it, or in a bucket.
struct End {
    place: Place,
    s3: Option<S3>,
    provider: ContentProvider,
}

impl End {
    fn new(provider: ContentProvider) -> Self {
        let place = Place::new();
        fs::create_dir_all(place.path("objects")).unwrap();
        let s3 = (provider == ContentProvider::S3).then(|| S3::start("ckpt"));
        Self {
            place,
            s3,
            provider,
        }
    }

    fn config(&self, root: PathBuf) -> Config {
        let mut content = match &self.s3 {
            Some(s3) => in_bucket(s3, s3.endpoint()),
            None => Content::new(self.provider),
        };
        if self.provider == ContentProvider::Fs {
            content.root = self.place.path("objects");
        }
        let layouts = format!("oci-layout:{}", self.place.path("layouts").display());
        let registry = Registry::new(layouts, format!("of/{}", self.provider));
        Config::new(root).registry(registry).content(content)
    }

    /// Without a store.
    fn alone(&self) -> Config {
        self.config(self.place.path("no-store"))
    }

    async fn node(&self, own: &Place) -> Snapshotter {
        Snapshotter::open(self.config(own.root())).await.unwrap()
    }

    async fn publish(&self, source: &Path) -> SnapshotRequest {
        let own = Place::new();
        let node = self.node(&own).await;
        let request = SnapshotRequest::new("vm", "v1", source)
            .annotation("why", "a test")
            .read_only("memory");
        node.snapshot(&request).await.unwrap();
        request
    }

    async fn assert_restores(&self, source: &Path) {
        let own = Place::new();
        let node = self.node(&own).await;
        let restore = RestoreRequest::new(reference("vm:v1"), own.path("out"));
        node.restore(&restore).await.unwrap();
        assert_same(source, &own.path("out"));
        let details = node.inspect(&reference("vm:v1")).await.unwrap();
        assert_eq!(details.annotations["why"], "a test");
    }
}

async fn copy(from: &End, to: &End, force: bool) -> Result<CopyReport, Error> {
    let request = CopyRequest::new(reference("vm:v1")).force(force);
    let report = Snapshotter::copy(&from.alone(), &to.alone(), &request).await;
    for end in [from, to] {
        assert!(!end.place.path("no-store").exists(), "a store was made");
    }
    report
}

/// From each kind of place to each, and back: the files are the same, and what is there is not sent again. Where contents are
/// in a registry the manifest names them, so its digest is another one; back again it is the first.
#[tokio::test]
async fn a_snapshot_goes_from_any_place_to_any() {
    let providers = [
        ContentProvider::Fs,
        ContentProvider::Registry,
        ContentProvider::S3,
    ];
    let source = Place::new();
    let files = source.write("files", &checkpoint());
    for (first, second) in providers
        .into_iter()
        .flat_map(|a| providers.map(|b| (a, b)))
    {
        let (from, to, back) = (End::new(first), End::new(second), End::new(first));
        from.publish(&files).await;
        let there = copy(&from, &to, false).await.unwrap();
        assert_eq!((there.publication.sent_blobs, there.reused_blobs), (4, 0));
        to.assert_restores(&files).await;
        let again = copy(&from, &to, false).await.unwrap();
        assert_eq!((again.publication.sent_blobs, again.reused_blobs), (0, 4));
        assert_eq!(again.reference, there.reference);
        let returned = copy(&to, &back, false).await.unwrap();
        back.assert_restores(&files).await;
        let original = copy(&from, &back, false).await.unwrap();
        assert_eq!(original.reference, returned.reference, "{first} {second}");
        let forced = copy(&from, &to, true).await.unwrap();
        assert_eq!(forced.publication.sent_blobs, 4);
        assert_eq!(forced.reference, there.reference);
    }
}

/// Damaged bytes of one place never become an object of another.
#[tokio::test]
async fn what_is_damaged_is_not_copied() {
    let source = Place::new();
    let files = source.write("files", &Tree::new().file("memory", random(7, 3 * MIB)));
    for to in [
        ContentProvider::Fs,
        ContentProvider::Registry,
        ContentProvider::S3,
    ] {
        let (from, to) = (End::new(ContentProvider::Fs), End::new(to));
        from.publish(&files).await;
        let objects = from.place.path("objects");
        let object = objects.join(&objects_below(&objects)[0]);
        let mut bytes = fs::read(&object).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::remove_file(&object).unwrap();
        fs::write(&object, bytes).unwrap();
        let error = copy(&from, &to, false).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
        assert!(objects_below(&to.place.path("objects")).is_empty());
        assert!(
            to.s3
                .as_ref()
                .is_none_or(|s3| s3.keys().iter().all(|key| key.starts_with("snapshotter/")))
        );
        let own = Place::new();
        let absent = to
            .node(&own)
            .await
            .inspect_remote(&reference("vm:v1"))
            .await;
        assert_eq!(absent.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

// A copy into a registry that keeps the contents found out that the version is taken when all of them were sent.
#[tokio::test]
async fn versions_are_immutable_there_too() {
    for provider in [ContentProvider::Fs, ContentProvider::Registry] {
        versions_are_immutable_in(provider).await;
    }
}

async fn versions_are_immutable_in(provider: ContentProvider) {
    let source = Place::new();
    let (one, other) = (
        source.write("one", &Tree::new().file("state", "one")),
        source.write("other", &Tree::new().file("state", "other")),
    );
    let (from, to) = (End::new(ContentProvider::Fs), End::new(provider));
    let error = copy(&from, &to, false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    from.publish(&one).await;
    to.publish(&other).await;
    let there = || files_below(&to.place.path("")).len();
    let before = there();
    let error = copy(&from, &to, false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error:?}");
    assert_eq!(there(), before, "nothing is sent");
    to.assert_restores(&other).await;
    copy(&from, &to, true).await.unwrap();
    to.assert_restores(&one).await;
    let unnamed = format!(
        "vm@{}",
        copy(&from, &to, false)
            .await
            .unwrap()
            .publication
            .manifest_digest
    );
    let request = CopyRequest::new(reference(&unnamed));
    let error = Snapshotter::copy(&from.alone(), &to.alone(), &request).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
    let nowhere = Config::new("/nowhere");
    let error = Snapshotter::copy(
        &from.alone(),
        &nowhere,
        &CopyRequest::new(reference("vm:v1")),
    )
    .await;
    assert!(error.unwrap_err().to_string().contains("copy to"));
}
