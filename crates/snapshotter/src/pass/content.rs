//! What the bytes of a file are called in format v2, read through once.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::format::content::{ContentHasher, ContentId, page_digest};
use crate::fs::scan;
use crate::words::page::{PAGE_BYTES, pages};

/// What the bytes of a file of this size are called.
///
/// # Errors
/// The filesystem's; `UnexpectedEof` where it is shorter; what `progress` says, which is asked at each page.
pub(crate) fn content_of(
    file: &File,
    size: u64,
    progress: &dyn Fn() -> io::Result<()>,
) -> io::Result<ContentId> {
    let map = scan::extents(file, size)?;
    let mut content = ContentHasher::new(size);
    let mut next = 0;
    let mut buffer = vec![0; TOGETHER * PAGE_BYTES];
    for extent in map.extents() {
        let first = (extent.offset / PAGE_BYTES as u64).max(next);
        next = pages(extent.end());
        for first in (first..next).step_by(TOGETHER) {
            progress()?;
            let at = first * PAGE_BYTES as u64;
            let end = (next * PAGE_BYTES as u64).min(size);
            let length = (end - at).min(buffer.len() as u64) as usize;
            file.read_exact_at(&mut buffer[..length], at)?;
            buffer[length..].fill(0);
            let (whole, _) = buffer[..length.next_multiple_of(PAGE_BYTES)].as_chunks();
            for (index, page) in (first..).zip(whole) {
                if let Some(digest) = page_digest(page) {
                    content.page(index, &digest);
                }
            }
        }
    }
    Ok(content.finish())
}

/// Pages that are read at once.
const TOGETHER: usize = 16;
