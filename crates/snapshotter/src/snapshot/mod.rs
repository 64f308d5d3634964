//! Taking a snapshot: walk (plan) → capture → describe → finish.

mod capture;
mod describe;
mod from_document;
mod listed;
mod opened;
mod pages;
mod plan;
mod planned;
mod reading;
mod request;
mod selection;
mod streamed;
mod taken;
mod walk;
mod words;

pub(crate) use from_document::{Material, from_document, plan_of};
pub(crate) use listed::listed;
pub(crate) use opened::{Contents, Given};
pub use pages::{PagedReport, ParentChosen, ParentReport};
pub(crate) use plan::run as plan;
pub use plan::{EntryKind, PlannedEntry, SnapshotPlan};
pub(crate) use planned::Plan;
pub use request::{File, SnapshotReport, SnapshotRequest};
pub use words::{Compression, Format, FramePages, ParentChoice};

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::activity::Activity;
use crate::catalog::{DirectoryId, Doomed, Finished, State, Stored, Sync, Totals};
use crate::config::Durability;
use crate::fs::Dir;
use crate::limit::{Limit, Limits};
use crate::metrics::Operation as Verb;
use crate::remote::{Remote, publish_new};
use crate::store::{Operation, Store, now};
use crate::words::digest::Checksum;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::placement::LinkMode;
use crate::words::progress::{Event, Phase};
use crate::words::reference::Reference;
use crate::words::relpath::{RelPath, RelPathError};
use streamed::Streamed;
use taken::{Figures, Taken};

/// What a capture works with.
pub(crate) struct Context<'a> {
    pub(crate) store: &'a Store,
    pub(crate) limit: &'a Limit,
    pub(crate) activity: &'a Activity,
    pub(crate) base: &'a Dir,
    /// Where the files are instead.
    pub(crate) contents: Option<&'a dyn Contents>,
    pub(crate) link_mode: LinkMode,
    /// What cannot be read is left out.
    pub(crate) skip_unreadable: bool,
    pub(crate) durable: bool,
    /// It gets no name here.
    pub(crate) hidden: bool,
}

impl Context<'_> {
    /// Whether an error is left out, with what it is about.
    fn leaves_out(&self, error: &Error) -> bool {
        self.skip_unreadable && error.kind() == ErrorKind::PermissionDenied
    }

    fn is_left_out(&self, error: &io::Error) -> bool {
        self.skip_unreadable && ErrorKind::of_io(error) == ErrorKind::PermissionDenied
    }
}

/// A file that comes by a pipe, and what it is to be called.
pub(crate) type Stream = (PathBuf, Box<dyn Read + Send>);

/// Takes a snapshot: of a directory, or of a stream alone. Blocks.
pub(crate) fn run(
    store: &Arc<Store>,
    limits: &Limits,
    durability: Durability,
    (request, stream): (&SnapshotRequest, Option<Stream>),
    remote: Option<&Remote>,
    activity: &Activity,
) -> Result<SnapshotReport> {
    let started = Instant::now();
    let reference = request.reference()?;
    check_annotations(&request.annotations)?;
    pages::check_request(request)?;
    store.catalog.require_writable()?;
    if let Some(remote) = remote.filter(|_| !request.force) {
        // Before anything is read: what is taken there cannot be published.
        remote.require_new(&reference, activity).map_err(|error| {
            error.with_hint(
                "with `local` the snapshot is taken all the same, and published later by `push`",
            )
        })?;
    }
    let streamed = stream.map(|stream| streamed(store, &reference, request, stream, activity));
    let streamed = streamed.transpose()?;
    let base = match &streamed {
        Some(_) => store.root.staging.reopen()?,
        None => open_base(store, &request.base_dir)?,
    };
    let limit = limits.of_device(base.device()?);
    let operation = store.begin(Verb::Snapshot)?;
    let snapshot = begin(store, &operation, &reference, request.force)?;
    let context = Context {
        store,
        limit: &limit,
        activity,
        base: &base,
        contents: streamed.as_ref().map(|streamed| streamed as &dyn Contents),
        link_mode: request.link_mode,
        skip_unreadable: request.skip_unreadable,
        // What is elsewhere too need not be waited for.
        durable: durability == Durability::Full && remote.is_none(),
        hidden: false,
    };
    let until = match remote {
        None => Until::Visible(&operation),
        Some(_) => Until::Published(&operation),
    };
    let plan = match &streamed {
        Some(streamed) => Ok(streamed.plan()),
        None => walk::plan(&context, request),
    };
    let taken = plan
        .and_then(|plan| complete(&context, snapshot, until, request, plan))
        .map_err(|error| error.with_reference(&reference))?;
    match remote {
        // The disk is the publication's for now.
        Some(_) => store.sync_when_idle(snapshot),
        None if !context.durable => store.sync_later(snapshot),
        None => {}
    }
    let published = remote
        .map(|remote| {
            publish_new(
                store,
                &limits.transfers,
                remote,
                (&operation, snapshot),
                request.force,
                activity,
            )
        })
        .transpose();
    if published.is_err() {
        // What is nowhere else is in more of a hurry.
        store.sync_later(snapshot);
    }
    drop(operation);
    let publication = published.map_err(|error| error.with_reference(&reference))?;
    Ok(taken.report(reference, publication, started.elapsed()))
}

