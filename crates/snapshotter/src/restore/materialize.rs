//! Blobs into files.
//!
//! Read-only files become hardlinks of a view, so that all restores on a node share its pages; writable ones are cloned
//! or copied. A copy is hashed while it is made and gets its name only if the hash is right. Nothing is ever written
//! through an inode that was there before.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::directories::{self, published, unless_mounted, warn_unset};
use super::plan::{Link, Plan};
use super::{Context, Restored, others};
use crate::catalog::{Blob, Txn, ViewKey};
use crate::format::document::{Content, FileEntry};
use crate::fs::dir::Kind;
use crate::fs::place::cannot_share;
use crate::fs::temporary::{self, Temporary};
use crate::fs::{Dir, Stat, attributes, own_ids};
use crate::limit::for_each;
use crate::pass::{Hashing, Output, holes_are_zero, is_wrong, pass};
use crate::store::{Existing, Linkable, NewView, OpenBlob, Told, Wanted, is_unreadable};
use crate::words::entry::Attributes;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::form::Form;
use crate::words::placement::{LinkMode, Placement, Placements};
use crate::words::progress::{Event, WarningKind};
use crate::words::relpath::{RelPath, os_name};
use crate::words::total::total;

/// Copies of at least this many bytes are checked against the free space first.
const LARGE: u64 = 1 << 20;

/// How often a link is tried whose source was replaced in the same moment, or has no room for one more.
const ATTEMPTS: u32 = 16;

/// Makes everything in a plan.
pub(super) fn all(context: &Context<'_>, snapshot: i64, mut plan: Plan) -> Result<Restored> {
    let mut restored = Restored {
        files: (plan.files.len() + plan.links.len()) as u64,
        directories: plan
            .directories
            .iter()
            .filter(|directory| directory.attributes.is_some())
            .count() as u64,
        symlinks: plan.symlinks.len() as u64,
        whiteouts: plan.whiteouts.len() as u64,
        ..Restored::default()
    };
    look_up(context, snapshot, &mut plan.files, &mut restored)?;
    let plan = &plan;
    context.activity.tell(|| Event::Planned {
        files: plan.files.len() as u64,
        bytes: restored.data_bytes,
    });
    context.output.require_foreign(plan)?;
    if context.no_clobber {
        directories::refuse_existing(context, plan)?;
    }
    let made = directories::make(context, plan)?;
    for whiteout in &plan.whiteouts {
        let result = others::whiteout(context, whiteout);
        if unless_mounted(context, &whiteout.path, result)?.is_none() {
            restored.whiteouts -= 1;
        }
    }
    let placing = Placing {
        context,
        plan,
        snapshot,
        placements: Mutex::default(),
        left: Mutex::default(),
    };
    let mut left = plan.groups();
    while !left.is_empty() {
        left = placing.groups(&left)?;
    }
    for link in &plan.links {
        placing.link(link)?;
    }
    for symlink in &plan.symlinks {
        let result = others::symlink(context, symlink);
        if unless_mounted(context, &symlink.path, result)?.is_none() {
            restored.symlinks -= 1;
        }
    }
    directories::finish(context, plan, &made)?;
    let left = placing.left.into_inner();
    let left = left.unwrap_or_else(PoisonError::into_inner);
    restored.files -= left.files;
    restored.logical_bytes -= left.logical_bytes;
    restored.data_bytes -= left.data_bytes;
    restored.placements = placing
        .placements
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    Ok(restored)
}

/// Looks every content up before anything is made: a document that names unknown content fails with nothing done.
fn look_up(
    context: &Context<'_>,
    snapshot: i64,
    files: &mut [FileEntry],
    restored: &mut Restored,
) -> Result<()> {
    let read = |txn: &Txn<'_>| txn.contents_of_snapshot(snapshot);
    let contents = context.store.catalog.read(read)?;
    for file in files {
        let found = contents.find(&file.content, file.size);
        let found = found.ok_or_else(|| disagree(file))?;
        // Those of the Go library have no checksums.
        file.content = Content::V1 {
            digest: found.digest,
            checksum: Some(found.checksum),
        };
        restored.logical_bytes = total([restored.logical_bytes, found.size]);
        restored.data_bytes = total([restored.data_bytes, found.data_size]);
    }
    Ok(())
}

