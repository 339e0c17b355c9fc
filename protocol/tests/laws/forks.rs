//! A fork is proven by two signed headers and nothing less, and whoever knows the same commits and proofs ends equal.

use anabranch_protocol::codec;
use anabranch_protocol::commit::{Commit, Draft, ForkProof, Forks, Identity, SignedHeader, branch};
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{DatasetId, Epoch, Hash, Lineage, Salt, Signature};
use anabranch_protocol::plan::{Standing, standing};
use anabranch_protocol::replica::{ReceiveRefusal, Verdict};
use anabranch_protocol::vector::VersionVector;
use proptest::prelude::*;
use serde_bytes::ByteBuf;

use crate::frames::{entry, identity};
use crate::world::{NOON, Node, collection, put, request};

/// A commit of one put; `text` makes it differ from another with the same place.
fn made(identity: &Identity, dataset: &DatasetId, lineage: Lineage, seq: u64, previous: Hash, text: &str) -> Commit {
    let sections = vec![(collection(0), Salt([1; 16]), vec![entry(0, 1, text)])];
    let hlc = Hlc((NOON + seq) << 16);
    let epoch = Epoch([3; 16]);
    Draft { dataset, lineage, epoch, seq, previous, parent: None, hlc, sections }.seal(identity)
}

fn commit(seq: u64, previous: Hash, text: &str) -> Commit {
    made(&identity(), &DatasetId::primary(), Lineage::ZERO, seq, previous, text)
}

fn pair() -> (Commit, Commit) {
    (commit(4, Hash([9; 32]), "1"), commit(4, Hash([9; 32]), "2"))
}

pub fn proof() -> ForkProof {
    let (a, b) = pair();
    ForkProof::of(&a, &b).unwrap()
}

type RawProof = ((ByteBuf, Signature), (ByteBuf, Signature));

fn raw(proof: &ForkProof) -> RawProof {
    codec::decode(&codec::encode(proof), 1 << 20).unwrap()
}

fn outcome(raw: &RawProof) -> Result<(), String> {
    let proof = ForkProof::decode(&codec::encode(raw)).map_err(|error| error.to_string())?;
    proof.verify(&DatasetId::primary(), Lineage::ZERO).map(drop).map_err(|error| error.to_string())
}

/// The two headers as a proof, in the order of their hashes or against it, whatever the rules say.
fn claimed(a: &Commit, b: &Commit, in_order: bool) -> RawProof {
    let half = |commit: &Commit| -> (ByteBuf, Signature) {
        let (header, signature, _): (ByteBuf, Signature, Vec<Option<ByteBuf>>) =
            codec::decode(&commit.to_bytes(), 1 << 20).unwrap();
        (header, signature)
    };
    if (a.hash() < b.hash()) == in_order { (half(a), half(b)) } else { (half(b), half(a)) }
}

#[test]
fn two_headers_with_one_place_are_a_fork_and_nothing_else_is() {
    let (a, b) = pair();
    assert_eq!(outcome(&claimed(&a, &b, true)), Ok(()));
    assert_eq!(raw(&proof()), claimed(&a, &b, true));
    assert_eq!(ForkProof::of(&a, &b), ForkProof::of(&b, &a), "one encoding");
    let fork = proof().verify(&DatasetId::primary(), Lineage::ZERO).unwrap();
    assert_eq!((fork.writer, fork.seq, fork.previous), (a.writer(), 4, Hash([9; 32])));

    let stranger = Identity::from_secret(&[8; 32]);
    let (other, own) = (DatasetId::new("other").unwrap(), Lineage([1; 16]));
    let primary = DatasetId::primary();
    let refused = [
        ("swapped", claimed(&a, &b, false)),
        ("one commit twice", claimed(&a, &a, true)),
        ("two numbers", claimed(&a, &commit(5, Hash([9; 32]), "2"), true)),
        ("two predecessors", claimed(&a, &commit(4, Hash([8; 32]), "2"), true)),
        ("two writers", claimed(&a, &made(&stranger, &primary, Lineage::ZERO, 4, Hash([9; 32]), "2"), true)),
        ("one of another dataset", claimed(&a, &made(&identity(), &other, Lineage::ZERO, 4, Hash([9; 32]), "2"), true)),
        ("one of another lineage", claimed(&a, &made(&identity(), &primary, own, 4, Hash([9; 32]), "2"), true)),
    ];
    for (why, claim) in refused {
        assert!(outcome(&claim).is_err(), "{why}");
    }
    // Both of another dataset or lineage: a fork there, not here.
    assert!(proof().verify(&other, Lineage::ZERO).is_err());
    assert!(proof().verify(&primary, own).is_err());
    // Signed by somebody else in the writer's name.
    let mut forged = raw(&proof());
    forged.1.1 = stranger.sign(&b.hash());
    assert!(outcome(&forged).is_err());
    for (one, two) in [(&a, &a), (&a, &commit(5, Hash([9; 32]), "2")), (&a, &commit(4, Hash([8; 32]), "2"))] {
        assert_eq!(ForkProof::of(one, two), None);
    }
    let _: SignedHeader = codec::decode(&codec::encode(&raw(&proof()).0), 1 << 20).unwrap();
}

