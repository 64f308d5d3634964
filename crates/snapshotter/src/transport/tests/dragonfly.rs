//! The suite through a daemon, in front of a real S3 protocol server, and everything that is known to go wrong on the way.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use testkit::dragonfly::{
    Asked, Cluster, Code, Download, End, FakeDaemon, Gate, Listen, Options, Upload,
};
use testkit::s3::{S3, SECRET_KEY};

use super::bucket::configuration;
use super::suite::{ALREADY, SENT, Stand, content, content_suite, fetch, publish, source, stream};
use crate::activity::{Activity, Warnings};
use crate::pace::Pace;
use crate::transport::dragonfly::{DOWN, ThroughDaemon, Tuning};
use crate::transport::{
    Content, ContentProvider, ContentTransport, Daemon, Dragonfly, Existing, FileDelivery, Source,
    Way,
};
use crate::words::digest::Digest;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::object::Object;
use crate::words::progress::{Warning, WarningKind};

/// A root, a daemon, a bucket.
struct Node {
    root: TempDir,
    daemon: FakeDaemon,
    cluster: Cluster,
    s3: S3,
    config: Dragonfly,
    content: Content,
}

fn node() -> Node {
    Node::with(Options::default())
}

impl Node {
    fn with(options: Options) -> Self {
        let s3 = S3::start("ckpt");
        let cluster = Cluster::over(s3.bucket(), s3.dir());
        let daemon = FakeDaemon::start(&cluster, options);
        let mut content = configuration(&s3.endpoint(), s3.bucket());
        content.retries = 2;
        Self {
            root: tempfile::tempdir().unwrap(),
            config: Dragonfly::new(daemon.endpoint()),
            daemon,
            cluster,
            content,
            s3,
        }
    }

    fn staging(&self) -> PathBuf {
        self.root.path().join("staging/owner")
    }

    fn connection(&self) -> Arc<Daemon> {
        self.connection_that_rests(Duration::ZERO)
    }

    fn connection_that_rests(&self, rest: Duration) -> Arc<Daemon> {
        let tuning = Tuning {
            pace: Pace::QUICK,
            rest,
            ..Tuning::default()
        };
        let daemon = Daemon::tuned(&self.config, tuning).unwrap();
        let staging = self.staging();
        daemon.settle_in(self.root.path(), &staging).unwrap();
        daemon
    }

    fn way(&self) -> Way {
        Way::through(&self.connection(), &self.content).unwrap()
    }

    fn transport(&self) -> Arc<dyn ContentTransport> {
        self.way().transport
    }

    /// As in a build without the provider's object storage.
    fn alone(&self) -> ThroughDaemon {
        ThroughDaemon::open(&self.connection(), &self.content).unwrap()
    }

    /// Brings an object as a file under a fresh name.
    async fn fetch_file(
        &self,
        transport: &dyn ContentTransport,
        object: Object,
        most: u64,
    ) -> (PathBuf, u64, Result<u64>) {
        static NAMES: AtomicU64 = AtomicU64::new(0);
        let dir = self.staging().join("0");
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(format!("{:x}", NAMES.fetch_add(1, Ordering::Relaxed)));
        let told = AtomicU64::new(0);
        let tell = |bytes| {
            told.fetch_add(bytes, Ordering::Relaxed);
        };
        let object = Object { most, ..object };
        let files = transport.deliveries().unwrap();
        let fetched = files.fetch_file(object, &path, &tell).await;
        (path, told.into_inner(), fetched)
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        collect(self.root.path(), &mut files);
        files
    }

    fn assert_no_files(&self) {
        assert_eq!(self.files(), Vec::<PathBuf>::new());
    }

    /// Until everything that goes on in the background has come to its end.
    async fn assert_files_go(&self) {
        for _ in 0..6000 {
            if self.files().is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?} stay", self.files());
    }
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

impl Stand for Node {
    fn open(&self) -> Arc<dyn ContentTransport> {
        self.transport()
    }

    fn put(&self, object: Object, bytes: &[u8]) {
        self.s3.put(&object.key(), bytes);
    }

