//! A ledger that was written anew shows what the old one did, says it to everybody, and has no stamp of a wrong clock.

use std::collections::BTreeMap;
use std::path::Path;

use anabranch_protocol::commit::{Commit, ForkProof, Identity};
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{Collection, Key, PeerId};
use anabranch_protocol::idempotency::IdempotencyKey;
use anabranch_protocol::replica::{Op, ReplicaSettings, Verdict, WriteOp, WriteRequest, Written};
use anabranch_protocol::value::Value;
use anabranch_protocol::wire::Kind;
use proptest::prelude::*;

use super::super::rows::tests::commit_at;
use super::super::tests::{entropy, now, orders, settings};
use super::*;
use crate::api::ListQuery;
use crate::store::{MemoryEngine, StoreEngine};

/// A year, in the milliseconds that [`now`] counts.
const YEAR: u64 = 365 * 24 * 60 * 60 * 1_000;
const ME: u8 = 7;

fn open(engine: &dyn StoreEngine, place: &str, secret: u8, kind: Kind, seed: &mut u8) -> Ledger {
    let settings = ReplicaSettings { identity: Identity::from_secret(&[secret; 32]), ..settings(kind) };
    Ledger::open(engine, Path::new(place), 1 << 20, settings, &mut entropy(seed)).unwrap()
}

fn customers() -> Collection {
    Collection::new("customers").unwrap()
}

#[derive(Debug, Clone)]
enum Event {
    /// To one of three collections, one of which never replicates.
    Write(u8, u8),
    Keyed(u8),
    Delete(u8),
    Truncate,
    /// Two documents at once, one of them local.
    Both(u8),
    /// To a collection that both replicate, or to one that is registered here now and then.
    TheirWrite(u8, bool),
    Exchange,
    Register(bool),
    Reopen,
    /// Of a third writer's line, which both branches of come from.
    Fork,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0_u8..6, 0_u8..3).prop_map(|(n, of)| Event::Write(n, of)),
        2 => (0_u8..4).prop_map(Event::Keyed),
        2 => (0_u8..6).prop_map(Event::Delete),
        1 => Just(Event::Truncate),
        2 => (0_u8..6).prop_map(Event::Both),
        3 => (0_u8..6, any::<bool>()).prop_map(|(n, of)| Event::TheirWrite(n, of)),
        2 => Just(Event::Exchange),
        1 => any::<bool>().prop_map(Event::Register),
        1 => Just(Event::Reopen),
        1 => Just(Event::Fork),
    ]
}

/// A ledger, one of a peer whose clock is right, and what was answered under keys.
struct World {
    engine: MemoryEngine,
    kind: Kind,
    seed: u8,
    at: u32,
    wrong: bool,
    mine: Option<Ledger>,
    theirs: Ledger,
    /// By number and whether the clock was wrong: a year is longer than a key lasts.
    answers: BTreeMap<(u8, bool), Written>,
}

impl World {
    fn new(kind: Kind) -> Self {
        let (engine, mut seed) = (MemoryEngine::default(), 0);
        let mine = Some(open(&engine, "/mine", ME, kind, &mut seed));
        let mut theirs = open(&engine, "/theirs", 9, kind, &mut seed);
        theirs.register(&customers()).unwrap().0.unwrap();
        Self { engine, kind, seed, at: 0, wrong: false, mine, theirs, answers: BTreeMap::new() }
    }

    fn mine(&mut self) -> &mut Ledger {
        self.mine.as_mut().unwrap()
    }

    /// What the clock says that is right.
    fn right(&self) -> WallClock {
        now(self.at * 10)
    }

    fn clock(&self) -> WallClock {
        WallClock(self.right().0 + if self.wrong { YEAR } else { 0 })
    }

    fn op(&self, n: u8, text: &str) -> Op {
        let value = Value::Text(format!("{text} {n} {}", self.at)).encode();
        match self.kind {
            Kind::Documents => Op::Put { key: Key::new(&format!("k{n}")).unwrap(), value },
            Kind::Append => Op::Append { value },
        }
    }

