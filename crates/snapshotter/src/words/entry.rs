//! What an entry has beside its bytes: [`Mtime`] and [`Attributes`]. Times are kept as the kernel has them, seconds and
//! nanoseconds, and written in the one form that the document allows, so a time has one spelling.

use std::collections::BTreeMap;

use thiserror::Error;
use time::{Date, Month, OffsetDateTime};

use super::digest::excerpt;

const DAY_SECONDS: i64 = 86_400;
const UNIX_EPOCH_JULIAN_DAY: i64 = 2_440_588;

/// A time that the document can't hold.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MtimeError {
    /// Outside the years 0 to 9999 in UTC.
    #[error("the time {seconds} s after 1970 is outside the years 0 to 9999")]
    Year {
        /// Seconds after the epoch.
        seconds: i64,
    },
    /// A full second or more of nanoseconds.
    #[error("{nanoseconds} ns are not a fraction of a second")]
    Nanoseconds {
        /// The nanoseconds.
        nanoseconds: u32,
    },
    /// Text that isn't RFC 3339 with up to nine fraction digits.
    #[error("\"{text}\" is not an RFC 3339 time with at most nine fraction digits")]
    Malformed {
        /// The text, shortened.
        text: String,
    },
}

/// A modification time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtime {
    /// Whole seconds after 1970 in UTC, rounded down.
    pub seconds: i64,
    /// Nanoseconds after that, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Mtime {
    /// RFC 3339 in UTC (`Z`), with as many fraction digits as it takes.
    ///
    /// # Errors
    /// Outside the years 0 to 9999, or when `nanoseconds` isn't a fraction of a second.
    pub fn to_rfc3339(self) -> Result<String, MtimeError> {
        let year = MtimeError::Year {
            seconds: self.seconds,
        };
        let utc = OffsetDateTime::from_unix_timestamp(self.seconds).map_err(|_| year.clone())?;
        if !(0..=9999).contains(&utc.year()) {
            return Err(year);
        }
        let (date, clock) = (utc.date(), utc.time());
        Ok(format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{}Z",
            date.year(),
            u8::from(date.month()),
            date.day(),
            clock.hour(),
            clock.minute(),
            clock.second(),
            self.fraction()?,
        ))
    }

    /// Reads RFC 3339 in any zone, as strictly as Go does: upper-case `T` and `Z`, no leap seconds.
    ///
    /// # Errors
    /// When the text is malformed, or the time is outside the years 0 to 9999 in UTC.
    pub fn parse_rfc3339(text: &str) -> Result<Self, MtimeError> {
        let mtime = parse(text.as_bytes()).ok_or_else(|| MtimeError::Malformed {
            text: excerpt(text),
        })?;
        mtime.to_rfc3339()?;
        Ok(mtime)
    }

    fn fraction(self) -> Result<String, MtimeError> {
        match self.nanoseconds {
            0 => Ok(String::new()),
            1..=999_999_999 => Ok(format!(".{:09}", self.nanoseconds)
                .trim_end_matches('0')
                .to_owned()),
            nanoseconds => Err(MtimeError::Nanoseconds { nanoseconds }),
        }
    }
}

fn parse(text: &[u8]) -> Option<Mtime> {
    let (fixed, rest) = text.split_at_checked(19)?;
    let punctuated = fixed[4] == b'-'
        && fixed[7] == b'-'
        && fixed[10] == b'T'
        && fixed[13] == b':'
        && fixed[16] == b':';
    if !punctuated {
        return None;
    }
    let date = parse_date(&fixed[..4], &fixed[5..7], &fixed[8..10])?;
    let clock = clock_seconds(&fixed[11..13], &fixed[14..16])? + below(&fixed[17..19], 60)?;
    let (nanoseconds, zone) = parse_fraction(rest)?;
    let seconds = date * DAY_SECONDS + clock - parse_zone(zone)?;
    Some(Mtime {
        seconds,
        nanoseconds,
    })
}

