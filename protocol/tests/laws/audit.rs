//! A walk over rows between writes: never an alarm without damage, and no damage that a whole walk misses.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;

use anabranch_protocol::audit::{RowWalk, Step, WalkedRows};
use anabranch_protocol::conflict::{Row, Stamp};
use anabranch_protocol::fingerprint::{RowHasher, Tally};
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{Collection, DatasetId, Key};
use proptest::prelude::*;

use crate::lattice::writer;

const COLLECTIONS: u8 = 3;
const KEYS: u8 = 8;

/// A row's place: collection and key.
type Place = (u8, u8);

#[derive(Debug, Clone)]
enum Event {
    /// A turn writes a document, or a tombstone.
    Write(Place, Option<u8>),
    /// The walk goes on over so many rows.
    Slice(usize),
}

fn places() -> impl Strategy<Value = Place> {
    (0..COLLECTIONS, 0..KEYS)
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let write = (places(), proptest::option::weighted(0.7, 0_u8..3)).prop_map(|(place, value)| Event::Write(place, value));
    proptest::collection::vec(prop_oneof![3 => write, 2 => (0_usize..5).prop_map(Event::Slice)], 0..60)
}

fn collection(n: u8) -> Collection {
    Collection::new(["a", "a.b", "b"][usize::from(n)]).unwrap()
}

fn key(n: u8) -> Key {
    Key::new(&"k".repeat(usize::from(n) + 1)).unwrap()
}

fn row(hlc: u64, value: Option<u8>) -> Row {
    Row::new(Stamp { hlc: Hlc(hlc), writer: writer(1), index: 0 }, value.map(|value| vec![value]))
}

/// A store, tallies that are moved as turns move them, and a walk.
#[derive(Debug)]
struct World {
    rows: BTreeMap<Collection, BTreeMap<Key, Row>>,
    tallies: BTreeMap<Collection, Tally>,
    clock: u64,
    walk: RowWalk,
    whole_walks: u64,
}

/// What a slice sees of it.
struct Slice<'a> {
    rows: &'a BTreeMap<Collection, BTreeMap<Key, Row>>,
    tallies: &'a BTreeMap<Collection, Tally>,
    room: usize,
}

impl WalkedRows for Slice<'_> {
    type Error = Infallible;

    fn collection_after(&self, before: Option<&Collection>) -> Result<Option<Collection>, Infallible> {
        let after = |name: &&Collection| before.is_none_or(|before| *name > before);
        Ok(self.rows.keys().chain(self.tallies.keys()).filter(after).min().cloned())
    }

    fn rows_after(&mut self, collection: &Collection, after: Option<&Key>) -> Result<(Vec<(Key, Row)>, bool), Infallible> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let all = self.rows.get(collection).into_iter().flat_map(|rows| rows.range::<Key, _>((start, Bound::Unbounded)));
        let mut found: Vec<_> = all.map(|(key, row)| (key.clone(), row.clone())).take(self.room + 1).collect();
        let ended = found.len() <= self.room;
        found.truncate(self.room);
        self.room -= found.len();
        Ok((found, ended))
    }

    fn tally(&self, collection: &Collection) -> Result<Tally, Infallible> {
        Ok(self.tallies.get(collection).copied().unwrap_or_default())
    }
}

fn hash(collection: &Collection, key: &Key, row: Option<&Row>) -> Option<u128> {
    let hasher = RowHasher::new(&DatasetId::primary(), collection);
    row.filter(|row| row.value.is_some()).map(|row| hasher.hash(key, &row.stamp, &row.content))
}

impl World {
    fn new() -> Self {
        let walk = RowWalk::new(DatasetId::primary());
        Self { rows: BTreeMap::new(), tallies: BTreeMap::new(), clock: 0, walk, whole_walks: 0 }
    }

    /// Says whether the walk found damage.
    fn happens(&mut self, event: &Event) -> bool {
        match event {
            Event::Write(place, value) => self.write(*place, *value),
            Event::Slice(room) => return self.slice(*room),
        }
        false
    }

    fn write(&mut self, (c, k): Place, value: Option<u8>) {
        self.clock += 1;
        let (collection, key, new) = (collection(c), key(k), row(self.clock, value));
        let rows = self.rows.entry(collection.clone()).or_default();
        let old = rows.get(&key).cloned();
        let tally = self.tallies.entry(collection.clone()).or_default();
        hash(&collection, &key, old.as_ref()).into_iter().for_each(|hash| tally.remove(hash));
        hash(&collection, &key, Some(&new)).into_iter().for_each(|hash| tally.add(hash));
        self.walk.replaced(&collection, &key, old.as_ref(), &new);
        rows.insert(key, new);
    }

    fn slice(&mut self, room: usize) -> bool {
        match self.walk.go_on(&mut Slice { rows: &self.rows, tallies: &self.tallies, room }) {
            Ok(Step::More) => false,
            Ok(Step::Differs(_)) => true,
            Ok(Step::Done) => {
                self.walk = RowWalk::new(DatasetId::primary());
                self.whole_walks += 1;
                false
            }
        }
    }
}

impl World {
    /// Damage: the store has something else under a key, or nothing; whether any tally speaks against it.
    fn damage(&mut self, (c, k): Place, planted: Option<Row>) -> bool {
        let (collection, key) = (collection(c), key(k));
        let rows = self.rows.entry(collection.clone()).or_default();
        let before = hash(&collection, &key, rows.get(&key));
        let after = hash(&collection, &key, planted.as_ref());
        match planted {
            Some(row) => drop(rows.insert(key, row)),
            None => drop(rows.remove(&key)),
        }
        before != after
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_walk_raises_an_alarm_over_a_whole_store(events in events()) {
        let mut world = World::new();
        for event in events {
            prop_assert!(!world.happens(&event), "false alarm after {event:?}");
        }
        let whole = world.whole_walks;
        prop_assert!(!world.slice(100) && world.whole_walks == whole + 1);
    }

    /// Whenever it happens and whatever is written before and after, over the damaged row too: the first walk that begins
    /// after it finds it at the latest.
    #[test]
    fn a_changed_row_is_always_found(
        before in events(), place in places(), planted in proptest::option::of((0_u64..20, proptest::option::weighted(0.9, 0_u8..3))),
        after in events(),
    ) {
        let mut world = World::new();
        for event in &before {
            world.happens(event);
        }
        if !world.damage(place, planted.map(|(hlc, value)| row(hlc, value))) {
            // A tombstone for a tombstone.
            return Ok(());
        }
        let walks = world.whole_walks;
        let mut found = after.iter().any(|event| world.happens(event));
        prop_assert!(found || world.whole_walks < walks + 2, "a walk that began after it missed it");
        // What is left of the present walk, and one more.
        found = found || world.slice(100) || world.slice(100);
        prop_assert!(found);
    }
}
