//! How long a server is waited for, by everything that speaks HTTP: [`Patience`] says it, [`Progress`] watches one body.
//!
//! A server may be silent for a while, and it may be slow, but a body that moves a byte a second would never end. So
//! there are two limits: the longest silence, and the fewest bytes that have to move within a minute of waiting for the
//! server. A minute in which the server waits for us (for a slow disk, for memory, for whoever takes the bytes) is no
//! minute of waiting for it: the clock of both limits stands still then.
//!
//! The bytes of a window are judged when the window is over, and the next one begins with nothing. So a body is given up
//! after at most two windows of too few bytes, and never within the first.

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// What a body hands to the connection at once, in bytes. Each is a sign of progress, so a server that takes as little
/// as the default of `min_rate` takes one well within the default `timeout`.
pub(crate) const SLICE: usize = 64 << 10;

/// What `min_rate` is, unless it is set: bytes a second.
pub(crate) const MIN_RATE: u64 = 4 << 10;

/// How long bytes are counted before they are judged. Only tests have a shorter one.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// Later than anybody waits for.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// How long a server is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How long nothing may happen.
    pub(crate) silence: Duration,
    /// How many bytes a second a body has to move; 0 for any number.
    pub(crate) min_rate: u64,
    /// The time over which they are counted.
    pub(crate) window: Duration,
    /// What `min_rate` is called where it is set: `registry.min_rate`.
    pub(crate) setting: &'static str,
}

/// Why a server is waited for no longer: it may be better the next time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stuck {
    /// Nothing happened for so long.
    Silent(Duration),
    /// Too little did.
    Slow {
        moved: u64,
        window: Duration,
        min_rate: u64,
        setting: &'static str,
    },
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(limit) => write!(f, "no progress within {limit:?}"),
            Self::Slow {
                moved,
                window,
                min_rate,
                setting,
            } => write!(
                f,
                "too slow: {moved} bytes in {window:?}, and {setting} is {min_rate} bytes a second"
            ),
        }
    }
}

/// How one request's body, or one answer's, gets on.
#[derive(Debug)]
pub(crate) struct Progress {
    patience: Patience,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Since when the server is waited for; `None` while it waits for us.
    since: Option<Instant>,
    /// When something last happened.
    last: Instant,
    /// Whether bytes are to move: not before a request's first and after its last.
    moving: bool,
    /// How long the server was waited for, up to `since`: in all, and in this window.
    waited: Duration,
    waited_in_window: Duration,
    moved_in_window: u64,
}

impl Progress {
    /// Of a request that is about to be sent, and of the head of its answer.
    pub(crate) fn outgoing(patience: Patience) -> Self {
        Self::new(patience, Some(Instant::now()), false)
    }

    /// Of an answer's body.
    pub(crate) fn incoming(patience: Patience) -> Self {
        Self::new(patience, None, true)
    }

    fn new(patience: Patience, since: Option<Instant>, moving: bool) -> Self {
        let state = State {
            since,
            last: Instant::now(),
            moving,
            waited: Duration::ZERO,
            waited_in_window: Duration::ZERO,
            moved_in_window: 0,
        };
        Self {
            patience,
            state: Mutex::new(state),
        }
    }

    /// From now on the server is waited for, if it was not already.
    pub(crate) fn waits_for_server(&self) {
        let mut state = self.lock();
        if state.since.is_none() {
            state.last = Instant::now();
            state.since = Some(state.last);
        }
    }

    /// From now on the server waits for us.
    pub(crate) fn waits_for_us(&self) {
        let mut state = self.lock();
        state.account();
        state.since = None;
    }

    /// The connection took bytes of a request, and the server is waited for to take more.
    pub(crate) fn sent(&self, bytes: usize) {
        let mut state = self.lock();
        state.moved(bytes);
        state.since = Some(state.last);
        if !mem::replace(&mut state.moving, true) {
            // Connecting is no part of it.
            state.waited_in_window = Duration::ZERO;
        }
    }

    /// All bytes of a request were taken; what is waited for now is the answer.
    pub(crate) fn sent_all(&self) {
        self.lock().moving = false;
    }

