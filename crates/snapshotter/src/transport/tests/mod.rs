//! What a transport promises, held against real places.

#[cfg(feature = "object-storage-s3")]
mod bucket;
mod directory;
#[cfg(all(feature = "dragonfly", feature = "object-storage-s3"))]
mod dragonfly;
#[cfg(feature = "object-storage-s3")]
mod field;
#[cfg(feature = "object-storage-s3")]
mod moto;
#[cfg(feature = "_opendal")]
mod providers;
#[cfg(feature = "object-storage-s3")]
mod secrets;
pub(crate) mod suite;
#[cfg(feature = "object-storage-s3")]
mod tls;
#[cfg(feature = "object-storage-s3")]
mod weather;

/// What the Go library puts into a bucket: every golden stream under its object.
async fn golden(stand: &impl suite::Stand) {
    let index = testkit::golden::index();
    let mut seen = 0;
    for input in &index.inputs {
        let stream = input.spf1();
        let digest: crate::Digest = input.digest.parse().unwrap();
        let object = suite::stream(digest, stream.len() as u64);
        stand.put(object, &stream);
        let back = suite::fetch(&*stand.open(), object, None, stream.len() as u64).await;
        assert_eq!(back.unwrap(), stream, "{}", input.name);
        let hex = input.object_url.rsplit_once("/xxh3/").unwrap().1;
        assert_eq!(hex, digest.hex());
        seen += 1;
    }
    assert!(seen > 10);
}
