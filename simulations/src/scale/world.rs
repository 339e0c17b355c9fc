//! The world: nodes, links between them, virtual time, one random sequence, and the counting of all that is sent.

use std::collections::BTreeMap;

use anabranch_protocol::commit::Identity;
use anabranch_protocol::id::DatasetId;
use anabranch_protocol::replica::WriteRequest;
use anabranch_protocol::wire::Kind as DatasetKind;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64;

use super::graph;
use super::measure::Settings;
use super::message::{Direct, Kind, Message};
use super::node::Node;
use super::outside::{Effect, Outside, Roster, Timer};
use super::queue::Queue;
use super::traffic::Traffic;

/// Latency of a link, one way, microseconds, and by how much a message may take longer.
const LATENCY: std::ops::RangeInclusive<u64> = 5_000..=50_000;
const JITTER: u64 = 5_000;
/// Round trips until a connection stands: TCP, choice of protocols, Noise.
const CONNECTING: u64 = 3;

/// See the module documentation.
pub(super) struct World {
    roster: Roster,
    pub nodes: Vec<Node>,
    /// By sender, then by receiver.
    links: Vec<BTreeMap<u32, Link>>,
    queue: Queue<Event>,
    pub now: u64,
    rng: Pcg64,
    effects: Vec<Effect>,
    traffic: Traffic,
    watch: Watch,
    trace: Trace,
    /// Sessions opened so far, and when the last one was.
    pub opened: (u64, u64),
    pub events: u64,
}

#[derive(Debug)]
struct Link {
    latency: u64,
    /// Nothing overtakes: both ends share one connection.
    last_arrival: u64,
    up: bool,
    /// Counts connections: what was on its way when one broke does not arrive.
    life: u32,
}

enum Event {
    Connected { dialer: u32, other: u32, life: u32 },
    Arrives { from: u32, to: u32, life: u32, size: u32, message: Message },
    Wake { node: u32, timer: Timer },
}

/// When nodes reached what is waited for.
#[derive(Debug, Default)]
struct Watch {
    since: u64,
    /// Commits per dataset.
    target: Vec<u64>,
    /// Microseconds since then, per dataset, in the order of reaching it.
    reached: Vec<Vec<(u32, u64)>>,
}

impl World {
    pub fn new(settings: &Settings) -> Self {
        let mut rng = Pcg64::seed_from_u64(settings.seed ^ u64::from(settings.nodes).rotate_left(32));
        let neighbours = graph::random(settings.nodes, settings.degree, &mut rng);
        let roster = roster(settings, &mut rng);
        let links = links(&neighbours, &mut rng);
        let mut world = Self {
            nodes: Vec::new(),
            links,
            queue: Queue::new(),
            now: 0,
            rng,
            effects: Vec::new(),
            traffic: Traffic::new(settings.nodes),
            watch: Watch::default(),
            trace: Trace::default(),
            opened: (0, 0),
            events: 0,
            roster,
        };
        for me in 0..settings.nodes {
            let node = Node::new(me, &mut outside(&world.roster, world.now, &mut world.rng, &mut world.effects));
            world.nodes.push(node);
            world.carry_out(me);
        }
        world
    }

    /// Connections there can be, both ways counted once.
    pub fn edges(&self) -> u64 {
        self.links.iter().map(|to| to.len() as u64).sum::<u64>() / 2
    }

    /// How many hops the farthest two nodes are apart.
    pub fn diameter(&self) -> Option<u32> {
        let neighbours: Vec<_> = self.links.iter().map(|to| to.keys().copied().collect()).collect();
        graph::diameter(&neighbours)
    }

    /// Everybody dials, one side of each pair.
    pub fn connect_all(&mut self) {
        let pairs = self.links.iter().zip(0..).flat_map(|(to, from)| to.keys().map(move |to| (from, *to)));
        let pairs: Vec<(u32, u32)> = pairs.filter(|(from, to)| from < to).collect();
        for (one, other) in pairs {
            if self.rng.random() { self.dial(one, other) } else { self.dial(other, one) }
        }
    }

    /// A node dials all its neighbours.
    pub fn connect(&mut self, node: u32) {
        let neighbours: Vec<u32> = self.links[node as usize].keys().copied().collect();
        neighbours.into_iter().for_each(|other| self.dial(node, other));
    }

