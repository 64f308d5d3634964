//! The rules, by cases that a calendar has and against a second account of them.

use std::collections::HashSet;

use proptest::prelude::*;
use time::format_description::well_known::Rfc3339;

use super::*;

const DAY: i64 = 24 * HOUR;
const NOW: i64 = i64::MAX;

fn at(text: &str) -> i64 {
    let time = OffsetDateTime::parse(text, &Rfc3339).unwrap();
    i64::try_from(time.unix_timestamp_nanos()).unwrap()
}

fn keep(retention: &Retention, times: &[i64], now: i64) -> Vec<Vec<KeepReason>> {
    let versions: Vec<_> = times
        .iter()
        .map(|taken_at| Version {
            name: "v",
            taken_at: *taken_at,
        })
        .collect();
    Policy::new(retention).unwrap().keep(&versions, now)
}

fn with(change: impl FnOnce(&mut Retention)) -> Retention {
    let mut retention = Retention::default();
    change(&mut retention);
    retention
}

fn kept(retention: &Retention, times: &[&str]) -> Vec<usize> {
    let times: Vec<_> = times.iter().map(|text| at(text)).collect();
    let judged = keep(retention, &times, NOW);
    (0..times.len())
        .filter(|index| !judged[*index].is_empty())
        .collect()
}

#[test]
fn nothing_to_keep_is_no_policy() {
    assert!(Policy::new(&Retention::default()).is_err());
    let bad = with(|keep| keep.versions = vec!["[".into()]);
    assert!(Policy::new(&bad).is_err());
}

#[test]
fn the_newest_of_a_day_is_kept_and_the_oldest_while_days_are_left() {
    let times = [
        "2026-03-02T09:00:00Z",
        "2026-03-02T00:00:00Z",
        "2026-03-01T23:59:59Z",
        "2026-03-01T01:00:00Z",
        "2026-02-28T12:00:00Z",
        "2026-02-28T11:00:00Z",
    ];
    assert_eq!(kept(&with(|keep| keep.daily = 2), &times), [0, 2]);
    assert_eq!(kept(&with(|keep| keep.daily = 3), &times), [0, 2, 4]);
    assert_eq!(kept(&with(|keep| keep.daily = 4), &times), [0, 2, 4, 5]);
    let all = with(|keep| keep.daily = Retention::UNLIMITED);
    assert_eq!(kept(&all, &times), [0, 2, 4, 5]);
}

#[test]
fn weeks_begin_on_monday_and_cross_years() {
    let times = [
        "2027-01-04T00:00:00Z", // a Monday
        "2027-01-03T23:00:00Z",
        "2026-12-28T00:00:00Z", // the Monday before
        "2026-12-27T23:00:00Z",
    ];
    assert_eq!(kept(&with(|keep| keep.weekly = 2), &times), [0, 1]);
    assert_eq!(kept(&with(|keep| keep.weekly = 3), &times), [0, 1, 3]);
    assert_eq!(kept(&with(|keep| keep.monthly = 1), &times), [0]);
    assert_eq!(kept(&with(|keep| keep.monthly = 2), &times), [0, 2]);
    assert_eq!(kept(&with(|keep| keep.yearly = 2), &times), [0, 2]);
}

#[test]
fn within_is_relative_to_the_newest_that_is_not_of_the_future() {
    let retention = with(|keep| keep.within = Duration::from_secs(3600));
    let times = [10 * DAY, DAY, DAY - HOUR + 1, DAY - HOUR, 0];
    let judged = keep(&retention, &times, 5 * DAY);
    let stays: Vec<_> = judged.iter().map(|reasons| !reasons.is_empty()).collect();
    assert_eq!(stays, [true, true, true, false, false]);
    // By a clock that was ahead of all of them nothing is old.
    assert!(
        keep(&retention, &times, -1)
            .iter()
            .all(|reasons| !reasons.is_empty())
    );
}

#[test]
fn versions_are_kept_by_name_and_one_stays_in_any_case() {
    let policy = Policy::new(&with(|keep| keep.versions = vec!["release-*".into()])).unwrap();
    let of = |name, taken_at| Version { name, taken_at };
    let judged = policy.keep(&[of("v2", 2), of("release-1", 1), of("v1", 0)], NOW);
    assert_eq!(judged, [vec![], vec![KeepReason::Version], vec![]]);
    let judged = policy.keep(&[of("v2", 2), of("v1", 1)], NOW);
    assert_eq!(judged, [vec![KeepReason::Newest], vec![]]);
    assert!(policy.keep(&[], NOW).is_empty());
}

