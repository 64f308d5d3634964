//! Documents that are not ours, put where ours was. The manifest is made to fit, so that only the document itself can
//! give it away.

use std::path::Path;

use rusqlite::params;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::outside;

/// A snapshot's document. No handle may be open.
pub fn read(root: &Path, reference: &str) -> Value {
    let (document, _) = artifacts(root, reference);
    serde_json::from_slice(&document).expect("our own documents are JSON")
}

fn artifacts(root: &Path, reference: &str) -> (Vec<u8>, Vec<u8>) {
    outside::catalog(root)
        .query_row(
            "SELECT document, manifest FROM artifacts JOIN snapshots ON id = snapshot
             WHERE name || ':' || version = ?1",
            [reference],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .expect("a snapshot")
}

/// Puts other bytes in the place of a snapshot's document, under the same reference.
pub fn replace(root: &Path, reference: &str, document: &[u8]) {
    let (_, manifest) = artifacts(root, reference);
    let mut manifest: Value = serde_json::from_slice(&manifest).expect("our own manifest");
    let digest: String = Sha256::digest(document)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    manifest["config"]["digest"] = format!("sha256:{digest}").into();
    manifest["config"]["size"] = document.len().into();
    let manifest = serde_json::to_vec(&manifest).expect("JSON");
    let identity = Sha256::digest(&manifest).to_vec();
    let catalog = outside::catalog(root);
    let id: i64 = catalog
        .query_row(
            "SELECT id FROM snapshots WHERE name || ':' || version = ?1",
            [reference],
            |row| row.get(0),
        )
        .expect("a snapshot");
    catalog
        .execute(
            "UPDATE artifacts SET document = ?2, manifest = ?3 WHERE snapshot = ?1",
            params![id, document, manifest],
        )
        .expect("a row to change");
    catalog
        .execute(
            "UPDATE snapshots SET manifest_digest = ?2 WHERE id = ?1",
            params![id, identity],
        )
        .expect("a row to change");
}

/// The entry at `path` in one of the document's lists.
#[track_caller]
pub fn entry<'d>(document: &'d mut Value, list: &str, path: &str) -> &'d mut Value {
    let entries = document[list].as_array_mut().expect("a list");
    entries
        .iter_mut()
        .find(|entry| entry["relativePath"] == path)
        .unwrap_or_else(|| panic!("{path} in {list}"))
}

/// Adds an entry to a list, which need not be there yet.
pub fn add(document: &mut Value, list: &str, entry: Value) {
    match document[list].as_array_mut() {
        Some(entries) => entries.push(entry),
        None => document[list] = Value::Array(vec![entry]),
    }
}
