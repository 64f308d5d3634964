//! Single flight: within a handle, one blob is fetched once however many calls want it.
//!
//! The call that asks for a blob first leads its flight: it fetches the blob, commits it and lands the flight. A call that
//! asks meanwhile follows, and waits until the flight has landed.
//!
//! Calls cannot wait for each other in a circle, because of one rule: **nobody waits for another call while holding a
//! permit or while others wait for what it leads.** A call asks for all blobs that it needs and lands every flight that it
//! leads; only then, with no permit and leading nothing, it waits for the flights that it follows. So whoever is waited for
//! is at work or waits for a permit, which only calls at work hold.
//!
//! A leader does not wait for its followers either. A follower says for which snapshot it fetches, and the leader
//! references the blob from that snapshot too before it lands the flight, so what the leader's call does afterwards takes
//! the blob from nobody. A leader whose caller gave up goes on while somebody follows. A failure is not remembered: a
//! follower that finds no blob after the flight asks again, and leads or follows the next one.
//!
//! A flight is one object's, by what identifies its bytes: whoever has its id follows whoever has it too, whatever they call
//! it. A snapshot of the Go library has the name alone, and the name may be two objects'. Its call and one that has the id do
//! not meet: both fetch, and the store keeps one. Two that have the name alone meet.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};

use crate::activity::Activity;
use crate::limit::wait_a_moment;
use crate::lock::lock;
use crate::words::error::Result;
use crate::words::object::{Identity, Object};

/// All fetches of a handle.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<Identity, Arc<Flight>>>);

#[derive(Debug, Default)]
struct Flight {
    state: Mutex<State>,
    landed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The leader has ended, well or not.
    over: bool,
    /// The snapshots of the calls that follow.
    followers: Vec<i64>,
}

/// What a call does about a blob.
pub(super) enum Turn<'a> {
    Lead(Lead<'a>),
    Follow(Follow),
}

/// A flight to be landed by dropping this, when the blob is committed or has failed.
pub(super) struct Lead<'a> {
    flights: &'a Flights,
    identity: Identity,
    flight: Arc<Flight>,
}

/// A flight that another call leads.
pub(super) struct Follow {
    flight: Arc<Flight>,
    snapshot: i64,
}

impl Flights {
    /// Leads the flight of a blob, or follows it, for a snapshot that is to reference the blob. Waits for nobody.
    pub(super) fn join(&self, object: Object, snapshot: i64) -> Turn<'_> {
        let identity = object.identity();
        let mut flights = lock(&self.0);
        if let Some(flight) = flights.get(&identity) {
            // Before the map is let go of: the leader then cannot land without knowing of this one.
            lock(&flight.state).followers.push(snapshot);
            tracing::debug!(%object, "waiting for another call that fetches it");
            let flight = Arc::clone(flight);
            return Turn::Follow(Follow { flight, snapshot });
        }
        let flight = Arc::<Flight>::default();
        flights.insert(identity, Arc::clone(&flight));
        Turn::Lead(Lead {
            flights: self,
            identity,
            flight,
        })
    }
}

impl Follow {
    /// Waits until the flight has landed. The caller holds no permit and leads nothing.
    ///
    /// # Errors
    /// `Cancelled` when the caller gives up first.
    pub(super) fn wait(&self, activity: &Activity) -> Result<()> {
        let mut state = lock(&self.flight.state);
        while !state.over {
            activity.check()?;
            state = wait_a_moment(&self.flight.landed, state);
        }
        Ok(())
    }
}

