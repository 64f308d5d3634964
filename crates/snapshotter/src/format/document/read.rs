//! Reading: each entry becomes its final form as soon as it is parsed, so nothing is held twice, and the lists stop at
//! the limit on entries, not after it. Keys that aren't known are skipped without building anything. What both formats have
//! is here, and the outermost object of format v1.

mod entries;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

pub(super) use entries::{IntoEntry, ReadPagedFile};
use entries::{ReadFile, ReadPath, ReadSymlink};

use super::json::Object;
use super::{
    DirectoryEntry, Document, DocumentError, FileEntry, MAX_XATTRS, SymlinkEntry, WhiteoutEntry,
};

pub(super) const REGULAR: u32 = 0;
pub(super) const SYMLINK: u32 = 2;
pub(super) const CHARACTER_DEVICE: u32 = 3;
pub(super) const DIRECTORY: u32 = 5;

/// How long a file is in a document of ours, about, in bytes: a list that grows by copying is in memory twice.
const AN_ENTRY: usize = 256;

/// Reads at most `max_entries`, all kinds together.
pub(super) fn read(bytes: &[u8], max_entries: usize) -> Result<Document, DocumentError> {
    let context = Context::new(max_entries, bytes.len() as u64);
    let deserializer = serde_json::Deserializer::from_slice(bytes);
    read_all(deserializer, DocumentSeed(&context), &context)
}

/// The same of bytes that are not in memory.
pub(super) fn read_stream(
    stream: impl io::BufRead,
    length: u64,
    max_entries: usize,
) -> Result<Document, DocumentError> {
    let context = Context::new(max_entries, length);
    let deserializer = serde_json::Deserializer::from_reader(stream);
    read_all(deserializer, DocumentSeed(&context), &context)
}

/// Reads the one thing that there has to be, and nothing after it.
pub(super) fn read_all<'de, S: DeserializeSeed<'de>>(
    mut deserializer: serde_json::Deserializer<impl serde_json::de::Read<'de>>,
    seed: S,
    context: &Context,
) -> Result<S::Value, DocumentError> {
    let read = seed.deserialize(&mut deserializer);
    let read = read.and_then(|document| deserializer.end().map(|()| document));
    read.map_err(|error| context.fault.take().unwrap_or_else(|| error.into()))
}

/// What all lists share. serde's errors are texts, so ours wait here.
#[derive(Default)]
pub(super) struct Context {
    max_entries: usize,
    /// For that many files.
    room: usize,
    entries: Cell<usize>,
    xattrs: Cell<usize>,
    fault: RefCell<Option<DocumentError>>,
}

impl Context {
    /// Of a document that is about so many bytes long.
    pub(super) fn new(max_entries: usize, length: u64) -> Self {
        Self {
            max_entries,
            room: usize::try_from(length).unwrap_or(0) / AN_ENTRY,
            ..Self::default()
        }
    }

    pub(super) fn fail<E: serde::de::Error>(&self, fault: DocumentError) -> E {
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
        let mut lists = Lists::new(self.0);
        while let Some(key) = map.next_key()? {
            match key {
                Key::Files => lists.files::<ReadFile<'de>, _>("files", &mut map)?,
                Key::Directories => lists.directories(&mut map)?,
                Key::Symlinks => lists.symlinks(&mut map)?,
                Key::Whiteouts => lists.whiteouts(&mut map)?,
                Key::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(lists.into_document())
    }
}

/// The lists of entries that there were so far.
pub(super) struct Lists<'c, C> {
    context: &'c Context,
    files: Option<Vec<FileEntry<C>>>,
    directories: Option<Vec<DirectoryEntry>>,
    symlinks: Option<Vec<SymlinkEntry>>,
    whiteouts: Option<Vec<WhiteoutEntry>>,
}

impl<'c, C> Lists<'c, C> {
    pub(super) fn new(context: &'c Context) -> Self {
        Self {
            context,
            files: None,
            directories: None,
            symlinks: None,
            whiteouts: None,
        }
    }

    /// The files, which are `R` in this format.
    pub(super) fn files<'de, R, A>(
        &mut self,
        key: &'static str,
        map: &mut A,
    ) -> Result<(), A::Error>
    where
        R: Deserialize<'de> + IntoEntry<FileEntry<C>>,
        A: MapAccess<'de>,
    {
        let seed = ListSeed::<R, _>::new(self.context, self.context.room);
        once(&mut self.files, key, map, seed)
    }

    pub(super) fn directories<'de, A>(&mut self, map: &mut A) -> Result<(), A::Error>
    where
        A: MapAccess<'de>,
    {
        let seed = ListSeed::<ReadPath<'de>, _>::new(self.context, 0);
        once(&mut self.directories, "directories", map, seed)
    }

    pub(super) fn symlinks<'de, A>(&mut self, map: &mut A) -> Result<(), A::Error>
    where
        A: MapAccess<'de>,
    {
        let seed = ListSeed::<ReadSymlink<'de>, _>::new(self.context, 0);
        once(&mut self.symlinks, "symlinks", map, seed)
    }

    pub(super) fn whiteouts<'de, A>(&mut self, map: &mut A) -> Result<(), A::Error>
    where
        A: MapAccess<'de>,
    {
        let seed = ListSeed::<ReadPath<'de>, _>::new(self.context, 0);
        once(&mut self.whiteouts, "whiteouts", map, seed)
    }

    pub(super) fn into_document(self) -> Document<C> {
        Document {
            files: self.files.unwrap_or_default(),
            directories: self.directories.unwrap_or_default(),
            symlinks: self.symlinks.unwrap_or_default(),
            whiteouts: self.whiteouts.unwrap_or_default(),
        }
    }
}

/// A list given twice would mean one thing to us and another to the Go library.
pub(super) fn once<'de, A: MapAccess<'de>, S: DeserializeSeed<'de>>(
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
