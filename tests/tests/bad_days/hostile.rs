//! A peer that lies: tampered, forged, foreign and endless messages on the real port. Refused, named, nothing applied, memory
//! flat, and whoever keeps on is backed off by identity while others go on.

mod client;

use anabranch_protocol::commit::{Change, Commit, Draft, Entry, Frame, Identity};
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{Collection, DatasetId, Epoch, Hash, Key, Lineage, PeerId, Salt, ShortHash, WriterId};
use anabranch_protocol::plan::Want;
use anabranch_protocol::registration::{Registration, TagSet};
use anabranch_protocol::vector::{Head, VersionVector};
use anabranch_protocol::wire::{BULK_PROTOCOL, CONTROL_PROTOCOL, Page, Pull, RefusalCode, Request, Response};
use anabranch_tests::process::{Node, converged, wait_for};
use serde_json::{Value, json};

use self::client::{Hostile, hello};
use crate::world::Place;

/// What a draft is about.
struct Made<'a> {
    dataset: &'a str,
    lineage: Lineage,
    seq: u64,
    value: Vec<u8>,
}

impl Default for Made<'_> {
    fn default() -> Self {
        Self { dataset: "primary", lineage: Lineage::ZERO, seq: 1, value: vec![0x01] }
    }
}

/// A commit that is what it says, but for what is asked for.
fn commit(by: &Identity, made: Made<'_>) -> Commit {
    let dataset = DatasetId::new(made.dataset).expect("a name");
    let entry = Entry { index: 0, change: Change::Put { key: Key::new("intruder").expect("a key"), value: made.value } };
    let previous = if made.seq == 1 { Hash::ZERO } else { Hash([8; 32]) };
    let sections = vec![(Collection::new("orders").expect("a name"), Salt([1; 16]), vec![entry])];
    let (lineage, seq, epoch, hlc) = (made.lineage, made.seq, Epoch([6; 16]), Hlc(1_000));
    Draft { dataset: &dataset, lineage, epoch, seq, previous, parent: None, hlc, sections }.seal(by)
}

fn refused(answer: Option<Response>) -> (RefusalCode, String) {
    match answer {
        Some(Response::Refused(refusal)) => (refusal.code, refusal.reason),
        other => panic!("not refused: {other:?}"),
    }
}

/// A push that decodes and verifies, and of which nothing is taken in.
fn not_taken_in(answer: Option<Response>) {
    match answer {
        Some(Response::Pushed(pushed)) => assert!(!pushed.complete),
        other => panic!("not answered as a push: {other:?}"),
    }
}

/// A commit of the node's own, as it sends it.
fn a_frame_of(node: &Node, hostile: &mut Hostile) -> Vec<u8> {
    let info = node.dataset("primary");
    let writer: WriterId = info["writer"].as_str().expect("a writer").parse().expect("a writer");
    let wants = vec![Want { writer, from_seq: 1 }];
    let pull = Request::Pull(Pull { dataset: None, registration: Registration::all(), wants, bytes_max: 1 << 20 });
    match hostile.bulk(&pull) {
        Some(Response::Page(page)) => page.frames[0].to_vec(),
        other => panic!("no page: {other:?}"),
    }
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).expect("it is in there");
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

fn heads_of(writer: WriterId, seq: u64) -> VersionVector {
    [(writer, Head { seq, hlc: Hlc(1_000), hash: ShortHash([1; 8]) })].into_iter().collect()
}

/// What `node` says of `peer`.
fn row(node: &Node, peer: &PeerId) -> Option<Value> {
    let (_, rows) = node.ask("GET", "/v1/peers", "");
    rows.as_array()?.iter().find(|row| row["peer_id"] == peer.to_string()).cloned()
}

fn said(node: &Node, who: &PeerId, what: &str) {
    let found = || node.log().lines().any(|line| line.contains(&who.to_string()) && line.contains(what)).then_some(());
    wait_for(&format!("the log names {who}: {what}"), found);
}

