//! `collect_remote`: contents that no manifest names go from a bucket or directory which many nodes publish to, and in which
//! nothing holds anybody up. A place has only objects that are written whole, read, listed and removed, and the time at which
//! each was last written, by its own clock. No node's clock counts, and none can be relied on to go on.
//!
//! **Two collections, a grace apart.** The first marks what is needed (`mark.rs`) and writes a list of all else. The next one
//! that finds the list old enough marks anew, removes what the list names, is still not needed and was not written since the
//! list was, and leaves another list in its place (`sweep.rs`). A collector holds a lease from before it marks (`lease.rs`); it
//! ends by writing the new list, removing the old, and then the lease. One that is killed leaves its lease, or nothing
//! happened; the next one goes over the same list.
//!
//! **A publisher** (`watch.rs`) says who he is and what he publishes to before he sends anything. He reads which lists and
//! leases there are, looks for his contents, sends what is not there, and puts the manifest in. Then he reads the lists and
//! leases again, and that decides. *Needed* is what a manifest names whose publisher came to this end.
//!
//! * *They are the same, and nothing he named is on a list.* Whoever removed something between both readings would have left
//!   another list or lease: so all that he looked for is there. A collector that is at work removes only what the lists name
//!   that it began with, and these are the ones that were read. Any later one marks after the manifest was in, and finds it
//!   by the publisher's records. So nothing of it goes, however long he was stopped before. (A list that is gone when it is to be
//!   read may have been one that named something: all are read anew.)
//! * *Else* he looks for everything again, and sends what has gone. What is on a list he sends whatever is there: a collector
//!   looks right before it removes, and passes what was written after its list. Where there is a lease, one that looked just
//!   before may still remove: so he waits until it ends, looks once more, and then reads the lists again. That is the one wait
//!   there is: for who needs an object that nobody needed for a grace, in the minutes in which it is being removed, and for
//!   five minutes at most, if he could send it again. Without conditional removal, which few places have, nobody can do without:
//!   a removal that is on its way cannot be told from one that was never asked for.
//!
//! So what is safe depends neither on the grace nor on how long a call takes: nobody has to begin anew after half a grace. The
//! grace is for those who read: who restores a snapshot when it is replaced or removed has so much time. It is also for what
//! no record tells of, the Go library, older releases, and nodes whose keys reach contents alone; yet it does not protect
//! these, hence `no_other_publishers`, which somebody has to say.
//!
//! **Versions that move.** A list may have been written while a manifest was published, and name what that needs; it is not
//! removed as long as the manifest has a version. Who moves the version leaves a record first, and records are read after
//! versions: so the old manifest is needed for a grace more, also if another version gets it while versions are read.
//!
//! What is relied on: what was written, is read and listed; and a request that was dropped has been served within minutes.

mod lease;
mod list;
mod mark;
mod rules;
mod shelf;
mod sweep;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lease::Lease;
use mark::Marked;
use rules::{Collections, is_ripe};
use shelf::{MOVED, Shelf};
use sweep::{Condemned, Done, Sweep};
pub(super) use watch::Watch;

use crate::activity::Activity;
use crate::config::Config;
use crate::limit::Limit;
use crate::registry::Registry;
use crate::transport::{self, ContentProvider};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::object::ObjectName;
use crate::words::progress::Warning;

/// Requests at once.
const AT_ONCE: usize = 16;

/// How to collect at the place of contents.
///
/// ```
/// use snapshotter::CollectRequest;
///
/// let request = CollectRequest::new().dry_run(true);
/// assert_eq!(request.grace, std::time::Duration::from_secs(24 * 3600));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CollectRequest {
    /// Only finds out: nothing is written or removed there. Default `false`.
    pub dry_run: bool,
    /// How long an object that no manifest needs stays after a collection found that, and for how long a manifest that lost its
    /// version is needed, by the clock of the place. Default 24 hours.
    pub grace: Duration,
    /// Says that nobody publishes there but publishers of this release or a later one whose keys reach `snapshotter/` there: no
    /// Go library, no older release, no node behind Dragonfly without keys. Required of what is no dry run. Default `false`.
    pub no_other_publishers: bool,
}

impl Default for CollectRequest {
    fn default() -> Self {
        Self::new()
    }
}

