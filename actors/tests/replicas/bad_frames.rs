//! A peer of our own making sends good and bad frames: what each costs whom.

use anabranch_protocol::codec;
use anabranch_protocol::commit::{Change, Commit, Draft, Entry, ForkProof};
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{Epoch, Hash, Lineage, Salt, ShortHash, Signature};
use anabranch_protocol::vector::{Head, VersionVector};
use anabranch_protocol::wire::{DatasetHello, HeadsReply, Hello, HelloReply, Page, Push, RefusalCode};
use serde_bytes::ByteBuf;

use super::*;

fn commit(writer: u8) -> Commit {
    salted(writer, 1)
}

/// Another commit in the same place.
fn another(writer: u8) -> Commit {
    salted(writer, 2)
}

fn salted(writer: u8, salt: u8) -> Commit {
    let put = Change::Put { key: Key::new(&format!("of {writer}")).unwrap(), value: vec![0] };
    let draft = Draft {
        dataset: &DatasetId::primary(),
        lineage: Lineage::ZERO,
        epoch: Epoch([writer; 16]),
        seq: 1,
        previous: Hash::ZERO,
        parent: None,
        hlc: Hlc(NOON << 16),
        sections: vec![(collection(), Salt([salt; 16]), vec![Entry { index: 0, change: put }])],
    };
    draft.seal(&Identity::from_secret(&[writer; 32]))
}

fn first(writer: u8) -> Vec<u8> {
    commit(writer).to_bytes()
}

fn derived(context: &str, parts: &[&[u8]]) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    Hash(*hasher.finalize().as_bytes())
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    let at = bytes.windows(from.len()).position(|window| window == from).expect("it is in there");
    bytes[at..at + to.len()].copy_from_slice(to);
}

/// A first commit that its writer signed, with an operation from the future.
fn newer(writer: u8) -> Vec<u8> {
    type Parts = (ByteBuf, Signature, Vec<Option<ByteBuf>>);
    let (mut header, _, mut sections): Parts = codec::decode(&first(writer), 1 << 20).unwrap();
    let section = sections[0].as_mut().unwrap();
    let old = derived("anabranch 1 section", &[section]);
    replace(section, &[0x84, 0, 1], &[0x84, 0, 9]);
    replace(&mut header, &old.0, &derived("anabranch 1 section", &[section]).0);
    let length = (header.len() as u64).to_le_bytes();
    let hash = derived("anabranch 1 commit", &[&[0; 16], &length, &header]);
    let signature = Identity::from_secret(&[writer; 32]).sign(&hash);
    codec::encode(&(header, signature, sections))
}

/// A commit in a format from the future: nothing of it can be verified here.
fn newer_format(writer: u8) -> Vec<u8> {
    type Parts = (ByteBuf, Signature, Vec<Option<ByteBuf>>);
    let (mut header, signature, sections): Parts = codec::decode(&first(writer), 1 << 20).unwrap();
    replace(&mut header, &[0x61, b'v', 1], &[0x61, b'v', 2]);
    codec::encode(&(header, signature, sections))
}

/// A frame that nobody signed.
fn forged(writer: u8) -> Vec<u8> {
    let mut bytes = first(writer);
    *bytes.last_mut().unwrap() ^= 1;
    bytes
}

fn heads(writers: &[u8]) -> VersionVector {
    writers.iter().map(|writer| commit(*writer)).map(|commit| (commit.writer(), commit.head())).collect()
}

/// Connects a peer that has `has` and answers every pull with the page `page`.
async fn peer_with(network: &Arc<Network>, node: &TestNode, seed: u8, has: VersionVector, page: Vec<Vec<u8>>) -> PeerId {
    peer_that_knows(network, node, seed, has, page, Arc::default()).await
}

/// As [`peer_with`], and it says that it knows of these forks.
async fn peer_that_knows(
    network: &Arc<Network>,
    node: &TestNode,
    seed: u8,
    has: VersionVector,
    page: Vec<Vec<u8>>,
    forks: Arc<Mutex<Vec<ForkProof>>>,
) -> PeerId {
    let me = Identity::from_secret(&[seed; 32]).peer();
    let (events, mut inbox) = mpsc::channel(64);
    network.nodes.lock().unwrap().insert(me, events);
    actix::spawn(async move {
        while let Some(event) = inbox.recv().await {
            let TransportEvent::Request { request, reply, .. } = event else { continue };
            let response = match request {
                Request::Hello(_) => Response::Hello(HelloReply { hello: hello(seed, &has), refused: vec![] }),
                Request::Heads(_) => {
                    let heads = Some(has.clone());
                    Response::Heads(HeadsReply { dataset: None, heads, held: vec![], forks: forks.lock().unwrap().clone() })
                }
                Request::Pull(_) => {
                    let frames = page.iter().cloned().map(ByteBuf::from).collect();
                    Response::Page(Page { dataset: None, frames, more: false, incomplete: vec![] })
                }
                _ => Response::Confirmed,
            };
            let _ = reply.send(response);
        }
    });
    network.connect(node.peer, me).await;
    me
}

