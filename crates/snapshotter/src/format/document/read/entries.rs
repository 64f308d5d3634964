//! Entries as they are in JSON, each turned into its final form as soon as it is parsed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{CHARACTER_DEVICE, DIRECTORY, REGULAR, SYMLINK};
use crate::format::content::ContentId;
use crate::format::document::json::Object;
use crate::format::document::names::is_text_of;
use crate::format::document::{
    Content, DirectoryEntry, DocumentError, FileEntry, SymlinkEntry, WhiteoutEntry,
};
use crate::words::digest::excerpt;
use crate::words::entry::{Attributes, MODE_BITS, Mtime};
use crate::words::relpath::RelPath;

/// What an entry of `T` is read as.
pub(in crate::format::document) trait IntoEntry<T> {
    /// How many it has.
    fn xattrs(&self) -> usize;
    /// What it says.
    fn into_entry(self) -> Result<T, DocumentError>;
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReadFile<'a> {
    #[serde(borrow)]
    digest: Cow<'a, str>,
    read_only: Option<bool>,
    #[serde(borrow)]
    relative_path: Cow<'a, str>,
    relative_path_bytes: Option<String>,
    #[serde(borrow)]
    metadata: Object<ReadMetadata<'a>>,
    checksum: Option<String>,
    hardlink_of: Option<String>,
    hardlink_of_bytes: Option<String>,
    xattrs: Option<Xattrs>,
}

/// The same in format v2.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::format::document) struct ReadPagedFile<'a> {
    read_only: Option<bool>,
    #[serde(borrow)]
    relative_path: Cow<'a, str>,
    relative_path_bytes: Option<String>,
    #[serde(borrow)]
    metadata: Object<ReadMetadata<'a>>,
    content: Option<String>,
    hardlink_of: Option<String>,
    hardlink_of_bytes: Option<String>,
    xattrs: Option<Xattrs>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReadPath<'a> {
    #[serde(borrow)]
    relative_path: Cow<'a, str>,
    relative_path_bytes: Option<String>,
    #[serde(borrow)]
    metadata: Object<ReadMetadata<'a>>,
    xattrs: Option<Xattrs>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReadSymlink<'a> {
    #[serde(borrow)]
    relative_path: Cow<'a, str>,
    relative_path_bytes: Option<String>,
    #[serde(borrow)]
    target: Cow<'a, str>,
    target_bytes: Option<String>,
    #[serde(borrow)]
    metadata: Object<ReadMetadata<'a>>,
    xattrs: Option<Xattrs>,
}

#[derive(Deserialize)]
struct ReadMetadata<'a> {
    mode: u32,
    uid: Option<u32>,
    gid: Option<u32>,
    // Only a regular file's counts.
    size: Option<u64>,
    #[serde(borrow)]
    mtime: Cow<'a, str>,
    typeflag: Option<u32>,
}

impl IntoEntry<FileEntry> for ReadFile<'_> {
    fn xattrs(&self) -> usize {
        count(&self.xattrs)
    }

    fn into_entry(self) -> Result<FileEntry, DocumentError> {
        let encoded = self.relative_path_bytes.as_deref();
        let path = read_bytes(&self.relative_path, encoded, "relativePathBytes")?;
        // The Go library lists files as they were asked for, and joins that to a directory.
        let path = RelPath::cleaned(path)?;
        let content = read_content(&path, &self.digest, self.checksum.as_deref())?;
        let target = (
            self.hardlink_of.as_deref(),
            self.hardlink_of_bytes.as_deref(),
        );
        let about = About {
            read_only: self.read_only,
            metadata: self.metadata.0,
            hardlink_of: read_hardlink(target.0, target.1)?,
            xattrs: self.xattrs,
        };
        about.into_file(path, content)
    }
}

impl IntoEntry<FileEntry<Option<ContentId>>> for ReadPagedFile<'_> {
    fn xattrs(&self) -> usize {
        count(&self.xattrs)
    }

    fn into_entry(self) -> Result<FileEntry<Option<ContentId>>, DocumentError> {
        let path = read_path(
            &self.relative_path,
            self.relative_path_bytes.as_deref(),
            "relativePathBytes",
        )?;
        let content = self.content.as_deref().map(str::parse).transpose();
        let content = content.map_err(|source| DocumentError::Digest {
            path: path.clone(),
            source,
        })?;
        let target = (
            self.hardlink_of.as_deref(),
            self.hardlink_of_bytes.as_deref(),
        );
        let about = About {
            read_only: self.read_only,
            metadata: self.metadata.0,
            hardlink_of: read_hardlink(target.0, target.1)?,
            xattrs: self.xattrs,
        };
        about.into_file(path, content)
    }
}

/// What a file has in all formats, beside its path.
struct About<'a> {
    read_only: Option<bool>,
    metadata: ReadMetadata<'a>,
    hardlink_of: Option<RelPath>,
    xattrs: Option<Xattrs>,
}

impl About<'_> {
    fn into_file<C>(self, path: RelPath, content: C) -> Result<FileEntry<C>, DocumentError> {
        let size = self.metadata.size;
        let size =
            size.ok_or_else(|| DocumentError::Json(serde_json::Error::missing_field("size")))?;
        Ok(FileEntry {
            attributes: read_attributes(&path, self.metadata, self.xattrs, REGULAR)?,
            path,
            content,
            read_only: self.read_only.unwrap_or(false),
            size,
            hardlink_of: self.hardlink_of,
        })
    }
}

