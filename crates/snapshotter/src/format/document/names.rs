//! Names that are not UTF-8, as text. The bytes stand beside the text, but the Go library reads the text alone, and would restore
//! two files of one text one over the other. So where two files of a document had the same, the bytes are spelled out.

use std::borrow::Cow;
use std::fmt::Write;

use super::validate::by_component;
use super::{DocumentError, FileEntry};
use crate::words::relpath::RelPath;

const LOST: char = char::REPLACEMENT_CHARACTER;

/// How names that are not UTF-8 are told as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// U+FFFD for what is not: it may be the text of others too.
    Short,
    /// The same, and after it the bytes in hexadecimal digits.
    Long,
}

impl Spelling {
    /// The shortest in which no two of these files have the same text, and none is below another one.
    pub(super) fn of<C>(files: &[FileEntry<C>]) -> Result<Self, DocumentError> {
        let suspects = || {
            files
                .iter()
                .map(|file| &file.path)
                .filter(|path| is_suspect(path))
        };
        if Self::Short.clash(suspects()).is_none() {
            return Ok(Self::Short);
        }
        match Self::Long.clash(suspects()) {
            None => Ok(Self::Long),
            Some(path) => Err(DocumentError::Spelling { path: path.clone() }),
        }
    }

    /// A file that cannot be told from another one.
    fn clash<'a>(self, paths: impl Iterator<Item = &'a RelPath>) -> Option<&'a RelPath> {
        let text = |path: &'a RelPath| (self.text(path.as_bytes()), path);
        let mut texts: Vec<_> = paths.map(text).collect();
        texts.sort_unstable_by(|(a, _), (b, _)| by_component(a.as_bytes(), b.as_bytes()));
        let mut pairs = texts.iter().zip(texts.iter().skip(1));
        let is_same = |(a, b): &(&(Cow<str>, _), &(Cow<str>, _))| {
            let rest = b.0.strip_prefix(&*a.0);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        pairs.find(is_same).map(|(_, (_, path))| *path)
    }

    pub(super) fn text(self, bytes: &[u8]) -> Cow<'_, str> {
        match self {
            Self::Short => String::from_utf8_lossy(bytes),
            Self::Long => spelled_out(bytes),
        }
    }
}

/// No other name can have the text of another one.
fn is_suspect(path: &RelPath) -> bool {
    std::str::from_utf8(path.as_bytes()).map_or(true, |text| text.contains(LOST))
}

fn spelled_out(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push(LOST);
        }
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
    }
    Cow::Owned(text)
}

/// Whether a text is one of these bytes.
pub(super) fn is_text_of(text: &str, bytes: &[u8]) -> bool {
    let is = |spelling: Spelling| spelling.text(bytes) == text;
    is(Spelling::Short) || is(Spelling::Long)
}
