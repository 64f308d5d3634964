//! Records at a place of contents: what they are called and what is in them.
//!
//! * `snapshotter/publishers/<hash>.json`: registry and namespace of somebody who publishes;
//! * `snapshotter/names/<namespace>/<name>/PUBLISHER-<hash>`: a repository that he publishes to;
//! * `snapshotter/moved/<random>.json`: the manifest that a version had before it moved;
//! * `snapshotter/collection/<random>.list`: what may go (`list.rs`); `<random>.lease`: a collector is at work.
//!
//! A repository ends with a word that no name can have, so that `a` and `a/b` can both be there in a directory; and with the
//! hash, so that who finds it knows that he is known too, in one look.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::rules::Collections;
use crate::activity::Activity;
use crate::fs::random_name;
use crate::registry::Repository;
use crate::remote::runtime::{self, joined, wait};
use crate::transport::{Call, ContentTransport, Listed, Records};
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};

pub(super) const PUBLISHERS: &str = "snapshotter/publishers/";
const NAMES: &str = "snapshotter/names/";
const OF: &str = "/PUBLISHER-";
pub(super) const MOVED: &str = "snapshotter/moved/";
const COLLECTION: &str = "snapshotter/collection/";
const LIST: &str = ".list";
const LEASE: &str = ".lease";

/// What a record may have, in bytes.
const SHORT: u64 = 64 << 10;

/// Objects that are taken from a list at once.
const TAKEN: usize = 1000;

/// How often what there is of collections is read anew because something of it went while it was read.
const READINGS: usize = 40;

/// How long nobody asks who waits for something to change.
const GLANCE: Duration = Duration::from_millis(500);

/// Who publishes: a registry in its one spelling, and the namespace there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Publisher {
    pub(super) registry: String,
    pub(super) namespace: String,
}

impl Publisher {
    pub(super) fn hash(&self) -> String {
        let whole = format!("{}\n{}", self.registry, self.namespace);
        Sha256::of(whole.as_bytes()).hex()
    }

    pub(super) fn key(&self) -> String {
        format!("{PUBLISHERS}{}.json", self.hash())
    }

    /// Where he says that he publishes to a repository, which he does after he said who he is.
    pub(super) fn key_of_name(&self, repository: &Repository) -> String {
        format!("{NAMES}{repository}{OF}{}", self.hash())
    }
}

/// A manifest that lost its version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Moved {
    pub(super) registry: String,
    pub(super) repository: String,
    pub(super) manifest: String,
}

/// A key that nobody has used.
pub(super) fn new_key(prefix: &str, end: &str) -> Result<String> {
    let name = random_name().map_err(|error| {
        Error::new(ErrorKind::of_io(&error), "cannot name a record").with_source(error)
    })?;
    Ok(format!("{prefix}{name}{end}"))
}

pub(super) fn new_list() -> Result<String> {
    new_key(COLLECTION, LIST)
}

pub(super) fn new_lease() -> Result<String> {
    new_key(COLLECTION, LEASE)
}

/// A place's records, for one call.
#[derive(Clone, Copy)]
pub(super) struct Shelf<'a> {
    transport: &'a Arc<dyn ContentTransport>,
    records: &'a dyn Records,
    pub(super) activity: &'a Activity,
}

impl<'a> Shelf<'a> {
    /// None where the place itself is not reached.
    pub(super) fn of(
        transport: &'a Arc<dyn ContentTransport>,
        activity: &'a Activity,
    ) -> Option<Self> {
        Some(Self {
            records: transport.records()?,
            transport,
            activity,
        })
    }

    pub(super) fn place(&self) -> String {
        self.transport.place()
    }