#[test]
fn lies_about_commits_are_refused_named_and_not_applied() {
    let place = Place::new();
    let node = place.node("node").start();
    node.put("orders", "honest", &json!(1));
    let before = node.standing("primary");
    let mut hostile = Hostile::connect(1, &node);
    let first = refused(hostile.push(commit(&hostile.identity.clone(), Made::default()).to_bytes()));
    assert_eq!(first.0, RefusalCode::HelloFirst);
    assert!(matches!(hostile.greet(VersionVector::new()), Some(Response::Hello(reply)) if reply.refused.is_empty()));
    let honest = a_frame_of(&node, &mut hostile);
    let me = hostile.identity.clone();
    let victim: PeerId = node.peer_id.parse().expect("a peer id");

    // Relayed, and changed on the way: in its section, in its header, in its signature.
    let in_section = replaced(&honest, b"honest", b"hXnest");
    let in_header = {
        let header = Frame::decode(&honest).expect("a frame").header().hlc.0.to_be_bytes();
        let mut other = header;
        other[7] ^= 1;
        replaced(&honest, &header, &other)
    };
    // Its own commit in the node's name, and one of another dataset or lineage.
    let forged = replaced(&commit(&me, Made::default()).to_bytes(), &me.peer().0, &victim.0);
    let of_logs = commit(&me, Made { dataset: "logs", ..Made::default() }).to_bytes();
    let of_other_lineage = commit(&me, Made { lineage: Lineage([9; 16]), ..Made::default() }).to_bytes();
    let nested = commit(&me, Made { value: [vec![0x81; 65], vec![0]].concat(), ..Made::default() }).to_bytes();
    for (frame, why) in [
        (in_section, "digest"),
        (in_header, "signature"),
        (forged, "signature"),
        (of_logs, "another dataset"),
        (of_other_lineage, "signature"),
        (nested, "deterministic CBOR"),
    ] {
        // One bad commit is 4 points of 32: each gets a fresh liar, so that none is backed off before it is heard.
        let mut liar = Hostile::connect(100 + frame.len() as u64 + why.len() as u64, &node);
        liar.greet(VersionVector::new()).expect("a Hello");
        let (code, reason) = refused(liar.push(frame));
        assert!(code == RefusalCode::Commit && reason.contains(why), "{code} {reason}, not {why}");
        said(&node, &liar.peer(), why);
    }

    // Signed as it should be, but not what may come next.
    not_taken_in(hostile.push(commit(&me, Made { seq: 2, ..Made::default() }).to_bytes()));
    let emptied = commit(&me, Made::default()).keep_only(&TagSet::Some(std::collections::BTreeSet::new())).to_bytes();
    not_taken_in(hostile.push(emptied));
    wait_for("it is said", || node.log().contains("a section of a registered collection was left out").then_some(()));
    assert_eq!(node.standing("primary"), before, "nothing was applied");
    assert_eq!(node.get("orders", "intruder"), None);

    // Pulled instead of pushed: the heads promise what the pages don't hold.
    let writer = WriterId { peer: me.peer(), epoch: Epoch([6; 16]) };
    let bad = replaced(&commit(&me, Made::default()).to_bytes(), b"intruder", b"introder");
    let page = Page { dataset: None, frames: vec![bad.into()], more: true, incomplete: Vec::new() };
    *hostile.page.lock().expect("nobody panics with it") = Response::Page(page).encode();
    hostile.greet(heads_of(writer, 1 << 48)).expect("a Hello");
    said(&node, &me.peer(), "digest");
    assert_eq!(node.standing("primary"), before, "nothing was applied");
}

/// Messages that are none, each with what the refusal says.
fn nonsense() -> Vec<(Vec<u8>, &'static str)> {
    let writer = |n: u64| {
        let mut peer = [0; 32];
        peer[..8].copy_from_slice(&n.to_be_bytes());
        WriterId { peer: PeerId(peer), epoch: Epoch([6; 16]) }
    };
    let head = Head { seq: 1, hlc: Hlc(1), hash: ShortHash([1; 8]) };
    let many: VersionVector = (0..80_000).map(|n| (writer(n), head)).collect();
    let honest = hello(VersionVector::new(), Lineage::ZERO).encode();
    let trailing = [&honest[..], &[0]].concat();
    let mut noise = Vec::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..4_096 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    vec![
        (hello(heads_of(writer(1), 1 << 63), Lineage::ZERO).encode(), "absurd number"),
        (hello(heads_of(writer(1), u64::MAX), Lineage::ZERO).encode(), "absurd number"),
        (hello(many, Lineage::ZERO).encode(), "too many"),
        (vec![0x81; 10 << 20], "bytes"),
        (vec![0x81; 1 << 20], "malformed"),
        ([vec![0xa1, 0x64], b"pull".to_vec(), vec![0x9f; 1 << 16]].concat(), "malformed"),
        (honest[..honest.len() / 2].to_vec(), "malformed"),
        (honest[..1].to_vec(), "malformed"),
        (trailing, "canonical"),
        (noise, "malformed"),
        (Vec::new(), "malformed"),
    ]
}

