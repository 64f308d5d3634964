//! What only image layouts can show: files, locks, other programs' entries.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::places::layout_config;
use super::servers::skopeo;
use super::suite::push;
use super::*;
use crate::ErrorKind;

struct Directory {
    home: tempfile::TempDir,
    registry: Arc<dyn MetadataRegistry>,
}

impl Directory {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let registry = opened(&layout_config(home.path()));
        Self { home, registry }
    }

    fn layout(&self) -> PathBuf {
        self.home.path().join("ns/vm/one")
    }

    fn index(&self) -> Value {
        let bytes = std::fs::read(self.layout().join("index.json")).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    fn blob(&self, bytes: &[u8]) -> PathBuf {
        self.layout()
            .join("blobs/sha256")
            .join(Sha256::of(bytes).hex())
    }
}

#[tokio::test]
async fn it_is_an_image_layout_that_skopeo_reads_and_writes() {
    let directory = Directory::new();
    let manifest = push(&directory.registry, &repository(), &v1(), b"{\"a\":1}").await;
    let marker = std::fs::read(directory.layout().join("oci-layout")).unwrap();
    assert_eq!(marker, br#"{"imageLayoutVersion":"1.0.0"}"#);
    let entry = &directory.index()["manifests"][0];
    assert_eq!(
        entry["annotations"]["org.opencontainers.image.ref.name"],
        "v1"
    );
    assert_eq!(entry["digest"], Sha256::of(&manifest).to_string());
    assert_eq!(entry["size"], manifest.len());
    let from = format!("oci:{}:v1", directory.layout().display());
    let Some(raw) = skopeo(&["inspect", "--raw", &from]) else {
        return;
    };
    assert_eq!(raw, manifest);
    // And what skopeo writes beside it is there, with ours.
    let to = format!("oci:{}:v2", directory.layout().display());
    skopeo(&["copy", "--insecure-policy", &from, &to]);
    let tags = directory.registry.tags(&repository()).await.unwrap();
    assert_eq!(tags.len(), 2);
}

#[tokio::test]
async fn only_its_owner_can_read_it_and_nothing_is_left_over() {
    let directory = Directory::new();
    push(&directory.registry, &repository(), &v1(), b"{}").await;
    let mut names = Vec::new();
    let mut dirs = vec![directory.home.path().join("ns")];
    while let Some(dir) = dirs.pop() {
        assert_eq!(mode(&dir), 0o700, "{dir:?}");
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                assert_eq!(mode(&path), 0o600, "{path:?}");
                names.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    assert!(
        !names.iter().any(|name| name.contains(".snapshotter-")),
        "{names:?}"
    );
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_lose_no_entry() {
    let directory = Directory::new();
    let pushes: Vec<_> = (0..24)
        .map(|number| {
            // Each has a handle of its own: flock excludes them from each other as it does processes.
            let registry = opened(&layout_config(directory.home.path()));
            tokio::spawn(async move {
                let which = TagOrDigest::tag(format!("v{number}")).unwrap();
                push(
                    &registry,
                    &repository(),
                    &which,
                    format!("[{number}]").as_bytes(),
                )
                .await;
            })
        })
        .collect();
    for push in pushes {
        push.await.unwrap();
    }
    let tags = directory.registry.tags(&repository()).await.unwrap();
    assert_eq!(tags.len(), 24);
}

#[tokio::test]
async fn an_index_that_stays_locked_is_busy() {
    let directory = Directory::new();
    push(&directory.registry, &repository(), &v1(), b"{}").await;
    let dir = crate::fs::Dir::open(&directory.layout()).unwrap();
    let lock = crate::fs::lock::try_shared_name(&dir, ".index.lock".as_ref(), 0o600).unwrap();
    assert!(lock.is_some());
    let config = layout_config(directory.home.path()).timeout(Duration::from_millis(20));
    let bytes = Bytes::from_static(b"{}");
    let error = opened(&config)
        .push_manifest(&repository(), &v1(), bytes)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains(".index.lock"), "{error}");
}

#[tokio::test]
async fn entries_and_fields_of_others_stay() {
    let directory = Directory::new();
    push(&directory.registry, &repository(), &v1(), b"{}").await;
    let mut index = directory.index();
    index["annotations"] = json!({"who": "somebody"});
    let other =
        json!({"mediaType": "x/y", "digest": "sha512:0", "size": 1, "platform": {"os": "none"}});
    index["manifests"]
        .as_array_mut()
        .unwrap()
        .push(other.clone());
    std::fs::write(directory.layout().join("index.json"), index.to_string()).unwrap();
    let second = push(&directory.registry, &repository(), &v1(), b"[]").await;
    let index = directory.index();
    assert_eq!(index["annotations"]["who"], "somebody");
    assert!(index["manifests"].as_array().unwrap().contains(&other));
    assert!(
        directory
            .registry
            .delete_manifest(&repository(), Sha256::of(&second))
            .await
            .unwrap()
    );
    assert!(!directory.blob(&second).exists());
    assert!(
        directory.index()["manifests"]
            .as_array()
            .unwrap()
            .contains(&other)
    );
}

#[tokio::test]
async fn a_malformed_index_is_damage_and_is_not_overwritten() {
    let directory = Directory::new();
    push(&directory.registry, &repository(), &v1(), b"{}").await;
    let nested = format!(r#"{{"manifests":{}"#, "[".repeat(200_000));
    for bad in [
        "",
        "[]",
        "{",
        r#"{"manifests":5}"#,
        r#"{"manifests":[5]}"#,
        &nested,
    ] {
        std::fs::write(directory.layout().join("index.json"), bad).unwrap();
        let errors = [
            directory
                .registry
                .manifest(&repository(), &v1())
                .await
                .unwrap_err(),
            directory
                .registry
                .push_manifest(&repository(), &v1(), Bytes::from_static(b"{}"))
                .await
                .unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Damaged);
            assert!(error.to_string().contains("index.json"), "{error}");
        }
        let kept = std::fs::read(directory.layout().join("index.json")).unwrap();
        assert_eq!(kept, bad.as_bytes());
    }
}

#[tokio::test]
async fn damaged_blobs_are_seen_and_mended_by_a_push() {
    let directory = Directory::new();
    let registry = &directory.registry;
    let manifest = push(registry, &repository(), &v1(), b"{\"a\":1}").await;
    let flipped: Vec<_> = manifest.iter().map(|byte| byte ^ 1).collect();
    for damage in [&flipped[..], &manifest[1..], b""] {
        std::fs::write(directory.blob(&manifest), damage).unwrap();
        let error = registry.manifest(&repository(), &v1()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
        assert_eq!(error.path(), Some(&*directory.blob(&manifest)));
    }
    push(registry, &repository(), &v1(), b"{\"a\":1}").await;
    let mended = registry.manifest(&repository(), &v1()).await.unwrap();
    assert_eq!(mended.unwrap().bytes, manifest);
}

#[tokio::test]
async fn names_with_a_meaning_in_a_layout_and_symlinks_are_refused() {
    let directory = Directory::new();
    for name in ["blobs", "a/blobs/sha256", "a/index.json", "oci-layout"] {
        let repository = Repository::new("ns", name).unwrap();
        let error = directory
            .registry
            .push_manifest(&repository, &v1(), Bytes::from_static(b"{}"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
    let outside = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.home.path().join("ns")).unwrap();
    std::os::unix::fs::symlink(outside.path(), directory.home.path().join("ns/link")).unwrap();
    let link = Repository::new("ns", "link").unwrap();
    let bytes = Bytes::from_static(b"{}");
    directory
        .registry
        .push_blob(&link, Sha256::of(b"{}"), bytes)
        .await
        .unwrap_err();
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}
