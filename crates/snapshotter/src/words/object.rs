//! What an object is called. An object is bytes that a place keeps as one: the store, a bucket, a directory, a registry.
//!
//! An [`ObjectId`] says which bytes they are: whoever has it recognizes them. An [`ObjectName`] says where a place keeps
//! them. Format v1 names a packed stream by its XXH3-64, which is not collision resistant, so that name is only looked up,
//! and what is found under it is checked before it is used.

use std::fmt;

use super::digest::{Checksum, Digest};

/// How an object's bytes are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ObjectKind {
    /// The packed stream of a file, in format v1; the hash is its BLAKE3.
    Stream,
    /// A pack of format v2; the hash is its id.
    Pack,
}

/// Which bytes an object has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ObjectId {
    pub(crate) kind: ObjectKind,
    pub(crate) hash: [u8; 32],
}

impl From<Checksum> for ObjectId {
    fn from(checksum: Checksum) -> Self {
        Self {
            kind: ObjectKind::Stream,
            hash: *checksum.as_bytes(),
        }
    }
}

/// Where a place keeps an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ObjectName {
    /// By the XXH3-64 of a packed stream.
    Digest(Digest),
    /// By its id, as packs are.
    Id(ObjectId),
}

impl ObjectName {
    /// What the keys of all kinds begin with: as directories have them, and as prefixes in buckets.
    pub(crate) const PREFIXES: [&str; 2] = ["xxh3", "packs"];

    /// The first half of its key.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Digest(_) => Self::PREFIXES[0],
            Self::Id(_) => Self::PREFIXES[1],
        }
    }

    /// The second half of its key.
    pub(crate) fn hex(self) -> String {
        match self {
            Self::Digest(digest) => digest.hex(),
            Self::Id(id) => Checksum::from_bytes(id.hash).hex(),
        }
    }

    /// The same in every bucket and directory.
    pub(crate) fn key(self) -> String {
        format!("{}/{}", self.prefix(), self.hex())
    }
}

/// For people.
impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => digest.fmt(f),
            Self::Id(_) => write!(f, "pack:{}", self.hex()),
        }
    }
}

/// An object as somebody asks for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object {
    pub(crate) name: ObjectName,
    /// `None`: the Go library wrote down the name alone.
    pub(crate) id: Option<ObjectId>,
    /// The most bytes that it can have; all that it has, where that is known.
    pub(crate) most: u64,
}

/// What tells one object from another. Where there is no id, the name and the size have to do; that is another identity than
/// the same object has by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    Id(ObjectId),
    Name(ObjectName, u64),
}

impl Object {
    /// A packed stream of at most so many bytes.
    pub(crate) fn stream(digest: Digest, checksum: Option<Checksum>, most: u64) -> Self {
        Self {
            name: ObjectName::Digest(digest),
            id: checksum.map(ObjectId::from),
            most,
        }
    }

    /// A pack of at most so many bytes.
    pub(crate) fn pack(id: [u8; 32], most: u64) -> Self {
        let kind = ObjectKind::Pack;
        let id = ObjectId { kind, hash: id };
        Self {
            name: ObjectName::Id(id),
            id: Some(id),
            most,
        }
    }

    pub(crate) fn key(&self) -> String {
        self.name.key()
    }

    pub(crate) fn identity(&self) -> Identity {
        self.id
            .map_or(Identity::Name(self.name, self.most), Identity::Id)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_names_for_people() {
        let stream = Object::stream(Digest::from_u64(0xabc), None, 20);
        assert_eq!(
            (stream.key(), stream.to_string()),
            ("xxh3/abc".to_owned(), "xxh3:abc".to_owned())
        );
        let name = ObjectName::Id(ObjectId {
            kind: ObjectKind::Pack,
            hash: [7; 32],
        });
        assert_eq!(name.key(), format!("packs/{}", "07".repeat(32)));
        assert_eq!(name.to_string(), format!("pack:{}", "07".repeat(32)));
    }

    #[test]
    fn an_object_is_its_id_whatever_it_is_called() {
        let checksum = Some(Checksum::of(b"bytes"));
        let (one, other) = (Digest::from_u64(1), Digest::from_u64(2));
        let identity = |digest, checksum, most| Object::stream(digest, checksum, most).identity();
        assert_eq!(identity(one, checksum, 20), identity(other, checksum, 30));
        assert_eq!(identity(one, None, 20), identity(one, None, 20));
        assert_ne!(identity(one, None, 20), identity(one, None, 30));
        assert_ne!(identity(one, None, 20), identity(one, checksum, 20));
        let as_pack = ObjectId {
            kind: ObjectKind::Pack,
            hash: *Checksum::of(b"bytes").as_bytes(),
        };
        assert_ne!(Identity::Id(as_pack), identity(one, checksum, 20));
    }
}
