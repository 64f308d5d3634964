//! Asking whether a snapshot is still where rows say it is, before its copy here goes: its name has to resolve to its
//! manifest, and the list of files and each object that would be nowhere else have to be there with their sizes. What
//! turns out to be otherwise is written down, unless that is not wanted. Nothing is held meanwhile, neither a permit nor a
//! transaction.
//!
//! A name that is another snapshot's by now would give other content, so it does not count; what was fetched without a version
//! is asked for by digest. A place that is itself not there (a bucket, a mount: a directory without a layout, or without any
//! object) has not lost anything: that is an answer that did not come. Through a daemon it is the bucket that is asked; the
//! daemon's word counts only with `gc.trust_daemon`, where the bucket cannot be.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::contents::layers_of_any;
use super::places::is_named_by_digest;
use super::runtime::wait;
use super::send::object;
use super::{Remote, parse_manifest};
use crate::activity::Activity;
use crate::catalog::{Address, BlobState, PublicationRow, Relied, SeenBy, Sync, Txn};
use crate::confirmation::{Answer, Question};
use crate::registry::{Layers, Repository};
use crate::store::{Store, now};
use crate::transport::{ContentTransport, Presence};
use crate::words::digest::{Checksum, Sha256};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::object::Object;
use crate::words::reference::Reference;

/// The way out, for people.
const PUSH_AGAIN: &str = "`push` publishes it again";

/// Objects asked for at once.
const ABREAST: usize = 16;

/// Something that has to be there with all its bytes.
#[derive(Clone, Copy)]
struct Expected {
    object: Object,
    checksum: Checksum,
    /// What is missing here has no length to compare with.
    any_size: bool,
}

/// Objects that were found in their places: nobody looks twice in a collection.
#[derive(Default)]
pub(crate) struct Asked(HashMap<Address, HashSet<Checksum>>);

/// What was found.
enum Found {
    All(PublicationRow),
    Lacks(Lack),
}

/// What is not there.
struct Lack {
    /// For people.
    what: String,
    /// The blobs whose objects are not at this place.
    place: Address,
    objects: Vec<Checksum>,
}

impl Remote {
    /// Asks, and revises the rows. Blocks.
    ///
    /// # Errors
    /// `Cancelled`; the catalog's. What a server says is in the answer.
    pub(crate) fn confirm(
        &self,
        store: &Arc<Store>,
        question: &Question<'_>,
        asked: &mut Asked,
        activity: &Activity,
    ) -> Result<Answer> {
        let asking = Asking {
            store,
            remote: self,
            question,
            activity,
            repository: self.repository(&question.snapshot.reference)?,
        };
        match asking.ask(asked) {
            Ok(Found::All(row)) => asking.agree(row),
            Ok(Found::Lacks(lack)) => asking.disagree(lack),
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            Err(error) => Ok(Answer::Unknown(error)),
        }
    }
}

struct Asking<'a> {
    store: &'a Arc<Store>,
    remote: &'a Remote,
    question: &'a Question<'a>,
    activity: &'a Activity,
    repository: Repository,
}

