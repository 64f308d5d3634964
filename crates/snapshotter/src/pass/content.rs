//! What the bytes of a file are called in format v2, read through once, and written once more where a copy is wanted.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use super::each::on_all_cores;
use super::turns::{StopOnPanic, Turns};
use crate::format::content::{ContentHasher, ContentId, PageDigest, page_digest};
use crate::fs::hook::step;
use crate::fs::scan;
use crate::lock::lock;
use crate::words::error::Error;
use crate::words::extent::ExtentMap;
use crate::words::page::{PAGE_BYTES, pages};

/// What the bytes of a file of this size are called. Pages are read and hashed on all cores, and told in their order.
///
/// # Errors
/// The filesystem's; `UnexpectedEof` where it is shorter; what `progress` says, which is asked now and then.
pub(crate) fn content_of(
    file: &File,
    size: u64,
    progress: &(dyn Fn() -> io::Result<()> + Sync),
) -> io::Result<ContentId> {
    read_through(file, None, size, progress)
}

/// The same, and another file, which is all hole, gets these bytes.
///
/// # Errors
/// Those of [`content_of`], and of writing.
pub(crate) fn copy_of(
    file: &File,
    copy: &File,
    size: u64,
    progress: &(dyn Fn() -> io::Result<()> + Sync),
) -> io::Result<ContentId> {
    step("write").and_then(|()| copy.set_len(size))?;
    read_through(file, Some(copy), size, progress)
}

fn read_through(
    file: &File,
    copy: Option<&File>,
    size: u64,
    progress: &(dyn Fn() -> io::Result<()> + Sync),
) -> io::Result<ContentId> {
    let pieces = pieces(&scan::extents(file, size)?);
    let content = Mutex::new(ContentHasher::new(size));
    let (turns, failed) = (Turns::default(), Mutex::new(None));
    let hash = |number: usize| {
        let digests =
            progress().and_then(|()| digests(file, copy, size, pieces[number].clone()))?;
        let _turn = turns.wait_for(number as u64)?;
        let mut content = lock(&content);
        digests
            .iter()
            .for_each(|(index, digest)| content.page(*index, digest));
        Ok(())
    };
    let all = on_all_cores(pieces.len(), |number| {
        let _stop = StopOnPanic(&turns);
        hash(number).map_err(|error: io::Error| {
            // The first is why the others were stopped.
            lock(&failed).get_or_insert(error);
            turns.stop();
            Error::cancelled()
        })
    });
    match (all, lock(&failed).take()) {
        (Ok(()), _) => Ok(lock(&content).finish()),
        (Err(_), Some(error)) => Err(error),
        (Err(error), None) => Err(io::Error::other(error)),
    }
}

/// Pages with data, so many at once.
fn pieces(map: &ExtentMap) -> Vec<Range<u64>> {
    let (mut pieces, mut next) = (Vec::new(), 0);
    for extent in map.extents() {
        let first = (extent.offset / PAGE_BYTES as u64).max(next);
        next = pages(extent.end());
        let firsts = (first..next).step_by(TOGETHER);
        pieces.extend(firsts.map(|first| first..next.min(first + TOGETHER as u64)));
    }
    pieces
}

fn digests(
    file: &File,
    copy: Option<&File>,
    size: u64,
    piece: Range<u64>,
) -> io::Result<Vec<(u64, PageDigest)>> {
    let at = piece.start * PAGE_BYTES as u64;
    let length = ((piece.end * PAGE_BYTES as u64).min(size) - at) as usize;
    let mut buffer = vec![0; length.next_multiple_of(PAGE_BYTES)];
    file.read_exact_at(&mut buffer[..length], at)?;
    let (whole, _) = buffer.as_chunks();
    let digests = piece.zip(whole);
    let digests = digests.filter_map(|(index, page)| Some((index, page_digest(page)?)));
    let digests: Vec<_> = digests.collect();
    let Some(copy) = copy else {
        return Ok(digests);
    };
    // Pages of zeros are holes.
    for run in digests.chunk_by(|(one, _), (next, _)| one + 1 == *next) {
        let start = run[0].0 * PAGE_BYTES as u64;
        let end = (start + (run.len() * PAGE_BYTES) as u64).min(size);
        let bytes = &buffer[(start - at) as usize..(end - at) as usize];
        copy.write_all_at(bytes, start)?;
    }
    Ok(digests)
}

/// Pages that are read at once.
const TOGETHER: usize = 64;