    fn keys(&self) -> Vec<String> {
        self.s3.keys()
    }

    fn litter(&self) -> usize {
        self.s3.unfinished_uploads() + self.files().len()
    }
}

content_suite!(node());

#[tokio::test]
async fn objects_of_the_go_library_come_back_byte_for_byte() {
    super::golden(&node()).await;
}

/// A transport that reports, and what it reported.
fn reporting(way: Way) -> (Arc<dyn ContentTransport>, Activity) {
    let activity = Activity::new(Arc::default(), None);
    let warnings: &Arc<Warnings> = activity.warnings();
    (way.warning(warnings).transport, activity)
}

fn said(activity: Activity) -> Vec<Warning> {
    activity.said()
}

fn cause(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(String::new, ToString::to_string)
}

#[tokio::test]
async fn requests_have_the_fields_of_the_go_library() {
    let node = node();
    let transport = node.transport();
    let (object, bytes) = content(1, 1000);
    publish(&*transport, object, &bytes, Existing::Keep)
        .await
        .unwrap();
    fetch(&*transport, object, None, 1000).await.unwrap();
    let [upload] = &node.daemon.uploads()[..] else {
        panic!("one upload");
    };
    assert_eq!(upload.url, format!("s3://ckpt/{}", object.key()));
    // The Go library's 3 is an older default.
    assert_eq!(upload.persistent_replica_count, 2);
    assert_eq!((upload.ttl, upload.timeout), (None, None));
    let storage = upload.object_storage.as_ref().unwrap();
    assert_eq!(storage.region.as_deref(), Some("us-east-1"));
    assert_eq!(storage.endpoint, Some(node.s3.endpoint()));
    assert!(storage.access_key_id.is_some());
    assert_eq!(storage.access_key_secret.as_deref(), Some(SECRET_KEY));
    assert_eq!(storage.session_token, None);
    assert!(Path::new(&upload.path).starts_with(node.root.path()));
    let [download] = &node.daemon.downloads()[..] else {
        panic!("one download");
    };
    assert_eq!(download.url, upload.url);
    assert_eq!(download.object_storage, upload.object_storage);
    assert!(download.force_hard_link);
    assert!(!download.persistent && !download.overwrite && !download.need_piece_content);
    assert_eq!((&download.digest, download.timeout), (&None, None));
}

#[tokio::test]
async fn what_is_configured_is_sent() {
    let mut node = node();
    node.config = node
        .config
        .replicas(5)
        .ttl(Duration::from_secs(3600))
        .persistent(true);
    node.content.session_token = Some("token".to_owned());
    node.content.insecure_skip_verify = true;
    // The server checks no tokens: it would refuse one.
    let transport = node.alone();
    let (object, bytes) = content(1, 10);
    publish(&transport, object, &bytes, Existing::Keep)
        .await
        .unwrap();
    fetch(&transport, object, None, 10).await.unwrap();
    let upload = &node.daemon.uploads()[0];
    assert_eq!(upload.persistent_replica_count, 5);
    assert_eq!(upload.ttl.unwrap().seconds, 3600);
    let storage = upload.object_storage.as_ref().unwrap();
    assert_eq!(storage.session_token.as_deref(), Some("token"));
    assert_eq!(storage.insecure_skip_verify, Some(true));
    assert!(node.daemon.downloads()[0].persistent);
}

#[tokio::test]
async fn a_daemon_in_a_container_gets_its_own_names() {
    let root = tempfile::tempdir().unwrap();
    let mut node = Node::with(Options {
        mounts: vec![("/data".into(), root.path().to_owned())],
        ..Options::default()
    });
    node.root = root;
    node.config = node.config.storage_dir("/data");
    let transport = node.alone();
    let (object, bytes) = content(1, 100_000);
    publish(&transport, object, &bytes, Existing::Keep)
        .await
        .unwrap();
    assert!(node.daemon.uploads()[0].path.starts_with("/data/staging/"));
    let (path, told, fetched) = node.fetch_file(&transport, object, 100_000).await;
    assert_eq!((fetched.unwrap(), told), (100_000, 100_000));
    assert!(fs::read(path).unwrap() == bytes);
}

#[tokio::test]
async fn a_root_that_the_daemon_does_not_see_is_said_or_gone_around() {
    let node = Node::with(Options {
        mounts: vec![("/data".into(), "/nowhere".into())],
        ..Options::default()
    });
    let (object, bytes) = content(1, 1000);
    let alone = node.alone();
    let error = publish(&alone, object, &bytes, Existing::Keep)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.hint().unwrap().contains("dragonfly.storage_dir"));
    assert!(cause(&error).contains("os error 2"), "{error:?}");
    let (transport, activity) = reporting(node.way());
    let sent = publish(&*transport, object, &bytes, Existing::Keep).await;
    assert_eq!(sent.unwrap(), SENT);
    assert!(fetch(&*transport, object, None, 1000).await.unwrap() == bytes);
    let warnings = said(activity);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0].kind, WarningKind::Direct);
    for part in ["os error 2", "set dragonfly.storage_dir"] {
        assert!(warnings[0].message.contains(part), "{warnings:?}");
    }
    node.assert_no_files();
}

