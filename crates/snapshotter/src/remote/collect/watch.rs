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
use crate::registry::Repository;
use crate::remote::{Place, Remote};
use crate::transport::ContentTransport;
use crate::words::digest::Sha256;
use crate::words::error::{ErrorKind, Result};
use crate::words::object::ObjectName;
use crate::words::progress::WarningKind;

/// How often a publisher who has to wait looks whether he still has to.
const GLANCE: Duration = Duration::from_millis(500);

/// A publication, as collections have to do with it.
pub(in crate::remote) struct Watch<'a> {
    /// None where contents are in the registry, or the records out of reach.
    shelf: Option<Shelf<'a>>,
    publisher: Publisher,
    repository: Repository,
    pub(in crate::remote) activity: &'a Activity,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    collections: Collections,
    /// What may be going, by its key, and is sent again whatever is there.
    doomed: HashMap<Print, String>,
    /// What was sent again, and cannot go any more.
    spared: HashSet<Print>,
}

impl<'a> Watch<'a> {
    /// Says who publishes what, and looks what collections there were.
    pub(in crate::remote) fn begin(
        remote: &'a Remote,
        repository: &Repository,
        activity: &'a Activity,
    ) -> Result<Self> {
        let mut watch = Self {
            shelf: None,
            publisher: Publisher {
                registry: remote.addresses.registry.clone(),
                namespace: remote.namespace.clone(),
            },
            repository: repository.clone(),
            activity,
            seen: Mutex::default(),
        };
        let Place::Elsewhere(way) = &remote.content else {
            return Ok(watch);
        };
        match watch.enter(&way.transport, activity) {
            Ok(true) => {}
            Ok(false) => unknown(
                activity,
                &*way.transport,
                "the bucket is reached by Dragonfly alone",
            ),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                watch.shelf = None;
                unknown(activity, &*way.transport, &error.line());
            }
            Err(error) => return Err(error),
        }
        Ok(watch)
    }

    fn enter(
        &mut self,
        transport: &'a Arc<dyn ContentTransport>,
        activity: &'a Activity,
    ) -> Result<bool> {
        let Some(shelf) = Shelf::of(transport, activity) else {
            return Ok(false);
        };
        self.shelf = Some(shelf);
        let name = self.publisher.key_of_name(&self.repository);
        if shelf.look(&name)?.is_none() {
            shelf.write_json(&self.publisher.key(), &self.publisher)?;
            shelf.write_json(&name, &self.publisher)?;
        }
        lock(&self.seen).collections = shelf.collections()?;
        Ok(true)
    }

    /// Whether anything was collected here ever: then nothing is believed to be here that was here once.
    pub(in crate::remote) fn may_believe(&self) -> bool {
        let collections = &lock(&self.seen).collections;
        collections.lists.is_empty() && collections.leases.is_empty()
    }

    /// A version is about to leave a manifest: who is marking may have read the one that takes it, and not yet another version
    /// that has the old one too.
    pub(in crate::remote) fn moving(&self, from: Option<Sha256>, to: Sha256) -> Result<()> {
        let (Some(shelf), Some(from)) = (&self.shelf, from.filter(|from| *from != to)) else {
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
        let Some(shelf) = &self.shelf else {
            return Ok(false);
        };
        let mut seen = lock(&self.seen);
        if !seen.doomed.is_empty() {
            // What was asked for before they were sent may still remove them: and then they are not there.
            wait_out(shelf, seen.doomed.values())?;
            let doomed = std::mem::take(&mut seen.doomed);
            seen.spared.extend(doomed.into_keys());
            return Ok(true);
        }
        let now = shelf.collections()?;
        let doomed = doomed(shelf, &now, &seen.spared, names)?;
        if rules::next(&seen.collections, &now, !doomed.is_empty()) == Next::Done {
            return Ok(false);
        }
        tracing::info!("a collection is or was at work: contents are looked for once more");
        (seen.collections, seen.doomed) = (now, doomed);
        Ok(true)
    }
}

/// What of these a list names. One that has gone is in none.
fn doomed(
    shelf: &Shelf<'_>,
    now: &Collections,
    spared: &HashSet<Print>,
    names: impl Iterator<Item = ObjectName>,
) -> Result<HashMap<Print, String>> {
    if now.lists.is_empty() {
        return Ok(HashMap::new());
    }
    let mut listed = HashSet::new();
    for key in now.lists.keys() {
        listed.extend(list::read(shelf, key)?.unwrap_or_default());
    }
    let prints = names.map(|name| (Print::of(&name.key()), name.key()));
    Ok(prints
        .filter(|(print, _)| listed.contains(print) && !spared.contains(print))
        .collect())
}

/// Waits until what was asked for before the doomed were sent again has come to pass: the collector is done, or his lease had
/// ended by then, or has by now. What was sent first tells the place's time.
fn wait_out<'k>(shelf: &Shelf<'_>, doomed: impl Iterator<Item = &'k String>) -> Result<()> {
    let mut sent: Option<i64> = None;
    for key in doomed {
        let at = shelf.look(key)?.map(|found| found.modified);
        sent = at.map(|at| sent.map_or(at, |sent| sent.min(at))).or(sent);
    }
    let began = Instant::now();
    while began.elapsed() <= Duration::from_nanos(rules::LEASE.unsigned_abs()) {
        if !shelf.collections()?.may_still_remove(sent) {
            break;
        }
        shelf.wait(async {
            tokio::time::sleep(GLANCE).await;
            Ok(())
        })?;
    }
    Ok(())
}

fn unknown(activity: &Activity, transport: &dyn ContentTransport, why: &str) {
    let text = format!(
        "no collection of {} knows of what is published from here: {why}",
        transport.place()
    );
    activity.warn(WarningKind::Unregistered, None, text);
}
