//! What a simulated node gets from outside, and what it wants done there. Nodes change nothing but themselves.

use std::rc::Rc;

use anabranch_protocol::commit::Identity;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::{DatasetId, Lineage, PeerId};
use anabranch_protocol::wire::Kind;
use rand_pcg::Pcg64;

use super::message::{Announcement, Body, Direct};

/// Wall clock at the beginning, milliseconds since the Unix epoch.
const BEGINNING: u64 = 1_790_000_000_000;

/// Rules that can be left out, to see that the measurement notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one rule, left out or not")]
pub struct Rules {
    /// Commits of others are pushed on.
    pub push_on: bool,
    /// Statements are sent without being asked for.
    pub state: bool,
    /// Changes are announced by gossip.
    pub announce: bool,
    /// Neighbours are asked now and then though nothing was heard.
    pub rounds: bool,
}

impl Rules {
    /// As shipped.
    pub const ALL: Self = Self { push_on: true, state: true, announce: true, rounds: true };
}

/// What all nodes know.
#[derive(Debug)]
pub(super) struct Roster {
    /// In the order of their peer ids, so that the order of nodes is the order of peers.
    pub identities: Vec<Identity>,
    pub datasets: Vec<(DatasetId, Kind)>,
    pub names: Vec<DatasetId>,
    pub rules: Rules,
}

/// All datasets have the open default.
pub(super) const LINEAGE: Lineage = Lineage::ZERO;

impl Roster {
    pub fn peer(&self, node: u32) -> PeerId {
        self.identities[node as usize].peer()
    }

    pub fn nodes(&self) -> u32 {
        u32::try_from(self.identities.len()).expect("nodes are counted in 32 bits")
    }
}

/// What a node wants done.
#[derive(Debug)]
pub(super) enum Effect {
    /// Sends to a neighbour, after so many microseconds.
    Send { to: u32, after: u64, message: Direct },
    /// Hands an announcement on to a neighbour.
    Gossip { to: u32, announcement: Rc<Announcement> },
    /// Wakes the node up after so many microseconds.
    Later { after: u64, timer: Timer },
    /// A session for a dataset was opened.
    Opened,
    /// A dataset has so many commits now.
    Has { dataset: usize, commits: u64 },
}

/// What a node is woken up for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Timer {
    Rounds,
    /// A turn is durable.
    Durable(usize),
    /// Statements were gathered.
    Gathered(usize),
    /// Whoever has everything may hear of it now.
    Unhurried(usize),
    Announce(usize),
    /// A page was read.
    PageRead(usize),
    /// A peer was left alone long enough.
    Waited {
        dataset: usize,
        peer: u32,
        session: u32,
    },
}

/// The world as one node sees it during one event.
pub(super) struct Outside<'a> {
    /// Microseconds since the beginning.
    pub now: u64,
    pub roster: &'a Roster,
    pub rng: &'a mut Pcg64,
    pub effects: &'a mut Vec<Effect>,
}

impl Outside<'_> {
    pub fn wall(&self) -> WallClock {
        WallClock(BEGINNING + self.now / 1_000)
    }

    pub fn send(&mut self, to: u32, message: Direct) {
        self.effects.push(Effect::Send { to, after: 0, message });
    }

    pub fn tell(&mut self, to: u32, dataset: usize, body: Body) {
        self.send(to, Direct::About(dataset, body));
    }

    pub fn later(&mut self, after: u64, timer: Timer) {
        self.effects.push(Effect::Later { after, timer });
    }
}
