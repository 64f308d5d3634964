//! Manifests: raw bytes, named by their own SHA-256, which is computed here and never believed.

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use std::sync::Arc;

use super::answer::Answer;
use super::{DELETE, PULL, PUSH, Remote};
use crate::format::artifact::{MANIFEST_MEDIA_TYPE, MAX_MANIFEST_BYTES};
use crate::registry::{Pulled, Repository, TagOrDigest};
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};

const LIMIT: u64 = MAX_MANIFEST_BYTES as u64;
const SMALL: u64 = 64 << 10;

/// Other artifacts' types are accepted too, so that one is refused by its name instead of not being found.
const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

impl Remote {
    pub(super) async fn get_manifest(
        self: Arc<Self>,
        repository: Repository,
        which: TagOrDigest,
    ) -> Result<Option<Pulled>> {
        let doing = format!("read the manifest {}", in_words(&repository, &which));
        let path = format!("manifests/{which}");
        let request = self
            .request(Method::GET, &repository, &path, PULL, doing)?
            .header(ACCEPT, ACCEPTED);
        let answer = self.http.exchange(&request, LIMIT).await?;
        match answer.status().as_u16() {
            200 => pulled(answer, &which).map(Some),
            404 => Ok(None),
            _ => Err(answer.refused()),
        }
    }

    pub(super) async fn put_manifest(
        self: Arc<Self>,
        repository: Repository,
        which: TagOrDigest,
        bytes: Bytes,
    ) -> Result<Sha256> {
        let digest = checked(&which, &bytes)?;
        let doing = format!("push the manifest {}", in_words(&repository, &which));
        let path = format!("manifests/{which}");
        let request = self
            .request(Method::PUT, &repository, &path, PUSH, doing)?
            .header(CONTENT_TYPE, MANIFEST_MEDIA_TYPE)
            .body(bytes);
        let answer = self.http.exchange(&request, SMALL).await?;
        if !matches!(answer.status().as_u16(), 200..=204) {
            return Err(answer.refused());
        }
        answer.names("manifest", digest)?;
        Ok(digest)
    }

    pub(super) async fn remove_manifest(
        self: Arc<Self>,
        repository: Repository,
        digest: Sha256,
    ) -> Result<bool> {
        let doing = format!("delete the manifest {repository}@{digest}");
        let path = format!("manifests/{digest}");
        let request = self.request(Method::DELETE, &repository, &path, DELETE, doing)?;
        let answer = self.http.exchange(&request, SMALL).await?;
        match answer.status().as_u16() {
            200..=204 => Ok(true),
            404 => Ok(false),
            405 => Err(answer.refused().with_hint(
                "the registry has to allow deletion: Docker's does with REGISTRY_STORAGE_DELETE_ENABLED=true",
            )),
            _ => Err(answer.refused()),
        }
    }
}

/// A manifest that may be stored under `which`: its digest.
pub(in crate::registry) fn checked(which: &TagOrDigest, bytes: &[u8]) -> Result<Sha256> {
    if bytes.len() > MAX_MANIFEST_BYTES {
        let text = format!("the manifest has {} bytes; 4 MiB is the limit", bytes.len());
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    let digest = Sha256::of(bytes);
    match which.digest() {
        Some(named) if named != digest => Err(Error::invalid(format!(
            "the manifest that is to be stored as {named} is {digest}"
        ))),
        _ => Ok(digest),
    }
}

fn pulled(answer: Answer, which: &TagOrDigest) -> Result<Pulled> {
    let digest = Sha256::of(answer.body());
    if let Some(asked) = which.digest().filter(|asked| *asked != digest) {
        let text = format!("the registry sent {digest} for {asked}");
        return Err(answer.error(ErrorKind::Damaged, &text));
    }
    answer.names("manifest", digest)?;
    let bytes = answer.into_body();
    Ok(Pulled { digest, bytes })
}

fn in_words(repository: &Repository, which: &TagOrDigest) -> String {
    let separator = if which.digest().is_some() { '@' } else { ':' };
    format!("{repository}{separator}{which}")
}
