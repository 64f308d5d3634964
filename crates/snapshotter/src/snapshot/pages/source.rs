//! Files in pieces: large ones a part at a time, small ones many together, in the order of the page space.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use super::super::Context;
use super::super::capture::changed;
use super::super::opened::Opened;
use super::super::planned::PlannedFile;
use super::cutter::{FilePages, Page};
use super::diff;
use crate::format::content::{PageDigest, page_digest};
use crate::fs::{end, scan};
use crate::words::error::{At, Error, Result};
use crate::words::page::{PAGE_BYTES, pages};
use crate::words::relpath::RelPath;

/// Pages of a piece.
const PIECE_PAGES: u64 = 256;

/// Files from this size on are read in parts, in bytes.
pub(super) const LARGE: u64 = 1 << 20;

/// Small files of a piece at most, and their bytes.
const TOGETHER: usize = 64;

/// What one thread reads at once.
#[derive(Debug)]
pub(super) enum Piece<'s> {
    /// Small files, by their numbers.
    Small(Vec<usize>),
    Part(Part<'s>),
    /// A file that was to be read in parts and is not there any more.
    Gone(usize, Error),
}

/// Pages of a large file.
#[derive(Debug)]
pub(super) struct Part<'s> {
    pub(super) of: Arc<Whole<'s>>,
    runs: Vec<std::ops::Range<u64>>,
    /// No other one follows.
    pub(super) is_last: bool,
}

/// A file that is read to its end, by one thread or several.
#[derive(Debug)]
pub(super) struct Whole<'s> {
    pub(super) number: usize,
    pub(super) opened: Opened<'s>,
    /// A copy, where the file does not tell how long it is.
    copy: Option<File>,
    pub(super) size: u64,
    /// Its path, if it is a difference.
    diff: Option<RelPath>,
    /// Somebody may write it by a mapping, and its times would not tell.
    pub(super) is_written: bool,
    /// What its pages have become so far.
    pub(super) pages: Mutex<Option<FilePages>>,
}

impl<'s> Whole<'s> {
    /// Opens a file; an error inside says that it has gone.
    pub(super) fn open(
        context: &Context<'s>,
        files: &[PlannedFile],
        number: usize,
        to_end: bool,
    ) -> Result<Result<Self>> {
        let opened = match Opened::open(context, &files[number])? {
            Ok(opened) => opened,
            Err(gone) => return Ok(Err(gone)),
        };
        let (copy, size) = if to_end || opened.goes_beyond()? {
            let (file, size) = copy_to_end(context, &opened)?;
            (Some(file), size)
        } else {
            (None, opened.before.size)
        };
        if !diff::is_as_planned(&files[number], &opened, copy.is_some()) {
            return Err(changed(&opened.path));
        }
        context.activity.start(&files[number].path, size);
        let is_written = copy.is_none() && opened.is_open_for_writing();
        Ok(Ok(Self {
            number,
            opened,
            copy,
            size,
            diff: files[number].diff.then(|| files[number].path.clone()),
            is_written,
            pages: Mutex::default(),
        }))
    }

    fn file(&self) -> &File {
        self.copy.as_ref().unwrap_or(&self.opened.file)
    }

    /// Runs of pages with data, ascending.
    pub(super) fn runs(&self) -> Result<Vec<std::ops::Range<u64>>> {
        let map =
            scan::extents(self.file(), self.size).at("find the extents of", &self.opened.path)?;
        if let Some(path) = &self.diff {
            diff::check_holes(path, &self.opened, &map)?;
        }
        let mut runs: Vec<std::ops::Range<u64>> = Vec::new();
        for extent in map.extents() {
            let run = extent.offset / PAGE_BYTES as u64..pages(extent.end());
            match runs.last_mut() {
                Some(last) if run.start <= last.end => last.end = run.end,
                _ => runs.push(run),
            }
        }
        Ok(runs)
    }

    /// Reads pages.
    ///
    /// # Errors
    /// `UnexpectedEof` where it is shorter by now.
    pub(super) fn read(&self, runs: &[std::ops::Range<u64>], into: &mut Pages) -> io::Result<()> {
        into.clear();
        for run in runs {
            into.read(self.file(), self.size, run.clone())?;
        }
        Ok(())
    }
}