    fn write(&mut self, request: WriteRequest) -> Written {
        let (clock, mut seed) = (self.clock(), self.seed);
        let (mut outcomes, _) = self.mine().write(clock, &[request], &mut entropy(&mut seed)).unwrap();
        self.seed = seed;
        outcomes.remove(0).unwrap()
    }

    fn keyed(&self, n: u8, wrong: bool) -> WriteRequest {
        let key: IdempotencyKey = format!("key-{n}-{wrong}").parse().unwrap();
        let op = match self.kind {
            Kind::Documents => {
                Op::Put { key: Key::new(&format!("keyed{n}")).unwrap(), value: Value::Text("keyed".into()).encode() }
            }
            Kind::Append => Op::Append { value: Value::Text("keyed".into()).encode() },
        };
        WriteRequest::once(vec![WriteOp { collection: orders(), op }], &key)
    }

    fn happens(&mut self, event: &Event) {
        self.at += 1;
        let documents = self.kind == Kind::Documents;
        let to = |collection: Collection, op| WriteOp { collection, op };
        match event {
            Event::Write(n, of) => {
                let of = [orders(), customers(), Collection::new("drafts").unwrap()][usize::from(*of)].clone();
                let op = self.op(*n, "mine");
                self.write(WriteRequest::new(vec![to(of, op)]));
            }
            Event::Keyed(n) => {
                let written = self.write(self.keyed(*n, self.wrong));
                assert_eq!(*self.answers.entry((*n, self.wrong)).or_insert_with(|| written.clone()), written);
            }
            Event::Delete(n) if documents => {
                let op = Op::Delete { key: Key::new(&format!("k{n}")).unwrap(), must_exist: false };
                self.write(WriteRequest::new(vec![to(orders(), op)]));
            }
            Event::Truncate if documents => drop(self.write(WriteRequest::new(vec![to(orders(), Op::Truncate)]))),
            Event::Both(n) => {
                let (a, b) = (self.op(*n, "drafted"), self.op(*n, "both"));
                self.write(WriteRequest::new(vec![to(Collection::new("drafts").unwrap(), a), to(orders(), b)]));
            }
            Event::TheirWrite(n, both) => {
                let of = if *both { orders() } else { customers() };
                let (request, at, mut seed) = (WriteRequest::new(vec![to(of, self.op(*n, "theirs"))]), self.right(), self.seed);
                self.theirs.write(at, &[request], &mut entropy(&mut seed)).unwrap();
                self.seed = seed;
            }
            Event::Exchange => self.exchange(),
            Event::Register(registered) => self.register(*registered),
            Event::Reopen => self.reopen(),
            Event::Fork => self.fork(),
            Event::Delete(_) | Event::Truncate => {}
        }
    }

    fn exchange(&mut self) {
        let (clock, right) = (self.clock(), self.right());
        let mine = self.mine.as_mut().unwrap();
        mine.receive(clock, commits(&self.theirs)).unwrap();
        self.theirs.receive_with(right, commits(mine), proofs(mine)).unwrap();
    }

    fn fork(&mut self) {
        let (clock, kind) = (self.clock(), self.kind);
        let at = |before: Option<&Commit>, n: u8| {
            commit_at(kind, before, &Key::new(&format!("forked{n}")).unwrap(), Some(vec![n]), Hlc::at(now(u32::from(n))))
        };
        let first = at(None, 1);
        let (one, other) = (at(Some(&first), 2), at(Some(&first), 3));
        let (on, proof) = (at(Some(&one), 4), ForkProof::of(&one, &other).unwrap());
        let mine = self.mine();
        mine.receive(clock, vec![first, one]).unwrap();
        mine.receive_with(clock, vec![other, on], vec![proof]).unwrap();
    }

