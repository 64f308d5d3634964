//! A daemon: its switches, its cache, and a note of each call.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;
use tonic::body::Body;
use tonic::{Request, Response, Status};

use super::cluster::{Cluster, task_id};
use super::download::{self, Cached, Download};
use super::grpc::{self, Answer, Health, Place, Server, Service};
use super::messages::{
    DownloadRequest, Duration, LocalTask, ObjectStorage, StatRequest, Task, Timestamp,
    UploadRequest,
};
use super::text;
use super::upload::{self, Upload};

pub(super) const SERVICE: &str = "dfdaemon.v2.DfdaemonDownload";

/// Where a daemon listens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Listen {
    /// On a unix socket, as the real one does.
    #[default]
    Unix,
    /// On a free port of 127.0.0.1.
    Tcp,
    /// The same with TLS, under an authority of its own: [`FakeDaemon::ca_file`].
    Tls,
}

/// How a daemon is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its cache and its socket are; a temporary directory if it is `None`. Hard links need it on the filesystem
    /// of who asks.
    pub dir: Option<PathBuf>,
    /// Where it listens.
    pub listen: Listen,
    /// The size of its pieces in bytes. The real one's are 4 MiB or more; small ones make small tests.
    pub piece_length: u64,
    /// What it sees of the filesystem: as what, and where that really is. A daemon in a container sees its volumes and
    /// nothing else; with an empty list it sees everything as it is.
    pub mounts: Vec<(PathBuf, PathBuf)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dir: None,
            listen: Listen::default(),
            piece_length: 64 << 10,
            mounts: Vec::new(),
        }
    }
}

/// What a daemon was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Asked {
    /// `UploadPersistentTask`.
    Upload(UploadRequest),
    /// `DownloadPersistentTask`.
    Download(DownloadRequest),
    /// `StatPersistentTask`, of this task.
    Stat(String),
    /// `StatLocalPersistentTask`, of this task.
    StatLocal(String),
    /// Whether this service serves.
    Health(String),
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Well.
    Answered,
    /// With this error.
    Failed(String),
    /// Whoever asked went away before the end.
    Cancelled,
}

/// A call: what was asked, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// What was asked.
    pub asked: Asked,
    /// The deadline that came with it (`grpc-timeout`).
    pub deadline: Option<String>,
    /// How it ended; `None` while it runs.
    pub end: Option<End>,
}

type UploadHandler = dyn Fn(&UploadRequest, usize) -> Upload + Send + Sync;
type DownloadHandler = dyn Fn(&DownloadRequest, usize) -> Download + Send + Sync;

/// A daemon. Dropping it ends it in the middle of whatever it does, and its cache goes too, if that was temporary.
#[derive(Debug)]
pub struct FakeDaemon {
    daemon: Arc<Daemon>,
    server: Server,
    socket: PathBuf,
    _own: Option<TempDir>,
}

impl FakeDaemon {
    /// Starts one.
    ///
    /// # Panics
    /// When the machine gives no directory, socket or threads.
    #[must_use]
    pub fn start(cluster: &Cluster, options: Options) -> Self {
        let own = options.dir.is_none();
        let own = own.then(|| tempfile::tempdir().expect("a temporary directory"));
        let dir = own.as_ref().map(|own| own.path().to_owned());
        let dir = dir.or(options.dir).expect("one of the two");
        std::fs::create_dir_all(&dir).expect("a directory");
        let daemon = Arc::new(Daemon::new(
            cluster,
            &dir,
            options.piece_length,
            options.mounts,
        ));
        let socket = dir.join("dfdaemon.sock");
        let place = match options.listen {
            Listen::Unix => {
                // Of one that was there before.
                let _ = std::fs::remove_file(&socket);
                Place::Unix(&socket)
            }
            Listen::Tcp => Place::Tcp(0),
            Listen::Tls => Place::Tls(dir.clone()),
        };
        let health = {
            let daemon = Arc::clone(&daemon);
            Health(Arc::new(move |service| daemon.health(service)))
        };
        let server = Server::start(place, Calls(Arc::clone(&daemon)), health);
        Self {
            daemon,
            server,
            socket,
            _own: own,
        }
    }