#[tokio::test]
async fn a_file_comes_as_one_more_name_of_the_caches() {
    let node = node();
    let (object, bytes) = content(1, 300_000);
    node.put(object, &bytes);
    let transport = node.transport();
    let (path, told, fetched) = node.fetch_file(&*transport, object, 300_000).await;
    assert_eq!((fetched.unwrap(), told), (300_000, 300_000));
    assert!(fs::read(&path).unwrap() == bytes);
    let asked = &node.daemon.downloads()[0];
    let cached = node
        .daemon
        .cached(&asked.url, asked.object_storage.as_ref().unwrap());
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&path), inode(&cached.unwrap()));
    assert_eq!(node.files(), [path]);
}

#[tokio::test]
async fn a_failed_download_leaves_no_file_of_zeros() {
    let node = node();
    let (object, bytes) = content(1, 300_000);
    node.put(object, &bytes);
    let names = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&names);
    node.daemon.answer_downloads(move |asked, _| {
        seen.lock()
            .unwrap()
            .push(asked.output_path.clone().unwrap());
        let text = "Unexpected (permanent) at read, context: { service: s3 } => gone".to_owned();
        Download::Break {
            after: 2,
            code: Code::Internal,
            text,
        }
    });
    let alone = node.alone();
    let (path, told, fetched) = node.fetch_file(&alone, object, 300_000).await;
    let error = fetched.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(cause(&error).contains("(permanent) at read"), "{error:?}");
    assert!(error.to_string().contains(&object.to_string()), "{error}");
    assert!(told > 0 && told < 300_000, "{told}");
    assert!(!path.exists());
    node.assert_no_files();
    // What is permanent is not tried again.
    assert_eq!(names.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_may_pass_is_tried_again_under_another_name_and_told_once() {
    let node = node();
    let (object, bytes) = content(1, 300_000);
    node.put(object, &bytes);
    node.daemon.answer_downloads(|_, number| match number {
        0 => Download::Break {
            after: 3,
            code: Code::Internal,
            text: "Unexpected (temporary) at read".to_owned(),
        },
        1 => Download::Refuse(Code::ResourceExhausted, "too many requests".to_owned()),
        _ => Download::Well,
    });
    let transport = node.transport();
    let (path, told, fetched) = node.fetch_file(&*transport, object, 300_000).await;
    assert_eq!((fetched.unwrap(), told), (300_000, 300_000));
    assert!(fs::read(&path).unwrap() == bytes);
    let mut names: Vec<_> = node
        .daemon
        .downloads()
        .into_iter()
        .map(|asked| asked.output_path)
        .collect();
    names.dedup();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(node.files(), [path]);
}

#[tokio::test]
async fn a_stream_that_ends_early_with_ok_is_not_whole() {
    let node = node();
    let (object, bytes) = content(1, 300_000);
    node.put(object, &bytes);
    node.daemon
        .answer_downloads(|_, _| Download::End { after: 2 });
    let alone = node.alone();
    let (path, _, fetched) = node.fetch_file(&alone, object, 300_000).await;
    let error = fetched.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("of 300000 bytes"), "{error}");
    assert!(!path.exists());
    node.assert_no_files();
    assert_eq!(node.daemon.downloads().len(), 3);
}

