//! The end of a publication, wherever it comes from: the document, and then the manifest that gives it all its name.

use bytes::Bytes;

use super::Remote;
use super::runtime::wait;
use super::text::Text;
use crate::activity::Activity;
use crate::format::artifact::EMPTY_BYTES;
use crate::registry::{Repository, TagOrDigest};
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::reference::Reference;

/// What is announced where.
pub(super) struct Announcing<'a> {
    pub(super) remote: &'a Remote,
    pub(super) repository: &'a Repository,
    pub(super) reference: &'a Reference,
    pub(super) activity: &'a Activity,
}

impl Announcing<'_> {
    /// Versions are immutable; what would be the same manifest again is none of another.
    pub(super) fn refuse_other(
        &self,
        there: Option<Sha256>,
        ours: Sha256,
        force: bool,
    ) -> Result<()> {
        match there {
            Some(other) if other != ours && !force => Err(self.remote.taken(self.reference, other)),
            _ => Ok(()),
        }
    }

    pub(super) fn send(
        &self,
        manifest: &[u8],
        document: &Text,
        has_layers: bool,
        before: Option<Sha256>,
    ) -> Result<()> {
        let wanted = || self.activity.check();
        let registry = &self.remote.registry;
        let (config, _) = super::parse_manifest(manifest, self.reference)?.config();
        tracing::info!("PUT list of files {config} to {}", self.remote.endpoint);
        document.send(registry, self.repository, config, self.activity)?;
        if !has_layers {
            let empty = Bytes::from_static(EMPTY_BYTES);
            let sha256 = Sha256::of(&empty);
            wait(&wanted, registry.push_blob(self.repository, sha256, empty))?;
        }
        if before == Some(Sha256::of(manifest)) {
            return Ok(());
        }
        let version = self.reference.version().unwrap_or_default();
        let tag = TagOrDigest::tag(version)?;
        let bytes = Bytes::copy_from_slice(manifest);
        tracing::info!("PUT manifest {}", self.reference);
        let push = registry.push_manifest(self.repository, &tag, bytes.clone());
        let pushed = wait(&wanted, push)?;
        let settled = registry.settle_manifest(self.repository, &tag, bytes, before);
        self.confirm(wait(&wanted, settled)?, pushed, before)
    }

    /// Registries do not compare and swap: of two that push one version at once, the later one wins, and the other finds
    /// out here.
    fn confirm(&self, found: Option<Sha256>, pushed: Sha256, before: Option<Sha256>) -> Result<()> {
        if found == Some(pushed) {
            return Ok(());
        }
        if let Some(other) = found.filter(|_| found != before) {
            return Err(self.remote.taken(self.reference, other));
        }
        let has = found.map_or_else(
            || "does not have it".into(),
            |old| format!("still has {old}"),
        );
        let text = format!(
            "{} took the manifest of {} and {has}",
            self.remote.endpoint, self.reference
        );
        Err(Error::new(ErrorKind::Unavailable, text).with_hint(
            "its reads lag behind its writes, or something answers in its place: look again, and push again",
        ))
    }
}
