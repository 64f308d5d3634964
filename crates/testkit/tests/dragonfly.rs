//! The daemon of the tests behaves as the real one was seen to, well and badly.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use prost::Message;
use testkit::dragonfly::messages::{
    AnnounceHost, AnnouncePeer, AnnouncePeerResponse, DownloadRequest, DownloadResponse, Empty,
    HealthRequest, HealthResponse, Host, LOCAL, LocalTask, ObjectStorage, PEER, PeerEvent, Piece,
    Progress, SOURCE, SchedulerStat, StatRequest, Task, UploadEnded, UploadRequest, UploadStarted,
    Whence,
};
use testkit::dragonfly::{
    Asked, Cluster, Code, Download, End, FakeDaemon, Gate, Listen, Options, Scheduler, Upload,
};
use testkit::mount::{self, TmpfsMount};
use tonic::client::Grpc;
use tonic::codec::Streaming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

const PIECE: usize = 64 << 10;
const URL: &str = "s3://checkpoints/xxh3/ab";

fn on_a_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), work).await })
        .unwrap()
}

struct Client(Grpc<Channel>);

impl Client {
    async fn of(daemon: &FakeDaemon) -> Self {
        let mut endpoint = Endpoint::from_str(daemon.endpoint()).unwrap();
        if daemon.endpoint().starts_with("https") {
            let ca = Certificate::from_pem(fs::read(daemon.ca_file()).unwrap());
            let tls = ClientTlsConfig::new().ca_certificate(ca);
            endpoint = endpoint.tls_config(tls).unwrap();
        }
        Self(Grpc::new(endpoint.connect().await.unwrap()))
    }

    async fn of_scheduler(scheduler: &Scheduler) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{}", scheduler.address())).unwrap();
        Self(Grpc::new(endpoint.connect().await.unwrap()))
    }

    async fn call<M, A>(&mut self, path: &'static str, message: M) -> Result<A, Status>
    where
        M: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        self.0.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(path);
        let answer = self
            .0
            .unary(Request::new(message), path, ProstCodec::<M, A>::default());
        answer.await.map(tonic::Response::into_inner)
    }

    async fn upload(&mut self, request: UploadRequest) -> Result<Task, Status> {
        self.call(
            "/dfdaemon.v2.DfdaemonDownload/UploadPersistentTask",
            request,
        )
        .await
    }

    async fn begin(
        &mut self,
        request: DownloadRequest,
    ) -> Result<Streaming<DownloadResponse>, Status> {
        self.0.ready().await.unwrap();
        let path = "/dfdaemon.v2.DfdaemonDownload/DownloadPersistentTask";
        let path = http::uri::PathAndQuery::from_static(path);
        let answer = self.0.server_streaming(
            Request::new(request),
            path,
            ProstCodec::<DownloadRequest, DownloadResponse>::default(),
        );
        answer.await.map(tonic::Response::into_inner)
    }

    async fn download(&mut self, request: DownloadRequest) -> Result<Vec<Piece>, Status> {
        let mut stream = self.begin(request).await?;
        let mut pieces = Vec::new();
        while let Some(message) = stream.message().await? {
            match message.response {
                Some(Progress::Finished(finished)) => pieces.push(finished.piece.unwrap()),
                Some(Progress::Started(_)) => assert!(pieces.is_empty()),
                None => panic!("a message without anything in it"),
            }
        }
        Ok(pieces)
    }

    async fn serves(&mut self, service: &str) -> Result<i32, Status> {
        let service = service.to_owned();
        let request = HealthRequest { service };
        let answer = self.call("/grpc.health.v1.Health/Check", request).await;
        answer.map(|answer: HealthResponse| answer.status)
    }
}

fn storage() -> ObjectStorage {
    ObjectStorage {
        region: Some("eu-1".to_owned()),
        endpoint: Some("http://127.0.0.1:9000".to_owned()),
        access_key_id: Some("key".to_owned()),
        access_key_secret: Some("secret".to_owned()),
        ..ObjectStorage::default()
    }
}