#[tokio::test]
async fn a_daemon_that_falls_silent_is_given_up() {
    let mut node = node();
    node.config = node.config.idle_timeout(Duration::from_millis(50));
    let (object, bytes) = content(1, 300_000);
    node.put(object, &bytes);
    let gate = Gate::default();
    let held = gate.clone();
    node.daemon.answer_downloads(move |_, _| Download::Hold {
        after: 1,
        gate: held.clone(),
    });
    let alone = node.alone();
    let (path, _, fetched) = node.fetch_file(&alone, object, 300_000).await;
    let error = fetched.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("for 50 ms"), "{error}");
    assert!(!path.exists());
    node.assert_no_files();
    // The bucket has it all the same.
    let (transport, activity) = reporting(node.way());
    let back = fetch(&*transport, object, None, 300_000).await;
    assert!(back.unwrap() == bytes);
    assert_eq!(said(activity).len(), 1);
}

#[tokio::test]
async fn on_another_filesystem_it_copies_and_links_are_not_tried_again() {
    let node = node();
    node.daemon.set_cross_device(true);
    let transport = node.alone();
    for seed in 0..2 {
        let (object, bytes) = content(seed, 100_000);
        node.put(object, &bytes);
        let (path, told, fetched) = node.fetch_file(&transport, object, 100_000).await;
        assert_eq!((fetched.unwrap(), told), (100_000, 100_000));
        assert!(fs::read(&path).unwrap() == bytes);
        assert_eq!(fs::metadata(&path).unwrap().nlink(), 1);
    }
    let forced: Vec<bool> = node
        .daemon
        .downloads()
        .iter()
        .map(|asked| asked.force_hard_link)
        .collect();
    assert_eq!(forced, [true, false, false]);
}

#[tokio::test]
async fn a_dropped_download_leaves_nothing() {
    let node = node();
    let (object, bytes) = content(1, 300_000);
    node.put(object, &bytes);
    let gate = Gate::default();
    let held = gate.clone();
    node.daemon.answer_downloads(move |_, _| Download::Hold {
        after: 1,
        gate: held.clone(),
    });
    let transport = node.alone();
    let dir = node.staging();
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join("x");
    let fetching = tokio::spawn(async move {
        let told = |_| {};
        transport.fetch_file(object, &path, &told).await
    });
    gate.reached(1).await;
    fetching.abort();
    assert!(fetching.await.unwrap_err().is_cancelled());
    node.assert_no_files();
}

