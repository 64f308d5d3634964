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
    if let Some(content) = content.filter(is_directory) {
        store
            .root
            .require_path_outside("content.root", &content.root)?;
    }
    Ok(())
}

#[cfg(feature = "registry")]
impl Inner {
    /// The configured remote, or another where a request names one: then both halves may come from either. For one call.
    pub(crate) fn remote(
        &self,
        store: &Store,
        registry: Option<&crate::Registry>,
        content: Option<&crate::Content>,
        activity: &Activity,
    ) -> Result<Option<Remote>> {
        let remote = if registry.is_none() && content.is_none() {
            self.remote.clone()
        } else {
            require_outside(store, registry, content)?;
            Remote::open(
                registry.or(self.config.registry.as_ref()),
                content.or(self.config.content.as_ref()),
                self.daemon.as_ref(),
            )?
        };
        Ok(remote.map(|remote| remote.of_call(activity)))
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

    pub(super) fn remote_of_repair(
        &self,
        store: &Store,
        request: &VerifyRequest,
        activity: &Activity,
    ) -> Result<Option<Remote>> {
        if !request.repair {
            return Ok(None);
        }
        self.remote(store, None, None, activity)
    }

    pub(super) fn remote_of_gc(
        &self,
        store: &Store,
        activity: &Activity,
    ) -> Result<Option<Remote>> {
        self.remote(store, None, None, activity)
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

    pub(super) fn remote_of_repair(
        &self,
        _: &Store,
        _: &VerifyRequest,
        _: &Activity,
    ) -> Result<Option<Remote>> {
        Ok(None)
    }

    pub(super) fn remote_of_gc(&self, _: &Store, _: &Activity) -> Result<Option<Remote>> {
        Ok(None)
    }
}
