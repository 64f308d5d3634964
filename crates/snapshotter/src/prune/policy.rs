//! Which versions of a name stay, by restic's rules: a pure function of when each was taken.
//!
//! Versions are looked at from the newest to the oldest. Each count keeps the newest version of every hour, day, ISO week, month
//! or year that has one, until it has kept so many; where it has kept fewer at the end, it keeps the oldest version too, so that
//! the history is as long as it may be. `within` is relative to the newest version, not to the present: what nobody adds to does
//! not shrink. All calendars are UTC's: the same on every node, and in a night in which clocks change.

use std::time::Duration;

use glob::Pattern;
use time::{Date, OffsetDateTime};

use crate::words::error::{Error, Result};

/// How many versions of each name to keep, as restic's `forget` counts them. What none of these keeps may go.
///
/// ```
/// let mut keep = snapshotter::Retention::default();
/// assert!(keep.is_empty());
/// keep.daily = 7;
/// keep.monthly = snapshotter::Retention::UNLIMITED;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// The newest versions.
    pub last: u64,
    /// Hours of which the newest version is kept, the latest that have one.
    pub hourly: u64,
    /// Days, in UTC, as all that follow.
    pub daily: u64,
    /// Weeks, from Monday on.
    pub weekly: u64,
    /// Months.
    pub monthly: u64,
    /// Years.
    pub yearly: u64,
    /// What was taken within this time before the newest version. Zero: nothing.
    pub within: Duration,
    /// Patterns of versions, `release-*` for one.
    pub versions: Vec<String>,
}

impl Retention {
    /// All that there are.
    pub const UNLIMITED: u64 = u64::MAX;

    /// Whether it keeps nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Why a snapshot stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeepReason {
    /// One of the newest.
    Last,
    /// The newest of an hour, or the oldest while hours are left.
    Hourly,
    /// The same of a day.
    Daily,
    /// The same of a week.
    Weekly,
    /// The same of a month.
    Monthly,
    /// The same of a year.
    Yearly,
    /// Taken shortly before the newest.
    Within,
    /// Its version was named.
    Version,
    /// Nothing keeps it but that it is the newest: one version of a name stays.
    Newest,
    /// Somebody pinned it.
    Pinned,
    /// It is nowhere else, as far as is known.
    OnlyCopy,
    /// Its manifest does not say when it was taken.
    Undated,
    /// It is the same snapshot as one that stays, and would take that with it.
    Same,
    /// Somebody did something with it meanwhile.
    Changed,
}

impl KeepReason {
    /// The reason as scripts know it: `snake_case`, stable.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
            Self::Within => "within",
            Self::Version => "version",
            Self::Newest => "newest",
            Self::Pinned => "pinned",
            Self::OnlyCopy => "only_copy",
            Self::Undated => "undated",
            Self::Same => "same",
            Self::Changed => "changed",
        }
    }
}

/// A version, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version<'a> {
    pub(super) name: &'a str,
    /// Nanoseconds since 1970 UTC.
    pub(super) taken_at: i64,
}

/// A retention that was found to make sense.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    retention: Retention,
    versions: Vec<Pattern>,
}

impl Policy {
    pub(super) fn new(retention: &Retention) -> Result<Self> {
        if retention.is_empty() {
            return Err(Error::invalid("nothing says what to keep")
                .with_hint("keep the last 3 of each name, say, or the newest of each of 7 days"));
        }
        Ok(Self {
            versions: patterns("versions to keep", &retention.versions)?,
            retention: retention.clone(),
        })
    }