#[test]
fn so_many_forks_are_kept_and_no_more() {
    let mut forks = Forks::default();
    let insert = |forks: &mut Forks, secret: u8, seq: u64| {
        let identity = Identity::from_secret(&[secret; 32]);
        let of = |text| made(&identity, &DatasetId::primary(), Lineage::ZERO, seq, Hash([9; 32]), text);
        let proof = ForkProof::of(&of("1"), &of("2")).unwrap();
        forks.insert(proof.verify(&DatasetId::primary(), Lineage::ZERO).unwrap())
    };
    assert!(insert(&mut forks, 1, 30));
    assert!(!insert(&mut forks, 1, 30), "known");
    assert!((2..=8).all(|seq| insert(&mut forks, 1, seq)));
    assert!(!insert(&mut forks, 1, 9), "one peer does not take all places");
    assert_eq!(forks.lowest().map(|fork| fork.seq).collect::<Vec<_>>(), [2]);
    for secret in 2..=8 {
        assert!((2..=9).all(|seq| insert(&mut forks, secret, seq)));
    }
    assert!(!insert(&mut forks, 9, 2));
    assert_eq!(forks.iter().count(), 64);
}

#[test]
fn heads_with_one_number_and_two_hashes_are_not_in_sync() {
    let (a, b) = pair();
    let vector = |commit: &Commit| VersionVector::from_iter([(commit.writer(), commit.head())]);
    assert_eq!(standing(&vector(&a), &vector(&b)), Standing::Diverged);
    assert_eq!(standing(&vector(&a), &vector(&a)), Standing::InSync);
}

#[test]
fn what_contradicts_a_commit_below_our_head_is_no_duplicate() {
    let first = commit(1, Hash::ZERO, "0");
    let (a, b) = (commit(2, first.hash(), "1"), commit(2, first.hash(), "2"));
    let next = commit(3, a.hash(), "3");
    let mut node = Node::new(1);
    let line: Vec<Vec<u8>> = [&first, &a, &next].map(Commit::to_bytes).to_vec();
    assert!(node.receive(NOON, &line).iter().all(|verdict| *verdict == Verdict::Applied));
    assert_eq!(node.receive(NOON, &[a.to_bytes(), first.to_bytes()]), [Verdict::Duplicate, Verdict::Duplicate]);
    assert_eq!(node.receive(NOON, &[b.to_bytes()]), [Verdict::Refused(ReceiveRefusal::Fork { seq: 2 })]);
    // Once the fork is known both branches are lines of their own, and the line itself goes no further.
    assert!(node.learn(&ForkProof::of(&a, &b).unwrap()));
    assert_eq!(node.receive(NOON, &[b.to_bytes(), a.to_bytes()]), [Verdict::Applied, Verdict::Duplicate]);
    let seq = |line| node.replica.vector().seq(&line);
    assert_eq!((seq(a.writer()), seq(a.branch()), seq(b.branch())), (1, 3, 2));
}

#[test]
fn a_writer_can_not_take_the_name_of_a_branch() {
    let (a, _) = pair();
    let name = branch(&a.writer(), &a.hash());
    assert_eq!(name, a.branch());
    let sections = vec![(collection(0), Salt([1; 16]), vec![entry(0, 1, "1")])];
    let (dataset, lineage, epoch) = (&DatasetId::primary(), Lineage::ZERO, name.epoch);
    let draft = Draft { dataset, lineage, epoch, seq: 1, previous: Hash::ZERO, parent: None, hlc: Hlc(NOON << 16), sections };
    let verdicts = Node::new(1).receive(NOON, &[draft.seal(&identity()).to_bytes()]);
    assert_eq!(verdicts, [Verdict::Refused(ReceiveRefusal::BranchName)]);
}

