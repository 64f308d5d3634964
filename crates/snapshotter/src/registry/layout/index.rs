//! `index.json`: which manifests there are and what they are called.
//!
//! Entries and fields that are not ours are kept as they are. A manifest that loses its tag keeps an entry without one,
//! so that it can still be read by digest, as in a registry. Blobs are written before the entry that names them and
//! removed after it, so an entry always has its blob.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::blobs::name;
use super::dir::{INDEX, RepositoryDir};
use crate::format::artifact::{ARTIFACT_TYPE, MANIFEST_MEDIA_TYPE, MAX_MANIFEST_BYTES};
use crate::fs::dir::ignore_absent;
use crate::fs::lock::{self, Lock};
use crate::fs::{durable, temporary};
use crate::registry::remote::checked;
use crate::registry::{Pulled, Tag, TagOrDigest};
use crate::words::digest::Sha256;
use crate::words::error::{At, Error, ErrorKind, Result};

const LOCK: &str = ".index.lock";
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const MAX_BYTES: u64 = 64 << 20;
const INTERVAL: Duration = Duration::from_millis(5);

impl RepositoryDir {
    pub(super) fn manifest(&self, which: &TagOrDigest) -> Result<Option<Pulled>> {
        let index = self.index()?;
        let Some(digest) = index.find(which) else {
            return Ok(None);
        };
        match self.has_blob(digest)? {
            // Deleted since the index was read.
            None => Ok(None),
            Some(size) if size > MAX_MANIFEST_BYTES as u64 => {
                let text = format!("a manifest of {size} bytes; 4 MiB is the limit");
                Err(self.damaged(digest, &text))
            }
            Some(size) => {
                let bytes = self.blob(digest, size)?;
                Ok(Some(Pulled { digest, bytes }))
            }
        }
    }

    pub(super) fn push_manifest(
        &self,
        which: &TagOrDigest,
        bytes: &[u8],
        patience: Duration,
    ) -> Result<Sha256> {
        let digest = checked(which, bytes)?;
        let lock = self.lock(patience)?;
        self.push_blob(digest, bytes)?;
        let mut index = self.index()?;
        index.set(which, digest, bytes.len());
        self.write_index(&index)?;
        temporary::reap(&self.dir);
        temporary::reap(&self.blobs);
        drop(lock);
        Ok(digest)
    }

    pub(super) fn delete_manifest(&self, digest: Sha256, patience: Duration) -> Result<bool> {
        let lock = self.lock(patience)?;
        let mut index = self.index()?;
        if !index.remove(digest) {
            return Ok(false);
        }
        self.write_index(&index)?;
        let file = name(digest);
        ignore_absent(self.blobs.unlink(&file)).at("remove", self.blobs.path_of(&file))?;
        drop(lock);
        Ok(true)
    }

    pub(super) fn tags(&self) -> Result<Vec<Tag>> {
        let index = self.index()?;
        let mut tags: Vec<_> = index
            .entries()
            .iter()
            .filter_map(|entry| Tag::new(ref_name(entry)?).ok())
            .collect();
        tags.sort_unstable();
        tags.dedup();
        Ok(tags)
    }

    fn lock(&self, patience: Duration) -> Result<Lock> {
        let (name, start) = (OsStr::new(LOCK), Instant::now());
        let (path, mode) = (self.dir.path_of(name), self.shared_with.lock_mode());
        loop {
            if let Some(lock) = lock::try_shared_name(&self.dir, name, mode).at("lock", &path)? {
                return Ok(lock);
            }
            if start.elapsed() >= patience {
                let text = format!(
                    "another process has held {} for {patience:?}",
                    path.display()
                );
                return Err(Error::new(ErrorKind::Busy, text).with_path(path));
            }
            std::thread::sleep(INTERVAL);
        }
    }

    fn index(&self) -> Result<Index> {
        let path = self.dir.path_of(OsStr::new(INDEX));
        let file = match self.dir.open_file(OsStr::new(INDEX)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Index::default()),
            result => result.at("open", &path)?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .at("read", &path)?;
        if bytes.len() as u64 > MAX_BYTES {
            let text = format!("{} has more than 64 MiB", path.display());
            return Err(Error::damaged(text).with_path(path));
        }
        Index::parse(&bytes).map_err(|source| {
            let text = format!("{} is not the index of an image layout", path.display());
            let error = Error::damaged(text).with_path(path);
            match source {
                Some(source) => error.with_source(source),
                None => error,
            }
        })
    }

