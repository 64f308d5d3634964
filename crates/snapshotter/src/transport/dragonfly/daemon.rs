//! One daemon as a handle knows it: the connection, its health, how many calls are under way, and what this root's paths
//! are called on its side. All calls of a handle share it, whatever bucket they name.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::Tuning;
use super::config::{Address, Dragonfly};
use super::messages::{HEALTH, HealthCheckRequest, HealthCheckResponse, SERVING};
use super::verdict::{DOWN, Verdict, judge, text};
use crate::fs::Dir;
use crate::http::Attempts;
use crate::lock::lock;
use crate::pass::buffers::Buffers;
use crate::tls;
use crate::transport::budget::{self, Budget};
use crate::transport::files::PIECE;
use crate::transport::said::Said;
use crate::words::error::{Error, ErrorKind, Result};

/// The longest message, in bytes: they are small, since no contents come in them.
const MESSAGE: usize = 16 << 20;

/// How often a connection over the network is asked for a sign of life while a call is under way, and how long for.
const ALIVE: Duration = Duration::from_secs(30);

/// A daemon.
pub(crate) struct Daemon {
    pub(super) config: Dragonfly,
    pub(super) tuning: Tuning,
    address: Address,
    tls: Option<ClientTlsConfig>,
    /// Made at first use, because it belongs to the runtime it is made in: that of the calls.
    channel: OnceLock<Channel>,
    pub(super) uploads: Arc<Semaphore>,
    pub(super) downloads: Arc<Semaphore>,
    health: Mutex<Health>,
    /// Hard links were found to be impossible: the daemon's storage is on another filesystem.
    pub(super) copies: AtomicBool,
    home: OnceLock<Home>,
    slots: AtomicU64,
    under_way: watch::Sender<usize>,
    pub(super) budget: Budget,
    pub(super) buffers: Buffers,
}

/// Where files for the daemon are made.
struct Home {
    root: PathBuf,
    /// The same as others are told of it.
    shown: PathBuf,
    staging: PathBuf,
    dir: OnceLock<Arc<Dir>>,
}

#[derive(Clone, Debug)]
enum Health {
    Unknown,
    Good,
    /// It failed a moment ago; who has something else to do does not ask again before this is over.
    Resting {
        until: Instant,
        why: String,
    },
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daemon")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Daemon {
    /// Checks a configuration. Nothing is sent yet, and nothing can be before [`Daemon::settle_in`].
    pub(crate) fn open(config: &Dragonfly) -> Result<Arc<Self>> {
        Self::tuned(config, Tuning::default())
    }

    pub(in crate::transport) fn tuned(config: &Dragonfly, tuning: Tuning) -> Result<Arc<Self>> {
        let address = config.validate()?;
        let tls = match &address {
            Address::Tcp { tls: true, .. } => {
                let roots = tls::roots("dragonfly", config.ca_file.as_deref())?;
                Some(ClientTlsConfig::new().trust_anchors(roots.roots))
            }
            _ => None,
        };
        Ok(Arc::new(Self {
            tls,
            address,
            channel: OnceLock::new(),
            uploads: Arc::new(Semaphore::new(config.concurrency)),
            downloads: Arc::new(Semaphore::new(config.concurrency)),
            health: Mutex::new(Health::Unknown),
            copies: AtomicBool::new(false),
            home: OnceLock::new(),
            slots: AtomicU64::new(0),
            under_way: watch::Sender::new(0),
            budget: Budget::new(budget::DEFAULT),
            buffers: Buffers::new(PIECE as usize),
            config: config.clone(),
            tuning,
        }))
    }

    /// Says where the root is, and where below it files may be made that are swept when their owner is gone.
    pub(crate) fn settle_in(&self, root: &Path, staging: &Path) -> Result<()> {
        let absolute =
            |path: &Path| std::path::absolute(path).map_err(|error| Error::io("find", path, error));
        let root = absolute(root)?;
        let shown = clean(&root).map_err(|error| Error::io("find", &root, error))?;
        // Of two who say it, the first is right: there is one handle.
        let _ = self.home.set(Home {
            root,
            shown,
            staging: absolute(staging)?.join("dragonfly"),
            dir: OnceLock::new(),
        });
        Ok(())
    }

