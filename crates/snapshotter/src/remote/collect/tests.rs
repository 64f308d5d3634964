//! Publishers, collectors, who moves and who removes versions, in every order that their steps can come in, each killed
//! anywhere, with a clock that may stand still or run on between any two steps. What they decide the production's own
//! functions decide (`rules.rs`); what the steps are is `watch.rs`, `mark.rs` and `sweep.rs` over again, a request a step.
//!
//! What a removal that was asked for does when its collector is killed is to arrive, at any time until the lease ends, or never.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{Hash, Hasher};

use super::rules::{self, Next};

/// The clock goes on by so much; a collector has to write its lease again after each.
const TICK: i64 = rules::LEASE / 2;

type Id = u8;
type Key = u8;
type Collections = rules::Collections<Key>;
type Set = BTreeSet<Id>;

/// How the protocol may be broken, to see that the model would find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Broken {
    Nothing,
    /// A publisher is done when his manifest is in.
    NoSecondReading,
    /// He does not wait for what is being removed.
    NoWait,
    /// A collector goes by what it listed at first.
    NoLook,
    /// One goes on without looking whether it still may.
    NoLease,
    /// Who moves a version leaves no record.
    NoRecord,
    /// A list that went before it was read names nothing.
    GoneIsEmpty,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Place {
    now: i64,
    /// Contents, and when each was written.
    objects: BTreeMap<Id, i64>,
    collections: Collections,
    listed: BTreeMap<Key, Set>,
    /// Manifests that lost a version, and when.
    moved: BTreeMap<Id, i64>,
    /// Versions: the manifest of each, and whether its publisher came to his end.
    tags: BTreeMap<Id, (Id, bool)>,
    /// Manifests that a version left whose publisher had come to his end, and until when somebody may be restoring them.
    left: BTreeMap<Id, i64>,
    /// Removals under way: what, and until when they can arrive.
    under_way: BTreeSet<(Id, i64)>,
    keys: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Begin,
    /// Whether the next of these is there; else it is sent.
    Look(Vec<Id>),
    Send(Id, Vec<Id>),
    Record,
    Put,
    Read,
    /// What the lists name that were there.
    Lists(Collections),
    /// Since when.
    Wait(Option<i64>),
    End,
}

/// One that publishes a manifest under a version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Publisher {
    tag: Id,
    manifest: Id,
    step: Step,
    is_in: bool,
    before: Collections,
    doomed: Set,
    spared: Set,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Write,
    Read,
    /// Versions that are not read yet.
    Mark(Vec<Id>),
    Moved,
    /// Objects that are not looked at yet.
    Sweep(Vec<Id>),
    Renew(Vec<Id>),
    Asked(Id, Vec<Id>),
    List,
    Old,
    Leases,
    End,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Collector {
    stage: Stage,
    lease: Key,
    held: i64,
    found: Collections,
    marked: Set,
    condemned: (Set, Option<i64>),
    /// When each object was written as it was listed, for who does not look again.
    first: BTreeMap<Id, i64>,
    candidates: Set,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    place: Place,
    publishers: Vec<Publisher>,
    collectors: Vec<Collector>,
    /// A version that somebody may remove.
    removable: Option<Id>,
    /// A collector begins when the one before has ended.
    in_turn: bool,
    kills: u8,
    ticks: u8,
}

/// What stays the same.
struct Rules {
    broken: Broken,
    grace: i64,
    /// What each manifest needs.
    needs: BTreeMap<Id, Vec<Id>>,
}

impl Publisher {
    fn new(tag: Id, manifest: Id) -> Self {
        Self {
            tag,
            manifest,
            step: Step::Begin,
            is_in: false,
            before: Collections::default(),
            doomed: Set::new(),
            spared: Set::new(),
        }
    }

