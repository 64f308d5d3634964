//! How fast contents travel: one [`Rate`] for each direction of a handle, shared by all of its calls. Who wants to move bytes
//! takes its turn, and waits until those before it have had their time; so any number of transfers have the rate together. A turn is
//! for a slice and no more: with eight transfers at 100 KiB a second, a connection that got a MiB at a time would be silent for
//! more than a minute, and proxies cut those.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;

/// Bytes of one turn.
const SLICE: usize = 16 << 10;

/// At most so many bytes a second, or any number.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    limit: Option<u64>,
    /// When what was let through so far has had its time.
    free: Mutex<Option<Instant>>,
}

/// Both directions of a handle.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    pub(crate) upload: Rate,
    pub(crate) download: Rate,
}

impl Rates {
    pub(crate) fn new(upload: Option<u64>, download: Option<u64>) -> Self {
        let rate = |limit| Rate {
            limit,
            free: Mutex::default(),
        };
        Self {
            upload: rate(upload),
            download: rate(download),
        }
    }
}

impl Rate {
    /// How many of these bytes may move in one turn.
    pub(crate) fn slice(&self, bytes: usize) -> usize {
        self.limit.map_or(bytes, |_| bytes.min(SLICE))
    }

    /// How long to wait before so many bytes move; they count as moved from now on.
    pub(crate) fn turn(&self, bytes: usize) -> Duration {
        self.turn_at(bytes, Instant::now())
    }

    fn turn_at(&self, bytes: usize, now: Instant) -> Duration {
        let Some(limit) = self.limit else {
            return Duration::ZERO;
        };
        let takes = Duration::from_secs_f64(bytes as f64 / limit.max(1) as f64);
        let mut free = lock(&self.free);
        let start = free.map_or(now, |free| free.max(now));
        // Their time is over before they move: those after them do not have to be quicker for it.
        let end = start.checked_add(takes).unwrap_or(start);
        *free = Some(end);
        end - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_moves_has_the_rate_together_and_time_that_passed_is_not_saved_up() {
        let rates = Rates::new(Some(1000), None);
        let now = Instant::now();
        assert_eq!(rates.upload.turn_at(1000, now), SECOND);
        assert_eq!(rates.upload.turn_at(500, now), SECOND * 3 / 2);
        assert_eq!(rates.upload.turn_at(500, now + SECOND), SECOND);
        assert_eq!(rates.upload.turn_at(0, now + SECOND), SECOND);
        assert_eq!(rates.upload.turn_at(1000, now + 60 * SECOND), SECOND);
        assert_eq!(rates.download.turn_at(usize::MAX, now), Duration::ZERO);
    }
}
