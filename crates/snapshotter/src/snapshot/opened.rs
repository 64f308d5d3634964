//! A file of a plan, opened, and the looks before and after it is read. Mostly it is beneath the base directory; where the
//! snapshot is made of another one, somebody gives it.

use std::fs::File;
use std::path::PathBuf;

use super::Context;
use super::planned::PlannedFile;
use crate::fs::dir::Kind;
use crate::fs::place::{Writers, writers};
use crate::fs::{Stat, attributes, beneath, end};
use crate::store::Slot;
use crate::words::entry::Attributes;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::relpath::RelPath;

/// Gives the files of a plan that are in no directory.
pub(crate) trait Contents: Sync {
    /// The file of a path.
    ///
    /// # Errors
    /// `Damaged` where its bytes are not what they were.
    fn open(&self, path: &RelPath) -> Result<Given<'_>>;
}

/// A file that nobody writes, with the right bytes in it.
#[derive(Debug)]
pub(crate) struct Given<'s> {
    pub(crate) file: File,
    /// Its name in staging, if it was made for this.
    pub(crate) slot: Option<Slot<'s>>,
    /// Those of the snapshot's file, which are not the given one's.
    pub(crate) attributes: Attributes,
}

/// An opened source file and the first look at it.
#[derive(Debug)]
pub(super) struct Opened<'s> {
    pub(super) file: File,
    pub(super) before: Stat,
    pub(super) attributes: Attributes,
    pub(super) path: PathBuf,
    /// Its name in staging, if it may be kept as it is.
    pub(super) slot: Option<Slot<'s>>,
}

/// What two looks at a file tell of what was read between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looks {
    Same,
    /// Only the change time moved: somebody linked it or set an attribute, or put its time back.
    Touched,
    Changed,
}

impl<'s> Opened<'s> {
    /// Opens it and takes the first look; an error inside says that it is not there any more, or
    /// something else, or is to be left out.
    pub(super) fn open(context: &Context<'s>, planned: &PlannedFile) -> Result<Result<Self>> {
        let path = &planned.path;
        if let Some(contents) = context.contents {
            return Self::given(contents.open(path)?, path).map(Ok);
        }
        let activity = context.activity;
        let wanted = || activity.advance(0);
        let opened = beneath::open_file(context.base, path, &wanted);
        activity.check()?;
        let path = context.base.path().join(path);
        let file = match opened {
            Err(error) if beneath::has_gone(&error) || context.is_left_out(&error) => {
                return Ok(Err(Error::io("open", &path, error)));
            }
            result => result.at("open", &path)?,
        };
        let before = Stat::of_file(&file).at("examine", &path)?;
        let kind = match planned.is_device {
            true => Kind::BlockDevice,
            false => Kind::File,
        };
        if before.kind != kind {
            let error = format!("{} is no longer what it was", path.display());
            return Ok(Err(Error::new(ErrorKind::Busy, error).with_path(path)));
        }
        let attributes = attributes::of_file(&file, &before).at("read the attributes of", &path)?;
        Ok(Ok(Self {
            file,
            before,
            attributes,
            path,
            slot: None,
        }))
    }

    fn given(given: Given<'s>, path: &RelPath) -> Result<Self> {
        let path = path.as_path().to_owned();
        Ok(Self {
            before: Stat::of_file(&given.file).at("examine", &path)?,
            file: given.file,
            attributes: given.attributes,
            path,
            slot: given.slot,
        })
    }

    /// Whether it has bytes after the end that its size tells, and that is still its size.
    pub(super) fn goes_beyond(&self) -> Result<bool> {
        let size = self.before.size;
        Ok(end::goes_beyond(&self.file, size).at("read", &self.path)? && self.look()?.size == size)
    }

    /// Whether somebody could change its bytes without its times telling: through a mapping, or as a device.
    pub(super) fn is_open_for_writing(&self) -> bool {
        self.before.kind == Kind::BlockDevice || writers(&self.file) == Writers::Some
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