impl ReadPath<'_> {
    fn into_parts(self, typeflag: u32) -> Result<(RelPath, Attributes), DocumentError> {
        let path = read_path(
            &self.relative_path,
            self.relative_path_bytes.as_deref(),
            "relativePathBytes",
        )?;
        let attributes = read_attributes(&path, self.metadata.0, self.xattrs, typeflag)?;
        Ok((path, attributes))
    }
}

impl IntoEntry<DirectoryEntry> for ReadPath<'_> {
    fn xattrs(&self) -> usize {
        count(&self.xattrs)
    }

    fn into_entry(self) -> Result<DirectoryEntry, DocumentError> {
        let (path, attributes) = self.into_parts(DIRECTORY)?;
        Ok(DirectoryEntry { path, attributes })
    }
}

impl IntoEntry<WhiteoutEntry> for ReadPath<'_> {
    fn xattrs(&self) -> usize {
        count(&self.xattrs)
    }

    fn into_entry(self) -> Result<WhiteoutEntry, DocumentError> {
        let (path, attributes) = self.into_parts(CHARACTER_DEVICE)?;
        Ok(WhiteoutEntry { path, attributes })
    }
}

impl IntoEntry<SymlinkEntry> for ReadSymlink<'_> {
    fn xattrs(&self) -> usize {
        count(&self.xattrs)
    }

    fn into_entry(self) -> Result<SymlinkEntry, DocumentError> {
        let path = read_path(
            &self.relative_path,
            self.relative_path_bytes.as_deref(),
            "relativePathBytes",
        )?;
        let target = read_bytes(&self.target, self.target_bytes.as_deref(), "targetBytes")?;
        let attributes = read_attributes(&path, self.metadata.0, self.xattrs, SYMLINK)?;
        Ok(SymlinkEntry {
            path,
            target,
            attributes,
        })
    }
}

fn read_path(
    text: &str,
    encoded: Option<&str>,
    key: &'static str,
) -> Result<RelPath, DocumentError> {
    Ok(RelPath::from_bytes(read_bytes(text, encoded, key)?)?)
}

fn read_hardlink(
    text: Option<&str>,
    encoded: Option<&str>,
) -> Result<Option<RelPath>, DocumentError> {
    match (text, encoded) {
        (None, None) => Ok(None),
        (text, encoded) => {
            read_path(text.unwrap_or_default(), encoded, "hardlinkOfBytes").map(Some)
        }
    }
}

/// The bytes of a name: its text, or what is in base64 beside it when that agrees with the text.
fn read_bytes(
    text: &str,
    encoded: Option<&str>,
    key: &'static str,
) -> Result<Vec<u8>, DocumentError> {
    let Some(encoded) = encoded else {
        return Ok(text.as_bytes().to_vec());
    };
    let decoded = STANDARD
        .decode(encoded)
        .ok()
        .filter(|bytes| is_text_of(text, bytes));
    decoded.ok_or_else(|| DocumentError::Bytes {
        key,
        near: excerpt(text),
    })
}

fn read_content(
    path: &RelPath,
    digest: &str,
    checksum: Option<&str>,
) -> Result<Content, DocumentError> {
    let fault = |source| DocumentError::Digest {
        path: path.clone(),
        source,
    };
    let digest = digest.parse().map_err(fault)?;
    let checksum = checksum.map(str::parse).transpose().map_err(fault)?;
    Ok(Content::V1 { digest, checksum })
}

fn read_attributes(
    path: &RelPath,
    metadata: ReadMetadata<'_>,
    xattrs: Option<Xattrs>,
    expected: u32,
) -> Result<Attributes, DocumentError> {
    let found = metadata.typeflag.unwrap_or(REGULAR);
    if found != expected {
        return Err(DocumentError::TypeFlag {
            path: path.clone(),
            found,
            expected,
        });
    }
    let mtime = Mtime::parse_rfc3339(&metadata.mtime);
    Ok(Attributes {
        mode: metadata.mode & MODE_BITS,
        uid: metadata.uid.unwrap_or(0),
        gid: metadata.gid.unwrap_or(0),
        mtime: mtime.map_err(|source| DocumentError::Mtime {
            path: path.clone(),
            source,
        })?,
        xattrs: xattrs.unwrap_or_default().0,
    })
}

fn count(xattrs: &Option<Xattrs>) -> usize {
    xattrs.as_ref().map_or(0, |xattrs| xattrs.0.len())
}

#[derive(Default)]
struct Xattrs(BTreeMap<String, Vec<u8>>);

impl<'de> Deserialize<'de> for Xattrs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(XattrsVisitor)
    }
}

/// Linux's XATTR_LIST_MAX has room for no more names; bounded here because one entry may be the whole document.
const MAX_ENTRY_XATTRS: usize = 32 * 1024;

struct XattrsVisitor;

impl<'de> Visitor<'de> for XattrsVisitor {
    type Value = Xattrs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of base64 values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Xattrs, A::Error> {
        let mut xattrs = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, Cow<'de, str>>()? {
            let value = STANDARD
                .decode(value.as_bytes())
                .map_err(|_| A::Error::custom("an xattr is not base64"))?;
            if xattrs.len() == MAX_ENTRY_XATTRS {
                return Err(A::Error::custom("an entry has too many xattrs"));
            }
            match xattrs.entry(name) {
                Entry::Vacant(slot) => slot.insert(value),
                Entry::Occupied(_) => return Err(A::Error::custom("an xattr is given twice")),
            };
        }
        Ok(Xattrs(xattrs))
    }
}
