//! The words every part speaks: pure values, no I/O.

pub mod capability;
pub mod digest;
pub mod entry;
pub mod error;
pub mod extent;
pub mod form;
pub mod format;
#[cfg(feature = "registry")]
pub mod object;
pub mod page;
pub(crate) mod patterns;
pub mod placement;
pub mod progress;
pub mod publication;
pub mod reference;
pub mod relpath;
#[cfg(feature = "registry")]
pub mod sharing;
pub mod total;
