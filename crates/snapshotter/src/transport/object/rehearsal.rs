//! What a publication does, with probes below each prefix that objects have: a look at what was sent, a ranged read, and its
//! removal. The first is sent as a multipart upload, the others in one request each. So a permission that is missing is named
//! before a snapshot needs it.

use opendal::{Buffer, ErrorKind as TheirKind};

use super::ObjectStorage;
use super::error::lacks_permission;
use super::upload::Upload;
use crate::fs::random_name;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::object::ObjectName;

/// The smallest part that S3 takes before another one, in bytes.
const PART: usize = 5 << 20;

/// How long the probe below each prefix is, in bytes.
const LENGTHS: [usize; ObjectName::PREFIXES.len()] = [PART + 1, 2];

/// An object below a prefix that contents have, which is all that some keys may touch; no content is called so. Another name
/// each time: two rehearsals at once do not remove each other's.
struct Probe {
    prefix: &'static str,
    key: String,
    bytes: Vec<u8>,
}

impl Probe {
    fn new(prefix: &'static str, len: usize) -> Result<Self> {
        let name = random_name().map_err(|error| {
            Error::new(ErrorKind::of_io(&error), "cannot name a probe").with_source(error)
        })?;
        let mut bytes = vec![b'p'; len];
        bytes[len - 1] = b'q';
        Ok(Self {
            prefix,
            key: format!("{prefix}/doctor-probe-{name}"),
            bytes,
        })
    }
}

/// A refusal, in the words of those who grant permissions.
const WRITE: &str = "write (s3:PutObject)";
const READ: &str = "read (s3:GetObject, and kms:Decrypt of the key where the bucket has one)";

const REMOVE: &str = "remove objects (s3:DeleteObject): nothing needs that but this probe, which stays in the bucket";
const LIST: &str = "list the bucket (s3:ListBucket): what is absent is then forbidden and not absent, so it is sent without \
     looking first, and a collection cannot find out that something is gone";

impl ObjectStorage {
    /// What cannot be done that a publication does is an error; what else is not permitted is said.
    pub(super) async fn try_out(&self) -> Result<Vec<&'static str>> {
        let mut denied = Vec::new();
        for (prefix, len) in ObjectName::PREFIXES.into_iter().zip(LENGTHS) {
            let found = self.try_probe(&Probe::new(prefix, len)?).await?;
            denied.extend(
                found
                    .into_iter()
                    .filter(|one| !denied.contains(one))
                    .collect::<Vec<_>>(),
            );
        }
        Ok(denied)
    }

    async fn try_probe(&self, probe: &Probe) -> Result<Vec<&'static str>> {
        self.send_probe(probe).await?;
        let looked = self.look_at_probe(probe).await;
        // Whatever was found: it is 5 MiB that nobody else would remove.
        let removed = self.operator.delete(&probe.key).await;
        looked?;
        let mut denied = Vec::new();
        match removed {
            Ok(()) => {}
            Err(error) if lacks_permission(&error) => denied.push(REMOVE),
            Err(error) => return Err(self.explain.error("remove a probe from", None, &error)),
        }
        let absent = format!("{}-that-is-absent", probe.key);
        match self.operator.stat(&absent).await {
            Err(error) if lacks_permission(&error) => denied.push(LIST),
            _ => {}
        }
        Ok(denied)
    }

    async fn send_probe(&self, probe: &Probe) -> Result<()> {
        let failed = |error| self.refused((WRITE, probe), "write a probe to", &error);
        let writer = self.operator.writer(&probe.key).await.map_err(failed)?;
        let mut upload = Upload::new(writer);
        let sent = async {
            for part in probe.bytes.chunks(PART) {
                upload.write(Buffer::from(part.to_vec())).await?;
            }
            upload.close().await
        };
        if let Err(error) = sent.await {
            upload.abort().await;
            return Err(failed(error));
        }
        Ok(())
    }

    async fn look_at_probe(&self, probe: &Probe) -> Result<()> {
        let failed = |error| self.refused((READ, probe), "read a probe from", &error);
        let found = self.operator.stat(&probe.key).await.map_err(failed)?;
        let len = probe.bytes.len() as u64;
        let read = self.operator.read_with(&probe.key).range(len - 2..len);
        let read = read.await.map_err(failed)?;
        if found.content_length() == len && read.to_vec() == b"pq" {
            return Ok(());
        }
        let text = format!("{} gives other bytes than it was given", self.place);
        Err(Error::damaged(text))
    }

    fn refused(&self, (what, probe): (&str, &Probe), doing: &str, error: &opendal::Error) -> Error {
        let explained = self.explain.error(doing, None, error);
        if error.kind() != TheirKind::PermissionDenied || !lacks_permission(error) {
            return explained;
        }
        let text = format!(
            "the keys may not {what} below {}/ in {}",
            probe.prefix, self.place
        );
        Error::new(ErrorKind::PermissionDenied, text)
            .with_source(explained)
            .with_hint("let them, in the bucket's policy or the user's")
    }
}