    fn dial(&mut self, dialer: u32, other: u32) {
        let Some(link) = self.links[dialer as usize].get(&other) else { return };
        let (round_trip, life) = (2 * link.latency + self.rng.random_range(0..=JITTER), link.life);
        self.queue.push(self.now + CONNECTING * round_trip, Event::Connected { dialer, other, life });
    }

    /// All connections of a node break.
    pub fn cut(&mut self, node: u32) {
        let neighbours: Vec<u32> = self.links[node as usize].keys().copied().collect();
        for other in neighbours {
            for (from, to) in [(node, other), (other, node)] {
                if let Some(link) = self.links[from as usize].get_mut(&to) {
                    (link.up, link.life) = (false, link.life + 1);
                }
                self.with(from, |node, outside| node.disconnected(to, outside));
            }
        }
    }

    /// A client writes on a node.
    pub fn write(&mut self, node: u32, dataset: usize, request: WriteRequest) {
        self.with(node, |node, outside| node.datasets[dataset].write(request, outside));
    }

    /// Waits from now on for every node to have so many commits of each dataset.
    pub fn watch(&mut self, target: Vec<u64>) {
        let reached = vec![Vec::new(); target.len()];
        self.watch = Watch { since: self.now, target, reached };
    }

    /// Waits from now on for those who did not get there yet.
    pub fn watch_again(&mut self) {
        self.watch(self.watch.target.clone());
    }

    /// Per dataset which nodes reached it, and after how many microseconds.
    pub fn reached(&self) -> &[Vec<(u32, u64)>] {
        &self.watch.reached
    }

    /// What was sent since this was asked last.
    pub fn take_traffic(&mut self) -> Traffic {
        let nodes = self.roster.nodes();
        std::mem::replace(&mut self.traffic, Traffic::new(nodes))
    }

    pub fn shuffled_nodes(&mut self) -> Vec<u32> {
        let mut nodes: Vec<u32> = (0..self.roster.nodes()).collect();
        graph::shuffle(&mut nodes, &mut self.rng);
        nodes
    }

    /// Lets so many microseconds pass.
    pub fn pass(&mut self, time: u64) {
        let end = self.now + time;
        while self.queue.next_at().is_some_and(|at| at <= end) {
            let Some((at, event)) = self.queue.pop() else { break };
            self.now = at;
            self.events += 1;
            self.happen(event);
        }
        self.now = end;
    }

    /// A hash of everything that happened.
    pub fn trace(&self) -> String {
        self.trace.hash()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Connected { dialer, other, life } => {
                if !self.comes_up(dialer, other, life) {
                    return;
                }
                self.comes_up(other, dialer, life);
                self.trace.note(self.now, 1, dialer, other, 0);
                self.with(other, |node, outside| node.connected(dialer, false, outside));
                self.with(dialer, |node, outside| node.connected(other, true, outside));
            }
            Event::Arrives { from, to, life, size, message } => {
                let stands = self.links[from as usize].get(&to).is_some_and(|link| link.up && link.life == life);
                if !stands {
                    return;
                }
                self.trace.note(self.now, 2, from, to, size);
                self.traffic.received[to as usize] += u64::from(size);
                self.with(to, |node, outside| match message {
                    Message::Direct(message) => node.heard(from, *message, outside),
                    Message::Gossip(announcement) => node.datasets[announcement.dataset].announced(from, &announcement, outside),
                });
            }
            Event::Wake { node, timer } => {
                self.trace.note(self.now, 3, node, 0, 0);
                self.with(node, |node, outside| node.woken(timer, outside));
            }
        }
    }

    fn comes_up(&mut self, from: u32, to: u32, life: u32) -> bool {
        let link = self.links[from as usize].get_mut(&to).filter(|link| link.life == life && !link.up);
        link.map(|link| link.up = true).is_some()
    }

    /// Lets a node do something, and does what it wants done.
    fn with(&mut self, node: u32, act: impl FnOnce(&mut Node, &mut Outside)) {
        act(&mut self.nodes[node as usize], &mut outside(&self.roster, self.now, &mut self.rng, &mut self.effects));
        self.carry_out(node);
    }

    fn carry_out(&mut self, node: u32) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { to, after, message } => self.send(node, to, after, message),
                Effect::Gossip { to, announcement } => {
                    let size = announcement.size;
                    self.travel(node, to, 0, Kind::Announce, size, Message::Gossip(announcement));
                }
                Effect::Later { after, timer } => self.queue.push(self.now + after, Event::Wake { node, timer }),
                Effect::Opened => self.opened = (self.opened.0 + 1, self.now),
                Effect::Has { dataset, commits } => self.watch.note(node, dataset, commits, self.now),
            }
        }
        // Its room is used again.
        self.effects = effects;
    }

    fn send(&mut self, from: u32, to: u32, after: u64, message: Direct) {
        let size = message.size(&self.roster.names);
        self.travel(from, to, after, message.kind(), size, Message::Direct(Box::new(message)));
    }

    fn travel(&mut self, from: u32, to: u32, after: u64, kind: Kind, size: usize, message: Message) {
        let Some(link) = self.links[from as usize].get_mut(&to).filter(|link| link.up) else { return };
        let arrives = self.now + after + link.latency + self.rng.random_range(0..=JITTER);
        link.last_arrival = link.last_arrival.max(arrives);
        let size = u32::try_from(size).expect("messages are bounded");
        self.traffic.sent(from, kind, u64::from(size));
        self.queue.push(link.last_arrival, Event::Arrives { from, to, life: link.life, size, message });
    }
}