#[tokio::test]
async fn more_than_the_limit_is_refused_before_it_comes() {
    let node = node();
    let (object, bytes) = content(1, 300_000);
    node.put(object, &bytes);
    let gate = Gate::default();
    node.daemon.answer_downloads(move |_, _| Download::Hold {
        after: 0,
        gate: gate.clone(),
    });
    let (path, told, fetched) = node.fetch_file(&*node.transport(), object, 299_999).await;
    assert_eq!(fetched.unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(told, 0);
    assert!(!path.exists());
    node.assert_no_files();
}

#[tokio::test]
async fn wrong_bytes_come_with_ok_and_the_bucket_has_the_right_ones() {
    let node = node();
    let (object, bytes) = content(1, 100_000);
    node.put(object, &bytes);
    node.daemon.answer_downloads(|_, _| Download::Damage);
    let way = node.way();
    let (path, _, fetched) = node.fetch_file(&*way.transport, object, 100_000).await;
    fetched.unwrap();
    assert!(fs::read(path).unwrap() != bytes);
    let direct = way.direct.unwrap();
    assert!(fetch(&*direct, object, None, 100_000).await.unwrap() == bytes);
}

#[tokio::test]
async fn an_upload_is_not_cut_off_when_its_caller_gives_up() {
    let node = node();
    let gate = Gate::default();
    let held = gate.clone();
    node.daemon
        .answer_uploads(move |_, _| Upload::Hold(held.clone()));
    let (object, bytes) = content(1, 100_000);
    let daemon = node.connection();
    let transport = Way::through(&daemon, &node.content).unwrap().transport;
    let publishing =
        tokio::spawn(async move { publish(&*transport, object, &bytes, Existing::Keep).await });
    gate.reached(1).await;
    publishing.abort();
    assert!(publishing.await.unwrap_err().is_cancelled());
    // The daemon reads it still.
    assert_eq!(node.files().len(), 1);
    gate.open();
    daemon.settled().await;
    assert_eq!(node.keys(), [object.key()]);
    node.assert_no_files();
    let calls = node.daemon.calls();
    let upload = calls
        .iter()
        .find(|call| matches!(call.asked, Asked::Upload(_)))
        .unwrap();
    assert_eq!(upload.end, Some(End::Answered));
    assert_eq!(upload.deadline, None);
}

#[tokio::test]
async fn a_wedged_upload_is_tried_again_then_put_into_the_bucket() {
    let node = node();
    node.cluster.set_wedged(true);
    let (object, bytes) = content(1, 3_000_000);
    let (transport, activity) = reporting(node.way());
    let sent = publish(&*transport, object, &bytes, Existing::Keep).await;
    assert_eq!(sent.unwrap(), SENT);
    assert_eq!(node.daemon.uploads().len(), 3);
    assert!(fs::read(node.s3.object(&object.key())).unwrap() == bytes);
    node.assert_no_files();
    let warnings = said(activity);
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].message.contains("cannot upload"),
        "{warnings:?}"
    );
    // From now on it is there for everybody.
    let (source, mut begun) = Source::stream(3_000_000);
    let again = transport.publish(object, Existing::Keep, source);
    assert_eq!(again.await.unwrap(), ALREADY);
    assert!(begun.recv().await.is_none());
}

#[tokio::test]
async fn a_wedged_upload_without_the_bucket_says_the_way_out() {
    let node = node();
    node.cluster.set_wedged(true);
    let (object, bytes) = content(1, 1000);
    let alone = node.alone();
    let error = publish(&alone, object, &bytes, Existing::Keep)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(cause(&error).contains("cannot upload"), "{error:?}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("straight into the bucket"), "{hint}");
    node.assert_no_files();
    node.cluster.set_wedged(false);
    let sent = publish(&alone, object, &bytes, Existing::Keep).await;
    assert_eq!(sent.unwrap(), SENT);
}

#[tokio::test]
async fn what_the_bucket_has_already_is_success_without_a_scheduler_too() {
    let node = node();
    node.cluster.set_scheduler_down(true);
    let (object, bytes) = content(1, 1000);
    node.put(object, &bytes);
    let sent = publish(&node.alone(), object, &bytes, Existing::Keep).await;
    assert_eq!(sent.unwrap(), ALREADY);
    node.assert_no_files();
}

#[tokio::test]
async fn an_upload_whose_answer_is_lost_is_found_in_the_bucket() {
    let node = node();
    node.daemon.answer_uploads(|_, number| match number {
        0 => Upload::Lose(Code::Internal, "io operation timeout".to_owned()),
        _ => Upload::Well,
    });
    let (object, bytes) = content(1, 1000);
    for transport in [node.transport(), Arc::new(node.alone())] {
        let sent = publish(&*transport, object, &bytes, Existing::Keep).await;
        assert_eq!(sent.unwrap(), ALREADY);
    }
    assert_eq!(node.keys(), [object.key()]);
    node.assert_no_files();
}

/// A daemon that said of an object that it is there, in words of its own cache, was believed over the bucket, which right then said
/// that it is not: a snapshot was published whose contents were in nobody's bucket.
#[tokio::test]
async fn what_the_daemon_says_is_there_and_the_bucket_lacks_goes_to_the_bucket() {
    let node = node();
    node.daemon.answer_uploads(|_, _| {
        Upload::Refuse(Code::AlreadyExists, "the object is there".to_owned())
    });
    let (object, bytes) = content(1, 1000);
    let sent = publish(&*node.transport(), object, &bytes, Existing::Keep).await;
    assert_eq!(sent.unwrap(), SENT);
    assert_eq!(node.keys(), [object.key()]);
    assert!(fs::read(node.s3.object(&object.key())).unwrap() == bytes);
    assert_eq!(node.daemon.uploads().len(), 1);
    node.assert_no_files();
}

#[tokio::test]
async fn an_object_of_another_size_that_came_meanwhile_is_not_ours() {
    let node = node();
    let (object, bytes) = content(1, 1000);
    let there = node.s3.object(&object.key());
    node.daemon.answer_uploads(move |_, _| {
        fs::create_dir_all(there.parent().unwrap()).unwrap();
        fs::write(&there, "shorter").unwrap();
        Upload::Well
    });
    let transport = node.transport();
    let error = publish(&*transport, object, &bytes, Existing::Keep)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.to_string().contains("with 7 bytes"), "{error}");
}