/// Days after 1970-01-01.
fn parse_date(year: &[u8], month: &[u8], day: &[u8]) -> Option<i64> {
    let month = Month::try_from(u8::try_from(number(month)?).ok()?).ok()?;
    let date = Date::from_calendar_date(
        i32::try_from(number(year)?).ok()?,
        month,
        u8::try_from(number(day)?).ok()?,
    );
    Some(i64::from(date.ok()?.to_julian_day()) - UNIX_EPOCH_JULIAN_DAY)
}

fn parse_fraction(rest: &[u8]) -> Option<(u32, &[u8])> {
    let Some(rest) = rest.strip_prefix(b".") else {
        return Some((0, rest));
    };
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, zone) = rest.split_at(count);
    if !(1..=9).contains(&count) {
        return None;
    }
    let scale = 10_i64.pow(9 - count as u32);
    Some((u32::try_from(number(digits)? * scale).ok()?, zone))
}

/// Seconds east of UTC.
fn parse_zone(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let east = clock_seconds(&[*h1, *h2], &[*m1, *m2])?;
            Some(if *sign == b'-' { -east } else { east })
        }
        _ => None,
    }
}

fn clock_seconds(hours: &[u8], minutes: &[u8]) -> Option<i64> {
    Some(below(hours, 24)? * 3600 + below(minutes, 60)? * 60)
}

fn below(digits: &[u8], limit: i64) -> Option<i64> {
    number(digits).filter(|value| *value < limit)
}

/// At most nine decimal digits and nothing else.
fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |value, byte| {
        byte.is_ascii_digit()
            .then(|| value * 10 + i64::from(byte - b'0'))
    })
}

/// All that a mode may have.
pub const MODE_BITS: u32 = 0o7777;

/// The set-user-ID and set-group-ID bits: restored only where that was asked for.
pub const SETID_BITS: u32 = 0o6000;