    fn register(&mut self, registered: bool) {
        let (clock, mut seed) = (self.clock(), self.seed);
        let mine = self.mine();
        drop(if registered { mine.register(&customers()) } else { mine.unregister(&customers()) }.unwrap());
        while mine.issue(clock, &mut entropy(&mut seed)).unwrap().1 {}
        self.seed = seed;
        // What was left out comes again, and takes the place of what is here.
        let theirs = commits(&self.theirs);
        self.mine().widen(theirs).unwrap();
    }

    fn reopen(&mut self) {
        self.mine = None;
        let mut seed = self.seed;
        self.mine = Some(open(&self.engine, "/mine", ME, self.kind, &mut seed));
        self.seed = seed;
    }

    fn rebuild(&mut self, place: &str) -> Result<Rebuilt, RebuildError> {
        let (right, mut seed) = (self.right(), self.seed);
        let mut new = open(&self.engine, place, ME, self.kind, &mut seed);
        let done = self.mine().rebuild_into(&mut new, right, &mut entropy(&mut seed), &|| true);
        self.seed = seed;
        drop(new);
        self.mine = Some(open(&self.engine, place, ME, self.kind, &mut seed));
        done
    }
}

/// All that a ledger may send.
fn commits(ledger: &Ledger) -> Vec<Commit> {
    let all = ledger.replica().vector().iter().flat_map(|(writer, head)| (1..=head.seq).map(|seq| (*writer, seq)));
    // A branch has none below its fork.
    let there = all.filter(|(line, seq)| ledger.view().arrival(line, *seq).unwrap().is_some());
    there.map(|(line, seq)| ledger.view().commit(&line, seq).unwrap().unwrap()).collect()
}

fn proofs(ledger: &Ledger) -> Vec<ForkProof> {
    ledger.replica().forks().iter().map(|fork| fork.proof().clone()).collect()
}

/// Keys and values; of records the values alone, for they are named by their stamps.
fn shown(ledger: &Ledger, kind: Kind, of: &Collection) -> Vec<(String, Vec<u8>)> {
    let query = ListQuery { limit: 10_000, ..ListQuery::default() };
    let documents = ledger.view().list(of, &query).unwrap().documents;
    let named = |key: &Key| if kind == Kind::Documents { key.to_string() } else { String::new() };
    let mut all: Vec<_> = documents.into_iter().map(|document| (named(&document.key), document.value)).collect();
    all.sort();
    all
}

