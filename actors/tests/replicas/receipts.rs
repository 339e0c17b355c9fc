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
