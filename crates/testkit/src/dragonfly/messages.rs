//! The protocol's messages, as far as this crate speaks it: of the daemon (`dfdaemon.v2`), of what both share
//! (`common.v2`) and of the scheduler (`scheduler.v2`).

use prost::{Message, Oneof};

/// How an object storage is reached. What is not set is not on the wire.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ObjectStorage {
    /// Its region; the daemon wants one.
    #[prost(string, optional, tag = "1")]
    pub region: Option<String>,
    /// Its address; the daemon wants one.
    #[prost(string, optional, tag = "2")]
    pub endpoint: Option<String>,
    /// Who asks.
    #[prost(string, optional, tag = "3")]
    pub access_key_id: Option<String>,
    /// The key's secret.
    #[prost(string, optional, tag = "4")]
    pub access_key_secret: Option<String>,
    /// Of temporary keys, at S3.
    #[prost(string, optional, tag = "5")]
    pub session_token: Option<String>,
    /// A file of the daemon's host, at GCS.
    #[prost(string, optional, tag = "6")]
    pub credential_path: Option<String>,
    /// At GCS.
    #[prost(string, optional, tag = "7")]
    pub predefined_acl: Option<String>,
    /// Of temporary keys, at OSS.
    #[prost(string, optional, tag = "8")]
    pub security_token: Option<String>,
    /// Takes any certificate.
    #[prost(bool, optional, tag = "9")]
    pub insecure_skip_verify: Option<bool>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Duration {
    /// Whole seconds.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds of the last second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Timestamp {
    /// Since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds of the last second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// `google.protobuf.Empty`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Empty {}

/// What a daemon is asked to upload.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UploadRequest {
    /// `s3://BUCKET/KEY`.
    #[prost(string, tag = "1")]
    pub url: String,
    /// Where the bucket is.
    #[prost(message, optional, tag = "2")]
    pub object_storage: Option<ObjectStorage>,
    /// The file, as the daemon sees it.
    #[prost(string, tag = "3")]
    pub path: String,
    /// How many daemons are to keep it.
    #[prost(uint64, tag = "4")]
    pub persistent_replica_count: u64,
    /// How long the caches and the scheduler keep it.
    #[prost(message, optional, tag = "5")]
    pub ttl: Option<Duration>,
    /// Not read by the daemon.
    #[prost(message, optional, tag = "6")]
    pub timeout: Option<Duration>,
}

/// What a daemon is asked to download.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DownloadRequest {
    /// `s3://BUCKET/KEY`.
    #[prost(string, tag = "1")]
    pub url: String,
    /// Where the bucket is.
    #[prost(message, optional, tag = "2")]
    pub object_storage: Option<ObjectStorage>,
    /// Keeps it in the cache for good.
    #[prost(bool, tag = "3")]
    pub persistent: bool,
    /// The file, as the daemon sees it.
    #[prost(string, optional, tag = "4")]
    pub output_path: Option<String>,
    /// How long it may take.
    #[prost(message, optional, tag = "5")]
    pub timeout: Option<Duration>,
    /// Sends the bytes in the answer.
    #[prost(bool, tag = "6")]
    pub need_piece_content: bool,
    /// Fails rather than copy.
    #[prost(bool, tag = "7")]
    pub force_hard_link: bool,
    /// What the whole has to be.
    #[prost(string, optional, tag = "8")]
    pub digest: Option<String>,
    /// Copies over what is there.
    #[prost(bool, tag = "10")]
    pub overwrite: bool,
}

/// One message of a download's answer.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DownloadResponse {
    /// The daemon.
    #[prost(string, tag = "1")]
    pub host_id: String,
    /// The task.
    #[prost(string, tag = "2")]
    pub task_id: String,
    /// This download of it.
    #[prost(string, tag = "3")]
    pub peer_id: String,
    /// What happened.
    #[prost(oneof = "Progress", tags = "4, 5")]
    pub response: Option<Progress>,
}

/// What happened in a download.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum Progress {
    /// It began; the output exists.
    #[prost(message, tag = "4")]
    Started(Started),
    /// A piece is there.
    #[prost(message, tag = "5")]
    Finished(PieceFinished),
}

/// The first message.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Started {
    /// The object's size in bytes.
    #[prost(uint64, tag = "1")]
    pub content_length: u64,
}