/// What a restored entry gets beside its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, and the set-user-ID, set-group-ID and sticky bits, as chmod(2) has them: at most [`MODE_BITS`].
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// When it was last modified.
    pub mtime: Mtime,
    /// Extended attributes by their full name.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Attributes {
    /// The same without the bits that make a program run as its owner or group.
    pub fn without_setid(&self) -> Self {
        Self {
            mode: self.mode & !SETID_BITS,
            ..self.clone()
        }
    }

    /// Names a view of a blob: 16 bytes of BLAKE3 over all fields. Fixed-width numbers and length-prefixed strings
    /// make the hashed bytes unambiguous, so two sets of attributes share a name only if BLAKE3 collides.
    pub fn fingerprint(&self) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"attributes 1\n");
        for number in [self.mode, self.uid, self.gid, self.mtime.nanoseconds] {
            hasher.update(&number.to_be_bytes());
        }
        hasher.update(&self.mtime.seconds.to_be_bytes());
        hasher.update(&(self.xattrs.len() as u64).to_be_bytes());
        for part in self
            .xattrs
            .iter()
            .flat_map(|(name, value)| [name.as_bytes(), value])
        {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        fingerprint
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const FIRST: i64 = -62_167_219_200;
    const LAST: i64 = 253_402_300_799;

    #[test]
    fn known_times() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (1_700_000_001, 500_000_000, "2023-11-14T22:13:21.5Z"),
            (1_700_000_003, 1_000, "2023-11-14T22:13:23.000001Z"),
            (1_700_000_002, 123_456_789, "2023-11-14T22:13:22.123456789Z"),
            (-86_400, 250_000_000, "1969-12-31T00:00:00.25Z"),
            (FIRST, 0, "0000-01-01T00:00:00Z"),
            (LAST, 999_999_999, "9999-12-31T23:59:59.999999999Z"),
        ] {
            let mtime = Mtime {
                seconds,
                nanoseconds,
            };
            assert_eq!(mtime.to_rfc3339().as_deref(), Ok(text));
            assert_eq!(Mtime::parse_rfc3339(text), Ok(mtime));
        }
    }

    #[test]
    fn any_zone_is_read() {
        let utc = Mtime {
            seconds: 1_700_000_000,
            nanoseconds: 0,
        };
        for text in [
            "2023-11-15T03:43:20+05:30",
            "2023-11-14T17:13:20-05:00",
            "2023-11-14T22:13:20-00:00",
            "2023-11-14T22:13:20.000Z",
        ] {
            assert_eq!(Mtime::parse_rfc3339(text), Ok(utc), "{text}");
        }
    }

    #[test]
    fn refuses_other_texts() {
        for text in [
            "",
            "Z",
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-11-14 22:13:20Z",
            "2023-11-14t22:13:20Z",
            "2023-11-14T22:13:20z",
            "2023-11-14T22:13:60Z",
            "2023-11-14T24:00:00Z",
            "2023-11-14T22:60:20Z",
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-00-01T00:00:00Z",
            "2023-01-00T00:00:00Z",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20.1234567890Z",
            "2023-11-14T22:13:20,5Z",
            "2023-11-14T22:13:20+24:00",
            "2023-11-14T22:13:20+05:60",
            "2023-11-14T22:13:20+0530",
            "2023-11-14T22:13:20ZZ",
            "12023-11-14T22:13:20Z",
            "-001-11-14T22:13:20Z",
            "+023-11-14T22:13:20Z",
            "2023-11-14T22:13:2éZ",
            "0000-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
        ] {
            assert!(Mtime::parse_rfc3339(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn years_are_bounded() {
        for seconds in [i64::MIN, FIRST - 1, LAST + 1, i64::MAX] {
            assert!(
                Mtime {
                    seconds,
                    nanoseconds: 0
                }
                .to_rfc3339()
                .is_err()
            );
        }
        assert!(
            Mtime {
                seconds: 0,
                nanoseconds: 1_000_000_000
            }
            .to_rfc3339()
            .is_err()
        );
    }

    #[test]
    fn fingerprints_tell_every_field() {
        let base = Attributes::default();
        let xattrs = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                .collect()
        };
        let variants = [
            base.clone(),
            Attributes {
                mode: 1,
                ..base.clone()
            },
            Attributes {
                uid: 1,
                ..base.clone()
            },
            Attributes {
                gid: 1,
                ..base.clone()
            },
            Attributes {
                mtime: Mtime {
                    seconds: 1,
                    nanoseconds: 0,
                },
                ..base.clone()
            },
            Attributes {
                mtime: Mtime {
                    seconds: 0,
                    nanoseconds: 1,
                },
                ..base.clone()
            },
            Attributes {
                xattrs: xattrs(&[("a", "")]),
                ..base.clone()
            },
            Attributes {
                xattrs: xattrs(&[("a", "b")]),
                ..base.clone()
            },
            Attributes {
                xattrs: xattrs(&[("ab", "")]),
                ..base.clone()
            },
            Attributes {
                xattrs: xattrs(&[("a", ""), ("b", "")]),
                ..base
            },
        ];
        let distinct: HashSet<_> = variants.iter().map(Attributes::fingerprint).collect();
        assert_eq!(distinct.len(), variants.len());
    }

    proptest! {
        #[test]
        fn times_round_trip(seconds in FIRST..=LAST, nanoseconds in 0_u32..1_000_000_000) {
            let mtime = Mtime { seconds, nanoseconds };
            prop_assert_eq!(Mtime::parse_rfc3339(&mtime.to_rfc3339().unwrap()), Ok(mtime));
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,40}", seconds: i64, nanoseconds: u32) {
            let _ = Mtime::parse_rfc3339(&text);
            let _ = Mtime { seconds, nanoseconds }.to_rfc3339();
        }
    }
}
