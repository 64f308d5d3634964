//! Further names of files that were just placed.

use std::io;

use super::content::FileEntry;
use super::directories::{published, unless_mounted};
use super::job::Job;
use super::materialize::{ATTEMPTS, Placing};
use super::plan::Link;
use crate::fs::{Dir, temporary};
use crate::lock::lock;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::relpath::{RelPath, os_name};

impl<'a> Placing<'a> {
    /// Makes a further name of a file just placed. Another restore into the same directory may replace that file in
    /// between.
    pub(super) fn link(&self, link: &Link) -> Result<()> {
        self.context.activity.check()?;
        let mut left = ATTEMPTS;
        loop {
            match self.try_link(link) {
                Err(error) if error.kind() == ErrorKind::NotFound && left > 0 => left -= 1,
                result => {
                    if unless_mounted(self.context, &link.path, result)?.is_none() {
                        let mut left = lock(&self.left);
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
        lock(&self.placements).count(placement, job.data_size);
        // Where the first name was left, this one has the bytes.
        let mut left = lock(&self.left);
        if left.paths.remove(&link.of) {
            left.logical_bytes = left.logical_bytes.saturating_sub(job.planned.size);
            left.data_bytes = left.data_bytes.saturating_sub(job.data_size);
        }
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
            let result = published(result, &to, other.file_name());
            unless_mounted(self.context, other, result)?;
        }
        Ok(())
    }
}
