//! A map from the packs' side: which places of the page space each frame is for, so that a frame is verified and decoded once
//! however often its pages are mapped. It costs four bytes an extent, and as much again while many extents share frames.

use super::{Extent, Map};
use crate::format::pack::FramePages;

/// The extents of a map in the order of their packs.
#[derive(Debug)]
pub struct Inverted<'m> {
    map: &'m Map,
    /// Extents by pack, by the first page in it, by the first page of the page space.
    order: Vec<u32>,
}

impl Map {
    /// Looks at the map from the packs' side.
    pub fn invert(&self) -> Inverted<'_> {
        // A map has 16 Mi extents at most.
        let mut order: Vec<u32> = (0..self.extents.len() as u32).collect();
        order.sort_unstable_by_key(|at| {
            let extent = self.extents[*at as usize];
            (extent.pack(), extent.page, extent.start())
        });
        Inverted { map: self, order }
    }
}

impl<'m> Inverted<'m> {
    /// The frames of a pack that are used, ascending.
    pub fn frames(&self, pack: u32, frame_pages: FramePages) -> Frames<'_, 'm> {
        let pack_of = |at: &u32| self.map.extents[*at as usize].pack();
        let start = self.order.partition_point(|at| pack_of(at) < pack);
        let end = self.order.partition_point(|at| pack_of(at) <= pack);
        Frames {
            map: self.map,
            later: &self.order[start..end],
            here: Vec::new(),
            frame_pages: frame_pages.count().into(),
            next: 0,
        }
    }
}

/// Goes from one frame of a pack to the next.
#[derive(Debug)]
pub struct Frames<'i, 'm> {
    map: &'m Map,
    /// Extents that begin in later frames.
    later: &'i [u32],
    /// Extents that have pages in this frame.
    here: Vec<u32>,
    frame_pages: u64,
    next: u64,
}

impl Frames<'_, '_> {
    /// Goes to the next frame that is used, and says which it is.
    pub fn next_frame(&mut self) -> Option<u64> {
        let begin = self.next * self.frame_pages;
        let extents = &self.map.extents;
        self.here
            .retain(|at| extents[*at as usize].end_in_pack() > begin);
        let first = |at: &u32| u64::from(extents[*at as usize].page);
        let frame = match (self.here.first(), self.later.first()) {
            (Some(_), _) => self.next,
            (None, Some(at)) => first(at) / self.frame_pages,
            (None, None) => return None,
        };
        let end = (frame + 1) * self.frame_pages;
        let begins = self.later.partition_point(|at| first(at) < end);
        let (here, later) = self.later.split_at(begins);
        self.here.extend_from_slice(here);
        self.later = later;
        self.next = frame + 1;
        Some(frame)
    }

    /// What of the page space is in this frame: extents that do not leave it, ascending by their page in the pack.
    pub fn pieces(&self) -> impl Iterator<Item = Extent> + '_ {
        let end = self.next * self.frame_pages;
        let begin = end.saturating_sub(self.frame_pages);
        self.here.iter().map(move |at| {
            let extent = Extent::from(self.map.extents[*at as usize]);
            let skipped = begin.saturating_sub(extent.page);
            let start = extent.start + skipped;
            let pages = (extent.page + extent.pages).min(end) - (extent.page + skipped);
            extent.within(&(start..start + pages))
        })
    }
}