fn disagree(file: &FileEntry) -> Error {
    Error::damaged(format!(
        "the snapshot's document and its blobs disagree about {}",
        file.path
    ))
    .with_path(file.path.as_path())
}

struct Placing<'a> {
    context: &'a Context<'a>,
    plan: &'a Plan,
    snapshot: i64,
    placements: Mutex<Placements>,
    /// What was left because something is mounted on it.
    left: Mutex<Restored>,
}

/// A file about to be placed, with all that is known of it.
struct Job<'a> {
    planned: &'a FileEntry,
    blob: Blob,
    opened: OpenBlob,
    wanted: Wanted,
    /// The device of the directory it goes to.
    device: u64,
}

impl Job<'_> {
    fn name(&self) -> &std::ffi::OsStr {
        os_name(self.planned.path.file_name())
    }

    /// What a view of it is called by.
    fn view(&self) -> ViewKey {
        (self.blob.checksum, self.wanted.fingerprint)
    }
}

impl<'a> Placing<'a> {
    /// Places groups, and returns those that need a blob which another thread makes plain, once it has.
    fn groups(&self, groups: &[&'a [FileEntry]]) -> Result<Vec<&'a [FileEntry]>> {
        let later = Mutex::new(Vec::new());
        let threads = self.context.limits.threads(groups.len());
        for_each(threads, groups.len(), |index| {
            let group = groups[index];
            if let Some(file) = self.group(group)? {
                later
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((group, file));
            }
            Ok(())
        })?;
        let later = later.into_inner().unwrap_or_else(PoisonError::into_inner);
        // With no permit, and making nothing plain that others wait for.
        for (_, file) in &later {
            self.wait_for(file)?;
        }
        Ok(later.into_iter().map(|(group, _)| group).collect())
    }

    /// Waits while another thread makes a file's blob plain.
    fn wait_for(&self, planned: &FileEntry) -> Result<()> {
        let unpacking = &self.context.store.unpacking;
        match planned.content.checksum() {
            Some(checksum) => unpacking.wait(checksum, self.context.activity),
            None => Err(disagree(planned)),
        }
    }

    /// The blobs of files, which only those are that the snapshot references.
    fn blobs(&self, files: &[FileEntry]) -> Result<Vec<Blob>> {
        self.context.store.catalog.read(|txn| {
            let blob = |file: &FileEntry| {
                let found = match file.content.checksum() {
                    Some(checksum) => txn.blob_of_snapshot(self.snapshot, &checksum)?,
                    None => None,
                };
                found.ok_or_else(|| disagree(file))
            };
            files.iter().map(blob).collect()
        })
    }

    /// Places the files of a group; or none of them, and returns one whose blob another thread makes plain.
    fn group(&self, group: &'a [FileEntry]) -> Result<Option<&'a FileEntry>> {
        let parent = group.first().and_then(|file| file.path.parent());
        let parent = self.context.output.open(parent.as_ref())?;
        let device = parent.device()?;
        let limit = self.context.limits.of_device(device);
        let _permit = limit.permit(self.context.activity)?;
        let mut jobs = Vec::with_capacity(group.len());
        for (planned, blob) in group.iter().zip(self.blobs(group)?) {
            match self.open(planned, blob, device)? {
                Some(job) => jobs.push(job),
                None => return Ok(Some(planned)),
            }
        }
        let mut sources = self.views(&jobs)?;
        for (job, source) in jobs.iter().zip(&mut sources) {
            self.context.activity.check()?;
            let placed = self
                .place(&parent, job, source.take())
                .map_err(|error| error.with_path(parent.path_of(job.name())));
            match unless_mounted(self.context, &job.planned.path, placed)? {
                Some(placement) => self.count(job, placement),
                None => self.leave(job),
            }
        }
        Ok(None)
    }

    /// Opens a file's blob; `None` where another thread makes it plain.
    fn open(&self, planned: &'a FileEntry, blob: Blob, device: u64) -> Result<Option<Job<'a>>> {
        let opened = self
            .context
            .store
            .open_good(&blob, self.context.activity)
            .map_err(|error| blame(error, planned))?;
        let mut job = Job {
            device,
            planned,
            blob,
            opened,
            wanted: Wanted::new(self.effective(planned), self.context.relaxed_times),
        };
        if job.opened.form == Form::Packed && self.wants_link(&job) {
            match self.unpack(&job)? {
                Some(plain) => job.opened = plain,
                None => return Ok(None),
            }
        }
        Ok(Some(job))
    }

    /// Nobody links to a packed file: the blob becomes plain first.
    fn unpack(&self, job: &Job<'_>) -> Result<Option<OpenBlob>> {
        let context = self.context;
        context
            .store
            .unpack(&job.blob, &job.wanted, context.privileged, context.activity)
            .map_err(|error| blame(error, job.planned))
    }

    /// What this process may set: without privileges, files are its own and have `user.*` attributes only.
    fn effective(&self, entry: &FileEntry) -> Attributes {
        let mut attributes = entry.attributes.clone();
        if !self.context.privileged {
            (attributes.uid, attributes.gid) = own_ids();
            let before = attributes.xattrs.len();
            attributes
                .xattrs
                .retain(|name, _| name.starts_with("user."));
            if attributes.xattrs.len() < before {
                self.context.activity.warn(
                    WarningKind::Attribute,
                    Some(entry.path.as_path()),
                    "extended attributes outside user.* need privileges and were left out",
                );
            }
        }
        attributes
    }

    fn count(&self, job: &Job<'_>, placement: Placement) {
        self.placements
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .count(placement, job.blob.data_size);
        // Copies have told of their bytes while they ran.
        if placement != Placement::Copy {
            let _ = self.context.activity.advance(job.blob.data_size);
        }
        self.context.activity.tell(|| Event::FileFinished {
            path: job.planned.path.as_path().to_owned(),
            placement,
        });
    }

    fn leave(&self, job: &Job<'_>) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.files += 1;
        left.logical_bytes = total([left.logical_bytes, job.blob.size]);
        left.data_bytes = total([left.data_bytes, job.blob.data_size]);
    }

    /// The inodes that the read-only files of a group can be hardlinks of; missing views are made, in one commit.
    fn views(&self, jobs: &[Job<'_>]) -> Result<Vec<Option<Linkable<'a>>>> {
        let store = self.context.store;
        let linked = jobs.iter().filter(|job| self.wants_link(job));
        let known = store.known_views(linked.map(Job::view))?;
        let mut sources = Vec::with_capacity(jobs.len());
        let mut missing = Vec::new();
        for (index, job) in jobs.iter().enumerate() {
            let mut source = None;
            if self.wants_link(job) {
                source = store.find_view(&job.blob, &job.opened, &job.wanted, &known)?;
                if source.is_none() {
                    missing.push(index);
                }
            }
            sources.push(source);
        }
        // Files alike in bytes and attributes share one new view.
        let mut made: Vec<NewView<'_>> = Vec::new();
        let mut places: HashMap<_, Option<usize>> = HashMap::new();
        for &index in &missing {
            let job = &jobs[index];
            if let Entry::Vacant(place) = places.entry(job.view()) {
                let view = self.make_view(job)?;
                place.insert(view.is_some().then_some(made.len()));
                made.extend(view);
            }
        }
        store.commit_views(&mut made, Existing::Keep)?;
        for &index in &missing {
            if let Some(place) = places[&jobs[index].view()] {
                sources[index] = store.committed_view(&made[place])?;
            }
        }
        Ok(sources)
    }

    fn make_view(&self, job: &Job<'_>) -> Result<Option<NewView<'a>>> {
        let context = self.context;
        context
            .store
            .make_view(
                &job.blob,
                &job.opened,
                &job.wanted,
                context.privileged,
                context.activity,
            )
            .map_err(|error| blame(error, job.planned))
    }

    fn wants_link(&self, job: &Job<'_>) -> bool {
        job.planned.read_only
            // From one mount to another nothing can be linked.
            && !self.context.store.is_read_only()
            && job.device == self.context.store.root.device
            && matches!(self.context.link_mode, LinkMode::Auto | LinkMode::Hardlink)
    }

    fn place(
        &self,
        parent: &Dir,
        job: &Job<'_>,
        source: Option<Linkable<'a>>,
    ) -> Result<Placement> {
        if let Some(source) = source {
            if let Some(placement) = self.hardlink(parent, job, source)? {
                return Ok(placement);
            }
        } else if job.planned.read_only && self.context.link_mode == LinkMode::Hardlink {
            let other = if self.context.store.is_read_only() {
                "mount"
            } else {
                "filesystem"
            };
            let text = format!("not hardlinked: the output is on another {other} than the store");
            self.warn(job, &text);
        }
        if self.is_present(parent, job)? {
            return Ok(Placement::Present);
        }
        self.write(parent, job)
    }

    fn warn(&self, job: &Job<'_>, message: &str) {
        self.context.activity.warn(
            WarningKind::LinkMode,
            Some(job.planned.path.as_path()),
            message,
        );
    }

    /// Links the output to a view. `None`: not possible, try the next way.
    fn hardlink(
        &self,
        parent: &Dir,
        job: &Job<'_>,
        mut source: Linkable<'a>,
    ) -> Result<Option<Placement>> {
        let mut left = ATTEMPTS;
        let mut relieved = false;
        loop {
            let error = match self.link_to(parent, job, &source) {
                Ok(placement) => return Ok(Some(placement)),
                Err(error) => error,
            };
            let next = match error.raw_os_error() {
                // The inode's links are used up: a fresh one takes over.
                Some(libc::EMLINK) if left > 0 => {
                    left -= 1;
                    self.new_source(job, Existing::Replace)?
                }
                // The inode lost its name to a fresh one between being looked up and being linked.
                Some(libc::ENOENT) if left > 0 => {
                    left -= 1;
                    self.source_again(job)?
                }
                // A name takes space too, however little.
                _ if !relieved && ErrorKind::of_io(&error) == ErrorKind::NoSpace => {
                    relieved = true;
                    if self.context.store.give_up_slice()? {
                        continue;
                    }
                    published(Err(error), parent, job.planned.path.file_name())?;
                    None
                }
                _ if cannot_share(&error) => {
                    if self.context.link_mode == LinkMode::Hardlink {
                        self.warn(job, &format!("not hardlinked: {error}"));
                    }
                    None
                }
                _ => {
                    published(Err(error), parent, job.planned.path.file_name())?;
                    None
                }
            };
            match next {
                Some(next) => source = next,
                None => return Ok(None),
            }
        }
    }

    fn new_source(&self, job: &Job<'_>, existing: Existing) -> Result<Option<Linkable<'a>>> {
        let store = self.context.store;
        let Some(view) = self.make_view(job)? else {
            return Ok(None);
        };
        let mut views = [view];
        store.commit_views(&mut views, existing)?;
        store.committed_view(&views[0])
    }

    fn source_again(&self, job: &Job<'_>) -> Result<Option<Linkable<'a>>> {
        match self.context.store.current_view(&job.blob, &job.wanted)? {
            Some(view) => Ok(Some(view)),
            None => self.new_source(job, Existing::Keep),
        }
    }

    fn link_to(&self, parent: &Dir, job: &Job<'_>, source: &Linkable<'a>) -> io::Result<Placement> {
        let name = job.name();
        match source.dir.link(&source.name, parent, name) {
            Ok(()) => return Ok(Placement::Hardlink),
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists && !self.context.no_clobber => {}
            Err(error) => return Err(error),
        }
        let there = parent.stat_if_any(name)?;
        if there.is_some_and(|there| there.identity() == source.stat.identity()) {
            return Ok(Placement::Present);
        }
        temporary::replace(parent, name, |temporary| {
            source.dir.link(&source.name, parent, temporary)
        })?;
        Ok(Placement::Hardlink)
    }

    /// Whether the output has the file already: equal bytes and attributes, and an inode that is nobody else's.
    fn is_present(&self, parent: &Dir, job: &Job<'_>) -> Result<bool> {
        let name = job.name();
        let path = || parent.path_of(name);
        let Some(stat) = parent.stat_if_any(name).at("examine", path())? else {
            return Ok(false);
        };
        if self.context.no_clobber {
            return Err(directories::exists(&path()));
        }
        if stat.kind != Kind::File || stat.size != job.blob.size {
            return Ok(false);
        }
        let others = self.plan.others(&job.planned.path);
        if stat.nlink != 1 + self.names_of(&stat, others) {
            return Ok(false);
        }
        let file = match self.context.activity.open(parent, name)? {
            // What cannot be read cannot be compared: it is replaced.
            Err(error) if is_unreadable(&error) => return Ok(false),
            result => result.at("open", path())?,
        };
        let same = Stat::of_file(&file).at("examine", path())?.identity() == stat.identity();
        Ok(same
            && job.wanted.matches(&file, &stat).at("examine", path())?
            && self.has_bytes(&file, job)?.at("read", path())?)
    }

    /// How many of these names in the output are names of an inode.
    fn names_of(&self, stat: &Stat, links: &[Link]) -> u64 {
        let is_name = |Link { path, .. }: &&Link| {
            let parent = self.context.output.open(path.parent().as_ref()).ok();
            let found = parent.and_then(|dir| dir.stat(os_name(path.file_name())).ok());
            found.is_some_and(|found| found.identity() == stat.identity())
        };
        links.iter().filter(is_name).count() as u64
    }

    /// Whether a file in the output has a blob's bytes; one that the disk does not give back has not.
    fn has_bytes(&self, file: &File, job: &Job<'_>) -> Result<io::Result<bool>> {
        let context = self.context;
        let map = context.store.extents(&job.blob)?;
        let progress = |_| context.activity.advance(0);
        let result =
            pass(file, &map, Output::None, Hashing::Checksum, &progress).and_then(|hashes| {
                Ok(hashes.checksum == job.blob.checksum && holes_are_zero(file, &map)?)
            });
        context.activity.check()?;
        Ok(match result {
            Err(error) if is_wrong(&error) => Ok(false),
            result => result,
        })
    }

    /// Makes a file of its own and gives it its name.
    fn write(&self, parent: &Dir, job: &Job<'_>) -> Result<Placement> {
        if self.take_early(parent, job)? {
            return Ok(Placement::Copy);
        }
        let (mut temporary, placement) = self.make(parent, job)?;
        let result = temporary.publish(job.name(), self.context.no_clobber);
        published(result, parent, job.planned.path.file_name())?;
        Ok(placement)
    }

    /// Gives the name to a file that was written while its blob was fetched, if there is one.
    fn take_early(&self, parent: &Dir, job: &Job<'_>) -> Result<bool> {
        let early = self.context.early;
        let Some(file) = early.and_then(|early| early.take(&job.blob.checksum, job.device)) else {
            return Ok(false);
        };
        let mut temporary = Temporary::unnamed(parent, file);
        self.dress(job, temporary.file());
        match temporary.publish(job.name(), self.context.no_clobber) {
            // One filesystem, and yet not one: another mount of it, or another quota's tree.
            Err(error) if cannot_share(&error) => Ok(false),
            result => {
                published(result, parent, job.planned.path.file_name())?;
                let _ = self.context.activity.advance(job.blob.data_size);
                Ok(true)
            }
        }
    }

    fn dress(&self, job: &Job<'_>, file: &File) {
        let unset = attributes::set(file, &job.wanted.attributes, self.context.privileged);
        warn_unset(self.context, &job.planned.path, unset);
    }

    /// Makes a complete file without a final name: cloned where the filesystem can, else copied and verified.
    fn make<'d>(&self, parent: &'d Dir, job: &Job<'_>) -> Result<(Temporary<&'d Dir>, Placement)> {
        let path = || parent.path_of(job.name());
        let temporary = Temporary::create(parent, 0o600).at("create", path())?;
        let placement = self.fill(parent, job, temporary.file())?;
        self.dress(job, temporary.file());
        Ok((temporary, placement))
    }

    fn fill(&self, parent: &Dir, job: &Job<'_>, file: &File) -> Result<Placement> {
        let context = self.context;
        let device = job.device;
        let cloning = &context.cloning;
        if job.opened.form == Form::Plain
            && cloning.is_worth_it(device, job.blob.data_size, context.link_mode)
            && cloning
                .clone(device, &job.opened.file, file)
                .at("clone", parent.path_of(job.name()))?
        {
            return Ok(Placement::Reflink);
        }
        if context.link_mode == LinkMode::Reflink {
            self.warn(
                job,
                match job.opened.form {
                    Form::Plain => "copied: the filesystem cannot reflink it",
                    Form::Packed => "copied: it is stored packed, as it was delivered",
                },
            );
        }
        if job.blob.data_size >= LARGE {
            context.store.require_space(parent, job.blob.data_size)?;
        }
        let sync_soon = false;
        context
            .store
            .copy_verified(
                &job.blob,
                &job.opened,
                Output::File { file, sync_soon },
                context.activity,
                Told::Here,
            )
            .map_err(|error| blame(error, job.planned))?;
        Ok(Placement::Copy)
    }

    /// Makes a further name of a file just placed. Another restore into the same directory may replace that file in
    /// between.
    fn link(&self, link: &Link) -> Result<()> {
        self.context.activity.check()?;
        let mut left = ATTEMPTS;
        loop {
            match self.try_link(link) {
                Err(error) if error.kind() == ErrorKind::NotFound && left > 0 => left -= 1,
                result => {
                    if unless_mounted(self.context, &link.path, result)?.is_none() {
                        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
                        left.files += 1;
                    }
                    return Ok(());
                }
            }
        }
    }

    fn try_link(&self, link: &Link) -> Result<()> {
        let context = self.context;
        let from = context.output.open(link.of.parent().as_ref())?;
        let to = context.output.open(link.path.parent().as_ref())?;
        let (of, name) = (os_name(link.of.file_name()), os_name(link.path.file_name()));
        let wanted = from.stat(of).at("examine", from.path_of(of))?;
        let there = to.stat_if_any(name).at("examine", to.path_of(name))?;
        if there.is_some_and(|there| there.identity() == wanted.identity()) {
            return Ok(());
        }
        let result = match there {
            None => from.link(of, &to, name),
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
        };
        let result = self.context.or_replace(result, || {
            temporary::replace(&to, name, |temporary| from.link(of, &to, temporary))
        });
        match result {
            Err(error) if error.raw_os_error() == Some(libc::EMLINK) => self.separate(&link.of),
            // What has the first name is mounted there.
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => self.alone(link, &to),
            result => published(result, &to, link.path.file_name()),
        }
    }

    fn planned(&self, path: &RelPath) -> Result<&'a FileEntry> {
        let found = self.plan.file(path);
        found.ok_or_else(|| Error::new(ErrorKind::Internal, "a name without its file"))
    }

    fn open_waiting(&self, planned: &'a FileEntry, parent: &Dir) -> Result<Job<'a>> {
        loop {
            let mut blob = self.blobs(std::slice::from_ref(planned))?;
            match self.open(planned, blob.remove(0), parent.device()?)? {
                Some(job) => return Ok(job),
                None => self.wait_for(planned)?,
            }
        }
    }

    /// A further name gets a file of its own: nothing can be linked from one mount to another.
    fn alone(&self, link: &Link, to: &Dir) -> Result<()> {
        let job = self.open_waiting(self.planned(&link.of)?, to)?;
        let (mut temporary, placement) = self.make(to, &job)?;
        let name = link.path.file_name();
        let result = temporary.publish(os_name(name), self.context.no_clobber);
        published(result, to, name)?;
        let placements = self.placements.lock();
        let mut placements = placements.unwrap_or_else(PoisonError::into_inner);
        placements.count(placement, job.blob.data_size);
        // Where the first name was left, this one has the bytes.
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.logical_bytes = left.logical_bytes.saturating_sub(job.blob.size);
        left.data_bytes = left.data_bytes.saturating_sub(job.blob.data_size);
        Ok(())
    }

    /// A view had room for the first name and not for all: the file gets an inode of its own, and all its names that.
    fn separate(&self, path: &RelPath) -> Result<()> {
        let planned = self.planned(path)?;
        let parent = self.context.output.open(path.parent().as_ref())?;
        let job = self.open_waiting(planned, &parent)?;
        let (mut temporary, _) = self.make(&parent, &job)?;
        let of = os_name(path.file_name());
        published(temporary.publish(of, false), &parent, path.file_name())?;
        for Link { path: other, .. } in self.plan.others(path) {
            let to = self.context.output.open(other.parent().as_ref())?;
            let name = os_name(other.file_name());
            let result = temporary::replace(&to, name, |temporary| parent.link(of, &to, temporary));
            published(result, &to, other.file_name())?;
        }
        Ok(())
    }
}

/// An error about a blob is an error about the file that needs it.
fn blame(error: Error, planned: &FileEntry) -> Error {
    if error.kind() != ErrorKind::Damaged {
        return error;
    }
    Error::damaged(format!("{} cannot be restored", planned.path))
        .with_path(planned.path.as_path())
        .with_hint(error.hint().unwrap_or_default().to_owned())
        .with_source(error)
}