/// What a count keeps, told in another way: the newest of each of the first so many groups, and the oldest of all where there
/// are fewer groups before it.
fn told_otherwise(count: u64, times: &[i64], of: impl Fn(i64) -> i64) -> HashSet<usize> {
    let Some(oldest) = times.len().checked_sub(1) else {
        return HashSet::new();
    };
    let mut groups = HashSet::new();
    let mut kept: Vec<usize> = (0..oldest)
        .filter(|index| groups.insert(of(times[*index])))
        .collect();
    kept.truncate(usize::try_from(count).unwrap());
    if (kept.len() as u64) < count {
        kept.push(oldest);
    }
    kept.into_iter().collect()
}

fn stays(judged: &[Vec<KeepReason>], reason: KeepReason) -> HashSet<usize> {
    (0..judged.len())
        .filter(|index| judged[*index].contains(&reason))
        .collect()
}

fn civil(at: i64) -> (i32, u8, i32, u8) {
    let date = OffsetDateTime::from_unix_timestamp(at.div_euclid(1_000_000_000))
        .unwrap()
        .date();
    let (year, week, _) = date.to_iso_week_date();
    (date.year(), date.month().into(), year, week)
}

proptest! {
    #[test]
    fn each_count_keeps_what_it_should(
        steps in prop::collection::vec(0..40 * DAY, 0..60),
        counts in prop::array::uniform6(0..8_u64),
        hours in 0..2000_u64,
    ) {
        let retention = with(|keep| {
            [keep.last, keep.hourly, keep.daily, keep.weekly, keep.monthly, keep.yearly] = counts;
            keep.within = Duration::from_secs(hours * 3600);
        });
        prop_assume!(!retention.is_empty());
        let mut time = at("2031-07-09T10:11:12Z");
        let times: Vec<i64> = steps.iter().map(|step| { time -= step; time }).collect();
        let judged = keep(&retention, &times, NOW);
        prop_assert_eq!(judged.len(), times.len());
        // One stays.
        prop_assert!(times.is_empty() || judged.iter().any(|reasons| !reasons.is_empty()));
        let number = std::cell::Cell::new(0);
        let each: [(KeepReason, &dyn Fn(i64) -> i64); 6] = [
            (KeepReason::Last, &|_| { number.set(number.get() + 1); number.get() }),
            (KeepReason::Hourly, &|at| at.div_euclid(HOUR)),
            (KeepReason::Daily, &|at| at.div_euclid(DAY)),
            (KeepReason::Weekly, &|at| { let (.., year, week) = civil(at); i64::from(year) * 100 + i64::from(week) }),
            (KeepReason::Monthly, &|at| { let (year, month, ..) = civil(at); i64::from(year) * 100 + i64::from(month) }),
            (KeepReason::Yearly, &|at| civil(at).0.into()),
        ];
        for ((reason, of), count) in each.into_iter().zip(counts) {
            prop_assert_eq!(stays(&judged, reason), told_otherwise(count, &times, of), "{:?}", reason);
        }
        let young = |index: &usize| hours > 0 && times[0] - times[*index] < i64::try_from(hours).unwrap() * HOUR;
        prop_assert_eq!(stays(&judged, KeepReason::Within), (0..times.len()).filter(young).collect());
    }

    #[test]
    fn who_keeps_more_loses_nothing(
        steps in prop::collection::vec(0..10 * DAY, 1..40),
        counts in prop::array::uniform6(0..5_u64),
        more in prop::array::uniform6(0..5_u64),
    ) {
        prop_assume!(counts.iter().any(|count| *count > 0));
        let of = |counts: [u64; 6]| with(|keep| {
            [keep.last, keep.hourly, keep.daily, keep.weekly, keep.monthly, keep.yearly] = counts;
        });
        let mut time = at("2031-07-09T10:11:12Z");
        let times: Vec<i64> = steps.iter().map(|step| { time -= step; time }).collect();
        let few = keep(&of(counts), &times, NOW);
        let many = keep(&of(std::array::from_fn(|at| counts[at] + more[at])), &times, NOW);
        for (few, many) in few.iter().zip(&many) {
            prop_assert!(few.iter().all(|reason| many.contains(reason)), "{:?} {:?}", few, many);
        }
    }
}