fn upload_of(path: &Path) -> UploadRequest {
    UploadRequest {
        url: URL.to_owned(),
        object_storage: Some(storage()),
        path: path.to_str().unwrap().to_owned(),
        persistent_replica_count: 2,
        ..UploadRequest::default()
    }
}

fn download_to(path: &Path) -> DownloadRequest {
    DownloadRequest {
        url: URL.to_owned(),
        object_storage: Some(storage()),
        output_path: Some(path.to_str().unwrap().to_owned()),
        force_hard_link: true,
        ..DownloadRequest::default()
    }
}

/// A cluster with one object of five pieces, the last one short, and a directory to work in.
struct Ground {
    cluster: Cluster,
    dir: tempfile::TempDir,
    bytes: Vec<u8>,
}

impl Ground {
    fn new() -> Self {
        let mut prng = testkit::prng::Prng::new(7);
        let bytes = (0..4 * PIECE + 100).map(|_| prng.number() as u8).collect();
        Self {
            cluster: Cluster::new("checkpoints"),
            dir: tempfile::tempdir().unwrap(),
            bytes,
        }
    }

    /// With the object in the bucket.
    fn with_object() -> Self {
        let ground = Self::new();
        let object = ground.cluster.object("xxh3/ab");
        fs::create_dir_all(object.parent().unwrap()).unwrap();
        fs::write(object, &ground.bytes).unwrap();
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn source(&self) -> PathBuf {
        let path = self.path("source");
        fs::write(&path, &self.bytes).unwrap();
        path
    }

    fn daemon(&self) -> FakeDaemon {
        FakeDaemon::start(&self.cluster, Options::default())
    }

    fn has_arrived(&self, path: &Path) -> bool {
        fs::read(path).unwrap() == self.bytes
    }
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

#[test]
fn an_upload_is_linked_into_the_cache_and_put_into_the_bucket() {
    let ground = Ground::new();
    let (daemon, source) = (ground.daemon(), ground.source());
    on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        let task = client.upload(upload_of(&source)).await.unwrap();
        assert_eq!(task.content_length, ground.bytes.len() as u64);
        assert_eq!((task.piece_count, task.state.as_str()), (5, "Succeeded"));
    });
    assert!(ground.has_arrived(&ground.cluster.object("xxh3/ab")));
    let cached = daemon.cached(URL, &storage()).unwrap();
    assert_eq!(inode(&cached), inode(&source));
    assert_eq!(daemon.uploads(), [upload_of(&source)]);
    let calls = daemon.calls();
    assert_eq!((calls.len(), &calls[0].deadline), (1, &None));
    assert_eq!(calls[0].end, Some(End::Answered));
}

#[test]
fn an_object_that_is_there_already_exists_even_without_a_scheduler() {
    let ground = Ground::with_object();
    let daemon = ground.daemon();
    ground.cluster.set_scheduler_down(true);
    on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        let error = client
            .upload(upload_of(&ground.source()))
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::AlreadyExists);
        assert_eq!(error.message(), "persistent task already exists");
    });
}

#[test]
fn an_output_has_its_size_and_is_all_zeros_before_anything_came() {
    let ground = Ground::with_object();
    let (daemon, output, gate) = (ground.daemon(), ground.path("output"), Gate::default());
    let held = gate.clone();
    daemon.answer_downloads(move |_, _| Download::Hold {
        after: 0,
        gate: held.clone(),
    });
    on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        let mut stream = client.begin(download_to(&output)).await.unwrap();
        let first = stream.message().await.unwrap().unwrap().response;
        let Some(Progress::Started(started)) = first else {
            panic!("{first:?} comes first")
        };
        assert_eq!(started.content_length, ground.bytes.len() as u64);
        gate.reached(1).await;
        assert_eq!(fs::read(&output).unwrap(), vec![0; ground.bytes.len()]);
        gate.open();
        while stream.message().await.unwrap().is_some() {}
    });
    assert!(ground.has_arrived(&output));
    assert_eq!(
        inode(&output),
        inode(&daemon.cached(URL, &storage()).unwrap())
    );
}

