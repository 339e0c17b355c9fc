//! Coverage never claims a commit that was not delivered while its collection was registered, and asks for no more than is missing.

use std::collections::{BTreeMap, BTreeSet};

use anabranch_protocol::coverage::{Coverages, RegistrationRefusal, Scope, Standing};
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{Collection, Epoch, PeerId, ShortHash, WriterId};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::vector::{Head, VersionVector};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::collection;

fn writer(n: u8) -> WriterId {
    WriterId { peer: PeerId([n; 32]), epoch: Epoch([1; 16]) }
}

fn vector(heads: &[(u8, u64)]) -> VersionVector {
    let head = |seq| Head { seq, hlc: Hlc(seq), hash: ShortHash([0; 8]) };
    heads.iter().map(|(n, seq)| (writer(*n), head(*seq))).collect()
}

fn some(names: &[u8]) -> Registration {
    Registration::of(names.iter().map(|n| collection(*n)))
}

#[test]
fn what_was_changed_at_run_time_outlives_a_configuration_that_says_nothing_new() {
    let v = vector(&[(1, 5)]);
    let mut coverages = Coverages::configured(&some(&[0, 1]));
    assert_eq!(coverages.register(&collection(2), &v), Ok(true));
    assert_eq!(coverages.register(&collection(2), &v), Ok(false));
    assert_eq!(coverages.unregister(&collection(1), &v), Ok(true));
    assert_eq!(coverages.registration().number, 3);
    coverages.reconfigure(&some(&[0, 1]), &v);
    assert_eq!(coverages.registration(), Registration { number: 3, ..some(&[0, 2]) });
    // The configuration drops one and adds one: just these change.
    coverages.reconfigure(&some(&[1, 3]), &v);
    assert_eq!(coverages.registration(), Registration { number: 4, ..some(&[2, 3]) });
    coverages.reconfigure(&Registration::all(), &v);
    assert_eq!(coverages.registration(), Registration { number: 5, ..Registration::all() });
    assert_eq!(coverages.unregister(&collection(2), &v), Err(RegistrationRefusal::EveryCollection));
    assert_eq!(coverages.register(&collection(2), &v), Ok(false));
    coverages.reconfigure(&some(&[2]), &v);
    assert_eq!(coverages.registration(), Registration { number: 6, ..some(&[2]) });
    let control = Collection::new("_control").unwrap();
    assert!(matches!(coverages.register(&control, &v), Err(RegistrationRefusal::Reserved(_))));
}

#[test]
fn only_what_was_missed_is_imported() {
    let mut coverages = Coverages::configured(&some(&[0]));
    assert_eq!(coverages.register(&collection(1), &VersionVector::new()), Ok(true));
    assert_eq!(coverages.standing(&collection(1)), Standing::Complete, "nothing was there before it");
    assert_eq!(coverages.unregister(&collection(1), &vector(&[(1, 10)])), Ok(true));
    assert_eq!(coverages.standing(&collection(1)), Standing::Frozen);
    assert_eq!(coverages.standing(&collection(2)), Standing::Absent);
    let now = vector(&[(1, 15), (2, 3)]);
    assert_eq!(coverages.register(&collection(1), &now), Ok(true));
    assert_eq!(coverages.standing(&collection(1)), Standing::Importing { missing: 8 });
    let wants = coverages.wants(&[Scope::One(collection(1))], &now);
    assert_eq!(wants.iter().map(|want| (want.writer, want.from_seq)).collect::<Vec<_>>(), [(writer(1), 11), (writer(2), 1)]);
    assert!(coverages.wants(&[Scope::One(collection(1))], &vector(&[(1, 10)])).is_empty());
    // `*` had everything up to here, so what is listed afterwards has it too.
    coverages.reconfigure(&Registration::all(), &now);
    for (n, seqs) in [(1, 1..=15), (2, 1..=3)] {
        seqs.for_each(|seq| assert_eq!(coverages.took(&writer(n), seq, |_| true), [Scope::All]));
    }
    coverages.reconfigure(&some(&[2]), &vector(&[(1, 20), (2, 3)]));
    assert_eq!(coverages.standing(&collection(2)), Standing::Complete);
    assert_eq!(coverages.standing(&collection(3)), Standing::Frozen, "up to now it was in `*`");
    assert_eq!(coverages.register(&collection(3), &vector(&[(1, 21), (2, 3)])), Ok(true));
    assert_eq!(coverages.standing(&collection(3)), Standing::Importing { missing: 1 });
}

