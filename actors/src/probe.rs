//! Places in the lives of actors where a test looks in, to panic or to wait. The shipped node has no probe.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anabranch_protocol::id::DatasetId;

/// An actor of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Its supervisor.
    Supervisor,
    /// The only writer.
    Oplog,
    /// Vectors.
    Clock,
    /// Statements.
    Confirmation,
    /// Peers.
    Sync,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Supervisor, Self::Oplog, Self::Clock, Self::Confirmation, Self::Sync];

    /// The word for it in logs and reasons.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Oplog => "oplog",
            Self::Clock => "clock",
            Self::Confirmation => "confirmation",
            Self::Sync => "sync",
        }
    }
}

/// A moment in an actor's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It starts.
    Started,
    /// A timer of its context fires.
    Timer,
    /// A future that was spawned on its context is polled.
    Future,
    /// It stops.
    Stopping,
    /// It is dropped.
    Dropped,
    /// The supervisor hears that a child ended.
    ChildEnded,
}

impl Moment {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Started, Self::Timer, Self::Future, Self::Stopping, Self::Dropped, Self::ChildEnded];

    /// The word for it in a fault plan.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Timer => "timer",
            Self::Future => "future",
            Self::Stopping => "stopping",
            Self::Dropped => "dropped",
            Self::ChildEnded => "child_ended",
        }
    }
}

/// Called at each [`Moment`] of each actor; may panic or block there. Never called while the actor's thread is unwinding.
pub trait Probe: Send + Sync + fmt::Debug {
    /// An actor of a dataset is here.
    fn at(&self, dataset: &DatasetId, role: Role, moment: Moment);

    /// How often timers and futures of an actor come by here.
    fn interval(&self) -> Duration {
        Duration::from_millis(5)
    }
}

/// A probe on one actor, if there is any.
#[derive(Debug, Clone)]
pub(crate) struct ProbedActor {
    probe: Option<Arc<dyn Probe>>,
    dataset: DatasetId,
    role: Role,
}

impl ProbedActor {
    pub fn new(probe: Option<Arc<dyn Probe>>, dataset: DatasetId, role: Role) -> Self {
        Self { probe, dataset, role }
    }

    pub fn role(&self) -> Role {
        self.role
    }

    /// How often whoever looks does so.
    pub fn interval(&self) -> Option<Duration> {
        self.probe.as_ref().map(|probe| probe.interval())
    }

    pub fn at(&self, moment: Moment) {
        // A second panic would abort the process.
        if let Some(probe) = self.probe.as_ref().filter(|_| !std::thread::panicking()) {
            probe.at(&self.dataset, self.role, moment);
        }
    }
}