impl CollectRequest {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            dry_run: false,
            grace: Duration::from_secs(24 * 3600),
            no_other_publishers: false,
        }
    }

    /// Sets [`dry_run`](Self::dry_run).
    #[must_use]
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Sets [`grace`](Self::grace).
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets [`no_other_publishers`](Self::no_other_publishers).
    #[must_use]
    pub fn no_other_publishers(mut self, none: bool) -> Self {
        self.no_other_publishers = none;
        self
    }
}

/// What a collection at a place of contents did; in a dry run, what the same would do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CollectReport {
    /// Where.
    pub place: String,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Those who publish there: registry and namespace.
    pub publishers: u64,
    /// Manifests that were read.
    pub manifests: u64,
    /// Objects there were.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were removed.
    pub removed: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Objects that nothing needs, and that stay until a later collection.
    pub candidates: u64,
    /// Their bytes; 0 where the list was only looked at.
    pub candidate_bytes: u64,
    /// Of those, objects that the place did not let go.
    pub refused: u64,
    /// From when on a collection removes them.
    pub ripe_at: Option<SystemTime>,
    /// How long the call took.
    pub duration: Duration,
    /// What the caller may care about.
    pub warnings: Vec<Warning>,
}

/// What a collection goes by.
struct Context<'a> {
    registry: &'a Registry,
    limit: &'a Limit,
    request: &'a CollectRequest,
}

/// Collects. Blocks.
pub(crate) fn run(
    config: &Config,
    request: &CollectRequest,
    activity: &Activity,
) -> Result<CollectReport> {
    let started = Instant::now();
    config.validate()?;
    let content = config.content.as_ref();
    let content = content.map(|content| content.of_tenant(config.tenant.as_deref()));
    let (registry, content) = (config.registry.as_ref(), content.as_ref());
    let (Some(registry), Some(content)) = (registry, content) else {
        return Err(
            Error::invalid("a collection needs a registry and a place of contents")
                .with_hint("set registry.endpoint and content"),
        );
    };
    if content.provider == ContentProvider::Registry {
        return Err(in_registry());
    }
    super::runtime::start()?;
    let way = transport::way(content, None)?;
    let shelf = Shelf::of(&way.transport, activity).ok_or_else(in_registry)?;
    if !request.no_other_publishers && !request.dry_run {
        return Err(others_may_publish(&shelf.place()));
    }
    let context = Context {
        registry,
        limit: &Limit::new(AT_ONCE),
        request,
    };
    let mut report = context.collect(shelf)?;
    report.place = shelf.place();
    report.dry_run = request.dry_run;
    report.duration = started.elapsed();
    Ok(report)
}

