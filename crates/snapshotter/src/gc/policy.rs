//! When there is too much, how much is to go, and whether releasing helps.

use super::choose::{Amount, Rules};
use super::report::GcRequest;
use crate::config::Gc;
use crate::fs::space::Space;
use crate::store::now;

/// A release helped if it gave back more than this part of the bytes or inodes that went: metadata alone comes and goes.
const HARDLY: u64 = 100;

/// What a collection works by: the configuration, with what a request says instead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) config: Gc,
    /// What all of the collection takes for the present.
    pub(super) now: i64,
    pub(super) used_before: i64,
}

impl Policy {
    pub(super) fn new(config: &Gc, request: &GcRequest) -> Self {
        let mut config = *config;
        config.max_bytes = request.max_bytes.or(config.max_bytes);
        config.min_retention_period = request
            .min_retention_period
            .unwrap_or(config.min_retention_period);
        config.include_unpublished = request
            .include_unpublished
            .unwrap_or(config.include_unpublished);
        let now = now();
        let retention = i64::try_from(config.min_retention_period.as_nanos());
        Self {
            now,
            used_before: now.saturating_sub(retention.unwrap_or(i64::MAX)),
            config,
        }
    }

    pub(super) fn too_full(&self, space: Space) -> TooFull {
        let high = self.config.disk_high_threshold_percent;
        TooFull {
            bytes: used(space) as f64 >= share(space.total, high),
            // Some filesystems make inodes as they are needed, and say that there are none.
            inodes: space.inodes > 0 && used_inodes(space) as f64 >= share(space.inodes, high),
        }
    }

    /// What is too much. Of what there once was too little left of, that is what is above the low threshold.
    pub(super) fn goal(&self, space: Space, was: TooFull, stored: u64) -> Amount {
        let above = |was_too_full: bool, used: u64, total: u64| {
            let low = share(total, self.config.disk_low_threshold_percent);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of a filesystem's size, which fits"
            )]
            let low = low as u64;
            if was_too_full {
                used.saturating_sub(low)
            } else {
                0
            }
        };
        let most = self.config.max_bytes.unwrap_or(u64::MAX);
        Amount {
            disk: above(was.bytes, used(space), space.total),
            stored: stored.saturating_sub(most),
            inodes: above(was.inodes, used_inodes(space), space.inodes),
        }
    }

    pub(super) fn rules(&self, goal: Amount) -> Rules {
        Rules {
            goal,
            used_before: self.used_before,
            include_unpublished: self.config.include_unpublished,
        }
    }
}

/// What there was too little left of when a collection began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TooFull {
    pub(super) bytes: bool,
    pub(super) inodes: bool,
}

/// Whether a release moved nothing that is still wanted of the filesystem. What the store holds always gets less.
pub(super) fn is_stuck(before: Space, after: Space, expected: Amount, left: Amount) -> bool {
    let moved = |left: u64, before: u64, after: u64, expected: u64| {
        left > 0 && after.saturating_sub(before) > expected / HARDLY
    };
    let bytes = moved(left.disk, before.available, after.available, expected.disk);
    let (inodes_before, inodes_after) = (before.available_inodes, after.available_inodes);
    let inodes = moved(left.inodes, inodes_before, inodes_after, expected.inodes);
    let was_expected = left.disk > 0 && expected.disk > 0 || left.inodes > 0 && expected.inodes > 0;
    was_expected && !bytes && !inodes && left.stored == 0
}

pub(super) fn share(total: u64, percent: f64) -> f64 {
    percent / 100.0 * total as f64
}

pub(super) fn used_inodes(space: Space) -> u64 {
    space.inodes.saturating_sub(space.available_inodes)
}

/// What this process may not write to is as good as used.
pub(super) fn used(space: Space) -> u64 {
    space.total.saturating_sub(space.available)
}