    fn write_index(&self, index: &Index) -> Result<()> {
        let bytes = serde_json::to_vec(&index.0).map_err(|error| {
            Error::new(ErrorKind::Internal, "cannot write an index").with_source(error)
        })?;
        // Whoever may read it still may after a publisher who shares with fewer.
        let name = OsStr::new(INDEX);
        let before = self
            .dir
            .stat_if_any(name)
            .at("examine", self.dir.path_of(name))?;
        let mode = before.map_or(0, |stat| stat.mode & 0o644) | self.shared_with.file_mode();
        durable::replace(&self.dir, name, &bytes, mode)
    }
}

/// An index: always an object with a list of objects, `manifests`.
struct Index(Map<String, Value>);

impl Default for Index {
    fn default() -> Self {
        let mut fields = Map::new();
        fields.insert("schemaVersion".into(), json!(2));
        fields.insert(
            "mediaType".into(),
            json!("application/vnd.oci.image.index.v1+json"),
        );
        fields.insert("manifests".into(), json!([]));
        Self(fields)
    }
}

impl Index {
    fn parse(bytes: &[u8]) -> Result<Self, Option<serde_json::Error>> {
        let mut fields: Map<String, Value> = serde_json::from_slice(bytes).map_err(Some)?;
        let manifests = fields.entry("manifests").or_insert_with(|| json!([]));
        if manifests.is_null() {
            *manifests = json!([]);
        }
        let sound = manifests
            .as_array()
            .is_some_and(|entries| entries.iter().all(Value::is_object));
        if sound { Ok(Self(fields)) } else { Err(None) }
    }

    fn entries(&self) -> &[Value] {
        self.0
            .get("manifests")
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }

    fn entries_mut(&mut self) -> Option<&mut Vec<Value>> {
        self.0.get_mut("manifests").and_then(Value::as_array_mut)
    }

    fn find(&self, which: &TagOrDigest) -> Option<Sha256> {
        let wanted = |entry: &&Value| match which {
            TagOrDigest::Tag(tag) => ref_name(entry) == Some(tag.as_str()),
            TagOrDigest::Digest(digest) => digest_of(entry) == Some(*digest),
        };
        self.entries().iter().find(wanted).and_then(digest_of)
    }

    /// Puts an entry in, once, and takes the tag from whatever had it.
    fn set(&mut self, which: &TagOrDigest, digest: Sha256, size: usize) {
        if self.find(which) == Some(digest) {
            return;
        }
        let Some(entries) = self.entries_mut() else {
            return;
        };
        let mut entry = json!({
            "mediaType": MANIFEST_MEDIA_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "digest": digest.to_string(),
            "size": size,
        });
        if let TagOrDigest::Tag(tag) = which {
            entry["annotations"] = json!({ REF_NAME: tag.as_str() });
            entries.iter_mut().for_each(|other| untag(other, tag));
        }
        // An entry that has become the same manifest's without a tag says nothing any more.
        entries.retain(|other| ref_name(other).is_some() || digest_of(other) != Some(digest));
        entries.push(entry);
    }

    fn remove(&mut self, digest: Sha256) -> bool {
        let Some(entries) = self.entries_mut() else {
            return false;
        };
        let before = entries.len();
        entries.retain(|entry| digest_of(entry) != Some(digest));
        entries.len() < before
    }
}

fn untag(entry: &mut Value, tag: &Tag) {
    if ref_name(entry) != Some(tag.as_str()) {
        return;
    }
    let emptied = entry.get_mut("annotations").and_then(|annotations| {
        let annotations = annotations.as_object_mut()?;
        annotations.remove(REF_NAME);
        Some(annotations.is_empty())
    });
    if let (Some(true), Some(entry)) = (emptied, entry.as_object_mut()) {
        entry.remove("annotations");
    }
}

fn ref_name(entry: &Value) -> Option<&str> {
    entry.get("annotations")?.get(REF_NAME)?.as_str()
}

fn digest_of(entry: &Value) -> Option<Sha256> {
    entry.get("digest")?.as_str()?.parse().ok()
}
