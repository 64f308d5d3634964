//! The suite against a directory, and what is the directory's own.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::suite::{Stand, content, content_suite, fetch, publish, stream};
use crate::transport::{Content, ContentProvider, ContentTransport, Existing, open};
use crate::words::digest::Digest;
use crate::words::error::ErrorKind;
use crate::words::object::{Object, ObjectName};

struct Shelf(TempDir);

fn shelf() -> Shelf {
    Shelf(tempfile::tempdir().unwrap())
}

fn at(root: &Path) -> Arc<dyn ContentTransport> {
    let mut content = Content::new(ContentProvider::Fs);
    content.root = root.to_owned();
    open(&content).unwrap()
}

/// The names of objects, and those of what is no object.
fn names(root: &Path) -> (Vec<String>, Vec<String>) {
    let mut names = Vec::new();
    for prefix in ObjectName::PREFIXES {
        let entries = std::fs::read_dir(root.join(prefix)).into_iter().flatten();
        let name = |entry: std::fs::DirEntry| entry.file_name().into_string().unwrap();
        names.extend(entries.map(|entry| format!("{prefix}/{}", name(entry.unwrap()))));
    }
    names.sort();
    names.into_iter().partition(|name| !name.contains("/."))
}

impl Stand for Shelf {
    fn open(&self) -> Arc<dyn ContentTransport> {
        at(self.0.path())
    }

    fn put(&self, object: Object, bytes: &[u8]) {
        let path = self.0.path().join(object.key());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn keys(&self) -> Vec<String> {
        names(self.0.path()).0
    }

    fn litter(&self) -> usize {
        names(self.0.path()).1.len()
    }
}

content_suite!(shelf());

#[tokio::test]
async fn a_root_that_is_missing_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let transport = at(&dir.path().join("not-mounted"));
    let (object, bytes) = content(1, 100);
    let published = publish(&*transport, object, &bytes, Existing::Keep).await;
    assert_eq!(published.unwrap_err().kind(), ErrorKind::NotFound);
    let checked = transport.check().await.unwrap_err();
    assert_eq!(checked.kind(), ErrorKind::NotFound);
    assert!(checked.to_string().contains("not-mounted"), "{checked}");
    assert_eq!(
        transport.size(object).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert!(!dir.path().join("not-mounted").exists());
}

#[tokio::test]
async fn a_symlink_is_not_an_object() {
    let shelf = shelf();
    shelf.put(stream(Digest::from_u64(1), 1), b"x");
    let link = shelf.0.path().join("xxh3/2");
    std::os::unix::fs::symlink("/etc/hostname", link).unwrap();
    let error = fetch(
        &*shelf.open(),
        stream(Digest::from_u64(2), 1),
        None,
        1 << 20,
    )
    .await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn two_who_publish_one_object_both_succeed() {
    let shelf = shelf();
    let (object, bytes) = content(2, 3 << 20);
    let (one, other) = (shelf.open(), shelf.open());
    let (first, second) = tokio::join!(
        publish(&*one, object, &bytes, Existing::Keep),
        publish(&*other, object, &bytes, Existing::Keep),
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
