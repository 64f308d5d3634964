//! Read-only files: hardlinks of a view, or of a cache entry, which is made where there is none.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;

use super::base::Bases;
use super::content::Content;
use super::directories::published;
use super::job::{Job, Source};
use super::materialize::{ATTEMPTS, Placing, blame};
use crate::format::content::ContentId;
use crate::fs::place::cannot_share;
use crate::fs::{Dir, attributes, temporary};
use crate::pass::content_of;
use crate::store::{Existing, Linkable, NewView, WORTH_AN_ENTRY};
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::placement::{LinkMode, Placement};

impl<'a> Placing<'a> {
    /// The inodes that the read-only files of a group can be hardlinks of; missing views are made, in one commit.
    pub(super) fn views(&self, jobs: &[Job<'_>]) -> Result<Vec<Option<Linkable<'a>>>> {
        let store = self.context.store;
        let wants_link = |job: &&Job<'_>| self.wants_link(job.planned, job.device);
        let linked = jobs.iter().filter(wants_link);
        let known = store.known_views(linked.filter_map(Job::view))?;
        let mut sources = Vec::with_capacity(jobs.len());
        let mut missing = Vec::new();
        for (index, job) in jobs.iter().enumerate() {
            let source = match job.blob() {
                _ if !wants_link(&job) => None,
                Some((blob, opened)) => {
                    let source = store.find_view(blob, opened, &job.wanted, &known)?;
                    if source.is_none() {
                        missing.push(index);
                    }
                    source
                }
                None => self.cached(job)?,
            };
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
        let Some((blob, opened)) = job.blob() else {
            return Ok(None);
        };
        let (store, wanted) = (context.store, &job.wanted);
        store
            .make_view(blob, opened, wanted, context.privileged, context.activity)
            .map_err(|error| blame(error, job.planned))
    }

    /// Links the output to a view. `None`: not possible, try the next way.
    pub(super) fn hardlink(
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
        if job.blob().is_none() {
            if let Some((bases, content)) = self.entry_of(job) {
                bases.cache.forget(content, &job.wanted);
            }
            return self.make_cached(job);
        }
        let Some(view) = self.make_view(job)? else {
            return Ok(None);
        };
        let mut views = [view];
        store.commit_views(&mut views, existing)?;
        store.committed_view(&views[0])
    }

    fn source_again(&self, job: &Job<'_>) -> Result<Option<Linkable<'a>>> {
        let current = match job.blob() {
            Some((blob, _)) => self.context.store.current_view(blob, &job.wanted)?,
            None => return self.cached(job),
        };
        match current {
            Some(view) => Ok(Some(view)),
            None => self.new_source(job, Existing::Keep),
        }
    }

    /// The cache entry that a file of pages can be a hardlink of; made where there is none. `None`: it is not worth one, or
    /// cannot have these attributes here.
    fn cached(&self, job: &Job<'_>) -> Result<Option<Linkable<'a>>> {
        let Some((bases, content)) = self.entry_of(job) else {
            return Ok(None);
        };
        let found = bases
            .cache
            .linkable(content, job.planned.size, &job.wanted)?;
        match found {
            Some(found) => Ok(Some(found)),
            None => self.make_cached(job),
        }
    }

    fn entry_of(&self, job: &Job<'_>) -> Option<(&'a Bases<'a>, ContentId)> {
        match (&job.planned.content, self.context.bases) {
            (Content::Pages { id: Some(id), .. }, Some(bases))
                if job.data_size >= WORTH_AN_ENTRY =>
            {
                Some((bases, *id))
            }
            _ => None,
        }
    }

    /// What an entry is named by is hashed before it has the name.
    fn make_cached(&self, job: &Job<'_>) -> Result<Option<Linkable<'a>>> {
        let (Some((bases, content)), Source::Pages(first)) = (self.entry_of(job), &job.source)
        else {
            return Ok(None);
        };
        let context = self.context;
        let (slot, file) = context.store.create_slot()?;
        let staging = &context.store.root.staging;
        let unobserved = context.activity.unobserved();
        // From packs alone: what is wrong with another entry does not come into one that many will link to.
        self.decode(staging, job, *first, &file, &unobserved)
            .map_err(|error| blame(error, job.planned))?;
        let asked = || unobserved.advance(0);
        let is = content_of(&file, job.planned.size, &asked);
        context.activity.check()?;
        if is.at("read", staging.path())? != content {
            let error = Error::damaged("its pages do not add up to its content");
            return Err(blame(error, job.planned));
        }
        let wanted = &job.wanted.attributes;
        if let Some(unset) = attributes::set(&file, wanted, context.privileged).first() {
            tracing::debug!(what = unset.what, error = %unset.error, "no entry with these attributes");
            return Ok(None);
        }
        bases.keep_linked(slot, &file, content, &job.wanted)
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
}
