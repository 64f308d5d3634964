//! What several daemons share: a bucket, the scheduler's records, and who has what.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tonic::{Code, Status};

use super::messages::{ObjectStorage, UploadRequest};
use super::text::{self, Asks, Storage};

/// A bucket and a scheduler. Clones are the same cluster.
#[derive(Clone)]
pub struct Cluster(Arc<Shared>);

struct Shared {
    bucket: String,
    dir: PathBuf,
    keys: Option<(String, String)>,
    records: Mutex<Records>,
    downloaded: AtomicU64,
    // Removed with the last clone; a directory that was given stays.
    _own: Option<TempDir>,
}

#[derive(Default)]
struct Records {
    scheduler_is_down: bool,
    storage_is_down: bool,
    is_wedged: bool,
    states: HashMap<String, State>,
    holders: HashMap<String, Vec<(String, PathBuf)>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Uploading,
    Succeeded,
    Failed,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { bucket, dir, .. } = &*self.0;
        f.debug_struct("Cluster")
            .field("bucket", bucket)
            .field("dir", dir)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// One with an empty bucket in a temporary directory.
    ///
    /// # Panics
    /// When the machine gives no directory.
    #[must_use]
    pub fn new(bucket: &str) -> Self {
        let own = tempfile::tempdir().expect("a temporary directory");
        let dir = own.path().to_owned();
        Self::make(bucket, dir, None, Some(own))
    }

    /// One whose bucket is this directory: an object is the file with its key as its name. That is how
    /// [`crate::s3::S3`] keeps one, so that `Cluster::over(s3.bucket(), s3.dir())` is a daemon in front of that server.
    #[must_use]
    pub fn over(bucket: &str, dir: impl Into<PathBuf>) -> Self {
        Self::make(bucket, dir.into(), None, None)
    }

    /// The same, and the object storage lets in only who has this key and its secret.
    #[must_use]
    pub fn over_with_keys(bucket: &str, dir: impl Into<PathBuf>, id: &str, secret: &str) -> Self {
        let keys = Some((id.to_owned(), secret.to_owned()));
        Self::make(bucket, dir.into(), keys, None)
    }

