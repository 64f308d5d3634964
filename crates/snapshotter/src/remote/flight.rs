//! Single flight: within a process, one blob is fetched once however many calls want it.
//!
//! Whoever comes first leads and fetches; the others wait. When the leader has committed the blob, it stays until all who
//! waited have referenced it from their own snapshots, so its giving up cannot take it from them. A failure is not
//! remembered: the next in line leads and tries for itself. A leader whose caller gave up goes on while others wait.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::runtime::GLANCE;
use crate::activity::Activity;
use crate::words::digest::{Checksum, Digest};
use crate::words::error::Result;

/// What is fetched: without a checksum, by the digest alone.
pub(super) type Wanted = (Digest, Option<Checksum>);

/// All fetches of a handle.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<Wanted, Arc<Flight>>>);

#[derive(Debug, Default)]
struct Flight {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The leader has ended, well or not.
    over: bool,
    /// Those who wait, or have been told and are still taking the blob over.
    followers: usize,
}

/// Fetch it, and drop this when it is committed or has failed.
pub(super) struct Lead<'a> {
    flights: &'a Flights,
    wanted: Wanted,
    flight: Arc<Flight>,
}

/// The leader has ended: look whether the blob is there now, and drop this when it is referenced.
pub(super) struct Follow(Arc<Flight>);

/// What to do about a blob.
pub(super) enum Turn<'a> {
    Lead(Lead<'a>),
    Follow(Follow),
}

impl Flights {
    /// Joins the flight for a blob: leads it, or waits until whoever leads has ended, or until the caller gives up.
    pub(super) fn join(&self, wanted: Wanted, activity: &Activity) -> Result<Turn<'_>> {
        let flight = {
            let mut flights = lock(&self.0);
            match flights.get(&wanted) {
                None => {
                    let flight = Arc::new(Flight::default());
                    flights.insert(wanted, Arc::clone(&flight));
                    return Ok(Turn::Lead(Lead {
                        flights: self,
                        wanted,
                        flight,
                    }));
                }
                Some(flight) => {
                    // Counted before the map is let go of: the leader then waits for this one too.
                    lock(&flight.state).followers += 1;
                    tracing::debug!(digest = %wanted.0, "waiting for another call that fetches it");
                    Arc::clone(flight)
                }
            }
        };
        let follow = Follow(flight);
        let mut state = lock(&follow.0.state);
        while !state.over {
            // Dropping `follow` needs the lock.
            if let Err(cancelled) = activity.check() {
                drop(state);
                return Err(cancelled);
            }
            state = follow
                .0
                .changed
                .wait_timeout(state, GLANCE)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        drop(state);
        Ok(Turn::Follow(follow))
    }
}

impl Lead<'_> {
    /// Whether somebody else wants the blob too.
    pub(super) fn has_followers(&self) -> bool {
        lock(&self.flight.state).followers > 0
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        // Out of the map first: who comes now starts anew.
        lock(&self.flights.0).remove(&self.wanted);
        let mut state = lock(&self.flight.state);
        state.over = true;
        self.flight.changed.notify_all();
        while state.followers > 0 {
            state = wait(&self.flight.changed, state);
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        lock(&self.0.state).followers -= 1;
        self.0.changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    const WANTED: Wanted = (Digest::from_u64(1), None);

    fn activity() -> (Activity, Arc<AtomicBool>) {
        let cancelled = Arc::new(AtomicBool::new(false));
        (Activity::new(Arc::clone(&cancelled), None), cancelled)
    }

    #[test]
    fn one_leads_and_the_others_wait_for_it() {
        let flights = Flights::default();
        let (activity, _) = activity();
        let (fetched, took) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let Turn::Lead(lead) = flights.join(WANTED, &activity).unwrap() else {
            panic!("nobody else leads")
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| match flights.join(WANTED, &activity).unwrap() {
                    Turn::Lead(_) => panic!("somebody leads already"),
                    Turn::Follow(_follow) => {
                        assert_eq!(fetched.load(Ordering::SeqCst), 1);
                        took.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            while lock(&lead.flight.state).followers < 4 {
                std::thread::yield_now();
            }
            assert!(lead.has_followers());
            fetched.store(1, Ordering::SeqCst);
            drop(lead);
            assert_eq!(took.load(Ordering::SeqCst), 4, "the leader waits for all");
        });
        assert!(matches!(flights.join(WANTED, &activity), Ok(Turn::Lead(_))));
    }

    #[test]
    fn whoever_gives_up_waits_no_longer_and_is_not_waited_for() {
        let flights = Flights::default();
        let (patient, _) = activity();
        let Turn::Lead(lead) = flights.join(WANTED, &patient).unwrap() else {
            panic!("nobody else leads")
        };
        let (impatient, cancelled) = activity();
        cancelled.store(true, Ordering::SeqCst);
        assert!(flights.join(WANTED, &impatient).is_err());
        assert!(!lead.has_followers());
    }

    #[test]
    fn other_blobs_are_not_waited_for() {
        let flights = Flights::default();
        let (activity, _) = activity();
        let _lead = flights.join(WANTED, &activity);
        let other = (Digest::from_u64(2), None);
        assert!(matches!(flights.join(other, &activity), Ok(Turn::Lead(_))));
    }
}
