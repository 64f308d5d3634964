//! How a file's bytes are to get from one place to another, and how they did.

use super::total::total;

/// How bytes get into the store and out of it: the first way to try. What is not possible is followed by the next
/// cheaper one, and the report says what was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinkMode {
    /// Read-only files: hardlink, else reflink, else copy. Writable ones: reflink, else copy.
    #[default]
    Auto,
    /// The same, with a warning for each read-only file that could not be hardlinked.
    Hardlink,
    /// Reflink, else copy with a warning.
    Reflink,
    /// Always copy.
    Copy,
}

/// How a file's bytes got into the store or the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Placement {
    /// A second name of the same inode: no bytes moved, and the page cache is shared.
    Hardlink,
    /// The filesystem shares the blocks until one side is written.
    Reflink,
    /// The bytes were copied.
    Copy,
    /// Nothing was done: equal bytes (and, on restore, attributes) were there already.
    Present,
}

/// How many files, and how many bytes of data, were placed in one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlacementCount {
    /// Regular files.
    pub files: u64,
    /// Bytes of data, holes not counted.
    pub bytes: u64,
}

/// What was done with each file, by [`Placement`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placements {
    /// See [`Placement::Hardlink`].
    pub hardlink: PlacementCount,
    /// See [`Placement::Reflink`].
    pub reflink: PlacementCount,
    /// See [`Placement::Copy`].
    pub copy: PlacementCount,
    /// See [`Placement::Present`].
    pub present: PlacementCount,
}

impl Placements {
    pub(crate) fn count(&mut self, placement: Placement, bytes: u64) {
        let count = match placement {
            Placement::Hardlink => &mut self.hardlink,
            Placement::Reflink => &mut self.reflink,
            Placement::Copy => &mut self.copy,
            Placement::Present => &mut self.present,
        };
        count.files += 1;
        count.bytes = total([count.bytes, bytes]);
    }
}
