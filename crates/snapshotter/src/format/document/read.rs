//! Reading: each entry becomes its final form as soon as it is parsed, so nothing is held twice, and the lists stop at
//! the limit on entries, not after it. Keys that aren't known are skipped without building anything.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::io;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::json::Object;
use super::{
    Content, DirectoryEntry, Document, DocumentError, FileEntry, MAX_XATTRS, SymlinkEntry,
    WhiteoutEntry,
};
use crate::words::digest::excerpt;
use crate::words::entry::{Attributes, MODE_BITS, Mtime};
use crate::words::relpath::RelPath;

pub(super) const REGULAR: u32 = 0;
pub(super) const SYMLINK: u32 = 2;
pub(super) const CHARACTER_DEVICE: u32 = 3;
pub(super) const DIRECTORY: u32 = 5;

/// Reads at most `max_entries`, all kinds together.
pub(super) fn read(bytes: &[u8], max_entries: usize) -> Result<Document, DocumentError> {
    let room = bytes.len() / AN_ENTRY;
    read_from(
        serde_json::Deserializer::from_slice(bytes),
        max_entries,
        room,
    )
}

/// The same of bytes that are not in memory.
pub(super) fn read_stream(
    stream: impl io::BufRead,
    length: u64,
    max_entries: usize,
) -> Result<Document, DocumentError> {
    let room = usize::try_from(length).unwrap_or(0) / AN_ENTRY;
    read_from(
        serde_json::Deserializer::from_reader(stream),
        max_entries,
        room,
    )
}

/// How long a file is in a document of ours, about, in bytes: a list that grows by copying is in memory twice.
const AN_ENTRY: usize = 256;

fn read_from<'de>(
    mut deserializer: serde_json::Deserializer<impl serde_json::de::Read<'de>>,
    max_entries: usize,
    room: usize,
) -> Result<Document, DocumentError> {
    let context = Context {
        max_entries,
        room,
        ..Context::default()
    };
    let read = DocumentSeed(&context).deserialize(&mut deserializer);
    let read = read.and_then(|document| deserializer.end().map(|()| document));
    read.map_err(|error| context.fault.take().unwrap_or_else(|| error.into()))
}

/// What all lists share. serde's errors are texts, so ours wait here.
#[derive(Default)]
struct Context {
    max_entries: usize,
    /// For that many files.
    room: usize,
    entries: Cell<usize>,
    xattrs: Cell<usize>,
    fault: RefCell<Option<DocumentError>>,
}

impl Context {
    fn fail<E: serde::de::Error>(&self, fault: DocumentError) -> E {
        self.fault.replace(Some(fault));
        E::custom("see the fault")
    }

    fn count(&self, xattrs: usize) -> Result<(), DocumentError> {
        self.entries.set(self.entries.get() + 1);
        self.xattrs.set(self.xattrs.get() + xattrs);
        if self.entries.get() > self.max_entries {
            return Err(DocumentError::TooManyEntries);
        }
        if self.xattrs.get() > MAX_XATTRS {
            Err(DocumentError::TooManyXattrs)
        } else {
            Ok(())
        }
    }
}

struct DocumentSeed<'c>(&'c Context);

impl<'de> DeserializeSeed<'de> for DocumentSeed<'_> {
    type Value = Document;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Document, D::Error> {
        deserializer.deserialize_map(self)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    Files,
    Directories,
    Symlinks,
    Whiteouts,
    #[serde(other)]
    Unknown,
}

impl<'de> Visitor<'de> for DocumentSeed<'_> {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with files")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let (mut files, mut directories) = (None, None);
        let (mut symlinks, mut whiteouts) = (None, None);
        while let Some(key) = map.next_key()? {
            match key {
                Key::Files => once(
                    &mut files,
                    "files",
                    &mut map,
                    ListSeed::<ReadFile<'de>, _>::new(self.0, self.0.room),
                )?,
                Key::Directories => {
                    once(
                        &mut directories,
                        "directories",
                        &mut map,
                        ListSeed::<ReadPath<'de>, _>::new(self.0, 0),
                    )?;
                }
                Key::Whiteouts => {
                    once(
                        &mut whiteouts,
                        "whiteouts",
                        &mut map,
                        ListSeed::<ReadPath<'de>, _>::new(self.0, 0),
                    )?;
                }
                Key::Symlinks => once(
                    &mut symlinks,
                    "symlinks",
                    &mut map,
                    ListSeed::<ReadSymlink<'de>, _>::new(self.0, 0),
                )?,
                Key::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Document {
            files: files.unwrap_or_default(),
            directories: directories.unwrap_or_default(),
            symlinks: symlinks.unwrap_or_default(),
            whiteouts: whiteouts.unwrap_or_default(),
        })
    }
}

/// A list given twice would mean one thing to us and another to the Go library.
fn once<'de, A: MapAccess<'de>, S: DeserializeSeed<'de>>(
    slot: &mut Option<S::Value>,
    key: &'static str,
    map: &mut A,
    seed: S,
) -> Result<(), A::Error> {
    if slot.is_some() {
        return Err(A::Error::duplicate_field(key));
    }
    *slot = Some(map.next_value_seed(seed)?);
    Ok(())
}

/// A list of `R` as it is in JSON, each turned into a `T`.
struct ListSeed<'c, R, T> {
    context: &'c Context,
    room: usize,
    kinds: PhantomData<(R, T)>,
}

impl<'c, R, T> ListSeed<'c, R, T> {
    fn new(context: &'c Context, room: usize) -> Self {
        Self {
            context,
            room,
            kinds: PhantomData,
        }
    }
}

trait IntoEntry<T> {
    fn xattrs(&self) -> usize;
    fn into_entry(self) -> Result<T, DocumentError>;
}

impl<'de, R: Deserialize<'de> + IntoEntry<T>, T> DeserializeSeed<'de> for ListSeed<'_, R, T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, R: Deserialize<'de> + IntoEntry<T>, T> Visitor<'de> for ListSeed<'_, R, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or null")
    }

    fn visit_unit<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut entries = Vec::with_capacity(self.room);
        while let Some(Object(read)) = list.next_element::<Object<R>>()? {
            self.context
                .count(read.xattrs())
                .map_err(|fault| self.context.fail(fault))?;
            entries.push(
                read.into_entry()
                    .map_err(|fault| self.context.fail(fault))?,
            );
        }
        Ok(entries)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadFile<'a> {
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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadPath<'a> {
    #[serde(borrow)]
    relative_path: Cow<'a, str>,
    relative_path_bytes: Option<String>,
    #[serde(borrow)]
    metadata: Object<ReadMetadata<'a>>,
    xattrs: Option<Xattrs>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadSymlink<'a> {
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
        let path = read_path(
            &self.relative_path,
            self.relative_path_bytes.as_deref(),
            "relativePathBytes",
        )?;
        let content = read_content(&path, &self.digest, self.checksum.as_deref())?;
        let size = self
            .metadata
            .0
            .size
            .ok_or_else(|| DocumentError::Json(serde_json::Error::missing_field("size")))?;
        let attributes = read_attributes(&path, self.metadata.0, self.xattrs, REGULAR)?;
        let hardlink_of = read_hardlink(
            self.hardlink_of.as_deref(),
            self.hardlink_of_bytes.as_deref(),
        )?;
        Ok(FileEntry {
            path,
            content,
            read_only: self.read_only.unwrap_or(false),
            size,
            attributes,
            hardlink_of,
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
        .filter(|bytes| String::from_utf8_lossy(bytes) == text);
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
