//! Files into pages of packs, by several threads: each takes the next piece, reads and hashes it; in the order of the pieces it
//! is decided where each page goes ([`cutter`](super::cutter)); whoever filled a frame compresses it, and appends it when its
//! turn has come. Memory is that of a piece and its frames a thread.
//!
//! A file counts as captured only if it looked the same before and after it was read, as in format v1. One that did not is read
//! again after the others: pages that are the same by then are known, so that costs reading and nothing else.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Mutex;

use super::super::Context;
use super::super::capture::{Outcome, TORN, changed};
use super::super::opened::Looks;
use super::super::planned::{Plan, PlannedFile};
use super::super::walk::vanished;
use super::cutter::{Cutter, FilePages, Frame};
use super::packing::Packing;
use super::source::{LARGE, Pages, Part, Piece, Pieces, Whole};
use crate::format::content::{ContentHasher, ContentId};
use crate::format::map::Map;
use crate::format::pack::{Compression, FrameEncoder};
use crate::lock::lock;
use crate::pass::lanes::Helpers;
use crate::pass::turns::{StopOnPanic, Turns};
use crate::words::entry::Attributes;
use crate::words::error::{At, Error, ErrorKind, Result};
use crate::words::placement::Placement;
use crate::words::progress::{Event, WarningKind};

/// What a file became.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) attributes: Attributes,
    pub(super) size: u64,
    pub(super) content: ContentId,
    /// Where its pages are, from its first one.
    pub(super) map: Map,
    /// The number of its first page's digest.
    pub(super) digests: u64,
    /// How many of its pages the parent has at the same place.
    pub(super) same_pages: u64,
    /// How many of those nobody read.
    pub(super) inherited: u64,
}

/// What all rounds share.
pub(super) struct Capture<'a, 's> {
    pub(super) context: &'a Context<'a>,
    pub(super) cutter: Mutex<Cutter<'a>>,
    pub(super) packing: Packing<'s>,
    pub(super) compression: Compression,
}

/// What was found out about a file that is read again.
#[derive(Clone, Copy, Debug, Default)]
struct Tries {
    changes: u32,
    touched: Option<ContentId>,
    torn: Option<ContentId>,
}

/// What to do with what was read.
enum Verdict {
    Take,
    Again,
}

impl Capture<'_, '_> {
    /// Captures files of a plan and says what each became.
    pub(super) fn files(
        &self,
        files: &[PlannedFile],
        plan: &Plan,
    ) -> Result<Vec<Outcome<Captured>>> {
        let mut done: Vec<Option<Outcome<Captured>>> = Vec::new();
        done.resize_with(files.len(), || None);
        let done = Mutex::new(done);
        let tries = Mutex::default();
        let mut left: VecDeque<_> = (0..files.len()).map(|number| (number, false)).collect();
        while !left.is_empty() {
            let round = Round {
                capture: self,
                files,
                plan,
                pieces: Mutex::new(Pieces::new(self.context, files, left)),
                turns: Turns::default(),
                tries: &tries,
                done: &done,
                again: Mutex::default(),
                failed: Mutex::default(),
            };
            left = round.run()?;
        }
        let done = std::mem::take(&mut *lock(&done));
        let done: Option<Vec<_>> = done.into_iter().collect();
        done.ok_or_else(|| {
            let text = "a file was neither captured nor refused";
            Error::new(ErrorKind::Internal, text)
        })
    }
}

struct Round<'r, 'a, 's> {
    capture: &'r Capture<'a, 's>,
    files: &'r [PlannedFile],
    plan: &'r Plan,
    pieces: Mutex<Pieces<'r>>,
    turns: Turns,
    tries: &'r Mutex<HashMap<usize, Tries>>,
    done: &'r Mutex<Vec<Option<Outcome<Captured>>>>,
    again: Mutex<VecDeque<(usize, bool)>>,
    failed: Mutex<Option<Error>>,
}

/// A small file that was read.
struct Small {
    number: usize,
    attributes: Attributes,
    size: u64,
    replaced: bool,
    pages: Pages,
}

