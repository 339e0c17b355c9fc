//! What faults do to a world, and how they end.

use std::time::Duration;

use anabranch_actors::probe::{Moment, Role};

use super::{Action, World, identity};
use crate::faults::{Fault, Kind};
use crate::hostile;
use crate::network::Link;
use crate::rng::Rng;
use crate::workload;

/// What the disk of a slow node takes more time than others.
const SLOWNESS: u32 = 100;
/// One in so many reads of a failing cable is flipped.
const FLIPS: u64 = 2_000;
/// How far ahead a clock is that is far ahead.
const DECADES: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
/// Appends in one step of a flood, and between two steps.
const FLOOD_STEP: (u32, Duration) = (6, Duration::from_millis(100));

impl World {
    pub(crate) fn begin(&mut self, number: usize) {
        let fault = self.faults[number].clone();
        self.trace.note("fault", fault.to_string().as_bytes());
        let node = usize::try_from(fault.node).unwrap_or(0) % self.nodes.len();
        match fault.kind {
            Kind::Partition | Kind::OneWay | Kind::Bridge | Kind::Ring => self.cut(&fault, true),
            Kind::Clog | Kind::BadLink | Kind::GossipLost | Kind::RequestsLost => self.spoil_links(&fault, node),
            Kind::Kill => self.kill(node, fault.choice % 2 == 1),
            Kind::KillAtAwait => {
                if let Some(life) = &self.nodes[node].life {
                    life.dies_in(Some(fault.choice % 300));
                    self.after(Duration::from_millis(20), Action::Bury { node, tries: 0 });
                }
            }
            Kind::KillInWrite => {
                self.nodes[node].disk.ail(|ailments| ailments.dies_in = Some(fault.choice % 60));
                self.after(Duration::from_millis(20), Action::Bury { node, tries: 0 });
            }
            Kind::Pause => {
                if let Some(life) = &self.nodes[node].life {
                    life.stop(true);
                }
            }
            Kind::RestartLoop => self.restart_loop(&fault, node),
            Kind::Panic | Kind::SupervisorStorm => self.panic(&fault, node),
            Kind::BitFlip | Kind::ReadFlips | Kind::DiskFull | Kind::DiskBroken | Kind::DiskSlow => self.spoil_disk(&fault, node),
            Kind::Rollback => self.begin_backup(number, node),
            Kind::Clone => self.clone_node(number, node),
            Kind::Join => self.join(),
            Kind::Leave => self.leave(node),
            Kind::Away => self.kill(node, true),
            Kind::Registration => self.register(&fault, node),
            Kind::OtherVersion => {
                self.kill(node, false);
                self.network.speaks_other_version(node, true);
                self.start(node);
            }
            Kind::Hostile => self.attack(&fault, node),
            Kind::Flood => self.begin_flood(&fault, node),
            Kind::ClockDrift | Kind::ClockStep | Kind::ClockFrozen | Kind::ClockAhead => self.spoil_clock(&fault, node),
        }
        if fault.lasts_ms > 0 {
            self.after(Duration::from_millis(fault.lasts_ms), Action::End(number));
        }
    }

    pub(crate) fn end(&mut self, number: usize) {
        let fault = self.faults[number].clone();
        self.trace.note("fault ends", fault.to_string().as_bytes());
        let node = usize::try_from(fault.node).unwrap_or(0) % self.nodes.len();
        match fault.kind {
            Kind::Partition | Kind::OneWay | Kind::Bridge | Kind::Ring => self.cut(&fault, false),
            Kind::Clog | Kind::BadLink | Kind::GossipLost | Kind::RequestsLost => self.mend_links(&fault, node),
            Kind::Kill | Kind::KillAtAwait | Kind::KillInWrite | Kind::RestartLoop => self.start(node),
            Kind::Pause => {
                if let Some(life) = &self.nodes[node].life {
                    life.stop(false);
                }
            }
            Kind::SupervisorStorm => self.nodes[node].panics.clear(),
            Kind::ReadFlips | Kind::DiskFull | Kind::DiskBroken | Kind::DiskSlow => self.mend_disk(fault.kind, node),
            Kind::Rollback => self.roll_back(number, node),
            Kind::Clone => self.end_clone(number),
            Kind::Away => {
                self.months_pass();
                self.start(node);
            }
            Kind::OtherVersion => {
                self.kill(node, false);
                self.network.speaks_other_version(node, false);
                self.start(node);
            }
            Kind::ClockDrift | Kind::ClockFrozen | Kind::ClockAhead => self.nodes[node].clock.set_right(self.skipped_ms),
            Kind::Panic | Kind::BitFlip | Kind::Join | Kind::Leave | Kind::Registration | Kind::ClockStep => {}
            Kind::Hostile | Kind::Flood => {}
        }
    }

