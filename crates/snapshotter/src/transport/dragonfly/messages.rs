//! The few messages of Dragonfly's API that are used, written by hand: generating them takes `protoc` at every build. A
//! field is what its number is, so the tests below hold the encoded bytes.
//!
//! Fields that are never set are left out; what the daemon sends beyond these is skipped by the decoder.

use std::fmt;

/// Uploads a file into object storage and keeps it in the daemon's cache.
pub(super) const UPLOAD: &str = "/dfdaemon.v2.DfdaemonDownload/UploadPersistentTask";
/// Brings an object, from other nodes or from object storage, and tells piece by piece how that gets on.
pub(super) const DOWNLOAD: &str = "/dfdaemon.v2.DfdaemonDownload/DownloadPersistentTask";
/// Whether the daemon serves.
pub(super) const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// Where an object is and with which keys.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct ObjectStorage {
    #[prost(string, optional, tag = "1")]
    pub(super) region: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) endpoint: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) access_key_id: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(super) access_key_secret: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub(super) session_token: Option<String>,
    #[prost(string, optional, tag = "6")]
    pub(super) credential_path: Option<String>,
    #[prost(string, optional, tag = "8")]
    pub(super) security_token: Option<String>,
    #[prost(bool, optional, tag = "9")]
    pub(super) insecure_skip_verify: Option<bool>,
}

/// Half of it is secret.
impl fmt::Debug for ObjectStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStorage")
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Span {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UploadPersistentTaskRequest {
    #[prost(string, tag = "1")]
    pub(super) url: String,
    #[prost(message, optional, tag = "2")]
    pub(super) object_storage: Option<ObjectStorage>,
    /// The daemon opens it: absolute.
    #[prost(string, tag = "3")]
    pub(super) path: String,
    #[prost(uint64, tag = "4")]
    pub(super) persistent_replica_count: u64,
    #[prost(message, optional, tag = "5")]
    pub(super) ttl: Option<Span>,
}

/// What an upload came to: that it came to an end is all that matters.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PersistentTask {
    #[prost(string, tag = "1")]
    pub(super) id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DownloadPersistentTaskRequest {
    #[prost(string, tag = "1")]
    pub(super) url: String,
    #[prost(message, optional, tag = "2")]
    pub(super) object_storage: Option<ObjectStorage>,
    #[prost(bool, tag = "3")]
    pub(super) persistent: bool,
    /// The daemon makes it: absolute, with a parent.
    #[prost(string, optional, tag = "4")]
    pub(super) output_path: Option<String>,
    #[prost(bool, tag = "7")]
    pub(super) force_hard_link: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DownloadPersistentTaskResponse {
    #[prost(oneof = "Told", tags = "4, 5")]
    pub(super) told: Option<Told>,
}

/// How a download gets on.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Told {
    #[prost(message, tag = "4")]
    Started(Started),
    #[prost(message, tag = "5")]
    PieceFinished(PieceFinished),
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Started {
    #[prost(uint64, tag = "1")]
    pub(super) content_length: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct PieceFinished {
    #[prost(message, optional, tag = "1")]
    pub(super) piece: Option<Piece>,
}

/// They come in any order and more than once: the number tells them apart.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Piece {
    #[prost(uint32, tag = "1")]
    pub(super) number: u32,
    #[prost(uint64, tag = "4")]
    pub(super) length: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub(super) service: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

/// The status of who serves.
pub(super) const SERVING: i32 = 1;

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// A field of text as it is on the wire.
    fn text(number: u8, text: &str) -> Vec<u8> {
        let len = u8::try_from(text.len()).unwrap();
        [&[number << 3 | 2, len], text.as_bytes()].concat()
    }

    fn message(number: u8, bytes: &[u8]) -> Vec<u8> {
        let len = u8::try_from(bytes.len()).unwrap();
        [&[number << 3 | 2, len], bytes].concat()
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn storage() -> ObjectStorage {
        ObjectStorage {
            region: some("r"),
            endpoint: some("e"),
            access_key_id: some("id"),
            access_key_secret: some("hunter2"),
            session_token: some("st"),
            credential_path: some("/c"),
            security_token: some("sec"),
            insecure_skip_verify: Some(true),
        }
    }

    fn storage_bytes() -> Vec<u8> {
        let fields = [
            text(1, "r"),
            text(2, "e"),
            text(3, "id"),
            text(4, "hunter2"),
            text(5, "st"),
            text(6, "/c"),
            text(8, "sec"),
            vec![9 << 3, 1],
        ];
        fields.concat()
    }

    #[test]
    fn an_upload_has_these_numbers() {
        let request = UploadPersistentTaskRequest {
            url: "s3://b/xxh3/1".to_owned(),
            object_storage: Some(storage()),
            path: "/p".to_owned(),
            persistent_replica_count: 2,
            ttl: Some(Span {
                seconds: 300,
                nanos: 7,
            }),
        };
        let expected = [
            text(1, "s3://b/xxh3/1"),
            message(2, &storage_bytes()),
            text(3, "/p"),
            vec![4 << 3, 2],
            message(5, &[1 << 3, 0xac, 0x02, 2 << 3, 7]),
        ];
        assert_eq!(request.encode_to_vec(), expected.concat());
    }

    #[test]
    fn a_download_has_these_numbers() {
        let request = DownloadPersistentTaskRequest {
            url: "s3://b/xxh3/1".to_owned(),
            object_storage: Some(storage()),
            persistent: true,
            output_path: some("/p"),
            force_hard_link: true,
        };
        let expected = [
            text(1, "s3://b/xxh3/1"),
            message(2, &storage_bytes()),
            vec![3 << 3, 1],
            text(4, "/p"),
            vec![7 << 3, 1],
        ];
        assert_eq!(request.encode_to_vec(), expected.concat());
    }

    /// What is empty is sent all the same, as the Go library does: for the daemon, an absent region is an error.
    #[test]
    fn empty_texts_are_sent() {
        let storage = ObjectStorage {
            region: some(""),
            endpoint: some(""),
            ..ObjectStorage::default()
        };
        assert_eq!(storage.encode_to_vec(), [1 << 3 | 2, 0, 2 << 3 | 2, 0]);
    }

    #[test]
    fn answers_are_read_and_what_is_not_known_is_skipped() {
        let started = [
            text(1, "host"),
            text(2, "task"),
            text(3, "peer"),
            message(4, &[1 << 3, 0x80, 0x01]),
        ];
        let read = DownloadPersistentTaskResponse::decode(&started.concat()[..]).unwrap();
        let expected = Started {
            content_length: 128,
        };
        assert_eq!(read.told, Some(Told::Started(expected)));
        let piece = [
            vec![1 << 3, 3],
            text(2, "parent"),
            vec![3 << 3, 9],
            vec![4 << 3, 5],
            text(5, "blake3:x"),
            vec![7 << 3, 1],
        ];
        let piece = message(5, &message(1, &piece.concat()));
        let read = DownloadPersistentTaskResponse::decode(&piece[..]).unwrap();
        let piece = Some(Piece {
            number: 3,
            length: 5,
        });
        assert_eq!(
            read.told,
            Some(Told::PieceFinished(PieceFinished { piece }))
        );
        let healthy = HealthCheckResponse::decode(&[1 << 3, 1][..]).unwrap();
        assert_eq!(healthy.status, SERVING);
    }

    #[test]
    fn keys_are_not_in_debug() {
        let shown = format!("{:?}", storage());
        assert!(
            !shown.contains("hunter2") && !shown.contains("sec"),
            "{shown}"
        );
    }
}