#[test]
fn nonsense_is_refused_thousands_of_times_and_memory_stays_flat() {
    let place = Place::new();
    let node = place.node("node").start();
    let friend = place.node("friend").peer(&node).start();
    node.put("orders", "honest", &json!(1));
    converged(&[&node, &friend], "primary", "orders");
    let before = node.standing("primary");
    let nonsense = nonsense();
    let mut liar = Hostile::connect(1, &node);
    for (bytes, why) in &nonsense {
        let (code, reason) = refused(liar.ask_bytes(bytes));
        assert!(code == RefusalCode::Malformed && reason.contains(why), "{code} {reason}, not {why}");
    }
    said(&node, &liar.peer(), "refused");
    // As long as a million writers: past what a refused asker may still say, the node hangs up.
    assert!(liar.ask_bytes(&vec![0x81; 66 << 20]).is_none_or(|answer| matches!(answer, Response::Refused(_))));
    // Frames of the bulk stream that are none close it.
    for bytes in [&[0xff; 64][..], &[0, 0, 0, 3, 1, 2, 3], &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 7]] {
        assert_eq!(liar.say(BULK_PROTOCOL, bytes).unwrap_or_default(), b"");
    }

    // Small messages over and over, each identity as often as it is heard.
    let small: Vec<&Vec<u8>> = nonsense.iter().map(|(bytes, _)| bytes).filter(|bytes| bytes.len() < 100_000).collect();
    let round = |identities: std::ops::Range<u64>| {
        for seed in identities {
            let mut liar = Hostile::connect(seed, &node);
            for n in 0..31 {
                let bytes = small[n % small.len()];
                assert_eq!(refused(liar.ask_bytes(bytes)).0, RefusalCode::Malformed);
            }
        }
        node.resident_memory_mib()
    };
    let warm = round(1_000..1_020);
    let after = round(2_000..2_080);
    assert!(after <= warm + 16, "{warm} MiB after 620 messages, {after} MiB after 2480 more");
    assert!(node.peak_memory_mib() < 400, "{} MiB", node.peak_memory_mib());
    assert_eq!(node.standing("primary"), before, "nothing was applied");
    node.put("orders", "later", &json!(2));
    converged(&[&node, &friend], "primary", "orders");
}

#[test]
fn who_keeps_lying_is_backed_off_by_identity_and_nobody_else() {
    let place = Place::new();
    let node = place.node("node").start();
    let friend = place.node("friend").peer(&node).start();
    let mut liar = Hostile::connect(7, &node);
    let me = liar.identity.clone();
    liar.greet(VersionVector::new()).expect("a Hello");
    let forged = commit(&me, Made { lineage: Lineage([9; 16]), ..Made::default() }).to_bytes();
    let heard = (0..64).take_while(|_| liar.push(forged.clone()).is_some()).count();
    assert!((7..=8).contains(&heard), "4 points each of 32: heard {heard} times");
    said(&node, &me.peer(), "misbehaved too often");
    wait_for("it is shown", || {
        let row = row(&node, &me.peer())?;
        let named = row["datasets"]["primary"]["reason"].as_str()?.contains("misbehaved");
        (named && row["connected"] == false).then_some(())
    });

    // A new connection is no new start; another identity is another peer.
    for _ in 0..3 {
        let mut again = Hostile::connect(7, &node);
        assert_eq!(again.say(CONTROL_PROTOCOL, &hello(VersionVector::new(), Lineage::ZERO).encode()), None, "not heard");
    }
    let mut other = Hostile::connect(8, &node);
    assert!(matches!(other.greet(VersionVector::new()), Some(Response::Hello(_))));
    friend.put("orders", "friend", &json!(1));
    converged(&[&node, &friend], "primary", "orders");
}