#[test]
fn pieces_come_in_no_order_and_some_twice() {
    let ground = Ground::with_object();
    let daemon = ground.daemon();
    let pieces = on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        client
            .download(download_to(&ground.path("output")))
            .await
            .unwrap()
    });
    let numbers: Vec<_> = pieces.iter().map(|piece| piece.number).collect();
    assert_eq!(numbers, [1, 1, 3, 4, 2, 2, 0]);
    let mut once: Vec<_> = pieces
        .iter()
        .map(|piece| (piece.number, piece.length))
        .collect();
    once.sort_unstable();
    once.dedup();
    let whole: u64 = once.iter().map(|(_, length)| length).sum();
    assert_eq!(whole, ground.bytes.len() as u64);
}

#[test]
fn pieces_come_from_the_source_then_from_another_daemon_then_from_the_cache() {
    let ground = Ground::with_object();
    let (one, other) = (ground.daemon(), ground.daemon());
    let traffic = |daemon: &FakeDaemon, name: &str| {
        let output = ground.path(name);
        on_a_runtime(async {
            let mut client = Client::of(daemon).await;
            let pieces = client.download(download_to(&output)).await.unwrap();
            assert!(ground.has_arrived(&output));
            let mut types: Vec<_> = pieces.into_iter().filter_map(|p| p.traffic_type).collect();
            types.dedup();
            types
        })
    };
    assert_eq!(traffic(&one, "a"), [SOURCE]);
    assert_eq!(traffic(&other, "b"), [PEER]);
    assert_eq!(traffic(&one, "c"), [LOCAL]);
    other.clear_cache();
    drop(one);
    assert_eq!(traffic(&other, "d"), [SOURCE]);
}

#[test]
fn the_bytes_come_in_the_answer_if_they_are_wanted() {
    let ground = Ground::with_object();
    let daemon = ground.daemon();
    let request = DownloadRequest {
        output_path: None,
        force_hard_link: false,
        need_piece_content: true,
        ..download_to(&ground.path("none"))
    };
    let mut got = vec![0; ground.bytes.len()];
    on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        for piece in client.download(request).await.unwrap() {
            let content = piece.content.unwrap();
            assert_eq!(content.len() as u64, piece.length);
            let offset = usize::try_from(piece.offset).unwrap();
            got[offset..][..content.len()].copy_from_slice(&content);
        }
    });
    assert!(got == ground.bytes);
}

#[test]
fn an_empty_object_is_one_message() {
    let ground = Ground::new();
    let (daemon, source) = (ground.daemon(), ground.path("empty"));
    fs::write(&source, b"").unwrap();
    on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        client.upload(upload_of(&source)).await.unwrap();
        daemon.clear_cache();
        let pieces = client.download(download_to(&ground.path("output"))).await;
        assert_eq!(pieces.unwrap(), []);
    });
    assert_eq!(fs::metadata(ground.path("output")).unwrap().len(), 0);
}

#[test]
fn a_download_that_breaks_leaves_its_output_and_the_next_one_goes_on() {
    let ground = Ground::with_object();
    let (daemon, output) = (ground.daemon(), ground.path("output"));
    daemon.answer_downloads(|_, number| match number {
        0 => Download::Break {
            after: 2,
            code: Code::Internal,
            text: "io operation timeout".to_owned(),
        },
        _ => Download::Well,
    });
    on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        let error = client.download(download_to(&output)).await.unwrap_err();
        assert_eq!(
            (error.code(), error.message()),
            (Code::Internal, "io operation timeout")
        );
        assert_eq!(
            fs::metadata(&output).unwrap().len(),
            ground.bytes.len() as u64
        );
        assert!(!ground.has_arrived(&output));
        let pieces = client
            .download(download_to(&ground.path("again")))
            .await
            .unwrap();
        let local = pieces
            .iter()
            .filter(|piece| piece.traffic_type == Some(LOCAL));
        let mut local: Vec<_> = local.map(|piece| piece.number).collect();
        local.dedup();
        assert_eq!(local, [1, 3]);
    });
    assert!(ground.has_arrived(&ground.path("again")));
}