/// It gives bytes that its size does not tell of, so only reading says how many there are.
fn copy_to_end(context: &Context<'_>, opened: &Opened<'_>) -> Result<(File, u64)> {
    let (_slot, copy) = context.store.create_slot()?;
    let activity = context.activity;
    let copied = end::copy_to_end(&opened.file, &copy, &|_| activity.advance(0));
    activity.check()?;
    Ok((copy, copied.at("capture", &opened.path)?))
}

/// Pages that were read and hashed.
#[derive(Debug, Default)]
pub(super) struct Pages {
    bytes: Vec<u8>,
    pages: Vec<(u64, Option<PageDigest>)>,
}

impl Pages {
    fn clear(&mut self) {
        self.bytes.clear();
        self.pages.clear();
    }

    fn read(&mut self, file: &File, size: u64, run: std::ops::Range<u64>) -> io::Result<()> {
        let start = run.start * PAGE_BYTES as u64;
        let length = (run.end * PAGE_BYTES as u64)
            .min(size)
            .saturating_sub(start);
        let at = self.bytes.len();
        // A piece has so few pages.
        self.bytes
            .resize(at + (run.end - run.start) as usize * PAGE_BYTES, 0);
        file.read_exact_at(&mut self.bytes[at..][..length as usize], start)?;
        let (all, _) = self.bytes[at..].as_chunks::<PAGE_BYTES>();
        let digests = all.iter().map(page_digest);
        self.pages.extend(run.zip(digests));
        Ok(())
    }

    /// All of them; nothing of those that are zero.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, Option<Page<'_>>)> {
        let all = self.pages.iter().zip(self.bytes.chunks(PAGE_BYTES));
        all.map(|(&(index, digest), bytes)| {
            let page = digest.map(|digest| Page {
                index,
                digest,
                bytes,
            });
            (index, page)
        })
    }

    /// Bytes that were read.
    pub(super) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Which piece comes next.
pub(super) struct Pieces<'a> {
    context: &'a Context<'a>,
    files: &'a [PlannedFile],
    /// Those that are left, and whether one is to be read until it ends.
    left: VecDeque<(usize, bool)>,
    /// The one that is read in parts, and its runs that are left.
    current: Option<(Arc<Whole<'a>>, VecDeque<std::ops::Range<u64>>)>,
    given: u64,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(
        context: &'a Context<'a>,
        files: &'a [PlannedFile],
        left: VecDeque<(usize, bool)>,
    ) -> Self {
        Self {
            context,
            files,
            left,
            current: None,
            given: 0,
        }
    }

    /// The next piece, with its number.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Piece<'a>)>> {
        let piece = match self.current.take() {
            Some((whole, runs)) => Some(Piece::Part(self.part(whole, runs))),
            None => self.begin()?,
        };
        Ok(piece.map(|piece| {
            self.given += 1;
            (self.given - 1, piece)
        }))
    }

    fn begin(&mut self) -> Result<Option<Piece<'a>>> {
        let is_small =
            |&(number, to_end): &(usize, bool)| !to_end && self.files[number].size < LARGE;
        let mut small = Vec::new();
        let mut bytes = 0;
        while small.len() < TOGETHER
            && bytes < LARGE
            && let Some(&(number, _)) = self.left.front().filter(|next| is_small(next))
        {
            bytes += self.files[number].size;
            small.push(number);
            self.left.pop_front();
        }
        if !small.is_empty() {
            return Ok(Some(Piece::Small(small)));
        }
        let Some((number, to_end)) = self.left.pop_front() else {
            return Ok(None);
        };
        match Whole::open(self.context, self.files, number, to_end)? {
            Ok(whole) => {
                let runs = whole.runs()?.into();
                Ok(Some(Piece::Part(self.part(Arc::new(whole), runs))))
            }
            Err(gone) => Ok(Some(Piece::Gone(number, gone))),
        }
    }

    fn part(&mut self, of: Arc<Whole<'a>>, mut left: VecDeque<std::ops::Range<u64>>) -> Part<'a> {
        let (mut runs, mut room) = (Vec::new(), PIECE_PAGES);
        while room > 0
            && let Some(run) = left.front_mut()
        {
            let end = run.end.min(run.start + room);
            room -= end - run.start;
            runs.push(run.start..end);
            run.start = end;
            if run.is_empty() {
                left.pop_front();
            }
        }
        let is_last = left.is_empty();
        if !is_last {
            self.current = Some((Arc::clone(&of), left));
        }
        Part { of, runs, is_last }
    }
}

impl Part<'_> {
    pub(super) fn read(&self, into: &mut Pages) -> io::Result<()> {
        self.of.read(&self.runs, into)
    }
}
