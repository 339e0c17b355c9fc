//! Collections are registered and unregistered while nodes run: what enters and leaves, what is imported, who can deliver it.

use anabranch_actors::api::{Ack, CollectionInfo, Coverage, DatasetState, RegistrationError, RegistrationRefusal};

use super::*;

fn named(name: &str) -> Collection {
    Collection::new(name).unwrap()
}

fn replicating(network: &Arc<Network>, seed: u8, kind: Kind, names: &[&str]) -> TestNode {
    let registration = if names == ["*"] { Registration::all() } else { Registration::of(names.iter().map(|name| named(name))) };
    let datasets = BTreeMap::from([(DatasetId::primary(), dataset(kind, registration))]);
    start_with(network, seed, NOON, Arc::new(MemoryEngine::default()), datasets)
}

impl TestNode {
    async fn put_in(&self, name: &str, key: &str, value: &str) {
        let op = Op::Put { key: Key::new(key).unwrap(), value: json(value) };
        let request = WriteRequest::new(vec![WriteOp { collection: named(name), op }]);
        self.handle.write(&DatasetId::primary(), request).await.unwrap();
    }

    async fn append_to(&self, name: &str, value: &str) {
        let op = Op::Append { value: json(value) };
        let request = WriteRequest::new(vec![WriteOp { collection: named(name), op }]);
        self.handle.write(&DatasetId::primary(), request).await.unwrap();
    }

    async fn values(&self, name: &str) -> Vec<Vec<u8>> {
        let query = ListQuery { limit: 10_000, ..ListQuery::default() };
        let page = self.handle.list(&DatasetId::primary(), &named(name), query).await.unwrap();
        page.documents.into_iter().map(|document| document.value).collect()
    }

    async fn register(&self, name: &str) -> bool {
        self.handle.register(&DatasetId::primary(), &named(name)).await.unwrap()
    }

    async fn unregister(&self, name: &str) -> bool {
        self.handle.unregister(&DatasetId::primary(), &named(name)).await.unwrap()
    }

    async fn collection(&self, name: &str) -> Option<CollectionInfo> {
        let all = self.handle.collections(&DatasetId::primary()).await.unwrap();
        all.into_iter().find(|info| info.collection == named(name))
    }

    async fn coverage(&self, name: &str) -> Option<Coverage> {
        self.collection(name).await.map(|info| info.coverage)
    }

    async fn reason(&self) -> String {
        self.handle.dataset(&DatasetId::primary()).await.unwrap().reason.unwrap_or_default()
    }

    /// Waits until a collection holds so many documents and is complete.
    async fn has(&self, name: &str, documents: usize) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let (found, info) = (self.values(name).await.len(), self.collection(name).await);
            if let Some(info) = info.iter().find(|info| found == documents && info.coverage == Coverage::Complete) {
                assert_eq!(info.documents, documents as u64, "what is counted is what is there");
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{found} of {documents}: {info:?}, {}", self.reason().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn says(&self, what: &str) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while !self.reason().await.contains(what) {
            assert!(tokio::time::Instant::now() < deadline, "{what:?} is not said: {:?}", self.reason().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[test]
fn a_collection_registered_late_is_imported_and_one_unregistered_stays_as_it_is() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let (a, b) = (replicating(&network, 1, Kind::Documents, &["*"]), replicating(&network, 2, Kind::Documents, &["orders"]));
        network.connect(a.peer, b.peer).await;
        for n in 0..300 {
            a.put_in("orders", &format!("o{n}"), "1").await;
            a.put_in("customers", &format!("c{}", n % 100), &n.to_string()).await;
        }
        b.has("orders", 300).await;
        assert!(b.values("customers").await.is_empty());
        assert!(b.register("customers").await && !b.register("customers").await);
        b.has("customers", 100).await;
        assert_eq!(b.values("customers").await, a.values("customers").await);
        converged(&[&a, &b], 300).await;
        assert_eq!(b.handle.dataset(&DatasetId::primary()).await.unwrap().state, DatasetState::Running);

        assert!(b.unregister("customers").await && !b.unregister("customers").await);
        let before = b.values("customers").await;
        for n in 0..50 {
            a.put_in("customers", &format!("c{n}"), "\"later\"").await;
        }
        a.put_in("orders", "last", "1").await;
        b.has("orders", 301).await;
        assert_eq!(b.values("customers").await, before, "what was there stays");
        assert_eq!(b.coverage("customers").await, Some(Coverage::Frozen));
        let pulls = network.requests("pull");
        assert!(b.register("customers").await);
        b.has("customers", 100).await;
        assert_eq!(b.values("customers").await, a.values("customers").await);
        assert!(network.requests("pull") < pulls + 10, "all of it is pulled again");
        converged(&[&a, &b], 301).await;
        assert!(network.requests_when_idle("pull").await <= 2);
    });
}

