//! The contract against every implementation, and everything a registry can do to a client.

mod bad_weather;
mod contents;
#[cfg(feature = "test-hook")]
mod crash;
mod directory;
mod login;
mod places;
mod redirects;
mod secrets;
mod servers;
mod streams;
mod suite;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use testkit::weather::{Asked, Reply, Weather};
use tokio::sync::mpsc;

use super::*;
use crate::pace::Pace;
use crate::words::error::Error;

/// Waits that no test notices.
fn quick() -> Tuning {
    Tuning {
        pace: Pace::QUICK,
        ..Tuning::default()
    }
}

fn opened(config: &Registry) -> Arc<dyn MetadataRegistry> {
    open_with(config, quick()).unwrap()
}

/// A client of a server that is to misbehave.
fn under(weather: &Weather) -> Arc<dyn MetadataRegistry> {
    opened(&Registry::new(weather.url(), "ns"))
}

fn repository() -> Repository {
    Repository::new("ns", "vm/one").unwrap()
}

fn v1() -> TagOrDigest {
    TagOrDigest::tag("v1").unwrap()
}

/// Bytes that are no two tests' the same.
fn some_bytes(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| (i / 251) as u8 ^ (i as u8) ^ seed)
        .collect()
}

/// All text of an error that anybody could print.
fn everything_said(error: &Error) -> String {
    let mut said = format!("{error}\n{error:?}\n{:?}", error.hint());
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        said += &format!("\n{error}\n{error:?}");
        source = error.source();
    }
    said
}

/// Pulls a stream into memory, whatever came of it.
async fn pulled(
    registry: &dyn MetadataRegistry,
    repository: &Repository,
    sha256: Sha256,
    size: u64,
    range: Option<Range<u64>>,
) -> (Result<()>, Vec<u8>) {
    let (sink, mut source) = mpsc::channel::<Bytes>(2);
    let gather = async {
        let mut bytes = Vec::new();
        while let Some(more) = source.recv().await {
            bytes.extend_from_slice(&more);
        }
        bytes
    };
    tokio::join!(
        registry.pull_stream(repository, sha256, size, range, sink),
        gather
    )
}

/// What a registry says of a blob that it has now.
fn created(asked: &Asked) -> Reply {
    let (_, digest) = asked.target.split_once("digest=").unwrap();
    Reply::status(201).with("Docker-Content-Digest", digest.replace("%3A", ":"))
}

/// How a stream ends.
#[derive(Clone, Copy)]
enum End {
    Well,
    /// One byte is missing.
    Early,
    /// Its sender says that it has failed, with this text.
    Failed(&'static str),
}

/// Pushes these bytes, as often as they are asked for; empty pieces, which must not end anything, among them.
async fn pushed(
    registry: &dyn MetadataRegistry,
    repository: &Repository,
    bytes: &[u8],
    end: End,
) -> Result<Sha256> {
    let missing = u64::from(matches!(end, End::Early));
    let (source, mut begun) = Source::stream(bytes.len() as u64 + missing);
    let send = async move {
        'begun: while let Some(sink) = begun.recv().await {
            let chunks = bytes.chunks(70_000).map(Bytes::copy_from_slice);
            for piece in chunks.flat_map(|chunk| [Bytes::new(), chunk]) {
                if sink.send(Ok(piece)).await.is_err() {
                    continue 'begun;
                }
            }
            if let End::Failed(text) = end {
                let _ = sink.send(Err(Error::damaged(text))).await;
            }
        }
    };
    tokio::join!(registry.push_stream(repository, source), send).0
}

#[test]
fn opening_checks_the_configuration_and_sends_nothing() {
    open(&Registry::new("https://registry.invalid", "ns")).unwrap();
    open(&Registry::new("oci-layout:/nowhere", "ns")).unwrap();
    let error = open(&Registry::new("", "ns")).unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
}