/// Refused before anything is read of it, where the name is taken.
fn streamed<'s>(
    store: &'s Store,
    reference: &Reference,
    request: &SnapshotRequest,
    (path, from): Stream,
    activity: &Activity,
) -> Result<Streamed<'s>> {
    let invalid = |error: RelPathError| Error::invalid(format!("stdin: {error}")).with_path(&path);
    let relative = RelPath::normalize(&path).map_err(invalid)?;
    if !request.force {
        store.catalog.read(|txn| txn.require_new(reference))?;
    }
    Streamed::receive(store, relative, from, activity)
}

/// Registers the pending snapshot that keeps the blobs until it is finished, leased by this call.
fn begin(store: &Store, operation: &Operation, reference: &Reference, force: bool) -> Result<i64> {
    if force {
        // It may replace one, and give its files up.
        store.require_current()?;
    }
    store.catalog.write(Sync::Normal, |txn| {
        if !force {
            txn.require_new(reference)?;
        }
        operation.pending(txn, reference)
    })
}

fn complete(
    context: &Context<'_>,
    snapshot: i64,
    until: Until<'_>,
    request: &SnapshotRequest,
    mut plan: Plan,
) -> Result<Taken> {
    if request.format == Format::V2 {
        return pages::complete(context, snapshot, until, request, plan);
    }
    context.activity.tell(|| Event::Planned {
        phase: Phase::Read,
        files: plan.files.len() as u64,
        bytes: plan.allocated(),
    });
    let captured = capture::all(context, snapshot, &mut plan)?;
    context.activity.tell(|| Event::Syncing);
    let figures = Figures::of(&captured.files);
    let described = describe::describe(plan, captured.files, &request.annotations)?;
    let description = Description {
        format: Format::V1,
        document: &described.document,
        manifest: &described.manifest,
        totals: described.totals,
    };
    let pending = Pending {
        snapshot,
        until,
        request,
    };
    finish(context, &pending, &captured.synced, &description)?;
    Ok(Taken::new(
        figures,
        &description,
        described.document.document(),
    ))
}

/// The operation of a capture, and how long it keeps what it leases.
#[derive(Clone, Copy)]
enum Until<'a> {
    /// It ends when the snapshot is visible.
    Visible(&'a Operation),
    /// It keeps the snapshot until that is published, and what that replaces: its name may have to go back.
    Published(&'a Operation),
}

/// The pending snapshot.
struct Pending<'a> {
    snapshot: i64,
    until: Until<'a>,
    request: &'a SnapshotRequest,
}

/// What a snapshot is described by.
struct Description<'a> {
    format: Format,
    document: &'a dyn Stored,
    manifest: &'a [u8],
    totals: Totals,
}

/// Makes the blobs durable (unless that is for later), then the snapshot visible in one transaction, in which the
/// operation ends unless it is to last.
fn finish(
    context: &Context<'_>,
    pending: &Pending<'_>,
    on_disk: &HashSet<Checksum>,
    described: &Description<'_>,
) -> Result<()> {
    let store = context.store;
    let Pending {
        snapshot,
        until,
        request,
    } = *pending;
    let reference = request.reference()?;
    let directory = match context.contents {
        Some(_) => None,
        None => DirectoryId::of(context.base)?,
    };
    let synced = if context.durable {
        store.make_durable(snapshot, on_disk)?
    } else {
        Vec::new()
    };
    // A forced snapshot may unlink what it replaces.
    let sync = if context.durable || (request.force && !context.hidden) {
        Sync::Full
    } else {
        Sync::Normal
    };
    // The last moment to give up: from here on the snapshot exists.
    context.activity.check()?;
    let replaced = store.catalog.write(sync, |txn| {
        let mut replaced = (Doomed::default(), None);
        if request.force
            && !context.hidden
            && let Some(old) = txn.find(&reference)?
        {
            if let Until::Published(operation) = until {
                operation.lease(txn, old.id)?;
            }
            txn.mark_removed(old.id)?;
            replaced = (txn.doom_abandoned(&[old.id])?, Some(old.manifest_digest));
        }
        if context.hidden {
            txn.mark_removed(snapshot)?;
        } else {
            txn.require_new(&reference)?;
        }
        txn.mark_synced(&synced)?;
        txn.finish_snapshot(
            snapshot,
            &Finished {
                state: State::Taken,
                format: described.format,
                manifest: described.manifest,
                document: described.document,
                totals: described.totals,
                now: now(),
            },
        )?;
        if let Some(directory) = &directory {
            txn.set_origin(directory, snapshot)?;
        }
        if let Until::Visible(operation) = until {
            operation.finish(txn)?;
        }
        Ok(replaced)
    })?;
    let (doomed, manifest) = replaced;
    store.sweep_removed(&doomed, context.activity);
    store.drop_caches_of(manifest.as_slice());
    Ok(())
}

fn open_base(store: &Store, path: &Path) -> Result<Dir> {
    let base = Dir::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => error.with_hint("base_dir must be an existing directory"),
        _ => error,
    })?;
    store.root.require_outside("base_dir", &base)?;
    Ok(base)
}

fn check_annotations(annotations: &BTreeMap<String, String>) -> Result<()> {
    if annotations.keys().any(String::is_empty) {
        return Err(Error::invalid("annotations must not have an empty key"));
    }
    Ok(())
}