#[test]
fn a_download_may_end_early_as_if_all_were_well() {
    let ground = Ground::with_object();
    let (daemon, output) = (ground.daemon(), ground.path("output"));
    daemon.answer_downloads(|_, _| Download::End { after: 1 });
    on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        let pieces = client.download(download_to(&output)).await.unwrap();
        assert!(pieces.iter().all(|piece| piece.number == 1));
    });
    assert!(!ground.has_arrived(&output));
}

#[test]
fn wrong_bytes_are_delivered_as_if_all_were_well_and_again() {
    let ground = Ground::with_object();
    let daemon = ground.daemon();
    daemon.answer_downloads(|_, number| match number {
        0 => Download::Damage,
        _ => Download::Well,
    });
    on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        for name in ["once", "twice"] {
            client
                .download(download_to(&ground.path(name)))
                .await
                .unwrap();
            assert!(!ground.has_arrived(&ground.path(name)));
        }
    });
    assert_eq!(inode(&ground.path("once")), inode(&ground.path("twice")));
    assert!(ground.has_arrived(&ground.cluster.object("xxh3/ab")));
}

#[test]
fn a_stalled_download_says_nothing_until_its_reader_goes() {
    let ground = Ground::with_object();
    let (daemon, gate) = (ground.daemon(), Gate::default());
    let held = gate.clone();
    daemon.answer_downloads(move |_, _| Download::Hold {
        after: 1,
        gate: held.clone(),
    });
    on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        let mut stream = client
            .begin(download_to(&ground.path("output")))
            .await
            .unwrap();
        gate.reached(1).await;
        for _ in 0..3 {
            stream.message().await.unwrap().unwrap();
        }
        let nothing = tokio::time::timeout(Duration::from_millis(50), stream.message()).await;
        assert!(nothing.is_err());
        drop(stream);
        while daemon.calls()[0].end.is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert_eq!(daemon.calls()[0].end, Some(End::Cancelled));
}

#[test]
fn a_cancelled_upload_wedges_its_task_until_the_object_is_there_or_the_record_expires() {
    let ground = Ground::new();
    let (daemon, source, gate) = (ground.daemon(), ground.source(), Gate::default());
    let held = gate.clone();
    daemon.answer_uploads(move |_, number| match number {
        0 => Upload::Hold(held.clone()),
        _ => Upload::Well,
    });
    on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        let upload = client.upload(upload_of(&source));
        tokio::select! {
            _ = upload => panic!("it is held"),
            () = gate.reached(1) => {}
        }
        while daemon.calls()[0].end.is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(daemon.calls()[0].end, Some(End::Cancelled));
        assert_eq!(ground.cluster.uploading(), 1);
        let mut client = Client::of(&daemon).await;
        let error = client.upload(upload_of(&source)).await.unwrap_err();
        assert_eq!(error.code(), Code::Internal);
        assert!(
            error.message().contains("is Uploading cannot upload"),
            "{error}"
        );
        ground.cluster.expire_tasks();
        client.upload(upload_of(&source)).await.unwrap();
        ground.cluster.set_wedged(true);
        let error = client.upload(upload_of(&source)).await.unwrap_err();
        assert_eq!(error.code(), Code::AlreadyExists);
        ground.cluster.set_wedged(false);
        fs::remove_file(ground.cluster.object("xxh3/ab")).unwrap();
        let error = client.upload(upload_of(&source)).await.unwrap_err();
        assert!(
            error.message().contains("is Succeeded cannot upload"),
            "{error}"
        );
    });
}