fn all_shown(ledger: &Ledger, kind: Kind) -> Vec<Vec<(String, Vec<u8>)>> {
    [orders(), customers(), Collection::new("drafts").unwrap()].iter().map(|of| shown(ledger, kind, of)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_written_anew_shows_the_same_and_everybody_takes_it(
        kind in prop_oneof![Just(Kind::Documents), Just(Kind::Append)],
        before in proptest::collection::vec(event(), 0..14), ahead in proptest::collection::vec(event(), 0..14),
    ) {
        let mut world = World::new(kind);
        before.iter().for_each(|event| world.happens(event));
        world.wrong = true;
        ahead.iter().for_each(|event| world.happens(event));
        world.wrong = false;
        let (right, me) = (world.right(), Identity::from_secret(&[ME; 32]).peer());
        let (lies, shows) = (world.mine().ahead_of(right).unwrap(), all_shown(world.mine(), kind));
        let others = |ledger: &Ledger| ledger.replica().vector().iter().filter(|(w, _)| w.peer != me).map(|(w, h)| (*w, *h)).collect::<Vec<_>>();
        let (theirs, enrolled) = (others(world.mine()), world.mine().enrolments().clone());
        let registered = world.mine().replica().registration().clone();
        let done = world.rebuild("/new").unwrap();
        prop_assert_eq!(done.commits, lies.commits());

        // It is sound, and the same but for stamps.
        let new = world.mine();
        new.check().and_then(|()| new.audit()).unwrap();
        prop_assert_eq!(new.ahead_of(right).unwrap(), AheadOfWall::default());
        prop_assert_eq!(all_shown(new, kind), shows);
        prop_assert_eq!((others(new), new.enrolments(), new.replica().registration()), (theirs, &enrolled, &registered));

        // What was answered under keys is answered as it is now, and does not happen twice.
        let count = new.replica().vector().commits();
        for (n, wrong) in world.answers.keys().copied().collect::<Vec<_>>() {
            let written = world.write(world.keyed(n, wrong));
            let token = written.token.unwrap();
            let there = world.mine().view().commit(&token.writer, token.seq).unwrap().unwrap();
            prop_assert_eq!(&there.hash().0[..4], &token.hash[..]);
            let document = world.mine().view().get(&orders(), &written.key.unwrap()).unwrap();
            prop_assert!(kind == Kind::Documents || document.is_some_and(|document| Some(document.stamp) == written.stamp));
        }
        prop_assert_eq!(world.mine().replica().vector().commits(), count);

        // A peer whose clock is right takes all of it, and then shows the same; what is written later wins.
        world.at += 1;
        let mine = world.mine.as_ref().unwrap();
        let (verdicts, _, _) = world.theirs.receive_with(right, commits(mine), proofs(mine)).unwrap();
        let taken = |verdict: &Verdict| matches!(verdict, Verdict::Applied | Verdict::Duplicate);
        prop_assert!(verdicts.iter().all(taken), "{:?}", verdicts);
        world.exchange();
        prop_assert_eq!(shown(&world.theirs, kind, &orders()), shown(world.mine(), kind, &orders()));
        world.happens(&Event::TheirWrite(0, true));
        world.exchange();
        prop_assert_eq!(shown(&world.theirs, kind, &orders()), shown(world.mine(), kind, &orders()));
        let last = Value::Text(format!("theirs 0 {}", world.at)).encode();
        prop_assert!(shown(world.mine(), kind, &orders()).iter().any(|(_, value)| *value == last));

        // Written anew once more, with nothing to repair, it is the same to the last stamp.
        let fingerprint = world.mine().replica().fingerprint();
        prop_assert_eq!(world.rebuild("/newer").unwrap(), Rebuilt::default());
        prop_assert_eq!(world.mine().replica().fingerprint(), fingerprint);
    }
}

#[test]
fn others_commits_that_are_ahead_are_not_signed_by_this_node() {
    let mut world = World::new(Kind::Documents);
    world.wrong = true;
    world.at += 1;
    let (clock, mut seed) = (world.clock(), world.seed);
    let request = WriteRequest::new(vec![WriteOp { collection: orders(), op: world.op(1, "theirs") }]);
    world.theirs.write(clock, &[request], &mut entropy(&mut seed)).unwrap();
    world.mine.as_mut().unwrap().receive(clock, commits(&world.theirs)).unwrap();
    let right = world.right();
    let ahead = world.mine().ahead_of(right).unwrap();
    assert!(ahead.clock && ahead.own.is_empty() && ahead.others.len() == 1, "{ahead:?}");
    let theirs: PeerId = world.theirs.replica().settings().identity.peer();
    let refused = world.rebuild("/new").unwrap_err();
    assert!(matches!(&refused, RebuildError::NotOurs { writer, seq: 1 } if writer.peer == theirs), "{refused}");
}

#[test]
fn the_first_commit_that_is_ahead_is_found() {
    let mut world = World::new(Kind::Documents);
    (0..9).for_each(|n| world.happens(&Event::Write(n, 0)));
    world.wrong = true;
    (0..5).for_each(|n| world.happens(&Event::Write(n, 0)));
    let right = world.right();
    let ahead = world.mine().ahead_of(right).unwrap();
    assert_eq!(ahead.own.iter().map(|line| (line.first, line.last)).collect::<Vec<_>>(), [(10, 14)]);
    // What is ahead by no more than is allowed stays.
    assert_eq!(world.mine().ahead_of(WallClock(right.0 + YEAR)).unwrap(), AheadOfWall::default());
}