    fn make(
        bucket: &str,
        dir: PathBuf,
        keys: Option<(String, String)>,
        own: Option<TempDir>,
    ) -> Self {
        Self(Arc::new(Shared {
            bucket: bucket.to_owned(),
            dir,
            keys,
            records: Mutex::default(),
            downloaded: AtomicU64::new(0),
            _own: own,
        }))
    }

    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.0.bucket
    }

    /// The file that an object is.
    #[must_use]
    pub fn object(&self, key: &str) -> PathBuf {
        self.0.dir.join(key)
    }

    /// Takes the scheduler away, or brings it back. Without it a daemon uploads nothing and downloads nothing, not even
    /// what is in its own cache, and says that it is healthy.
    pub fn set_scheduler_down(&self, is_down: bool) {
        self.records().scheduler_is_down = is_down;
    }

    /// Takes the object storage away from the daemons, or brings it back.
    pub fn set_storage_down(&self, is_down: bool) {
        self.records().storage_is_down = is_down;
    }

    /// Has the scheduler refuse every upload as one of a task that is being uploaded, until told otherwise.
    pub fn set_wedged(&self, is_wedged: bool) {
        self.records().is_wedged = is_wedged;
    }

    /// The scheduler forgets all tasks, as it does after their time to live: what was wedged can be uploaded again.
    pub fn expire_tasks(&self) {
        self.records().states.clear();
    }

    /// How many tasks are being uploaded as far as the scheduler knows: those whose call was cancelled too.
    #[must_use]
    pub fn uploading(&self) -> usize {
        let records = self.records();
        let states = records.states.values();
        states.filter(|state| **state == State::Uploading).count()
    }

    /// Bytes that daemons have read from the bucket.
    #[must_use]
    pub fn downloaded(&self) -> u64 {
        self.0.downloaded.load(Ordering::Relaxed)
    }

    pub(super) fn count_downloaded(&self, bytes: u64) {
        self.0.downloaded.fetch_add(bytes, Ordering::Relaxed);
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        let records = self.0.records.lock();
        records.unwrap_or_else(PoisonError::into_inner)
    }

    /// The task's id and the object, if the request is one that the daemon takes and the object storage answers it.
    pub(super) fn find(
        &self,
        url: &str,
        storage: Option<&ObjectStorage>,
        asks: Asks,
    ) -> Result<Object, Status> {
        let missing = |what| Status::invalid_argument(format!("missing {what}"));
        let storage = storage.ok_or_else(|| missing("object storage"))?;
        let region = storage.region.as_deref();
        let region = region.ok_or_else(|| missing("object storage region"))?;
        let endpoint = storage.endpoint.as_deref();
        let endpoint = endpoint.ok_or_else(|| missing("object storage endpoint"))?;
        let (bucket, key) = split(url)?;
        self.answers(storage, region, bucket)
            .map_err(|said| text::storage(said, asks, key))?;
        Ok(Object {
            task_id: task_id(url, region, endpoint),
            key: key.to_owned(),
            path: self.object(key),
        })
    }

    fn answers(&self, storage: &ObjectStorage, region: &str, bucket: &str) -> Result<(), Storage> {
        if region.is_empty() {
            return Err(Storage::NoRegion);
        }
        if self.records().storage_is_down {
            return Err(Storage::Unreachable);
        }
        if let Some((id, secret)) = &self.0.keys {
            let (given, of) = (&storage.access_key_id, &storage.access_key_secret);
            if given.as_ref() != Some(id) || of.as_ref() != Some(secret) {
                return Err(Storage::Forbidden);
            }
        }
        if bucket != self.0.bucket {
            return Err(Storage::NoBucket);
        }
        Ok(())
    }

    /// Asks the scheduler anything.
    pub(super) fn ask_scheduler(&self) -> Result<(), Status> {
        if self.records().scheduler_is_down {
            return Err(text::scheduler_down());
        }
        Ok(())
    }

    /// Tells the scheduler that an upload begins.
    pub(super) fn begin(&self, task_id: &str, request: &UploadRequest) -> Result<(), Status> {
        self.ask_scheduler()?;
        let invalid = |what: &str, must: &str| {
            let message =
                format!("invalid UploadPersistentTaskStartedRequest.{what}: value must be {must}");
            Err(text::scheduler(Code::InvalidArgument, &message))
        };
        if request.persistent_replica_count == 0 {
            return invalid("PersistentReplicaCount", "greater than or equal to 1");
        }
        let ttl = request.ttl.map_or(24 * 3600, |ttl| ttl.seconds);
        if !(300..=604_800).contains(&ttl) {
            return invalid("Ttl", "inside range [5m0s, 168h0m0s]");
        }
        let mut records = self.records();
        let wedged = records.is_wedged.then_some(State::Uploading);
        match wedged.or(records.states.get(task_id).copied()) {
            None | Some(State::Failed) => {}
            Some(state) => {
                let message = format!("persistent task {task_id} is {state:?} cannot upload");
                return Err(text::scheduler(Code::FailedPrecondition, &message));
            }
        }
        records.states.insert(task_id.to_owned(), State::Uploading);
        Ok(())
    }

    /// Tells the scheduler how an upload ended. Whoever is cancelled does not.
    pub(super) fn end(&self, task_id: &str, is_well: bool) {
        let state = if is_well {
            State::Succeeded
        } else {
            State::Failed
        };
        self.records().states.insert(task_id.to_owned(), state);
    }

    /// A daemon has all of a task in this file.
    pub(super) fn hold(&self, task_id: &str, daemon: &str, file: &Path) {
        let mut records = self.records();
        let holders = records.holders.entry(task_id.to_owned()).or_default();
        holders.retain(|(other, _)| other != daemon);
        holders.push((daemon.to_owned(), file.to_owned()));
    }

    /// A daemon has nothing any more.
    pub(super) fn leave(&self, daemon: &str) {
        for holders in self.records().holders.values_mut() {
            holders.retain(|(other, _)| other != daemon);
        }
    }

    /// Another daemon that has all of a task, and its file.
    pub(super) fn parent(&self, task_id: &str, daemon: &str) -> Option<(String, PathBuf)> {
        let records = self.records();
        let holders = records.holders.get(task_id)?;
        holders.iter().find(|(other, _)| other != daemon).cloned()
    }

    /// How many daemons have all of a task.
    pub(super) fn holders(&self, task_id: &str) -> u64 {
        let records = self.records();
        records
            .holders
            .get(task_id)
            .map_or(0, |all| all.len() as u64)
    }

    /// What the scheduler knows of a task.
    pub(super) fn state(&self, task_id: &str) -> Option<String> {
        let records = self.records();
        let state = records.states.get(task_id)?;
        Some(format!("{state:?}"))
    }
}

/// An object that a request is about.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) task_id: String,
    pub(super) key: String,
    pub(super) path: PathBuf,
}

/// Bucket and key of a URL. A key becomes a path here, which it does not in a bucket.
fn split(url: &str) -> Result<(&str, &str), Status> {
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| text::internal("ParseError cause: relative URL without a base"))?;
    let is_known = ["s3", "gs", "abs", "oss", "obs", "cos"].contains(&scheme);
    let parts = rest.split_once('/').filter(|(_, key)| {
        let is_plain = |part| !matches!(part, "" | "." | "..");
        is_known && key.split('/').all(is_plain)
    });
    parts.ok_or_else(|| text::internal("invalid parameter"))
}

/// The task of an object: its spelling decides.
pub(super) fn task_id(url: &str, region: &str, endpoint: &str) -> String {
    let mut hasher = Sha256::new();
    for part in [url, region, endpoint, "PERSISTENT"] {
        hasher.update(part.as_bytes());
    }
    let digest = hasher.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
