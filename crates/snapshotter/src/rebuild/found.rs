//! The files under `storage/`, read for what they are.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::activity::Activity;
use crate::catalog::{
    Blob, Salvage, Shard, StoredName, Tree, Txn, content_name, parse_content_name, parse_view_name,
};
use crate::format::document::FileEntry;
use crate::fs::Dir;
use crate::limit::Limit;
use crate::store::layout::{Root, in_shard};
use crate::store::{ReadBlob, ReadPack, read_blob, read_pack_file};
use crate::words::digest::{Checksum, Digest};
use crate::words::error::{At, Result};
use crate::words::form::{Form, ObjectKind};
use crate::words::total::total;

/// A file with the bytes its name says.
#[derive(Debug)]
pub(super) struct FoundBlob {
    pub(super) read: ReadBlob,
    /// The directory its name is in, or is to be in.
    pub(super) shard: Shard,
    /// The view it was found as, where the blob's own file is gone or bad.
    view: Option<OsString>,
}

/// What is under `storage/`.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) blobs: BTreeMap<Checksum, FoundBlob>,
    /// Those that have their rows already, and were not read.
    known: BTreeMap<Checksum, Known>,
    by_digest: HashMap<(Digest, u64), Checksum>,
    /// Packs that are whole, by their ids, and the directories their names are in.
    pub(super) packs: BTreeMap<Checksum, (ReadPack, Shard)>,
    /// Names of the content directory that are neither blobs nor packs.
    wrong: Vec<OsString>,
}

/// What is known of a blob: its digest, its size, and the bytes of data in it.
type Known = (Digest, u64, u64);

impl FoundBlob {
    fn known(&self) -> Known {
        let map = &self.read.map;
        (self.read.hashes.digest, map.size(), map.data_size())
    }
}

/// Reads everything. Changes nothing.
pub(super) fn read_all(
    root: &Root,
    limit: &Limit,
    salvage: &Salvage,
    activity: &Activity,
) -> Result<Found> {
    let of_tree = |tree| {
        let names = root.names(tree)?;
        Ok(names.into_iter().map(move |name| StoredName { tree, name }))
    };
    let names: Vec<StoredName> = of_tree(Tree::Content)?
        .chain(of_tree(Tree::Views)?)
        .collect();
    read(root, &names, &[], limit, salvage, activity)
}

/// Reads what has these names, beside blobs that have their rows. Changes nothing.
pub(super) fn read(
    root: &Root,
    names: &[StoredName],
    known: &[Blob],
    limit: &Limit,
    salvage: &Salvage,
    activity: &Activity,
) -> Result<Found> {
    let row = |blob: &Blob| (blob.checksum, (blob.digest, blob.size, blob.data_size));
    let reading = Reading {
        root,
        salvage,
        activity,
        found: Mutex::new(Found {
            known: known.iter().map(row).collect(),
            ..Found::default()
        }),
    };
    let (content, views): (Vec<_>, Vec<_>) =
        names.iter().partition(|name| name.tree == Tree::Content);
    limit.for_each(activity, content.len(), |index| {
        reading.name(&root.content, &content[index].name, None)
    })?;
    limit.for_each(activity, views.len(), |index| {
        let name = &views[index].name;
        match parse_view_name(name) {
            Some((checksum, _, shard)) if !reading.has(&checksum) => {
                reading.name(&root.views, name, Some((checksum, shard)))
            }
            _ => Ok(()),
        }
    })?;
    let mut found = reading
        .found
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let read = found.blobs.iter().map(|(key, blob)| (*key, blob.known()));
    let all = read.chain(found.known.iter().map(|(key, known)| (*key, *known)));
    found.by_digest = all
        .map(|(checksum, (digest, size, _))| ((digest, size), checksum))
        .collect();
    Ok(found)
}

struct Reading<'a> {
    root: &'a Root,
    salvage: &'a Salvage,
    activity: &'a Activity,
    found: Mutex<Found>,
}