impl Lead<'_> {
    /// The snapshots of those who follow now.
    pub(super) fn followers(&self) -> Vec<i64> {
        lock(&self.flight.state).followers.clone()
    }

    pub(super) fn has_followers(&self) -> bool {
        !lock(&self.flight.state).followers.is_empty()
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        // Out of the map first: who comes now starts anew.
        lock(&self.flights.0).remove(&self.identity);
        lock(&self.flight.state).over = true;
        self.flight.landed.notify_all();
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        let followers = &mut lock(&self.flight.state).followers;
        if let Some(own) = followers.iter().position(|other| *other == self.snapshot) {
            followers.swap_remove(own);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::words::digest::{Checksum, Digest};

    /// As one that has the id asks for it, and one that has not.
    fn wanted(digest: u64, checksum: Option<&[u8]>, most: u64) -> Object {
        Object::stream(Digest::from_u64(digest), checksum.map(Checksum::of), most)
    }

    fn activity() -> (Activity, Arc<AtomicBool>) {
        let cancelled = Arc::new(AtomicBool::new(false));
        (Activity::new(Arc::clone(&cancelled), None), cancelled)
    }

    fn lead(flights: &Flights, object: Object) -> Lead<'_> {
        match flights.join(object, 0) {
            Turn::Lead(lead) => lead,
            Turn::Follow(_) => panic!("nobody else leads"),
        }
    }

    fn follow(flights: &Flights, snapshot: i64) -> Follow {
        match flights.join(wanted(1, None, 1), snapshot) {
            Turn::Lead(_) => panic!("somebody leads already"),
            Turn::Follow(follow) => follow,
        }
    }

    #[test]
    fn one_leads_the_others_wait_and_the_leader_waits_for_none() {
        let flights = Flights::default();
        let (activity, _) = activity();
        let leader = lead(&flights, wanted(1, None, 1));
        let followers: Vec<Follow> = (1..=4).map(|snapshot| follow(&flights, snapshot)).collect();
        assert_eq!(leader.followers(), [1, 2, 3, 4]);
        std::thread::scope(|scope| {
            let wait = |follow: Follow| scope.spawn(|| follow.wait(&activity).map(|()| follow));
            let waiting: Vec<_> = followers.into_iter().map(wait).collect();
            drop(leader);
            let waited = waiting.into_iter().map(|thread| thread.join().unwrap());
            assert_eq!(waited.filter_map(Result::ok).count(), 4);
        });
        drop(lead(&flights, wanted(1, None, 1)));
    }

    #[test]
    fn whoever_gives_up_waits_no_longer_and_follows_no_more() {
        let flights = Flights::default();
        let leader = lead(&flights, wanted(1, None, 1));
        let (impatient, cancelled) = activity();
        let follower = follow(&flights, 1);
        let other = follow(&flights, 2);
        cancelled.store(true, Ordering::SeqCst);
        assert!(follower.wait(&impatient).is_err());
        drop(follower);
        assert_eq!(leader.followers(), [2]);
        drop(other);
        assert!(!leader.has_followers());
    }

    #[test]
    fn other_blobs_are_not_waited_for() {
        let flights = Flights::default();
        let _one = lead(&flights, wanted(1, None, 1));
        let _other = lead(&flights, wanted(2, None, 1));
        let _longer = lead(&flights, wanted(1, None, 2));
    }

    #[test]
    fn an_object_is_known_by_its_id_and_without_one_by_name_and_size() {
        let flights = Flights::default();
        let _one = lead(&flights, wanted(1, Some(b"one"), 1));
        let again = flights.join(wanted(2, Some(b"one"), 2), 1);
        assert!(matches!(again, Turn::Follow(_)));
        let _twin = lead(&flights, wanted(1, Some(b"another"), 1));
        let _by_name = lead(&flights, wanted(1, None, 1));
        assert!(matches!(
            flights.join(wanted(1, None, 1), 2),
            Turn::Follow(_)
        ));
    }

    #[test]
    fn who_comes_after_a_flight_leads_the_next_one() {
        let flights = Flights::default();
        let (activity, _) = activity();
        let first = lead(&flights, wanted(1, None, 1));
        let late = follow(&flights, 1);
        drop(first);
        let second = lead(&flights, wanted(1, None, 1));
        late.wait(&activity).unwrap();
        assert!(!second.has_followers());
        drop(second);
        assert!(lock(&flights.0).is_empty());
    }
}