    /// Bytes of an answer came, and the next ones are not waited for yet.
    pub(crate) fn came(&self, bytes: usize) {
        let mut state = self.lock();
        state.moved(bytes);
        state.since = None;
    }

    /// How long the server was waited for until something last happened.
    pub(crate) fn waited(&self) -> Duration {
        self.lock().waited
    }

    /// Runs a request, or a part of it, for as long as it gets on.
    pub(crate) async fn watch<F: Future>(&self, future: F) -> Result<F::Output, Stuck> {
        let mut future = pin!(future);
        let mut sleep = pin!(sleep_until(self.deadline()));
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll_stuck(sleep.as_mut(), cx).map(Err),
        })
        .await
    }

    /// For who polls: ready when the server is waited for no longer. `sleep` is the caller's to keep.
    pub(crate) fn poll_stuck(
        &self,
        mut sleep: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<Stuck> {
        loop {
            let deadline = self.deadline();
            if sleep.deadline() != deadline {
                sleep.as_mut().reset(deadline);
            }
            ready!(sleep.as_mut().poll(cx));
            if let Some(stuck) = self.judge() {
                return Poll::Ready(stuck);
            }
        }
    }

    /// When to judge next. Nobody is woken when bytes begin to move, so it is never later than a window from now.
    fn deadline(&self) -> Instant {
        let state = self.lock();
        let Patience {
            silence, window, ..
        } = self.patience;
        match state.since {
            None => after(Instant::now(), silence.min(window)),
            Some(_) if !state.moving => {
                after(state.last, silence).min(after(Instant::now(), window))
            }
            Some(since) => {
                let left = window.saturating_sub(state.waited_in_window);
                after(state.last, silence).min(after(since, left))
            }
        }
    }

    fn judge(&self) -> Option<Stuck> {
        let mut state = self.lock();
        let last = state.last;
        state.account();
        state.since?;
        if Instant::now() >= after(last, self.patience.silence) {
            return Some(Stuck::Silent(self.patience.silence));
        }
        if !state.moving || state.waited_in_window < self.patience.window {
            return None;
        }
        state.waited_in_window = Duration::ZERO;
        self.judge_window(mem::take(&mut state.moved_in_window))
    }

    fn judge_window(&self, moved: u64) -> Option<Stuck> {
        let Patience {
            min_rate,
            window,
            setting,
            ..
        } = self.patience;
        (moved < least(min_rate, window)).then_some(Stuck::Slow {
            moved,
            window,
            min_rate,
            setting,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Adds what the server was waited for until now.
    fn account(&mut self) {
        let Some(since) = &mut self.since else { return };
        let waited = since.elapsed();
        *since += waited;
        self.waited += waited;
        self.waited_in_window += waited;
    }

    /// Something happened.
    fn moved(&mut self, bytes: usize) {
        self.account();
        self.moved_in_window += bytes as u64;
        self.last = Instant::now();
    }
}

/// How many bytes have to move in so much time.
pub(crate) fn least(min_rate: u64, time: Duration) -> u64 {
    let bytes = u128::from(min_rate) * time.as_millis() / 1000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn after(instant: Instant, time: Duration) -> Instant {
    instant.checked_add(time).unwrap_or(instant + FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    const PATIENCE: Patience = Patience {
        silence: Duration::from_secs(30),
        min_rate: MIN_RATE,
        window: WINDOW,
        setting: "registry.min_rate",
    };

    fn slow(moved: u64) -> Stuck {
        Stuck::Slow {
            moved,
            window: WINDOW,
            min_rate: MIN_RATE,
            setting: "registry.min_rate",
        }
    }

    /// Takes so many bytes every so many seconds, so many times.
    async fn sending(progress: &Progress, bytes: usize, seconds: u32, times: u32) {
        for _ in 0..times {
            tokio::time::sleep(SECOND * seconds).await;
            progress.sent(bytes);
        }
    }

    /// Brings them, to somebody who takes so long with each.
    async fn receiving(progress: &Progress, bytes: usize, seconds: u32, times: u32, ours: u32) {
        for _ in 0..times {
            progress.waits_for_server();
            tokio::time::sleep(SECOND * seconds).await;
            progress.came(bytes);
            tokio::time::sleep(SECOND * ours).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_request_and_progress_does_not() {
        let start = Instant::now();
        let silent = Progress::outgoing(PATIENCE);
        let ended = silent.watch(std::future::pending::<()>()).await;
        assert_eq!(ended, Err(Stuck::Silent(30 * SECOND)));
        assert_eq!(start.elapsed(), 30 * SECOND);
        let busy = Progress::outgoing(PATIENCE);
        let ended = busy.watch(sending(&busy, 1 << 20, 20, 20)).await;
        assert_eq!(ended, Ok(()));
    }

    /// A server that took or gave a byte a second was waited for without end, because every byte was progress.
    /// Too few bytes within a minute of waiting end it now, however long a silence may be.
    #[tokio::test(start_paused = true)]
    async fn a_byte_a_second_ends_after_a_minute() {
        for silence in [30 * SECOND, Duration::MAX] {
            let patience = Patience {
                silence,
                ..PATIENCE
            };
            let start = Instant::now();
            let up = Progress::outgoing(patience);
            let ended = up.watch(sending(&up, 1, 1, u32::MAX)).await;
            // The minute begins with the first byte.
            assert_eq!((ended, start.elapsed()), (Err(slow(61)), 61 * SECOND));
            let start = Instant::now();
            let down = Progress::incoming(patience);
            let ended = down.watch(receiving(&down, 1, 1, u32::MAX, 0)).await;
            assert_eq!((ended, start.elapsed()), (Err(slow(60)), 60 * SECOND));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_gets_slow_later_ends_too_and_one_that_is_just_quick_enough_goes_on() {
        let progress = Progress::outgoing(PATIENCE);
        let ended = progress.watch(async {
            sending(&progress, 1 << 20, 1, 90).await;
            sending(&progress, 1, 1, u32::MAX).await;
        });
        assert!(matches!(ended.await, Err(Stuck::Slow { .. })));
        let progress = Progress::outgoing(PATIENCE);
        let ended = progress.watch(sending(&progress, 10 * 4096, 10, 200)).await;
        assert_eq!(ended, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn no_rate_is_asked_for_where_it_is_zero() {
        let patience = Patience {
            min_rate: 0,
            ..PATIENCE
        };
        let progress = Progress::outgoing(patience);
        let ended = progress.watch(sending(&progress, 1, 29, 1000)).await;
        assert_eq!(ended, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_the_server_waits_for_us_does_not_count() {
        let down = Progress::incoming(PATIENCE);
        let ended = down.watch(receiving(&down, 8192, 1, 100, 3600)).await;
        assert_eq!(ended, Ok(()));
        assert_eq!(down.waited(), 100 * SECOND);
        let up = Progress::outgoing(PATIENCE);
        let reading = async {
            for _ in 0..100 {
                up.waits_for_us();
                tokio::time::sleep(3600 * SECOND).await;
                up.sent(8192);
                tokio::time::sleep(SECOND).await;
            }
        };
        assert_eq!(up.watch(reading).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for_in_silence_once_all_was_sent() {
        let patience = Patience {
            silence: 600 * SECOND,
            ..PATIENCE
        };
        let progress = Progress::outgoing(patience);
        progress.sent(1);
        progress.sent_all();
        let answering = tokio::time::sleep(500 * SECOND);
        assert_eq!(progress.watch(answering).await, Ok(()));
        let progress = Progress::outgoing(patience);
        let start = Instant::now();
        let ended = progress.watch(std::future::pending::<()>()).await;
        assert_eq!(ended, Err(Stuck::Silent(600 * SECOND)));
        assert_eq!(start.elapsed(), 600 * SECOND);
    }

    #[test]
    fn what_is_said_has_the_figures() {
        assert_eq!(
            slow(59).to_string(),
            "too slow: 59 bytes in 60s, and registry.min_rate is 4096 bytes a second"
        );
        assert_eq!(
            Stuck::Silent(30 * SECOND).to_string(),
            "no progress within 30s"
        );
        assert_eq!(least(u64::MAX, WINDOW), u64::MAX);
    }
}
