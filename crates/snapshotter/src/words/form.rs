//! [`ObjectKind`]: what a file under `storage/content` is; [`Form`]: the two kinds that have all bytes of one file.

/// What a stored object is. A row names exactly one kind, and a file of another one under its key is litter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ObjectKind {
    Blob(Form),
    /// Pages of the files of many snapshots (format v2).
    Pack,
}

/// How a blob's bytes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Form {
    /// As the sparse file itself.
    Plain,
    /// As a file with the SPF1 stream, of which others have names too.
    Packed,
}

impl ObjectKind {
    pub(crate) const ALL: [Self; 3] = [
        Self::Blob(Form::Packed),
        Self::Pack,
        Self::Blob(Form::Plain),
    ];

    /// As the catalog has it.
    pub(crate) fn column(self) -> i64 {
        match self {
            Self::Blob(Form::Plain) => 0,
            Self::Blob(Form::Packed) => 1,
            Self::Pack => 2,
        }
    }

    /// What the names of such files end with.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Blob(Form::Plain) => "",
            Self::Blob(Form::Packed) => ".spf",
            Self::Pack => ".pack",
        }
    }

    /// The form of a blob; `None`: it is none.
    pub(crate) fn form(self) -> Option<Form> {
        match self {
            Self::Blob(form) => Some(form),
            Self::Pack => None,
        }
    }
}

impl From<Form> for ObjectKind {
    fn from(form: Form) -> Self {
        Self::Blob(form)
    }
}

impl Form {
    /// The one it is not.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Plain => Self::Packed,
            Self::Packed => Self::Plain,
        }
    }
}
