//! How long to wait before something is tried again, at registries, object storage and daemons alike.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::fs::random_u64;

/// How long to wait before a retry. Grows twofold each time, half of it random, so that nodes that failed together do
/// not come back together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Before the first retry.
    pub(crate) first: Duration,
    /// The longest wait, also where the server asks for a longer one.
    pub(crate) longest: Duration,
}

#[cfg(test)]
impl Pace {
    /// Waits that no test notices.
    pub(crate) const QUICK: Self = Self {
        first: Duration::from_millis(1),
        longest: Duration::from_millis(5),
    };
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(300),
            longest: Duration::from_secs(30),
        }
    }
}

impl Pace {
    /// The wait before a retry, of which the first is 0; `asked` is what the server said.
    pub(crate) fn before(&self, retry: u32, asked: Option<Duration>) -> Duration {
        let whole = self
            .first
            .saturating_mul(1 << retry.min(16))
            .min(self.longest);
        let jittered = whole / 2 + (whole / 2).mul_f64(fraction());
        asked.unwrap_or_default().max(jittered).min(self.longest)
    }
}

/// Between 0 and 1. Without random bytes there is no jitter: nothing else depends on it.
fn fraction() -> f64 {
    random_u64().map_or(1.0, |random| {
        f64::from((random >> 32) as u32) / f64::from(u32::MAX)
    })
}

/// What `Retry-After` asks for: seconds, or a date.
pub(crate) fn retry_after(value: &str, now: OffsetDateTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = OffsetDateTime::parse(value, &Rfc2822).ok()?;
    (date - now).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        first: Duration::from_millis(100),
        longest: Duration::from_secs(1),
    };

    #[test]
    fn waits_grow_with_jitter_and_have_a_bound() {
        for (retry, whole) in [(0, 100), (1, 200), (3, 800), (4, 1000), (90, 1000)] {
            let wait = PACE.before(retry, None);
            let whole = Duration::from_millis(whole);
            assert!((whole / 2..=whole).contains(&wait), "{retry}: {wait:?}");
        }
    }

    #[test]
    fn the_server_may_ask_for_longer_within_the_bound() {
        let asked = |millis| PACE.before(0, Some(Duration::from_millis(millis)));
        assert_eq!(asked(700), Duration::from_millis(700));
        assert_eq!(asked(3_600_000), PACE.longest);
        assert!(asked(1) >= Duration::from_millis(50));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = OffsetDateTime::from_unix_timestamp(784_111_777).unwrap();
        for (value, seconds) in [
            ("7", Some(7)),
            ("0", Some(0)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", None),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(
                retry_after(value, now),
                seconds.map(Duration::from_secs),
                "{value}"
            );
        }
    }
}