    pub(super) fn wait<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        wait(&|| self.activity.check(), call)
    }

    pub(super) fn look(&self, key: &str) -> Result<Option<Listed>> {
        self.wait(self.look_now(key))
    }

    pub(super) fn look_now(&self, key: &str) -> Call<'a, Option<Listed>> {
        self.records.look(key.to_owned())
    }

    pub(super) fn write(&self, key: &str, bytes: Vec<u8>) -> Result<()> {
        self.wait(self.records.write(key.to_owned(), bytes))
    }

    pub(super) fn remove(&self, key: &str) -> Call<'a, ()> {
        self.records.remove(key.to_owned())
    }

    pub(super) fn read(&self, key: &str, most: u64) -> Result<Option<Vec<u8>>> {
        self.wait(self.records.read(key.to_owned(), most))
    }

    pub(super) fn write_json(&self, key: &str, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_vec(value).map_err(|error| {
            Error::new(ErrorKind::Internal, "a record cannot be written").with_source(error)
        })?;
        self.write(key, text)
    }

    /// A record that somebody wrote; one that is no more is none.
    pub(super) fn read_json<T: for<'d> Deserialize<'d>>(&self, key: &str) -> Result<Option<T>> {
        let Some(bytes) = self.read(key, SHORT)? else {
            return Ok(None);
        };
        let read = serde_json::from_slice(&bytes);
        read.map(Some).map_err(|error| {
            let text = format!("{key} in {} is no record of this release", self.place());
            Error::damaged(text).with_source(error)
        })
    }

    /// Hands on all objects below a prefix, some at a time.
    pub(super) fn each(
        &self,
        prefix: &str,
        take: &mut dyn FnMut(Vec<Listed>) -> Result<()>,
    ) -> Result<()> {
        let (sink, mut listed) = mpsc::channel(TAKEN);
        let (transport, prefix) = (Arc::clone(self.transport), prefix.to_owned());
        let call = joined(runtime::start()?.spawn(async move {
            match transport.records() {
                Some(records) => records.list(prefix, sink).await,
                None => Ok(()),
            }
        }));
        loop {
            let mut some = Vec::new();
            self.wait(async { Ok(listed.recv_many(&mut some, TAKEN).await) })?;
            if some.is_empty() {
                break;
            }
            take(some)?;
        }
        self.wait(call)
    }

    pub(super) fn all(&self, prefix: &str) -> Result<Vec<Listed>> {
        let mut all = Vec::new();
        self.each(prefix, &mut |some| {
            all.extend(some);
            Ok(())
        })?;
        Ok(all)
    }

    /// All repositories that somebody publishes to, with the hash of who that is.
    pub(super) fn names(&self) -> Result<Vec<(Repository, String)>> {
        let mut names = Vec::new();
        self.each(NAMES, &mut |some| {
            for Listed { key, .. } in some {
                let named = key.strip_prefix(NAMES).and_then(|key| key.split_once(OF));
                let named = named.and_then(|(name, hash)| {
                    Some((Repository::new("", name).ok()?, hash.to_owned()))
                });
                names.push(named.ok_or_else(|| {
                    let text = format!("{key} in {} is no record of this release", self.place());
                    Error::damaged(text)
                })?);
            }
            Ok(())
        })?;
        Ok(names)
    }

    /// What there is of collections. Names may come and go while a directory is read: if the lists that were read are still
    /// there afterwards, no collection has ended meanwhile that had begun before, and its lease would have been read.
    pub(super) fn collections(&self) -> Result<Collections> {
        self.settled(|found| {
            for key in found.lists.keys() {
                if self.look(key)?.is_none() {
                    return Ok(None);
                }
            }
            Ok(Some(found.clone()))
        })
    }

    /// What `look` makes of what there is of collections; `None`: something of it has gone meanwhile, and it is read anew.
    pub(super) fn settled<T>(
        &self,
        mut look: impl FnMut(&Collections) -> Result<Option<T>>,
    ) -> Result<T> {
        for _ in 0..READINGS {
            if let Some(settled) = look(&self.read_collections()?)? {
                return Ok(settled);
            }
            self.pause()?;
        }
        let text = format!(
            "{} lists objects below {COLLECTION} that it does not have",
            self.place()
        );
        Err(Error::new(ErrorKind::Unavailable, text))
    }

    pub(super) fn pause(&self) -> Result<()> {
        self.wait(async {
            tokio::time::sleep(GLANCE).await;
            Ok(())
        })
    }

    fn read_collections(&self) -> Result<Collections> {
        let mut found = Collections::default();
        for Listed { key, modified, .. } in self.all(COLLECTION)? {
            if key.ends_with(LIST) {
                found.lists.insert(key, modified);
            } else if key.ends_with(LEASE) {
                found.leases.insert(key, modified);
            }
        }
        Ok(found)
    }
}
