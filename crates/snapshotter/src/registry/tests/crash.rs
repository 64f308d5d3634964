//! An image layout whose writer dies, or whose disk is full, at any change of the filesystem: what was there still is,
//! and the same push goes through afterwards.

use std::path::Path;
use std::process::Stdio;

use testkit::child::{self, Child, State};

use super::places::layout_config;
use super::suite::push;
use super::*;
use crate::fs::hook::{Action, arm};

const AT: &str = "CRASH_AT";
const WHERE: &str = "CRASH_WHERE";

fn v2() -> TagOrDigest {
    TagOrDigest::tag("v2").unwrap()
}

async fn work(registry: &Arc<dyn MetadataRegistry>) -> Result<()> {
    let document = Bytes::from_static(b"[2]");
    registry
        .push_blob(&repository(), Sha256::of(&document), document)
        .await?;
    pushed(&**registry, &repository(), b"stream", End::Well).await?;
    registry
        .push_manifest(&repository(), &v2(), Bytes::from_static(b"{\"two\":2}"))
        .await?;
    Ok(())
}

/// Whatever happened: the first version is whole, the second one whole or not there, and pushing it works.
async fn check(dir: &Path, first: &[u8], at: u64) {
    let registry = opened(&layout_config(dir));
    let found = registry.manifest(&repository(), &v1()).await.unwrap();
    assert_eq!(found.unwrap().bytes, first, "{at}");
    let second = registry.manifest(&repository(), &v2()).await.unwrap();
    assert!(
        second.is_none_or(|pulled| pulled.bytes == b"{\"two\":2}"),
        "{at}"
    );
    work(&registry).await.unwrap();
    let second = registry.manifest(&repository(), &v2()).await.unwrap();
    assert_eq!(second.unwrap().bytes, b"{\"two\":2}", "{at}");
    let stream = Sha256::of(b"stream");
    let (result, bytes) = pulled(&*registry, &repository(), stream, 6, None).await;
    result.unwrap();
    assert_eq!(bytes, b"stream", "{at}");
    assert_eq!(registry.tags(&repository()).await.unwrap().len(), 2, "{at}");
}

#[tokio::test]
async fn a_writer_that_dies_anywhere_damages_nothing() {
    if let (Ok(at), Ok(dir)) = (std::env::var(AT), std::env::var(WHERE)) {
        let registry = opened(&layout_config(Path::new(&dir)));
        arm(Action::Abort, at.parse().unwrap());
        work(&registry).await.unwrap();
        return;
    }
    for at in 1.. {
        let dir = tempfile::tempdir().unwrap();
        let registry = opened(&layout_config(dir.path()));
        let first = push(&registry, &repository(), &v1(), b"{}").await;
        let name = "a_writer_that_dies_anywhere_damages_nothing";
        let mut command = child::this_test(module_path!(), name);
        command
            .env(AT, at.to_string())
            .env(WHERE, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let end = Child::spawn(&mut command).unwrap().wait().unwrap();
        check(dir.path(), &first, at).await;
        match end {
            State::Signaled(libc::SIGABRT) => {}
            State::Exited(0) => {
                assert!(at > 20, "only {at} changes were seen");
                return;
            }
            other => panic!("{at}: {other:?}"),
        }
    }
}

/// Alone in its process, as nextest runs it: the hook is one for all threads.
#[tokio::test]
async fn a_full_disk_anywhere_damages_nothing() {
    const NAME: &str = "a_full_disk_anywhere_damages_nothing";
    if std::env::var(AT).is_err() {
        let mut command = child::this_test(module_path!(), NAME);
        let end = Child::spawn(command.env(AT, "every")).unwrap().wait();
        assert_eq!(end.unwrap(), State::Exited(0));
        return;
    }
    for at in 1.. {
        let dir = tempfile::tempdir().unwrap();
        let registry = opened(&layout_config(dir.path()));
        let first = push(&registry, &repository(), &v1(), b"{}").await;
        arm(Action::NoSpace, at);
        let result = work(&registry).await;
        arm(Action::NoSpace, u64::MAX);
        check(dir.path(), &first, at).await;
        match result {
            Ok(()) => return,
            Err(error) => assert_eq!(error.kind(), crate::ErrorKind::NoSpace, "{at}: {error}"),
        }
    }
}
