//! One identity wrote one line in two places: proof, spreading, equal rows everywhere, and the owner's new epoch.

use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

impl TestNode {
    async fn info(&self) -> anabranch_actors::api::DatasetInfo {
        self.handle.dataset(&DatasetId::primary()).await.unwrap()
    }

    /// Waits until the dataset's reason has these words.
    async fn shows(&self, words: &str) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let info = self.info().await;
            if info.reason.as_ref().is_some_and(|reason| reason.contains(words)) {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "does not say {words:?}: {info:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn note(&self, kind: Kind, key: &str, value: &str) {
        match kind {
            Kind::Documents => self.put(key, value).await,
            Kind::Append => self.write(Op::Append { value: json(&format!("\"{key} {value}\"")) }).await,
        }
    }
}

/// A node, and the snapshot to which its machine was rolled back: each went on for itself, beside a peer of its own.
struct Forked {
    network: Arc<Network>,
    /// The owner as it was rolled back; it runs on.
    owner: TestNode,
    /// Where the owner's first branch is, and where the second.
    left: TestNode,
    right: TestNode,
    right_disk: MemoryEngine,
}

/// Three common writes, then `apart` on each side, each in a turn of its own.
async fn forked(kind: Kind, apart: usize) -> Forked {
    let network = Arc::new(Network::default());
    let disk = MemoryEngine::default();
    let start_owner = |disk: &MemoryEngine| start_on(&network, 1, kind, NOON, Arc::new(disk.clone()));
    let owner = start_owner(&disk);
    for n in 0..3 {
        owner.note(kind, &format!("common{n}"), "0").await;
    }
    owner.handle.stop().await;
    let snapshot = disk.snapshot();

    let owner = start_owner(&disk);
    let left = start(&network, 2, kind, NOON);
    for n in 0..apart {
        owner.note(kind, &format!("left{n}"), "1").await;
    }
    owner.note(kind, "both", "1").await;
    network.connect(owner.peer, left.peer).await;
    let documents = 4 + apart;
    converged(&[&owner, &left], documents).await;
    network.disconnect(owner.peer, left.peer).await;
    owner.handle.stop().await;

    let owner = start_owner(&snapshot);
    let right_disk = MemoryEngine::default();
    let right = start_on(&network, 3, kind, NOON, Arc::new(right_disk.clone()));
    for n in 0..apart {
        owner.note(kind, &format!("right{n}"), "2").await;
    }
    owner.note(kind, "both", "2").await;
    network.connect(owner.peer, right.peer).await;
    converged(&[&owner, &right], documents).await;
    network.disconnect(owner.peer, right.peer).await;
    Forked { network, owner, left, right, right_disk }
}

/// What is on neither side alone: three common writes, those of each side, and one document that both wrote.
const ALL: usize = 3 + 2 * 20 + 1;

#[test]
fn branches_of_a_forked_line_end_equal_everywhere_and_the_owner_goes_on() {
    actix::System::new().block_on(async {
        let Forked { network, owner, left, right, right_disk } = forked(Kind::Documents, 20).await;
        let line = owner.info().await.contents.unwrap().writer.unwrap();
        // Nobody but the two who hold a branch each is there: they find out by themselves.
        network.connect(left.peer, right.peer).await;
        converged(&[&left, &right], ALL).await;
        for node in [&left, &right] {
            node.shows("diverged").await;
            node.shows(&format!("two commits of {line} have the number 4")).await;
        }
        // A node that has nothing gets what is below the fork, and both branches, from one that knows of it.
        let fresh = start(&network, 4, Kind::Documents, NOON);
        network.connect(fresh.peer, right.peer).await;
        converged(&[&left, &right, &fresh], ALL).await;
        fresh.shows("diverged").await;
        // The owner hears of it and goes on under a new epoch.
        network.connect(owner.peer, right.peer).await;
        owner.shows("this node's own history forked").await;
        owner.put("after", "3").await;
        let nodes = [&left, &right, &fresh, &owner];
        converged(&nodes, ALL + 1).await;
        assert_ne!(owner.info().await.contents.unwrap().writer, Some(line));
        for kind in ["push", "pull"] {
            assert!(network.requests_when_idle(kind).await <= 2, "{kind} goes on though all are equal");
        }
        let peers = right.handle.peers().await;
        let shown = |peer: &TestNode| peers.iter().find(|info| info.peer == peer.peer).unwrap().datasets[0].1.clone();
        assert_eq!(shown(&owner).state, PeerState::Diverged);
        assert!(shown(&owner).reason.unwrap().contains("number 4"));
        assert_eq!(shown(&left).state, PeerState::InSync);
        // It is known after a restart too, with the same contents, and audited.
        let before = right.state().await;
        right.handle.stop().await;
        let again = start_on(&network, 3, Kind::Documents, NOON + 1_000, Arc::new(right_disk));
        again.shows("diverged").await;
        assert_eq!(again.state().await, before);
    });
}

#[test]
fn records_of_both_branches_end_equal_everywhere() {
    actix::System::new().block_on(async {
        let Forked { network, owner, left, right, .. } = forked(Kind::Append, 20).await;
        network.connect(left.peer, right.peer).await;
        // Both branches read the same clock, so their records share keys: none of them hides another.
        converged(&[&left, &right], ALL + 1).await;
        network.connect(owner.peer, left.peer).await;
        owner.shows("this node's own history forked").await;
        owner.note(Kind::Append, "after", "3").await;
        converged(&[&left, &right, &owner], ALL + 2).await;
        assert!(network.requests_when_idle("pull").await <= 2);
    });
}

#[test]
fn a_short_branch_and_a_long_one_end_equal() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let disk = MemoryEngine::default();
        let start_owner = |disk: &MemoryEngine| start_on(&network, 1, Kind::Documents, NOON, Arc::new(disk.clone()));
        let owner = start_owner(&disk);
        owner.put("common", "0").await;
        owner.handle.stop().await;
        let snapshot = disk.snapshot();
        let (left, right) = (start(&network, 2, Kind::Documents, NOON), start(&network, 3, Kind::Documents, NOON));
        let owner = start_owner(&disk);
        for n in 0..40 {
            owner.put(&format!("left{n}"), "1").await;
        }
        network.connect(owner.peer, left.peer).await;
        converged(&[&owner, &left], 41).await;
        network.disconnect(owner.peer, left.peer).await;
        owner.handle.stop().await;
        let owner = start_owner(&snapshot);
        owner.put("right", "2").await;
        network.connect(owner.peer, right.peer).await;
        converged(&[&owner, &right], 2).await;
        // The one with the short branch asks for commits past its own, and those follow another one.
        network.connect(left.peer, right.peer).await;
        converged(&[&left, &right, &owner], 42).await;
        left.shows("have the number 2").await;
    });
}
