//! Writes a small store and the trees it was made of, for `testdata/stores`: `scripts/lib/keep-store` calls it once a
//! release and once a change of the catalog's schema, and `releases.rs` reads all of them for ever.

use std::path::{Path, PathBuf};

use snapshotter::{
    Config, Error, File, Format, LinkMode, ParentChoice, SnapshotRequest, Snapshotter,
};
use testkit::{Content, Tree};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir: PathBuf = std::env::args_os().nth(1).ok_or("which directory?")?.into();
    checkpoint().write_to(&dir.join("trees/vm-v1"))?;
    other().write_to(&dir.join("trees/vm-v2"))?;
    machine(1).write_to(&dir.join("trees/pages-v1"))?;
    machine(2).write_to(&dir.join("trees/pages-v2"))?;
    tokio::runtime::Builder::new_current_thread()
        .build()?
        .block_on(write(&dir))?;
    Ok(())
}

async fn write(dir: &Path) -> Result<(), Error> {
    let store = Snapshotter::open(Config::new(dir.join("root"))).await?;
    for version in ["v1", "v2"] {
        let tree = dir.join(format!("trees/vm-{version}"));
        let request = SnapshotRequest::new("vm", version, tree)
            .file(File::new("."))
            .file(File::new("ro").read_only(true))
            .annotation("kernel", "6.18")
            .link_mode(LinkMode::Copy);
        store.snapshot(&request).await?;
    }
    // In pages, the second from the first.
    for version in ["v1", "v2"] {
        let tree = dir.join(format!("trees/pages-{version}"));
        let request = SnapshotRequest::new("pages", version, tree)
            .file(File::new("."))
            .file(File::new("ro").read_only(true))
            .format(Format::V2)
            .parent(ParentChoice::Latest);
        store.snapshot(&request).await?;
    }
    let reference = "vm:v2".parse().map_err(|_| ()).expect("a reference");
    store.pin(&reference).await?;
    store.close().await
}

/// Holes, a second name, a symlink, an empty directory, modes, times.
fn checkpoint() -> Tree {
    let memory = Content::Sparse {
        size: 1 << 20,
        extents: vec![(4096, 1, 8192), (512 << 10, 2, 4096)],
    };
    Tree::new()
        .file("ro/memory", memory)
        .mode("ro/memory", 0o640)
        .mtime("ro/memory", 1_700_000_000, 123_456_789)
        .file("ro/state", Content::Random { seed: 3, len: 5000 })
        .hardlink("ro/state-again", "ro/state")
        .mtime("ro/state", 1_700_000_001, 1)
        .file("disk", Content::Random { seed: 4, len: 900 })
        .mode("disk", 0o600)
        .mtime("disk", 1_700_000_002, 2)
        .dir("empty")
        .symlink("latest", "ro/state")
}

/// Shares bytes with the other, not attributes.
fn other() -> Tree {
    Tree::new()
        .file("ro/state", Content::Random { seed: 3, len: 5000 })
        .mode("ro/state", 0o400)
        .mtime("ro/state", 1_600_000_000, 1)
        .file("own", Content::Random { seed: 9, len: 700 })
        .mtime("own", 1_600_000_000, 2)
}

/// A memory with holes, of which a run of pages is another one in each version, and a small file with a second name.
fn machine(version: u64) -> Tree {
    let memory = Content::Sparse {
        size: 210_000,
        extents: vec![
            (0, 1, 8192),
            (131_072, 10 + version, 8192),
            (200_704, 2, 5000),
        ],
    };
    Tree::new()
        .file("memory", memory)
        .mode("memory", 0o600)
        .mtime("memory", 1_700_000_000, 123_456_789)
        .file(
            "ro/state",
            Content::Random {
                seed: 20 + version,
                len: 5000,
            },
        )
        .hardlink("ro/state-again", "ro/state")
        .mtime("ro/state", 1_700_000_001, 1)
        .symlink("latest", "ro/state")
}