#[test]
fn the_owner_of_a_forked_line_names_no_branch_as_its_parent() {
    let mut node = Node::new(7);
    node.write(NOON, &[request(vec![put(0, 1, "1")])]);
    let own = node.log[0].commit.clone().unwrap();
    node.write(NOON + 1, &[request(vec![put(0, 1, "2")])]);
    let ours = node.log[1].commit.clone().unwrap();
    let sections = vec![(collection(0), Salt([1; 16]), vec![entry(0, 1, "3")])];
    let (dataset, lineage, epoch) = (&DatasetId::primary(), Lineage::ZERO, own.writer().epoch);
    let hlc = Hlc((NOON + 1) << 16);
    let other = Draft { dataset, lineage, epoch, seq: 2, previous: own.hash(), parent: None, hlc, sections }.seal(&identity());
    assert!(node.learn(&ForkProof::of(&ours, &other).unwrap()));
    node.replica.start_writer(anabranch_protocol::replica::WriterState::Closed);
    node.write(NOON + 2, &[request(vec![put(0, 1, "4")])]);
    let first = node.log[2].commit.clone().unwrap();
    let parent = first.header().parent.unwrap();
    assert_eq!((parent.0, parent.1, parent.2), (epoch, 1, own.hash()));
    // Whoever knows of the fork takes it in.
    let mut peer = Node::new(1);
    peer.learn(&ForkProof::of(&ours, &other).unwrap());
    let frames: Vec<_> = [&own, &other, &ours, &first].map(Commit::to_bytes).to_vec();
    assert!(peer.receive(NOON + 9, &frames).iter().all(|verdict| *verdict == Verdict::Applied));
    node.receive(NOON + 9, &frames);
    assert_eq!(node.state(), peer.state());
}

/// A history that forks again and again: each commit follows an earlier one or none.
fn tree(shape: &[prop::sample::Index]) -> (Vec<Commit>, Vec<ForkProof>) {
    let mut commits: Vec<Commit> = Vec::new();
    for (n, after) in shape.iter().enumerate() {
        let (seq, previous) = match after.index(n + 1) {
            0 => (1, Hash::ZERO),
            at => (commits[at - 1].header().seq + 1, commits[at - 1].hash()),
        };
        commits.push(commit(seq, previous, &n.to_string()));
    }
    let mut proofs = Vec::new();
    for (n, one) in commits.iter().enumerate() {
        let place = |commit: &Commit| (commit.header().seq, commit.header().previous);
        // The first other branch is enough.
        if let Some(other) = commits[..n].iter().find(|other| place(other) == place(one)) {
            proofs.push(ForkProof::of(one, other).unwrap());
        }
    }
    (commits, proofs)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_meddled_proof_proves_nothing(at: prop::sample::Index, byte: u8) {
        let mut bytes = codec::encode(&proof());
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        let meddled = ForkProof::decode(&bytes).ok().and_then(|proof| proof.verify(&DatasetId::primary(), Lineage::ZERO).ok());
        prop_assert!(meddled.is_none());
    }

    /// Nodes hear of commits and proofs in any order, some of the proofs only long after they took in a branch: all end equal.
    #[test]
    fn who_knows_the_same_commits_and_proofs_is_equal(
        shape in proptest::collection::vec(any::<prop::sample::Index>(), 1..10), orders in proptest::collection::vec(any::<u64>(), 3),
    ) {
        let (commits, proofs) = tree(&shape);
        // More places than a writer may have forks in are another matter.
        prop_assume!(proofs.len() <= 8);
        let mut nodes = Vec::new();
        for order in orders {
            let mut node = Node::new(1);
            let mut news: Vec<usize> = (0..commits.len() + proofs.len()).collect();
            let place = |n: &usize| *blake3::hash(&[&order.to_le_bytes()[..], &n.to_le_bytes()].concat()).as_bytes();
            news.sort_by_key(place);
            // Each is heard of again until nothing is new.
            for _ in 0..=news.len() {
                for n in &news {
                    match commits.get(*n) {
                        Some(commit) => drop(node.receive(NOON + 99, &[commit.to_bytes()])),
                        None => drop(node.learn(&proofs[n - commits.len()])),
                    }
                }
            }
            prop_assert_eq!(node.rows.1.len(), commits.len(), "everything is here");
            nodes.push(node);
        }
        for node in &nodes {
            prop_assert_eq!(node.state(), nodes[0].state());
            prop_assert_eq!(&node.rows.1, &nodes[0].rows.1);
            prop_assert_eq!(node.replica.cuts(), nodes[0].replica.cuts());
        }
    }
}
