//! Restoring a snapshot: resolve → plan → materialize.

mod base;
mod content;
mod delete;
mod difference;
mod directories;
mod early;
mod job;
mod linked;
mod materialize;
mod names;
mod others;
mod paged;
mod pages;
mod plan;
mod preview;
mod request;
mod written;

pub(crate) use content::{Content, of_pages};
pub(crate) use pages::Packs;
pub use preview::RestorePlan;
pub(crate) use preview::run as preview;
pub use request::{RestoreReport, RestoreRequest};

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use base::Bases;
use directories::OutputDir;
use early::EarlyFiles;
use plan::{Plan, Selection};

use crate::activity::Activity;
use crate::catalog::{DirectoryId, Snapshot, Sync, Txn};
use crate::config::Config;
use crate::format::document::Document;
use crate::fs::place::Cloning;
use crate::fs::{Dir, is_privileged};
use crate::limit::Limits;
use crate::metrics::Operation as Verb;
use crate::remote::{self, Fetched, Flights, Remote};
use crate::store::{Operation, Recipient, Store};
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::format::Format;
use crate::words::placement::{LinkMode, Placements};
use crate::words::progress::WarningKind;

/// What a restore works with.
struct Context<'a> {
    store: &'a Store,
    limits: &'a Limits,
    activity: &'a Activity,
    output: &'a OutputDir<'a>,
    link_mode: LinkMode,
    no_clobber: bool,
    relaxed_times: bool,
    privileged: bool,
    cloning: Cloning,
    early: Option<&'a EarlyFiles>,
    /// Of a snapshot of format v2.
    packs: Option<&'a Packs<'a>>,
    /// What is cached of it and near it.
    bases: Option<&'a Bases<'a>>,
}

impl Context<'_> {
    /// Replaces what is in the way, perhaps only since it was looked for, unless that is forbidden.
    fn or_replace(
        &self,
        result: io::Result<()>,
        replace: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !self.no_clobber => {
                replace()
            }
            result => result,
        }
    }
}

/// Restores a snapshot, fetching what is not here. Blocks.
pub(crate) fn run(
    store: &Arc<Store>,
    limits: &Limits,
    config: &Config,
    request: &RestoreRequest,
    remote: Option<(&Remote, &Flights)>,
    activity: &Activity,
) -> Result<RestoreReport> {
    let started = Instant::now();
    // Where no lease can be written, nothing can be fetched into either.
    let read_only = store.is_read_only();
    let operation = (!read_only)
        .then(|| store.begin(Verb::Restore))
        .transpose()?;
    let call = Call {
        store,
        operation: operation.as_ref(),
        limits,
        config,
        request,
        remote: remote
            .filter(|_| !read_only)
            .map(|(remote, flights)| remote::Context {
                store,
                limit: &limits.transfers,
                flights,
                remote,
                activity,
            }),
        activity,
    };
    let (snapshot, fetched, restored) = call
        .run()
        .map_err(|error| error.with_reference(&request.reference))
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::Damaged if read_only => error.with_hint(NOT_KEPT),
            _ => error,
        })?;
    drop(operation);
    let digest = snapshot.manifest_digest;
    Ok(RestoreReport {
        reference: snapshot.reference.with_digest(digest),
        manifest_digest: digest,
        format: snapshot.format,
        files: restored.files,
        directories: restored.directories,
        symlinks: restored.symlinks,
        whiteouts: restored.whiteouts,
        deleted: restored.deleted,
        logical_bytes: restored.logical_bytes,
        data_bytes: restored.data_bytes,
        placements: restored.placements,
        fetched_blobs: fetched.fetched_blobs,
        fetched_bytes: fetched.fetched_bytes,
        duration: started.elapsed(),
        warnings: Vec::new(),
    })
}

/// Said of a root on a read-only mount.
const NOT_KEPT: &str = "the root is on a read-only mount: nothing can be fetched into it, and nothing keeps a snapshot there \
     from being removed by whoever has it mounted writable";

/// One restore.
struct Call<'a> {
    store: &'a Arc<Store>,
    /// None where the root is read-only.
    operation: Option<&'a Operation>,
    limits: &'a Limits,
    config: &'a Config,
    request: &'a RestoreRequest,
    remote: Option<remote::Context<'a>>,
    activity: &'a Activity,
}