#[tokio::test]
async fn without_the_bucket_nothing_is_replaced() {
    let node = node();
    let (object, bytes) = content(1, 1000);
    node.put(object, b"damaged");
    let error = publish(&node.alone(), object, &bytes, Existing::Replace)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(fs::read(node.s3.object(&object.key())).unwrap(), b"damaged");
}

#[tokio::test]
async fn what_cannot_be_uploaded_anywhere_is_an_error_that_keeps_the_daemons_text() {
    let node = node();
    node.daemon.answer_uploads(|_, _| {
        let text = format!("PermissionDenied (permanent) at write => {SECRET_KEY} is forbidden");
        Upload::Refuse(Code::Internal, text)
    });
    let (object, bytes) = content(1, 1000);
    let error = publish(&*node.transport(), object, &bytes, Existing::Keep)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(
        cause(&error).contains("PermissionDenied (permanent)"),
        "{error:?}"
    );
    assert!(!format!("{error:?}").contains(SECRET_KEY), "{error:?}");
    assert_eq!(node.daemon.uploads().len(), 1);
    node.assert_no_files();
}

#[tokio::test]
async fn a_daemon_that_is_gone_is_gone_around_with_one_warning() {
    let node = node();
    let (way, alone) = (node.way(), node.alone());
    let Node {
        daemon,
        root,
        config,
        content: _content,
        s3,
        ..
    } = node;
    drop(daemon);
    let (through, activity) = reporting(way);
    for seed in 0..3 {
        let (object, bytes) = content(seed, 100_000);
        publish(&*through, object, &bytes, Existing::Keep)
            .await
            .unwrap();
        assert!(fetch(&*through, object, None, 100_000).await.unwrap() == bytes);
        let path = root.path().join(format!("file-{seed}"));
        let told = AtomicU64::new(0);
        let tell = |bytes| {
            told.fetch_add(bytes, Ordering::Relaxed);
        };
        let file = through.deliveries().unwrap();
        let file = file.fetch_file(object, &path, &tell);
        assert_eq!(file.await.unwrap(), 100_000);
        assert_eq!(told.into_inner(), 100_000);
        assert!(fs::read(&path).unwrap() == bytes);
        let error = publish(
            &alone,
            stream(Digest::from_u64(seed), 100_000),
            &bytes,
            Existing::Keep,
        )
        .await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.hint().unwrap().contains("dfdaemon"), "{error:?}");
    }
    assert_eq!(s3.keys().len(), 3);
    let warnings = said(activity);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    // What failed, where, why, and what to do: in words, on one line.
    let end = format!(
        "dfdaemon at {} cannot be used: the connection failed: No such file or directory (os error 2); {DOWN}",
        config.endpoint
    );
    assert!(warnings[0].message.ends_with(&end), "{warnings:?}");
}

