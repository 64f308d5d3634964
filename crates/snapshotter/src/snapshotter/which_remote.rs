//! Which remote a call uses: the configured one, one that its request names, or none.

use super::Inner;
use crate::activity::Activity;
use crate::remote::Remote;
use crate::restore::RestoreRequest;
use crate::snapshot::SnapshotRequest;
use crate::store::Store;
use crate::verify::VerifyRequest;
use crate::words::error::Result;

/// Refuses directories inside the store as what nodes share: the store would take what is in them for its own.
#[cfg(feature = "registry")]
pub(super) fn require_outside(
    store: &Store,
    registry: Option<&crate::Registry>,
    content: Option<&crate::Content>,
) -> Result<()> {
    if let Some(path) = registry.and_then(crate::Registry::directory) {
        store
            .root
            .require_path_outside("registry.endpoint", &path)?;
    }
    let is_directory = |content: &&crate::Content| content.provider == crate::ContentProvider::Fs;
    let tenant = store.root.tenant();
    let content = content.map(|content| content.of_tenant(tenant));
    if let Some(content) = content.as_ref().filter(is_directory) {
        store
            .root
            .require_path_outside("content.root", &content.root)?;
    }
    Ok(())
}

impl Inner {
    /// The configured remote, for one call.
    pub(super) fn configured(&self, activity: &Activity) -> Option<Remote> {
        let remote = self.remote.clone();
        remote.map(|remote| remote.of_call(activity))
    }

    pub(super) fn remote_of_repair(
        &self,
        request: &VerifyRequest,
        activity: &Activity,
    ) -> Option<Remote> {
        self.configured(activity).filter(|_| request.repair)
    }
}

#[cfg(feature = "registry")]
impl Inner {
    /// The configured remote, or another where a request names one: then both halves may come from either. For one call.
    pub(super) fn remote(
        &self,
        store: &Store,
        registry: Option<&crate::Registry>,
        content: Option<&crate::Content>,
        activity: &Activity,
    ) -> Result<Option<Remote>> {
        if registry.is_none() && content.is_none() {
            return Ok(self.configured(activity));
        }
        require_outside(store, registry, content)?;
        let remote = Remote::open(
            self.config.tenant.as_deref(),
            registry.or(self.config.registry.as_ref()),
            content.or(self.config.content.as_ref()),
            self.daemon.as_ref(),
        )?;
        Ok(remote.map(|remote| remote.at(&self.rates).of_call(activity)))
    }

    pub(super) fn remote_of_snapshot(
        &self,
        store: &Store,
        request: &SnapshotRequest,
        activity: &Activity,
    ) -> Result<Option<Remote>> {
        if request.local {
            return Ok(None);
        }
        self.remote(
            store,
            request.registry.as_ref(),
            request.content.as_ref(),
            activity,
        )
    }

    pub(super) fn remote_of_restore(
        &self,
        store: &Store,
        request: &RestoreRequest,
        activity: &Activity,
    ) -> Result<Option<Remote>> {
        self.remote(
            store,
            request.registry.as_ref(),
            request.content.as_ref(),
            activity,
        )
    }
}

#[cfg(not(feature = "registry"))]
impl Inner {
    pub(super) fn remote_of_snapshot(
        &self,
        _: &Store,
        _: &SnapshotRequest,
        _: &Activity,
    ) -> Result<Option<Remote>> {
        Ok(None)
    }

    pub(super) fn remote_of_restore(
        &self,
        _: &Store,
        _: &RestoreRequest,
        _: &Activity,
    ) -> Result<Option<Remote>> {
        Ok(None)
    }
}
