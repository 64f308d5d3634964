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

    /// All of it, one after the other.
    pub(super) fn send(
        &self,
        manifest: &[u8],
        document: &Text,
        has_layers: bool,
        before: Option<Sha256>,
    ) -> Result<()> {
        let (config, _) = super::parse_manifest(manifest, self.reference)?.config();
        self.send_document(config, document, has_layers)?;
        self.send_manifest(manifest, before)?;
        self.confirm(manifest, before)
    }

    /// Sends what a manifest names beside contents: the document, which it calls `config`, and what stands for layers where there
    /// are none.
    pub(super) fn send_document(
        &self,
        config: Sha256,
        document: &Text,
        has_layers: bool,
    ) -> Result<()> {
        let wanted = || self.activity.check();
        let registry = &self.remote.registry;
        tracing::info!("PUT list of files {config} to {}", self.remote.endpoint);
        document.send(registry, self.repository, config, self.activity)?;
        if !has_layers {
            let empty = Bytes::from_static(EMPTY_BYTES);
            let sha256 = Sha256::of(&empty);
            wait(&wanted, registry.push_blob(self.repository, sha256, empty))?;
        }
        Ok(())
    }

    /// Gives all of it its name, which has `before`.
    pub(super) fn send_manifest(&self, manifest: &[u8], before: Option<Sha256>) -> Result<()> {
        if before == Some(Sha256::of(manifest)) {
            return Ok(());
        }
        let (wanted, registry) = (|| self.activity.check(), &self.remote.registry);
        let version = self.reference.version().unwrap_or_default();
        let tag = TagOrDigest::tag(version)?;
        let bytes = Bytes::copy_from_slice(manifest);
        tracing::info!("PUT manifest {}", self.reference);
        wait(
            &wanted,
            registry.push_manifest(self.repository, &tag, bytes),
        )?;
        Ok(())
    }

    /// Looks whether the name has the manifest. Registries do not compare and swap: of two that push one version at once, the
    /// later one wins, and the other finds out here.
    pub(super) fn confirm(&self, manifest: &[u8], before: Option<Sha256>) -> Result<()> {
        let pushed = Sha256::of(manifest);
        if before == Some(pushed) {
            return Ok(());
        }
        let tag = TagOrDigest::tag(self.reference.version().unwrap_or_default())?;
        let registry = &self.remote.registry;
        let bytes = Bytes::copy_from_slice(manifest);
        let settled = registry.settle_manifest(self.repository, &tag, bytes, before);
        let found = wait(&|| self.activity.check(), settled)?;
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