impl Reading<'_> {
    fn found(&self) -> std::sync::MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, checksum: &Checksum) -> bool {
        let found = self.found();
        found.blobs.contains_key(checksum) || found.known.contains_key(checksum)
    }

    /// Reads a blob's file, or the view of the blob with this checksum.
    fn name(&self, dir: &Dir, name: &OsString, view_of: Option<(Checksum, Shard)>) -> Result<()> {
        self.activity.check()?;
        let stands_for = match view_of {
            Some((checksum, shard)) => Some((checksum, Form::Plain, shard)),
            None => match parse_content_name(name) {
                Some((key, ObjectKind::Pack, shard)) => return self.pack(name, key, shard),
                Some((checksum, ObjectKind::Blob(form), shard)) => Some((checksum, form, shard)),
                None => None,
            },
        };
        let read = match &stands_for {
            Some((checksum, form, _)) => {
                let known = self.salvage.maps.get(checksum).cloned();
                read_blob(dir, name, *form, checksum, known, self.activity)?
            }
            None => None,
        };
        let mut found = self.found();
        match (stands_for, read) {
            (Some((checksum, _, shard)), Some(read)) => {
                self.activity.advance(read.map.data_size()).ok();
                let view = view_of.map(|_| name.clone());
                found.add(checksum, FoundBlob { read, shard, view });
            }
            _ if view_of.is_none() => found.wrong.push(name.clone()),
            // A view is a cache: the next sweep takes it.
            _ => {}
        }
        Ok(())
    }
}

impl Reading<'_> {
    fn pack(&self, name: &OsString, key: Checksum, shard: Shard) -> Result<()> {
        let dir = &self.root.content;
        let read = read_pack_file(dir, name, &key, self.activity)?;
        let mut found = self.found();
        match read {
            Some(read) => _ = found.packs.entry(key).or_insert((read, shard)),
            None => found.wrong.push(name.clone()),
        }
        Ok(())
    }
}

impl Found {
    /// Where a crash left both forms, the plain file is the blob, as it is after the change of a form; the other is litter.
    fn add(&mut self, checksum: Checksum, blob: FoundBlob) {
        if blob.read.form == Form::Plain || !self.blobs.contains_key(&checksum) {
            self.blobs.insert(checksum, blob);
        }
    }

    /// Leaves alone what has its row by now. The caller holds the names lock.
    pub(super) fn spare_known(&mut self, txn: &Txn<'_>) -> Result<()> {
        for name in std::mem::take(&mut self.wrong) {
            if !txn.has_row(&StoredName::content(name.clone()))? {
                self.wrong.push(name);
            }
        }
        Ok(())
    }

    pub(super) fn data_bytes(&self) -> u64 {
        let blobs = self.blobs.values();
        let packs = self.packs.values().map(|(read, _)| read.length);
        total(blobs.map(|blob| blob.read.map.data_size()).chain(packs))
    }

    /// The blob with a file's bytes, and the bytes of data in it.
    pub(super) fn of(&self, file: &FileEntry) -> Option<(Checksum, u64)> {
        let digest = file.content.digest();
        let checksum = file
            .content
            .checksum()
            .or_else(|| self.by_digest.get(&(digest, file.size)).copied())?;
        let read = self.blobs.get(&checksum).map(FoundBlob::known);
        let (same, size, data) = read.or_else(|| self.known.get(&checksum).copied())?;
        (same == digest && size == file.size).then_some((checksum, data))
    }

    /// Moves what is no blob aside and gives views that are now the only copy the blob's name. The caller holds the names
    /// lock. Says where what was moved is.
    pub(super) fn settle(&self, root: &Root) -> Result<Vec<PathBuf>> {
        let aside = self
            .wrong
            .iter()
            .map(|name| root.set_aside(&root.content, name));
        let aside = aside.collect::<Result<_>>()?;
        for (checksum, blob) in &self.blobs {
            if let Some(view) = &blob.view {
                let name = content_name(checksum, Form::Plain, blob.shard);
                in_shard(&root.content, &name, || {
                    root.views.rename(view, &root.content, &name)
                })
                .at("store", root.content.path_of(&name))?;
            }
        }
        Ok(aside)
    }
}
