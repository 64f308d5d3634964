//! What a snapshot is, as the registry says it: manifest and document, and the distinct contents that it names.

use std::collections::HashMap;

use super::content::Incoming;
use super::flight;
use super::runtime::wait;
use super::{Remote, parse_manifest};
use crate::activity::Activity;
use crate::format::artifact::Manifest;
use crate::format::document::{Document, FileEntry};
use crate::words::digest::{Checksum, Digest};
use crate::words::entry::Attributes;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::reference::Reference;

/// A snapshot as the registry describes it.
pub(super) struct Resolved {
    /// With its digest, and without a version where it was asked for without one.
    pub(super) reference: Reference,
    pub(super) manifest: Vec<u8>,
    pub(super) parsed: Manifest,
    pub(super) document: Vec<u8>,
    pub(super) entries: Document,
}

/// Looks a snapshot up in the registry, document and all.
pub(super) fn resolve(
    remote: &Remote,
    reference: &Reference,
    activity: &Activity,
) -> Result<Resolved> {
    let found = remote.find(reference, activity)?.ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!(
                "there is no snapshot {reference}, neither here nor in {}",
                remote.endpoint
            ),
        )
        .with_reference(reference)
    })?;
    let parsed = parse_manifest(&found.bytes, reference)?;
    let repository = remote.repository(reference)?;
    let document = wait(
        &|| activity.check(),
        remote
            .registry
            .blob(&repository, parsed.config, parsed.config_size),
    )?;
    let entries = Document::parse(&document).map_err(|error| {
        Error::damaged(format!("the document of {reference} cannot be used"))
            .with_reference(reference)
            .with_source(error)
    })?;
    Ok(Resolved {
        reference: reference.clone().with_digest(found.digest),
        manifest: found.bytes,
        parsed,
        document,
        entries,
    })
}

/// A distinct content of a snapshot.
pub(super) struct Need<'a> {
    pub(super) digest: Digest,
    pub(super) checksum: Option<Checksum>,
    pub(super) size: u64,
    pub(super) files: Vec<&'a FileEntry>,
}

/// Files below this are committed many at once, in bytes.
const SMALL: u64 = 1 << 20;

impl Need<'_> {
    pub(super) fn is_small(&self) -> bool {
        self.size < SMALL
    }

    /// Of the first read-only file with it: given to the blob's own inode, which is then that file's view.
    pub(super) fn attributes(&self) -> Option<&Attributes> {
        let file = self.files.iter().find(|file| file.read_only)?;
        Some(&file.attributes)
    }

    pub(super) fn wanted(&self) -> flight::Wanted {
        (self.digest, self.checksum, self.size)
    }

    pub(super) fn incoming(&self) -> Incoming {
        Incoming {
            digest: self.digest,
            checksum: self.checksum,
            size: self.size,
        }
    }
}

pub(super) fn needs(document: &Document) -> Vec<Need<'_>> {
    let mut index: HashMap<(Digest, Option<Checksum>), usize> = HashMap::new();
    let mut needs: Vec<Need<'_>> = Vec::new();
    for file in &document.files {
        let key = (file.content.digest(), file.content.checksum());
        let at = *index.entry(key).or_insert_with(|| {
            needs.push(Need {
                digest: key.0,
                checksum: key.1,
                size: file.size,
                files: Vec::new(),
            });
            needs.len() - 1
        });
        needs[at].files.push(file);
    }
    needs
}
