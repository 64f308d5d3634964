//! Where a remote is, in the one spelling that rows are kept by, and what rows say of it.

use super::{Place, Remote};
use crate::catalog::{Address, PublicationRow, SeenBy};
use crate::registry::Repository;
use crate::words::digest::Sha256;
use crate::words::error::Result;
use crate::words::reference::Reference;

impl Remote {
    /// The address of the repository that has a snapshot.
    pub(super) fn address(&self, reference: &Reference) -> Result<Address> {
        Ok(self.address_of(&self.repository(reference)?))
    }

    fn address_of(&self, repository: &Repository) -> Address {
        Address::Repository(format!("{}/{repository}", self.addresses.registry))
    }

    /// The address of the contents that are published with a repository.
    pub(super) fn address_of_contents(&self, repository: &Repository) -> Address {
        let content = self.addresses.content.clone();
        content.map_or_else(|| self.address_of(repository), Address::Contents)
    }

    /// The row of a snapshot that is here under this manifest.
    pub(crate) fn publication(
        &self,
        reference: &Reference,
        manifest: &[u8],
        now: i64,
    ) -> Result<PublicationRow> {
        let repository = self.repository(reference)?;
        let parsed = super::parse_manifest(manifest, reference)?;
        // Layers are in the manifest's own repository, whatever is configured.
        let content = if parsed.has_layers() {
            self.address_of(&repository)
        } else {
            self.address_of_contents(&repository)
        };
        Ok(PublicationRow {
            registry: self.address_of(&repository),
            content,
            manifest_digest: Sha256::of(manifest),
            seen_at: now,
        })
    }

    /// Whose word it is that an object is at its place.
    pub(super) fn seen_by(&self, content: &Address) -> SeenBy {
        match (content, &self.content) {
            #[cfg(feature = "dragonfly")]
            (Address::Contents(_), Place::Elsewhere(way)) if way.daemon().is_some() => {
                SeenBy::Daemon
            }
            (_, Place::Unknown | Place::Registry | Place::Elsewhere(_)) => SeenBy::Ourselves,
        }
    }

    /// The row that says that this remote has all of a snapshot, or may have it.
    pub(crate) fn said<'r>(
        &self,
        reference: &Reference,
        rows: &'r [PublicationRow],
    ) -> Option<&'r PublicationRow> {
        let registry = self.address(reference).ok()?;
        rows.iter().find(|row| match &row.content {
            Address::Unknown => true,
            _ if row.registry != registry => false,
            Address::Repository(_) => row.content == registry,
            Address::Contents(content) => Some(content) == self.addresses.content.as_ref(),
        })
    }
}

/// Whether a snapshot is there by its digest alone: it was fetched without a version, or somebody had taken its own.
pub(super) fn is_named_by_digest(reference: &Reference, digest: Sha256) -> bool {
    let version = reference.version().unwrap_or_default();
    version.strip_prefix("sha256-") == Some(&*digest.hex())
}
