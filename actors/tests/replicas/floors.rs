//! Collections are dropped and truncated while nodes write, together and apart.

use super::*;

fn named(name: &str) -> Collection {
    Collection::new(name).unwrap()
}

fn node(network: &Arc<Network>, seed: u8, clock: u64, engine: &MemoryEngine, names: &[&str]) -> TestNode {
    let registration = if names == ["*"] { Registration::all() } else { Registration::of(names.iter().map(|name| named(name))) };
    let datasets = BTreeMap::from([(DatasetId::primary(), dataset(Kind::Documents, registration))]);
    start_with(network, seed, clock, Arc::new(engine.clone()), datasets)
}

impl TestNode {
    async fn listed(&self) -> Vec<(String, u64)> {
        let all = self.handle.collections(&DatasetId::primary()).await.unwrap();
        all.into_iter().map(|info| (info.collection.to_string(), info.documents)).collect()
    }

    async fn keys(&self) -> Vec<String> {
        self.state().await.0.into_iter().map(|(key, _)| key).collect()
    }
}

#[test]
fn a_drop_while_apart_takes_what_was_written_before_it_everywhere() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let stores: Vec<_> = (0..3).map(|_| MemoryEngine::default()).collect();
        // C's clock is behind: what it writes apart is older than the drop, whenever it is written.
        let a = node(&network, 1, NOON + 60_000, &stores[0], &["*"]);
        let b = node(&network, 2, NOON + 120_000, &stores[1], &["*"]);
        let c = node(&network, 3, NOON, &stores[2], &["*"]);
        for n in 0..40 {
            c.put(&format!("before{n}"), "1").await;
        }
        network.connect(a.peer, b.peer).await;
        a.put("a before", "1").await;
        b.put("b", "1").await;
        converged(&[&a, &b], 2).await;
        network.disconnect(a.peer, b.peer).await;

        // B writes on under a clock that is ahead, A drops: of B's documents the one that it wrote after that stays.
        b.put("b after", "1").await;
        a.write(Op::Drop).await;
        assert_eq!((a.keys().await.len(), a.listed().await), (0, vec![]), "gone at once, and not listed");
        a.put("a after", "1").await;
        network.connect(b.peer, c.peer).await;
        network.connect(a.peer, c.peer).await;
        network.connect(a.peer, b.peer).await;
        converged(&[&a, &b, &c], 2).await;
        assert_eq!(b.keys().await, ["a after", "b after"]);
        for node in [&a, &b, &c] {
            assert_eq!(node.listed().await, [("orders".to_owned(), 2)]);
        }

        // Once more from their stores.
        let before = c.state().await;
        for node in [&a, &b, &c] {
            node.handle.stop().await;
        }
        let network = Arc::new(Network::default());
        let again: Vec<_> =
            (1..=3).zip(&stores).map(|(seed, store)| node(&network, seed, NOON + 180_000, store, &["*"])).collect();
        for node in &again {
            assert_eq!(node.state().await, before);
        }
        // A fourth one that never saw any of it.
        let d = node(&network, 4, NOON, &MemoryEngine::default(), &["*"]);
        network.connect(d.peer, again[2].peer).await;
        converged(&[&d, &again[0]], 2).await;
    });
}

#[test]
fn a_collection_registered_after_its_drop_has_what_the_others_have() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let a = node(&network, 1, NOON, &MemoryEngine::default(), &["*"]);
        let b = node(&network, 2, NOON + 1_000_000, &MemoryEngine::default(), &["notes"]);
        network.connect(a.peer, b.peer).await;
        let put = |name: &str, key: &str| {
            let op = Op::Put { key: Key::new(key).unwrap(), value: json("1") };
            WriteRequest::new(vec![WriteOp { collection: named(name), op }])
        };
        for n in 0..30 {
            a.handle.write(&DatasetId::primary(), put("orders", &format!("k{n}"))).await.unwrap();
        }
        a.write(Op::Truncate).await;
        a.put("after", "1").await;
        assert_eq!(a.listed().await, [("orders".to_owned(), 1)]);
        a.write(Op::Truncate).await;
        assert_eq!(a.listed().await, [("orders".to_owned(), 0)], "a truncated one stays listed");
        a.put("last", "1").await;
        a.handle.write(&DatasetId::primary(), put("notes", "n")).await.unwrap();
        // Nothing of it reaches who did not register it; a drop there would reach nobody.
        let dropped = WriteRequest::new(vec![WriteOp { collection: collection(), op: Op::Drop }]);
        let refused = b.handle.write(&DatasetId::primary(), dropped).await;
        assert!(matches!(refused, Err(WriteError::Refused(WriteRefusal::DropsNothingShared { .. }))), "{refused:?}");
        assert!(b.handle.register(&DatasetId::primary(), &collection()).await.unwrap());
        converged(&[&a, &b], 1).await;
        assert_eq!(b.keys().await, ["last"]);
    });
}

/// More rows than one turn looks at, newer than the drop that comes.
#[test]
fn a_late_drop_of_a_large_collection_lets_writes_pass() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let a = node(&network, 1, NOON, &MemoryEngine::default(), &["*"]);
        let b = node(&network, 2, NOON + 100_000, &MemoryEngine::default(), &["*"]);
        for part in 0..5 {
            let ops = (0..2_000).map(|n| {
                let key = Key::new(&format!("k{:05}", part * 2_000 + n)).unwrap();
                WriteOp { collection: collection(), op: Op::Put { key, value: json("1") } }
            });
            b.handle.write(&DatasetId::primary(), WriteRequest::new(ops.collect())).await.unwrap();
        }
        a.put("old", "1").await;
        a.write(Op::Truncate).await;
        network.connect(a.peer, b.peer).await;
        for n in 0..20 {
            b.put(&format!("k{:05}", n * 400), "\"meanwhile\"").await;
        }
        converged(&[&a, &b], 10_000).await;
        assert_eq!(b.listed().await, [("orders".to_owned(), 10_000)]);
    });
}
