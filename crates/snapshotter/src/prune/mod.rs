//! Retention: which versions of each name stay, and the removal of the others, here or in the registry.
//!
//! What goes is chosen by a pure function ([`policy`]). Here what is pinned stays, what is nowhere else unless that was asked
//! for, and each that goes is looked at again in the transaction that removes it. A snapshot needs no other one, in format v2
//! too: its packs are referenced by itself, and its map leads to each page (`store/packs.rs`), so a parent may go before what
//! was made from it.

mod elsewhere;
mod local;
mod policy;
#[cfg(feature = "registry")]
mod remote;

pub use policy::{KeepReason, Retention};

pub(crate) use local::run;
#[cfg(feature = "registry")]
pub(crate) use remote::run as run_remote;

use std::cmp::Reverse;
use std::time::SystemTime;

use glob::Pattern;

use crate::words::digest::Sha256;
use crate::words::error::Result;
use crate::words::progress::Warning;
use crate::words::reference::Reference;
use policy::{Policy, Version, matches, patterns};

/// What is kept of some names.
///
/// ```
/// use snapshotter::{PruneRule, Retention};
///
/// let mut keep = Retention::default();
/// keep.daily = 7;
/// let rule = PruneRule::new(["sandboxes/*"], keep);
/// assert!(!rule.include_unpublished);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PruneRule {
    /// Patterns of names; `*` stands for anything, slashes too.
    pub names: Vec<String>,
    /// How many versions of each.
    pub keep: Retention,
    /// Whether those may go too that are nowhere else, as far as is known. Default `false`. In the registry it means nothing.
    pub include_unpublished: bool,
}

impl PruneRule {
    /// Keeps this of names that match one of these patterns.
    #[must_use]
    pub fn new<N: Into<String>>(names: impl IntoIterator<Item = N>, keep: Retention) -> Self {
        Self {
            names: names.into_iter().map(Into::into).collect(),
            keep,
            include_unpublished: false,
        }
    }

    /// Sets [`include_unpublished`](Self::include_unpublished).
    #[must_use]
    pub fn include_unpublished(mut self, include: bool) -> Self {
        self.include_unpublished = include;
        self
    }
}

/// What to prune by.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PruneRequest {
    /// A name goes by the first of these that has a pattern for it; by none, all its versions stay, and are not reported.
    pub rules: Vec<PruneRule>,
    /// Only says what would be done. Default `false`.
    pub dry_run: bool,
}

impl PruneRequest {
    /// Prunes by these rules.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = PruneRule>) -> Self {
        Self {
            rules: rules.into_iter().collect(),
            dry_run: false,
        }
    }

    /// Sets [`dry_run`](Self::dry_run).
    #[must_use]
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }
}

/// What a prune call did, or would do: by name, the newest version of a name first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PruneReport {
    /// Nothing was changed.
    pub dry_run: bool,
    /// What stays, and why.
    pub kept: Vec<KeptSnapshot>,
    /// What went, or would go.
    pub removed: Vec<PrunedSnapshot>,
    /// What the caller may care about.
    pub warnings: Vec<Warning>,
}

/// A snapshot that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptSnapshot {
    /// Its name and version.
    pub reference: Reference,
    /// When it was taken, where that is known.
    pub taken_at: Option<SystemTime>,
    /// Why it stays: one reason at least.
    pub reasons: Vec<KeepReason>,
}

/// A snapshot that went, or would go.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrunedSnapshot {
    /// Its name and version.
    pub reference: Reference,
    /// SHA-256 of its manifest.
    pub manifest_digest: Sha256,
    /// When it was taken.
    pub taken_at: SystemTime,
    /// Blobs and packs that nothing else needed. In a dry run those that nothing else needs at present, and in the registry 0:
    /// contents stay there.
    pub blobs_removed: u64,
    /// Bytes of data in them, stored bytes of packs.
    pub freed_bytes: u64,
}

/// Rules that were found to make sense.
struct Rules(Vec<Rule>);

struct Rule {
    names: Vec<Pattern>,
    policy: Policy,
    include_unpublished: bool,
}

impl Rules {
    fn new(rules: &[PruneRule]) -> Result<Self> {
        let checked = rules.iter().map(|rule| {
            Ok(Rule {
                names: patterns("names to prune", &rule.names)?,
                policy: Policy::new(&rule.keep)?,
                include_unpublished: rule.include_unpublished,
            })
        });
        checked.collect::<Result<_>>().map(Self)
    }

    fn of(&self, name: &str) -> Option<&Rule> {
        self.0.iter().find(|rule| matches(&rule.names, name))
    }
}

/// One of a name's snapshots.
struct Judged<T> {
    snapshot: T,
    reference: Reference,
    taken_at: i64,
    reasons: Vec<KeepReason>,
}

impl<T> Judged<T> {
    fn new(snapshot: T, reference: Reference, taken_at: i64) -> Self {
        Self {
            snapshot,
            reference,
            taken_at,
            reasons: Vec::new(),
        }
    }

    fn goes(&self) -> bool {
        self.reasons.is_empty()
    }

    fn into_kept(self) -> KeptSnapshot {
        KeptSnapshot {
            reference: self.reference,
            taken_at: Some(crate::inspect::time(self.taken_at)),
            reasons: self.reasons,
        }
    }
}

/// Finds out why each of one name's snapshots stays, and puts the newest first.
fn judge<T>(policy: &Policy, all: &mut [Judged<T>], now: i64) {
    all.sort_by_key(|one| Reverse(one.taken_at));
    let versions = all.iter().map(|one| Version {
        name: one.reference.version().unwrap_or_default(),
        taken_at: one.taken_at,
    });
    let reasons = policy.keep(&versions.collect::<Vec<_>>(), now);
    for (one, reasons) in all.iter_mut().zip(reasons) {
        one.reasons = reasons;
    }
}