fn hello(seed: u8, has: &VersionVector) -> Hello {
    let dataset = DatasetHello {
        dataset: None,
        lineage: Lineage::ZERO,
        kind: Kind::Documents,
        registration: Registration::all(),
        policies: BTreeMap::new(),
        heads: has.clone(),
    };
    let (nonce, incarnation) = (Salt([seed; 16]), Incarnation([seed; 16]));
    Hello { versions: vec![1], nonce, proofs: vec![], incarnation, listen: vec![], datasets: vec![dataset], withdrawn: vec![] }
}

/// A peer that claims another head of a writer, and a fork that it can't prove, delays nobody and is named.
#[test]
fn a_claimed_fork_stops_no_writer() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let node = start(&network, 1, Kind::Documents, NOON);
        let honest = start(&network, 2, Kind::Documents, NOON);
        honest.put("k0", "0").await;
        network.connect(honest.peer, node.peer).await;
        converged(&[&node, &honest], 1).await;
        let vector = honest.handle.dataset(&DatasetId::primary()).await.unwrap().contents.unwrap().vector;
        let lie = |(writer, head): (&_, &Head)| (*writer, Head { hash: ShortHash([9; 8]), ..*head });
        let forks = Arc::new(Mutex::new(Vec::new()));
        let liar = peer_that_knows(&network, &node, 9, vector.iter().map(lie).collect(), vec![first(20)], forks.clone()).await;
        let proof = ForkProof::of(&commit(30), &another(30)).unwrap();
        let mut meddled = codec::encode(&proof);
        *meddled.last_mut().unwrap() ^= 1;
        forks.lock().unwrap().push(ForkProof::decode(&meddled).unwrap());
        shows(&node, liar, "a fork has to be proven", |_, reason| reason.is_some_and(|reason| reason.contains("proven"))).await;
        // Each comparison begins a search, and what comes now has to be asked for: a writer that was left alone would not be.
        compared(&network, 8).await;
        network.lose("push", 1_000);
        for n in 1..5 {
            honest.put(&format!("k{n}"), "0").await;
        }
        converged(&[&node, &honest], 5).await;
        network.lose("push", 0);
        assert_eq!(node.handle.dataset(&DatasetId::primary()).await.unwrap().reason, None);
        // The real one is another matter, whoever brings it.
        *forks.lock().unwrap() = vec![proof];
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while node.handle.dataset(&DatasetId::primary()).await.unwrap().reason.is_none() {
            assert!(tokio::time::Instant::now() < deadline, "a proof is not taken in");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

/// Waits until vectors were compared so many times more.
async fn compared(network: &Network, times: usize) {
    let (before, deadline) = (network.requests("heads"), tokio::time::Instant::now() + Duration::from_secs(30));
    while network.requests("heads") < before + times {
        assert!(tokio::time::Instant::now() < deadline, "vectors are not compared");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Who has not heard of a fork says for ever that it has more of the line than there is here.
#[test]
fn what_a_peer_says_of_a_line_past_its_end_does_not_count() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let node = start(&network, 1, Kind::Documents, NOON);
        let (one, two) = (commit(30), another(30));
        let forks = Arc::new(Mutex::new(vec![ForkProof::of(&one, &two).unwrap()]));
        // It has both branches, and the line as it was, too.
        let line = [(one.writer(), one.head()), (one.branch(), one.head()), (two.branch(), two.head())];
        let pages = vec![one.to_bytes(), two.to_bytes()];
        let peer = peer_that_knows(&network, &node, 9, line.into_iter().collect(), pages, forks).await;
        shows(&node, peer, "in sync", |state, _| state == PeerState::InSync).await;
        let vector = node.handle.dataset(&DatasetId::primary()).await.unwrap().contents.unwrap().vector;
        assert_eq!([vector.seq(&one.writer()), vector.seq(&one.branch()), vector.seq(&two.branch())], [0, 1, 1]);
        // Also after it said so again.
        compared(&network, 3).await;
        shows(&node, peer, "in sync", |state, _| state == PeerState::InSync).await;
    });
}

