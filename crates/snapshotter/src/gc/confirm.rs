//! Whether what is to go is really elsewhere: asked right before it goes, of the configured remote alone.
//!
//! Rows say where a snapshot was seen (`catalog/places.rs`), and may be wrong by now. So each snapshot that was chosen is
//! asked for, with those of its blobs that would have no copy here any more. What is not confirmed stays, and the choice is
//! made again without it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::choose::{Measured, Rules, refusal};
use super::measure::Survey;
use crate::activity::Activity;
use crate::catalog::{PublicationRow, Relied, Snapshot};
use crate::confirmation::{Answer, PATIENCE, Question, could_not_be_asked};
use crate::remote::{Asked, Remote};
use crate::store::Store;
use crate::words::digest::Checksum;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::progress::WarningKind;

/// What a collection has asked so far.
pub(super) struct Confirming<'a> {
    pub(super) store: &'a Arc<Store>,
    pub(super) remote: Option<&'a Remote>,
    pub(super) activity: &'a Activity,
    pub(super) trust_daemon: bool,
    /// A dry run writes nothing.
    revises: bool,
    /// Of what was confirmed, what that was.
    relied: HashMap<i64, Relied>,
    objects: Asked,
    /// What was not confirmed.
    kept: HashSet<i64>,
    unanswered: usize,
}

impl<'a> Confirming<'a> {
    pub(super) fn new(
        store: &'a Arc<Store>,
        remote: Option<&'a Remote>,
        activity: &'a Activity,
        trust_daemon: bool,
        revises: bool,
    ) -> Self {
        Self {
            store,
            remote,
            activity,
            trust_daemon,
            revises,
            relied: HashMap::new(),
            objects: Asked::default(),
            kept: HashSet::new(),
            unanswered: 0,
        }
    }

    /// Asks for all that were chosen, and says whether all of them may go. What may not is from then on an only copy in
    /// what was measured.
    pub(super) fn confirm(
        &mut self,
        chosen: &[i64],
        seen: &mut Survey,
        rules: &Rules,
    ) -> Result<bool> {
        let mut all = true;
        for (id, blobs) in last_copies(&seen.measured, chosen) {
            self.activity.check()?;
            if self.is_confirmed(id, &blobs) {
                continue;
            }
            if self.unanswered >= PATIENCE {
                self.give_up(id, seen, rules);
                all = false;
                break;
            }
            all &= self.ask(id, blobs, seen)?;
        }
        self.keep(seen);
        Ok(all)
    }

    /// What a release may rely on.
    pub(super) fn relied(&self, id: i64) -> Option<&Relied> {
        self.relied.get(&id)
    }

    /// It was not released after all: what was confirmed may be otherwise now.
    pub(super) fn doubt(&mut self, id: i64) {
        self.relied.remove(&id);
    }

    /// How many were not confirmed.
    pub(super) fn unconfirmed(&self) -> u64 {
        self.kept.len() as u64
    }

    /// Makes only copies of those that were not confirmed.
    pub(super) fn keep(&self, seen: &mut Survey) {
        for candidate in &mut seen.measured.snapshots {
            candidate.only_copy |= self.kept.contains(&candidate.id);
        }
    }

    fn is_confirmed(&self, id: i64, blobs: &HashSet<Checksum>) -> bool {
        let relied = self.relied.get(&id);
        relied.is_some_and(|relied| blobs.is_subset(&relied.objects))
    }

    fn ask(&mut self, id: i64, blobs: HashSet<Checksum>, seen: &Survey) -> Result<bool> {
        let snapshot = seen.snapshots.iter().find(|one| one.id == id);
        let rows = seen.publications.get(&id).map_or(&[][..], Vec::as_slice);
        let (Some(snapshot), Some(remote)) = (snapshot, self.remote) else {
            self.kept.insert(id);
            return Ok(false);
        };
        let Some(said) = remote.said(&snapshot.reference, rows) else {
            self.kept.insert(id);
            return Ok(false);
        };
        match self.answer(remote, snapshot, said, &blobs)? {
            Answer::There(relied) => {
                self.relied.insert(id, relied);
                self.unanswered = 0;
                return Ok(true);
            }
            Answer::Otherwise(what) => {
                self.unanswered = 0;
                self.warn(format!("{} is kept: {what}", snapshot.reference));
            }
            Answer::Unknown(error) => {
                if is_silence(&error) {
                    self.unanswered += 1;
                }
                let why = could_not_be_asked(&error);
                self.warn(format!("{} is kept: {why}", snapshot.reference));
            }
        }
        self.kept.insert(id);
        Ok(false)
    }

    fn answer(
        &mut self,
        remote: &Remote,
        snapshot: &Snapshot,
        said: &PublicationRow,
        blobs: &HashSet<Checksum>,
    ) -> Result<Answer> {
        let (mut needed, mut packs) = self.store.catalog.read(|txn| {
            let blobs = txn.blobs_of_snapshot(snapshot.id)?;
            Ok((blobs, txn.packs_of_snapshot(snapshot.id)?))
        })?;
        needed.retain(|blob| blobs.contains(&blob.checksum));
        packs.retain(|pack| blobs.contains(&pack.key));
        let question = Question {
            snapshot,
            said,
            blobs: &needed,
            packs: &packs,
            trust_daemon: self.trust_daemon,
            revises: self.revises,
        };
        remote.confirm(self.store, &question, &mut self.objects, self.activity)
    }

    /// Nobody answers: what was not confirmed by now stays.
    fn give_up(&mut self, id: i64, seen: &Survey, rules: &Rules) {
        self.relied.remove(&id);
        let is_open = |id| !self.kept.contains(&id) && !self.relied.contains_key(&id);
        let candidates = seen.measured.snapshots.iter();
        let left: Vec<i64> = candidates
            .filter(|one| refusal(one, rules).is_none() && is_open(one.id))
            .map(|one| one.id)
            .collect();
        let text = format!(
            "{} more snapshots are kept and were not asked for, because {PATIENCE} in a row could not be",
            left.len()
        );
        self.warn(text);
        self.kept.extend(left);
    }

    fn warn(&self, text: String) {
        self.activity.warn(WarningKind::Kept, None, text);
    }
}

/// Whether nobody answers, so that the next question is as good as lost too. A place that is itself not there does not. What
/// is wrong with one snapshot (it may not be asked for, its manifest cannot be read) keeps that one.
fn is_silence(error: &Error) -> bool {
    error.kind().is_retryable() || error.kind() == ErrorKind::NotFound
}

/// Of each of these, the blobs that would have no copy here any more once all of them have gone.
fn last_copies(measured: &Measured, going: &[i64]) -> Vec<(i64, HashSet<Checksum>)> {
    let mut needed_by: HashMap<Checksum, usize> = HashMap::new();
    let candidates = measured.snapshots.iter();
    let needs: HashMap<i64, &[Checksum]> = candidates.map(|one| (one.id, &*one.blobs)).collect();
    let of = |id: &i64| needs.get(id).copied().unwrap_or_default();
    for blob in going.iter().flat_map(of) {
        *needed_by.entry(*blob).or_default() += 1;
    }
    let is_last = |blob: &Checksum| {
        let all = measured.blobs.get(blob).map(|weight| weight.needed_by);
        all == needed_by.get(blob).copied()
    };
    let last = |id: &i64| of(id).iter().copied().filter(is_last).collect();
    going.iter().map(|id| (*id, last(id))).collect()
}
