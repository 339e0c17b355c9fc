//! `anabranch demo`: three nodes, three datasets and sample load in one process, to look at.
//!
//! The first node makes a network key; the other two join it by an invite, as nodes on other machines would. What is written on
//! one of them goes through the first to the other.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anabranch_actors::node::NodeHandle;
use anabranch_protocol::id::{Collection, DatasetId, Key};
use anabranch_protocol::invite::Invite;
use anabranch_protocol::network_key::NetworkKey;
use anabranch_protocol::replica::{Op, WriteOp, WriteRequest};
use anabranch_protocol::value::Value;
use serde_json::{Value as Json, json};
use tokio::task::JoinHandle;

use crate::builder::NodeBuilder;
use crate::config::{ConfigError, Overrides};
use crate::node::Node;
use crate::process::Failure;
use crate::process::data_dir::{DataDir, write_whole};
use crate::process::logging::{self, LogFormat};
use crate::process::signals::StopSignals;
use crate::run::World;

/// Names of the nodes' directories.
const NODES: [&str; 3] = ["harbour", "mill", "orchard"];
/// What they hold: dataset, kind, collection of the samples, samples of a node in a second.
const DATASETS: [(&str, &str, &str, u32); 3] =
    [("primary", "documents", "orders", 2), ("logs", "append", "app", 20), ("metrics", "append", "temperature", 5)];
/// Orders of one node; then they are changed.
const ORDERS: u64 = 500;
/// How long datasets may take to open before the demo goes on without them.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// A sample that is refused is not written; a full disk should not fill the log as well.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// What the demo is asked to do.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Kept; without one everything goes with the demo.
    pub data_dir: Option<PathBuf>,
    /// Of the first node's HTTP; 0: free ones for all.
    pub port: u16,
    pub log_filter: String,
}

/// Runs until it is told to stop.
///
/// # Errors
/// Why it could not start.
pub fn demo(options: &DemoOptions, world: &World) -> Result<(), Failure> {
    logging::start(&options.log_filter, LogFormat::Text)?;
    let (dir, temporary) = match &options.data_dir {
        Some(dir) => (dir.clone(), None),
        None => {
            let made = tempfile::Builder::new().prefix("anabranch-demo-").tempdir();
            let made = made.map_err(|error| Failure::other("can't make a temporary directory", error))?;
            (made.path().to_owned(), Some(made))
        }
    };
    actix::System::new().block_on(live(&dir, temporary.is_some(), options, world))?;
    if let Some(made) = temporary {
        made.close().map_err(|error| Failure::other("can't remove the temporary directory", error))?;
    }
    Ok(())
}

async fn live(dir: &Path, temporary: bool, options: &DemoOptions, world: &World) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    let held = DataDir::open(dir)?;
    let mut nodes = Vec::new();
    let started = tokio::select! {
        biased;
        _ = signals.first() => Ok(false),
        started = start_all(&mut nodes, held.path(), options.port, world) => started.map(|()| true),
    };
    let mut tasks = Vec::new();
    if let Ok(true) = started {
        say(&guide(&nodes, held.path(), temporary));
        tasks = load(&nodes);
        tasks.extend(std::io::stdout().is_terminal().then(|| actix::spawn(show(handles(&nodes)))));
        signals.first().await;
        say("\nstopping");
    }
    tasks.iter().for_each(JoinHandle::abort);
    let stopping = futures::future::join_all(nodes.into_iter().map(Node::stop));
    tokio::select! {
        _ = stopping => {}
        () = signals.abort_on_second() => {}
    }
    started.map(drop)
}

fn handles(nodes: &[Node]) -> Vec<NodeHandle> {
    nodes.iter().map(|node| node.handle().clone()).collect()
}

/// Starts them one after the other; those that run are in `nodes` whatever comes of the next.
async fn start_all(nodes: &mut Vec<Node>, dir: &Path, port: u16, world: &World) -> Result<(), Failure> {
    let key_file = dir.join("network.key");
    if !key_file.exists() {
        let key = format!("{}\n", NetworkKey::new(rand::random()).to_text());
        let failed = |error| Failure::other(format!("can't write {}", key_file.display()), error);
        write_whole(&key_file, key.as_bytes()).map_err(failed)?;
    }
    for (number, name) in (0_u16..).zip(NODES) {
        let overrides = Overrides {
            data_dir: Some(dir.join(name)),
            listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
            network_keys: if number == 0 { vec![key_file.clone()] } else { Vec::new() },
            join: nodes.first().map(|first| invite(first, world)),
            http: Some(format!("127.0.0.1:{}", if port == 0 { 0 } else { port.saturating_add(number) })),
            datasets: flags()?,
            ..Overrides::default()
        };
        let builder = NodeBuilder::of_demo(overrides).engine(world.engine.clone()).clock(world.clock.clone());
        let started = builder.disk_patience(world.disk_patience).probe(world.probe.clone()).start().await;
        nodes.push(started.map_err(|failure| match failure {
            Failure::Other(why) if port != 0 => Failure::Other(format!("{why}. `anabranch demo --port 0` takes free ports")),
            other => other,
        })?);
    }
    let opening = nodes.iter().map(|node| node.handle().open_all());
    if tokio::time::timeout(OPEN_WITHIN, futures::future::join_all(opening)).await.is_err() {
        tracing::warn!("a dataset is still opening after {OPEN_WITHIN:?}");
    }
    Ok(())
}

