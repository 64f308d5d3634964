//! One more name for a snapshot that is here. No byte of its files moves; the new name is as durable as any.

use std::sync::Arc;

use crate::activity::Activity;
use crate::catalog::{Doomed, Sync, Txn};
use crate::metrics::Operation as Verb;
use crate::store::{Store, now};
use crate::words::digest::Sha256;
use crate::words::error::{Error, Result};
use crate::words::progress::Warning;
use crate::words::reference::Reference;

/// What a tag call did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TagReport {
    /// The new name, with the manifest's digest.
    pub reference: Reference,
    /// SHA-256 of the manifest.
    pub manifest_digest: Sha256,
    /// The manifest that had the name before.
    pub replaced: Option<Sha256>,
    /// What the caller may care about.
    pub warnings: Vec<Warning>,
}

/// Gives a snapshot one more name, in place of another snapshot that has it if `force`. Blocks.
pub(crate) fn tag(
    store: &Arc<Store>,
    source: &Reference,
    name: &Reference,
    (force, durable): (bool, bool),
    activity: &Activity,
) -> Result<TagReport> {
    if force {
        store.require_current()?;
    }
    let name = new_name(name)?;
    store.root.require_own(&name)?;
    let operation = store.begin(Verb::Tag)?;
    let of = operation
        .find(source)
        .map_err(|error| error.with_reference(source))?;
    // What is published need not be on the disk, and under its new name it is published nowhere.
    if durable {
        store.sync_snapshot(of.id)?;
    }
    activity.check()?;
    store.expect_orphans();
    let give = |txn: &Txn<'_>| {
        let mut replaced = (None, Doomed::default(), None);
        match txn.find(&name)? {
            Some(same) if same.manifest_digest == of.manifest_digest => return Ok(replaced),
            Some(other) if force => {
                txn.mark_removed(other.id)?;
                replaced.1 = txn.doom_abandoned(&[other.id])?;
                replaced.2 = Some(other.manifest_digest);
            }
            _ => txn.require_new(&name)?,
        }
        replaced.0 = Some(txn.insert_tag(of.id, &name, now())?);
        operation.finish(txn)?;
        Ok(replaced)
    };
    let (made, doomed, replaced) = store.with_reserve(|| store.catalog.write(Sync::Full, give))?;
    store.sweep_removed(&doomed, activity);
    store.drop_caches_of(replaced.as_slice());
    if let Some(made) = made.filter(|_| !durable) {
        store.sync_later(made);
    }
    Ok(TagReport {
        reference: name.with_digest(of.manifest_digest),
        manifest_digest: of.manifest_digest,
        replaced,
        warnings: Vec::new(),
    })
}

/// A name and a version, as a tag has them.
pub(crate) fn new_name(reference: &Reference) -> Result<Reference> {
    let version = reference.version().ok_or_else(|| {
        Error::invalid("a tag needs a version to be called by").with_hint("say NAME:VERSION")
    })?;
    Reference::new(reference.name(), version).map_err(|error| Error::invalid(error.to_string()))
}