impl Context<'_> {
    fn grace(&self) -> i64 {
        i64::try_from(self.request.grace.as_nanos()).unwrap_or(i64::MAX)
    }

    fn collect(&self, shelf: Shelf<'_>) -> Result<CollectReport> {
        if self.request.dry_run {
            // Whatever this machine's clock says: nothing goes by it.
            let since = UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
            let now = i64::try_from(since).unwrap_or(i64::MAX);
            let found = shelf.collections()?;
            let marked = self.mark(shelf, None, now)?;
            let done = self.sweep(shelf, None, &marked, (&found, now))?;
            return Ok(self.report(done, &marked, None));
        }
        let lease = Lease::take(shelf)?;
        let grace = self.grace();
        let lists = &lease.found.lists;
        let latest = lists.iter().max_by_key(|(_, written)| **written);
        if let Some((key, written)) = latest
            && !lists
                .values()
                .any(|written| is_ripe(*written, lease.now, grace))
        {
            let waiting = self.waiting(shelf, (key, *written));
            lease.give_up();
            return waiting;
        }
        let marked = self.mark(shelf, Some(&lease), lease.now);
        let marked = marked.inspect_err(|_| lease.give_up())?;
        let done = self.sweep(shelf, Some(&lease), &marked, (&lease.found, lease.now));
        let done = done.inspect_err(|_| {
            // Without a list nothing was removed.
            if lease.found.lists.is_empty() {
                lease.give_up();
            }
        })?;
        self.end(shelf, lease, &marked, done)
    }

    fn mark(&self, shelf: Shelf<'_>, lease: Option<&Lease<'_>>, now: i64) -> Result<Marked> {
        let since = now.saturating_sub(self.grace());
        let marked = mark::run(self, shelf, lease, since)?;
        if marked.publishers == 0 {
            for prefix in ObjectName::PREFIXES {
                shelf.each(&format!("{prefix}/"), &mut |_| Err(nobody(&shelf.place())))?;
            }
        }
        Ok(marked)
    }

    fn sweep(
        &self,
        shelf: Shelf<'_>,
        lease: Option<&Lease<'_>>,
        marked: &Marked,
        (found, now): (&Collections, i64),
    ) -> Result<Done> {
        let grace = self.grace();
        let mut condemned = Condemned {
            prints: HashSet::new(),
            written: None,
        };
        for (key, written) in &found.lists {
            if is_ripe(*written, now, grace) {
                let prints = list::read(&shelf, key)?.unwrap_or_default();
                condemned.prints.extend(prints);
                let first = condemned
                    .written
                    .map_or(*written, |first| first.min(*written));
                condemned.written = Some(first);
            }
        }
        let sweep = Sweep {
            context: self,
            shelf,
            lease,
            marked,
            condemned,
            done: Mutex::default(),
        };
        sweep.run()?;
        Ok(sweep
            .done
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner))
    }

    /// What may go next is written down, then what was there before goes, and the lease last.
    fn end(
        &self,
        shelf: Shelf<'_>,
        lease: Lease<'_>,
        marked: &Marked,
        mut done: Done,
    ) -> Result<CollectReport> {
        lease.hold()?;
        if done.candidates.is_empty() && lease.found.lists.is_empty() {
            lease.give_up();
            return Ok(self.report(done, marked, None));
        }
        let key = shelf::new_list()?;
        shelf.write(&key, list::write(std::mem::take(&mut done.candidates)))?;
        let written = shelf.look(&key)?.map(|list| list.modified);
        for old in lease.found.lists.keys() {
            shelf.wait(shelf.remove(old))?;
        }
        self.forget_moved(shelf, lease.now)?;
        lease.end()?;
        Ok(self.report(done, marked, written))
    }

    /// Records of versions that moved longer than a grace ago. Each has a name of its own, so none is another's by now.
    fn forget_moved(&self, shelf: Shelf<'_>, now: i64) -> Result<()> {
        let is_old = |modified: i64| is_ripe(modified, now, self.grace());
        for moved in shelf.all(MOVED)? {
            if is_old(moved.modified) {
                shelf.wait(shelf.remove(&moved.key))?;
            }
        }
        Ok(())
    }

    fn report(&self, done: Done, marked: &Marked, written: Option<i64>) -> CollectReport {
        CollectReport {
            publishers: marked.publishers,
            manifests: marked.manifests(),
            ripe_at: written.map(|written| self.ripe_at(written)),
            ..done.report
        }
    }

    /// The list that there is has to get older.
    fn waiting(&self, shelf: Shelf<'_>, (key, written): (&str, i64)) -> Result<CollectReport> {
        let prints = list::read(&shelf, key)?.unwrap_or_default();
        Ok(CollectReport {
            candidates: prints.len() as u64,
            ripe_at: Some(self.ripe_at(written)),
            ..CollectReport::default()
        })
    }

    fn ripe_at(&self, written: i64) -> SystemTime {
        let written = Duration::from_nanos(written.max(0).unsigned_abs());
        let ripe = written.checked_add(self.request.grace);
        let at = ripe.and_then(|since| UNIX_EPOCH.checked_add(since));
        at.unwrap_or(UNIX_EPOCH)
    }
}

fn in_registry() -> Error {
    let text = "contents are kept in the registry, which collects by itself";
    Error::new(ErrorKind::Unsupported, text)
        .with_hint("`remove --remote` deletes manifests there; its own collector does the rest")
}

fn others_may_publish(place: &str) -> Error {
    let text = format!(
        "{place} may have contents of publishers that leave no record: the Go library, older releases, nodes that reach it by Dragonfly alone"
    );
    Error::invalid(text).with_hint(
        "if there are none, say --no-other-publishers; --dry-run shows what is known without",
    )
}

fn nobody(place: &str) -> Error {
    let text =
        format!("there are contents in {place}, and no record of anybody who publishes there");
    Error::new(ErrorKind::NotFound, text)
        .with_hint("publish from each namespace once with this release, or check content.prefix")
}
