//! Mounting: a blob that another repository of the registry has becomes one of a repository's, and no byte of it travels. What
//! the registry does not do, or not for us, is no error: it opens an upload instead, which nobody wants then.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::Method;

use super::blobs::SMALL;
use super::{PULL, PUSH, Remote, scope};
use crate::registry::Repository;
use crate::transport::Presence;
use crate::words::digest::Sha256;
use crate::words::error::Result;

impl Remote {
    /// Says whether it could, and the blob is there.
    pub(super) async fn mount_blob(
        self: Arc<Self>,
        repository: Repository,
        from: Repository,
        sha256: Sha256,
        size: u64,
    ) -> Result<bool> {
        let doing = format!("mount the blob {sha256} of {from} in {repository}");
        let request = self.request(Method::POST, &repository, "blobs/uploads/", PUSH, doing)?;
        let mut request = request.body(Bytes::new());
        request
            .url
            .query_pairs_mut()
            .append_pair("mount", &sha256.to_string())
            .append_pair("from", &from.to_string());
        // A token for both: one scope after the other.
        request.scope = format!("{} {}", request.scope, scope(&from, PULL));
        let answer = self.http.exchange(&request, SMALL).await?;
        match answer.status().as_u16() {
            201 => {}
            200 | 202 => {
                if let Ok(session) = self.session(&answer) {
                    self.discard(&repository, &session).await;
                }
                return Ok(false);
            }
            _ => return Ok(false),
        }
        let found = self.find_blob(repository, sha256, size).await?;
        Ok(found == Presence::Size(size))
    }
}
