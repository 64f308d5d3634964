//! Single flight: within a process, one blob is fetched once however many calls want it.
//!
//! Whoever comes first leads and fetches; the others wait. When the leader has committed the blob, it stays until all who
//! waited have referenced it from their own snapshots, so its giving up cannot take it from them. A failure is not
//! remembered: the next in line leads and tries for itself. A leader whose caller gave up goes on while others wait.
//!
//! A call may lead several flights at once, of blobs that it has and commits together. Why calls that lead and follow
//! each other end: who follows lands all that its call has to land, again and again while it waits, and landing waits for
//! nobody. A call waits for its followers at its very end, when it follows nobody, and they wait for nobody any more.

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
    /// Joins the flight for a blob: leads it, or waits until whoever leads has ended, or until the caller gives up. While
    /// it waits it does, once at least, what is to be done `meanwhile`, which must not wait for other flights.
    pub(super) fn join(
        &self,
        wanted: Wanted,
        activity: &Activity,
        meanwhile: &dyn Fn() -> Result<()>,
    ) -> Result<Turn<'_>> {
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
        while !follow.is_over() {
            activity.check()?;
            meanwhile()?;
            follow.wait_a_moment();
        }
        Ok(Turn::Follow(follow))
    }
}

impl Follow {
    fn is_over(&self) -> bool {
        lock(&self.0.state).over
    }

    fn wait_a_moment(&self) {
        let not_over = |state: &mut State| !state.over;
        drop(
            self.0
                .changed
                .wait_timeout_while(lock(&self.0.state), GLANCE, not_over),
        );
    }
}

impl Lead<'_> {
    /// The blob is committed, or not to be had: tells those who wait, and waits for none of them. That is done by dropping
    /// it.
    pub(super) fn land(&self) {
        // Out of the map first: who comes now starts anew.
        let mut flights = lock(&self.flights.0);
        let mut state = lock(&self.flight.state);
        // Once: the next flight for the blob is somebody else's.
        if !state.over {
            flights.remove(&self.wanted);
            state.over = true;
            self.flight.changed.notify_all();
        }
    }

    /// Whether somebody else wants the blob too.
    pub(super) fn has_followers(&self) -> bool {
        lock(&self.flight.state).followers > 0
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.land();
        let mut state = lock(&self.flight.state);
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

    fn nothing() -> Result<()> {
        Ok(())
    }

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
        let Turn::Lead(lead) = flights.join(WANTED, &activity, &nothing).unwrap() else {
            panic!("nobody else leads")
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(
                    || match flights.join(WANTED, &activity, &nothing).unwrap() {
                        Turn::Lead(_) => panic!("somebody leads already"),
                        Turn::Follow(_follow) => {
                            assert_eq!(fetched.load(Ordering::SeqCst), 1);
                            took.fetch_add(1, Ordering::SeqCst);
                        }
                    },
                );
            }
            while lock(&lead.flight.state).followers < 4 {
                std::thread::yield_now();
            }
            assert!(lead.has_followers());
            fetched.store(1, Ordering::SeqCst);
            drop(lead);
            assert_eq!(took.load(Ordering::SeqCst), 4, "the leader waits for all");
        });
        assert!(matches!(
            flights.join(WANTED, &activity, &nothing),
            Ok(Turn::Lead(_))
        ));
    }

    #[test]
    fn whoever_gives_up_waits_no_longer_and_is_not_waited_for() {
        let flights = Flights::default();
        let (patient, _) = activity();
        let Turn::Lead(lead) = flights.join(WANTED, &patient, &nothing).unwrap() else {
            panic!("nobody else leads")
        };
        let (impatient, cancelled) = activity();
        cancelled.store(true, Ordering::SeqCst);
        assert!(flights.join(WANTED, &impatient, &nothing).is_err());
        assert!(!lead.has_followers());
    }

    #[test]
    fn other_blobs_are_not_waited_for() {
        let flights = Flights::default();
        let (activity, _) = activity();
        let _lead = flights.join(WANTED, &activity, &nothing);
        let other = (Digest::from_u64(2), None);
        assert!(matches!(
            flights.join(other, &activity, &nothing),
            Ok(Turn::Lead(_))
        ));
    }

    #[test]
    fn two_calls_that_wait_for_each_other_land_what_they_have() {
        let flights = Flights::default();
        let (activity, _) = activity();
        let blobs = [(Digest::from_u64(1), None), (Digest::from_u64(2), None)];
        let both_lead = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for (own, other) in [(0, 1), (1, 0)] {
                let (flights, activity, both_lead) = (&flights, &activity, &both_lead);
                scope.spawn(move || {
                    let Turn::Lead(lead) = flights.join(blobs[own], activity, &nothing).unwrap()
                    else {
                        panic!("nobody else leads")
                    };
                    both_lead.wait();
                    let land = || {
                        lead.land();
                        Ok(())
                    };
                    drop(flights.join(blobs[other], activity, &land));
                    lead.land();
                });
            }
        });
        assert!(lock(&flights.0).is_empty());
    }

    #[test]
    fn landing_twice_leaves_the_next_flight_alone() {
        let flights = Flights::default();
        let (activity, _) = activity();
        let lead = || match flights.join(WANTED, &activity, &nothing).unwrap() {
            Turn::Lead(lead) => lead,
            Turn::Follow(_) => panic!("nobody else leads"),
        };
        let first = lead();
        first.land();
        let second = lead();
        drop(first);
        assert_eq!(lock(&flights.0).len(), 1);
        drop(second);
        assert!(lock(&flights.0).is_empty());
    }
}