    /// `unix:///…/dfdaemon.sock`, `http://127.0.0.1:PORT` or `https://…`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.server.endpoint
    }

    /// The certificate of its authority, in PEM; there with TLS alone.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.socket.with_file_name("ca.pem")
    }

    /// Its directory: socket and cache.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.socket.parent().expect("a socket is in a directory")
    }

    /// What it was asked so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.daemon.calls).clone()
    }

    /// The uploads it was asked for so far.
    #[must_use]
    pub fn uploads(&self) -> Vec<UploadRequest> {
        let upload = |call: Call| match call.asked {
            Asked::Upload(request) => Some(request),
            _ => None,
        };
        self.calls().into_iter().filter_map(upload).collect()
    }

    /// The downloads it was asked for so far.
    #[must_use]
    pub fn downloads(&self) -> Vec<DownloadRequest> {
        let download = |call: Call| match call.asked {
            Asked::Download(request) => Some(request),
            _ => None,
        };
        self.calls().into_iter().filter_map(download).collect()
    }

    /// Says what becomes of each upload: of the request and its number, which counts from 0.
    pub fn answer_uploads(
        &self,
        handler: impl Fn(&UploadRequest, usize) -> Upload + Send + Sync + 'static,
    ) {
        *lock(&self.daemon.on_upload) = Arc::new(handler);
    }

    /// Says what becomes of each download: of the request and its number, which counts from 0.
    pub fn answer_downloads(
        &self,
        handler: impl Fn(&DownloadRequest, usize) -> Download + Send + Sync + 'static,
    ) {
        *lock(&self.daemon.on_download) = Arc::new(handler);
    }

    /// Has health say whether it serves. It answers all the same.
    pub fn set_serving(&self, is_serving: bool) {
        self.daemon.is_serving.store(is_serving, Ordering::SeqCst);
    }

    /// Has all its hard links fail as if its cache were on another filesystem. One that really is fails of itself.
    pub fn set_cross_device(&self, is_cross_device: bool) {
        let switch = &self.daemon.is_cross_device;
        switch.store(is_cross_device, Ordering::SeqCst);
    }

    /// The file in its cache, whole or not, of the object that `request` is about.
    #[must_use]
    pub fn cached(&self, url: &str, storage: &ObjectStorage) -> Option<PathBuf> {
        let (region, endpoint) = (storage.region.as_deref(), storage.endpoint.as_deref());
        let id = task_id(
            url,
            region.unwrap_or_default(),
            endpoint.unwrap_or_default(),
        );
        let cached = lock(&self.daemon.cache).get(&id).cloned();
        cached.map(|cached| cached.path.clone())
    }

    /// Empties its cache, as its garbage collection does; whoever linked a file keeps it.
    pub fn clear_cache(&self) {
        self.daemon.cluster.leave(&self.daemon.id);
        for (_, cached) in lock(&self.daemon.cache).drain() {
            let _ = std::fs::remove_file(&cached.path);
        }
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        self.daemon.cluster.leave(&self.daemon.id);
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// What the calls of one daemon share.
pub(super) struct Daemon {
    pub(super) id: String,
    pub(super) cluster: Cluster,
    pub(super) piece_length: u64,
    storage: PathBuf,
    mounts: Vec<(PathBuf, PathBuf)>,
    is_serving: AtomicBool,
    is_cross_device: AtomicBool,
    calls: Mutex<Vec<Call>>,
    cache: Mutex<HashMap<String, Arc<Cached>>>,
    on_upload: Mutex<Arc<UploadHandler>>,
    on_download: Mutex<Arc<DownloadHandler>>,
    uploads: AtomicUsize,
    downloads: AtomicUsize,
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daemon")
            .field("id", &self.id)
            .field("storage", &self.storage)
            .finish_non_exhaustive()
    }
}

