//! What a publication does, with a probe: a multipart upload, a look at what was sent, a ranged read, and the probe's
//! removal. So a permission that is missing is named before a snapshot needs it.

use opendal::{Buffer, ErrorKind as TheirKind};

use super::ObjectStorage;
use super::error::lacks_permission;
use super::upload::Upload;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::object::ObjectName;

/// Below the prefix that contents have, which is all that some keys may touch; no content is called so. Always the same: where
/// it cannot be removed it is there once.
fn key() -> String {
    format!("{}/doctor-probe", ObjectName::PREFIXES[0])
}

/// The smallest part that S3 takes before another one, in bytes.
const PART: usize = 5 << 20;

/// A refusal, in the words of those who grant permissions.
const WRITE: &str = "write (s3:PutObject)";
const READ: &str = "read (s3:GetObject, and kms:Decrypt of the key where the bucket has one)";

const REMOVE: &str = "remove objects (s3:DeleteObject): nothing needs that but this probe, which stays in the bucket";
const LIST: &str = "list the bucket (s3:ListBucket): what is absent is then forbidden and not absent, so it is sent without \
     looking first, and a collection cannot find out that something is gone";

impl ObjectStorage {
    /// What cannot be done that a publication does is an error; what else is not permitted is said.
    pub(super) async fn try_out(&self) -> Result<Vec<&'static str>> {
        self.send_probe().await?;
        self.look_at_probe().await?;
        let mut denied = Vec::new();
        match self.operator.delete(&key()).await {
            Ok(()) => {}
            Err(error) if lacks_permission(&error) => denied.push(REMOVE),
            Err(error) => return Err(self.explain.error("remove a probe from", None, &error)),
        }
        let absent = format!("{}-that-is-absent", key());
        match self.operator.stat(&absent).await {
            Err(error) if lacks_permission(&error) => denied.push(LIST),
            _ => {}
        }
        Ok(denied)
    }

    async fn send_probe(&self) -> Result<()> {
        let failed = |error| self.refused(WRITE, "write a probe to", &error);
        let writer = self.operator.writer(&key()).await.map_err(failed)?;
        let mut upload = Upload::new(writer);
        let sent = async {
            upload.write(Buffer::from(vec![b'p'; PART])).await?;
            upload.write(Buffer::from(vec![b'q'])).await?;
            upload.close().await
        };
        if let Err(error) = sent.await {
            upload.abort().await;
            return Err(failed(error));
        }
        Ok(())
    }

    async fn look_at_probe(&self) -> Result<()> {
        let failed = |error| self.refused(READ, "read a probe from", &error);
        let key = key();
        let found = self.operator.stat(&key).await.map_err(failed)?;
        let end = PART as u64;
        let read = self.operator.read_with(&key).range(end - 1..end + 1);
        let read = read.await.map_err(failed)?;
        if found.content_length() == end + 1 && read.to_vec() == b"pq" {
            return Ok(());
        }
        let text = format!("{} gives other bytes than it was given", self.place);
        Err(Error::damaged(text))
    }

    fn refused(&self, what: &str, doing: &str, error: &opendal::Error) -> Error {
        let explained = self.explain.error(doing, None, error);
        if error.kind() != TheirKind::PermissionDenied || !lacks_permission(error) {
            return explained;
        }
        let text = format!("the keys may not {what} in {}", self.place);
        Error::new(ErrorKind::PermissionDenied, text)
            .with_source(explained)
            .with_hint("let them, in the bucket's policy or the user's")
    }
}
