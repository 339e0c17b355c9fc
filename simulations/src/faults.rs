//! Faults: what can happen to a world, and when it does.
//!
//! All faults of a run are drawn before it begins, so that they can be listed, and left out one after the other to find which of them
//! a broken invariant needs.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::options::Options;
use crate::rng::Rng;

/// What kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Two halves don't reach each other.
    Partition,
    /// What one node says is not heard, while it hears all.
    OneWay,
    /// Two halves reach each other by one node only.
    Bridge,
    /// Every node reaches only its two neighbours.
    Ring,
    /// A link holds back everything, and lets go of it later.
    Clog,
    /// A slow, lossy link that repeats requests.
    BadLink,
    /// Announcements are lost.
    GossipLost,
    /// Requests are not answered.
    RequestsLost,
    /// `kill -9`, and a new start later.
    Kill,
    /// `kill -9` at whatever tasks wait for.
    KillAtAwait,
    /// `kill -9` between two operations of the disk.
    KillInWrite,
    /// `SIGSTOP`, and `SIGCONT` later.
    Pause,
    /// Killed and started again and again.
    RestartLoop,
    /// An actor of one dataset panics.
    Panic,
    /// The supervisor of one dataset panics again and again.
    SupervisorStorm,
    /// A bit of a stored value is flipped.
    BitFlip,
    /// Bits are flipped on the way from the disk.
    ReadFlips,
    /// No space left, and space again later.
    DiskFull,
    /// Writes and barriers fail.
    DiskBroken,
    /// The disk is slow.
    DiskSlow,
    /// A node's disk is as it was a while ago.
    Rollback,
    /// A copy of a node's data directory runs beside it.
    Clone,
    /// A new node joins.
    Join,
    /// A node leaves without notice, for good.
    Leave,
    /// A node is away for months.
    Away,
    /// A collection is registered on, or taken from, a running node.
    Registration,
    /// A node speaks no version of the protocol that the others speak, until it is upgraded.
    OtherVersion,
    /// A peer sends what no honest node sends.
    Hostile,
    /// One dataset is flooded.
    Flood,
    /// A wall clock runs fast or slow.
    ClockDrift,
    /// A wall clock is set forward or back.
    ClockStep,
    /// A wall clock stands still.
    ClockFrozen,
    /// A wall clock is decades ahead.
    ClockAhead,
}

impl Kind {
    /// All of them, with what each does.
    pub const ALL: [(Self, &'static str); 33] = [
        (Self::Partition, "two halves don't reach each other"),
        (Self::OneWay, "what one node says is not heard, while it hears all"),
        (Self::Bridge, "two halves reach each other by one node only"),
        (Self::Ring, "every node reaches only its two neighbours"),
        (Self::Clog, "a link holds back everything, and lets go of it later"),
        (Self::BadLink, "a slow, lossy link that repeats requests"),
        (Self::GossipLost, "announcements are lost"),
        (Self::RequestsLost, "requests are not answered"),
        (Self::Kill, "kill -9, and a new start later"),
        (Self::KillAtAwait, "kill -9 after some number of polls, at whatever tasks wait for then"),
        (Self::KillInWrite, "kill -9 between two operations of the disk; part of the last batch survives"),
        (Self::Pause, "a node is stopped and goes on later, with all its timers late"),
        (Self::RestartLoop, "a node is killed and started again and again"),
        (Self::Panic, "an actor of one dataset panics"),
        (Self::SupervisorStorm, "the supervisor of one dataset panics again and again"),
        (Self::BitFlip, "a bit of a stored value is flipped at rest"),
        (Self::ReadFlips, "bits are flipped on the way from the disk"),
        (Self::DiskFull, "no space left, and space again later"),
        (Self::DiskBroken, "writes and barriers fail for a while"),
        (Self::DiskSlow, "everything the disk does takes a hundred times as long"),
        (Self::Rollback, "a node comes back with the disk it had a while ago"),
        (Self::Clone, "a copy of a node's data directory runs beside it"),
        (Self::Join, "a new node joins, with an empty disk"),
        (Self::Leave, "a node leaves without notice, for good"),
        (Self::Away, "a node is away for months and returns"),
        (Self::Registration, "a collection is registered on, or taken from, a running node"),
        (Self::OtherVersion, "a node speaks no version that the others speak, until it is upgraded"),
        (Self::Hostile, "a peer sends forged, replayed, torn, absurd and oversized messages"),
        (Self::Flood, "one dataset is flooded with appends"),
        (Self::ClockDrift, "a wall clock runs fast or slow"),
        (Self::ClockStep, "a wall clock is set forward or back"),
        (Self::ClockFrozen, "a wall clock stands still"),
        (Self::ClockAhead, "a wall clock is decades ahead"),
    ];

    /// How long it lasts; nothing where it is over at once.
    fn lasts(self, rng: &mut Rng) -> Duration {
        let seconds = |range: std::ops::Range<u64>| Duration::from_secs(range.start)..Duration::from_secs(range.end);
        let range = match self {
            Self::Panic | Self::BitFlip | Self::Join | Self::Leave | Self::Registration | Self::ClockStep => {
                return Duration::ZERO;
            }
            Self::Kill | Self::KillAtAwait | Self::KillInWrite | Self::RestartLoop => seconds(1..15),
            Self::Pause | Self::SupervisorStorm | Self::Flood => seconds(2..15),
            Self::Away | Self::Rollback => seconds(5..25),
            Self::Clone => seconds(5..20),
            _ => seconds(5..40),
        };
        rng.time(range)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = serde_json::to_value(self).ok();
        f.write_str(name.as_ref().and_then(|name| name.as_str()).unwrap_or("?"))
    }
}

/// One fault of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fault {
    /// Its number in the plan.
    pub number: usize,
    /// When, milliseconds after the beginning.
    pub at_ms: u64,
    /// How long it lasts, milliseconds.
    pub lasts_ms: u64,
    /// What.
    pub kind: Kind,
    /// Whom, of the nodes that are there then.
    pub node: u64,
    /// Which dataset.
    pub dataset: u64,
    /// Any further choice that the fault makes.
    pub choice: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = Duration::from_millis(self.at_ms).as_secs_f64();
        write!(f, "#{} {at:.3} s {} (node {}, dataset {}", self.number, self.kind, self.node, self.dataset)?;
        if self.lasts_ms > 0 {
            write!(f, ", for {:.1} s", Duration::from_millis(self.lasts_ms).as_secs_f64())?;
        }
        f.write_str(")")
    }
}

/// All faults of a run, in order.
#[must_use]
pub fn plan(options: &Options) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (kind, rate) in &options.faults {
        let rate = rate * options.intensity;
        if rate <= 0.0 {
            continue;
        }
        let mut rng = Rng::of(options.seed, &format!("fault {kind}"));
        let mean = Duration::from_secs_f64(60.0 / rate);
        let mut at = rng.exponential(mean);
        while at < options.duration() {
            let lasts = kind.lasts(&mut rng);
            let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            faults.push(Fault {
                number: 0,
                at_ms: millis(at),
                lasts_ms: millis(lasts),
                kind: *kind,
                node: rng.within(0..options.nodes as u64),
                dataset: rng.within(0..options.datasets as u64),
                choice: rng.within(0..1 << 48),
            });
            at += rng.exponential(mean).max(Duration::from_millis(1));
        }
    }
    faults.sort_by_key(|fault| (fault.at_ms, fault.kind));
    for (number, fault) in faults.iter_mut().enumerate() {
        fault.number = number;
    }
    if let Some(only) = &options.only {
        faults.retain(|fault| only.contains(&fault.number));
    }
    faults
}
