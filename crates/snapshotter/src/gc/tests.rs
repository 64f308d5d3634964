//! When collection begins and how far it goes.

use std::time::Duration;

use super::*;
use crate::fs::space::Space;

const GIB: u64 = 1 << 30;

fn space(used_percent: u64) -> Space {
    Space {
        total: 100 * GIB,
        available: (100 - used_percent) * GIB,
        inodes: 0,
        available_inodes: 0,
    }
}

const BYTES: TooFull = TooFull {
    bytes: true,
    inodes: false,
};

const NOTHING: TooFull = TooFull {
    bytes: false,
    inodes: false,
};

fn policy(change: impl FnOnce(&mut Gc)) -> Policy {
    let mut config = Gc::default();
    change(&mut config);
    Policy::new(&config, &GcRequest::new())
}

#[test]
fn collection_begins_at_the_high_threshold_and_goes_to_the_low_one() {
    let policy = policy(|_| {});
    assert_eq!(policy.too_full(space(89)), NOTHING);
    assert_eq!(policy.too_full(space(90)), BYTES);
    assert_eq!(policy.goal(space(90), BYTES, 0).disk, 20 * GIB);
    assert_eq!(policy.goal(space(70), BYTES, 0).disk, 0);
    assert_eq!(policy.goal(space(89), NOTHING, 0).disk, 0);
}

#[test]
fn inodes_have_the_same_thresholds_where_the_filesystem_says_how_many_there_are() {
    let policy = policy(|_| {});
    let with = |used: u64| Space {
        inodes: 1000,
        available_inodes: 1000 - used,
        ..space(50)
    };
    let inodes = TooFull {
        bytes: false,
        inodes: true,
    };
    assert_eq!(policy.too_full(with(899)), NOTHING);
    assert_eq!(policy.too_full(with(900)), inodes);
    let goal = policy.goal(with(950), inodes, 0);
    assert_eq!((goal.disk, goal.inodes), (0, 250));
    assert_eq!(policy.goal(with(950), BYTES, 0).inodes, 0);
}

#[test]
fn a_store_may_hold_so_much_and_no_more() {
    let limited = policy(|gc| gc.max_bytes = Some(GIB));
    assert_eq!(limited.goal(space(1), NOTHING, 3 * GIB).stored, 2 * GIB);
    assert_eq!(limited.goal(space(1), NOTHING, GIB).stored, 0);
    assert_eq!(policy(|_| {}).goal(space(1), NOTHING, 3 * GIB).stored, 0);
}

#[test]
fn a_request_says_it_instead_of_the_configuration() {
    let config = Gc {
        max_bytes: Some(5),
        ..Gc::default()
    };
    let request = GcRequest::new()
        .max_bytes(7)
        .min_retention_period(Duration::ZERO)
        .include_unpublished(true);
    let policy = Policy::new(&config, &request).config;
    assert_eq!(policy.max_bytes, Some(7));
    assert!(policy.min_retention_period.is_zero() && policy.include_unpublished);
    assert_eq!(
        Policy::new(&config, &GcRequest::new()).config.max_bytes,
        Some(5)
    );
}

// While inodes were wanted nothing was measured, and a collection that freed none went on until nothing was left.
#[test]
fn a_release_that_moves_nothing_that_is_wanted_is_the_last() {
    let before = Space {
        inodes: 1000,
        available_inodes: 10,
        ..space(95)
    };
    let expected = Amount {
        disk: GIB,
        inodes: 100,
        stored: 0,
    };
    let left = |disk, inodes, stored| Amount {
        disk,
        inodes,
        stored,
    };
    let gained = |bytes: u64, inodes: u64| Space {
        available: before.available + bytes,
        available_inodes: before.available_inodes + inodes,
        ..before
    };
    let stuck = |bytes, inodes, left| is_stuck(before, gained(bytes, inodes), expected, left);
    assert!(stuck(0, 0, left(1, 0, 0)) && stuck(0, 0, left(0, 1, 0)));
    assert!(stuck(0, 0, left(1, 1, 0)) && stuck(GIB / 100, 1, left(1, 1, 0)));
    // What moves is not what is wanted.
    assert!(stuck(GIB, 0, left(0, 1, 0)) && stuck(0, 100, left(1, 0, 0)));
    assert!(!stuck(GIB, 0, left(1, 1, 0)) && !stuck(0, 100, left(1, 1, 0)));
    // The store holds less in any case, and with enough there is nothing to be stuck at.
    assert!(!stuck(0, 0, left(1, 1, 1)) && !stuck(0, 0, left(0, 0, 0)));
    let nothing = Amount::default();
    assert!(!is_stuck(before, before, nothing, left(1, 1, 0)));
}
