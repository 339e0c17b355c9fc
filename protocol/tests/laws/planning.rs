//! Who pulls what, how two replicas stand, and what everybody has.

use std::collections::BTreeSet;

use anabranch_protocol::commit::Identity;
use anabranch_protocol::confirmation::{Checked, ConfirmationError, Confirmations, SignedStatement, Statement};
use anabranch_protocol::id::{DatasetId, Incarnation, Lineage, PeerId};
use anabranch_protocol::limits::STATED_PEERS_MAX;
use anabranch_protocol::plan::{Standing, plan_pull, standing};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::vector::VersionVector;
use proptest::prelude::*;

use crate::lattice::{vectors, writer};

pub fn statement(secret: u8, incarnation: u8, counter: u64, vector: VersionVector) -> (Statement, SignedStatement) {
    let identity = Identity::from_secret(&[secret; 32]);
    let statement = Statement {
        dataset: None,
        peer: identity.peer(),
        incarnation: Incarnation([incarnation; 16]),
        counter,
        registration: Registration::all(),
        vector,
    };
    let signed = SignedStatement::sign(&statement, Lineage::ZERO, &identity);
    (statement, signed)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_pull_asks_for_exactly_what_is_missing(mine in vectors(), theirs in vectors(), alone in 0_u8..6) {
        let left_alone = BTreeSet::from([writer(alone)]);
        let wants = plan_pull(&mine, &theirs, &left_alone);
        prop_assert!(wants.iter().all(|want| want.is_valid() && want.from_seq == mine.seq(&want.writer) + 1));
        let asked: u64 = wants.iter().map(|want| theirs.seq(&want.writer) + 1 - want.from_seq).sum();
        let skipped = theirs.seq(&writer(alone)).saturating_sub(mine.seq(&writer(alone)));
        prop_assert_eq!(asked + skipped, mine.missing(&theirs));
        prop_assert!(wants.iter().all(|want| want.writer != writer(alone)));
    }

    #[test]
    fn standing_is_symmetric(a in vectors(), b in vectors()) {
        let mirrored = match standing(&b, &a) {
            Standing::Behind => Standing::Ahead,
            Standing::Ahead => Standing::Behind,
            same => same,
        };
        prop_assert_eq!(standing(&a, &b), mirrored);
        prop_assert_eq!(standing(&a, &b) == Standing::InSync, a == b);
        prop_assert_eq!(standing(&a, &b) == Standing::Diverged, a.missing(&b) > 0 && b.missing(&a) > 0);
    }

    #[test]
    fn the_frontier_is_what_everybody_has(own in vectors(), a in vectors(), b in vectors()) {
        let mut confirmations = Confirmations::default();
        let mut members = Vec::new();
        for (secret, vector) in [(1, &a), (2, &b)] {
            let (statement, signed) = statement(secret, 0, 1, vector.clone());
            members.push(statement.peer);
            prop_assert!(confirmations.insert(&statement.peer.clone(), statement, signed));
        }
        let frontier = confirmations.frontier(members.clone(), &own);
        prop_assert_eq!(&frontier, &own.meet(&a).meet(&b));
        prop_assert!(own.covers(&frontier) && a.covers(&frontier) && b.covers(&frontier));
        members.push(PeerId([9; 32]));
        prop_assert!(confirmations.frontier(members, &own).is_empty(), "one never confirmed");
        prop_assert_eq!(confirmations.frontier([], &own), own);
    }

    /// What is known is as if every statement's signature were checked, and nothing that was forged is among it.
    #[test]
    fn a_statement_that_is_told_again_needs_no_second_check(told in proptest::collection::vec(told(), 1..40)) {
        let (mut all, mut once, mut checked) = (Confirmations::default(), Confirmations::default(), Checked::default());
        for Told { secret, incarnation, counter, relayed, forged } in told {
            let (made, mut signed) = statement(secret, incarnation, counter, VersionVector::new());
            if forged {
                signed = SignedStatement::sign(&made, Lineage::ZERO, &Identity::from_secret(&[8; 32]));
            }
            let from = if relayed { PeerId([9; 32]) } else { made.peer };
            if let Ok(statement) = signed.verify(&DatasetId::primary(), Lineage::ZERO) {
                all.insert(&from, statement, signed.clone());
            }
            let opened = checked.open(&from, &signed, &DatasetId::primary(), Lineage::ZERO);
            prop_assert!(relayed || forged == opened.is_err(), "what a peer says of itself is always opened");
            if let Ok(Some(statement)) = opened {
                prop_assert!(!forged);
                once.insert(&from, statement, signed);
            }
            prop_assert!(all.signed().eq(once.signed()));
        }
    }
}

/// A statement on its way.
#[derive(Debug, Clone)]
struct Told {
    secret: u8,
    incarnation: u8,
    counter: u64,
    relayed: bool,
    forged: bool,
}

