//! What is needed: the contents of every manifest that has a version in a repository somebody publishes to, in every registry
//! that somebody publishes to, and of those that lost theirs within the grace; and in all other repositories of these
//! namespaces, as far as registries list them. Nothing of it is guessed: whatever cannot be read
//! ends the collection, by name, before anything is removed.
//!
//! A version that is read as absent was listed a moment ago: the manifest may have got another version first, so the list is
//! read anew. One that moves to another manifest left a record before, and those are read last. A registry in which no version
//! of a publisher is to be seen may have lost its disk, or be another one: that ends it too.
//!
//! Of a document the eight bytes of each content's [`Print`] are kept. Documents are read side by side, long ones one after the
//! other, so memory is that of a few, and of the prints.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::Context;
use super::lease::Lease;
use super::list::Print;
use super::shelf::{MOVED, Moved, PUBLISHERS, Publisher, Shelf};
use crate::format::artifact::paged::AnyManifest;
use crate::format::document::SHORT;
use crate::lock::lock;
use crate::registry::{self, MetadataRegistry, Repository, Tag, TagOrDigest};
use crate::remote::resolve::Said;
use crate::remote::text::Text;
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};

/// How often a list of versions is read anew because one of them is absent: some registries list for ever what they lost.
const READINGS: usize = 4;

/// How many of those that cannot be read an error names.
const NAMED: usize = 10;

/// What was found to be needed.
#[derive(Default)]
pub(super) struct Marked {
    pub(super) publishers: u64,
    pub(super) prints: HashSet<Print>,
    manifests: HashSet<Sha256>,
    documents: HashSet<Sha256>,
}

impl Marked {
    pub(super) fn manifests(&self) -> u64 {
        self.manifests.len() as u64
    }
}

/// A repository of a publisher.
struct Named<'a> {
    publisher: usize,
    registry: &'a Arc<dyn MetadataRegistry>,
    place: &'a str,
    repository: Repository,
    is_recorded: bool,
}

struct Marking<'a> {
    shelf: Shelf<'a>,
    lease: Option<&'a Lease<'a>>,
    marked: Mutex<Marked>,
    /// Publishers that have a version.
    seen: Mutex<HashSet<usize>>,
    failed: Mutex<Vec<(String, Error)>>,
    /// Who reads a long document.
    long: Mutex<()>,
}

/// Marks. `since`: what lost its version later is needed still.
pub(super) fn run(
    context: &Context<'_>,
    shelf: Shelf<'_>,
    lease: Option<&Lease<'_>>,
    since: i64,
) -> Result<Marked> {
    let publishers = publishers(shelf)?;
    let registries = registries(context, &publishers)?;
    let mut repositories = repositories(shelf, &publishers, &registries)?;
    let further = unrecorded(shelf, &publishers, &registries, &repositories)?;
    repositories.extend(further);
    let marking = Marking {
        shelf,
        lease,
        marked: Mutex::default(),
        seen: Mutex::default(),
        failed: Mutex::default(),
        long: Mutex::default(),
    };
    context
        .limit
        .for_each(shelf.activity, repositories.len(), |index| {
            marking.repository(&repositories[index])
        })?;
    marking.require_sight(&publishers, &repositories)?;
    marking.moved(&publishers, &registries, since)?;
    let mut marked = marking.end()?;
    marked.publishers = publishers.len() as u64;
    Ok(marked)
}

fn publishers(shelf: Shelf<'_>) -> Result<Vec<Publisher>> {
    let mut publishers = Vec::new();
    for listed in shelf.all(PUBLISHERS)? {
        publishers.extend(shelf.read_json::<Publisher>(&listed.key)?);
    }
    publishers.sort();
    Ok(publishers)
}

/// The registry of each with what the configuration says of how to reach it; its own user is for its own registry.
fn registries(
    context: &Context<'_>,
    publishers: &[Publisher],
) -> Result<Vec<Arc<dyn MetadataRegistry>>> {
    let own = context.registry.validate()?.address();
    let open = |publisher: &Publisher| {
        let mut config = context.registry.clone();
        if publisher.registry != own {
            config.endpoint.clone_from(&publisher.registry);
            (config.username, config.password) = (None, None);
        }
        config.namespace.clone_from(&publisher.namespace);
        registry::open(&config).map_err(|error| unread(&publisher.registry, error))
    };
    publishers.iter().map(open).collect()
}

