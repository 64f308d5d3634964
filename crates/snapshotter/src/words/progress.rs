//! What an operation tells while it runs and after it: events for an [`Observer`] and [`Warning`]s for reports. The library itself never prints.

use std::path::PathBuf;

use super::placement::Placement;

/// Hears how an operation gets on. Called from worker threads, so it must be quick and must not block; a bar is drawn
/// by whoever listens, not here.
pub trait Observer: Send + Sync {
    /// One event. Unknown variants are to be ignored: more will come.
    fn event(&self, event: &Event);
}

/// One step of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Work is known. Said more than once where work follows work (fetched, then restored): each adds to what was known.
    Planned {
        /// What kind of work it is.
        phase: Phase,
        /// Regular files, each inode once.
        files: u64,
        /// Bytes of data that will be read or placed, holes not counted. For a snapshot, which does not know the holes yet,
        /// about: what the filesystem says the files occupy. For a fetch, which is told of holes by what comes, the files'
        /// sizes.
        bytes: u64,
    },
    /// A file is being read or written, one of several at once. Most are finished later; one that is gone by then, or is left,
    /// is not, and one that is looked at again starts again.
    FileStarted {
        /// Its path relative to the base or output directory.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// This many more bytes were hashed, copied or placed.
    Progressed {
        /// Bytes since the last event.
        bytes: u64,
    },
    /// A file is done.
    FileFinished {
        /// Its path relative to the base or output directory.
        path: PathBuf,
        /// How its bytes got where they are.
        placement: Placement,
    },
    /// All files are in; what remains is making them durable.
    Syncing,
}

/// The kinds of work that a call is made of. They follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Files are read and stored.
    Read,
    /// Files are put where they are wanted.
    Write,
    /// Contents come from elsewhere.
    Fetch,
    /// Contents are published.
    Send,
    /// What was published is compared with what is here.
    ReadBack,
    /// Contents go from one place to another, and not through a store.
    Copy,
    /// What is stored is checked.
    Verify,
}

/// Something that did not stop the operation but that its caller may care about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warning {
    /// What sort of thing it is.
    pub kind: WarningKind,
    /// The file it is about, relative to the base or output directory.
    pub path: Option<PathBuf>,
    /// What happened, for people.
    pub message: String,
}

/// The sorts of [`Warning`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WarningKind {
    /// A socket, fifo or device was left out of the snapshot.
    Skipped,
    /// A path went, or became something else, while the snapshot was taken, and nobody had asked for it by name: it was left
    /// out.
    Vanished,
    /// A path could not be read, and the request says to leave such out.
    Unreadable,
    /// A pattern of the request matches nothing.
    Unmatched,
    /// The wanted link mode was not possible; the report's placements say what was used.
    LinkMode,
    /// A file promised to be read-only is open for writing, or that could not be ruled out, so it was not hardlinked; or
    /// somebody wrote a file through a mapping while it was read, so that its bytes may be of several moments.
    Writer,
    /// An owner, mode, time or extended attribute could not be read or set.
    Attribute,
    /// Something was not made durable, or not cleaned up, and will be later.
    Deferred,
    /// What is damaged or missing could not be fetched again, or not be found where it was looked for.
    Unrepaired,
    /// The store has whole files that its catalog does not know, and keeps them.
    Unknown,
    /// The catalog is older than the store: snapshots taken since are not shown, and nothing is lost.
    CatalogOlder,
    /// Contents went to or came from object storage directly: Dragonfly's daemon could not be used, or brought wrong bytes.
    Direct,
    /// A file was not replaced, because something is mounted on it.
    Mounted,
    /// Others than the user who runs this can change or read what they should not.
    Exposed,
    /// Garbage collection kept a snapshot, because it could not confirm that it is elsewhere.
    Kept,
    /// The registry has another snapshot of this name by now.
    Moved,
    /// Whether the registry has another snapshot of this name by now, or what it says of one, could not be looked up.
    Unchecked,
    /// A snapshot of format v2 could not take over what its parent has, and stored it again.
    ParentIncomplete,
    /// What is published there is not known to collections of the place of contents: they must not run there.
    Unregistered,
    /// Object storage did not let an object go that nothing needs.
    Locked,
}

impl WarningKind {
    /// The kind as scripts know it: `snake_case`, stable.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Vanished => "vanished",
            Self::Unreadable => "unreadable",
            Self::Unmatched => "unmatched",
            Self::LinkMode => "link_mode",
            Self::Writer => "writer",
            Self::Attribute => "attribute",
            Self::Deferred => "deferred",
            Self::Unrepaired => "unrepaired",
            Self::Direct => "direct",
            Self::Unknown => "unknown",
            Self::CatalogOlder => "catalog_older",
            Self::Mounted => "mounted",
            Self::Exposed => "exposed",
            Self::Kept => "kept",
            Self::Moved => "moved",
            Self::Unchecked => "unchecked",
            Self::ParentIncomplete => "parent_incomplete",
            Self::Unregistered => "unregistered",
            Self::Locked => "locked",
        }
    }
}
