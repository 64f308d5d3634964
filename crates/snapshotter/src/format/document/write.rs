//! Writing: borrowed mirrors of the entries whose field order is the key order of the format.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::names::Spelling;
use super::read::{CHARACTER_DEVICE, DIRECTORY, REGULAR, SYMLINK};
use super::{
    Content, DirectoryEntry, Document, DocumentError, FileEntry, SymlinkEntry, WhiteoutEntry, json,
};
use crate::format::content::ContentId;
use crate::words::entry::Attributes;
use crate::words::relpath::RelPath;

/// How a format writes a file. The other kinds of entries are the same in all of them.
pub trait WriteFile: Sized {
    /// How names that are not UTF-8 are told as text.
    ///
    /// # Errors
    /// When there is no way to tell them apart where that is wanted.
    fn spelling(files: &[FileEntry<Self>]) -> Result<Spelling, DocumentError>;

    /// Writes the entry.
    ///
    /// # Errors
    /// When its mtime is outside the years 0 to 9999.
    fn write_file(
        entry: &FileEntry<Self>,
        spelling: Spelling,
        out: &mut dyn io::Write,
    ) -> Result<(), DocumentError>;
}

impl WriteFile for Content {
    fn spelling(files: &[FileEntry]) -> Result<Spelling, DocumentError> {
        Spelling::of(files)
    }

    fn write_file(
        entry: &FileEntry,
        spelling: Spelling,
        mut out: &mut dyn io::Write,
    ) -> Result<(), DocumentError> {
        Ok(json::write(&written_file(entry, spelling)?, &mut out)?)
    }
}

impl WriteFile for Option<ContentId> {
    /// Whoever reads this format reads the bytes.
    fn spelling(_: &[FileEntry<Self>]) -> Result<Spelling, DocumentError> {
        Ok(Spelling::Short)
    }

    fn write_file(
        entry: &FileEntry<Self>,
        _: Spelling,
        mut out: &mut dyn io::Write,
    ) -> Result<(), DocumentError> {
        Ok(json::write(&written_paged_file(entry)?, &mut out)?)
    }
}

/// A document of format v1.
pub(super) fn write(document: &Document, out: &mut dyn io::Write) -> Result<(), DocumentError> {
    out.write_all(b"{\"files\":[")?;
    write_lists(document, out)
}

/// What comes after the bracket of the list of files. One entry after the other, none of which stays in memory.
pub(super) fn write_lists<C: WriteFile>(
    document: &Document<C>,
    out: &mut dyn io::Write,
) -> Result<(), DocumentError> {
    let spelling = C::spelling(&document.files)?;
    let write_file = |file: &_, out: &mut dyn io::Write| C::write_file(file, spelling, out);
    list(&document.files, write_file, out)?;
    if !document.directories.is_empty() {
        out.write_all(b"],\"directories\":[")?;
        list(&document.directories, write_directory, out)?;
    }
    if !document.symlinks.is_empty() {
        out.write_all(b"],\"symlinks\":[")?;
        list(&document.symlinks, write_symlink, out)?;
    }
    if !document.whiteouts.is_empty() {
        out.write_all(b"],\"whiteouts\":[")?;
        list(&document.whiteouts, write_whiteout, out)?;
    }
    Ok(out.write_all(b"]}")?)
}

type Write<E> = fn(&E, &mut dyn io::Write) -> Result<(), DocumentError>;

fn list<E>(
    entries: &[E],
    write: impl Fn(&E, &mut dyn io::Write) -> Result<(), DocumentError>,
    out: &mut dyn io::Write,
) -> Result<(), DocumentError> {
    for (number, entry) in entries.iter().enumerate() {
        if number > 0 {
            out.write_all(b",")?;
        }
        write(entry, out)?;
    }
    Ok(())
}

pub(super) fn write_directory(
    entry: &DirectoryEntry,
    mut out: &mut dyn io::Write,
) -> Result<(), DocumentError> {
    let written = written_path(&entry.path, &entry.attributes, DIRECTORY)?;
    Ok(json::write(&written, &mut out)?)
}

pub(super) fn write_whiteout(
    entry: &WhiteoutEntry,
    mut out: &mut dyn io::Write,
) -> Result<(), DocumentError> {
    let written = written_path(&entry.path, &entry.attributes, CHARACTER_DEVICE)?;
    Ok(json::write(&written, &mut out)?)
}

pub(super) fn write_symlink(
    entry: &SymlinkEntry,
    mut out: &mut dyn io::Write,
) -> Result<(), DocumentError> {
    Ok(json::write(&written_symlink(entry)?, &mut out)?)
}

/// How many bytes an entry is in a document, its comma left out.
pub(super) fn length<E>(entry: &E, write: Write<E>) -> Result<u64, DocumentError> {
    let mut length = Length(0);
    write(entry, &mut length)?;
    Ok(length.0)
}