fn flags() -> Result<Vec<crate::config::DatasetFlag>, ConfigError> {
    let flag = |(name, kind, _, _): &(&str, &str, &str, u32)| format!("{name}:{kind}=*").parse().map_err(ConfigError);
    DATASETS.iter().map(flag).collect()
}

/// What `anabranch invite` would print.
fn invite(node: &Node, world: &World) -> Invite {
    let bare = |address: &String| address.split("/p2p/").next().unwrap_or_default().to_owned();
    Invite {
        peer: node.handle().peer_id(),
        addresses: node.page().listen.iter().map(bare).collect(),
        network_key: node.config().access.network_keys.first().cloned(),
        made_at: world.clock.now(),
        expires_at: None,
        lineages: std::collections::BTreeMap::new(),
    }
}

/// A task for each node and dataset. None outlives the demo.
fn load(nodes: &[Node]) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    for (node, name) in nodes.iter().zip(NODES) {
        for (dataset, _, collection, rate) in DATASETS {
            let handle = node.handle().clone();
            tasks.push(actix::spawn(async move { write_samples(handle, name, dataset, collection, rate).await }));
        }
    }
    tasks
}

async fn write_samples(node: NodeHandle, name: &str, dataset: &str, collection: &str, rate: u32) {
    let (Ok(dataset), Ok(collection)) = (DatasetId::new(dataset), Collection::new(collection)) else { return };
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for number in 0.. {
        ticks.tick().await;
        let Some(op) = sample(name, &dataset, number) else { return };
        let request = WriteRequest::new(vec![WriteOp { collection: collection.clone(), op }]);
        if let Err(error) = node.write(&dataset, request).await {
            tracing::warn!(%dataset, node = name, %error, "a sample was not written");
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
    }
}

/// The sample of a number: orders have a life, records a reading.
fn sample(node: &str, dataset: &DatasetId, number: u64) -> Option<Op> {
    let value = |json: &Json| Some(Value::from_json(json.to_string().as_bytes()).ok()?.encode());
    if !dataset.is_primary() {
        let reading = 20.0 + f64::from(u8::try_from(number % 100).unwrap_or_default()) / 10.0;
        let record = match dataset.as_str() {
            "metrics" => json!({ "site": node, "celsius": reading }),
            _ => json!({ "site": node, "level": if number.is_multiple_of(50) { "warn" } else { "info" }, "line": number }),
        };
        return Some(Op::Append { value: value(&record)? });
    }
    let state = ["new", "packed", "shipped", "paid"].get(usize::try_from(number / ORDERS % 4).ok()?)?;
    let order = json!({ "site": node, "total": 5 + number * 7 % 90, "state": state });
    Some(Op::Put { key: Key::new(&format!("{node}-{:04}", number % ORDERS)).ok()?, value: value(&order)? })
}

fn guide(nodes: &[Node], dir: &Path, temporary: bool) -> String {
    let mut lines = vec!["Three nodes, in sync over loopback; the last two joined the first by an invite:".to_owned()];
    let urls: Vec<_> = nodes.iter().map(|node| format!("http://{}", node.page().http.unwrap_or_default())).collect();
    lines.extend(NODES.iter().zip(&urls).map(|(name, url)| format!("  {name:<8} {url}")));
    let kinds: Vec<_> = DATASETS.iter().map(|(name, kind, collection, _)| format!("{name} ({kind}, {collection})")).collect();
    lines.push(format!("Each writes samples into {}.", kinds.join(", ")));
    let first = urls.first().cloned().unwrap_or_default();
    let last = urls.last().cloned().unwrap_or_default();
    lines.push("\nTo try, in another terminal:".to_owned());
    lines.extend([
        format!("  anabranch status --node {first}"),
        format!("  anabranch peers --node {first}"),
        format!("  anabranch list orders --node {last} --limit 5"),
        format!("  anabranch put orders mine '{{\"total\": 12}}' --node {first} --ack all"),
        format!("  anabranch get orders mine --node {last}"),
        format!("  curl -s {last}/v1/datasets/logs/collections/app/docs?limit=3"),
    ]);
    let kept = if temporary { "goes when the demo ends; --data-dir keeps it" } else { "is kept" };
    lines.push(format!("\nThe data is in {} and {kept}. Ctrl-C stops.", dir.display()));
    lines.join("\n")
}

/// What the nodes hold, on one line that is written over each second.
async fn show(nodes: Vec<NodeHandle>) {
    let terminal = console::Term::stdout();
    loop {
        let mut parts = Vec::new();
        for (node, name) in nodes.iter().zip(NODES) {
            let counts: Vec<_> = node.datasets().await.iter().map(counted).collect();
            parts.push(format!("{name} {}", counts.join("/")));
        }
        let columns = usize::from(terminal.size().1);
        let line = format!("{}  (primary documents, logs and metrics records by name)", parts.join("  "));
        // Whoever closed the terminal stops the demo by that.
        let _ = terminal.clear_line().and_then(|()| terminal.write_str(&console::truncate_str(&line, columns, "…")));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn counted(info: &anabranch_actors::api::DatasetInfo) -> String {
    info.contents.as_ref().map_or_else(|| "-".to_owned(), |contents| contents.documents.to_string())
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Who started the demo may have closed its standard output.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dataset_has_samples_and_a_flag() {
        assert_eq!(flags().unwrap().len(), 3);
        for (name, kind, _, _) in DATASETS {
            let op = sample("mill", &DatasetId::new(name).unwrap(), 1_999).unwrap();
            assert_eq!(matches!(op, Op::Append { .. }), kind == "append", "{name}");
        }
    }
}
