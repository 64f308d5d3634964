//! An accepted reference prints as it was typed, and its parts obey their rules; so do digests.
#![no_main]

use std::fmt::Display;
use std::str::FromStr;

use libfuzzer_sys::fuzz_target;
use snapshotter::fuzzing::words::digest::{Checksum, Digest, Sha256};
use snapshotter::fuzzing::words::reference::{Reference, check_name, check_version};

fn prints_as_typed<T: FromStr + Display>(text: &str)
where
    T::Err: Display,
{
    match text.parse::<T>() {
        Ok(value) => assert_eq!(value.to_string(), text),
        Err(error) => assert!(error.to_string().chars().all(|c| !c.is_control())),
    }
}

fn check_parts(reference: &Reference) {
    assert!(reference.version().is_some() || reference.manifest_digest().is_some());
    assert!(check_name(reference.name()).is_ok());
    assert!(
        reference
            .version()
            .is_none_or(|version| check_version(version).is_ok())
    );
    let name = reference.name();
    assert!(
        name.split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with('.'))
    );
    assert!(
        name.bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/'))
    );
    assert!(!name.contains("..") && name.len() <= 255);
    assert!(
        reference
            .version()
            .is_none_or(|version| !version.contains('/') && !version.starts_with('.'))
    );
}

fuzz_target!(|text: &str| {
    prints_as_typed::<Reference>(text);
    prints_as_typed::<Digest>(text);
    prints_as_typed::<Checksum>(text);
    prints_as_typed::<Sha256>(text);
    if let Ok(reference) = text.parse::<Reference>() {
        check_parts(&reference);
    }
});
