//! Which snapshots the blobs that were found belong to, and what becomes of those that belong to none.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;

use super::found::Found;
use super::{RebuildReport, RebuildRequest, RebuiltSnapshot};
use crate::activity::Activity;
use crate::catalog::{BlobState, Entries, Named, NewBlob, Salvage, State, Totals, Txn};
use crate::format::artifact::Manifest;
use crate::format::document::paged::{AnyDocument, PackEntry, PagedDocument};
use crate::format::document::{Content, Document, FileEntry};
use crate::fs::own_ids;
use crate::remote::Remote;
use crate::store::{now, pack_key};
use crate::words::digest::Checksum;
use crate::words::entry::{Attributes, Mtime};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::extent::ExtentMap;
use crate::words::form::Form;
use crate::words::progress::WarningKind;
use crate::words::reference::Reference;
use crate::words::relpath::RelPath;
use crate::words::total::total;

/// The name of what has none.
const LOST_AND_FOUND: &str = "lost-and-found";

/// Blobs in one such snapshot: well below what a document can hold.
const MOST: usize = 256 << 10;

/// The snapshots that are known.
pub(super) struct Naming {
    named: Vec<(Named, bool)>,
    /// In the catalog already.
    taken: HashSet<Reference>,
    incomplete: Vec<Reference>,
}

impl Naming {
    /// Gathers them: those of the damaged catalog as they are, those of the registry whose contents are all here.
    pub(super) fn new(
        found: &Found,
        salvage: Salvage,
        taken: HashSet<Reference>,
        remote: Option<&Remote>,
        request: &RebuildRequest,
        activity: &Activity,
    ) -> Result<Self> {
        let mut naming = Self {
            named: salvage
                .snapshots
                .into_iter()
                .map(|named| (named, false))
                .collect(),
            taken,
            incomplete: Vec::new(),
        };
        if let Some(remote) = remote {
            for reference in listed(remote, request, activity)? {
                naming.ask(found, remote, &reference, activity)?;
            }
        }
        Ok(naming)
    }

    fn ask(
        &mut self,
        found: &Found,
        remote: &Remote,
        reference: &Reference,
        activity: &Activity,
    ) -> Result<()> {
        let known = |(named, _): &(Named, bool)| named.reference == *reference;
        let is_known = self.taken.contains(reference) || self.named.iter().any(known);
        if reference.version().is_none() || is_known {
            return Ok(());
        }
        let (manifest, document, entries) = match remote.description(reference, activity) {
            Ok(described) => described,
            // Something else that the registry has.
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => {
                let text = format!("{reference} could not be looked up: {error}");
                activity.warn(WarningKind::Unrepaired, None, text);
                return Ok(());
            }
        };
        let (here, all) = match &entries {
            AnyDocument::V1(document) => {
                let is_here = |file: &&FileEntry| found.of(file).is_some();
                let here = document.files.iter().filter(is_here);
                (here.count(), document.files.len())
            }
            AnyDocument::V2(document) => {
                let is_here = |pack: &&PackEntry| found.packs.contains_key(&pack_key(pack.id));
                let here = document.packs.iter().filter(is_here);
                (here.count(), document.packs.len())
            }
        };
        if here == all {
            let named = Named {
                reference: Reference::new(
                    reference.name(),
                    reference.version().unwrap_or_default(),
                )
                .map_err(|error| Error::invalid(error.to_string()))?,
                state: State::Fetched,
                seen: vec![remote.publication(reference, &manifest, now())?],
                pinned: false,
                created_at: now(),
                last_accessed_at: now(),
                manifest,
                document,
                entries: match entries {
                    AnyDocument::V1(document) => Entries::V1(document),
                    // How many bytes of data those are its map would say.
                    AnyDocument::V2(document) => {
                        let data = Totals::of(&document.entries, |file| file.size).data_bytes;
                        Entries::V2(document, data)
                    }
                },
            };
            self.named.push((named, true));
        } else if here > 0 {
            self.incomplete.push(reference.clone());
        }
        Ok(())
    }

