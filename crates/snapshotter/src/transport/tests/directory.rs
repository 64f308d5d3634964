//! The suite against a directory, and what is the directory's own.

use std::path::Path;

use tempfile::TempDir;

use super::suite::{Stand, content, content_suite, fetch, publish};
use crate::transport::{Content, ContentProvider, ContentTransport, Existing, open};
use crate::words::digest::Digest;
use crate::words::error::ErrorKind;

struct Shelf(TempDir);

fn shelf() -> Shelf {
    Shelf(tempfile::tempdir().unwrap())
}

fn at(root: &Path) -> Box<dyn ContentTransport> {
    let mut content = Content::new(ContentProvider::Fs);
    content.root = root.to_owned();
    open(&content).unwrap()
}

fn names(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root.join("xxh3")).into_iter().flatten();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

impl Stand for Shelf {
    fn open(&self) -> Box<dyn ContentTransport> {
        at(self.0.path())
    }

    fn put(&self, digest: Digest, bytes: &[u8]) {
        let dir = self.0.path().join("xxh3");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(digest.hex()), bytes).unwrap();
    }

    fn keys(&self) -> Vec<String> {
        let names = names(self.0.path());
        let mut keys: Vec<_> = names
            .iter()
            .filter(|name| !name.starts_with('.'))
            .map(|name| format!("xxh3/{name}"))
            .collect();
        keys.sort();
        keys
    }

    fn litter(&self) -> usize {
        let names = names(self.0.path());
        names.iter().filter(|name| name.starts_with('.')).count()
    }
}

content_suite!(shelf());

#[tokio::test]
async fn a_root_that_is_missing_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let transport = at(&dir.path().join("not-mounted"));
    let (digest, bytes) = content(1, 100);
    let published = publish(&*transport, digest, &bytes, Existing::Keep).await;
    assert_eq!(published.unwrap_err().kind(), ErrorKind::NotFound);
    let checked = transport.check().await.unwrap_err();
    assert_eq!(checked.kind(), ErrorKind::NotFound);
    assert!(checked.to_string().contains("not-mounted"), "{checked}");
    assert_eq!(
        transport.size(digest).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert!(!dir.path().join("not-mounted").exists());
}

#[tokio::test]
async fn a_symlink_is_not_an_object() {
    let shelf = shelf();
    shelf.put(Digest::from_u64(1), b"x");
    let link = shelf.0.path().join("xxh3/2");
    std::os::unix::fs::symlink("/etc/hostname", link).unwrap();
    let error = fetch(&*shelf.open(), Digest::from_u64(2), None, 1 << 20).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn two_who_publish_one_object_both_succeed() {
    let shelf = shelf();
    let (digest, bytes) = content(2, 3 << 20);
    let (one, other) = (shelf.open(), shelf.open());
    let (first, second) = tokio::join!(
        publish(&*one, digest, &bytes, Existing::Keep),
        publish(&*other, digest, &bytes, Existing::Keep),
    );
    first.unwrap();
    second.unwrap();
    assert_eq!((shelf.keys().len(), shelf.litter()), (1, 0));
}

#[tokio::test]
async fn objects_of_the_go_library_come_back_byte_for_byte() {
    let shelf = shelf();
    super::golden(&shelf).await;
}