impl Round<'_, '_, '_> {
    /// Says which files are to be read again.
    fn run(self) -> Result<VecDeque<(usize, bool)>> {
        let helpers = Helpers::hire(usize::MAX);
        std::thread::scope(|scope| {
            let start = |_| {
                let thread = std::thread::Builder::new().name("snapshotter-pages".to_owned());
                // Out of threads: slower, and right.
                thread.spawn_scoped(scope, || self.work()).ok()
            };
            let others: Vec<_> = (0..helpers.count()).map_while(start).collect();
            self.work();
            for other in others {
                if let Err(panic) = other.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        });
        let failed = lock(&self.failed).take();
        failed.map_or(Ok(()), Err)?;
        let again = std::mem::take(&mut *lock(&self.again));
        Ok(again)
    }

    fn work(&self) {
        let _stop = StopOnPanic(&self.turns);
        let _stop = StopOnPanic(&self.capture.packing.turns);
        if let Err(error) = self.work_on() {
            // The first is why the others were stopped.
            lock(&self.failed).get_or_insert(error);
            self.turns.stop();
            self.capture.packing.turns.stop();
        }
    }

    fn work_on(&self) -> Result<()> {
        let encoder = FrameEncoder::new(self.capture.compression);
        let mut encoder = encoder.map_err(no_memory)?;
        let mut pages = Pages::default();
        loop {
            self.capture.context.activity.check()?;
            let Some((number, piece)) = lock(&self.pieces).next()? else {
                return Ok(());
            };
            let frames = match piece {
                Piece::Small(files) => self.small(number, &files)?,
                Piece::Part(part) => self.part(number, &part, &mut pages)?,
                Piece::Gone(file, error) => {
                    let _turn = self.turn(number)?;
                    self.gone(file, error)?;
                    Vec::new()
                }
            };
            for frame in frames {
                let encoded = encoder.encode(frame.bytes);
                let encoded = encoded.map_err(no_memory)?;
                self.capture.packing.push(frame.number, &encoded)?;
            }
        }
    }

    fn turn(&self, number: u64) -> Result<crate::pass::turns::Turn<'_>> {
        self.turns.wait_for(number).map_err(|_| Error::cancelled())
    }

    fn small(&self, number: u64, files: &[usize]) -> Result<Vec<Frame>> {
        let mut small = Vec::with_capacity(files.len());
        for &file in files {
            small.extend(self.read_small(file)?);
        }
        let mut frames = Vec::new();
        let _turn = self.turn(number)?;
        let mut cutter = lock(&self.capture.cutter);
        for one in small {
            let mut file = cutter.file(&self.files[one.number], one.size);
            cutter
                .place_all(&mut file, one.pages.iter(), true, &mut frames)
                .at("store", self.path(one.number))?;
            let captured = captured(one.attributes, one.size, file);
            self.take(one.number, captured, one.replaced);
        }
        Ok(frames)
    }

    /// `None`: it has gone, or is to be read in parts.
    fn read_small(&self, number: usize) -> Result<Option<Small>> {
        let mut pages = Pages::default();
        loop {
            let context = self.capture.context;
            let whole = match Whole::open(context, self.files, number, false)? {
                Ok(whole) => whole,
                Err(error) => {
                    self.gone(number, error)?;
                    return Ok(None);
                }
            };
            if whole.size >= LARGE {
                self.again(number, false);
                return Ok(None);
            }
            let read = whole.runs().map(|runs| whole.read(&runs, &mut pages))?;
            let Some(looks) = self.looks(&whole, read)? else {
                return Ok(None);
            };
            let mut content = ContentHasher::new(whole.size);
            pages
                .iter()
                .filter_map(|(_, page)| page)
                .for_each(|page| content.page(page.index, &page.digest));
            match self.judge(&whole, looks, content.finish())? {
                Verdict::Again => {}
                Verdict::Take => {
                    context.activity.advance(pages.len()).ok();
                    return Ok(Some(Small {
                        number,
                        replaced: self.is_replaced(&whole),
                        size: whole.size,
                        attributes: whole.opened.attributes,
                        pages,
                    }));
                }
            }
        }
    }

    fn part(&self, number: u64, part: &Part<'_>, pages: &mut Pages) -> Result<Vec<Frame>> {
        let whole = &*part.of;
        let read = part.read(pages);
        let _turn = self.turn(number)?;
        let mut frames = Vec::new();
        let mut file = lock(&whole.pages);
        let mut cutter = lock(&self.capture.cutter);
        let planned = &self.files[whole.number];
        let begin = || cutter.file(planned, whole.size);
        let mut pages_of = file.take().unwrap_or_else(begin);
        if read.is_ok() && !pages_of.is_short() {
            let all = pages.iter();
            let placed = cutter.place_all(&mut pages_of, all, part.is_last, &mut frames);
            placed.at("store", &whole.opened.path)?;
            self.capture.context.activity.advance(pages.len()).ok();
        } else {
            pages_of.end_short(read.err());
        }
        drop(cutter);
        if part.is_last {
            self.end(whole, pages_of)?;
        } else {
            *file = Some(pages_of);
        }
        Ok(frames)
    }

    fn end(&self, whole: &Whole<'_>, mut pages: FilePages) -> Result<()> {
        let read = pages.short().map_or(Ok(()), Err);
        let Some(looks) = self.looks(whole, read)? else {
            return Ok(());
        };
        match self.judge(whole, looks, pages.content())? {
            Verdict::Again => self.again(whole.number, false),
            Verdict::Take => {
                let captured = captured(whole.opened.attributes.clone(), whole.size, pages);
                self.take(whole.number, captured, self.is_replaced(whole));
            }
        }
        Ok(())
    }

    /// The look after reading. `None`: it ended before its size, which is still that, and is to be read until it ends.
    fn looks(&self, whole: &Whole<'_>, read: io::Result<()>) -> Result<Option<Looks>> {
        let looks = whole.opened.compare()?;
        match read {
            Ok(()) => Ok(Some(looks)),
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
                Err(error).at("capture", &whole.opened.path)
            }
            Err(_) if looks == Looks::Changed => Ok(Some(looks)),
            Err(_) => {
                self.again(whole.number, true);
                Ok(None)
            }
        }
    }

    /// Whether what was read is what the file was at some moment.
    fn judge(&self, whole: &Whole<'_>, looks: Looks, content: ContentId) -> Result<Verdict> {
        let mut tries = lock(self.tries);
        let tries = tries.entry(whole.number).or_default();
        let is_again = match looks {
            Looks::Changed => true,
            // Equal bytes twice are those that it had in between.
            _ if whole.is_written => {
                let before = tries.torn.replace(content);
                if before.is_some_and(|before| before != content) {
                    let path = Some(self.files[whole.number].path.as_path());
                    self.capture
                        .context
                        .activity
                        .warn(WarningKind::Writer, path, TORN);
                }
                if before.is_none() {
                    return Ok(Verdict::Again);
                }
                false
            }
            Looks::Touched => tries.touched.replace(content) != Some(content),
            Looks::Same => false,
        };
        if !is_again {
            return Ok(Verdict::Take);
        }
        tries.changes += 1;
        if tries.changes == 2 {
            return Err(changed(&whole.opened.path));
        }
        Ok(Verdict::Again)
    }

    fn is_replaced(&self, whole: &Whole<'_>) -> bool {
        let planned = self.plan.identity(&self.files[whole.number]);
        planned.is_some_and(|planned| planned != whole.opened.before.identity())
    }

    fn again(&self, number: usize, to_end: bool) {
        lock(&self.again).push_back((number, to_end));
    }

    fn gone(&self, number: usize, error: Error) -> Result<()> {
        let path = &self.files[number].path;
        vanished(self.capture.context, &self.plan.selection, path, error)?;
        lock(self.done)[number] = Some(Outcome::Gone);
        Ok(())
    }

    fn take(&self, number: usize, captured: Captured, replaced: bool) {
        lock(self.done)[number] = Some(Outcome::Taken(captured, replaced));
        self.capture.context.activity.tell(|| Event::FileFinished {
            path: self.files[number].path.as_path().to_owned(),
            placement: Placement::Copy,
        });
    }

    fn path(&self, number: usize) -> std::path::PathBuf {
        self.capture
            .context
            .base
            .path()
            .join(&self.files[number].path)
    }
}

fn captured(attributes: Attributes, size: u64, pages: FilePages) -> Captured {
    Captured {
        attributes,
        size,
        content: pages.content(),
        map: pages.map,
        digests: pages.digests,
        same_pages: pages.same_pages,
        inherited: pages.inherited,
    }
}

pub(super) fn no_memory(error: io::Error) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("there is no memory to compress with: {error}"),
    )
}
