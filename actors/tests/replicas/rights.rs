//! Who may not write is told so on both sides, beside the peer that it concerns.

use super::bad_frames::shows;
use super::*;

#[test]
fn a_writer_that_is_not_among_writers_is_named_on_both_sides() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let strict_id = Identity::from_secret(&[1; 32]).peer();
        let settings = dataset(Kind::Documents, Registration::all());
        let settings = DatasetSettings { writers: Peers::Only([strict_id].into()), ..settings };
        let datasets = BTreeMap::from([(DatasetId::primary(), settings)]);
        let strict = start_with(&network, 1, NOON, Arc::new(MemoryEngine::default()), datasets);
        let other = start(&network, 2, Kind::Documents, NOON);
        network.connect(other.peer, strict.peer).await;
        // Once its commits reach the other one, this one is pushed to.
        strict.put("allowed", "1").await;
        converged(&[&strict, &other], 1).await;
        other.put("refused", "1").await;

        let refused = format!("commits of {} are refused: it is not among the dataset's `writers`", other.peer);
        shows(&strict, other.peer, "who is refused", |_, reason| reason == Some(refused.as_str())).await;
        let not_taken =
            |_, reason: Option<&str>| reason.is_some_and(|reason| reason.contains("does not take in this node's commits"));
        shows(&other, strict.peer, "what is not taken in", not_taken).await;
        assert_eq!(strict.state().await.0.len(), 1);
        // The other way everything goes on.
        strict.put("allowed too", "1").await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while other.state().await.0.len() < 3 {
            assert!(tokio::time::Instant::now() < deadline, "what may be written does not arrive");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn a_dataset_that_is_refused_is_counted_by_its_reason() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let nodes = [start(&network, 1, Kind::Documents, NOON), start(&network, 2, Kind::Append, NOON)];
        for node in &nodes {
            node.handle.open_all().await;
        }
        network.connect(nodes[0].peer, nodes[1].peer).await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        for node in &nodes {
            loop {
                let refusals = node.handle.dataset(&DatasetId::primary()).await.unwrap().counts.refusals;
                if refusals.get("kind").is_some_and(|count| *count > 0) {
                    assert_eq!(refusals.len(), 1, "{refusals:?}");
                    break;
                }
                assert!(tokio::time::Instant::now() < deadline, "it is not counted: {refusals:?}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    });
}