    /// `None`: it has to wait.
    fn step(&self, place: &mut Place, rules: &Rules) -> Option<Self> {
        let mut next = self.clone();
        let needs = &rules.needs[&self.manifest];
        next.step = match &self.step {
            Step::Begin => {
                next.before = place.collections.clone();
                Step::Look(needs.clone())
            }
            Step::Look(left) => match left.split_last() {
                None if !self.is_in => Step::Record,
                None if self.doomed.is_empty() => Step::Read,
                None => Step::Wait(None),
                Some((id, left)) => {
                    let is_there = place.objects.contains_key(id) && !self.doomed.contains(id);
                    match is_there {
                        true => Step::Look(left.to_vec()),
                        false => Step::Send(*id, left.to_vec()),
                    }
                }
            },
            Step::Send(id, left) => {
                place.objects.insert(*id, place.now);
                Step::Look(left.clone())
            }
            Step::Record => {
                if let Some((old, _)) = place.tags.get(&self.tag)
                    && *old != self.manifest
                    && rules.broken != Broken::NoRecord
                {
                    place.moved.insert(*old, place.now);
                }
                Step::Put
            }
            Step::Put => {
                let old = place.tags.insert(self.tag, (self.manifest, false));
                if let Some((old, true)) = old {
                    place.left.insert(old, place.now + rules.grace);
                }
                next.is_in = true;
                match rules.broken {
                    Broken::NoSecondReading => self.done(place),
                    _ => Step::Read,
                }
            }
            Step::Read => Step::Lists(place.collections.clone()),
            Step::Lists(now)
                if !now.lists.keys().all(|key| place.listed.contains_key(key))
                    && rules.broken != Broken::GoneIsEmpty =>
            {
                Step::Read
            }
            Step::Lists(now) => {
                let of = |key| place.listed.get(key);
                let listed: Set = now.lists.keys().filter_map(of).flatten().copied().collect();
                let is_doomed = |id: &&Id| listed.contains(id) && !self.spared.contains(id);
                let doomed: Set = needs.iter().filter(is_doomed).copied().collect();
                match rules::next(&self.before, now, !doomed.is_empty()) {
                    Next::Done => self.done(place),
                    Next::LookAgain => {
                        (next.before, next.doomed) = (now.clone(), doomed);
                        Step::Look(needs.clone())
                    }
                }
            }
            Step::Wait(None) => Step::Wait(Some(place.now)),
            Step::Wait(Some(since)) => {
                let sent = self
                    .doomed
                    .iter()
                    .filter_map(|id| place.objects.get(id))
                    .min();
                let may_go_on = place.now - since > rules::LEASE
                    || !place.collections.may_still_remove(sent.copied());
                if !may_go_on && rules.broken != Broken::NoWait {
                    return None;
                }
                next.spared.append(&mut next.doomed);
                Step::Look(needs.clone())
            }
            Step::End => return None,
        };
        Some(next)
    }

    /// Published: if nobody has taken the version meanwhile, what is named is needed from now on.
    fn done(&self, place: &mut Place) -> Step {
        if let Some((manifest, is_done)) = place.tags.get_mut(&self.tag) {
            *is_done |= *manifest == self.manifest;
        }
        Step::End
    }
}

impl Collector {
    fn new() -> Self {
        Self {
            stage: Stage::Write,
            lease: 0,
            held: 0,
            found: Collections::default(),
            marked: Set::new(),
            condemned: (Set::new(), None),
            first: BTreeMap::new(),
            candidates: Set::new(),
        }
    }

    fn step(&self, place: &mut Place, rules: &Rules) -> Option<Self> {
        let mut next = self.clone();
        next.stage = match &self.stage {
            Stage::Write => {
                place.keys += 1;
                next.lease = place.keys;
                next.held = place.now;
                place.collections.leases.insert(next.lease, place.now);
                Stage::Read
            }
            Stage::Read => {
                next.found = place.collections.clone();
                let grace = rules.grace;
                let is_ripe = |at: &i64| rules::is_ripe(*at, self.held, grace);
                let lists = &next.found.lists;
                let is_young = !lists.is_empty() && !lists.values().any(is_ripe);
                if next.found.is_held_by_another(&self.lease) || is_young {
                    place.collections.leases.remove(&self.lease);
                    Stage::End
                } else {
                    let ripe = lists.iter().filter(|(_, at)| is_ripe(at));
                    next.condemned.1 = ripe.clone().map(|(_, at)| *at).min();
                    let named = ripe.flat_map(|(key, _)| &place.listed[key]);
                    next.condemned.0 = named.copied().collect();
                    Stage::Mark(vec![0, 1])
                }
            }
            Stage::Mark(left) => match left.split_last() {
                None => Stage::Moved,
                Some((tag, left)) => {
                    if let Some((manifest, _)) = place.tags.get(tag) {
                        next.marked.extend(&rules.needs[manifest]);
                    }
                    Stage::Mark(left.to_vec())
                }
            },
            Stage::Moved => {
                let since = self.held - rules.grace;
                let moved = place.moved.iter().filter(|(_, at)| **at >= since);
                next.marked
                    .extend(moved.flat_map(|(manifest, _)| &rules.needs[manifest]));
                next.first.clone_from(&place.objects);
                Stage::Sweep(place.objects.keys().copied().collect())
            }
            Stage::Sweep(left) => match left.split_last() {
                None if place.now - self.held >= TICK && rules.broken != Broken::NoLease => {
                    Stage::Renew(Vec::new())
                }
                None => Stage::List,
                Some(_) if place.now - self.held >= TICK && rules.broken != Broken::NoLease => {
                    Stage::Renew(left.clone())
                }
                Some((id, left)) => self.look(&mut next, place, rules, *id, left),
            },
            Stage::Renew(left) => {
                place.collections.leases.insert(self.lease, place.now);
                let now = &place.collections;
                let is_other = !now.lists.keys().eq(self.found.lists.keys());
                next.held = place.now;
                match now.is_held_by_another(&self.lease) || is_other {
                    true => Stage::End,
                    false => Stage::Sweep(left.clone()),
                }
            }
            Stage::Asked(id, left) => {
                place.under_way.retain(|(other, _)| other != id);
                place.objects.remove(id);
                Stage::Sweep(left.clone())
            }
            Stage::List => {
                if self.candidates.is_empty() && self.found.lists.is_empty() {
                    place.collections.leases.remove(&self.lease);
                    Stage::End
                } else {
                    place.keys += 1;
                    let key = place.keys;
                    place.collections.lists.insert(key, place.now);
                    place.listed.insert(key, self.candidates.clone());
                    Stage::Old
                }
            }
            Stage::Old => {
                for key in self.found.lists.keys() {
                    place.collections.lists.remove(key);
                    place.listed.remove(key);
                }
                Stage::Leases
            }
            Stage::Leases => {
                for key in self.found.leases.keys() {
                    place.collections.leases.remove(key);
                }
                Stage::End
            }
            Stage::End => return None,
        };
        Some(next)
    }

