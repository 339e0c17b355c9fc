//! A walk over log and index between turns: never an alarm without damage, and no damage that a whole walk misses.

use std::collections::BTreeMap;

use anabranch_protocol::audit::places::{Differs, Indexed, Next, PlaceWalk};
use anabranch_protocol::id::Collection;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Event {
    /// A record under a key of its own.
    Commit,
    /// A copy with more sections takes the place of an earlier record, under its key and one more.
    Widen(prop::sample::Index),
    /// A record that stays local.
    Local,
    /// Says to everybody what an earlier one kept local.
    Issue(prop::sample::Index),
    Slice(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Commit,
    Moved,
    Local,
    Issued,
    Issues(u64),
}

/// Records from arrival 1 on with their keys, where the keys lead, and a walk.
#[derive(Debug, Default)]
struct World {
    log: Vec<(Kind, Vec<u8>)>,
    index: BTreeMap<u8, u64>,
    walk: PlaceWalk,
    whole_walks: u64,
}

fn collection() -> Collection {
    Collection::new("c").unwrap()
}

impl World {
    fn put(&mut self, key: u8, place: Option<u64>) {
        let old: Vec<u64> = self.index.get(&key).copied().into_iter().collect();
        let new: Vec<u64> = place.into_iter().collect();
        self.walk.replaced(&[key], &old, &new);
        match place {
            Some(place) => drop(self.index.insert(key, place)),
            None => drop(self.index.remove(&key)),
        }
    }

    fn append(&mut self, kind: Kind, mut keys: Vec<u8>) {
        // Keys come in any order.
        keys.push(u8::try_from(self.log.len()).unwrap().wrapping_mul(97));
        self.log.push((kind, keys.clone()));
        keys.into_iter().for_each(|key| self.put(key, Some(self.log.len() as u64)));
    }

    fn of_kind(&self, kind: Kind, which: prop::sample::Index) -> Option<usize> {
        let all: Vec<usize> = (0..self.log.len()).filter(|at| self.log[*at].0 == kind).collect();
        (!all.is_empty()).then(|| all[which.index(all.len())])
    }

    fn happens(&mut self, event: &Event) -> Result<(), Differs> {
        match event {
            Event::Commit => self.append(Kind::Commit, Vec::new()),
            Event::Local => self.append(Kind::Local, Vec::new()),
            Event::Widen(which) => {
                if let Some(at) = self.of_kind(Kind::Commit, *which) {
                    self.log[at].0 = Kind::Moved;
                    self.append(Kind::Commit, self.log[at].1.clone());
                }
            }
            Event::Issue(which) => {
                if let Some(at) = self.of_kind(Kind::Local, *which) {
                    self.log[at].0 = Kind::Issued;
                    self.append(Kind::Issues(at as u64 + 1), Vec::new());
                    self.put(self.log[at].1[0], None);
                    self.walk.issued(at as u64 + 1, &collection());
                }
            }
            Event::Slice(room) => return self.slice(*room),
        }
        Ok(())
    }

    fn slice(&mut self, room: usize) -> Result<(), Differs> {
        for _ in 0..room {
            match self.walk.next() {
                Next::Record(arrival) => match self.log.get(usize::try_from(arrival).unwrap() - 1) {
                    Some((kind, keys)) => {
                        let indexed = self.indexed(arrival, *kind, keys);
                        self.walk.read_record(&indexed);
                    }
                    None => self.walk.log_ends()?,
                },
                Next::Row(after) => {
                    let from = after.map_or(0, |after| u16::from(after[0]) + 1);
                    let row = self.index.iter().find(|(key, _)| u16::from(**key) >= from).map(|(key, place)| (*key, *place));
                    match row {
                        Some((key, place)) => self.walk.read_row(&[key], &[place]),
                        None => {
                            std::mem::take(&mut self.walk).index_ends()?;
                            self.whole_walks += 1;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn indexed(&self, arrival: u64, kind: Kind, keys: &[u8]) -> Indexed {
        let leads = |key: &&u8| self.index.get(key) == Some(&arrival);
        let found: Vec<Vec<u8>> = keys.iter().filter(leads).map(|key| vec![*key]).collect();
        let local = matches!(kind, Kind::Local | Kind::Issued) && found.is_empty();
        Indexed {
            keys: found,
            unindexed: if local { vec![collection()] } else { Vec::new() },
            issues: if let Kind::Issues(local) = kind { vec![(local, collection())] } else { Vec::new() },
        }
    }
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let index = any::<prop::sample::Index>;
    let event = prop_oneof![
        3 => Just(Event::Commit),
        2 => index().prop_map(Event::Widen),
        2 => Just(Event::Local),
        2 => index().prop_map(Event::Issue),
        6 => (0_usize..5).prop_map(Event::Slice),
    ];
    proptest::collection::vec(event, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_walk_raises_an_alarm_over_a_whole_index(events in events()) {
        let mut world = World::default();
        for event in &events {
            prop_assert_eq!(world.happens(event), Ok(()), "false alarm after {:?}", event);
        }
        prop_assert_eq!(world.slice(400), Ok(()));
        prop_assert!(world.whole_walks > 0);
    }

    /// A row that leads nowhere or stands there for nothing, or a local one that is gone. (That a record is in no index, whoever looks
    /// it up finds.)
    #[test]
    fn what_the_index_is_off_by_is_always_found(
        before in events(), stray in any::<bool>(), which in any::<prop::sample::Index>(), after in events(),
    ) {
        let mut world = World::default();
        for event in &before {
            world.happens(event).unwrap();
        }
        let at = world.of_kind(Kind::Local, which).filter(|_| !stray);
        match at {
            Some(at) => drop(world.index.remove(&world.log[at].1[0])),
            // No record has this key: there are fewer than it takes.
            None => drop(world.index.insert(97_u8.wrapping_mul(200), 1)),
        }
        let walks = world.whole_walks;
        // What is gone can't be issued any more.
        let after = after.iter().filter(|event| !matches!(event, Event::Issue(_)));
        let found = after.map(|event| world.happens(event)).any(|happened| happened.is_err());
        prop_assert!(found || world.whole_walks < walks + 2, "a walk that began after it missed it");
        prop_assert!(found || world.slice(1_000).is_err() || world.slice(1_000).is_err());
    }
}