    /// Nothing fails any more, and who is to be there is started.
    pub(crate) fn end_all_faults(&mut self) {
        self.trace.note("faults end", b"");
        let clones: Vec<usize> = self.clones.values().copied().collect();
        for clone in clones {
            self.leave_for_good(clone);
        }
        for node in std::mem::take(&mut self.stopping) {
            self.kill(node, false);
        }
        self.cuts.clear();
        self.mesh();
        self.network.heal();
        for node in 0..self.nodes.len() {
            self.nodes[node].disk.ail(|ailments| *ailments = crate::disk::Ailments { lies: ailments.lies, ..Default::default() });
            self.nodes[node].panics.clear();
            self.nodes[node].clock.set_right(self.skipped_ms);
            self.network.speaks_other_version(node, false);
            if let Some(life) = &self.nodes[node].life {
                life.stop(false);
                life.dies_in(None);
            }
            self.bury(node, u32::MAX);
            self.start(node);
        }
        // An operator who was paged: what failed too often is started anew rather than waited for. What runs is left alone, for a
        // restart would greet all peers anew, and hide it if replicas do not find to each other without that.
        for node in &self.nodes {
            if let Some(life) = &node.life {
                for plan in &self.plans {
                    if let Some(handle) = life.handle.actors(&plan.id).ok().filter(|handle| handle.running_now().is_none()) {
                        drop(life.run(async move { handle.order(anabranch_actors::api::Order::Restart).await }));
                    }
                }
            }
        }
        self.excuses.shaken.extend(0..self.nodes.len());
    }

    /// Takes note of nodes that their disks killed, and starts them again.
    pub(crate) fn bury_all(&mut self) {
        for node in 0..self.nodes.len() {
            self.bury(node, u32::MAX);
            self.start(node);
        }
    }

    pub(crate) fn bury(&mut self, node: usize, tries: u32) {
        if self.nodes[node].is_doomed() {
            self.kill(node, false);
            self.sometimes.reached("a node was killed in the middle of a write");
            self.after(Duration::from_secs(1), Action::Start { node });
        } else if tries < 500 {
            self.after(Duration::from_millis(20), Action::Bury { node, tries: tries + 1 });
        }
    }

    /// Which links a fault cuts.
    fn severed(&self, fault: &Fault) -> Vec<(usize, usize)> {
        let count = self.nodes.len();
        let half = |node: usize| fault.choice >> (node % 48) & 1;
        let bridge = usize::try_from(fault.node).unwrap_or(0) % count;
        let all = (0..count).flat_map(|a| (0..count).map(move |b| (a, b))).filter(|(a, b)| a != b);
        let cut = |(a, b): &(usize, usize)| match fault.kind {
            Kind::OneWay => *a == bridge,
            Kind::Bridge => half(*a) != half(*b) && *a != bridge && *b != bridge,
            Kind::Ring => (a + 1) % count != *b && (b + 1) % count != *a,
            _ => half(*a) != half(*b),
        };
        all.filter(cut).collect()
    }

    fn cut(&mut self, fault: &Fault, begin: bool) {
        for link in self.severed(fault) {
            let cuts = self.cuts.entry(link).or_default();
            *cuts = if begin { *cuts + 1 } else { cuts.saturating_sub(1) };
            let is_cut = *cuts > 0;
            self.network.link(link.0, link.1, |link| link.cut = is_cut);
        }
    }