#[test]
fn an_upload_may_be_refused_or_its_answer_lost() {
    let ground = Ground::new();
    let (daemon, source) = (ground.daemon(), ground.source());
    daemon.answer_uploads(|_, number| match number {
        0 => Upload::Refuse(Code::ResourceExhausted, "too many requests".to_owned()),
        _ => Upload::Lose(Code::Internal, "transport error".to_owned()),
    });
    on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        let error = client.upload(upload_of(&source)).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert!(!ground.cluster.object("xxh3/ab").exists());
        let error = client.upload(upload_of(&source)).await.unwrap_err();
        assert_eq!(error.message(), "transport error");
    });
    assert!(ground.has_arrived(&ground.cluster.object("xxh3/ab")));
}

#[test]
fn nothing_moves_without_a_scheduler_and_health_says_nothing_of_it() {
    let ground = Ground::with_object();
    let daemon = ground.daemon();
    on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        client
            .download(download_to(&ground.path("before")))
            .await
            .unwrap();
        ground.cluster.set_scheduler_down(true);
        let error = client
            .download(download_to(&ground.path("after")))
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::Internal);
        assert!(error.message().contains("currently unavailable"), "{error}");
        assert!(!ground.path("after").exists());
        assert_eq!(client.serves("").await.unwrap(), 1);
        daemon.set_serving(false);
        assert_eq!(
            client.serves("dfdaemon.v2.DfdaemonDownload").await.unwrap(),
            2
        );
        assert_eq!(
            client.serves("another").await.unwrap_err().code(),
            Code::NotFound
        );
    });
    let asked = daemon.calls().pop().unwrap().asked;
    assert_eq!(asked, Asked::Health("another".to_owned()));
}

#[test]
fn links_that_are_not_possible_are_error_18_or_a_copy() {
    let ground = Ground::with_object();
    let daemon = ground.daemon();
    daemon.set_cross_device(true);
    assert_crosses(&ground, &daemon);
}

#[test]
fn links_across_real_filesystems_are_error_18_or_a_copy() {
    let ground = Ground::with_object();
    let Some(elsewhere) = mount::or_skip(TmpfsMount::new(64 << 20)) else {
        return;
    };
    let dir = Some(elsewhere.path().to_owned());
    let options = Options {
        dir,
        ..Options::default()
    };
    assert_crosses(&ground, &FakeDaemon::start(&ground.cluster, options));
}

fn assert_crosses(ground: &Ground, daemon: &FakeDaemon) {
    let output = ground.path("output");
    on_a_runtime(async {
        let mut client = Client::of(daemon).await;
        let error = client.download(download_to(&output)).await.unwrap_err();
        assert_eq!(error.code(), Code::Internal);
        assert!(error.message().contains("os error 18"), "{error}");
        let request = DownloadRequest {
            force_hard_link: false,
            ..download_to(&output)
        };
        client.download(request.clone()).await.unwrap();
        assert!(ground.has_arrived(&output));
        assert_ne!(
            inode(&output),
            inode(&daemon.cached(URL, &storage()).unwrap())
        );
        let error = client.download(request.clone()).await.unwrap_err();
        assert!(error.message().contains("is already exists"), "{error}");
        let overwrite = true;
        let request = DownloadRequest {
            overwrite,
            ..request
        };
        client.download(request).await.unwrap();

        fs::remove_file(ground.cluster.object("xxh3/ab")).unwrap();
        daemon.clear_cache();
        client.upload(upload_of(&ground.source())).await.unwrap();
    });
    let cached = daemon.cached(URL, &storage()).unwrap();
    assert!(ground.has_arrived(&cached));
    assert_ne!(inode(&cached), inode(&ground.path("source")));
}