fn told() -> impl Strategy<Value = Told> {
    (1..3_u8, 0..3_u8, 0..6_u64, any::<bool>(), proptest::bool::weighted(0.2))
        .prop_map(|(secret, incarnation, counter, relayed, forged)| Told { secret, incarnation, counter, relayed, forged })
}

#[test]
fn an_older_statement_changes_nothing_unless_the_peer_itself_begins_anew() {
    let mut confirmations = Confirmations::default();
    let mut insert = |relayed, incarnation, counter| {
        let (statement, signed) = statement(1, incarnation, counter, VersionVector::new());
        let from = if relayed { PeerId([9; 32]) } else { statement.peer };
        confirmations.insert(&from, statement, signed)
    };
    assert!(insert(true, 1, 5));
    assert!(!insert(true, 1, 5));
    assert!(!insert(false, 1, 4));
    assert!(insert(true, 1, 6));
    assert!(!insert(true, 2, 1), "nobody may replay an old life's statement");
    assert!(insert(true, 2, 7), "a later one of another life is news");
    assert!(insert(false, 3, 1), "a new store speaks for itself");
    assert_eq!(confirmations.signed().count(), 1);
}

#[test]
fn what_a_peer_answers_in_the_name_of_another_leaves_no_mark() {
    let (made, signed) = statement(1, 1, 5, VersionVector::new());
    let (primary, stranger, mut checked) = (DatasetId::primary(), PeerId([9; 32]), Checked::default());
    assert_eq!(checked.open_own(&stranger, &signed, &primary, Lineage::ZERO), Ok(None));
    assert_eq!(checked.open(&stranger, &signed, &primary, Lineage::ZERO), Ok(Some(made.clone())), "relayed, it is news");
    assert_eq!(checked.open_own(&made.peer.clone(), &signed, &primary, Lineage::ZERO), Ok(Some(made)));
}

#[test]
fn made_up_identities_don_t_fill_the_memory() {
    let mut checked = Checked::default();
    let (known, told_first) = statement(1, 1, 1, VersionVector::new());
    let mut open = |signed: &SignedStatement| {
        checked.open(&PeerId([9; 32]), signed, &DatasetId::primary(), Lineage::ZERO).unwrap().is_some()
    };
    assert!(open(&told_first));
    let identity = |n: usize| Identity::from_secret(&std::array::from_fn(|at| n.to_be_bytes().get(at).copied().unwrap_or(7)));
    let of = |n: usize| Statement { peer: identity(n).peer(), ..known.clone() };
    let admitted = (0..STATED_PEERS_MAX + 10).filter(|n| open(&SignedStatement::sign(&of(*n), Lineage::ZERO, &identity(*n))));
    assert_eq!(admitted.count(), STATED_PEERS_MAX - 1);
    assert!(open(&statement(1, 1, 2, VersionVector::new()).1), "who is known goes on");
}

#[test]
fn a_statement_counts_for_its_dataset_lineage_and_peer_only() {
    let (made, signed) = statement(1, 1, 1, VersionVector::new());
    let primary = DatasetId::primary();
    assert_eq!(signed.verify(&primary, Lineage::ZERO), Ok(made.clone()));
    assert_eq!(signed.verify(&DatasetId::new("other").unwrap(), Lineage::ZERO), Err(ConfirmationError::OtherDataset));
    assert_eq!(signed.verify(&primary, Lineage([1; 16])), Err(ConfirmationError::Signature));
    let forged = SignedStatement::sign(&made, Lineage::ZERO, &Identity::from_secret(&[2; 32]));
    assert_eq!(forged.verify(&primary, Lineage::ZERO), Err(ConfirmationError::Signature));
    let mut both = made;
    both.registration.collections.insert(crate::world::collection(0));
    let two_encodings = SignedStatement::sign(&both, Lineage::ZERO, &Identity::from_secret(&[1; 32]));
    assert!(matches!(two_encodings.verify(&primary, Lineage::ZERO), Err(ConfirmationError::Decode(_))));
}

/// For worlds on one thread: what held once holds again, and nothing else does.
#[test]
fn a_signature_that_is_remembered_is_the_one_that_held() {
    use anabranch_protocol::commit::{remember_signatures, signature_holds};
    use anabranch_protocol::id::Hash;
    let (one, other) = (Identity::from_secret(&[1; 32]), Identity::from_secret(&[2; 32]));
    let (hash, signature) = (Hash([3; 32]), one.sign(&Hash([3; 32])));
    for remembers in [false, true, true, false] {
        remember_signatures(remembers);
        for _ in 0..2 {
            assert!(signature_holds(&one.peer(), &hash, &signature));
            assert!(!signature_holds(&other.peer(), &hash, &signature));
            assert!(!signature_holds(&one.peer(), &Hash([4; 32]), &signature));
            assert!(!signature_holds(&one.peer(), &hash, &other.sign(&hash)));
        }
    }
}
