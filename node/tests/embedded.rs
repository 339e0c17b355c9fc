//! A node inside an application: in this process, and in the example shop as a process of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anabranch_actors::api::{DatasetError, DatasetState};
use anabranch_actors::typed::TypedCollection;
use anabranch_node::{Failure, Node, NodeBuilder};
use anabranch_protocol::id::DatasetId;
use serde::{Deserialize, Serialize};

/// How long any condition may take to come true. Far beyond what it takes: only a bug reaches it.
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    id: String,
    item: String,
    pieces: u32,
}

fn order(id: &str) -> Order {
    Order { id: id.to_owned(), item: "tea".to_owned(), pieces: 2 }
}

fn embedded(dir: &Path) -> NodeBuilder {
    Node::builder().data_dir(dir).listen("/ip4/127.0.0.1/tcp/0").dataset("primary=")
}

async fn orders(node: &Node) -> TypedCollection<Order> {
    let primary = node.dataset("primary").expect("a name");
    primary.watch_collection("orders", |order: &Order| order.id.clone()).await.expect("it may be registered")
}

async fn arrived(orders: &TypedCollection<Order>, id: &str) -> Order {
    let arrival = async {
        loop {
            if let Some(order) = orders.get(id).await.expect("it is read") {
                return order;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(DEADLINE, arrival).await.expect("it arrives")
}

#[actix::test]
async fn nodes_of_one_system_sync_an_applications_own_type() {
    let dir = tempfile::tempdir().expect("a directory");
    let till = embedded(&dir.path().join("till")).start().await.expect("it starts");
    let office = embedded(&dir.path().join("office")).peer(till.page().listen[0].clone());
    let office = office.start().await.expect("it starts");
    assert_eq!(till.page().http, None, "no HTTP unless it is asked for");

    let (at_till, at_office) = (orders(&till).await, orders(&office).await);
    at_till.put(&order("o-1")).await.expect("it is written");
    assert_eq!(arrived(&at_office, "o-1").await, order("o-1"));

    // The actors behind it can be asked as well.
    let running = till.handle().actors(&DatasetId::primary()).expect("it is hosted").running().await.expect("it runs");
    assert!(running.oplog.connected());
    // Held on to, it would hold up the end of the store.
    drop(running);
    till.stop().await;
    let stopped = at_till.get("o-1").await.expect_err("it was stopped").to_string();
    assert!(stopped.contains("stopping"), "{stopped}");
    // What is written while the peer is away is durable here.
    at_office.put(&order("o-2")).await.expect("it is written");
    office.stop().await;
    let office = embedded(&dir.path().join("office")).start().await.expect("it starts again");
    assert_eq!(arrived(&orders(&office).await, "o-2").await, order("o-2"));
    office.stop().await;
}

#[actix::test]
async fn datasets_come_from_the_builder_or_from_its_file_and_not_from_elsewhere() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("node.toml");
    std::fs::write(&file, "listen = ['/ip4/127.0.0.1/tcp/0']\n[datasets.logs]\nkind = 'append'\n").expect("a file");
    let node = Node::builder().config_file(&file).data_dir(dir.path().join("data")).start().await.expect("it starts");
    node.handle().open_all().await;
    let datasets = node.handle().datasets().await;
    assert_eq!(datasets.len(), 1);
    assert_eq!((datasets[0].dataset.as_str(), datasets[0].state), ("logs", DatasetState::Running));
    let absent = node.handle().dataset(&DatasetId::primary()).await.expect_err("only what the file names runs");
    assert!(matches!(absent, DatasetError::Unknown(_)));
    node.stop().await;
}

#[cfg(feature = "http")]
#[actix::test]
async fn http_is_served_where_it_is_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = embedded(dir.path()).http("127.0.0.1:0").start().await.expect("it starts");
    let url = format!("http://{}/v1/node", node.page().http.expect("it serves HTTP"));
    let answer = tokio::task::spawn_blocking(move || ureq::get(&url).call().expect("an answer").into_body().read_to_string());
    let page = answer.await.expect("it ends").expect("text");
    assert!(page.contains(&node.page().peer_id), "{page}");
    node.stop().await;
}

#[actix::test]
async fn what_cannot_be_configured_is_said_and_nothing_is_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    for (builder, said) in [
        (embedded(&data).dataset("Bad Name"), "Bad Name"),
        (embedded(&data).peer("nonsense"), "nonsense"),
        (embedded(&data).listen("/ip4/0.0.0.0/tcp/0"), "network-key"),
        (embedded(&data).config_file(dir.path().join("none.toml")), "none.toml"),
    ] {
        let failure = builder.start().await.expect_err("it can't start");
        assert!(matches!(&failure, Failure::Usage(why) if why.contains(said)), "{said}: {failure}");
    }
    assert!(!data.exists());
    let running = embedded(&data).start().await.expect("it starts");
    let second = embedded(&data).start().await.expect_err("its directory is in use");
    assert!(matches!(second, Failure::InUse(_)), "{second}");
    running.stop().await;
}

/// The example, which `cargo test` builds beside this binary.
fn example() -> PathBuf {
    let tests = std::env::current_exe().expect("a path");
    let built = tests.parent().and_then(Path::parent).expect("target/PROFILE/deps/").join("examples/shop");
    assert!(built.exists(), "{} is missing: cargo build --workspace --examples", built.display());
    built
}

struct Shop {
    process: Child,
    url: String,
    peer: String,
}

impl Shop {
    fn open(data_dir: &Path, peer: Option<&str>) -> Self {
        let mut command = Command::new(example());
        command.arg(data_dir).arg("127.0.0.1:0").args(peer).stdout(Stdio::piped());
        let mut process = command.spawn().expect("it runs");
        let mut lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        let mut said = |word: &str| {
            let line = lines.next().expect("it says where it is").expect("text");
            line.strip_prefix(word).expect("what it is").trim().to_owned()
        };
        let (url, peer) = (said("shop"), said("peer"));
        Self { process, url, peer }
    }

    fn order(&self, order: &Order) {
        let body = serde_json::to_vec(order).expect("JSON");
        let answer = ureq::post(&self.url).header("content-type", "application/json").send(body).expect("it is taken");
        assert_eq!(answer.status(), 201);
    }

    fn arrives(&self, wanted: &[Order]) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut text = String::new();
            let answer = ureq::get(&self.url).call().expect("an answer");
            answer.into_body().into_reader().read_to_string(&mut text).expect("text");
            let orders: Vec<Order> = serde_json::from_str(&text).expect("orders");
            if orders == wanted {
                return;
            }
            assert!(Instant::now() < deadline, "{text}");
            std::thread::sleep(POLL);
        }
    }

    fn close(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status().expect("it is told");
        assert!(asked.success());
        assert!(self.process.wait().expect("it ends").success());
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn orders_of_the_example_shop_arrive_from_its_peer() {
    let dir = tempfile::tempdir().expect("a directory");
    let (till, office) = (dir.path().join("till"), dir.path().join("office"));
    let at_till = Shop::open(&till, None);
    let at_office = Shop::open(&office, Some(&at_till.peer));
    at_till.order(&order("o-1"));
    at_office.arrives(&[order("o-1")]);
    at_till.close();
    at_office.order(&order("o-2"));
    let at_till = Shop::open(&till, Some(&at_office.peer));
    at_till.arrives(&[order("o-1"), order("o-2")]);
    at_till.close();
    at_office.close();
}
