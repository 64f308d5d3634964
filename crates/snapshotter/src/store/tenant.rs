//! Tenants: where each has a root of its own, in the one that is configured. Nothing of one is in another's, and no row, so nobody
//! finds there what is not their own, whatever it is: blobs, packs, views, cache entries, lists of page digests, and what is known
//! of places. What there is to see to is that a name is used in the root of its tenant alone.

use std::path::{Path, PathBuf};

use super::layout::Root;
use crate::words::error::{Error, Result};
use crate::words::reference::Reference;

/// Whose a root is, and the directory that all tenants' are in.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) name: String,
    pub(super) above: (u64, u64),
}

/// The tenants' roots.
const TENANTS: &str = "tenants";

/// Where the store of a root is.
pub(crate) fn store_dir(root: &Path, tenant: Option<&str>) -> PathBuf {
    match tenant {
        Some(tenant) => root.join(TENANTS).join(tenant),
        None => root.to_owned(),
    }
}

/// Refuses a snapshot that is not this tenant's.
pub(crate) fn require_own(tenant: Option<&str>, reference: &Reference) -> Result<()> {
    match tenant {
        Some(own) if own != reference.tenant() => {
            let text = format!("{reference} is not a snapshot of the tenant {own}");
            Err(Error::invalid(text)
                .with_reference(reference)
                .with_hint(format!("names of its snapshots begin with {own}/")))
        }
        _ => Ok(()),
    }
}

impl Root {
    /// Whose it is.
    pub(crate) fn tenant(&self) -> Option<&str> {
        self.tenant.as_ref().map(|own| &*own.name)
    }

    /// Refuses a snapshot that is another tenant's.
    pub(crate) fn require_own(&self, reference: &Reference) -> Result<()> {
        require_own(self.tenant(), reference)
    }
}
