//! What a caller says of format v2.

use std::str::FromStr;

use crate::format::pack;
pub use crate::format::pack::FramePages;
use crate::words::error::{Error, Result};
pub use crate::words::format::Format;
use crate::words::reference::Reference;

/// What a snapshot of format v2 is compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ParentChoice {
    /// The snapshot that the directory was last restored from, or that was last taken of it, if there is one here.
    #[default]
    Origin,
    /// The newest version of the same name that is here.
    Latest,
    /// Nothing: for what leaves one's hands. Packs of a parent hold pages that it had and this one has not.
    None,
    /// This one.
    Snapshot(Reference),
}

/// How pages are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    None,
    /// By Zstandard, with this level, from 1 to 19.
    Zstd(u8),
}

impl Default for Compression {
    fn default() -> Self {
        Self::Zstd(1)
    }
}

impl From<Compression> for pack::Compression {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::None,
            Compression::Zstd(level) => Self::Zstd(level.clamp(1, 19).into()),
        }
    }
}

impl FromStr for ParentChoice {
    type Err = Error;

    /// `origin`, `latest`, `none`, or a reference, which has a colon or an at sign in it.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "origin" => Ok(Self::Origin),
            "latest" => Ok(Self::Latest),
            "none" => Ok(Self::None),
            _ => text.parse().map(Self::Snapshot).map_err(|error| {
                Error::invalid(format!("parent: {error}"))
                    .with_hint("a parent is NAME:VERSION, origin, latest or none")
            }),
        }
    }
}

impl FromStr for FramePages {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "4" => Ok(Self::Four),
            "16" => Ok(Self::Sixteen),
            _ => Err(Error::invalid(format!(
                "\"{text}\" is no number of pages of a frame: 16, or 4"
            ))),
        }
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let level = |text: &str| text.parse().ok().filter(|level| (1..=19).contains(level));
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            Some(("zstd", digits)) if level(digits).is_some() => {
                Ok(Self::Zstd(level(digits).unwrap_or(1)))
            }
            _ => Err(Error::invalid(format!(
                "\"{text}\" is no compression: none, or zstd: and a level from 1 to 19"
            ))),
        }
    }
}