    fn look(
        &self,
        next: &mut Self,
        place: &mut Place,
        rules: &Rules,
        id: Id,
        left: &[Id],
    ) -> Stage {
        let is_needed = self.marked.contains(&id);
        let modified = match rules.broken {
            Broken::NoLook => self.first.get(&id),
            _ => place.objects.get(&id),
        };
        let Some(modified) = modified.filter(|_| !is_needed) else {
            return Stage::Sweep(left.to_vec());
        };
        let listed = self.condemned.1.filter(|_| self.condemned.0.contains(&id));
        match rules::may_go(is_needed, listed, *modified) {
            true => {
                place.under_way.insert((id, self.held + rules::LEASE));
                Stage::Asked(id, left.to_vec())
            }
            false => {
                next.candidates.insert(id);
                Stage::Sweep(left.to_vec())
            }
        }
    }
}

impl World {
    /// What is needed and not there.
    fn lost(&self, rules: &Rules) -> Option<Id> {
        let versions = self.place.tags.values().filter(|(_, is_done)| *is_done);
        let left = self
            .place
            .left
            .iter()
            .filter(|(_, until)| **until > self.place.now);
        let manifests = versions
            .map(|(manifest, _)| manifest)
            .chain(left.map(|(old, _)| old));
        let mut needed = manifests.flat_map(|manifest| &rules.needs[manifest]);
        needed
            .find(|id| !self.place.objects.contains_key(id))
            .copied()
    }

    /// All that can happen next.
    fn successors(&self, rules: &Rules) -> Vec<Self> {
        let mut all = Vec::new();
        for (index, publisher) in self.publishers.iter().enumerate() {
            let mut world = self.clone();
            if let Some(next) = publisher.step(&mut world.place, rules) {
                world.publishers[index] = next;
                all.push(world);
            }
            if publisher.step != Step::End && self.kills > 0 {
                all.push(self.killing(|world| world.publishers[index].step = Step::End));
            }
        }
        for (index, collector) in self.collectors.iter().enumerate() {
            let is_before = |other: &Collector| other.stage != Stage::End;
            if self.in_turn && self.collectors[..index].iter().any(is_before) {
                break;
            }
            let mut world = self.clone();
            if let Some(next) = collector.step(&mut world.place, rules) {
                world.collectors[index] = next;
                all.push(world);
            }
            let is_at_work = !matches!(collector.stage, Stage::End | Stage::Write);
            if is_at_work && self.kills > 0 {
                all.push(self.killing(|world| world.collectors[index].stage = Stage::End));
            }
        }
        self.surroundings(&mut all);
        all
    }

    /// Time, removals that nobody waits for any more, and who removes a version.
    fn surroundings(&self, all: &mut Vec<Self>) {
        for one in &self.place.under_way {
            let is_awaited = |stage: &Stage| matches!(stage, Stage::Asked(id, _) if *id == one.0);
            if !self.collectors.iter().any(|other| is_awaited(&other.stage)) {
                for arrives in [true, false] {
                    let mut world = self.clone();
                    world.place.under_way.remove(one);
                    if arrives {
                        world.place.objects.remove(&one.0);
                    }
                    all.push(world);
                }
            }
        }
        let may_go_on = self
            .place
            .under_way
            .iter()
            .all(|(_, until)| self.place.now < *until);
        if self.ticks > 0 && may_go_on {
            let mut world = self.clone();
            world.place.now += TICK;
            world.ticks -= 1;
            all.push(world);
        }
        if let Some(tag) = self
            .removable
            .filter(|tag| self.place.tags.contains_key(tag))
        {
            let mut world = self.clone();
            world.place.tags.remove(&tag);
            world.removable = None;
            all.push(world);
        }
    }