#[test]
fn what_the_kernel_and_the_object_storage_refuse_is_internal_with_their_text() {
    let ground = Ground::with_object();
    let daemon = ground.daemon();
    let (there, nowhere) = (ground.path("there"), ground.path("no/parent"));
    fs::write(&there, "mine").unwrap();
    on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        let mut refused = async |request, text: &str| {
            let error = client.download(request).await.unwrap_err();
            assert_eq!(error.code(), Code::Internal);
            assert!(error.message().contains(text), "{error}");
        };
        refused(download_to(&there), "os error 17").await;
        refused(download_to(&nowhere), "os error 2").await;
        let mut absent = download_to(&ground.path("output"));
        absent.url += "cd";
        refused(absent, "NotFound (permanent)").await;
        let error = client.upload(upload_of(&nowhere)).await.unwrap_err();
        assert_eq!(error.code(), Code::AlreadyExists);
        fs::remove_file(ground.cluster.object("xxh3/ab")).unwrap();
        let error = client.upload(upload_of(&nowhere)).await.unwrap_err();
        assert!(error.message().contains("os error 2"), "{error}");
    });
    assert_eq!(fs::read(&there).unwrap(), b"mine");
}

#[test]
fn an_object_storage_is_named_with_region_and_endpoint_and_may_want_a_key() {
    let ground = Ground::with_object();
    let bucket = ground.cluster.object("");
    let cluster = Cluster::over_with_keys("checkpoints", bucket, "key", "another secret");
    let daemon = FakeDaemon::start(&cluster, Options::default());
    on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        let request = download_to(&ground.path("output"));
        let error = client.download(request.clone()).await.unwrap_err();
        assert!(
            error.message().contains("PermissionDenied (permanent)"),
            "{error}"
        );
        assert!(!error.message().contains("another secret"));
        let mut nowhere = request.clone();
        nowhere.object_storage.as_mut().unwrap().region = Some(String::new());
        let error = client.download(nowhere).await.unwrap_err();
        assert!(
            error.message().contains("ConfigInvalid (permanent)"),
            "{error}"
        );
        cluster.set_storage_down(true);
        let error = client.download(request.clone()).await.unwrap_err();
        assert!(error.message().contains("(temporary)"), "{error}");
        for take in [
            |storage: &mut ObjectStorage| storage.region = None,
            |storage: &mut ObjectStorage| storage.endpoint = None,
        ] {
            let mut request = request.clone();
            take(request.object_storage.as_mut().unwrap());
            let error = client.download(request).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
        }
    });
}

#[test]
fn a_daemon_in_a_container_sees_its_volumes_under_other_names() {
    let ground = Ground::new();
    let options = Options {
        mounts: vec![("/mnt/store".into(), ground.dir.path().to_owned())],
        ..Options::default()
    };
    let (daemon, source) = (FakeDaemon::start(&ground.cluster, options), ground.source());
    on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        let error = client.upload(upload_of(&source)).await.unwrap_err();
        assert!(error.message().contains("os error 2"), "{error}");
        let seen = Path::new("/mnt/store");
        client
            .upload(upload_of(&seen.join("source")))
            .await
            .unwrap();
        client
            .download(download_to(&seen.join("output")))
            .await
            .unwrap();
    });
    assert_eq!(inode(&ground.path("output")), inode(&source));
}

#[test]
fn a_replica_count_of_zero_and_a_short_time_to_live_are_refused() {
    let ground = Ground::new();
    let (daemon, source) = (ground.daemon(), ground.source());
    on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        let none = UploadRequest {
            persistent_replica_count: 0,
            ..upload_of(&source)
        };
        let error = client.upload(none).await.unwrap_err();
        assert!(
            error.message().contains("PersistentReplicaCount"),
            "{error}"
        );
        let seconds = 60;
        let ttl = testkit::dragonfly::messages::Duration { seconds, nanos: 0 };
        let short = UploadRequest {
            ttl: Some(ttl),
            ..upload_of(&source)
        };
        let error = client.upload(short).await.unwrap_err();
        assert!(error.message().contains("Ttl"), "{error}");
    });
}

