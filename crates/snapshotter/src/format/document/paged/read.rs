//! The outermost object of format v2. What it needs is refused as soon as it is read, since nothing after it need be as here.

use std::borrow::Cow;
use std::fmt;
use std::io;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{FORMAT, MAX_PACKS, MapPlace, PackEntry, PagedDocument};
use crate::format::document::json::Object;
use crate::format::document::read::{Context, Lists, ReadPagedFile, once, read_all};
use crate::format::document::{DocumentError, MAX_ENTRIES};
use crate::words::digest::excerpt;

/// Reads JSON that is in memory.
pub(super) fn read(bytes: &[u8]) -> Result<PagedDocument, DocumentError> {
    let context = Context::new(MAX_ENTRIES, bytes.len() as u64);
    let deserializer = serde_json::Deserializer::from_slice(bytes);
    read_all(deserializer, PagedSeed(&context), &context)
}

/// Reads JSON that is not, with room for entries of so many bytes.
pub(super) fn read_stream(
    stream: impl io::BufRead,
    room: u64,
) -> Result<PagedDocument, DocumentError> {
    let context = Context::new(MAX_ENTRIES, room);
    let deserializer = serde_json::Deserializer::from_reader(stream);
    read_all(deserializer, PagedSeed(&context), &context)
}

struct PagedSeed<'c>(&'c Context);

impl<'de> DeserializeSeed<'de> for PagedSeed<'_> {
    type Value = PagedDocument;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<PagedDocument, D::Error> {
        deserializer.deserialize_map(self)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    Format,
    Needs,
    Packs,
    Map,
    Entries,
    Directories,
    Symlinks,
    Whiteouts,
    #[serde(other)]
    Unknown,
}

impl<'de> Visitor<'de> for PagedSeed<'_> {
    type Value = PagedDocument;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a format")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PagedDocument, A::Error> {
        let mut lists = Lists::new(self.0);
        let (mut format, mut needs) = (None, None);
        let (mut packs, mut place) = (None, None);
        while let Some(key) = map.next_key()? {
            match key {
                Key::Format => once(&mut format, "format", &mut map, FormatSeed(self.0))?,
                Key::Needs => once(&mut needs, "needs", &mut map, NeedsSeed(self.0))?,
                Key::Packs => once(&mut packs, "packs", &mut map, PacksSeed(self.0))?,
                Key::Map => once(&mut place, "map", &mut map, MapSeed(self.0))?,
                Key::Entries => lists.files::<ReadPagedFile<'de>, _>("entries", &mut map)?,
                Key::Directories => lists.directories(&mut map)?,
                Key::Symlinks => lists.symlinks(&mut map)?,
                Key::Whiteouts => lists.whiteouts(&mut map)?,
                Key::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        format.ok_or_else(|| A::Error::missing_field("format"))?;
        Ok(PagedDocument {
            packs: packs.unwrap_or_default(),
            map: place.flatten(),
            entries: lists.into_document(),
        })
    }
}

struct FormatSeed<'c>(&'c Context);

impl<'de> DeserializeSeed<'de> for FormatSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let found = u64::deserialize(deserializer)?;
        if found == FORMAT {
            return Ok(());
        }
        let what = format!("format {found}");
        Err(self.0.fail(DocumentError::Unsupported { what }))
    }
}

/// What a reader has to know; this one knows nothing that could be there.
struct NeedsSeed<'c>(&'c Context);

impl<'de> DeserializeSeed<'de> for NeedsSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NeedsSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of names or null")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some(name) = list.next_element::<Cow<'de, str>>()? else {
            return Ok(());
        };
        let what = format!("\"{}\"", excerpt(&name));
        Err(self.0.fail(DocumentError::Unsupported { what }))
    }
}

struct PacksSeed<'c>(&'c Context);

impl<'de> DeserializeSeed<'de> for PacksSeed<'_> {
    type Value = Vec<PackEntry>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

#[derive(Deserialize)]
struct ReadPack {
    id: String,
    pages: u64,
}

impl<'de> Visitor<'de> for PacksSeed<'_> {
    type Value = Vec<PackEntry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of packs or null")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut packs = Vec::new();
        while let Some(Object(ReadPack { id, pages })) = list.next_element()? {
            if packs.len() == MAX_PACKS {
                let what = "there are more than 256";
                return Err(self.0.fail(DocumentError::Packs { what }));
            }
            let id = id.parse().map_err(A::Error::custom)?;
            packs.push(PackEntry { id, pages });
        }
        Ok(packs)
    }
}

struct MapSeed<'c>(&'c Context);

#[derive(Deserialize)]
struct ReadMap {
    pack: u64,
    frame: u32,
    frames: u32,
}

impl<'de> DeserializeSeed<'de> for MapSeed<'_> {
    type Value = Option<MapPlace>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let read = Option::<Object<ReadMap>>::deserialize(deserializer)?;
        let Some(Object(ReadMap {
            pack,
            frame,
            frames,
        })) = read
        else {
            return Ok(None);
        };
        if pack != 0 {
            let what = "the map is not in the first of them";
            return Err(self.0.fail(DocumentError::Packs { what }));
        }
        Ok(Some(MapPlace { frame, frames }))
    }
}