    fn links_of(&self, node: usize) -> Vec<(usize, usize)> {
        (0..self.nodes.len()).filter(|other| *other != node).flat_map(|other| [(node, other), (other, node)]).collect()
    }

    fn spoil_links(&mut self, fault: &Fault, node: usize) {
        for (from, to) in self.links_of(node) {
            self.network.link(from, to, |link| match fault.kind {
                Kind::Clog => link.clogged = true,
                Kind::GossipLost => link.gossip_lost = 1.0,
                Kind::RequestsLost => link.requests_lost = 0.3,
                _ => {
                    link.latency = Duration::from_millis(100 + fault.choice % 400);
                    (link.jitter, link.bandwidth, link.loss, link.duplication) = (Duration::from_millis(300), 20_000, 0.2, 0.3);
                }
            });
        }
    }

    fn mend_links(&mut self, fault: &Fault, node: usize) {
        let well = Link::default();
        for (from, to) in self.links_of(node) {
            self.network.link(from, to, |link| match fault.kind {
                Kind::Clog => link.clogged = false,
                Kind::GossipLost => link.gossip_lost = well.gossip_lost,
                Kind::RequestsLost => link.requests_lost = 0.0,
                _ => {
                    *link = Link {
                        cut: link.cut,
                        clogged: link.clogged,
                        gossip_lost: link.gossip_lost,
                        requests_lost: link.requests_lost,
                        ..Link::default()
                    }
                }
            });
        }
    }

    fn restart_loop(&mut self, fault: &Fault, node: usize) {
        let mut at = 0;
        let mut step = 0;
        while at < fault.lasts_ms {
            self.after(Duration::from_millis(at), Action::Kill { node });
            self.after(Duration::from_millis(at + 20), Action::Start { node });
            step += 1;
            at += 100 + (fault.choice >> (step % 40)) % 900;
        }
    }

    fn panic(&mut self, fault: &Fault, node: usize) {
        let dataset = usize::try_from(fault.dataset).unwrap_or(0) % self.plans.len();
        self.excuses.panicked.insert((node, dataset));
        self.sometimes.reached_if(self.nodes[node].life.is_some(), "a dataset restarted after a panic");
        if fault.kind == Kind::SupervisorStorm {
            return self.storm(node, dataset, 12);
        }
        let role = Role::ALL[usize::try_from(fault.choice).unwrap_or(0) % Role::ALL.len()];
        let moment = Moment::ALL[usize::try_from(fault.choice >> 8).unwrap_or(0) % Moment::ALL.len()];
        let id = self.plans[dataset].id.clone();
        self.nodes[node].panics.plan(id.clone(), role, moment);
        if matches!(moment, Moment::Started | Moment::Stopping | Moment::Dropped | Moment::ChildEnded) {
            // Nothing starts or stops by itself.
            self.nodes[node].panics.plan(id, Role::Sync, Moment::Future);
        }
    }

    pub(crate) fn storm(&mut self, node: usize, dataset: usize, left: u32) {
        let id = self.plans[dataset].id.clone();
        self.nodes[node].panics.plan(id.clone(), Role::Supervisor, Moment::Future);
        self.nodes[node].panics.plan(id, Role::Oplog, Moment::Future);
        if left > 0 {
            self.after(Duration::from_millis(500), Action::Panic { node, dataset, left: left - 1 });
        }
    }

