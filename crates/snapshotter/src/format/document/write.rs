//! Writing: borrowed mirrors of the entries whose field order is the key order of the format.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::read::{CHARACTER_DEVICE, DIRECTORY, REGULAR, SYMLINK};
use super::{
    DirectoryEntry, Document, DocumentError, FileEntry, SymlinkEntry, WhiteoutEntry, json,
};
use crate::words::entry::Attributes;
use crate::words::relpath::RelPath;

/// One entry after the other, none of which stays in memory.
pub(super) fn write(document: &Document, out: &mut dyn io::Write) -> Result<(), DocumentError> {
    out.write_all(b"{\"files\":[")?;
    list(document.files.iter().map(written_file), out)?;
    if !document.directories.is_empty() {
        out.write_all(b"],\"directories\":[")?;
        list(document.directories.iter().map(written_directory), out)?;
    }
    if !document.symlinks.is_empty() {
        out.write_all(b"],\"symlinks\":[")?;
        list(document.symlinks.iter().map(written_symlink), out)?;
    }
    if !document.whiteouts.is_empty() {
        out.write_all(b"],\"whiteouts\":[")?;
        list(document.whiteouts.iter().map(written_whiteout), out)?;
    }
    Ok(out.write_all(b"]}")?)
}

fn list<T: Serialize>(
    entries: impl Iterator<Item = Result<T, DocumentError>>,
    mut out: &mut dyn io::Write,
) -> Result<(), DocumentError> {
    for (number, entry) in entries.enumerate() {
        if number > 0 {
            out.write_all(b",")?;
        }
        json::write(&entry?, &mut out)?;
    }
    Ok(())
}

/// How many bytes a file is in a document, its comma left out.
pub(super) fn file_length(entry: &FileEntry) -> Result<u64, DocumentError> {
    length(&written_file(entry)?)
}

/// The same of a directory.
pub(super) fn directory_length(entry: &DirectoryEntry) -> Result<u64, DocumentError> {
    length(&written_directory(entry)?)
}

/// The same of a symlink.
pub(super) fn symlink_length(entry: &SymlinkEntry) -> Result<u64, DocumentError> {
    length(&written_symlink(entry)?)
}

/// The same of a whiteout.
pub(super) fn whiteout_length(entry: &WhiteoutEntry) -> Result<u64, DocumentError> {
    length(&written_whiteout(entry)?)
}

fn length(entry: &impl Serialize) -> Result<u64, DocumentError> {
    let mut length = Length(0);
    json::write(entry, &mut length)?;
    Ok(length.0)
}

struct Length(u64);

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

fn written_file(entry: &FileEntry) -> Result<WrittenFile<'_>, DocumentError> {
    let (relative_path, relative_path_bytes) = text_and_bytes(entry.path.as_bytes());
    let (hardlink_of, hardlink_of_bytes) = match &entry.hardlink_of {
        Some(target) => {
            let (text, bytes) = text_and_bytes(target.as_bytes());
            (Some(text), bytes)
        }
        None => (None, None),
    };
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

fn written_directory(entry: &DirectoryEntry) -> Result<WrittenPath<'_>, DocumentError> {
    written_path(&entry.path, &entry.attributes, DIRECTORY)
}

fn written_whiteout(entry: &WhiteoutEntry) -> Result<WrittenPath<'_>, DocumentError> {
    written_path(&entry.path, &entry.attributes, CHARACTER_DEVICE)
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