#[tokio::test]
async fn a_daemon_that_does_not_serve_is_not_used() {
    let node = node();
    node.daemon.set_serving(false);
    let (object, bytes) = content(1, 1000);
    publish(&*node.transport(), object, &bytes, Existing::Keep)
        .await
        .unwrap();
    assert!(node.daemon.uploads().is_empty());
    let error = fetch(&node.alone(), object, None, 1000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn health_is_asked_once() {
    let node = node();
    let transport = node.transport();
    for seed in 0..5 {
        let (object, bytes) = content(seed, 1000);
        publish(&*transport, object, &bytes, Existing::Keep)
            .await
            .unwrap();
    }
    let calls = node.daemon.calls();
    let health = |call: &&testkit::dragonfly::Call| matches!(call.asked, Asked::Health(_));
    assert_eq!(calls.iter().filter(health).count(), 1);
}

#[tokio::test]
async fn without_a_scheduler_contents_go_directly_and_come_directly() {
    let node = node();
    node.cluster.set_scheduler_down(true);
    let (object, bytes) = content(1, 100_000);
    let (transport, activity) = reporting(node.way());
    publish(&*transport, object, &bytes, Existing::Keep)
        .await
        .unwrap();
    let (path, told, fetched) = node.fetch_file(&*transport, object, 100_000).await;
    assert_eq!((fetched.unwrap(), told), (100_000, 100_000));
    assert!(fs::read(path).unwrap() == bytes);
    let warnings = said(activity);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].message.contains("currently unavailable"),
        "{warnings:?}"
    );
    let error = fetch(&node.alone(), object, None, 100_000)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.hint().unwrap().contains("scheduler"), "{error:?}");
}

#[tokio::test]
async fn a_daemon_that_comes_back_is_used_again() {
    let node = node();
    let transport = node.transport();
    node.daemon.set_serving(false);
    let (one, bytes) = content(1, 1000);
    publish(&*transport, one, &bytes, Existing::Keep)
        .await
        .unwrap();
    node.daemon.set_serving(true);
    let (two, bytes) = content(2, 1000);
    publish(&*transport, two, &bytes, Existing::Keep)
        .await
        .unwrap();
    assert_eq!(node.daemon.uploads().len(), 1);
}

#[tokio::test]
async fn a_daemon_that_failed_is_left_alone_for_a_while_by_who_can_do_without() {
    let node = node();
    node.cluster.set_scheduler_down(true);
    let daemon = node.connection_that_rests(Duration::from_secs(3600));
    let way = Way::through(&daemon, &node.content).unwrap();
    for seed in 0..3 {
        let (transport, activity) = reporting(way.clone());
        let (object, bytes) = content(seed, 1000);
        publish(&*transport, object, &bytes, Existing::Keep)
            .await
            .unwrap();
        let warnings = said(activity);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let message = &warnings[0].message;
        assert_eq!(message.matches("unavailable").count(), 1, "{message}");
    }
    assert_eq!(node.daemon.uploads().len(), 1);
    // Who cannot do without asks, and finds that it is there again.
    node.cluster.set_scheduler_down(false);
    let (object, bytes) = content(9, 1000);
    let alone = way.daemon().unwrap();
    publish(alone, object, &bytes, Existing::Keep)
        .await
        .unwrap();
    assert_eq!(node.daemon.uploads().len(), 2);
}

#[tokio::test]
async fn no_more_calls_than_configured_are_under_way() {
    let mut node = node();
    node.config = node.config.concurrency(2);
    let gate = Gate::default();
    let held = gate.clone();
    node.daemon
        .answer_uploads(move |_, _| Upload::Hold(held.clone()));
    let transport = node.transport();
    let tasks: Vec<_> = (0..6)
        .map(|seed| {
            let transport = Arc::clone(&transport);
            tokio::spawn(async move {
                let (object, bytes) = content(seed, 1000);
                publish(&*transport, object, &bytes, Existing::Keep).await
            })
        })
        .collect();
    gate.reached(2).await;
    assert_eq!(node.daemon.uploads().len(), 2);
    assert!(node.files().len() <= 2, "{:?}", node.files());
    gate.open();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    node.assert_files_go().await;
}

