//! A daemon's uploads: linked into the cache, put into the bucket, told to the scheduler. A call that is cancelled on its
//! way is told to nobody, and its task is wedged.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tonic::{Code, Request, Response, Status};

use super::cluster::Object;
use super::daemon::{Asked, Daemon, answered, day, deadline};
use super::gate::Gate;
use super::messages::{Task, Timestamp, UploadRequest};
use super::text::{self, Asks};

/// What becomes of an upload.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Upload {
    /// It goes well.
    #[default]
    Well,
    /// It ends with this error before anything is done.
    Refuse(Code, String),
    /// It stops when the file is in the cache and the scheduler knows of it, and nothing is in the bucket. Cancelled
    /// there, the task is wedged.
    Hold(Gate),
    /// It does everything, and then answers with this error.
    Lose(Code, String),
}

/// Answers `UploadPersistentTask`.
pub(super) async fn answer(
    daemon: Arc<Daemon>,
    request: Request<UploadRequest>,
) -> Result<Response<Task>, Status> {
    let deadline = deadline(&request);
    let request = request.into_inner();
    let noted = daemon.note(Asked::Upload(request.clone()), deadline);
    let answer = upload(&daemon, &request).await;
    answered(noted, answer)
}

async fn upload(daemon: &Arc<Daemon>, request: &UploadRequest) -> Result<Task, Status> {
    let plan = daemon.on_upload(request);
    if let Upload::Refuse(code, message) = plan {
        return Err(Status::new(code, message));
    }
    let cluster = &daemon.cluster;
    let object = cluster.find(&request.url, request.object_storage.as_ref(), Asks::Upload)?;
    if object.path.exists() {
        return Err(Status::already_exists("persistent task already exists"));
    }
    let source = daemon.see(&request.path).map_err(text::internal)?;
    let length = std::fs::metadata(&source).map_err(text::internal)?.len();
    cluster.begin(&object.task_id, request)?;
    let stored = store(daemon, &object, &source, length, &plan).await;
    cluster.end(&object.task_id, stored.is_ok());
    if let Err(error) = stored {
        daemon.forget(&object.task_id);
        return Err(text::internal(error));
    }
    if let Upload::Lose(code, message) = plan {
        return Err(Status::new(code, message));
    }
    let pieces = length.div_ceil(daemon.piece_length);
    Ok(Task {
        id: object.task_id.clone(),
        persistent_replica_count: request.persistent_replica_count,
        current_persistent_replica_count: 1,
        current_replica_count: cluster.holders(&object.task_id),
        content_length: length,
        piece_count: u32::try_from(pieces).unwrap_or(u32::MAX),
        state: "Succeeded".to_owned(),
        ttl: request.ttl.or(Some(day())),
        created_at: Some(Timestamp::default()),
        updated_at: Some(Timestamp::default()),
    })
}

async fn store(
    daemon: &Arc<Daemon>,
    object: &Object,
    source: &Path,
    length: u64,
    plan: &Upload,
) -> io::Result<()> {
    let cached = daemon.cache_path(&object.task_id)?;
    if daemon.link(source, &cached).is_err() {
        std::fs::copy(source, &cached)?;
    }
    if let Upload::Hold(gate) = plan {
        gate.pass().await;
    }
    put(&cached, object)?;
    daemon.adopt(&object.task_id, cached, length);
    Ok(())
}

// An object appears whole or not at all.
fn put(from: &Path, object: &Object) -> io::Result<()> {
    let dir = object.path.parent().expect("an object is in a bucket");
    std::fs::create_dir_all(dir)?;
    let temporary = tempfile::NamedTempFile::new_in(dir)?;
    std::fs::copy(from, temporary.path())?;
    temporary.persist(&object.path)?;
    Ok(())
}
