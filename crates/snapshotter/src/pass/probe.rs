//! Looking at a file without reading all of it: at its holes, and at pages that are spread over it.

use std::fs::File;
use std::io;

use super::{ALONE, read_at, unread};
use crate::fs::scan;
use crate::words::extent::ExtentMap;

/// Whether every byte outside the map reads as zero: a hole that was written into is found here.
pub(crate) fn holes_are_zero(file: &File, map: &ExtentMap) -> io::Result<bool> {
    let found = scan::extents(file, map.size()).map_err(unread)?;
    let mut buffer = vec![0; ALONE];
    let mut written = found.extents().iter().peekable();
    let mut holes = map.holes().peekable();
    while let (Some(extent), Some(hole)) = (written.peek(), holes.peek()) {
        let (extent_end, hole_end) = (extent.offset + extent.len, hole.offset + hole.len);
        let from = hole.offset.max(extent.offset);
        if !is_zero(file, from, hole_end.min(extent_end), &mut buffer)? {
            return Ok(false);
        }
        if hole_end <= extent_end {
            holes.next();
        } else {
            written.next();
        }
    }
    Ok(true)
}

fn is_zero(file: &File, from: u64, to: u64, buffer: &mut [u8]) -> io::Result<bool> {
    let mut at = from;
    while at < to {
        let len = usize::try_from(to - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        read_at(file, &mut buffer[..len], at)?;
        if buffer[..len].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += len as u64;
    }
    Ok(true)
}

/// Files smaller than this are copied without asking whether they look like a known one, in bytes.
pub(crate) const PROBED: u64 = 1 << 20;

const PAGES: u64 = 64;
const PAGE: u64 = 4096;

/// What a file looks like from afar: BLAKE3 of its size, its extents and 64 pages spread evenly over its data.
///
/// Two files that look alike are *probably* equal: worth hashing before copying, never worth trusting.
pub(crate) fn probe(file: &File, map: &ExtentMap) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&map.encode());
    let mut page = [0_u8; PAGE as usize];
    let step = (map.data_size() / PAGES).max(PAGE);
    let mut extents = map.extents().iter();
    let mut passed = 0;
    let mut current = extents.next();
    for index in 0..PAGES {
        let wanted = index * step;
        while let Some(extent) = current
            && wanted >= passed + extent.len
        {
            passed += extent.len;
            current = extents.next();
        }
        let Some(extent) = current else { break };
        let within = wanted - passed;
        let len = (extent.len - within).min(PAGE) as usize;
        read_at(file, &mut page[..len], extent.offset + within)?;
        hasher.update(&page[..len]);
    }
    Ok(*hasher.finalize().as_bytes())
}
