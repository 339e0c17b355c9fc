//! One size: everybody joins, a burst, quiet, and one node that was away returns.

use std::time::{Duration, Instant};

use anabranch_protocol::id::{Collection, Key};
use anabranch_protocol::replica::{Op, WriteOp, WriteRequest};
use anabranch_protocol::value::Value;
use serde::Serialize;

use super::outside::Rules;
use super::traffic::{PerNode, Traffic};
use super::world::World;

/// What is measured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many nodes.
    pub nodes: u32,
    /// Neighbours of each: even.
    pub degree: u32,
    /// Every third holds records, the others documents.
    pub datasets: u32,
    /// The random sequence begins here.
    pub seed: u64,
    /// How many nodes write.
    pub writers: u32,
    /// How long nobody writes.
    pub idle: Duration,
    /// How long one node is away.
    pub away: Duration,
    /// Rules that hold.
    pub rules: Rules,
}

impl Settings {
    /// As the command measures it.
    #[must_use]
    pub fn of(nodes: u32, degree: u32, datasets: u32, seed: u64) -> Self {
        let (idle, away) = (Duration::from_secs(5 * 60), Duration::from_secs(60 * 60));
        Self { nodes, degree, datasets, seed, writers: 10, idle, away, rules: Rules::ALL }
    }
}

/// What came of one size. Times are milliseconds of virtual time, bytes are those of encoded messages.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// How many nodes.
    pub nodes: u32,
    /// Connections.
    pub edges: u64,
    /// Of a node, in the mean.
    pub neighbours: f64,
    /// Hops between the farthest two nodes.
    pub diameter: u32,
    /// Until all sessions of all datasets were up, both ways; absent where they never were.
    pub join_ms: Option<f64>,
    /// Sent while they joined and until all was said.
    pub join: PerNode,
    /// How many nodes wrote one commit into each dataset, all at once.
    pub writers: u32,
    /// Until a node had all commits of a dataset of documents.
    pub documents: Convergence,
    /// The same of datasets of records, which are pulled.
    pub records: Convergence,
    /// Whether all nodes had equal rows then.
    pub equal: bool,
    /// Sent in the [`SETTLING`] from the writes on.
    pub burst: PerNode,
    /// Percent of all pairs of nodes of which one knew after that that the other has everything.
    pub confirmed_percent: f64,
    /// The same after [`Measured::idle`].
    pub confirmed_later_percent: f64,
    /// Seconds in which nobody wrote.
    pub idle_s: f64,
    /// Sent meanwhile.
    pub idle: PerNode,
    /// Until the node that was away had everything; absent where it never had.
    pub return_ms: Option<f64>,
    /// What it received and sent until all was said, bytes.
    pub returner: u64,
    /// Sent by all nodes together in that time, mean of a node.
    pub returned: PerNode,
    /// Hash of every event.
    pub trace: String,
    /// Events.
    pub events: u64,
    /// What the simulation itself took, seconds.
    pub took_s: f64,
}

impl Measured {
    /// Whether every session came up, everybody got every commit, and all had equal rows.
    #[must_use]
    pub fn converged(&self) -> bool {
        self.join_ms.is_some() && self.documents.whole && self.records.whole && self.equal && self.return_ms.is_some()
    }
}

/// How fast commits reached everybody, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Convergence {
    /// Whether everybody got there.
    pub whole: bool,
    /// Half of the nodes, per dataset, had all commits.
    pub p50: f64,
    /// All but one of a hundred had.
    pub p99: f64,
    /// All had.
    pub max: f64,
}

/// After an event of interest this much time passes until all is said: two rounds.
pub const SETTLING: Duration = Duration::from_secs(30);
/// A burst that has not reached everybody by then counts as lost.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// Measures one size.
#[must_use]
pub fn measure(settings: &Settings) -> Measured {
    let started = Instant::now();
    let mut world = World::new(settings);
    let order = world.shuffled_nodes();
    let writers = settings.writers.min(settings.nodes);
    let writing = &order[..writers as usize];

    world.connect_all();
    world.pass(micros(SETTLING));
    let wanted = 2 * world.edges() * u64::from(settings.datasets);
    let join_ms = (world.opened.0 == wanted).then(|| millis(world.opened.1));
    let join = world.take_traffic().per_node();

    let (documents, records, burst) = burst(&mut world, settings, writing);
    let (confirmed_percent, equal) = (confirmed_percent(&world), equal(&world));

    world.pass(micros(settings.idle));
    let idle = world.take_traffic().per_node();
    let confirmed_later_percent = self::confirmed_percent(&world);

    let returned = depart_and_return(&mut world, settings, &order);
    Measured {
        nodes: settings.nodes,
        edges: world.edges(),
        neighbours: ratio(2 * world.edges(), u64::from(settings.nodes)),
        diameter: world.diameter().unwrap_or(0),
        join_ms,
        join,
        writers,
        documents,
        records,
        equal,
        burst,
        confirmed_percent,
        confirmed_later_percent,
        idle_s: settings.idle.as_secs_f64(),
        idle,
        return_ms: returned.after,
        returner: returned.by_it,
        returned: returned.by_all,
        trace: world.trace(),
        events: world.events,
        took_s: started.elapsed().as_secs_f64(),
    }
}