impl Daemon {
    fn new(
        cluster: &Cluster,
        dir: &Path,
        piece_length: u64,
        mounts: Vec<(PathBuf, PathBuf)>,
    ) -> Self {
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        Self {
            id: format!(
                "127.0.0.1-daemon-{}",
                STARTED.fetch_add(1, Ordering::SeqCst)
            ),
            cluster: cluster.clone(),
            piece_length,
            storage: dir.join("content/persistent-tasks"),
            mounts,
            is_serving: AtomicBool::new(true),
            is_cross_device: AtomicBool::new(false),
            calls: Mutex::default(),
            cache: Mutex::default(),
            on_upload: Mutex::new(Arc::new(|_, _| Upload::Well)),
            on_download: Mutex::new(Arc::new(|_, _| Download::Well)),
            uploads: AtomicUsize::new(0),
            downloads: AtomicUsize::new(0),
        }
    }

    /// Where a path that was sent really is, if the daemon sees it.
    pub(super) fn see(&self, path: &str) -> io::Result<PathBuf> {
        let path = Path::new(path);
        let not_there = || io::Error::from_raw_os_error(2);
        if !path.is_absolute() {
            return Err(not_there());
        }
        if self.mounts.is_empty() {
            return Ok(path.to_owned());
        }
        let mut mounts = self.mounts.iter();
        let real = mounts.find_map(|(seen, real)| Some(real.join(path.strip_prefix(seen).ok()?)));
        real.ok_or_else(not_there)
    }

    /// A second name for a file; that it is there already is as good.
    pub(super) fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.is_cross_device.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(18));
        }
        match std::fs::hard_link(from, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_same(from, to) => {
                Ok(())
            }
            done => done,
        }
    }

    /// The cache's file of a task, made if it is not there: with its full size and nothing in it.
    pub(super) fn cache(&self, task_id: &str, length: u64) -> io::Result<Arc<Cached>> {
        let mut cache = lock(&self.cache);
        if let Some(cached) = cache.get(task_id).filter(|cached| cached.length == length) {
            return Ok(Arc::clone(cached));
        }
        let path = self.cache_path(task_id)?;
        let cached = Arc::new(Cached::create(path, length, self.piece_length)?);
        cache.insert(task_id.to_owned(), Arc::clone(&cached));
        Ok(cached)
    }

    /// Puts a file that is there into the cache.
    pub(super) fn adopt(&self, task_id: &str, path: PathBuf, length: u64) {
        self.cluster.hold(task_id, &self.id, &path);
        let cached = Cached::whole(path, length, self.piece_length);
        lock(&self.cache).insert(task_id.to_owned(), Arc::new(cached));
    }

    /// Takes a task out of the cache.
    pub(super) fn forget(&self, task_id: &str) {
        if let Some(cached) = lock(&self.cache).remove(task_id) {
            let _ = std::fs::remove_file(&cached.path);
        }
    }

    pub(super) fn cache_path(&self, task_id: &str) -> io::Result<PathBuf> {
        let dir = self.storage.join(&task_id[..3]);
        std::fs::create_dir_all(&dir)?;
        Ok(dir.join(task_id))
    }

    pub(super) fn on_upload(&self, request: &UploadRequest) -> Upload {
        let handler = Arc::clone(&lock(&self.on_upload));
        handler(request, self.uploads.fetch_add(1, Ordering::SeqCst))
    }

    pub(super) fn on_download(&self, request: &DownloadRequest) -> Download {
        let handler = Arc::clone(&lock(&self.on_download));
        handler(request, self.downloads.fetch_add(1, Ordering::SeqCst))
    }

    fn health(self: &Arc<Self>, service: &str) -> Option<bool> {
        self.note(Asked::Health(service.to_owned()), None)
            .end(Ok(()));
        let is_known = service.is_empty() || service == SERVICE;
        is_known.then(|| self.is_serving.load(Ordering::SeqCst))
    }

    pub(super) fn note(self: &Arc<Self>, asked: Asked, deadline: Option<String>) -> Noted {
        let mut calls = lock(&self.calls);
        calls.push(Call {
            asked,
            deadline,
            end: None,
        });
        Noted {
            daemon: Arc::clone(self),
            number: calls.len() - 1,
        }
    }

    fn stat(&self, request: &StatRequest) -> Result<Task, Status> {
        self.cluster.ask_scheduler()?;
        let id = &request.task_id;
        let state = self.cluster.state(id).ok_or_else(|| {
            let message = format!("persistent task {id} not found");
            text::scheduler(tonic::Code::NotFound, &message)
        })?;
        Ok(Task {
            id: id.clone(),
            state,
            current_replica_count: self.cluster.holders(id),
            ttl: Some(day()),
            created_at: Some(Timestamp::default()),
            updated_at: Some(Timestamp::default()),
            ..Task::default()
        })
    }

    fn stat_local(&self, request: &StatRequest) -> Result<LocalTask, Status> {
        let id = &request.task_id;
        let cached = lock(&self.cache).get(id).cloned();
        let cached = cached.ok_or_else(|| text::internal(format_args!("task {id} not found")))?;
        Ok(LocalTask {
            task_id: id.clone(),
            persistent: false,
            ttl: Some(day()),
            piece_length: Some(self.piece_length),
            content_length: Some(cached.length),
            finished_at: cached.is_whole().then(Timestamp::default),
        })
    }
}