#[test]
fn tasks_can_be_asked_for_here_and_at_the_scheduler() {
    let ground = Ground::new();
    let (daemon, source) = (ground.daemon(), ground.source());
    on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        let task_id = client.upload(upload_of(&source)).await.unwrap().id;
        // sha256 of url, region, endpoint and the kind of task, one after the other.
        assert_eq!(
            task_id,
            "060a4022f872d4d62e258d5da14cc794a19e32660ce7c21e28e04dac8463f0e3"
        );
        let request = StatRequest { task_id };
        let path = "/dfdaemon.v2.DfdaemonDownload/StatPersistentTask";
        let task: Task = client.call(path, request.clone()).await.unwrap();
        assert_eq!(
            (task.state.as_str(), task.current_replica_count),
            ("Succeeded", 1)
        );
        let path = "/dfdaemon.v2.DfdaemonDownload/StatLocalPersistentTask";
        let task: LocalTask = client.call(path, request.clone()).await.unwrap();
        assert!(task.finished_at.is_some());
        daemon.clear_cache();
        let gone: Result<LocalTask, _> = client.call(path, request).await;
        assert!(gone.unwrap_err().message().ends_with("not found"));
    });
}

#[test]
fn it_listens_on_tcp_with_and_without_tls() {
    for listen in [Listen::Tcp, Listen::Tls] {
        let ground = Ground::with_object();
        let options = Options {
            listen,
            ..Options::default()
        };
        let daemon = FakeDaemon::start(&ground.cluster, options);
        on_a_runtime(async {
            let mut client = Client::of(&daemon).await;
            client
                .download(download_to(&ground.path("output")))
                .await
                .unwrap();
        });
        assert!(ground.has_arrived(&ground.path("output")), "{listen:?}");
    }
}

#[test]
fn a_daemon_that_ends_takes_its_calls_with_it() {
    let ground = Ground::with_object();
    let (daemon, gate) = (ground.daemon(), Gate::default());
    let (held, socket) = (gate.clone(), daemon.dir().join("dfdaemon.sock"));
    daemon.answer_downloads(move |_, _| Download::Hold {
        after: 0,
        gate: held.clone(),
    });
    on_a_runtime(async {
        let mut client = Client::of(&daemon).await;
        let mut stream = client
            .begin(download_to(&ground.path("output")))
            .await
            .unwrap();
        gate.reached(1).await;
        drop(daemon);
        let ended = loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                ended => break ended,
            }
        };
        assert!(ended.is_err(), "{ended:?}");
    });
    assert!(!socket.exists());
}

/// Two daemons at a scheduler, and a task.
struct Peers {
    scheduler: Scheduler,
    task_id: String,
}

impl Peers {
    async fn new() -> (Self, Client) {
        let scheduler = Scheduler::start(0);
        let mut client = Client::of_scheduler(&scheduler).await;
        for host in ["one", "other"] {
            let host = Host {
                id: host.to_owned(),
                hostname: format!("{host}.example"),
            };
            let host = host.encode_to_vec();
            let path = "/scheduler.v2.Scheduler/AnnounceHost";
            let _: Empty = client.call(path, AnnounceHost { host }).await.unwrap();
        }
        let task_id = "task".to_owned();
        (Self { scheduler, task_id }, client)
    }

    fn started(&self) -> UploadStarted {
        UploadStarted {
            host_id: "one".to_owned(),
            task_id: self.task_id.clone(),
            peer_id: "one-peer".to_owned(),
            persistent_replica_count: 2,
            content_length: 7,
            piece_count: 1,
            ttl: None,
        }
    }

    fn ended(&self) -> UploadEnded {
        let UploadStarted {
            host_id,
            task_id,
            peer_id,
            ..
        } = self.started();
        let description = None;
        UploadEnded {
            host_id,
            task_id,
            peer_id,
            description,
        }
    }