impl Call<'_> {
    fn run(&self) -> Result<(Snapshot, Fetched, Restored)> {
        // Refused before anything is fetched or made; an output that hangs holds nobody else.
        let near = near_output(self.store, &self.request.output_dir)?;
        let (snapshot, mut fetched, early) = self.obtain(near)?;
        let plan = self.plan(&snapshot);
        let result = plan.and_then(|plan| self.materialize(&snapshot, plan, early.as_ref()));
        let restored = match (result, &self.remote) {
            (Err(error), Some(remote)) if error.kind() == ErrorKind::Damaged => {
                let again = self.fetch_again(remote, &snapshot, error)?;
                fetched.fetched_blobs += again.fetched_blobs;
                fetched.fetched_bytes += again.fetched_bytes;
                self.materialize(&snapshot, self.plan(&snapshot)?, None)?
            }
            (result, _) => result?,
        };
        self.note_origin(&snapshot);
        Ok((snapshot, fetched, restored))
    }

    /// What is taken of the output from now on has come from this snapshot. Best effort: without it a capture has no parent.
    fn note_origin(&self, snapshot: &Snapshot) {
        if self.operation.is_none() || !self.request.is_whole() {
            return;
        }
        let noted = Dir::open(&self.request.output_dir).and_then(|output| {
            let Some(directory) = DirectoryId::of(&output)? else {
                return Ok(());
            };
            let catalog = &self.store.catalog;
            catalog.write(Sync::Normal, |txn| txn.set_origin(&directory, snapshot.id))
        });
        if let Err(error) = noted {
            tracing::debug!(%error, "where a directory has come from was not noted");
        }
    }

    /// What there is to make, and out of which packs. A description that is damaged is fetched again.
    fn plan(&self, snapshot: &Snapshot) -> Result<(Plan, Option<Packs<'_>>)> {
        if snapshot.format == Format::V2 {
            let document = self.read(snapshot, |txn| txn.paged_document(snapshot.id))?;
            let packs = Packs::open(self.store, &document)?;
            let plan = self.plan_of(content::of_pages(document))?;
            return Ok((plan, Some(packs)));
        }
        let read = || self.read(snapshot, |txn| txn.document(snapshot.id));
        let document = match (read(), &self.remote) {
            (Err(error), Some(remote)) if error.kind() == ErrorKind::Damaged => {
                match remote::repair_description(remote, snapshot) {
                    Ok(true) => read()?,
                    Ok(false) => return Err(error),
                    Err(why) => return Err(not_fetched_again(&error, why)),
                }
            }
            (document, _) => document?,
        };
        Ok((self.plan_of(content::of_blobs(document))?, None))
    }

    fn plan_of(&self, document: Document<Content>) -> Result<Plan> {
        let mut plan = plan::plan(document, self.request, self.limits.files())?;
        self.leave_out_setid(&mut plan);
        Ok(plan)
    }

    /// Where nothing is leased, the row may be another snapshot's by now.
    fn read<T>(&self, snapshot: &Snapshot, read: impl FnOnce(&Txn<'_>) -> Result<T>) -> Result<T> {
        self.store.catalog.read(|txn| {
            if self.operation.is_none() {
                let manifest = txn.manifest(snapshot.id)?;
                if Sha256::of(&manifest) != snapshot.manifest_digest {
                    return Err(removed("restored"));
                }
            }
            read(txn)
        })
    }

    fn materialize(
        &self,
        snapshot: &Snapshot,
        (plan, packs): (Plan, Option<Packs<'_>>),
        early: Option<&EarlyFiles>,
    ) -> Result<Restored> {
        let output = open_output(self.store, &self.request.output_dir)?;
        let packs = packs.as_ref();
        let bases = match packs {
            Some(packs) => Bases::open(packs, snapshot, self.config.cache)?,
            None => None,
        };
        let context = Context {
            store: self.store,
            limits: self.limits,
            activity: self.activity,
            output: &output,
            link_mode: self.request.link_mode,
            no_clobber: self.request.no_clobber,
            relaxed_times: self.config.relaxed_times,
            privileged: is_privileged(),
            cloning: Cloning::default(),
            early,
            packs,
            bases: bases.as_ref(),
        };
        let restored = materialize::all(&context, snapshot.id, plan);
        if let Some(bases) = &bases {
            bases.finish();
        }
        restored
    }

    /// A file of another owner than the snapshot's must not run as that one either.
    fn leave_out_setid(&self, plan: &mut Plan) {
        let why = match (self.request.setid, is_privileged()) {
            (true, true) => return,
            (true, false) => "owners cannot be restored without privileges",
            (false, _) => "they are restored only where setid asks for it",
        };
        for path in plan.leave_out_setid() {
            let message = format!("set-user-ID and set-group-ID bits were left out: {why}");
            let path = Some(path.as_path());
            self.activity.warn(WarningKind::Attribute, path, message);
        }
    }

    /// Leases the snapshot, fetching it first if it is not here.
    fn obtain(&self, near: Dir) -> Result<(Snapshot, Fetched, Option<EarlyFiles>)> {
        let Some(operation) = self.operation else {
            let reference = &self.request.reference;
            let found = self.store.catalog.read(|txn| txn.resolve(reference))?;
            return Ok((found, Fetched::default(), None));
        };
        match (operation.find(&self.request.reference), &self.remote) {
            (Err(error), Some(remote)) if error.kind() == ErrorKind::NotFound => {
                let selection = Selection::new(self.request)?;
                let mode = self.request.link_mode;
                let early =
                    EarlyFiles::new(self.store, near, selection, mode, self.limits.files())?;
                let recipient = early.as_ref().map(|early| early as &dyn Recipient);
                let reference = &self.request.reference;
                let fetched = remote::fetch(remote, operation, reference, recipient)?;
                Ok((leased(self.store, fetched.snapshot)?, fetched, early))
            }
            (Ok(snapshot), Some(remote)) if self.request.no_clobber => {
                // A second attempt would find the first one's files in its way: what is bad is found before.
                let fetched = remote::repair(remote, snapshot.id)?;
                Ok((snapshot, fetched, None))
            }
            (leased, _) => Ok((leased?, Fetched::default(), None)),
        }
    }

    /// Fetches what was found to be damaged; the error stays where there is nothing to fetch, or no way to.
    fn fetch_again(
        &self,
        remote: &remote::Context<'_>,
        snapshot: &Snapshot,
        error: Error,
    ) -> Result<Fetched> {
        if self.request.no_clobber {
            return Err(error);
        }
        match remote::repair(remote, snapshot.id) {
            // What was here may have been in need of its row alone.
            Ok(fetched) if fetched.fetched_blobs + fetched.reused_blobs > 0 => Ok(fetched),
            Ok(_) => Err(error),
            Err(why) => Err(not_fetched_again(&error, why)),
        }
    }
}

/// What was damaged, and why it still is.
fn not_fetched_again(error: &Error, why: Error) -> Error {
    if why.kind() == ErrorKind::Cancelled {
        return why;
    }
    let text = format!("{error}, and what is damaged could not be fetched again");
    let said = Error::damaged(text).with_source(why);
    match error.path() {
        Some(path) => said.with_path(path),
        None => said,
    }
}

/// A snapshot that this call leases already.
fn leased(store: &Store, snapshot: i64) -> Result<Snapshot> {
    let found = store.catalog.read(|txn| txn.snapshot(snapshot))?;
    found.ok_or_else(|| removed("fetched"))
}

fn removed(meanwhile: &str) -> Error {
    let text = format!("the snapshot was removed while it was {meanwhile}");
    Error::new(ErrorKind::NotFound, text)
}

/// The figures of a report.
#[derive(Debug, Default)]
struct Restored {
    files: u64,
    directories: u64,
    symlinks: u64,
    whiteouts: u64,
    deleted: u64,
    logical_bytes: u64,
    data_bytes: u64,
    placements: Placements,
}

/// The output directory, or the nearest one above it that is there.
fn near_output(store: &Store, path: &Path) -> Result<Dir> {
    if path.as_os_str().is_empty() {
        return Err(Error::invalid("output_dir must not be empty"));
    }
    let near = Dir::nearest(path).map_err(no_directory)?;
    store.root.require_outside("output_dir", &near)?;
    Ok(near)
}

fn no_directory(error: Error) -> Error {
    match error.kind() {
        ErrorKind::InvalidInput => error.with_hint("output_dir must be a directory"),
        _ => error,
    }
}

fn open_output<'a>(store: &'a Store, path: &Path) -> Result<OutputDir<'a>> {
    let output = Dir::create_all(path, 0o755).map_err(no_directory)?;
    OutputDir::new(store, output)
}
