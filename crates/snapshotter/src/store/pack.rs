//! For tests alone: makes the blobs of a stored snapshot packed, the way a daemon's delivery does.
//!
//! There is no other way to a packed blob without a daemon. What is skipped is the network: the streams are written to a
//! directory that stands for the daemon's cache, and hardlinked, read and committed by the calls a fetch makes.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Ingested, Store};
use crate::activity::Activity;
use crate::catalog::{Blob, Sync};
use crate::metrics::Operation as Verb;
use crate::pass::piece::{Piece, fill};
use crate::pass::source::Source;
use crate::pass::{Output, PIECE};
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::form::Form;
use crate::words::reference::Reference;

/// Delivers every plain blob of a snapshot packed, from files in `cache`, which are named by checksum. Nobody else may
/// use the root meanwhile.
///
/// # Errors
/// Those of the store; `Internal` when something was not stored as it should have been.
pub fn pack(root: &Path, cache: &Path, reference: &Reference) -> Result<()> {
    let store = Arc::new(Store::open(root, None, Duration::from_secs(30))?);
    let operation = store.begin(Verb::Snapshot)?;
    let (snapshot, blobs) = store.catalog.write(Sync::Normal, |txn| {
        let snapshot = txn.resolve(reference)?.id;
        operation.lease(txn, snapshot)?;
        Ok((snapshot, txn.blobs_of_snapshot(snapshot)?))
    })?;
    for blob in blobs.iter().filter(|blob| blob.form == Form::Plain) {
        let delivered = cache.join(blob.checksum.hex());
        write_stream(&store, blob, &delivered)?;
        let plain = store.content_path(blob, Form::Plain);
        fs::remove_file(&plain).at("remove", plain)?;
        deliver(&store, snapshot, blob, &delivered)?;
    }
    drop(operation);
    store.close()
}

fn write_stream(store: &Store, blob: &Blob, to: &Path) -> Result<()> {
    let activity = Activity::new(Arc::default(), None);
    let opened = store.open_good(blob, &activity)?;
    let map = store.extents(blob)?;
    let mut source = Source::new(&map);
    let mut piece = Piece::within(vec![0; PIECE]);
    let mut file = fs::File::create_new(to).at("create", to)?;
    loop {
        fill(&mut source, &opened.file, &mut piece).at("read", to)?;
        if piece.bytes().is_empty() {
            break;
        }
        file.write_all(piece.bytes()).at("write", to)?;
    }
    // A cache's files are not written the moment before they are delivered.
    file.set_modified(SystemTime::now() - Duration::from_secs(60))
        .at("date", to)
}

fn deliver(store: &Store, snapshot: i64, blob: &Blob, cached: &Path) -> Result<()> {
    let delivery = store.reserve_delivery()?;
    fs::hard_link(cached, delivery.path()).at("link", delivery.path())?;
    let delivered = delivery.read(blob.size, Output::None, &|_| Ok(()))?;
    let right = delivered.hashes.checksum == blob.checksum;
    let committed = store.commit(snapshot, &mut [delivery.into_ingest(delivered)])?;
    if right && matches!(committed[..], [Ingested::Stored]) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Internal,
        format!("{} was not stored packed", blob.digest),
    ))
}