/// Each writer commits once in each dataset, all at once.
fn burst(world: &mut World, settings: &Settings, writing: &[u32]) -> (Convergence, Convergence, PerNode) {
    write_everywhere(world, settings, writing, 1, writing.len() as u64);
    world.pass(micros(SETTLING));
    let sent = world.take_traffic().per_node();
    let mut passed = SETTLING;
    while passed < PATIENCE && !all_reached(world, settings) {
        world.pass(micros(SETTLING));
        passed += SETTLING;
    }
    world.take_traffic();
    let of = |append: bool| convergence(world, settings.nodes, append);
    (of(false), of(true), sent)
}

fn all_reached(world: &World, settings: &Settings) -> bool {
    world.reached().iter().all(|reached| reached.len() == settings.nodes as usize)
}

fn convergence(world: &World, nodes: u32, append: bool) -> Convergence {
    let of_kind = world.reached().iter().enumerate().filter(|(index, _)| (index % 3 == 2) == append);
    let (mut times, mut datasets) = (Vec::new(), 0);
    for (_, reached) in of_kind {
        times.extend(reached.iter().map(|(_, after)| *after));
        datasets += 1;
    }
    times.sort_unstable();
    // The time by which so many of a hundred were there.
    let by = |percent: usize| times.get((times.len() * percent).div_ceil(100).max(1) - 1).map_or(0.0, |at| millis(*at));
    Convergence { whole: times.len() == nodes as usize * datasets, p50: by(50), p99: by(99), max: by(100) }
}

struct Returned {
    after: Option<f64>,
    by_it: u64,
    by_all: PerNode,
}

/// One node is cut off; half-way the writers commit again; it returns.
fn depart_and_return(world: &mut World, settings: &Settings, order: &[u32]) -> Returned {
    // None of the writers, where there are others.
    let away = order[order.len() - 1];
    let writing: Vec<u32> =
        order[..settings.writers.min(settings.nodes) as usize].iter().copied().filter(|node| *node != away).collect();
    world.cut(away);
    world.pass(micros(settings.away) / 2);
    let before = u64::from(settings.writers.min(settings.nodes));
    write_everywhere(world, settings, &writing, 20, before + writing.len() as u64);
    world.pass(micros(settings.away) / 2);
    world.take_traffic();
    world.watch_again();
    world.connect(away);
    world.pass(micros(SETTLING));
    let there = |reached: &Vec<(u32, u64)>| reached.iter().find(|(node, _)| *node == away).map(|(_, after)| *after);
    let times: Option<Vec<u64>> = world.reached().iter().map(there).collect();
    let traffic: Traffic = world.take_traffic();
    Returned {
        after: times.and_then(|times| times.into_iter().max()).map(millis),
        by_it: traffic.of(away),
        by_all: traffic.per_node(),
    }
}

/// Each of `writing` commits so many entries in each dataset, now; each dataset has `target` commits then.
fn write_everywhere(world: &mut World, settings: &Settings, writing: &[u32], entries: u32, target: u64) {
    world.watch(vec![target; settings.datasets as usize]);
    for (node, dataset) in writing.iter().flat_map(|node| (0..settings.datasets as usize).map(move |dataset| (*node, dataset))) {
        let ops = (0..entries).map(|entry| op(node, entry, dataset % 3 == 2)).collect();
        world.write(node, dataset, WriteRequest::new(ops));
    }
}

fn op(node: u32, entry: u32, append: bool) -> WriteOp {
    let collection = Collection::new("readings").expect("a valid name");
    let json = format!(r#"{{"station":{node},"reading":{entry},"celsius":21.5,"note":"as every ten minutes"}}"#);
    let value = Value::from_json(json.as_bytes()).expect("JSON").encode();
    let op = if append {
        Op::Append { value }
    } else {
        Op::Put { key: Key::new(&format!("station-{node}-{entry}")).expect("a valid key"), value }
    };
    WriteOp { collection, op }
}

fn equal(world: &World) -> bool {
    let fingerprints = |index: usize| world.nodes.iter().map(move |node| node.datasets[index].fingerprint());
    (0..world.nodes[0].datasets.len()).all(|index| {
        let first = world.nodes[0].datasets[index].fingerprint();
        fingerprints(index).all(|fingerprint| fingerprint == first)
    })
}

/// Of all pairs of nodes and datasets, those where one knows that the other has what it has.
fn confirmed_percent(world: &World) -> f64 {
    let datasets = world.nodes.iter().flat_map(|node| &node.datasets);
    let (known, count) =
        datasets.fold((0_u64, 0_u64), |(known, count), dataset| (known + u64::from(dataset.peers_known_equal()), count + 1));
    let pairs = count * (world.nodes.len() as u64 - 1);
    if pairs == 0 { 100.0 } else { ratio(known * 100, pairs) }
}

#[expect(clippy::cast_precision_loss, reason = "for reading")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).expect("hours, not ages")
}

fn millis(micros: u64) -> f64 {
    ratio(micros, 1_000)
}
