//! Who counts as having a write, over hops and after clocks were set right.

use anabranch_actors::api::Ack;

use super::*;

impl TestNode {
    /// Writes a document and waits until so many others are known to have it.
    async fn put_confirmed(&self, key: &str, by: u16) -> bool {
        let op = WriteOp { collection: collection(), op: Op::Put { key: Key::new(key).unwrap(), value: json("1") } };
        let written = self.handle.write(&DatasetId::primary(), WriteRequest::new(vec![op])).await.unwrap();
        let (patience, collections) = (Duration::from_secs(20), vec![collection()]);
        let (primary, token) = (DatasetId::primary(), written.token.unwrap());
        self.handle.confirmed(&primary, token, collections, Ack::Peers(by), patience).await.unwrap().enough
    }
}

/// Counters of statements begin at a clock reading, and what a node stated by a clock that was far ahead has the greatest.
#[test]
fn a_node_whose_clock_was_set_back_counts_again_for_whoever_heard_of_it_before() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let (writer, between) = (start(&network, 1, Kind::Documents, NOON), start(&network, 2, Kind::Documents, NOON));
        let engine = Arc::new(MemoryEngine::default());
        let datasets = || BTreeMap::from([(DatasetId::primary(), dataset(Kind::Documents, Registration::all()))]);
        let year = 365 * 86_400_000;
        let far = start_with(&network, 3, NOON + year, engine.clone(), datasets());
        network.connect(writer.peer, between.peer).await;
        network.connect(between.peer, far.peer).await;
        assert!(writer.put_confirmed("before", 2).await, "two hops away it counts");
        network.disconnect(between.peer, far.peer).await;
        far.handle.stop().await;

        let far = start_with(&network, 3, NOON, engine, datasets());
        network.connect(between.peer, far.peer).await;
        assert!(writer.put_confirmed("after", 2).await, "its statements are not older than those of the wrong clock");
        for node in [&writer, &between, &far] {
            node.handle.stop().await;
        }
    });
}

/// A statement that was lost on its way is told again, though the neighbour heard of us since: its peer may never state anything more.
#[test]
fn what_a_third_node_has_is_told_again_where_that_was_lost() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let nodes = [1, 2, 3].map(|seed| start(&network, seed, Kind::Documents, NOON));
        let [writer, between, far] = &nodes;
        network.connect(writer.peer, between.peer).await;
        network.connect(between.peer, far.peer).await;
        assert!(writer.put_confirmed("before", 2).await);
        network.falls_silent("confirm").await;
        network.lose("confirm", 1);
        let (primary, collections) = (DatasetId::primary(), vec![collection()]);
        let op = WriteOp { collection: collection(), op: Op::Put { key: Key::new("lost").unwrap(), value: json("1") } };
        let written = writer.handle.write(&primary, WriteRequest::new(vec![op])).await.unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while network.lost.lock().unwrap()["confirm"] > 0 {
            assert!(tokio::time::Instant::now() < deadline, "nothing was told");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        network.disconnect(between.peer, far.peer).await;
        // Answered with a statement of the one between.
        writer.put("meanwhile", "1").await;
        let patience = Duration::from_secs(20);
        let confirmed = writer.handle.confirmed(&primary, written.token.unwrap(), collections, Ack::Peers(2), patience);
        assert!(confirmed.await.unwrap().enough, "what the third one has is not known");
        for node in &nodes {
            node.handle.stop().await;
        }
    });
}