/// A piece is there.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PieceFinished {
    /// Which.
    #[prost(message, optional, tag = "1")]
    pub piece: Option<Piece>,
}

/// A piece of an object.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Piece {
    /// Counts from 0.
    #[prost(uint32, tag = "1")]
    pub number: u32,
    /// Who gave it.
    #[prost(string, optional, tag = "2")]
    pub parent_id: Option<String>,
    /// Where it begins, in bytes.
    #[prost(uint64, tag = "3")]
    pub offset: u64,
    /// Its size in bytes.
    #[prost(uint64, tag = "4")]
    pub length: u64,
    /// `crc32:…`.
    #[prost(string, tag = "5")]
    pub digest: String,
    /// Its bytes, if they were wanted.
    #[prost(bytes = "vec", optional, tag = "6")]
    pub content: Option<Vec<u8>>,
    /// [`SOURCE`], [`PEER`] or [`LOCAL`].
    #[prost(int32, optional, tag = "7")]
    pub traffic_type: Option<i32>,
    /// How long it took.
    #[prost(message, optional, tag = "8")]
    pub cost: Option<Duration>,
    /// When it was made.
    #[prost(message, optional, tag = "9")]
    pub created_at: Option<Timestamp>,
}

/// A piece from the object storage.
pub const SOURCE: i32 = 0;
/// A piece from another daemon.
pub const PEER: i32 = 1;
/// A piece that the daemon had.
pub const LOCAL: i32 = 2;

/// What the scheduler knows of an object: `common.v2.PersistentTask`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Task {
    /// Its name.
    #[prost(string, tag = "1")]
    pub id: String,
    /// How many daemons are to keep it.
    #[prost(uint64, tag = "2")]
    pub persistent_replica_count: u64,
    /// How many do.
    #[prost(uint64, tag = "3")]
    pub current_persistent_replica_count: u64,
    /// How many have it.
    #[prost(uint64, tag = "4")]
    pub current_replica_count: u64,
    /// Its size in bytes.
    #[prost(uint64, tag = "5")]
    pub content_length: u64,
    /// How many pieces that is.
    #[prost(uint32, tag = "6")]
    pub piece_count: u32,
    /// `Uploading`, `Succeeded`, `Failed`.
    #[prost(string, tag = "7")]
    pub state: String,
    /// How long this is known.
    #[prost(message, optional, tag = "8")]
    pub ttl: Option<Duration>,
    /// Since when.
    #[prost(message, optional, tag = "9")]
    pub created_at: Option<Timestamp>,
    /// The last change.
    #[prost(message, optional, tag = "10")]
    pub updated_at: Option<Timestamp>,
}

/// Asks a daemon for what it or the scheduler knows of a task.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StatRequest {
    /// Which.
    #[prost(string, tag = "1")]
    pub task_id: String,
}

/// What a daemon has itself.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LocalTask {
    /// Which.
    #[prost(string, tag = "1")]
    pub task_id: String,
    /// Kept for good.
    #[prost(bool, tag = "2")]
    pub persistent: bool,
    /// How long it is kept.
    #[prost(message, optional, tag = "3")]
    pub ttl: Option<Duration>,
    /// In bytes.
    #[prost(uint64, optional, tag = "4")]
    pub piece_length: Option<u64>,
    /// In bytes.
    #[prost(uint64, optional, tag = "5")]
    pub content_length: Option<u64>,
    /// When it was complete.
    #[prost(message, optional, tag = "11")]
    pub finished_at: Option<Timestamp>,
}

/// Asks whether a service serves; an empty name is the server.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct HealthRequest {
    /// Which.
    #[prost(string, tag = "1")]
    pub service: String,
}

/// 1: it serves, 2: it does not.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct HealthResponse {
    /// See above.
    #[prost(int32, tag = "1")]
    pub status: i32,
}

/// A daemon tells the scheduler of itself.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AnnounceHost {
    /// `common.v2.Host`, passed on to others byte for byte: the wire does not tell a message from bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub host: Vec<u8>,
}

/// What the scheduler itself reads of a `common.v2.Host`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Host {
    /// Its name.
    #[prost(string, tag = "1")]
    pub id: String,
    /// For people.
    #[prost(string, tag = "3")]
    pub hostname: String,
}

