//! What is in a registry: listed, shown, removed, and whether it and the contents' place can be reached.

use std::collections::BTreeMap;

use super::resolve::{Said, resolve};
use super::runtime::wait;
use super::{Place, Remote};
use crate::activity::Activity;
use crate::format::artifact::paged::AnyManifest;
use crate::format::document::paged::AnyDocument;
use crate::inspect::{FileDetails, PathDetails, SymlinkDetails, entries};
use crate::registry::{Layers, MAX_NAMES, Repository};
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::reference::{Reference, tenant_of};

/// A snapshot in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteSnapshot {
    /// Its name and version.
    pub reference: Reference,
}

/// Whether the registry and the place of contents can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteDiagnosis {
    /// Where the registry is.
    pub registry: String,
    /// What is wrong with it: kind and text.
    pub registry_error: Option<(ErrorKind, String)>,
    /// Where contents are published, if that is configured.
    pub content: Option<String>,
    /// What is wrong with it: kind and text.
    pub content_error: Option<(ErrorKind, String)>,
    /// What the keys may not do there that publications can do without.
    pub content_denied: Vec<&'static str>,
    /// Whether Dragonfly's daemon can be used on the way there, if one is configured.
    #[cfg(feature = "dragonfly")]
    pub dragonfly: Option<crate::DragonflyDiagnosis>,
}

/// What the registry says of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteDetails {
    /// The snapshot, with its manifest's digest.
    pub reference: Reference,
    /// SHA-256 of the manifest.
    pub manifest_digest: Sha256,
    /// What was noted when it was taken.
    pub annotations: BTreeMap<String, String>,
    /// Sizes of the files, holes included, each inode once, in bytes.
    pub logical_bytes: u64,
    /// Regular files.
    pub files: Vec<FileDetails>,
    /// Directories.
    pub directories: Vec<PathDetails>,
    /// Symbolic links.
    pub symlinks: Vec<SymlinkDetails>,
    /// Whiteouts.
    pub whiteouts: Vec<PathDetails>,
}

