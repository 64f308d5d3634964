//! Writing: borrowed mirrors of the entries whose field order is the key order of the format.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::read::{CHARACTER_DEVICE, DIRECTORY, REGULAR, SYMLINK};
use super::{
    DirectoryEntry, Document, DocumentError, FileEntry, SymlinkEntry, WhiteoutEntry, json,
};
use crate::words::entry::Attributes;
use crate::words::relpath::RelPath;

pub(super) fn write(document: &Document) -> Result<Vec<u8>, DocumentError> {
    let written = WrittenDocument {
        files: document
            .files
            .iter()
            .map(written_file)
            .collect::<Result<_, _>>()?,
        directories: document
            .directories
            .iter()
            .map(written_directory)
            .collect::<Result<_, _>>()?,
        symlinks: document
            .symlinks
            .iter()
            .map(written_symlink)
            .collect::<Result<_, _>>()?,
        whiteouts: document
            .whiteouts
            .iter()
            .map(written_whiteout)
            .collect::<Result<_, _>>()?,
    };
    json::to_vec(&written).map_err(DocumentError::Json)
}

#[derive(Serialize)]
struct WrittenDocument<'a> {
    files: Vec<WrittenFile<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    directories: Vec<WrittenPath<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    symlinks: Vec<WrittenSymlink<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    whiteouts: Vec<WrittenPath<'a>>,
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