impl Asking<'_> {
    fn ask(&self, asked: &mut Asked) -> Result<Found> {
        let (reference, remote) = (&self.question.snapshot.reference, self.remote);
        let expected = self.question.said.manifest_digest;
        let name = self.name(expected)?;
        let found = remote.find(&name, self.activity)?;
        let Some(found) = found else {
            return self.lacks(|place| format!("{place} has {name} no more"));
        };
        if found.digest != expected {
            let other = found.digest;
            let what =
                format!("has another snapshot as {name}, {other}; `push` with force replaces it");
            return self.found_otherwise(|place| format!("{place} {what}"));
        }
        let manifest = parse_manifest(&found.bytes, reference)?;
        let (sha256, size) = manifest.config();
        let document = remote.registry.has_blob(&self.repository, sha256, size);
        match wait(&|| self.activity.check(), document)? {
            Presence::Size(found) if found == size => {}
            Presence::Unknown => {
                let text = format!("{} does not say whether it has {sha256}", remote.endpoint);
                return Err(Error::new(ErrorKind::Unavailable, text));
            }
            Presence::Size(_) | Presence::Absent => {
                return self.lacks(|place| format!("{place} has not its list of files"));
            }
        }
        let row = remote.publication(reference, &found.bytes, now())?;
        let lack = self.contents(layers_of_any(&manifest), &row.content, asked)?;
        Ok(lack.map_or(Found::All(row), Found::Lacks))
    }

    /// A repository that is itself not there has not lost anything.
    fn lacks(&self, what: impl FnOnce(&str) -> String) -> Result<Found> {
        let sight = self.remote.registry.check_sight(&self.repository);
        wait(&|| self.activity.check(), sight)?;
        self.found_otherwise(|place| format!("{}; {PUSH_AGAIN}", what(place)))
    }

    fn found_otherwise(&self, what: impl FnOnce(&str) -> String) -> Result<Found> {
        let place = self.remote.address(&self.question.snapshot.reference)?;
        Ok(Found::Lacks(Lack {
            what: what(place.shown().unwrap_or_default()),
            place,
            objects: Vec::new(),
        }))
    }

    /// What a restore would ask for: the version, unless there is none.
    fn name(&self, digest: Sha256) -> Result<Reference> {
        let reference = &self.question.snapshot.reference;
        let version = reference.version().unwrap_or_default();
        if is_named_by_digest(reference, digest) {
            return Ok(reference.clone().with_digest(digest));
        }
        Reference::new(reference.name(), version).map_err(|error| Error::invalid(error.to_string()))
    }

    /// Looks for the objects that nobody looked for in this collection.
    fn contents(&self, layers: Layers, place: &Address, asked: &mut Asked) -> Result<Option<Lack>> {
        let seen = asked.0.entry(place.clone()).or_default();
        let mut expected = self.expected()?;
        expected.retain(|one| !seen.contains(&one.checksum));
        if expected.is_empty() {
            return Ok(None);
        }
        let contents = self.remote.contents(&self.repository, layers)?;
        let lacking = match self.look(&contents.transport, &expected) {
            Err(error) if self.may_trust(place, &expected, &error)? => Vec::new(),
            lacking => lacking?,
        };
        let Some(first) = lacking.first() else {
            seen.extend(expected.iter().map(|one| one.checksum));
            return Ok(None);
        };
        let (number, shown) = (lacking.len(), place.shown().unwrap_or_default());
        Ok(Some(Lack {
            what: format!(
                "{shown} has not {number} of its objects, {} for one; {PUSH_AGAIN}",
                first.object
            ),
            place: place.clone(),
            objects: lacking.iter().map(|one| one.checksum).collect(),
        }))
    }

    fn expected(&self) -> Result<Vec<Expected>> {
        let blobs = self.question.blobs.iter().map(|blob| {
            Ok(Expected {
                object: object(blob, &self.store.extents(blob)?),
                checksum: blob.checksum,
                any_size: false,
            })
        });
        let packs = self.question.packs.iter().map(|pack| {
            Ok(Expected {
                object: Object::pack(*pack.key.as_bytes(), pack.length),
                checksum: pack.key,
                any_size: pack.state == BlobState::Missing,
            })
        });
        blobs.chain(packs).collect()
    }

    /// Looks for objects side by side, and says which are not there. A place that is itself not there has none of them,
    /// which is not the same as having lost them.
    fn look<'e>(
        &self,
        transport: &Arc<dyn ContentTransport>,
        expected: &'e [Expected],
    ) -> Result<Vec<&'e Expected>> {
        let wanted = || self.activity.check();
        let objects = expected.iter().map(|one| one.object).collect();
        let found = wait(&wanted, sizes(transport, objects))?;
        let mut lacking = Vec::new();
        for (expected, found) in expected.iter().zip(found) {
            match found {
                Presence::Size(_) if expected.any_size => {}
                Presence::Size(size) if size == expected.object.most => {}
                Presence::Size(_) | Presence::Absent => lacking.push(expected),
                Presence::Unknown => {
                    let (object, place) = (expected.object, transport.place());
                    let text = format!("{place} cannot be asked for {object} from here");
                    return Err(Error::new(ErrorKind::Unavailable, text));
                }
            }
        }
        if !lacking.is_empty() {
            wait(&wanted, transport.check_sight())?;
        }
        Ok(lacking)
    }

    /// Whether a daemon's word is enough for a bucket that cannot be asked.
    fn may_trust(&self, place: &Address, expected: &[Expected], error: &Error) -> Result<bool> {
        let is_behind_daemon = self.remote.seen_by(place) == SeenBy::Daemon;
        let was_not_answered = matches!(
            error.kind(),
            ErrorKind::Unavailable | ErrorKind::PermissionDenied
        );
        if !(self.question.trust_daemon && is_behind_daemon && was_not_answered) {
            return Ok(false);
        }
        let (catalog, id) = (&self.store.catalog, self.question.snapshot.id);
        let told = catalog.read(|txn| txn.objects_at(id, place))?;
        Ok(expected.iter().all(|one| told.contains(&one.checksum)))
    }

    /// It is where the row says, or nobody had noted where: then there is a row that does.
    fn agree(&self, found: PublicationRow) -> Result<Answer> {
        let (id, said) = (self.question.snapshot.id, self.question.said);
        // Whoever forgot the row meanwhile is about to remove the snapshot there.
        let record = |txn: &Txn<'_>| match txn.publications_of(id)?.contains(said) {
            true => txn.record_publication(id, &found),
            false => Ok(()),
        };
        let is_news = said.registry != found.registry && self.revise(record)?;
        let blobs = self.question.blobs.iter().map(|blob| blob.checksum);
        let objects = blobs.chain(self.question.packs.iter().map(|pack| pack.key));
        Ok(Answer::There(Relied {
            publication: if is_news { found } else { said.clone() },
            objects: objects.collect(),
        }))
    }

    /// It is not. Where nobody noted where it is, it may still be somewhere else.
    fn disagree(&self, lack: Lack) -> Result<Answer> {
        let snapshot = self.question.snapshot;
        let registry = self.remote.address(&snapshot.reference)?;
        let forget = |txn: &Txn<'_>| {
            txn.forget_publication(snapshot.id, &registry)?;
            txn.forget_objects(&lack.place, &lack.objects)
        };
        if self.revise(forget)? {
            // What was elsewhere had time to reach the disk.
            self.store.sync_later(snapshot.id);
        }
        Ok(Answer::Otherwise(lack.what))
    }

    /// Says whether it was written down: a full disk is what is being collected for, and a dry run writes nothing.
    fn revise(&self, write: impl FnOnce(&Txn<'_>) -> Result<()>) -> Result<bool> {
        if !self.question.revises {
            return Ok(false);
        }
        match self.store.catalog.write(Sync::Normal, write) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                tracing::debug!(%error, "where a snapshot is was not written down");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether objects are there, in their order. Who stops waiting stops asking for all.
async fn sizes(
    transport: &Arc<dyn ContentTransport>,
    objects: Vec<Object>,
) -> Result<Vec<Presence>> {
    let mut sizes = vec![Presence::Unknown; objects.len()];
    let mut left = objects.into_iter().enumerate();
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() < ABREAST
            && let Some((index, object)) = left.next()
        {
            let transport = Arc::clone(transport);
            under_way.spawn(async move { (index, transport.size(object).await) });
        }
        match under_way.join_next().await {
            None => return Ok(sizes),
            Some(Ok((index, size))) => sizes[index] = size?,
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Some(Err(_)) => return Err(Error::cancelled()),
        }
    }
}