    /// A download of the task at a daemon: where it is sent, and whether the answer ended after it.
    async fn download(&self, client: &mut Client, host_id: &str, end: PeerEvent) -> Whence {
        let message = |event| AnnouncePeer {
            host_id: host_id.to_owned(),
            task_id: self.task_id.clone(),
            peer_id: format!("{host_id}-peer"),
            request: Some(event),
        };
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        sender
            .send(message(PeerEvent::Register(Empty {})))
            .await
            .unwrap();
        client.0.ready().await.unwrap();
        let path = "/scheduler.v2.Scheduler/AnnouncePersistentPeer";
        let answer = client.0.streaming(
            Request::new(tokio_stream::wrappers::ReceiverStream::new(receiver)),
            http::uri::PathAndQuery::from_static(path),
            ProstCodec::<AnnouncePeer, AnnouncePeerResponse>::default(),
        );
        let mut answers = answer.await.unwrap().into_inner();
        let whence = answers.message().await.unwrap().unwrap().response.unwrap();
        sender.send(message(end)).await.unwrap();
        assert_eq!(answers.message().await.unwrap(), None);
        whence
    }
}

#[test]
fn the_scheduler_sends_a_download_to_those_who_have_the_task_else_to_the_source() {
    on_a_runtime(async {
        let (peers, mut client) = Peers::new().await;
        let source = PeerEvent::BackToSourceFinished(Empty {});
        let whence = peers.download(&mut client, "other", source).await;
        assert_eq!(whence, Whence::Source(Empty {}));

        let path = "/scheduler.v2.Scheduler/UploadPersistentTaskStarted";
        let _: Empty = client.call(path, peers.started()).await.unwrap();
        let path = "/scheduler.v2.Scheduler/UploadPersistentTaskFinished";
        let task: Task = client.call(path, peers.ended()).await.unwrap();
        assert_eq!(
            (task.state.as_str(), task.current_replica_count),
            ("Succeeded", 1)
        );
        // Not to oneself.
        let failed = PeerEvent::Failed(Empty {});
        let whence = peers.download(&mut client, "one", failed).await;
        assert_eq!(whence, Whence::Source(Empty {}));
        let finished = PeerEvent::Finished(Empty {});
        let Whence::Parents(parents) = peers.download(&mut client, "other", finished).await else {
            panic!("there is one who has it");
        };
        let [parent] = &parents.candidate_parents[..] else {
            panic!("{parents:?}");
        };
        assert_eq!(parent.id, "one-peer");
        let host = Host::decode(parent.host.as_slice()).unwrap();
        assert_eq!(host.hostname, "one.example");
        // Now there are two.
        let asked = SchedulerStat {
            host_id: "one".to_owned(),
            task_id: peers.task_id.clone(),
        };
        let path = "/scheduler.v2.Scheduler/StatPersistentTask";
        let task: Task = client.call(path, asked).await.unwrap();
        assert_eq!(task.current_replica_count, 2);
        assert!(task.ttl.is_some() && task.created_at.is_some());
        assert!(
            peers
                .scheduler
                .events()
                .last()
                .unwrap()
                .ends_with("has everything")
        );
    });
}

#[test]
fn the_scheduler_takes_no_second_upload_unless_the_first_one_failed() {
    on_a_runtime(async {
        let (peers, mut client) = Peers::new().await;
        let begin = "/scheduler.v2.Scheduler/UploadPersistentTaskStarted";
        let _: Empty = client.call(begin, peers.started()).await.unwrap();
        let again: Result<Empty, _> = client.call(begin, peers.started()).await;
        let error = again.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert_eq!(
            error.message(),
            "persistent task task is Uploading cannot upload"
        );
        let path = "/scheduler.v2.Scheduler/UploadPersistentTaskFailed";
        let _: Empty = client.call(path, peers.ended()).await.unwrap();
        let _: Empty = client.call(begin, peers.started()).await.unwrap();
        let unknown = SchedulerStat {
            host_id: "one".to_owned(),
            task_id: "another".to_owned(),
        };
        let path = "/scheduler.v2.Scheduler/StatPersistentTask";
        let stat: Result<Task, _> = client.call(path, unknown).await;
        assert_eq!(stat.unwrap_err().code(), Code::NotFound);
    });
}
