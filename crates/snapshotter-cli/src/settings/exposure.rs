//! Files of settings that others can read.

use std::fs::{Metadata, canonicalize, metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::output::json::Warning;

/// What everybody may do: read a file, go through a directory.
const OTHERS_READ: u32 = 0o004;
const OTHERS_ENTER: u32 = 0o001;

/// Whether everybody can read a file: it is open to them, and every directory above it. What cannot be asked is not.
pub fn is_open(path: &Path) -> bool {
    let may = |path: &Path, is_one: fn(&Metadata) -> bool, bit| {
        metadata(path).is_ok_and(|found| is_one(&found) && found.mode() & bit != 0)
    };
    let Ok(path) = canonicalize(path) else {
        return false;
    };
    let mut above = path.ancestors().skip(1);
    may(&path, Metadata::is_file, OTHERS_READ)
        && above.all(|dir| may(dir, Metadata::is_dir, OTHERS_ENTER))
}

/// What is said of it.
pub fn warning(path: &Path) -> Warning {
    let path = path.display();
    let text = format!("there are secrets in {path}, which everybody can read: `chmod 600 {path}`");
    Warning::new("exposed", text)
}