/// A note of a call. Dropped without an end, the call was cancelled.
pub(super) struct Noted {
    daemon: Arc<Daemon>,
    number: usize,
}

impl Noted {
    pub(super) fn end(self, how: Result<(), &Status>) {
        self.put(match how {
            Ok(()) => End::Answered,
            Err(status) => End::Failed(status.message().to_owned()),
        });
    }

    fn put(&self, end: End) {
        let mut calls = lock(&self.daemon.calls);
        calls[self.number].end.get_or_insert(end);
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.put(End::Cancelled);
    }
}

#[derive(Clone)]
struct Calls(Arc<Daemon>);

impl Service for Calls {
    const NAME: &'static str = SERVICE;

    fn call(self, method: &str, request: http::Request<Body>) -> Answer {
        let daemon = self.0;
        match method {
            "UploadPersistentTask" => Box::pin(grpc::unary(request, move |request| {
                upload::answer(Arc::clone(&daemon), request)
            })),
            "DownloadPersistentTask" => Box::pin(grpc::server_streaming(request, move |request| {
                download::answer(Arc::clone(&daemon), request)
            })),
            "StatPersistentTask" => Box::pin(grpc::unary(
                request,
                move |request: Request<StatRequest>| {
                    let (noted, request) = note_stat(&daemon, request, Asked::Stat);
                    std::future::ready(answered(noted, daemon.stat(&request)))
                },
            )),
            "StatLocalPersistentTask" => Box::pin(grpc::unary(
                request,
                move |request: Request<StatRequest>| {
                    let (noted, request) = note_stat(&daemon, request, Asked::StatLocal);
                    std::future::ready(answered(noted, daemon.stat_local(&request)))
                },
            )),
            _ => Box::pin(grpc::unimplemented()),
        }
    }
}

fn note_stat(
    daemon: &Arc<Daemon>,
    request: Request<StatRequest>,
    asked: fn(String) -> Asked,
) -> (Noted, StatRequest) {
    let deadline = deadline(&request);
    let request = request.into_inner();
    (
        daemon.note(asked(request.task_id.clone()), deadline),
        request,
    )
}

/// The answer, after a note of it.
pub(super) fn answered<T>(noted: Noted, answer: Result<T, Status>) -> Result<Response<T>, Status> {
    noted.end(answer.as_ref().map(|_| ()));
    answer.map(Response::new)
}

/// The deadline that came with a request.
pub(super) fn deadline<T>(request: &Request<T>) -> Option<String> {
    let value = request.metadata().get("grpc-timeout")?;
    Some(value.to_str().unwrap_or_default().to_owned())
}

pub(super) fn day() -> Duration {
    Duration {
        seconds: 24 * 3600,
        nanos: 0,
    }
}

pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    let inode = |path| {
        std::fs::metadata(path)
            .map(|file| (file.dev(), file.ino()))
            .ok()
    };
    inode(one).is_some() && inode(one) == inode(other)
}

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
