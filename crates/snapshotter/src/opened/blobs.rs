//! Files of format v1. A blob has one checksum of all of its bytes, so all are hashed before the first is handed out, and once: who
//! opens it later finds the same inode, unchanged. A packed blob, and a plain one that somebody has open for writing, become
//! a file that has no name and nobody else can reach, verified in the pass that makes it.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex};

use crate::activity::Activity;
use crate::catalog::Blob;
use crate::fs::Stat;
use crate::fs::place::{Writers, writers};
use crate::lock::lock;
use crate::pass::Output;
use crate::store::{OpenBlob, Store, Told};
use crate::words::digest::Checksum;
use crate::words::error::{At, Error, Result};
use crate::words::form::Form;

/// Files of at least so many bytes are checked against the free space before they are written.
const LARGE: u64 = 1 << 20;

/// What was verified of the blobs of an open snapshot.
#[derive(Debug, Default)]
pub(super) struct Blobs(Mutex<HashMap<Checksum, Arc<Mutex<Option<Known>>>>>);

#[derive(Debug)]
enum Known {
    /// The blob's own file, as it was then.
    Plain(Stat),
    Copy(File),
}

/// A file with a blob's bytes, all of them verified.
#[derive(Debug)]
pub(crate) enum Verified {
    /// The blob's own.
    Plain(Box<Blob>, OpenBlob),
    /// One that goes when it is closed.
    Copy(File),
}

impl Verified {
    pub(super) fn file(&self) -> &File {
        match self {
            Self::Plain(_, opened) => &opened.file,
            Self::Copy(file) => file,
        }
    }
}

impl Blobs {
    /// Opens a blob of a snapshot. Who asks for one that is being verified waits for that.
    pub(super) fn open(
        &self,
        store: &Store,
        snapshot: i64,
        checksum: &Checksum,
        activity: &Activity,
    ) -> Result<Verified> {
        let one = Arc::clone(lock(&self.0).entry(*checksum).or_default());
        let mut known = lock(&one);
        let copy = |file: &File| file.try_clone().at("open", store.root.staging.path());
        let opened = match &*known {
            Some(Known::Copy(file)) => return copy(file).map(Verified::Copy),
            Some(Known::Plain(was)) => {
                let blob = blob_of(store, snapshot, checksum)?;
                let opened = store.open_good(&blob, activity)?;
                if opened.stat == *was && is_ours(&opened) {
                    return Ok(Verified::Plain(Box::new(blob), opened));
                }
                verify(store, blob, opened, activity)?
            }
            None => verified(store, snapshot, checksum, activity)?,
        };
        *known = Some(match &opened {
            Verified::Plain(_, opened) => Known::Plain(opened.stat),
            Verified::Copy(file) => Known::Copy(copy(file)?),
        });
        Ok(opened)
    }
}

/// A blob that a snapshot needs.
pub(super) fn blob_of(store: &Store, snapshot: i64, checksum: &Checksum) -> Result<Blob> {
    let blob = store
        .catalog
        .read(|txn| txn.blob_of_snapshot(snapshot, checksum))?;
    blob.ok_or_else(|| Error::damaged("the snapshot's document and its blobs disagree"))
}

/// Whether its bytes are those of the blob, and nobody has it open for writing.
fn is_ours(opened: &OpenBlob) -> bool {
    opened.form == Form::Plain && writers(&opened.file) == Writers::None
}

/// Opens a blob of a snapshot and reads all of it.
pub(crate) fn verified(
    store: &Store,
    snapshot: i64,
    checksum: &Checksum,
    activity: &Activity,
) -> Result<Verified> {
    let blob = blob_of(store, snapshot, checksum)?;
    let opened = store.open_good(&blob, activity)?;
    verify(store, blob, opened, activity)
}

fn verify(store: &Store, blob: Blob, opened: OpenBlob, activity: &Activity) -> Result<Verified> {
    if !is_ours(&opened) {
        return copy(store, &blob, &opened, activity).map(Verified::Copy);
    }
    let map = store.extents(&blob)?;
    if store.is_right(&blob, &map, &opened, activity)? {
        return Ok(Verified::Plain(Box::new(blob), opened));
    }
    Err(store.found_damaged(&blob, &opened, None)?)
}

/// Whoever reads the copy tells of its bytes.
fn copy(store: &Store, blob: &Blob, opened: &OpenBlob, activity: &Activity) -> Result<File> {
    let file = store.scratch()?;
    let _claim = (blob.data_size >= LARGE)
        .then(|| store.claim_space(blob.data_size, &file))
        .transpose()?;
    let output = Output::File {
        file: &file,
        sync_soon: false,
    };
    store.copy_verified(blob, opened, output, activity, Told::Later)?;
    Ok(file)
}
