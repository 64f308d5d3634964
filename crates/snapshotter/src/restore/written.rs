//! Files with an inode of their own: as they are there already, written early, cloned or copied.

use std::fs::File;
use std::io;

use super::content::Content;
use super::directories::{self, published, warn_unset};
use super::job::{Job, Source};
use super::materialize::{Placing, blame};
use super::plan::Link;
use crate::fs::dir::Kind;
use crate::fs::place::cannot_share;
use crate::fs::temporary::Temporary;
use crate::fs::{Dir, Stat, attributes};
use crate::pass::{Hashing, Output, content_of, holes_are_zero, is_wrong, pass};
use crate::store::{Told, is_unreadable};
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::form::Form;
use crate::words::placement::{LinkMode, Placement};
use crate::words::relpath::os_name;

/// Copies of at least this many bytes are checked against the free space first.
pub(super) const LARGE: u64 = 1 << 20;

impl Placing<'_> {
    /// Whether the output has the file already: equal bytes and attributes, and an inode that is nobody else's.
    pub(super) fn is_present(&self, parent: &Dir, job: &Job<'_>) -> Result<bool> {
        let name = job.name();
        let path = || parent.path_of(name);
        let Some(stat) = parent.stat_if_any(name).at("examine", path())? else {
            return Ok(false);
        };
        if self.context.no_clobber {
            return Err(directories::exists(&path()));
        }
        if stat.kind != Kind::File || stat.size != job.planned.size {
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
        let progress = |_| context.activity.advance(0);
        let result = match job.blob() {
            Some((blob, _)) => {
                let map = context.store.extents(blob)?;
                let hashes = pass(file, &map, Output::None, Hashing::Checksum, &progress);
                hashes.and_then(|hashes| {
                    Ok(hashes.checksum == blob.checksum && holes_are_zero(file, &map)?)
                })
            }
            None => match job.planned.content {
                Content::Pages { id: Some(id), .. } => {
                    content_of(file, job.planned.size, &|| progress(0)).map(|found| found == id)
                }
                // Nobody knows what to compare with.
                _ => Ok(false),
            },
        };
        context.activity.check()?;
        Ok(match result {
            Err(error) if is_wrong(&error) => Ok(false),
            result => result,
        })
    }

    /// Makes a file of its own and gives it its name.
    pub(super) fn write(&self, parent: &Dir, job: &Job<'_>) -> Result<Placement> {
        if self.take_early(parent, job)? {
            return Ok(Placement::Copy);
        }
        let (mut temporary, placement) = self.make(parent, job)?;
        self.publish(parent, job, &mut temporary)?;
        Ok(placement)
    }

    /// Gives a file that is complete its name.
    pub(super) fn publish(
        &self,
        parent: &Dir,
        job: &Job<'_>,
        temporary: &mut Temporary<&Dir>,
    ) -> Result<()> {
        let result = temporary.publish(job.name(), self.context.no_clobber);
        published(result, parent, job.planned.path.file_name())
    }

    /// Gives the name to a file that was written while its blob was fetched, if there is one.
    fn take_early(&self, parent: &Dir, job: &Job<'_>) -> Result<bool> {
        let early = self.context.early.zip(job.blob());
        let file = early.and_then(|(early, (blob, _))| early.take(&blob.checksum, job.device));
        let Some(file) = file else {
            return Ok(false);
        };
        let mut temporary = Temporary::unnamed(parent, file);
        self.dress(job, temporary.file());
        match temporary.publish(job.name(), self.context.no_clobber) {
            // One filesystem, and yet not one: another mount of it, or another quota's tree.
            Err(error) if cannot_share(&error) => Ok(false),
            result => {
                published(result, parent, job.planned.path.file_name())?;
                let _ = self.context.activity.advance(job.data_size);
                Ok(true)
            }
        }
    }

    pub(super) fn dress(&self, job: &Job<'_>, file: &File) {
        let unset = attributes::set(file, &job.wanted.attributes, self.context.privileged);
        warn_unset(self.context, &job.planned.path, unset);
    }

    /// Makes a complete file without a final name: cloned where the filesystem can, else copied and verified.
    pub(super) fn make<'d>(
        &self,
        parent: &'d Dir,
        job: &Job<'_>,
    ) -> Result<(Temporary<&'d Dir>, Placement)> {
        if let Source::Pages(first) = job.source {
            let mut made = self.make_of_pages(parent, &[(job, first)])?;
            return made
                .pop()
                .ok_or_else(|| Error::new(ErrorKind::Internal, "a file was not made"));
        }
        let path = || parent.path_of(job.name());
        let temporary = Temporary::create(parent, 0o600).at("create", path())?;
        let placement = self.fill(parent, job, temporary.file())?;
        self.dress(job, temporary.file());
        Ok((temporary, placement))
    }

    fn fill(&self, parent: &Dir, job: &Job<'_>, file: &File) -> Result<Placement> {
        let context = self.context;
        if let Some((_, opened)) = job.blob()
            && opened.form == Form::Plain
            && context
                .cloning
                .is_worth_it(job.device, job.data_size, context.link_mode)
            && context
                .cloning
                .clone(job.device, &opened.file, file)
                .at("clone", parent.path_of(job.name()))?
        {
            return Ok(Placement::Reflink);
        }
        if context.link_mode == LinkMode::Reflink {
            self.warn(job, why_copied(&job.source));
        }
        if job.data_size >= LARGE {
            context.store.require_space(parent, job.data_size)?;
        }
        self.copy(job, file)
            .map_err(|error| blame(error, job.planned))?;
        Ok(Placement::Copy)
    }

    fn copy(&self, job: &Job<'_>, file: &File) -> Result<()> {
        let Some((blob, opened)) = job.blob() else {
            return Err(Error::new(ErrorKind::Internal, "a copy of nothing"));
        };
        let sync_soon = false;
        let output = Output::File { file, sync_soon };
        let (store, activity) = (self.context.store, self.context.activity);
        store.copy_verified(blob, opened, output, activity, Told::Here)
    }
}

pub(super) fn why_copied(source: &Source) -> &'static str {
    match source {
        Source::Blob(source) if source.1.form == Form::Plain => {
            "copied: the filesystem cannot reflink it"
        }
        Source::Blob(_) => "copied: it is stored packed, as it was delivered",
        Source::Pages(_) => "copied: it is stored in pages",
    }
}