#[tokio::test]
async fn a_source_that_fails_is_never_uploaded() {
    let node = node();
    let (object, bytes) = content(1, 100_000);
    let source = source(&bytes, 100_000, Some("the blob is damaged"));
    let sent = node.alone();
    let sent = sent.publish(object, Existing::Keep, source).await;
    assert_eq!(sent.unwrap_err().to_string(), "the blob is damaged");
    assert!(node.daemon.uploads().is_empty());
    node.assert_no_files();
}

#[tokio::test]
async fn a_daemon_is_reached_over_the_network_and_its_certificate_is_checked() {
    for listen in [Listen::Tcp, Listen::Tls] {
        let mut node = Node::with(Options {
            listen,
            ..Options::default()
        });
        let (object, bytes) = content(1, 100_000);
        if listen == Listen::Tls {
            let error = publish(&node.alone(), object, &bytes, Existing::Keep)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            assert!(cause(&error).contains("certificate"), "{error:?}");
            node.config = node.config.ca_file(node.daemon.ca_file());
        }
        let transport = node.alone();
        publish(&transport, object, &bytes, Existing::Keep)
            .await
            .unwrap();
        assert!(fetch(&transport, object, None, 100_000).await.unwrap() == bytes);
    }
}

#[tokio::test]
async fn the_probe_finds_links_and_copies_and_roots_that_are_not_seen() {
    use crate::words::capability::Capability;
    let node = node();
    let probed = node.alone().diagnose().await.unwrap();
    assert_eq!(probed.endpoint, node.daemon.endpoint());
    assert_eq!(probed.error, None);
    assert_eq!(probed.files, Some(Capability::Yes));
    assert_eq!(probed.hardlink, Some(Capability::Yes));
    // It is the empty file's stream.
    let index = testkit::golden::index();
    let empty = index.inputs.iter().find(|input| input.logical_size == 0);
    let digest = empty.unwrap().digest.parse().unwrap();
    assert_eq!(node.keys(), [stream(digest, 20).key()]);
    node.assert_no_files();
    node.daemon.set_cross_device(true);
    node.daemon.clear_cache();
    let probed = node.alone().diagnose().await.unwrap();
    assert_eq!(probed.files, Some(Capability::Yes));
    assert!(matches!(probed.hardlink, Some(Capability::No(why)) if why.contains("filesystem")));
    node.daemon.set_serving(false);
    let probed = node.alone().diagnose().await.unwrap();
    assert_eq!(probed.error.unwrap().0, ErrorKind::Unavailable);
    assert_eq!((probed.files, probed.hardlink), (None, None));
    let unseen = Node::with(Options {
        mounts: vec![("/data".into(), "/nowhere".into())],
        ..Options::default()
    });
    let probed = unseen.alone().diagnose().await.unwrap();
    assert!(matches!(probed.files, Some(Capability::No(why)) if why.contains("storage_dir")));
    unseen.assert_no_files();
}

#[tokio::test]
async fn an_object_that_two_fetch_at_once_comes_to_both() {
    let node = node();
    let (object, bytes) = content(1, 500_000);
    node.put(object, &bytes);
    let transport = node.alone();
    let (one, other) = tokio::join!(
        fetch(&transport, object, None, 500_000),
        fetch(&transport, object, None, 500_000)
    );
    assert!(one.unwrap() == bytes && other.unwrap() == bytes);
    node.assert_no_files();
}

#[test]
fn keys_are_not_shown() {
    let node = node();
    let shown = format!("{:?}", node.transport());
    assert!(!shown.contains(SECRET_KEY), "{shown}");
}

#[test]
fn what_is_no_bucket_does_not_go_with_a_daemon() {
    use crate::transport::require_bucket;
    for provider in [ContentProvider::Fs, ContentProvider::Registry] {
        let content = Content::new(provider);
        let error = require_bucket(true, Some(&content)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("in a bucket"), "{error}");
    }
    assert!(require_bucket(false, None).is_err());
    require_bucket(true, None).unwrap();
}
