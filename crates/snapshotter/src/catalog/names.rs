//! What objects and views are called under `storage/`, and back. A name says all that is needed to find its row, and
//! which bytes the file must have, so a store that lost its catalog can be read.

use std::ffi::{OsStr, OsString};

use crate::words::digest::Checksum;
use crate::words::form::Form;

/// A directory of names. Objects go to a new one after every 65,536th, because directories have a largest size and slow
/// down long before it; those of earlier releases stay where they are, in the directory above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Shard(pub(super) Option<u32>);

impl Shard {
    pub(crate) fn numbered(number: u32) -> Self {
        Self(Some(number))
    }

    /// The directory for the object that is inserted after `objects` others.
    pub(super) fn after(objects: i64) -> Self {
        Self(Some(u32::try_from(objects >> 16).unwrap_or(u32::MAX)))
    }

    /// Its name; `None`: it is the directory above all shards.
    pub(crate) fn directory(self) -> Option<OsString> {
        self.0.map(|number| format!("{number:04x}").into())
    }

    /// The shard a directory is; `None`: no shard is called that.
    pub(crate) fn parse(directory: &OsStr) -> Option<Self> {
        let number = u32::from_str_radix(directory.to_str()?, 16).ok()?;
        let shard = Self(Some(number));
        (shard.directory()? == directory).then_some(shard)
    }

    fn join(self, name: String) -> OsString {
        match self.0 {
            Some(number) => format!("{number:04x}/{name}").into(),
            None => name.into(),
        }
    }
}

/// The two trees of names under `storage/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Tree {
    /// Objects.
    Content,
    /// Views of them.
    Views,
}

/// A name in one of the trees, its shard's directory included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StoredName {
    pub(crate) tree: Tree,
    pub(crate) name: OsString,
}

impl StoredName {
    pub(crate) fn content(name: OsString) -> Self {
        let tree = Tree::Content;
        Self { tree, name }
    }

    pub(crate) fn view(name: OsString) -> Self {
        let tree = Tree::Views;
        Self { tree, name }
    }

    /// Of the blob whose bytes the file should have; `None`: no blob or view is called that.
    pub(crate) fn checksum(&self) -> Option<Checksum> {
        match self.tree {
            Tree::Content => parse_content_name(&self.name).map(|(checksum, ..)| checksum),
            Tree::Views => parse_view_name(&self.name).map(|(checksum, ..)| checksum),
        }
    }
}

/// What the name of a packed blob ends with.
const PACKED: &str = ".spf";

/// A blob's name under `storage/content/blake3`.
pub(crate) fn content_name(checksum: &Checksum, form: Form, shard: Shard) -> OsString {
    let mut name = checksum.hex();
    if form == Form::Packed {
        name.push_str(PACKED);
    }
    shard.join(name)
}

/// A view's name under `storage/snapshot/blake3`.
pub(crate) fn view_name(checksum: &Checksum, attributes: &[u8; 16], shard: Shard) -> OsString {
    let bits = u128::from_be_bytes(*attributes);
    shard.join(format!("{}.{bits:032x}", checksum.hex()))
}

/// The blob, its form and shard, that a name under `storage/content/blake3` stands for; `None`: no blob is called that.
pub(crate) fn parse_content_name(name: &OsStr) -> Option<(Checksum, Form, Shard)> {
    let (shard, name) = split(name)?;
    let (hex, form) = match name.strip_suffix(PACKED) {
        Some(hex) => (hex, Form::Packed),
        None => (name, Form::Plain),
    };
    Some((checksum_of_hex(hex)?, form, shard))
}

/// The view a name under `storage/snapshot/blake3` stands for.
pub(crate) fn parse_view_name(name: &OsStr) -> Option<(Checksum, [u8; 16], Shard)> {
    let (shard, name) = split(name)?;
    let (checksum, attributes) = name.split_once('.')?;
    if attributes.len() != 32 || !is_lower_hex(attributes) {
        return None;
    }
    let bits = u128::from_str_radix(attributes, 16).ok()?;
    Some((checksum_of_hex(checksum)?, bits.to_be_bytes(), shard))
}

fn split(name: &OsStr) -> Option<(Shard, &str)> {
    let name = name.to_str()?;
    match name.split_once('/') {
        Some((directory, name)) => Some((Shard::parse(OsStr::new(directory))?, name)),
        None => Some((Shard(None), name)),
    }
}

fn checksum_of_hex(hex: &str) -> Option<Checksum> {
    format!("blake3:{hex}").parse().ok()
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_nobodys() {
        let checksum = Checksum::from_bytes([0xab; 32]);
        let attributes = [0x0f; 16];
        for shard in [Shard(None), Shard(Some(0)), Shard(Some(0x1_2345))] {
            for form in [Form::Plain, Form::Packed] {
                let name = content_name(&checksum, form, shard);
                assert_eq!(parse_content_name(&name), Some((checksum, form, shard)));
            }
            assert_eq!(
                parse_view_name(&view_name(&checksum, &attributes, shard)),
                Some((checksum, attributes, shard))
            );
        }
        let hex = "ab".repeat(32);
        let odd = [
            "",
            "abc",
            "..",
            "AB",
            ".spf",
            &"g".repeat(64),
            &format!("../{hex}"),
            &format!("1/{hex}"),
            &format!("00001/{hex}"),
            &format!("000A/{hex}"),
            &format!("+001/{hex}"),
            &format!("0001/0001/{hex}"),
        ];
        for odd in odd {
            assert_eq!(parse_content_name(OsStr::new(odd)), None, "{odd}");
        }
        let upper = format!("{}.{}", checksum.hex(), "0F".repeat(16));
        assert_eq!(parse_view_name(OsStr::new(&upper)), None);
        let signed = format!("{}.+{}", checksum.hex(), "0".repeat(31));
        assert_eq!(parse_view_name(OsStr::new(&signed)), None);
    }

    #[test]
    fn a_shard_ends_with_its_65536th_object() {
        assert_eq!(Shard::after(0), Shard(Some(0)));
        assert_eq!(Shard::after(65_535), Shard(Some(0)));
        assert_eq!(Shard::after(65_536), Shard(Some(1)));
    }
}