/// What each publishes to. A name whose publisher is not known was published by somebody whose record was removed.
fn repositories<'a>(
    shelf: Shelf<'_>,
    publishers: &'a [Publisher],
    registries: &'a [Arc<dyn MetadataRegistry>],
) -> Result<Vec<Named<'a>>> {
    let by_hash = publishers.iter().enumerate();
    let by_hash: BTreeMap<String, (usize, &Publisher)> = by_hash
        .map(|(index, one)| (one.hash(), (index, one)))
        .collect();
    let named = |(repository, hash): (Repository, String)| {
        let (publisher, one) = by_hash.get(&hash).ok_or_else(|| {
            let text = format!(
                "somebody publishes {repository}, and {PUBLISHERS}{hash}.json does not say who"
            );
            Error::damaged(text)
        })?;
        Ok(Named {
            publisher: *publisher,
            registry: &registries[*publisher],
            place: &one.registry,
            repository,
            is_recorded: true,
        })
    };
    shelf.names()?.into_iter().map(named).collect()
}

/// What a registry lists of a publisher's namespace and has no record: a release without collections may have published it, and
/// then it is needed. Such a list, which hosted registries give in part or not at all, never says that something goes.
fn unrecorded<'a>(
    shelf: Shelf<'_>,
    publishers: &'a [Publisher],
    registries: &'a [Arc<dyn MetadataRegistry>],
    recorded: &[Named<'_>],
) -> Result<Vec<Named<'a>>> {
    let recorded = recorded.iter();
    let recorded: HashSet<(&str, &str)> = recorded
        .map(|named| (named.place, named.repository.as_str()))
        .collect();
    let mut found = Vec::new();
    for (number, (publisher, registry)) in publishers.iter().zip(registries).enumerate() {
        let names = match shelf.wait(registry.repositories()) {
            Err(error) if does_not_list(&error) => Vec::new(),
            names => names.map_err(|error| unread(&publisher.registry, error))?,
        };
        for name in names {
            let repository = Repository::new(&publisher.namespace, &name)?;
            let place = publisher.registry.as_str();
            if !recorded.contains(&(place, repository.as_str())) {
                found.push(Named {
                    publisher: number,
                    registry,
                    place,
                    repository,
                    is_recorded: false,
                });
            }
        }
    }
    Ok(found)
}