    fn killing(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut world = self.clone();
        world.kills -= 1;
        change(&mut world);
        world
    }
}

/// Enough to tell states apart.
fn print(world: &World) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Visits everything that can come of this; says in how many states, and in which one first something was lost.
fn explore(start: World, rules: &Rules) -> (usize, Option<World>) {
    let mut seen = HashSet::from([print(&start)]);
    let mut left = vec![start];
    while let Some(world) = left.pop() {
        if world.lost(rules).is_some() {
            return (seen.len(), Some(world));
        }
        for next in world.successors(rules) {
            if seen.insert(print(&next)) {
                left.push(next);
            }
        }
    }
    (seen.len(), None)
}

const X: Id = 0;

/// Ticks after which a list is ripe.
const GRACE: i64 = 1;

fn rules(broken: Broken) -> Rules {
    Rules {
        broken,
        grace: GRACE * TICK,
        needs: BTreeMap::from([(0, vec![X]), (1, vec![])]),
    }
}

/// X is there, nobody needs it, and a ripe list says so.
fn ripe() -> Place {
    let mut place = Place {
        now: 10 * TICK,
        objects: BTreeMap::from([(X, 0)]),
        ..Place::default()
    };
    place.collections.lists.insert(0, TICK);
    place.listed.insert(0, Set::from([X]));
    place
}

/// X is there and nobody needs it, which no collection has found.
fn needless() -> Place {
    Place {
        now: 10 * TICK,
        objects: BTreeMap::from([(X, 0)]),
        ..Place::default()
    }
}

fn world(place: Place, publishers: &[(Id, Id)], collectors: usize) -> World {
    let publisher = |(tag, manifest): &(Id, Id)| Publisher::new(*tag, *manifest);
    World {
        place,
        publishers: publishers.iter().map(publisher).collect(),
        collectors: vec![Collector::new(); collectors],
        removable: None,
        in_turn: false,
        kills: 0,
        ticks: 0,
    }
}

/// `SNAPSHOTTER_MODEL_MORE=1` visits more: a kill and a tick in each.
fn worlds() -> Vec<(&'static str, World)> {
    let more = u8::from(std::env::var_os("SNAPSHOTTER_MODEL_MORE").is_some());
    let with = |kills: u8, ticks: u8, world: World| World {
        kills: kills + more,
        ticks: ticks + more,
        ..world
    };
    let mut removing = world(ripe(), &[(1, 0)], 1);
    removing.place.tags.insert(0, (0, true));
    removing.removable = Some(0);
    let mut moving = world(ripe(), &[(0, 1), (1, 0)], 1);
    moving.place.tags.insert(0, (0, true));
    let mut in_turn = world(needless(), &[(0, 0)], 2);
    in_turn.in_turn = true;
    // The first has marked before the publisher began, and was stopped for longer than its lease.
    let mut two = world(ripe(), &[(0, 0)], 2);
    let first = &mut two.collectors[0];
    while !matches!(first.stage, Stage::Sweep(_)) {
        let next = first.step(&mut two.place, &rules(Broken::Nothing));
        *first = next.expect("a step");
    }
    two.place.now += 3 * TICK;
    vec![
        (
            "one publishes while one collects",
            with(1, 2, world(ripe(), &[(0, 0)], 1)),
        ),
        (
            "a version is removed, and another gets its manifest",
            with(0, 2, removing),
        ),
        (
            "two publish the same",
            with(0, 0, world(ripe(), &[(0, 0), (1, 0)], 1)),
        ),
        ("two versions change places", with(0, 0, moving)),
        ("two collect", with(0, 0, two)),
        ("from the first list to the second", with(0, 1, in_turn)),
    ]
}

#[test]
fn nothing_that_is_needed_goes_whatever_comes_first() {
    for (what, world) in worlds() {
        let (states, lost) = explore(world, &rules(Broken::Nothing));
        assert_eq!(lost, None, "{what}");
        assert!(states > 1000, "{what}: {states}");
    }
}

#[test]
fn each_part_of_the_protocol_is_needed() {
    for (broken, of) in [
        (Broken::NoSecondReading, "one publishes while one collects"),
        (Broken::NoWait, "one publishes while one collects"),
        (Broken::NoLook, "one publishes while one collects"),
        (Broken::NoLease, "two collect"),
        (Broken::NoRecord, "two versions change places"),
        (Broken::GoneIsEmpty, "one publishes while one collects"),
    ] {
        let mut worlds = worlds().into_iter();
        let world = worlds.find_map(|(what, world)| (what == of).then_some(world));
        let mut world = world.expect("a world");
        world.ticks = 3;
        let (_, lost) = explore(world, &rules(broken));
        assert!(lost.is_some(), "{broken:?}");
    }
}
