//! JSON as Go's encoding/json writes it, and stricter reading than serde's default: an object is never spelled as an
//! array, so that both libraries read a document alike.

use std::fmt;
use std::io;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::ser::Formatter;

/// One line without spaces, escaped as Go does.
pub(crate) fn to_vec(value: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::new();
    write(value, &mut out)?;
    Ok(out)
}

/// The same, written as it comes.
pub(crate) fn write(
    value: &impl Serialize,
    out: &mut impl io::Write,
) -> Result<(), serde_json::Error> {
    value.serialize(&mut serde_json::Serializer::with_formatter(
        out,
        GoFormatter,
    ))
}

/// Escapes what Go escapes for the sake of HTML and JavaScript. serde_json's own escapes (control characters, quote,
/// backslash) are the same as Go's already.
struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment.as_bytes();
        while let Some((at, len, escaped)) = first_escape(rest) {
            writer.write_all(&rest[..at])?;
            writer.write_all(escaped)?;
            rest = &rest[at + len..];
        }
        writer.write_all(rest)
    }
}

/// Where the first character to escape is, its length in bytes, and what to write instead. Looks at bytes: a UTF-8
/// lead byte is never inside another character.
fn first_escape(bytes: &[u8]) -> Option<(usize, usize, &'static [u8])> {
    let candidates = (0..bytes.len()).filter(|at| matches!(bytes[*at], b'<' | b'>' | b'&' | 0xe2));
    let mut escapes = candidates.filter_map(|at| match &bytes[at..] {
        [b'<', ..] => Some((at, 1, br"\u003c".as_slice())),
        [b'>', ..] => Some((at, 1, br"\u003e")),
        [b'&', ..] => Some((at, 1, br"\u0026")),
        [0xe2, 0x80, 0xa8, ..] => Some((at, 3, br"\u2028")),
        [0xe2, 0x80, 0xa9, ..] => Some((at, 3, br"\u2029")),
        _ => None,
    });
    escapes.next()
}

/// Reads `T` from a JSON object alone; serde's derived structs would take an array as well.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_as_go_does() {
        let text = "a&b<c>d\u{2028}\u{2029}é日\"\\/\t\n\r\u{8}\u{c}\u{1}\u{1f}\u{7f}\u{2027}😀";
        let go = r#""a\u0026b\u003cc\u003ed\u2028\u2029é日\"\\/\t\n\r\b\f\u0001\u001f"#;
        let bytes = to_vec(&text).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            format!("{go}\u{7f}\u{2027}😀\"")
        );
    }

    #[test]
    fn an_object_is_no_array() {
        #[derive(Deserialize)]
        struct Pair {
            a: u8,
        }
        assert_eq!(
            serde_json::from_str::<Object<Pair>>(r#"{"a":1,"b":[2]}"#)
                .unwrap()
                .0
                .a,
            1
        );
        assert!(serde_json::from_str::<Object<Pair>>("[1]").is_err());
        assert!(serde_json::from_str::<Object<Pair>>("null").is_err());
    }
}