async fn push(network: &Network, node: &TestNode, from: PeerId, frames: Vec<Vec<u8>>) -> Response {
    let frames = frames.into_iter().map(ByteBuf::from).collect();
    let (reply, response) = oneshot::channel();
    let request = Request::Push(Push { dataset: None, frames });
    let events = network.nodes.lock().unwrap()[&node.peer].clone();
    events.send(TransportEvent::Request { peer: from, request, reply }).await.unwrap();
    response.await.unwrap()
}

async fn has(node: &TestNode, writer: u8) -> bool {
    let key = Key::new(&format!("of {writer}")).unwrap();
    node.handle.get(&DatasetId::primary(), &collection(), &key).await.unwrap().is_some()
}

/// Waits until the node has the document of a writer.
async fn gets(node: &TestNode, writer: u8) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !has(node, writer).await {
        assert!(tokio::time::Instant::now() < deadline, "what {writer} wrote does not arrive");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the node shows a peer as told.
pub(super) async fn shows(node: &TestNode, peer: PeerId, what: &str, right: impl Fn(PeerState, Option<&str>) -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let peers = node.handle.peers().await;
        let shown = peers.iter().find(|info| info.peer == peer).and_then(|info| info.datasets.first());
        if shown.is_some_and(|(_, shown)| right(shown.state, shown.reason.as_deref())) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: {shown:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn an_operation_from_the_future_holds_its_writer_and_no_other() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let node = start(&network, 1, Kind::Documents, NOON);
        node.handle.open_all().await;
        // It comes by a pull first: what is beside it is taken in, and it is not asked for over and over.
        let page = vec![first(20), newer(21), first(22)];
        let sender = peer_with(&network, &node, 9, heads(&[20, 21, 22]), page).await;
        shows(&node, sender, "needs_upgrade", |state, _| state == PeerState::NeedsUpgrade).await;
        gets(&node, 20).await;
        gets(&node, 22).await;
        assert!(!has(&node, 21).await);
        let reason = node.handle.dataset(&DatasetId::primary()).await.unwrap().reason.unwrap();
        assert!(reason.starts_with("needs_upgrade: operation 9 in commit 1 of"), "{reason}");
        assert!(network.requests_when_idle("pull").await <= 1, "a held writer is asked for over and over");
        // And by a push.
        let answer = push(&network, &node, sender, vec![newer(23), first(24)]).await;
        assert!(matches!(answer, Response::Pushed(pushed) if !pushed.complete));
        assert!(has(&node, 24).await && !has(&node, 23).await);
    });
}

#[test]
fn a_forged_frame_is_its_senders_fault_and_another_peer_delivers() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let node = start(&network, 1, Kind::Documents, NOON);
        node.handle.open_all().await;
        let page = vec![first(20), forged(21), first(22)];
        let liar = peer_with(&network, &node, 9, heads(&[20, 21, 22]), page).await;
        shows(&node, liar, "bad commits", |_, reason| reason.is_some_and(|reason| reason.contains("bad commits"))).await;
        let answer = push(&network, &node, liar, vec![forged(23), first(24)]).await;
        assert!(matches!(answer, Response::Refused(refusal) if refusal.code == RefusalCode::Commit));
        for writer in [20, 22, 24] {
            gets(&node, writer).await;
        }
        assert!(!has(&node, 21).await && !has(&node, 23).await);
        // The writer is not to blame, and whoever has it may deliver it.
        assert_eq!(node.handle.dataset(&DatasetId::primary()).await.unwrap().reason, None);
        peer_with(&network, &node, 10, heads(&[21]), vec![first(21)]).await;
        gets(&node, 21).await;
    });
}

#[test]
fn a_format_from_the_future_is_not_asked_for_again_and_another_peer_delivers() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let node = start(&network, 1, Kind::Documents, NOON);
        node.handle.open_all().await;
        let page = vec![first(20), newer_format(21), first(22)];
        let sender = peer_with(&network, &node, 9, heads(&[20, 21, 22]), page).await;
        shows(&node, sender, "needs_upgrade", |state, _| state == PeerState::NeedsUpgrade).await;
        gets(&node, 20).await;
        gets(&node, 22).await;
        assert!(network.requests_when_idle("pull").await <= 1, "it is asked for over and over");
        // Nobody signed it as far as can be told: the writer is not held.
        peer_with(&network, &node, 10, heads(&[21]), vec![first(21)]).await;
        gets(&node, 21).await;
    });
}
