//! [`Form`]: the two ways in which a blob's bytes are kept.

/// How a blob's bytes are kept. A row names exactly one form, and the file of the other one is litter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// As the sparse file itself.
    Plain,
    /// As a file with the SPF1 stream, of which others have names too.
    Packed,
}

impl Form {
    /// The one it is not.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Plain => Self::Packed,
            Self::Packed => Self::Plain,
        }
    }

    /// As the catalog has it.
    pub(crate) fn column(self) -> i64 {
        match self {
            Self::Plain => 0,
            Self::Packed => 1,
        }
    }
}
