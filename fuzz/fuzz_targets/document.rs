//! What parses is consistent and writes; what was written parses to the same and has only one spelling.
#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use snapshotter::fuzzing::format::document::Document;
use snapshotter::fuzzing::words::relpath::RelPath;

fn check_paths(document: &Document) {
    let files = document.files.iter().map(|entry| &entry.path);
    let symlinks = document.symlinks.iter().map(|entry| &entry.path);
    let whiteouts = document.whiteouts.iter().map(|entry| &entry.path);
    let others = symlinks.chain(whiteouts);
    let leaves: HashSet<&[u8]> = files.chain(others).map(RelPath::as_bytes).collect();
    let directories: HashSet<_> = document
        .directories
        .iter()
        .map(|entry| entry.path.as_bytes())
        .collect();
    let (leaf_count, directory_count) = (
        document.files.len() + document.symlinks.len() + document.whiteouts.len(),
        document.directories.len(),
    );
    assert_eq!(leaves.len(), leaf_count, "paths are unique");
    assert_eq!(directories.len(), directory_count, "paths are unique");
    assert!(
        leaves.is_disjoint(&directories),
        "paths are unique across the lists"
    );
    for path in leaves.iter().chain(&directories) {
        let path = RelPath::from_bytes(*path).expect("a path of a document is valid");
        assert!(
            path.ancestors().all(|above| !leaves.contains(above)),
            "{path} is below a file"
        );
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut document) = Document::parse(bytes) else {
        return;
    };
    check_paths(&document);
    let written = document.encode().expect("what parses can be written");
    assert!(
        !written
            .iter()
            .any(|byte| matches!(byte, 0..0x20 | b'<' | b'>' | b'&'))
    );
    let again = Document::parse(&written).expect("what was written parses");
    assert_eq!(again, document);
    assert_eq!(again.encode().expect("it was written before"), written);
    document.sort();
    assert!(document.files.is_sorted_by(|a, b| a.path < b.path));
    document.encode().expect("order doesn't matter");
});