    fn spoil_disk(&mut self, fault: &Fault, node: usize) {
        let dataset = usize::try_from(fault.dataset).unwrap_or(0) % self.plans.len();
        match fault.kind {
            Kind::BitFlip => {
                let directory = self.nodes[node].directory(&self.plans[dataset].id);
                if self.nodes[node].disk.flip_at_rest(&directory) {
                    self.excuses.lost.insert((node, dataset), u64::MAX);
                }
                return;
            }
            Kind::ReadFlips => {
                for dataset in 0..self.plans.len() {
                    self.excuses.lost.insert((node, dataset), u64::MAX);
                }
            }
            _ => {}
        }
        self.excuses.shaken.insert(node);
        self.nodes[node].disk.ail(|ailments| match fault.kind {
            Kind::ReadFlips => ailments.flips = FLIPS,
            Kind::DiskFull => ailments.full = true,
            Kind::DiskBroken => ailments.broken = true,
            _ => ailments.slowness = SLOWNESS,
        });
    }

    fn mend_disk(&mut self, kind: Kind, node: usize) {
        self.nodes[node].disk.ail(|ailments| match kind {
            Kind::ReadFlips => ailments.flips = 0,
            Kind::DiskFull => ailments.full = false,
            Kind::DiskBroken => ailments.broken = false,
            _ => ailments.slowness = 1,
        });
    }

    fn register(&mut self, fault: &Fault, node: usize) {
        let dataset = usize::try_from(fault.dataset).unwrap_or(0) % self.plans.len();
        let (id, collection) = (self.plans[dataset].id.clone(), workload::collection(workload::SOMETIMES));
        let Some(life) = &self.nodes[node].life else { return };
        let (handle, registers) = (life.handle.clone(), fault.choice.is_multiple_of(2));
        drop(life.run(async move {
            // Refused while the dataset is down: an operator would try again.
            let _ = if registers { handle.register(&id, &collection).await } else { handle.unregister(&id, &collection).await };
        }));
    }

    fn begin_flood(&mut self, fault: &Fault, node: usize) {
        let appends = self.plans.iter().position(|plan| plan.kind == anabranch_protocol::wire::Kind::Append);
        let dataset = appends.unwrap_or(usize::try_from(fault.dataset).unwrap_or(0) % self.plans.len());
        let steps = u32::try_from(fault.lasts_ms / 100).unwrap_or(0);
        self.flood(node, dataset, steps);
    }

    pub(crate) fn flood(&mut self, node: usize, dataset: usize, left: u32) {
        for _ in 0..FLOOD_STEP.0 {
            let number = self.history.borrow().len() as u64;
            let kind = self.plans[dataset].kind;
            let (asked, operation) = workload::draw(number, (dataset, kind), self.options.keys, &mut self.rng);
            self.send(node, asked, operation);
        }
        if left > 0 {
            self.after(FLOOD_STEP.1, Action::Flood { node, dataset, left: left - 1 });
        }
    }

    fn spoil_clock(&mut self, fault: &Fault, node: usize) {
        let now_ms = self.now_ms();
        let clock = &self.nodes[node].clock;
        let sign = if fault.choice.is_multiple_of(2) { 1 } else { -1 };
        let amount = i64::try_from(fault.choice / 2 % 120).unwrap_or(0);
        match fault.kind {
            Kind::ClockDrift => clock.drift(sign * (amount + 1) * 500),
            Kind::ClockStep => clock.step(sign * (amount + 1) * 1_000),
            Kind::ClockFrozen => clock.freeze(),
            _ => {
                self.sometimes.reached("a writer was held back for its clock");
                self.excuses.days_ahead.insert(node, now_ms);
                clock.step(i64::try_from(DECADES.as_millis()).unwrap_or(0));
            }
        }
    }

    /// A peer says what no honest node says.
    fn attack(&mut self, fault: &Fault, victim: usize) {
        let identity = identity(&mut self.rng);
        let lasts = Duration::from_millis(fault.lasts_ms);
        let rng = Rng::of(self.options.seed, &format!("hostile {}", fault.number));
        let others: Vec<usize> = self.up().into_iter().filter(|node| *node != victim).collect();
        let other = others.first().copied().unwrap_or(victim);
        self.excuses.cloned.insert(identity.peer());
        hostile::begin(&self.network, &identity, (victim, other), &self.plans, rng, lasts);
        // It has a place among the endpoints, and no node is there.
        let place = self.add_node(identity);
        self.gone.insert(place);
    }
}
