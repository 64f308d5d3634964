//! A file of a plan, opened, and the looks before and after it is read.

use std::fs::File;
use std::path::PathBuf;

use super::Context;
use crate::fs::dir::Kind;
use crate::fs::{Stat, attributes, beneath, end};
use crate::words::entry::Attributes;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::relpath::RelPath;

/// An opened source file and the first look at it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) before: Stat,
    pub(super) attributes: Attributes,
    pub(super) path: PathBuf,
}

/// What two looks at a file tell of what was read between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looks {
    Same,
    /// Only the change time moved: somebody linked it or set an attribute, or put its time back.
    Touched,
    Changed,
}

impl Opened {
    /// Opens it and takes the first look; an error inside says that it is not there any more, or no regular file.
    pub(super) fn open(context: &Context<'_>, path: &RelPath) -> Result<Result<Self>> {
        let activity = context.activity;
        let wanted = || activity.advance(0);
        let opened = beneath::open_file(context.base, path, &wanted);
        activity.check()?;
        let path = context.base.path().join(path);
        let file = match opened {
            Err(error) if beneath::has_gone(&error) => {
                return Ok(Err(Error::io("open", &path, error)));
            }
            result => result.at("open", &path)?,
        };
        let before = Stat::of_file(&file).at("examine", &path)?;
        if before.kind != Kind::File {
            let error = format!("{} is no longer a regular file", path.display());
            return Ok(Err(Error::new(ErrorKind::Busy, error).with_path(path)));
        }
        let attributes = attributes::of_file(&file, &before).at("read the attributes of", &path)?;
        Ok(Ok(Self {
            file,
            before,
            attributes,
            path,
        }))
    }

    /// Whether it has bytes after the end that its size tells, and that is still its size.
    pub(super) fn goes_beyond(&self) -> Result<bool> {
        let size = self.before.size;
        Ok(end::goes_beyond(&self.file, size).at("read", &self.path)? && self.look()?.size == size)
    }

    pub(super) fn look(&self) -> Result<Stat> {
        Stat::of_file(&self.file).at("examine", &self.path)
    }

    /// Looks again.
    pub(super) fn compare(&self) -> Result<Looks> {
        let after = self.look()?;
        Ok(if after.unchanged_since(&self.before) {
            Looks::Same
        } else if after.same_bytes_since(&self.before) {
            Looks::Touched
        } else {
            Looks::Changed
        })
    }
}
