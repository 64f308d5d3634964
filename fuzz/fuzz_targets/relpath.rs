//! An accepted path stays below where it is joined, keeps its bytes, and prints nothing a terminal obeys.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use snapshotter::fuzzing::words::relpath::RelPath;

fn check(path: &RelPath) {
    let parts: Vec<_> = path.as_path().components().collect();
    assert!(
        parts
            .iter()
            .all(|part| matches!(part, Component::Normal(_)))
    );
    assert_eq!(parts.len(), path.components().count());
    assert!(
        path.components()
            .all(|part| !matches!(part, b"" | b"." | b"..") && part.len() <= 255)
    );
    assert!(!path.as_bytes().contains(&0) && path.as_bytes().len() <= 4096);
    assert!(Path::new("/base").join(path.as_path()).starts_with("/base"));
    assert!(path.to_string().chars().all(|c| !c.is_control()));
    assert_eq!(RelPath::normalize(path.as_path()).as_ref(), Ok(path));
    assert_eq!(path.ancestors().count() + 1, parts.len());
    if let Some(parent) = path.parent() {
        assert!(path.starts_with(&parent) && !parent.starts_with(path));
        assert_eq!(parent.join(path.file_name()).as_ref(), Ok(path));
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(path) = RelPath::from_bytes(bytes) {
        assert_eq!(path.as_bytes(), bytes);
        check(&path);
    }
    if let Ok(path) = RelPath::normalize(Path::new(OsStr::from_bytes(bytes))) {
        assert!(!bytes.starts_with(b"/"));
        check(&path);
    }
});