    /// Writes all rows: every blob and pack, every snapshot, and one of what none of these needs.
    /// `is_there` tells whether there is a file of this name.
    pub(super) fn write(
        &self,
        txn: &Txn<'_>,
        found: &Found,
        is_there: &dyn Fn(&OsStr) -> Result<bool>,
    ) -> Result<RebuildReport> {
        let mut report = RebuildReport {
            incomplete: self.incomplete.clone(),
            ..RebuildReport::default()
        };
        let mut needed = BTreeSet::new();
        for (checksum, blob) in &found.blobs {
            let row = blob.read.row(blob.shard, None);
            match txn.blob(checksum)? {
                None => txn.insert_blob(&row)?,
                Some(lost) if !is_there(&lost.name())? => {
                    txn.move_blob(&lost, &row)?;
                    needed.insert(*checksum);
                }
                Some(_) => {}
            }
        }
        for (key, (read, shard)) in &found.packs {
            match txn.pack(key)? {
                None => txn.put_pack(&read.row(*key, *shard, None))?,
                Some(lost) if !is_there(&lost.name())? => {
                    txn.put_pack(&read.row(*key, *shard, None))?;
                    needed.insert(*key);
                }
                Some(_) => _ = needed.insert(*key),
            }
        }
        for (named, from_registry) in &self.named {
            let missing_blobs = write_snapshot(txn, found, &mut needed, named)?;
            report.snapshots.push(RebuiltSnapshot {
                reference: named.reference.clone(),
                from_registry: *from_registry,
                missing_blobs,
            });
        }
        self.write_unnamed(txn, found, &needed, &mut report)?;
        Ok(report)
    }

    /// Keeps what no snapshot needs in one that is made for it. Packs are referenced by it, and have no files in it.
    fn write_unnamed(
        &self,
        txn: &Txn<'_>,
        found: &Found,
        needed: &BTreeSet<Checksum>,
        report: &mut RebuildReport,
    ) -> Result<()> {
        let is_unnamed = |key: &&Checksum| !needed.contains(*key);
        let blobs: Vec<&Checksum> = found.blobs.keys().filter(is_unnamed).collect();
        let packs: Vec<&Checksum> = found.packs.keys().filter(is_unnamed).collect();
        report.unnamed_blobs = blobs.len() as u64;
        report.unnamed_packs = packs.len() as u64;
        let mut chunks: Vec<&[&Checksum]> = blobs.chunks(MOST).collect();
        if chunks.is_empty() && !packs.is_empty() {
            chunks.push(&[]);
        }
        for (number, blobs) in chunks.into_iter().enumerate() {
            let (named, document) = self.lost_and_found(txn, found, blobs, number)?;
            let id = txn.insert_named(&named, totals(found, &document))?;
            for key in blobs {
                txn.reference_object(id, key)?;
            }
            // They are not too many for the first one.
            for key in packs.iter().filter(|_| number == 0) {
                txn.reference_object(id, key)?;
            }
            let data = |file: &FileEntry| found.of(file).map_or(0, |(_, data)| data);
            let files = document.files.iter().map(data);
            report.unnamed_bytes = total(files.chain([report.unnamed_bytes]));
            report.lost_and_found.push(named.reference);
        }
        let lengths = packs.iter().filter_map(|key| found.packs.get(*key));
        let lengths = lengths.map(|(read, _)| read.length);
        report.unnamed_bytes = total(lengths.chain([report.unnamed_bytes]));
        Ok(())
    }

    /// A snapshot with one file a blob.
    fn lost_and_found(
        &self,
        txn: &Txn<'_>,
        found: &Found,
        blobs: &[&Checksum],
        number: usize,
    ) -> Result<(Named, Document)> {
        let internal =
            |error: &dyn std::error::Error| Error::new(ErrorKind::Internal, error.to_string());
        let (uid, gid) = own_ids();
        let mut entries = Document::default();
        for checksum in blobs {
            let Some(blob) = found.blobs.get(checksum) else {
                continue;
            };
            entries.files.push(FileEntry {
                path: RelPath::from_bytes(checksum.hex()).map_err(|error| internal(&error))?,
                content: Content::V1 {
                    digest: blob.read.hashes.digest,
                    checksum: Some(**checksum),
                },
                read_only: false,
                size: blob.read.map.size(),
                attributes: Attributes {
                    mode: 0o600,
                    uid,
                    gid,
                    mtime: blob.read.mtime.unwrap_or_default(),
                    xattrs: BTreeMap::new(),
                },
                hardlink_of: None,
            });
        }
        let document = entries.encode().map_err(|error| internal(&error))?;
        let manifest = Manifest::build(&document, &[], &BTreeMap::new());
        let named = Named {
            reference: self.free_reference(txn, number)?,
            state: State::Taken,
            seen: Vec::new(),
            pinned: false,
            created_at: now(),
            last_accessed_at: now(),
            manifest: manifest.map_err(|error| internal(&error))?,
            document,
            entries: Entries::V1(entries.clone()),
        };
        Ok((named, entries))
    }