    /// A directory in staging, and a name in it that no file had before.
    pub(super) fn slot(&self) -> Result<(Arc<Dir>, OsString)> {
        let home = self.home()?;
        let dir = match home.dir.get() {
            Some(dir) => Arc::clone(dir),
            None => {
                let made = Arc::new(Dir::create_all(&home.staging, 0o700)?);
                Arc::clone(home.dir.get_or_init(|| made))
            }
        };
        Ok((dir, self.name().into()))
    }

    /// A name no other file of this handle's was given.
    pub(super) fn name(&self) -> String {
        format!("{:x}", self.slots.fetch_add(1, Ordering::Relaxed))
    }

    /// What a path is called on the daemon's side.
    pub(super) fn there(&self, path: &Path) -> Result<String> {
        let home = self.home()?;
        let path = std::path::absolute(path).map_err(|error| Error::io("find", path, error))?;
        let Ok(rest) = path.strip_prefix(&home.root) else {
            let text = format!("{} is not below the root", path.display());
            return Err(Error::new(ErrorKind::Internal, text).with_path(path));
        };
        let dir = self.config.storage_dir.as_ref().unwrap_or(&home.shown);
        let there = dir.join(rest);
        there.into_os_string().into_string().map_err(|_| {
            Error::invalid(format!(
                "root_dir {} must be UTF-8 to be named to dragonfly",
                home.root.display()
            ))
        })
    }

    fn home(&self) -> Result<&Home> {
        self.home
            .get()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the daemon was given no directory"))
    }

    /// The connection, for one call.
    pub(super) async fn grpc(&self) -> Result<Grpc<Channel>, Status> {
        let channel = match self.channel.get() {
            Some(channel) => channel.clone(),
            None => {
                let made = self.connect()?;
                self.channel.get_or_init(|| made).clone()
            }
        };
        let mut grpc = Grpc::new(channel).max_decoding_message_size(MESSAGE);
        grpc.ready()
            .await
            .map_err(|error| Status::from_error(error.into()))?;
        Ok(grpc)
    }