    /// Why each of a name's versions stays, which are given from the newest to the oldest; for no reason: it may go.
    pub(super) fn keep(&self, versions: &[Version<'_>], now: i64) -> Vec<Vec<KeepReason>> {
        let mut counts = self.counts();
        let since = self.since(versions, now);
        let judge = |(index, version): (usize, &Version<'_>)| {
            let mut reasons = Vec::new();
            if matches(&self.versions, version.name) {
                reasons.push(KeepReason::Version);
            }
            if since.is_some_and(|since| version.taken_at > since) {
                reasons.push(KeepReason::Within);
            }
            let is_oldest = index + 1 == versions.len();
            let kept = counts.iter_mut().filter_map(|count| {
                let of = (count.of)(version.taken_at, index);
                count.keeps(of, is_oldest).then_some(count.reason)
            });
            reasons.extend(kept);
            reasons
        };
        let mut judged: Vec<_> = versions.iter().enumerate().map(judge).collect();
        if judged.iter().all(Vec::is_empty)
            && let Some(newest) = judged.first_mut()
        {
            newest.push(KeepReason::Newest);
        }
        judged
    }

    /// What was taken later than this was taken within the time before the newest. A version of the future, by a clock that
    /// was ahead, does not count as the newest: else all others would be old.
    fn since(&self, versions: &[Version<'_>], now: i64) -> Option<i64> {
        let within = self.retention.within;
        if within.is_zero() {
            return None;
        }
        let within = i64::try_from(within.as_nanos()).unwrap_or(i64::MAX);
        let known = versions.iter().map(|version| version.taken_at);
        let newest = known.filter(|taken_at| *taken_at <= now).max();
        Some(newest.map_or(i64::MIN, |newest| newest.saturating_sub(within)))
    }

    fn counts(&self) -> [Count; 6] {
        let keep = &self.retention;
        let count = |left, of, reason| Count {
            left,
            of,
            last: None,
            reason,
        };
        [
            count(keep.last, |_, index| index as i64, KeepReason::Last),
            count(keep.hourly, |at, _| at.div_euclid(HOUR), KeepReason::Hourly),
            count(keep.daily, |at, _| day(at), KeepReason::Daily),
            // Julian day 0 was a Monday.
            count(
                keep.weekly,
                |at, _| day(at).div_euclid(7),
                KeepReason::Weekly,
            ),
            count(keep.monthly, |at, _| month(at), KeepReason::Monthly),
            count(
                keep.yearly,
                |at, _| date(at).year().into(),
                KeepReason::Yearly,
            ),
        ]
    }
}

/// How many of something are still to be kept.
struct Count {
    left: u64,
    /// Which hour, day and so on a time is of.
    of: fn(i64, usize) -> i64,
    /// The one that was kept last.
    last: Option<i64>,
    reason: KeepReason,
}

impl Count {
    fn keeps(&mut self, of: i64, is_oldest: bool) -> bool {
        let keeps = self.left > 0 && (self.last != Some(of) || is_oldest);
        if keeps {
            self.left -= 1;
            self.last = Some(of);
        }
        keeps
    }
}

const HOUR: i64 = 3_600_000_000_000;

/// All nanoseconds of an `i64` are in years that it has.
fn date(at: i64) -> Date {
    let time = OffsetDateTime::from_unix_timestamp_nanos(at.into());
    time.unwrap_or(OffsetDateTime::UNIX_EPOCH).date()
}

fn day(at: i64) -> i64 {
    date(at).to_julian_day().into()
}

fn month(at: i64) -> i64 {
    let date = date(at);
    i64::from(date.year()) * 12 + i64::from(u8::from(date.month()))
}

/// Compiles patterns; `what` is what they are called in an error. `*` stands for anything, slashes too.
pub(super) fn patterns(what: &str, texts: &[String]) -> Result<Vec<Pattern>> {
    let compiled = texts.iter().map(|text| {
        Pattern::new(text).map_err(|error| {
            Error::invalid(format!("{what}: {text:?} is not a pattern: {}", error.msg))
                .with_hint("`*` means anything, `?` one character: 'sandboxes/*', 'release-*'")
        })
    });
    compiled.collect()
}

pub(super) fn matches(patterns: &[Pattern], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text))
}

#[cfg(test)]
mod tests;
