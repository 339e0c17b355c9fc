//! Version vectors form a lattice; row states under `lww` a join semilattice.

use std::collections::BTreeMap;

use anabranch_protocol::commit::Change;
use anabranch_protocol::conflict::{ConflictPolicy, LastWriterWins, Row, Stamp};
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{Epoch, Key, PeerId, ShortHash, WriterId};
use anabranch_protocol::vector::{Head, VersionVector};
use proptest::prelude::*;

pub fn writer(n: u8) -> WriterId {
    WriterId { peer: PeerId([n / 2; 32]), epoch: Epoch([n; 16]) }
}

/// Without forks, a writer's number decides its clock reading and hash.
fn head(n: u8, seq: u64) -> Head {
    let hash = blake3::hash(&[&[n], &seq.to_le_bytes()[..]].concat());
    Head { seq, hlc: Hlc(seq * 3), hash: ShortHash(hash.as_bytes()[..8].try_into().unwrap()) }
}

pub fn vectors() -> impl Strategy<Value = VersionVector> {
    proptest::collection::btree_map(0_u8..6, 1_u64..5, 0..6)
        .prop_map(|heads: BTreeMap<u8, u64>| heads.into_iter().map(|(n, seq)| (writer(n), head(n, seq))).collect())
}

fn joined(a: &VersionVector, b: &VersionVector) -> VersionVector {
    let mut joined = a.clone();
    joined.join(b);
    joined
}

fn rows() -> impl Strategy<Value = Row> {
    // Few stamps and values: equal stamps, as a fork makes them, have to come up.
    (0_u64..3, 0_u8..2, 0_u32..2, proptest::option::of(0_u8..3))
        .prop_map(|(hlc, n, index, value)| Row::new(Stamp { hlc: Hlc(hlc), writer: writer(n), index }, value.map(|v| vec![v])))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn join_and_meet_are_a_lattice(a in vectors(), b in vectors(), c in vectors()) {
        prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        prop_assert_eq!(a.meet(&b), b.meet(&a));
        prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        prop_assert_eq!(a.meet(&b).meet(&c), a.meet(&b.meet(&c)));
        prop_assert_eq!(joined(&a, &a), a.clone());
        prop_assert_eq!(a.meet(&a), a.clone());
        prop_assert_eq!(joined(&a, &a.meet(&b)), a.clone());
        prop_assert_eq!(a.meet(&joined(&a, &b)), a);
    }

    #[test]
    fn covers_is_the_order_of_the_lattice(a in vectors(), b in vectors(), c in vectors()) {
        prop_assert_eq!(a.covers(&b), joined(&a, &b) == a);
        prop_assert_eq!(a.covers(&b), a.meet(&b) == b);
        prop_assert_eq!(a.covers(&b) && b.covers(&a), a == b);
        prop_assert!(!(a.covers(&b) && b.covers(&c)) || a.covers(&c));
        prop_assert_eq!(a.missing(&b) == 0, a.covers(&b));
        prop_assert_eq!(a.commits() + a.missing(&b), joined(&a, &b).commits());
        prop_assert_eq!(a.digest() == b.digest(), a == b);
    }

    #[test]
    fn a_peers_epochs_are_found(a in vectors(), peer in 0_u8..3) {
        let own = a.of_peer(&PeerId([peer; 32]));
        prop_assert!(a.iter().all(|(w, h)| (w.peer == PeerId([peer; 32])) == (own.head(w) == Some(*h))));
    }

    #[test]
    fn lww_is_a_join(a in rows(), b in rows(), c in rows()) {
        let join = |a: &Row, b: &Row| LastWriterWins.join(a.clone(), b.clone());
        prop_assert_eq!(join(&a, &b), join(&b, &a));
        prop_assert_eq!(join(&join(&a, &b), &c), join(&a, &join(&b, &c)));
        prop_assert_eq!(join(&a, &a), a.clone());
        prop_assert!(join(&a, &b).stamp == a.stamp.max(b.stamp));
    }
}

#[test]
fn deletes_win_by_stamp_like_puts() {
    let stamp = |hlc| Stamp { hlc: Hlc(hlc), writer: writer(1), index: 0 };
    let key = Key::new("k").unwrap();
    let put = LastWriterWins.state(stamp(1), &Change::Put { key: key.clone(), value: vec![1] }).unwrap();
    let gone = LastWriterWins.state(stamp(2), &Change::Delete { key }).unwrap();
    assert_eq!(LastWriterWins.join(gone.clone(), put.clone()).value, None);
    assert_eq!(LastWriterWins.join(put, gone).value, None);
    assert_eq!(LastWriterWins.state(stamp(1), &Change::Append { value: vec![1] }), None);
}