impl Remote {
    /// All versions of one name, or of all names that the registry lists, in byte order.
    pub(crate) fn list(
        &self,
        name: Option<&str>,
        activity: &Activity,
    ) -> Result<Vec<RemoteSnapshot>> {
        let wanted = || activity.check();
        let names = match name {
            Some(name) => vec![name.to_owned()],
            None => wait(&wanted, self.registry.repositories())?,
        };
        let mut found = Vec::new();
        let tenant = self.tenant.as_deref();
        let is_own = |name: &String| tenant.is_none_or(|own| own == tenant_of(name));
        for name in names.into_iter().filter(is_own) {
            let repository = Repository::new(&self.namespace, &name)?;
            for tag in wait(&wanted, self.registry.tags(&repository))? {
                let reference = Reference::new(&name, tag.as_str())
                    .map_err(|error| Error::damaged(error.to_string()))?;
                found.push(RemoteSnapshot { reference });
            }
            if found.len() > MAX_NAMES {
                let text = format!("{} lists more than {MAX_NAMES} versions", self.endpoint);
                return Err(Error::new(ErrorKind::Unsupported, text)
                    .with_hint("name a snapshot, and its versions alone are listed"));
            }
        }
        match name.filter(|_| found.is_empty()) {
            None => Ok(found),
            Some(name) => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "there is no snapshot of the name {name} in {}",
                    self.endpoint
                ),
            )),
        }
    }

    /// What describes a snapshot: manifest, document, and what the document says.
    pub(crate) fn description(
        &self,
        reference: &Reference,
        activity: &Activity,
    ) -> Result<(Vec<u8>, Vec<u8>, AnyDocument)> {
        let resolved = resolve(self, reference, None, activity)?;
        let document = match resolved.said {
            Said::Blobs(_, document) => AnyDocument::V1(document),
            Said::Packs(_, document) => AnyDocument::V2(document),
        };
        Ok((resolved.manifest, resolved.document.into_bytes()?, document))
    }

    /// What the registry says of a snapshot.
    pub(crate) fn describe(
        &self,
        reference: &Reference,
        activity: &Activity,
    ) -> Result<RemoteDetails> {
        let resolved = resolve(self, reference, None, activity)?;
        drop(resolved.document);
        let logical_bytes = resolved.said.totals().logical_bytes;
        let (annotations, entries) = match resolved.said {
            Said::Blobs(manifest, document) => (manifest.annotations, entries(document)),
            Said::Packs(manifest, document) => (manifest.annotations, entries(document.entries)),
        };
        Ok(RemoteDetails {
            manifest_digest: Sha256::of(&resolved.manifest),
            reference: resolved.reference,
            annotations,
            logical_bytes,
            files: entries.files,
            directories: entries.directories,
            symlinks: entries.symlinks,
            whiteouts: entries.whiteouts,
        })
    }

    /// Deletes a snapshot's manifest, and so its name, in the registry. Contents stay: other snapshots may need them.
    /// Says which manifest that was. Before it goes, `prepare` hears of it.
    pub(crate) fn remove(
        &self,
        reference: &Reference,
        prepare: impl FnOnce(Sha256) -> Result<()>,
        activity: &Activity,
    ) -> Result<Sha256> {
        let absent = || {
            Error::new(
                ErrorKind::NotFound,
                format!("there is no snapshot {reference} in {}", self.endpoint),
            )
            .with_reference(reference)
        };
        let found = self.find(reference, activity)?.ok_or_else(absent)?;
        let tagged = reference.version().map(|version| {
            Reference::new(reference.name(), version)
                .map_err(|error| Error::invalid(error.to_string()))
        });
        // `name:version@digest` removes the version only while it is that manifest.
        if let Some(tagged) = tagged.transpose()?
            && self.published(&tagged, activity)? != Some(found.digest)
        {
            return Err(absent());
        }
        // Deleting what is no snapshot would be a mistake of whoever shares the registry.
        AnyManifest::parse(&found.bytes).map_err(|error| {
            Error::new(
                ErrorKind::Unsupported,
                format!("{reference} in {} is no snapshot", self.endpoint),
            )
            .with_source(error)
        })?;
        let repository = self.repository(reference)?;
        prepare(found.digest)?;
        let deleted = wait(
            &|| activity.check(),
            self.registry.delete_manifest(&repository, found.digest),
        )?;
        if deleted {
            Ok(found.digest)
        } else {
            Err(absent())
        }
    }

    /// Tries both places. A bucket gets probes, and loses them again.
    pub(crate) fn diagnose(&self, activity: &Activity) -> Result<RemoteDiagnosis> {
        let said = |result: Result<()>| result.err().map(|error| (error.kind(), error.line()));
        let registry_error = said(self.probe(activity));
        activity.check()?;
        let mut content_denied = Vec::new();
        let content = match &self.content {
            Place::Unknown => None,
            Place::Registry => Some((self.endpoint.clone(), registry_error.clone())),
            Place::Elsewhere(way) => {
                let tried = wait(&|| activity.check(), way.transport.rehearse());
                let tried = tried.map(|denied| content_denied = denied);
                Some((way.transport.place(), said(tried)))
            }
        };
        #[cfg(feature = "dragonfly")]
        let dragonfly = self.probe_daemon(activity)?;
        activity.check()?;
        let (content, content_error) = content.unzip();
        Ok(RemoteDiagnosis {
            registry: self.endpoint.clone(),
            registry_error,
            content,
            content_error: content_error.flatten(),
            content_denied,
            #[cfg(feature = "dragonfly")]
            dragonfly,
        })
    }

    #[cfg(feature = "dragonfly")]
    fn probe_daemon(&self, activity: &Activity) -> Result<Option<crate::DragonflyDiagnosis>> {
        let Place::Elsewhere(way) = &self.content else {
            return Ok(None);
        };
        let probe = way.daemon().map(|daemon| daemon.diagnose());
        probe
            .map(|probe| wait(&|| activity.check(), probe))
            .transpose()
    }

    /// A repository that nobody has.
    fn probe(&self, activity: &Activity) -> Result<()> {
        let repository = Repository::new(&self.namespace, "probe")?;
        let nothing = self.layers(&repository, Layers::new());
        wait(&|| activity.check(), nothing.check())
    }
}
