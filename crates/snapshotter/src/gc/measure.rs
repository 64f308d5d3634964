//! What there is to choose from: one consistent look at the catalog, and what the filesystem says of each blob's files.
//!
//! A file comes free only when its last name goes. One that the caller's own file or a restored one is hardlinked to
//! brings nothing, however large it is, so names outside the store are looked for by counting: an inode with more links
//! than the store has names for it stays.

use std::collections::HashMap;

use super::choose::{Amount, Candidate, Measured, Weight};
use crate::catalog::{PublicationRow, Snapshot, StoredBlob, content_name, view_name};
use crate::fs::dir::Kind;
use crate::fs::{Dir, Stat};
use crate::remote::Remote;
use crate::store::Store;
use crate::words::digest::Checksum;
use crate::words::error::{At, Result};
use crate::words::total::total;

/// A look at the store.
pub(super) struct Survey {
    pub(super) measured: Measured,
    /// The visible ones, in the order of their names.
    pub(super) snapshots: Vec<Snapshot>,
    /// Where they are besides here, as far as is known, by their ids.
    pub(super) publications: HashMap<i64, Vec<PublicationRow>>,
    /// Bytes of data in all blobs.
    pub(super) stored_bytes: u64,
    /// How many blobs each visible snapshot alone needs, and their bytes, by its id.
    pub(super) exclusive: HashMap<i64, Exclusive>,
}

/// What one snapshot alone needs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Exclusive {
    pub(super) blobs: u64,
    pub(super) bytes: u64,
}

/// What the filesystem would get back for each blob: looked at once in a collection, because that is a call a file.
#[derive(Default)]
pub(super) struct Files(HashMap<Checksum, Here>);

/// What has no name outside the store.
#[derive(Clone, Copy, Default)]
struct Here {
    bytes: u64,
    inodes: u64,
}

/// Everything the catalog says, at one moment.
struct Rows {
    snapshots: Vec<Snapshot>,
    leased: Vec<i64>,
    references: Vec<(i64, Checksum)>,
    blobs: Vec<StoredBlob>,
    publications: HashMap<i64, Vec<PublicationRow>>,
}

/// Looks. What was used after `now`, by a clock that was ahead, counts as used now.
pub(super) fn survey(
    store: &Store,
    remote: Option<&Remote>,
    files: &mut Files,
    now: i64,
) -> Result<Survey> {
    let rows = store.catalog.read(|txn| {
        Ok(Rows {
            snapshots: txn.snapshots()?,
            leased: txn.leased_snapshots()?,
            references: txn.all_references()?,
            blobs: txn.stored_blobs()?,
            publications: txn.publications()?,
        })
    })?;
    let mut blobs = HashMap::with_capacity(rows.blobs.len());
    for blob in &rows.blobs {
        let here = files.frees(store, blob)?;
        let frees = Amount {
            disk: here.bytes,
            stored: blob.data_size,
            inodes: here.inodes,
        };
        let weight = Weight {
            frees,
            needed_by: 0,
        };
        blobs.insert(blob.checksum, weight);
    }
    let mut needs: HashMap<i64, Vec<Checksum>> = HashMap::new();
    for (snapshot, blob) in &rows.references {
        needs.entry(*snapshot).or_default().push(*blob);
        if let Some(weight) = blobs.get_mut(blob) {
            weight.needed_by += 1;
        }
    }
    let is_elsewhere = |snapshot: &Snapshot| {
        let known = rows.publications.get(&snapshot.id)?;
        remote?.said(&snapshot.reference, known)
    };
    let snapshots = rows.snapshots.iter().map(|snapshot| Candidate {
        id: snapshot.id,
        last_accessed_at: snapshot.last_accessed_at.min(now),
        pinned: snapshot.pinned,
        leased: rows.leased.contains(&snapshot.id),
        only_copy: is_elsewhere(snapshot).is_none(),
        blobs: needs.remove(&snapshot.id).unwrap_or_default(),
    });
    let measured = Measured {
        snapshots: snapshots.collect(),
        blobs,
    };
    Ok(Survey {
        exclusive: exclusive(&measured),
        stored_bytes: total(rows.blobs.iter().map(|blob| blob.data_size)),
        snapshots: rows.snapshots,
        publications: rows.publications,
        measured,
    })
}

fn exclusive(measured: &Measured) -> HashMap<i64, Exclusive> {
    let of = |snapshot: &Candidate| {
        let weights = snapshot
            .blobs
            .iter()
            .filter_map(|blob| measured.blobs.get(blob));
        let own = weights.filter(|weight| weight.needed_by == 1);
        own.fold(Exclusive::default(), |sum, weight| Exclusive {
            blobs: sum.blobs + 1,
            bytes: sum.bytes.saturating_add(weight.frees.stored),
        })
    };
    let snapshots = measured.snapshots.iter();
    snapshots.map(|one| (one.id, of(one))).collect()
}

impl Files {
    fn frees(&mut self, store: &Store, blob: &StoredBlob) -> Result<Here> {
        if let Some(known) = self.0.get(&blob.checksum) {
            return Ok(*known);
        }
        let frees = allocated_here_alone(store, blob)?;
        self.0.insert(blob.checksum, frees);
        Ok(frees)
    }
}

/// Those inodes of a blob that have no name outside the store, and their bytes.
fn allocated_here_alone(store: &Store, blob: &StoredBlob) -> Result<Here> {
    let root = &store.root;
    let mut inodes: HashMap<(u64, u64), (Stat, u64)> = HashMap::new();
    let mut look = |dir: &Dir, name: &std::ffi::OsStr| -> Result<()> {
        let found = dir.stat_if_any(name).at("examine", dir.path_of(name))?;
        if let Some(stat) = found.filter(|stat| stat.kind == Kind::File) {
            inodes.entry(stat.identity()).or_insert((stat, 0)).1 += 1;
        }
        Ok(())
    };
    let name = content_name(&blob.checksum, blob.kind, blob.shard);
    look(&root.content, &name)?;
    let views = store
        .catalog
        .read(|txn| txn.views_of_blob(&blob.checksum))?;
    for attributes in views {
        look(
            &root.views,
            &view_name(&blob.checksum, &attributes, blob.shard),
        )?;
    }
    let own = inodes.values().filter(|(stat, names)| stat.nlink <= *names);
    Ok(own.fold(Here::default(), |sum, (stat, _)| Here {
        bytes: sum.bytes.saturating_add(stat.allocated),
        inodes: sum.inodes + 1,
    }))
}
