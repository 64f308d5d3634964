//! The publisher's side: he is known before he sends anything, and once his manifest is in he finds out whether a collection
//! removed something of his meanwhile (`mod.rs` has the argument). Whose keys reach contents alone can do neither: that is
//! said, and he publishes as older releases and the Go library do.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::list::{self, Print};
use super::rules::{self, Collections, Next};
use super::shelf::{MOVED, Moved, Publisher, Shelf, new_key};
use crate::activity::Activity;
use crate::lock::lock;
use crate::pass::both;
use crate::registry::Repository;
use crate::remote::{Place, Remote};
use crate::transport::ContentTransport;
use crate::words::digest::Sha256;
use crate::words::error::{ErrorKind, Result};
use crate::words::object::ObjectName;
use crate::words::progress::WarningKind;

/// A publication, as collections have to do with it.
pub(in crate::remote) struct Watch<'a> {
    /// None where contents are in the registry.
    transport: Option<&'a Arc<dyn ContentTransport>>,
    /// None where the place itself is not reached.
    shelf: Option<Shelf<'a>>,
    has_daemon: bool,
    publisher: Publisher,
    repository: Repository,
    pub(in crate::remote) activity: &'a Activity,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The keys do not reach the records.
    is_blind: bool,
    collections: Collections,
    /// What may be going, by its key, and is sent again whatever is there.
    doomed: HashMap<Print, Doomed>,
    /// What was sent again, and cannot go any more.
    spared: HashSet<Print>,
}

/// An object that lists name.
struct Doomed {
    key: String,
    /// When the last of them was written.
    listed_at: i64,
}

impl<'a> Watch<'a> {
    /// Asks nothing yet.
    pub(in crate::remote) fn new(
        remote: &'a Remote,
        repository: &Repository,
        activity: &'a Activity,
    ) -> Self {
        let transport = match &remote.content {
            Place::Elsewhere(way) => Some(&way.transport),
            Place::Unknown | Place::Registry => None,
        };
        Self {
            transport,
            shelf: transport.and_then(|transport| Shelf::of(transport, activity)),
            has_daemon: remote.has_daemon(),
            publisher: Publisher {
                registry: remote.addresses.registry.clone(),
                namespace: remote.namespace.clone(),
            },
            repository: repository.clone(),
            activity,
            seen: Mutex::default(),
        }
    }

    /// Says who publishes what, and looks what collections there were.
    pub(in crate::remote) fn begin(&self) -> Result<()> {
        let Some(transport) = self.transport else {
            return Ok(());
        };
        let why = match &self.shelf {
            None => "the bucket is reached by Dragonfly alone".to_owned(),
            Some(shelf) => match self.enter(shelf) {
                Err(error) if self.may_do_without(error.kind()) => error.line(),
                entered => return entered,
            },
        };
        lock(&self.seen).is_blind = true;
        let text = format!(
            "no collection of {} knows of what is published from here: {why}",
            transport.place()
        );
        self.activity.warn(WarningKind::Unregistered, None, text);
        Ok(())
    }

    /// Whoever has a daemon publishes through it where he does not reach the bucket.
    fn may_do_without(&self, kind: ErrorKind) -> bool {
        let is_unreached = self.has_daemon && kind == ErrorKind::Unavailable;
        is_unreached || kind == ErrorKind::PermissionDenied
    }

    fn enter(&self, shelf: &Shelf<'_>) -> Result<()> {
        let name = self.publisher.key_of_name(&self.repository);
        // Where the name was there before, it does not matter which of the two is answered first.
        let (found, mut collections) = both(|| shelf.look(&name), || shelf.collections())?;
        if found.is_none() {
            shelf.write_json(&self.publisher.key(), &self.publisher)?;
            shelf.write_json(&name, &self.publisher)?;
            collections = shelf.collections()?;
        }
        lock(&self.seen).collections = collections;
        Ok(())
    }

