//! Turns: threads do numbered work side by side, and a part of it in the order of the numbers.
//!
//! Numbers are given out in their order, each to a thread that is running, and who waits for a turn holds no other one that
//! comes later. So the work whose turn it is waits for nobody, and no circle can close. A thread that fails, or panics,
//! stops all.

use std::io;
use std::sync::{Condvar, Mutex};

use crate::lock::lock;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    turn: u64,
    is_stopped: bool,
}

/// A turn, which is passed on when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'t>(&'t Turns);

impl Turns {
    /// Waits for the turn of a number.
    ///
    /// # Errors
    /// `Interrupted` where somebody has stopped all.
    pub(crate) fn wait_for(&self, number: u64) -> io::Result<Turn<'_>> {
        let not_yet = |state: &mut State| state.turn != number && !state.is_stopped;
        let state = self.moved.wait_while(lock(&self.state), not_yet);
        match state {
            Ok(state) if !state.is_stopped => Ok(Turn(self)),
            _ => Err(io::ErrorKind::Interrupted.into()),
        }
    }

    /// Has everybody who waits, now or later, give up.
    pub(crate) fn stop(&self) {
        lock(&self.state).is_stopped = true;
        self.moved.notify_all();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).turn += 1;
        self.0.moved.notify_all();
    }
}

/// Stops all if its thread panics: without it, others would wait for the turn of one that is gone.
#[derive(Debug)]
pub(crate) struct StopOnPanic<'t>(pub(crate) &'t Turns);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn turns_come_in_order_whoever_is_first() {
        let (turns, next, seen) = (Turns::default(), AtomicU64::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= 1000 {
                            return;
                        }
                        let _turn = turns.wait_for(number).unwrap();
                        lock(&seen).push(number);
                    }
                });
            }
        });
        assert_eq!(*lock(&seen), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn whoever_waits_gives_up_when_somebody_stops_or_panics() {
        let turns = Turns::default();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| turns.wait_for(1).map(drop));
            let panicking = scope.spawn(|| {
                let _stop = StopOnPanic(&turns);
                panic!("a thread with a turn");
            });
            assert!(panicking.join().is_err());
            let error = waiting.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Interrupted);
        });
        assert!(turns.wait_for(0).is_err());
    }
}
