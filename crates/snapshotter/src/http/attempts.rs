//! Trying again: what is worth it, and how often.

use std::fmt::{self, Display};
use std::time::Duration;

use crate::pace::Pace;
use crate::words::error::Error;

/// Where the log has that a server made a call wait: whoever shows nothing else of it may want to show that.
const WAITING: &str = "snapshotter::waiting";

/// A wait that people notice.
const LONG: Duration = Duration::from_secs(1);

fn told(asked: Option<Duration>, retry: &str) {
    match asked.filter(|asked| *asked >= LONG) {
        Some(asked) => {
            let asked = asked.as_secs();
            tracing::warn!(target: WAITING, "a server asked to wait {asked} s; {retry}");
        }
        None => tracing::info!("{retry}"),
    }
}

/// An attempt that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    again: Option<Again>,
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error.line())
    }
}

/// The failure may pass.
#[derive(Clone, Copy, Debug)]
struct Again {
    /// How long the server asked to be left alone.
    after: Option<Duration>,
}

impl Failure {
    /// Worth another attempt.
    pub(crate) fn transient(error: Error, after: Option<Duration>) -> Self {
        let again = Some(Again { after });
        Self { error, again }
    }

    /// Whether another attempt is worth it.
    pub(crate) fn may_pass(&self) -> bool {
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
pub(crate) struct Attempts {
    pace: Pace,
    allowed: u32,
    used: u32,
}

impl Attempts {
    pub(crate) fn new(pace: Pace, retries: u32) -> Self {
        Self {
            pace,
            allowed: retries,
            used: 0,
        }
    }

    /// Waits before the next attempt, or gives the error back where there is none.
    pub(crate) async fn again(&mut self, failure: Failure) -> Result<(), Error> {
        let Failure { error, again } = failure;
        let Some(again) = again.filter(|_| !self.are_over()) else {
            return Err(error);
        };
        self.wait(again.after, &error.line()).await;
        Ok(())
    }

    /// Whether the last one was made.
    pub(crate) fn are_over(&self) -> bool {
        self.used >= self.allowed
    }

    /// Waits before the next one, as long as the server asked for at least, and tells why.
    pub(crate) async fn wait(&mut self, asked: Option<Duration>, why: &(dyn Display + Sync)) {
        let wait = self.pace.before(self.used, asked);
        let (attempt, allowed, seconds) = (self.used + 1, self.allowed, wait.as_secs_f64());
        told(
            asked,
            &format!("retry {attempt} of {allowed} in {seconds:.1} s: {why}"),
        );
        self.used = self.used.saturating_add(1);
        tokio::time::sleep(wait).await;
    }

    /// Forgets the failures so far, because there was progress since.
    pub(crate) fn restart(&mut self) {
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
