//! Trying again: what is worth it, and how often.

use std::time::Duration;

use crate::pace::Pace;
use crate::words::error::Error;

/// An attempt that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    again: Option<Again>,
}

/// The failure may pass.
#[derive(Clone, Copy, Debug)]
struct Again {
    /// How long the server asked to be left alone.
    after: Option<Duration>,
}

impl Failure {
    /// Worth another attempt.
    pub(super) fn transient(error: Error, after: Option<Duration>) -> Self {
        let again = Some(Again { after });
        Self { error, again }
    }

    /// Whether another attempt is worth it.
    pub(super) fn may_pass(&self) -> bool {
        self.again.is_some()
    }
}

/// Any other error is final.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, again: None }
    }
}

/// The attempts of one operation.
#[derive(Debug)]
pub(super) struct Attempts {
    pace: Pace,
    allowed: u32,
    used: u32,
}

impl Attempts {
    pub(super) fn new(pace: Pace, retries: u32) -> Self {
        Self {
            pace,
            allowed: retries,
            used: 0,
        }
    }

    /// Waits before the next attempt, or gives the error back where there is none.
    pub(super) async fn again(&mut self, failure: Failure) -> Result<(), Error> {
        let Failure { error, again } = failure;
        let Some(again) = again.filter(|_| self.used < self.allowed) else {
            return Err(error);
        };
        let wait = self.pace.before(self.used, again.after);
        self.used += 1;
        tracing::debug!(%error, retry = self.used, ?wait, "trying again");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// Forgets the failures so far, because there was progress since.
    pub(super) fn restart(&mut self) {
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        first: Duration::ZERO,
        longest: Duration::from_secs(1),
    };

    #[tokio::test]
    async fn attempts_end_and_final_errors_end_at_once() {
        let transient = || Failure::transient(Error::damaged("x"), None);
        let mut attempts = Attempts::new(PACE, 2);
        attempts.again(transient()).await.unwrap();
        attempts.again(transient()).await.unwrap();
        attempts.again(transient()).await.unwrap_err();
        attempts.restart();
        attempts.again(transient()).await.unwrap();
        attempts
            .again(Error::damaged("x").into())
            .await
            .unwrap_err();
    }
}