/// Counts what is written to it.
#[derive(Debug, Default)]
pub(super) struct Length(pub(super) u64);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenFile<'a> {
    digest: String,
    read_only: bool,
    relative_path: Cow<'a, str>,
    metadata: Metadata,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hardlink_of: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hardlink_of_bytes: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relative_path_bytes: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenPagedFile<'a> {
    relative_path: Cow<'a, str>,
    read_only: bool,
    metadata: Metadata,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hardlink_of: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hardlink_of_bytes: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relative_path_bytes: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenPath<'a> {
    relative_path: Cow<'a, str>,
    metadata: Metadata,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relative_path_bytes: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenSymlink<'a> {
    relative_path: Cow<'a, str>,
    target: Cow<'a, str>,
    metadata: Metadata,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_bytes: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<&'a str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relative_path_bytes: Option<String>,
}

#[derive(Serialize)]
struct Metadata {
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: String,
    typeflag: u32,
}

fn written_file(entry: &FileEntry, spelling: Spelling) -> Result<WrittenFile<'_>, DocumentError> {
    let (_, relative_path_bytes) = text_and_bytes(entry.path.as_bytes());
    let relative_path = spelling.text(entry.path.as_bytes());
    let (hardlink_of, hardlink_of_bytes) = written_target(entry.hardlink_of.as_ref());
    Ok(WrittenFile {
        digest: entry.content.digest().to_string(),
        read_only: entry.read_only,
        relative_path,
        metadata: metadata(&entry.path, &entry.attributes, entry.size, REGULAR)?,
        checksum: entry
            .content
            .checksum()
            .map(|checksum| checksum.to_string()),
        hardlink_of,
        hardlink_of_bytes,
        xattrs: xattrs(&entry.attributes),
        relative_path_bytes,
    })
}

fn written_paged_file(
    entry: &FileEntry<Option<ContentId>>,
) -> Result<WrittenPagedFile<'_>, DocumentError> {
    let (relative_path, relative_path_bytes) = text_and_bytes(entry.path.as_bytes());
    let (hardlink_of, hardlink_of_bytes) = written_target(entry.hardlink_of.as_ref());
    Ok(WrittenPagedFile {
        relative_path,
        read_only: entry.read_only,
        metadata: metadata(&entry.path, &entry.attributes, entry.size, REGULAR)?,
        content: entry.content.map(|content| content.to_string()),
        hardlink_of,
        hardlink_of_bytes,
        xattrs: xattrs(&entry.attributes),
        relative_path_bytes,
    })
}

fn written_target(target: Option<&RelPath>) -> (Option<Cow<'_, str>>, Option<String>) {
    match target {
        Some(target) => {
            let (text, bytes) = text_and_bytes(target.as_bytes());
            (Some(text), bytes)
        }
        None => (None, None),
    }
}

fn written_path<'a>(
    path: &'a RelPath,
    attributes: &'a Attributes,
    typeflag: u32,
) -> Result<WrittenPath<'a>, DocumentError> {
    let (relative_path, relative_path_bytes) = text_and_bytes(path.as_bytes());
    Ok(WrittenPath {
        relative_path,
        metadata: metadata(path, attributes, 0, typeflag)?,
        xattrs: xattrs(attributes),
        relative_path_bytes,
    })
}

fn written_symlink(entry: &SymlinkEntry) -> Result<WrittenSymlink<'_>, DocumentError> {
    let (relative_path, relative_path_bytes) = text_and_bytes(entry.path.as_bytes());
    let (target, target_bytes) = text_and_bytes(&entry.target);
    Ok(WrittenSymlink {
        relative_path,
        target,
        metadata: metadata(
            &entry.path,
            &entry.attributes,
            entry.target.len() as u64,
            SYMLINK,
        )?,
        target_bytes,
        xattrs: xattrs(&entry.attributes),
        relative_path_bytes,
    })
}

/// A name as text, and in base64 as well when the text alone would lose something.
fn text_and_bytes(bytes: &[u8]) -> (Cow<'_, str>, Option<String>) {
    let text = String::from_utf8_lossy(bytes);
    let exact = matches!(text, Cow::Borrowed(_));
    (text, (!exact).then(|| STANDARD.encode(bytes)))
}

fn metadata(
    path: &RelPath,
    attributes: &Attributes,
    size: u64,
    typeflag: u32,
) -> Result<Metadata, DocumentError> {
    let mtime = attributes.mtime.to_rfc3339();
    Ok(Metadata {
        mode: attributes.mode,
        uid: attributes.uid,
        gid: attributes.gid,
        size,
        mtime: mtime.map_err(|source| DocumentError::Mtime {
            path: path.clone(),
            source,
        })?,
        typeflag,
    })
}

fn xattrs(attributes: &Attributes) -> BTreeMap<&str, String> {
    attributes
        .xattrs
        .iter()
        .map(|(name, value)| (name.as_str(), STANDARD.encode(value)))
        .collect()
}
