//! Properties of [`choose`] over stores nobody thought of.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const NOW: i64 = 1000;

fn blob(number: i64) -> Checksum {
    Checksum::of(&number.to_be_bytes())
}

fn snapshot(id: i64) -> impl Strategy<Value = Candidate> {
    let blobs = prop::collection::btree_set(0_i64..12, 0..5);
    (
        0_i64..2 * NOW,
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.3),
        blobs,
    )
        .prop_map(
            move |(last_accessed_at, pinned, leased, only_copy, blobs)| Candidate {
                id,
                last_accessed_at,
                pinned,
                leased,
                only_copy,
                blobs: blobs.into_iter().map(blob).collect(),
            },
        )
}

/// Some blobs bring the filesystem nothing: they have other names outside. Some are needed by what nobody sees.
fn store() -> impl Strategy<Value = Measured> {
    let snapshots = (0..10_i64).prop_flat_map(|count| (0..count).map(snapshot).collect::<Vec<_>>());
    let blobs = prop::collection::vec((0_u64..100, any::<bool>(), prop::bool::weighted(0.1)), 12);
    (snapshots, blobs).prop_map(|(snapshots, blobs)| {
        let weight = |(index, (bytes, elsewhere, unseen)): (usize, (u64, bool, bool))| {
            let id = blob(index as i64);
            let needing = snapshots.iter().filter(|one| one.blobs.contains(&id));
            let weight = Weight {
                frees: Amount {
                    disk: if elsewhere { 0 } else { bytes },
                    stored: bytes,
                },
                needed_by: needing.count() + usize::from(unseen),
            };
            (id, weight)
        };
        let blobs = blobs.into_iter().enumerate().map(weight).collect();
        Measured { snapshots, blobs }
    })
}

fn rules() -> impl Strategy<Value = Rules> {
    (0_u64..400, 0_u64..400, any::<bool>()).prop_map(|(disk, stored, include_unpublished)| Rules {
        goal: Amount { disk, stored },
        used_before: NOW,
        include_unpublished,
    })
}

/// What comes free when exactly these go, worked out the simple way.
fn freed_by(measured: &Measured, gone: &BTreeSet<i64>) -> Amount {
    let mut sum = Amount::default();
    for (id, blob) in &measured.blobs {
        let going = measured
            .snapshots
            .iter()
            .filter(|one| gone.contains(&one.id) && one.blobs.contains(id))
            .count();
        if going > 0 && going == blob.needed_by {
            sum = sum.plus(blob.frees);
        }
    }
    sum
}

fn chosen(choice: &Choice) -> BTreeSet<i64> {
    choice.release.iter().copied().collect()
}

proptest! {
    #[test]
    fn nothing_goes_that_must_stay(measured in store(), rules in rules()) {
        let gone = chosen(&choose(&measured, &rules));
        for one in measured.snapshots.iter().filter(|one| gone.contains(&one.id)) {
            prop_assert!(!one.pinned && !one.leased);
            prop_assert!(one.last_accessed_at <= NOW);
            prop_assert!(rules.include_unpublished || !one.only_copy);
        }
    }

    #[test]
    fn enough_goes_or_all_that_helps_does(measured in store(), rules in rules()) {
        let choice = choose(&measured, &rules);
        prop_assert_eq!(choice.frees, freed_by(&measured, &chosen(&choice)));
        prop_assert_eq!(choice.short, choice.frees.short_of(rules.goal));
        let all = measured.snapshots.iter().filter(|one| refusal(one, &rules).is_none());
        let most = freed_by(&measured, &all.map(|one| one.id).collect());
        prop_assert!(choice.frees.covers(most.least(rules.goal)), "{:?} of {:?}", choice, most);
    }

    #[test]
    fn nothing_goes_for_nothing(measured in store(), rules in rules()) {
        let choice = choose(&measured, &rules);
        let enough = choice.frees.least(rules.goal);
        for id in &choice.release {
            let mut fewer = chosen(&choice);
            fewer.remove(id);
            prop_assert!(!freed_by(&measured, &fewer).covers(enough), "{} need not go: {:?}", id, choice);
        }
    }

    #[test]
    fn the_least_recently_used_goes_first(measured in store(), rules in rules()) {
        let choice = choose(&measured, &rules);
        let used = |id: &i64| {
            let found = measured.snapshots.iter().find(|one| one.id == *id);
            found.map(|one| (one.last_accessed_at, one.id))
        };
        prop_assert!(choice.release.is_sorted_by_key(used));
    }

    #[test]
    fn the_order_of_what_is_given_does_not_matter(measured in store(), rules in rules()) {
        let mut turned = measured.clone();
        turned.snapshots.reverse();
        for one in &mut turned.snapshots {
            one.blobs.reverse();
        }
        prop_assert_eq!(choose(&measured, &rules), choose(&turned, &rules));
    }

    #[test]
    fn without_a_goal_nothing_goes(measured in store()) {
        let rules = Rules { goal: Amount::default(), used_before: i64::MAX, include_unpublished: true };
        prop_assert_eq!(choose(&measured, &rules), Choice::default());
    }
}

fn alike(ids: impl IntoIterator<Item = i64>) -> Measured {
    let snapshots: Vec<Candidate> = ids
        .into_iter()
        .map(|id| Candidate {
            id,
            last_accessed_at: id,
            pinned: false,
            leased: false,
            only_copy: false,
            blobs: vec![blob(id)],
        })
        .collect();
    let weight = Weight {
        frees: Amount {
            disk: 10,
            stored: 10,
        },
        needed_by: 1,
    };
    let blobs = snapshots.iter().map(|one| (blob(one.id), weight)).collect();
    Measured { snapshots, blobs }
}

#[test]
fn of_equals_the_least_recently_used_go_until_it_is_enough() {
    let rules = Rules {
        goal: Amount {
            disk: 15,
            stored: 0,
        },
        used_before: NOW,
        include_unpublished: false,
    };
    assert_eq!(choose(&alike([5, 3, 9, 1]), &rules).release, [1, 3]);
}

#[test]
fn what_shares_with_something_that_stays_is_kept() {
    let mut measured = alike([1, 2, 3]);
    // 1 has nothing of its own: its blob is 3's too, which is pinned.
    measured.snapshots[2].pinned = true;
    measured.snapshots[2].blobs.push(blob(1));
    if let Some(shared) = measured.blobs.get_mut(&blob(1)) {
        shared.needed_by = 2;
    }
    let rules = Rules {
        goal: Amount { disk: 5, stored: 0 },
        used_before: NOW,
        include_unpublished: false,
    };
    assert_eq!(choose(&measured, &rules).release, [2]);
}
