//! How a snapshot is kept.

use std::str::FromStr;

use super::error::{Error, Result};

/// How a snapshot is kept and published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Each file by itself, as the Go library has them.
    #[default]
    V1,
    /// In pages of 4 KiB, each stored once in a line of snapshots. The Go library cannot read it.
    V2,
}

impl Format {
    /// As the catalog has it.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    /// From there: the schema has no other numbers.
    pub(crate) fn of_number(number: u8) -> Self {
        match number {
            2 => Self::V2,
            _ => Self::V1,
        }
    }

    /// As it is written: `v1`, `v2`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "v1" => Ok(Self::V1),
            "v2" => Ok(Self::V2),
            _ => Err(Error::invalid(format!("\"{text}\" is no format: v1 or v2"))),
        }
    }
}