/// Who imports a collection has the commits that its vector names, and not what they say of it.
#[test]
fn what_is_still_imported_is_not_confirmed() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let (a, b) = (replicating(&network, 1, Kind::Documents, &["*"]), replicating(&network, 2, Kind::Documents, &["orders"]));
        network.connect(a.peer, b.peer).await;
        let write = async |name: &str| {
            let op = Op::Put { key: Key::new("k").unwrap(), value: json("1") };
            let request = WriteRequest::new(vec![WriteOp { collection: named(name), op }]);
            a.handle.write(&DatasetId::primary(), request).await.unwrap().token.unwrap()
        };
        let confirmed = async |token, name: &str, patience| {
            let collections = vec![named(name)];
            a.handle.confirmed(&DatasetId::primary(), token, collections, Ack::Peers(1), patience).await.unwrap().enough
        };
        let (long, short) = (Duration::from_secs(30), Duration::from_millis(1));
        let past = write("customers").await;
        // Of what it replicates that commit says nothing, so it has all of it.
        assert!(confirmed(past, "orders", long).await);
        // The past can't be pulled yet; what comes from now on is pushed.
        network.lose("pull", 1_000);
        assert!(b.register("customers").await);
        let fresh = write("orders").await;
        assert!(confirmed(fresh, "orders", long).await);
        assert_eq!(b.coverage("customers").await, Some(Coverage::Importing { missing: 1 }));
        assert!(!confirmed(past, "customers", short).await, "it counts as having what is still to come");
        network.lose("pull", 0);
        assert!(confirmed(past, "customers", long).await);
        assert_eq!(b.values("customers").await.len(), 1);
    });
}

#[test]
fn what_may_not_be_registered_is_refused_in_words() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let few = DatasetSettings {
            collections_max: Registration::of([named("orders")]),
            ..dataset(Kind::Documents, Registration::of([]))
        };
        let a = start_with(
            &network,
            1,
            NOON,
            Arc::new(MemoryEngine::default()),
            BTreeMap::from([
                (DatasetId::primary(), few),
                (DatasetId::new("all").unwrap(), dataset(Kind::Documents, Registration::all())),
            ]),
        );
        assert!(a.register("orders").await);
        let refused = async |dataset: &str, name: &str, register: bool| {
            let dataset = DatasetId::new(dataset).unwrap();
            let changed = if register {
                a.handle.register(&dataset, &named(name)).await
            } else {
                a.handle.unregister(&dataset, &named(name)).await
            };
            let Err(RegistrationError::Refused(refusal)) = changed else { panic!("{changed:?}") };
            refusal
        };
        assert_eq!(refused("primary", "customers", true).await, RegistrationRefusal::BeyondMax(named("customers")));
        assert_eq!(refused("primary", "_control", true).await, RegistrationRefusal::Reserved(named("_control")));
        assert_eq!(refused("all", "orders", false).await, RegistrationRefusal::EveryCollection);
    });
}

