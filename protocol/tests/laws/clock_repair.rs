//! What is taken back nobody has, and a clock is suspected by most peers or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anabranch_protocol::clock_repair::{
    AheadLine, AheadOfWall, Heard, RepairRefusal, disagrees, is_suspect, may_take_back, still_here,
};
use anabranch_protocol::hlc::{Hlc, WallClock};
use anabranch_protocol::id::{Epoch, PeerId, ShortHash, WriterId};
use anabranch_protocol::vector::{Head, VersionVector};
use anabranch_protocol::wire::Held;
use proptest::prelude::*;

const ME: PeerId = PeerId([1; 32]);
const SKEW: Duration = Duration::from_secs(300);

fn line(n: u8) -> WriterId {
    WriterId { peer: ME, epoch: Epoch([n; 16]) }
}

fn head(seq: u64) -> Head {
    Head { seq, hlc: Hlc(seq), hash: ShortHash([0; 8]) }
}

fn vector(seqs: &[u64]) -> VersionVector {
    (1..).zip(seqs).filter(|(_, seq)| **seq > 0).map(|(n, seq)| (line(n), head(*seq))).collect()
}

fn ahead() -> impl Strategy<Value = AheadOfWall> {
    let line = |n| (1_u64..6, 0_u64..5).prop_map(move |(first, more)| AheadLine { writer: line(n), first, last: first + more });
    let own = (line(1), line(2)).prop_flat_map(|(a, b)| prop_oneof![Just(vec![]), Just(vec![a]), Just(vec![a, b])]);
    (own, prop::bool::weighted(0.1), prop::bool::weighted(0.1)).prop_map(|(own, others, forked)| AheadOfWall {
        clock: true,
        own,
        others: if others { vec![WriterId { peer: PeerId([9; 32]), epoch: Epoch([9; 16]) }] } else { Vec::new() },
        forked,
    })
}

fn heard() -> impl Strategy<Value = Heard> {
    let peer = || (2_u8..6).prop_map(|n| PeerId([n; 32]));
    let has = prop::collection::btree_map(peer(), prop::collection::vec(0_u64..6, 2), 0..4);
    let held = (1_u8..4, 1_u64..12).prop_map(|(n, seq)| Held { writer: line(n), seq, hlc: Hlc(seq) });
    let holds = prop::collection::btree_map(peer(), prop::collection::vec(held, 0..4), 0..4);
    let enrolled = prop::collection::btree_set((2_u8..6).prop_map(|n| PeerId([n; 32])), 0..3);
    (has, holds, enrolled, 0_usize..4, 0_usize..2).prop_map(|(has, holds, enrolled, connected, disagreeing)| Heard {
        holds,
        has: has.into_iter().map(|(peer, seqs)| (peer, vector(&seqs))).collect(),
        enrolled,
        connected,
        disagreeing: disagreeing.min(connected),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_taken_back_nobody_has(ahead in ahead(), heard in heard()) {
        let anybody_has = |line: &AheadLine| heard.has.values().any(|has| has.seq(&line.writer) >= line.first);
        let holds = |peer: &PeerId, line: &AheadLine| {
            let holds = heard.holds.get(peer).into_iter().flatten();
            holds.filter(|held| held.writer == line.writer).any(|held| (1..=line.first).contains(&held.seq))
        };
        let all_hold = heard.enrolled.iter().all(|peer| ahead.own.iter().all(|line| holds(peer, line)));
        let expected = !is_suspect(heard.disagreeing, heard.connected)
            && ahead.others.is_empty()
            && (ahead.own.is_empty() || (!ahead.forked && all_hold && !ahead.own.iter().any(anybody_has)));
        let judged = may_take_back(&ahead, &heard);
        prop_assert_eq!(judged.is_ok(), expected, "{:?}", judged);
        if let Ok(commits) = judged {
            prop_assert_eq!(commits, ahead.commits());
        }
    }

    /// Hearing more of what peers have never makes something possible that was confirmed.
    #[test]
    fn what_somebody_has_stays_confirmed(ahead in ahead(), heard in heard(), more in heard()) {
        let refused = |heard: &Heard| matches!(may_take_back(&ahead, heard), Err(RepairRefusal::Confirmed { .. }));
        let mut both = heard.clone();
        more.has.into_iter().for_each(|(peer, has)| both.has.entry(peer).or_default().join(&has));
        prop_assert!(!refused(&heard) || refused(&both));
    }

    /// How many are confirmed is by the peer that has most of each line.
    #[test]
    fn confirmed_commits_are_counted(first in 1_u64..5, more in 0_u64..5, seqs in prop::collection::vec(0_u64..12, 1..4)) {
        let last = first + more;
        let ahead = AheadOfWall { clock: true, own: vec![AheadLine { writer: line(1), first, last }], ..AheadOfWall::default() };
        let has: BTreeMap<_, _> = (2..).map(|n| PeerId([n; 32])).zip(seqs.iter().map(|seq| vector(&[*seq]))).collect();
        let expected = (first..=last).filter(|seq| seqs.iter().any(|has| has >= seq)).count() as u64;
        match may_take_back(&ahead, &Heard { has, ..Heard::default() }) {
            Ok(commits) => prop_assert_eq!((commits, expected), (more + 1, 0)),
            Err(RepairRefusal::Confirmed { commits, all, peers }) => {
                prop_assert_eq!((commits, all), (expected, more + 1));
                prop_assert_eq!(peers.len(), seqs.iter().filter(|seq| **seq >= first).count());
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn a_clock_is_suspected_by_more_than_half(connected in 0_usize..9, disagreeing in 0_usize..9) {
        prop_assert_eq!(is_suspect(disagreeing, connected), disagreeing > connected / 2);
    }
}

#[test]
fn a_sane_clock_has_nothing_to_repair() {
    let silent = Heard { enrolled: BTreeSet::from([PeerId([2; 32])]), ..Heard::default() };
    assert_eq!(may_take_back(&AheadOfWall::default(), &silent), Ok(0));
}

#[test]
fn a_peer_disagrees_as_long_as_our_clock_says_that_what_it_holds_back_is_sane() {
    let (peer, now) = (PeerId([2; 32]), WallClock(1_790_000_000_000));

    let ahead = Hlc::at(WallClock(now.0 + 31_536_000_000));
    let held = |writer, seq| vec![Held { writer, seq, hlc: ahead }];
    let ours = vector(&[5]);
    let judge = |there: &[Held], here: &[Held], now| disagrees(&peer, &ME, (there, here), &ours, now, SKEW);
    let wrong = WallClock(now.0 + 31_536_000_000);
    assert!(judge(&held(line(1), 3), &[], wrong), "our clock is a year ahead, and does not see it");
    assert!(!judge(&held(line(1), 3), &[], now), "our clock is right again: only the commits are wrong");
    assert!(!judge(&held(line(1), 6), &[], wrong) && !still_here(&held(line(1), 6)[0], &ours), "it was taken back since");
    assert!(!judge(&held(WriterId { peer: PeerId([3; 32]), epoch: Epoch([3; 16]) }, 1), &[], wrong), "it is not about us");
    let theirs = |n: u8| WriterId { peer: PeerId([n; 32]), epoch: Epoch([n; 16]) };
    assert!(judge(&[], &held(theirs(2), 1), now), "its own commits are too far ahead for us");
    assert!(!judge(&[], &held(theirs(3), 1), now), "it only passes them on");
}
