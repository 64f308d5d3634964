//! The three hashes that name bytes: [`Digest`] (format v1's address), [`Checksum`] (what the store is keyed by) and
//! [`Sha256`] (the registry's). They become parts of file names and URLs, so each is read with a strict grammar: one
//! value has exactly one spelling, and no spelling holds a separator.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;
use thiserror::Error;
use twox_hash::XxHash3_64;

const DIGEST_RULE: &str = "xxh3: and 1 to 16 lower-case hex digits without leading zeros";

/// Text that is not a digest, checksum or SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DigestError {
    /// Another algorithm, or none.
    #[error("\"{text}\" has another algorithm than {expected}")]
    Algorithm {
        /// The algorithm that was wanted.
        expected: &'static str,
        /// The text, shortened.
        text: String,
    },
    /// The right algorithm with digits that are not in the one allowed form.
    #[error("\"{text}\" is malformed: it should be {rule}")]
    Malformed {
        /// The allowed form.
        rule: &'static str,
        /// The text, shortened.
        text: String,
    },
}

/// XXH3-64 (seed 0) of a blob's packed stream: its address in format v1. Not collision resistant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(u64);

impl Digest {
    /// Wraps a hash that was computed elsewhere.
    pub const fn from_u64(value: u64) -> Self {
        Self(value)
    }

    /// Hashes bytes that are already in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(XxHash3_64::oneshot(bytes))
    }

    /// The hash as a number.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The digits alone, 1 to 16 of them, without leading zeros.
    pub fn hex(self) -> String {
        format!("{:x}", self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "xxh3:{:x}", self.0)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digits = strip_algorithm(text, "xxh3")?;
        let canonical = digits == "0" || !digits.starts_with('0');
        if digits.is_empty() || digits.len() > 16 || !canonical || !digits.bytes().all(is_lower_hex)
        {
            return Err(malformed(DIGEST_RULE, text));
        }
        u64::from_str_radix(digits, 16)
            .map(Self)
            .map_err(|_| malformed(DIGEST_RULE, text))
    }
}

/// A hash of 32 bytes with one spelling: `ALGORITHM:` and 64 digits.
macro_rules! long_hash {
    ($(#[$doc:meta])* $name:ident, $algorithm:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps a hash that was computed elsewhere.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The hash's bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The 64 digits alone.
            pub fn hex(&self) -> String {
                $crate::words::digest::hex(&self.0)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!($algorithm, ":{}"), self.hex())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::words::digest::DigestError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                const RULE: &str = concat!($algorithm, ": and 64 lower-case hex digits");
                $crate::words::digest::parse_long(text, $algorithm, RULE).map(Self)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, f)
            }
        }
    };
}
pub(crate) use long_hash;

long_hash! {
    /// BLAKE3 of a blob's packed stream: what the store trusts.
    Checksum, "blake3"
}

impl Checksum {
    /// Hashes bytes that are already in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

long_hash! {
    /// SHA-256 of a registry object (document, manifest, layer).
    Sha256, "sha256"
}

impl Sha256 {
    /// Hashes bytes that are already in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What an error shows of text that came from outside: one short line, whatever the text was.
pub(crate) fn excerpt(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut shown: String = text.chars().take(SHOWN).flat_map(visible).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// A character as it may reach a terminal: control and direction-changing characters are escaped, so that a name
/// can neither move the cursor nor read backwards.
pub(crate) fn visible(c: char) -> impl Iterator<Item = char> {
    let hidden = c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let (escaped, plain) = if hidden {
        (Some(c.escape_default()), None)
    } else {
        (None, Some(c))
    };
    escaped.into_iter().flatten().chain(plain)
}

/// 64 digits of a hash.
pub(crate) fn hex(bytes: &[u8; 32]) -> String {
    let pairs = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    pairs.map(|nibble| char::from(hex_digit(nibble))).collect()
}

const fn hex_digit(nibble: u8) -> u8 {
    b"0123456789abcdef"[nibble as usize]
}

const fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

fn strip_algorithm<'a>(text: &'a str, expected: &'static str) -> Result<&'a str, DigestError> {
    text.strip_prefix(expected)
        .and_then(|rest| rest.strip_prefix(':'))
        .ok_or_else(|| DigestError::Algorithm {
            expected,
            text: excerpt(text),
        })
}

fn malformed(rule: &'static str, text: &str) -> DigestError {
    DigestError::Malformed {
        rule,
        text: excerpt(text),
    }
}

/// Reads a hash of 32 bytes in its one spelling.
pub(crate) fn parse_long(
    text: &str,
    algorithm: &'static str,
    rule: &'static str,
) -> Result<[u8; 32], DigestError> {
    let digits = strip_algorithm(text, algorithm)?;
    parse_32_bytes(digits).ok_or_else(|| malformed(rule, text))
}

fn parse_32_bytes(digits: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = digits.as_bytes().try_into().ok()?;
    let mut bytes = [0_u8; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = hex_value(pair[0])? << 4 | hex_value(pair[1])?;
    }
    Some(bytes)
}

const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ABC_SHA256: &str =
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const EMPTY_BLAKE3: &str =
        "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn known_hashes() {
        assert_eq!(Digest::of(b"").to_string(), "xxh3:2d06800538d394c2");
        assert_eq!(Checksum::of(b"").to_string(), EMPTY_BLAKE3);
        assert_eq!(Sha256::of(b"abc").to_string(), ABC_SHA256);
        assert_eq!(format!("{:?}", Sha256::of(b"abc")), ABC_SHA256);
    }