    /// `lost-and-found`, with the time as its version; an older one may have been found again.
    fn free_reference(&self, txn: &Txn<'_>, number: usize) -> Result<Reference> {
        let seconds = now() / 1_000_000_000;
        let mut number = i64::try_from(number).unwrap_or_default();
        loop {
            let time = Mtime {
                seconds: seconds + number,
                nanoseconds: 0,
            };
            let text = time
                .to_rfc3339()
                .map_err(|error| Error::invalid(error.to_string()))?;
            let version = text.trim_end_matches('Z').replace(':', "-");
            let reference = Reference::new(LOST_AND_FOUND, version)
                .map_err(|error| Error::invalid(error.to_string()))?;
            let named = |(named, _): &(Named, bool)| named.reference == reference;
            if !self.named.iter().any(named) && txn.find(&reference)?.is_none() {
                return Ok(reference);
            }
            number += 1;
        }
    }
}

fn listed(
    remote: &Remote,
    request: &RebuildRequest,
    activity: &Activity,
) -> Result<Vec<Reference>> {
    if !request.references.is_empty() {
        return Ok(request.references.clone());
    }
    match remote.list(None, activity) {
        Ok(listed) => Ok(listed.into_iter().map(|one| one.reference).collect()),
        Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
        Err(error) => {
            let text = format!(
                "the registry's snapshots could not be listed, so none was looked up: {error}"
            );
            activity.warn(WarningKind::Unrepaired, None, text);
            Ok(Vec::new())
        }
    }
}

/// Writes a snapshot and its references, with rows marked missing for what is not here. Says how many blobs that is.
fn write_snapshot(
    txn: &Txn<'_>,
    found: &Found,
    needed: &mut BTreeSet<Checksum>,
    named: &Named,
) -> Result<u64> {
    let document = match &named.entries {
        Entries::V1(document) => document,
        Entries::V2(document, data) => {
            return write_paged(txn, found, needed, named, (document, *data));
        }
    };
    let id = txn.insert_named(named, totals(found, document))?;
    let mut missing = BTreeSet::new();
    for file in &document.files {
        if let Some((checksum, _)) = found.of(file) {
            needed.insert(checksum);
            txn.reference_object(id, &checksum)?;
            continue;
        }
        missing.insert((file.content.digest(), file.content.checksum()));
        // Without a checksum there is nothing to call it by: it is found missing by the document.
        if let Some(checksum) = file.content.checksum() {
            if txn.blob(&checksum)?.is_none() {
                insert_missing(txn, file, checksum)?;
            }
            txn.reference_object(id, &checksum)?;
        }
    }
    Ok(missing.len() as u64)
}

/// The same for one of format v2, whose packs are all or nothing.
fn write_paged(
    txn: &Txn<'_>,
    found: &Found,
    needed: &mut BTreeSet<Checksum>,
    named: &Named,
    (document, data_bytes): (&PagedDocument, u64),
) -> Result<u64> {
    let totals = Totals {
        data_bytes,
        ..Totals::of(&document.entries, |_| 0)
    };
    let id = txn.insert_named(named, totals)?;
    let mut missing = 0;
    for pack in &document.packs {
        let key = pack_key(pack.id);
        needed.insert(key);
        if !found.packs.contains_key(&key) {
            missing += 1;
            if txn.pack(&key)?.is_none() {
                txn.put_missing_pack(&key, txn.shard_of_new()?, now())?;
            }
        }
        txn.reference_object(id, &key)?;
    }
    Ok(missing)
}

/// Its map is not known; what brings the bytes brings it.
fn insert_missing(txn: &Txn<'_>, file: &FileEntry, checksum: Checksum) -> Result<()> {
    let map = ExtentMap::hole(file.size).map_err(|error| Error::damaged(error.to_string()))?;
    txn.insert_blob(&NewBlob {
        checksum,
        digest: file.content.digest(),
        form: Form::Plain,
        shard: txn.shard_of_new()?,
        map: &map,
        mtime: None,
        inode: None,
        unsynced: None,
        probe: None,
        now: now(),
    })?;
    txn.mark_object(&checksum, Form::Plain, BlobState::Missing)
}

fn totals(found: &Found, document: &Document) -> Totals {
    Totals::of(document, |file| found.of(file).map_or(0, |(_, data)| data))
}
