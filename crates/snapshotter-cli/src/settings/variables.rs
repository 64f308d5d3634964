//! `SNAPSHOTTER_*` variables: those that are settings, and those that mean nothing.

use std::env;

use super::keys::{KEYS, Key};
use super::{Assignment, Source, bad_value, variable};
use crate::failure::Result;

/// What they set.
pub fn assignments() -> Result<Vec<Assignment>> {
    let mut assignments = Vec::new();
    for key in KEYS {
        let name = key.variable();
        if let Some(value) = variable(&name) {
            let value = key.parse(&value).map_err(|why| bad_value(&name, &why))?;
            let source = Source::Variable(name);
            assignments.push(Assignment { key, value, source });
        }
    }
    Ok(assignments)
}

/// The key that a variable's name misses by a letter or two: a typo leaves a setting at its default, and nothing else says so.
pub fn misspelt(name: &str) -> Option<&'static Key> {
    let distance = |key: &&Key| strsim::levenshtein(&key.variable(), name);
    KEYS.iter()
        .min_by_key(distance)
        .filter(|key| distance(key) <= 2)
}

/// Kubernetes sets such variables for a service called "snapshotter", so they cannot be errors.
pub fn unknown() -> Vec<String> {
    let known =
        |name: &str| name == "SNAPSHOTTER_CONFIG" || KEYS.iter().any(|key| key.variable() == name);
    let mut names: Vec<String> = env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("SNAPSHOTTER_") && !known(name))
        .collect();
    names.sort();
    names
}