#[derive(Debug, Clone)]
enum Step {
    Register(u8),
    Unregister(u8),
    Configure(Vec<u8>),
    ConfigureAll,
    /// A writer's next commit arrives.
    Commit(u8),
    /// A peer delivers what is wanted of a scope, if it is.
    Deliver(u8),
    DeliverAll,
    /// A writer's line parts before one of its commits.
    Part(u8, prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0_u8..3).prop_map(Step::Register),
        2 => (0_u8..3).prop_map(Step::Unregister),
        1 => vec(0_u8..3, 0..3).prop_map(Step::Configure),
        1 => Just(Step::ConfigureAll),
        6 => (1_u8..3).prop_map(Step::Commit),
        4 => (0_u8..3).prop_map(Step::Deliver),
        2 => Just(Step::DeliverAll),
        1 => (1_u8..3, any::<prop::sample::Index>()).prop_map(|(n, at)| Step::Part(n, at)),
    ];
    vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Beside a model that remembers which section of which commit is here.
    #[test]
    fn a_complete_collection_has_every_section(steps in steps(), afterwards in 0_u8..3) {
        let mut coverages = Coverages::configured(&some(&[0]));
        let mut heads: BTreeMap<u8, u64> = BTreeMap::new();
        let mut here: BTreeSet<(u8, u64, u8)> = BTreeSet::new();
        // Where branches begin; there is nothing of them below that.
        let mut first: BTreeMap<u8, u64> = BTreeMap::new();
        let mut number = 0;
        for step in steps {
            let v = vector(&heads.iter().map(|(n, seq)| (*n, *seq)).collect::<Vec<_>>());
            match step {
                Step::Register(c) => drop(coverages.register(&collection(c), &v)),
                Step::Unregister(c) => drop(coverages.unregister(&collection(c), &v)),
                Step::Configure(names) => coverages.reconfigure(&some(&names), &v),
                Step::ConfigureAll => coverages.reconfigure(&Registration::all(), &v),
                Step::Commit(n) => {
                    let seq = heads.entry(n).or_default();
                    *seq += 1;
                    let registration = coverages.registration();
                    here.extend((0..3).filter(|c| registration.contains(&collection(*c))).map(|c| (n, *seq, c)));
                }
                Step::Deliver(c) => deliver(&mut coverages, &Scope::One(collection(c)), &v, &[c], &mut here, &first),
                Step::DeliverAll => deliver(&mut coverages, &Scope::All, &v, &[0, 1, 2], &mut here, &first),
                Step::Part(n, at) => {
                    let (branch, head) = (n + 10, heads.get(&n).copied().unwrap_or(0));
                    if head == 0 || heads.contains_key(&branch) {
                        continue;
                    }
                    let from = at.index(usize::try_from(head).unwrap()) as u64 + 1;
                    coverages.part(&writer(n), from - 1, &writer(branch));
                    let again = coverages.clone();
                    coverages.part(&writer(n), from - 1, &writer(branch));
                    prop_assert_eq!(&coverages, &again);
                    heads.insert(n, from - 1);
                    heads.retain(|_, seq| *seq > 0);
                    heads.insert(branch, head);
                    first.insert(branch, from);
                    let of_branch = |(of, seq, c): (u8, u64, u8)| if of == n && seq >= from { (branch, seq, c) } else { (of, seq, c) };
                    here = here.into_iter().map(of_branch).collect();
                }
            }
            let registration = coverages.registration();
            prop_assert!(registration.is_valid() && registration.number >= number);
            number = registration.number;
            for c in 0..3 {
                if coverages.standing(&collection(c)) == Standing::Complete {
                    let all = heads.iter().flat_map(|(n, seq)| (first.get(n).copied().unwrap_or(1)..=*seq).map(|seq| (*n, seq, c)));
                    let lost: Vec<_> = all.filter(|section| !here.contains(section)).collect();
                    prop_assert!(lost.is_empty(), "{c} counts as complete without {lost:?}: {coverages:?}");
                }
            }
        }
        // And whatever is imported comes to its end once peers deliver.
        let v = vector(&heads.iter().map(|(n, seq)| (*n, *seq)).collect::<Vec<_>>());
        drop(coverages.register(&collection(afterwards), &v));
        let scopes: Vec<Scope> = coverages.importing().map(|(scope, _)| scope.clone()).collect();
        for scope in scopes {
            let sections: Vec<u8> = match &scope {
                Scope::All => vec![0, 1, 2],
                Scope::One(name) => (0..3).filter(|c| collection(*c) == *name).collect(),
            };
            for _ in 0..120 {
                deliver(&mut coverages, &scope, &v, &sections, &mut here, &first);
            }
        }
        prop_assert_eq!(coverages.importing().count(), 0, "{:?}", coverages);
    }
}

/// A peer delivers the first missing commit of each writer, with the sections of a scope.
fn deliver(
    coverages: &mut Coverages,
    scope: &Scope,
    v: &VersionVector,
    sections: &[u8],
    here: &mut BTreeSet<(u8, u64, u8)>,
    first: &BTreeMap<u8, u64>,
) {
    for want in coverages.wants(std::slice::from_ref(scope), v) {
        let n = want.writer.peer.0[0];
        here.extend(sections.iter().map(|c| (n, want.from_seq, *c)));
        let kept = here.clone();
        let nothing = first.get(&n).is_some_and(|first| want.from_seq < *first);
        let whole = |scope: &Scope| match scope {
            _ if nothing => true,
            Scope::All => (0..3).all(|c| kept.contains(&(n, want.from_seq, c))),
            Scope::One(name) => (0..3).any(|c| collection(c) == *name && kept.contains(&(n, want.from_seq, c))),
        };
        coverages.took(&want.writer, want.from_seq, whole);
    }
}