    /// Connects when there is something to send, and again after a connection is lost.
    fn connect(&self) -> Result<Channel, Status> {
        let failed = |error: tonic::transport::Error| Status::from_error(error.into());
        match &self.address {
            Address::Socket(path) => {
                let path = path.clone();
                let connect = tower::service_fn(move |_: http::Uri| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                });
                Ok(Endpoint::from_static("http://dfdaemon")
                    .connect_timeout(self.tuning.connect)
                    .connect_with_connector_lazy(connect))
            }
            Address::Tcp { uri, .. } => {
                let mut endpoint = Endpoint::from_shared(uri.clone())
                    .map_err(failed)?
                    .connect_timeout(self.tuning.connect)
                    .http2_keep_alive_interval(ALIVE)
                    .keep_alive_timeout(ALIVE);
                if let Some(tls) = &self.tls {
                    endpoint = endpoint.tls_config(tls.clone()).map_err(failed)?;
                }
                Ok(endpoint.connect_lazy())
            }
        }
    }

    /// Asks the daemon whether it serves, the first time and after it failed.
    pub(super) async fn ready(&self, retries: u32) -> Result<()> {
        if matches!(self.health(), Health::Good) {
            return Ok(());
        }
        let mut attempts = self.attempts(retries);
        loop {
            match self.ask().await {
                Ok(()) => {
                    self.set_health(Health::Good);
                    return Ok(());
                }
                Err((kind, why, hint)) if attempts.are_over() || kind != ErrorKind::Unavailable => {
                    self.rest(&why);
                    return Err(self.unavailable(kind, &why, hint));
                }
                Err((_, why, _)) => attempts.wait(None, &why).await,
            }
        }
    }

    /// The same for who can do without it: once, and not at all where it failed a moment ago.
    pub(super) async fn ready_now(&self) -> Result<()> {
        match self.health() {
            Health::Resting { until, why } if Instant::now() < until => {
                Err(self.unavailable(ErrorKind::Unavailable, &why, None))
            }
            _ => self.ready(0).await,
        }
    }

    async fn ask(&self) -> Result<(), (ErrorKind, String, Option<&'static str>)> {
        let asked = tokio::time::timeout(self.tuning.answer, self.check());
        match asked.await {
            Err(_) => Err((
                ErrorKind::Unavailable,
                "it does not answer".to_owned(),
                None,
            )),
            // A daemon of before it had this call.
            Ok(Err(status)) if status.code() == Code::Unimplemented => Ok(()),
            Ok(Err(status)) => {
                let Verdict { kind, hint, .. } = judge(&status);
                Err((kind, text(&status), hint))
            }
            Ok(Ok(SERVING)) => Ok(()),
            Ok(Ok(_)) => Err((
                ErrorKind::Unavailable,
                "it says that it does not serve".to_owned(),
                None,
            )),
        }
    }

    async fn check(&self) -> Result<i32, Status> {
        let mut grpc = self.grpc().await?;
        let request = Request::new(HealthCheckRequest::default());
        let path = http::uri::PathAndQuery::from_static(HEALTH);
        let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
        Ok(grpc.unary(request, path, codec).await?.into_inner().status)
    }

    fn unavailable(&self, kind: ErrorKind, why: &str, hint: Option<&'static str>) -> Error {
        Error::new(kind, format!("{} cannot be used", self.shown()))
            .with_source(Said(why.to_owned()))
            .with_hint(hint.unwrap_or(DOWN))
    }

    /// For errors and reports.
    pub(super) fn shown(&self) -> String {
        format!("dfdaemon at {}", self.config.endpoint)
    }

    fn health(&self) -> Health {
        lock(&self.health).clone()
    }

    fn set_health(&self, health: Health) {
        *lock(&self.health) = health;
    }

    /// Whoever has something else to do leaves the daemon alone for a while.
    pub(super) fn rest(&self, why: &str) {
        self.set_health(Health::Resting {
            until: Instant::now() + self.tuning.rest,
            why: why.to_owned(),
        });
    }

    /// The next call asks first.
    pub(super) fn doubt(&self) {
        self.set_health(Health::Unknown);
    }

    pub(super) fn attempts(&self, retries: u32) -> Attempts {
        Attempts::new(self.tuning.pace, retries)
    }

    /// Counts an upload until what it gives is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.send_modify(|count| *count += 1);
        UnderWay(Arc::clone(self))
    }

    /// Whether no upload is under way.
    pub(crate) fn is_settled(&self) -> bool {
        *self.under_way.borrow() == 0
    }

    /// Waits until no upload is under way: one that is cut off, as by the end of the process, leaves its object wedged.
    /// Not for ever: a daemon that has come to a halt is not waited for longer than one download would.
    pub(crate) async fn settled(&self) {
        let mut count = self.under_way.subscribe();
        let none = count.wait_for(|count| *count == 0);
        if tokio::time::timeout(self.config.idle_timeout, none)
            .await
            .is_err()
        {
            let left = *self.under_way.borrow();
            tracing::warn!(left, "uploads are still under way in the daemon");
        }
    }
}

/// An upload that must not be cut off.
pub(super) struct UnderWay(Arc<Daemon>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count -= 1);
    }
}

/// An absolute path without `..`, which the system resolves: after a symlink it is not the directory that the link is in.
fn clean(path: &Path) -> io::Result<PathBuf> {
    if !path.components().any(|part| part == Component::ParentDir) {
        return Ok(path.to_owned());
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.canonicalize()?.join(name)),
        _ => path.canonicalize(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(config: &Dragonfly) -> Arc<Daemon> {
        let daemon = Daemon::open(config).unwrap();
        let staging = Path::new("/data/root/staging/owner");
        daemon.settle_in(Path::new("/data/root"), staging).unwrap();
        daemon
    }

    #[test]
    fn the_storage_dir_takes_the_place_of_the_root_in_every_path() {
        let here = daemon(&Dragonfly::default());
        let path = Path::new("/data/root/staging/owner/0/1");
        assert_eq!(here.there(path).unwrap(), "/data/root/staging/owner/0/1");
        let there = daemon(&Dragonfly::default().storage_dir("/mnt"));
        assert_eq!(there.there(path).unwrap(), "/mnt/staging/owner/0/1");
        for outside in ["/data/rootless/x", "/etc/passwd"] {
            assert!(there.there(Path::new(outside)).is_err(), "{outside}");
        }
    }
}
