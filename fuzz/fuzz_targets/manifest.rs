//! What parses, and has a document of ours, builds again and parses to the same: as the format that it says it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snapshotter::fuzzing::format::artifact::paged::{AnyManifest, PagedManifest};
use snapshotter::fuzzing::format::artifact::{MAX_MANIFEST_BYTES, Manifest, ManifestError};
use snapshotter::fuzzing::words::digest::Sha256;

const DOCUMENT: &[u8] = b"{\"files\":[]}";

fn check_paged(manifest: &PagedManifest) {
    let config = (manifest.config, manifest.config_size);
    let built = match PagedManifest::build(config, &manifest.packs, &manifest.annotations) {
        Ok(built) => built,
        Err(ManifestError::DoesNotFit { bytes, .. }) => return assert!(bytes > MAX_MANIFEST_BYTES),
        Err(error) => panic!("{error}"),
    };
    let again = AnyManifest::parse(&built).expect("what was built parses");
    assert_eq!(again, AnyManifest::V2(manifest.clone()));
}

fuzz_target!(|bytes: &[u8]| {
    let manifest = match AnyManifest::parse(bytes) {
        Ok(AnyManifest::V1(manifest)) => manifest,
        Ok(AnyManifest::V2(manifest)) => return check_paged(&manifest),
        Err(_) => return,
    };
    assert_eq!(manifest.config.to_string().parse(), Ok(manifest.config));
    let built = match Manifest::build(DOCUMENT, &manifest.layers, &manifest.annotations) {
        Ok(built) => built,
        Err(ManifestError::DoesNotFit { bytes, .. }) => return assert!(bytes > MAX_MANIFEST_BYTES),
        Err(error) => panic!("{error}"),
    };
    let again = Manifest::parse(&built).expect("what was built parses");
    assert_eq!(again.config, Sha256::of(DOCUMENT));
    assert_eq!(again.config_size, DOCUMENT.len() as u64);
    assert_eq!(again.layers, manifest.layers);
    assert_eq!(again.annotations, manifest.annotations);
    let twice =
        Manifest::build(DOCUMENT, &again.layers, &again.annotations).expect("it was built before");
    assert_eq!(twice, built);
});