#[test]
fn an_application_watches_a_collection_of_its_own_type() {
    use anabranch_actors::typed::{Dataset, TypedError};

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Order {
        id: String,
        total: u32,
    }
    let order = |n: u32| Order { id: format!("o{n:03}"), total: n };
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let (a, b) = (replicating(&network, 1, Kind::Documents, &["*"]), replicating(&network, 2, Kind::Documents, &[]));
        network.connect(a.peer, b.peer).await;
        for n in 0..20 {
            a.put_in("orders", &format!("o{n:03}"), &format!(r#"{{"id":"o{n:03}","total":{n}}}"#)).await;
        }
        let dataset = Dataset::new(b.handle.clone(), DatasetId::primary());
        let orders = dataset.watch_collection::<Order>("orders", |order| order.id.clone()).await.unwrap();
        b.has("orders", 20).await;
        assert_eq!(orders.get("o007").await.unwrap(), Some(order(7)));
        orders.put(&order(20)).await.unwrap();
        orders.delete("o000").await.unwrap();
        assert_eq!(orders.list(None).await.unwrap(), ((1..=20).map(order).collect(), None));
        a.has_values("orders", 20).await;
        a.put_in("orders", "o001", "true").await;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while !matches!(orders.get("o001").await, Err(TypedError::OtherShape { .. })) {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let refused = dataset.watch_collection::<Order>("_control", |order| order.id.clone()).await;
        assert!(matches!(refused, Err(TypedError::Name(_))));
    });
}

#[test]
fn local_documents_and_records_are_issued_once_they_are_registered() {
    for kind in [Kind::Documents, Kind::Append] {
        actix::System::new().block_on(async {
            let network = Arc::new(Network::default());
            let (a, b) = (replicating(&network, 1, kind, &["*"]), replicating(&network, 2, kind, &["orders"]));
            network.connect(a.peer, b.peer).await;
            for n in 0..700 {
                match kind {
                    Kind::Documents => b.put_in("drafts", &format!("d{n}"), &n.to_string()).await,
                    Kind::Append => b.append_to("drafts", &n.to_string()).await,
                }
            }
            match kind {
                Kind::Documents => b.put_in("orders", "o", "1").await,
                Kind::Append => b.append_to("orders", "1").await,
            }
            a.has_values("orders", 1).await;
            assert!(a.values("drafts").await.is_empty());
            assert!(b.register("drafts").await);
            a.has_values("drafts", 700).await;
            b.has("drafts", 700).await;
            converged(&[&a, &b], 1).await;
        });
    }
}

impl TestNode {
    async fn has_values(&self, name: &str, documents: usize) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        while self.values(name).await.len() != documents {
            assert!(tokio::time::Instant::now() < deadline, "{} of {documents}", self.values(name).await.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[test]
fn what_a_node_did_not_register_neither_reaches_it_nor_leaves_it_and_who_needs_it_says_so() {
    actix::System::new().block_on(async {
        let network = Arc::new(Network::default());
        let a = replicating(&network, 1, Kind::Documents, &["*"]);
        let b = replicating(&network, 2, Kind::Documents, &["orders"]);
        let c = replicating(&network, 3, Kind::Documents, &["*"]);
        *network.marker.lock().unwrap() = b"a-marker-nobody-else-writes".to_vec();
        let secret = "\"a-marker-nobody-else-writes\"";
        network.connect(a.peer, b.peer).await;
        network.connect(b.peer, c.peer).await;
        // By push and by pull, towards B and through it.
        a.put_in("orders", "first", "1").await;
        b.has("orders", 1).await;
        a.put_in("secrets", "s", secret).await;
        a.put_in("orders", "second", "1").await;
        b.has("orders", 2).await;
        c.says("no_source").await;
        assert!(network.carried.lock().unwrap().is_empty(), "B got what it did not register");
        // A peer that has it heals it, by itself.
        network.connect(c.peer, a.peer).await;
        c.has("secrets", 1).await;
        let healed = async {
            while c.reason().await.contains("no_source") {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(30), healed).await.is_ok(), "{}", c.reason().await);
        assert!(network.carried.lock().unwrap().iter().all(|(from, to)| *from != b.peer && *to != b.peer));

        // B registers it and, while A is gone, needs C for it; unregistered again, it gives away nothing of what it has.
        network.disconnect(a.peer, b.peer).await;
        network.disconnect(b.peer, c.peer).await;
        assert!(b.register("secrets").await);
        b.says("no_source").await;
        assert!(matches!(b.coverage("secrets").await, Some(Coverage::Importing { .. })));
        network.connect(b.peer, c.peer).await;
        b.has("secrets", 1).await;
        assert!(b.unregister("secrets").await);
        network.carried.lock().unwrap().clear();
        let d = replicating(&network, 4, Kind::Documents, &["*"]);
        network.connect(d.peer, b.peer).await;
        d.says("no_source").await;
        a.put_in("secrets", "s", &format!("[{secret}]")).await;
        a.put_in("orders", "third", "1").await;
        b.has("orders", 3).await;
        assert!(network.carried.lock().unwrap().iter().all(|(from, to)| *from != b.peer && *to != b.peer), "B gave it away");
        assert_eq!(b.values("secrets").await.len(), 1, "what it had it keeps");
        // It registers more: its refreshed Hello heals D, which is connected to nobody else.
        assert!(b.register("secrets").await);
        d.has("secrets", 1).await;
        d.has("orders", 3).await;
    });
}
