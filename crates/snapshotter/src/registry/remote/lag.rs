//! Registries whose reads lag behind their writes: what they took is waited for, as long as a request may take.
//!
//! A registry that lost a manifest to garbage collection may believe its cache that it is still there, and then keeps nothing
//! of what is pushed. As a blob it is kept, whatever the cache says, and a manifest is one: so it is pushed as one before it is
//! pushed again (seen at the reference implementation, 2.8).

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::Remote;
use super::http::Http;
use crate::pace::Pace;
use crate::registry::{Repository, TagOrDigest};
use crate::words::digest::Sha256;
use crate::words::error::Result;

/// Looks at what was written, until it is seen or time is up.
pub(super) struct Lag {
    pace: Pace,
    until: Instant,
    looks: u32,
}

impl Lag {
    pub(super) fn of(http: &Http) -> Self {
        Self {
            pace: http.pace,
            until: Instant::now() + http.patience.silence,
            looks: 0,
        }
    }

    /// Waits before another look, and says whether there is one.
    pub(super) async fn is_borne(&mut self) -> bool {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        sleep(self.pace.before(self.looks, None).min(left)).await;
        self.looks = self.looks.saturating_add(1);
        true
    }
}

impl Remote {
    /// What has a name after `manifest` was pushed there.
    pub(super) async fn settle_manifest(
        self: Arc<Self>,
        repository: Repository,
        which: TagOrDigest,
        manifest: Bytes,
        before: Option<Sha256>,
    ) -> Result<Option<Sha256>> {
        let pushed = Sha256::of(&manifest);
        let mut lag = Lag::of(&self.http);
        let mut looks = 0;
        loop {
            let found = Arc::clone(&self).get_manifest(repository.clone(), which.clone());
            let found = found.await?.map(|found| found.digest);
            let is_news = found.is_some() && (found == Some(pushed) || found != before);
            if is_news || !lag.is_borne().await {
                return Ok(found);
            }
            looks += 1;
            if looks == 2 && found.is_none() {
                self.push_past_the_cache(&repository, &which, &manifest)
                    .await;
            }
        }
    }

    /// What comes of it, the next look tells.
    async fn push_past_the_cache(
        self: &Arc<Self>,
        repository: &Repository,
        which: &TagOrDigest,
        manifest: &Bytes,
    ) {
        let (sha256, bytes) = (Sha256::of(manifest), manifest.clone());
        let blob = Arc::clone(self).put_blob(repository.clone(), sha256, bytes.clone());
        let pushed = async {
            blob.await?;
            let again = Arc::clone(self).put_manifest(repository.clone(), which.clone(), bytes);
            again.await
        };
        if let Err(error) = pushed.await {
            tracing::debug!(%error, "a manifest that is not seen could not be pushed again");
        }
    }
}