impl Marking<'_> {
    /// What cannot be read is noted, and the others are read all the same: whoever mends one wants to know them all.
    fn repository(&self, named: &Named<'_>) -> Result<()> {
        self.shelf.activity.check()?;
        if let Some(lease) = self.lease {
            lease.hold()?;
        }
        match self.versions(named) {
            Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
            Err(error) => {
                let name = format!("{}/{}", named.place, named.repository);
                lock(&self.failed).push((name, error));
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn versions(&self, named: &Named<'_>) -> Result<()> {
        let mut read: HashSet<Tag> = HashSet::new();
        for _ in 0..READINGS {
            let mut is_whole = true;
            for tag in self.shelf.wait(named.registry.tags(&named.repository))? {
                if read.contains(&tag) {
                    continue;
                }
                match self.manifest(named, &TagOrDigest::Tag(tag.clone()))? {
                    true => {
                        read.insert(tag);
                    }
                    false => is_whole = false,
                }
            }
            if named.is_recorded && !read.is_empty() {
                lock(&self.seen).insert(named.publisher);
            }
            if is_whole && named.is_recorded && read.is_empty() {
                // All of it may have been removed, or be on a disk that is not mounted.
                let sight = named.registry.check_sight(&named.repository);
                return self.shelf.wait(sight);
            }
            if is_whole {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Marks what a manifest needs; says whether it is there.
    fn manifest(&self, named: &Named<'_>, which: &TagOrDigest) -> Result<bool> {
        let found = self
            .shelf
            .wait(named.registry.manifest(&named.repository, which));
        let Some(found) = found.map_err(|error| unread(&which.to_string(), error))? else {
            return Ok(false);
        };
        if !lock(&self.marked).manifests.insert(found.digest) {
            return Ok(true);
        }
        let parsed = match AnyManifest::parse(&found.bytes) {
            Err(_) if is_strange(&found.bytes) => return Ok(true),
            parsed => parsed.map_err(|error| {
                let text = format!("the manifest {which} cannot be used");
                Error::new(ErrorKind::Unsupported, text).with_source(error)
            })?,
        };
        // Layers are the registry's own.
        if !parsed.has_layers() {
            let read = self.document(named, parsed);
            read.map_err(|error| unread(&which.to_string(), error))?;
        }
        Ok(true)
    }

    fn document(&self, named: &Named<'_>, manifest: AnyManifest) -> Result<()> {
        let (sha256, size) = manifest.config();
        if lock(&self.marked).documents.contains(&sha256) {
            return Ok(());
        }
        let _alone = (size > SHORT).then(|| lock(&self.long));
        let document = named.registry.blob(&named.repository, sha256, size);
        let document = self.shelf.wait(document)?;
        let said = Said::new(manifest, &Text::Short(document)).map_err(|error| {
            let text = format!("the document {sha256} cannot be used");
            Error::new(ErrorKind::Damaged, text).with_source(error)
        })?;
        let mut marked = lock(&self.marked);
        let prints = said.objects().map(|name| Print::of(&name.key()));
        marked.prints.extend(prints);
        marked.documents.insert(sha256);
        Ok(())
    }

    fn require_sight(&self, publishers: &[Publisher], repositories: &[Named<'_>]) -> Result<()> {
        let seen = lock(&self.seen);
        let failed = lock(&self.failed);
        let is_unseen = |named: &&Named<'_>| !seen.contains(&named.publisher);
        let Some(unseen) = repositories
            .iter()
            .find(is_unseen)
            .filter(|_| failed.is_empty())
        else {
            return Ok(());
        };
        let publisher = &publishers[unseen.publisher];
        let text = format!(
            "{} has no version at all of what is published there with the namespace \"{}\": it may not be mounted, or be another one",
            publisher.registry, publisher.namespace
        );
        Err(Error::new(ErrorKind::Unavailable, text).with_hint(format!(
            "if nothing is to be kept of it, remove {} from {}, and what ends with its hash below snapshotter/names/",
            publisher.key(),
            self.shelf.place()
        )))
    }

    /// Manifests that lost their version lately. One that the registry has removed since is nobody's.
    fn moved(
        &self,
        publishers: &[Publisher],
        registries: &[Arc<dyn MetadataRegistry>],
        since: i64,
    ) -> Result<()> {
        for listed in self.shelf.all(MOVED)? {
            if listed.modified < since {
                continue;
            }
            let Some(moved) = self.shelf.read_json::<Moved>(&listed.key)? else {
                continue;
            };
            let damaged = || Error::damaged(format!("{} is no record", listed.key));
            let digest: Sha256 = moved.manifest.parse().map_err(|_| damaged())?;
            // The publisher wrote down who he is before.
            let mut all = publishers.iter().zip(registries);
            let Some((_, registry)) = all.find(|(one, _)| one.registry == moved.registry) else {
                continue;
            };
            let named = Named {
                publisher: usize::MAX,
                registry,
                place: &moved.registry,
                repository: Repository::new("", &moved.repository)?,
                is_recorded: true,
            };
            self.manifest(&named, &TagOrDigest::Digest(digest))?;
        }
        Ok(())
    }

    fn end(self) -> Result<Marked> {
        let failed = self
            .failed
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let names: Vec<&str> = failed.iter().map(|(name, _)| name.as_str()).collect();
        let names = some_of(&names);
        if let Some((_, first)) = failed.into_iter().next() {
            let text = format!("nothing is removed, because {names} cannot be read");
            return Err(Error::new(first.kind(), text).with_source(first));
        }
        Ok(self
            .marked
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner))
    }
}

/// Hosted registries, and users who see their own repositories alone.
fn does_not_list(error: &Error) -> bool {
    use ErrorKind::{NotFound, PermissionDenied, Unsupported};
    matches!(error.kind(), NotFound | PermissionDenied | Unsupported)
}

/// The first of many names, and how many more there are.
fn some_of<T: AsRef<str>>(names: &[T]) -> String {
    let first: Vec<&str> = names.iter().map(AsRef::as_ref).take(NAMED).collect();
    match names.len().saturating_sub(NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Whether it is another program's artifact. One of a release to come is ours, and needs what we cannot know.
fn is_strange(manifest: &[u8]) -> bool {
    !String::from_utf8_lossy(manifest).contains("vnd.cncf.dragonfly.snapshotter")
}

fn unread(what: &str, error: Error) -> Error {
    Error::new(error.kind(), format!("cannot read {what}")).with_source(error)
}
