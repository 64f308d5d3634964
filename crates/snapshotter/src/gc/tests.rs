//! When collection begins and how far it goes.

use super::*;

const GIB: u64 = 1 << 30;

fn space(used_percent: u64) -> Space {
    Space {
        total: 100 * GIB,
        available: (100 - used_percent) * GIB,
    }
}

fn policy(change: impl FnOnce(&mut Gc)) -> Policy {
    let mut config = Gc::default();
    change(&mut config);
    Policy::new(&config, &GcRequest::new())
}

#[test]
fn collection_begins_at_the_high_threshold_and_goes_to_the_low_one() {
    let policy = policy(|_| {});
    assert!(!policy.is_disk_too_full(space(89)));
    assert!(policy.is_disk_too_full(space(90)));
    assert_eq!(policy.goal(space(90), true, 0).disk, 20 * GIB);
    assert_eq!(policy.goal(space(70), true, 0).disk, 0);
    assert_eq!(policy.goal(space(89), false, 0).disk, 0);
}

#[test]
fn a_store_may_hold_so_much_and_no_more() {
    let limited = policy(|gc| gc.max_bytes = Some(GIB));
    assert_eq!(limited.goal(space(1), false, 3 * GIB).stored, 2 * GIB);
    assert_eq!(limited.goal(space(1), false, GIB).stored, 0);
    assert_eq!(policy(|_| {}).goal(space(1), false, 3 * GIB).stored, 0);
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
