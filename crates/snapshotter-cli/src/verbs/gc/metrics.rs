//! `--metrics-file`: what all who used the root have done, and in what state it is, for node_exporter's textfile collector.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use snapshotter::Snapshotter;

use crate::failure::{Failure, Result};

/// Writes them.
pub async fn write(store: &Snapshotter, path: &Path) -> Result<()> {
    let text = (store.total_metrics().await?).to_prometheus(&store.usage().await?);
    replace(path, text.as_bytes()).map_err(|error| Failure::io("write", path, &error))
}

/// A reader sees the old text or the new one, whole. Whoever scrapes it may be another user.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(parent.unwrap_or(Path::new(".")))?;
    file.write_all(text)?;
    file.as_file()
        .set_permissions(Permissions::from_mode(0o644))?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