impl Watch {
    fn note(&mut self, node: u32, dataset: usize, commits: u64, now: u64) {
        if self.target.get(dataset).is_some_and(|target| commits == *target) {
            self.reached[dataset].push((node, now - self.since));
        }
    }
}

fn outside<'a>(roster: &'a Roster, now: u64, rng: &'a mut Pcg64, effects: &'a mut Vec<Effect>) -> Outside<'a> {
    Outside { now, roster, rng, effects }
}

fn roster(settings: &Settings, rng: &mut Pcg64) -> Roster {
    let identity = |_| {
        let mut secret = [0; 32];
        rng.fill_bytes(&mut secret);
        Identity::from_secret(&secret)
    };
    let mut identities: Vec<Identity> = (0..settings.nodes).map(identity).collect();
    identities.sort_by_key(Identity::peer);
    let datasets: Vec<(DatasetId, DatasetKind)> = (0..settings.datasets).map(dataset).collect();
    let names = datasets.iter().map(|(name, _)| name.clone()).collect();
    Roster { identities, datasets, names, rules: settings.rules }
}

/// The first is `primary`, and every third holds records.
fn dataset(index: u32) -> (DatasetId, DatasetKind) {
    let name = if index == 0 { DatasetId::primary() } else { DatasetId::new(&format!("dataset-{index}")).expect("a valid name") };
    (name, if index % 3 == 2 { DatasetKind::Append } else { DatasetKind::Documents })
}

fn links(neighbours: &[std::collections::BTreeSet<u32>], rng: &mut Pcg64) -> Vec<BTreeMap<u32, Link>> {
    let mut links: Vec<BTreeMap<u32, Link>> = neighbours.iter().map(|_| BTreeMap::new()).collect();
    for (to_all, from) in neighbours.iter().zip(0_u32..) {
        for to in to_all.range(from..) {
            let latency = rng.random_range(LATENCY);
            let link = || Link { latency, last_arrival: 0, up: false, life: 0 };
            links[from as usize].insert(*to, link());
            links[*to as usize].insert(from, link());
        }
    }
    links
}

/// A hash of every event. Hashed in pieces: a storm has a hundred million.
#[derive(Debug, Default)]
struct Trace {
    hasher: blake3::Hasher,
    pending: Vec<u8>,
}

impl Trace {
    fn note(&mut self, at: u64, what: u8, from: u32, to: u32, size: u32) {
        self.pending.extend_from_slice(&at.to_le_bytes());
        self.pending.push(what);
        for part in [from, to, size] {
            self.pending.extend_from_slice(&part.to_le_bytes());
        }
        if self.pending.len() >= 64 << 10 {
            self.hasher.update(&self.pending);
            self.pending.clear();
        }
    }

    fn hash(&self) -> String {
        let mut hasher = self.hasher.clone();
        hasher.update(&self.pending);
        hasher.finalize().to_hex()[..16].to_owned()
    }
}