/// A daemon leaves.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct DeleteHost {
    /// Which.
    #[prost(string, tag = "1")]
    pub host_id: String,
}

/// A daemon begins an upload.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UploadStarted {
    /// The daemon.
    #[prost(string, tag = "1")]
    pub host_id: String,
    /// The task.
    #[prost(string, tag = "2")]
    pub task_id: String,
    /// This copy of it.
    #[prost(string, tag = "3")]
    pub peer_id: String,
    /// How many daemons are to keep it.
    #[prost(uint64, tag = "6")]
    pub persistent_replica_count: u64,
    /// In bytes.
    #[prost(uint64, tag = "7")]
    pub content_length: u64,
    /// How many pieces.
    #[prost(uint32, tag = "8")]
    pub piece_count: u32,
    /// How long it is known.
    #[prost(message, optional, tag = "9")]
    pub ttl: Option<Duration>,
}

/// An upload ended, well or not.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct UploadEnded {
    /// The daemon.
    #[prost(string, tag = "1")]
    pub host_id: String,
    /// The task.
    #[prost(string, tag = "2")]
    pub task_id: String,
    /// This copy of it.
    #[prost(string, tag = "3")]
    pub peer_id: String,
    /// Why it failed.
    #[prost(string, optional, tag = "4")]
    pub description: Option<String>,
}

/// A daemon asks the scheduler for a task.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct SchedulerStat {
    /// Who asks.
    #[prost(string, tag = "1")]
    pub host_id: String,
    /// For what.
    #[prost(string, tag = "2")]
    pub task_id: String,
}

/// A daemon that downloads tells how it gets on. What the scheduler does not act on is not decoded.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AnnouncePeer {
    /// The daemon.
    #[prost(string, tag = "1")]
    pub host_id: String,
    /// The task.
    #[prost(string, tag = "2")]
    pub task_id: String,
    /// This download of it.
    #[prost(string, tag = "3")]
    pub peer_id: String,
    /// What happened.
    #[prost(oneof = "PeerEvent", tags = "4, 7, 8, 9, 10, 11")]
    pub request: Option<PeerEvent>,
}

/// What a download tells the scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Oneof)]
pub enum PeerEvent {
    /// It wants to know where from.
    #[prost(message, tag = "4")]
    Register(Empty),
    /// It did not get everything and asks again.
    #[prost(message, tag = "7")]
    Reschedule(Empty),
    /// It has everything.
    #[prost(message, tag = "8")]
    Finished(Empty),
    /// It has everything, from the object storage.
    #[prost(message, tag = "9")]
    BackToSourceFinished(Empty),
    /// It gave up.
    #[prost(message, tag = "10")]
    Failed(Empty),
    /// The object storage gave nothing.
    #[prost(message, tag = "11")]
    BackToSourceFailed(Empty),
}

/// The scheduler's answer to a download.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AnnouncePeerResponse {
    /// Where from.
    #[prost(oneof = "Whence", tags = "1, 2, 3")]
    pub response: Option<Whence>,
}

/// Where a download gets its pieces.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum Whence {
    /// There are none.
    #[prost(message, tag = "1")]
    Nowhere(Empty),
    /// From other daemons.
    #[prost(message, tag = "2")]
    Parents(Parents),
    /// From the object storage.
    #[prost(message, tag = "3")]
    Source(Empty),
}

/// Daemons that have the task.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Parents {
    /// Their copies.
    #[prost(message, repeated, tag = "1")]
    pub candidate_parents: Vec<Peer>,
}

/// A daemon's copy of a task: `common.v2.PersistentPeer`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Peer {
    /// Its name.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Kept for good.
    #[prost(bool, tag = "2")]
    pub persistent: bool,
    /// How long it took.
    #[prost(message, optional, tag = "3")]
    pub cost: Option<Duration>,
    /// `Succeeded`.
    #[prost(string, tag = "4")]
    pub state: String,
    /// Of what.
    #[prost(message, optional, tag = "5")]
    pub task: Option<Task>,
    /// `common.v2.Host` as it was announced.
    #[prost(bytes = "vec", tag = "6")]
    pub host: Vec<u8>,
    /// Since when.
    #[prost(message, optional, tag = "7")]
    pub created_at: Option<Timestamp>,
    /// The last change.
    #[prost(message, optional, tag = "8")]
    pub updated_at: Option<Timestamp>,
}