    #[test]
    fn digest_has_no_leading_zeros() {
        assert_eq!(Digest::from_u64(0).to_string(), "xxh3:0");
        assert_eq!(Digest::from_u64(0x0abc).hex(), "abc");
        assert_eq!("xxh3:0".parse(), Ok(Digest::from_u64(0)));
        assert_eq!(
            "xxh3:ffffffffffffffff".parse(),
            Ok(Digest::from_u64(u64::MAX))
        );
    }

    #[test]
    fn refuses_other_spellings_of_a_digest() {
        let refused = [
            "",
            "xxh3",
            "xxh3:",
            "xxh3:00",
            "xxh3:0abc",
            "xxh3:ABC",
            "xxh3:+1",
            "xxh3:-1",
            "xxh3: 1",
            "xxh3:1 ",
            "xxh3:g",
            "xxh3:11111111111111111",
            "XXH3:1",
            "xxh64:1",
            "1",
            "xxh3:../a",
            "xxh3:é",
            "xxh3:1\n",
        ];
        for text in refused {
            assert!(text.parse::<Digest>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn refuses_other_spellings_of_the_long_hashes() {
        let digits = &ABC_SHA256[7..];
        let refused = [
            digits.to_owned(),
            format!("sha256:{}", digits.to_uppercase()),
            format!("sha256:{}", &digits[1..]),
            format!("sha256:{digits}0"),
            format!("sha512:{digits}"),
            format!("sha256:{}g", &digits[1..]),
            format!("sha256:{}é", &digits[2..]),
        ];
        for text in refused {
            assert!(text.parse::<Sha256>().is_err(), "{text:?} was accepted");
            assert!(
                text.replace("sha256", "blake3")
                    .parse::<Checksum>()
                    .is_err(),
                "{text:?} was accepted"
            );
        }
        assert!(ABC_SHA256.parse::<Checksum>().is_err());
    }

    #[test]
    fn errors_show_the_rule_and_one_short_line() {
        let error = format!("xxh3:\x1b[2J{}", "z".repeat(1000))
            .parse::<Digest>()
            .unwrap_err()
            .to_string();
        assert!(error.contains(DIGEST_RULE));
        assert!(error.contains("\\u{1b}"), "{error}");
        assert!(error.len() < 300);
        assert!(!error.chars().any(char::is_control));
    }

    proptest! {
        #[test]
        fn digest_round_trips(value: u64) {
            let digest = Digest::from_u64(value);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        }

        #[test]
        fn long_hashes_round_trip(bytes: [u8; 32]) {
            prop_assert_eq!(Checksum(bytes).to_string().parse(), Ok(Checksum(bytes)));
            prop_assert_eq!(Sha256(bytes).to_string().parse(), Ok(Sha256(bytes)));
        }

        #[test]
        fn what_is_accepted_is_canonical(text in "xxh3:[0-9a-fA-F]{0,17}") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}