    /// What is known there, unless that is out of reach.
    fn shelf(&self) -> Option<&Shelf<'a>> {
        self.shelf.as_ref().filter(|_| !lock(&self.seen).is_blind)
    }

    /// Whether anything was collected here ever: then nothing is believed to be here that was here once.
    pub(in crate::remote) fn may_believe(&self) -> bool {
        let collections = &lock(&self.seen).collections;
        collections.lists.is_empty() && collections.leases.is_empty()
    }

    /// A version is about to leave a manifest: who is marking may have read the one that takes it, and not yet another version
    /// that has the old one too.
    pub(in crate::remote) fn moving(&self, from: Option<Sha256>, to: Sha256) -> Result<()> {
        let (Some(shelf), Some(from)) = (self.shelf(), from.filter(|from| *from != to)) else {
            return Ok(());
        };
        let moved = Moved {
            registry: self.publisher.registry.clone(),
            repository: self.repository.to_string(),
            manifest: from.to_string(),
        };
        shelf.write_json(&new_key(MOVED, ".json")?, &moved)
    }

    /// Whether an object has to be sent whatever is there.
    pub(in crate::remote) fn is_doomed(&self, name: ObjectName) -> bool {
        let doomed = &lock(&self.seen).doomed;
        !doomed.is_empty() && doomed.contains_key(&Print::of(&name.key()))
    }

    /// Whether all that the manifest, which is in, names has to be looked for once more, and sent where it is not there.
    pub(in crate::remote) fn has_to_look_again(
        &self,
        names: impl Iterator<Item = ObjectName>,
    ) -> Result<bool> {
        let Some(shelf) = self.shelf() else {
            return Ok(false);
        };
        let mut seen = lock(&self.seen);
        if !seen.doomed.is_empty() {
            // What was asked for before they were sent may still remove them: and then they are not there.
            wait_out(shelf, &seen.doomed)?;
            let doomed = std::mem::take(&mut seen.doomed);
            seen.spared.extend(doomed.into_keys());
            return Ok(true);
        }
        let names: Vec<String> = names.map(|name| name.key()).collect();
        let (now, doomed) = shelf.settled(|found| {
            let doomed = doomed(shelf, found, &seen.spared, &names)?;
            Ok(doomed.map(|doomed| (found.clone(), doomed)))
        })?;
        if rules::next(&seen.collections, &now, !doomed.is_empty()) == Next::Done {
            return Ok(false);
        }
        tracing::info!("a collection is or was at work: contents are looked for once more");
        (seen.collections, seen.doomed) = (now, doomed);
        Ok(true)
    }
}

/// What of these a list names. `None`: a list has gone, and what it named may have gone before.
fn doomed(
    shelf: &Shelf<'_>,
    now: &Collections,
    spared: &HashSet<Print>,
    names: &[String],
) -> Result<Option<HashMap<Print, Doomed>>> {
    let mut doomed = HashMap::<Print, Doomed>::new();
    for (list, written) in &now.lists {
        let Some(listed) = list::read(shelf, list)? else {
            return Ok(None);
        };
        for key in names {
            let print = Print::of(key);
            if listed.contains(&print) && !spared.contains(&print) {
                let one = doomed.entry(print).or_insert_with(|| Doomed {
                    key: key.clone(),
                    listed_at: *written,
                });
                one.listed_at = one.listed_at.max(*written);
            }
        }
    }
    Ok(Some(doomed))
}

/// Waits until what was asked for before the doomed were sent again has come to pass: the collector is done, or his lease had
/// ended by then, or has by now. What was sent first tells the place's time.
///
/// What could not be sent again, a look right before its removal does not spare: so whoever is at work now is waited for as long
/// as he renews his lease. Whoever begins later finds the manifest.
fn wait_out(shelf: &Shelf<'_>, doomed: &HashMap<Print, Doomed>) -> Result<()> {
    let (mut sent, mut all_sent) = (None::<i64>, true);
    for one in doomed.values() {
        if let Some(found) = shelf.look(&one.key)? {
            all_sent &= found.modified >= one.listed_at;
            sent = Some(sent.map_or(found.modified, |sent| sent.min(found.modified)));
        }
    }
    let (began, most) = (
        Instant::now(),
        Duration::from_nanos(rules::LEASE.unsigned_abs()),
    );
    let at_work = shelf.collections()?.leases.into_iter();
    let mut at_work: HashMap<String, (i64, Instant)> =
        at_work.map(|(key, at)| (key, (at, began))).collect();
    loop {
        let now = shelf.collections()?;
        at_work.retain(|key, (at, since)| {
            now.leases.get(key).is_some_and(|renewed| {
                if renewed != at {
                    (*at, *since) = (*renewed, Instant::now());
                }
                since.elapsed() <= most
            })
        });
        let is_over = began.elapsed() > most || !now.may_still_remove(sent);
        if at_work.is_empty() || (all_sent && is_over) {
            return Ok(());
        }
        shelf.pause()?;
    }
}
