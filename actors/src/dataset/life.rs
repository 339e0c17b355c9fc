//! What outlives a dataset's supervisor: the gate that callers see, the right to its directory, its budget of restarts, and its
//! children until they were told to stop.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::budget::Budget;
use super::death_watch::{ChildEnded, Ending};
use super::oplog::Stop;
use super::supervisor::{Gate, Running};
use super::tenancy::Tenancy;
use crate::api::DatasetState;
use crate::watched;

/// What callers of a dataset that just went down are told to wait.
const RETRY: Duration = Duration::from_secs(1);
/// Restarts whose time is remembered; a failed dataset is restarted every 30 s.
const RECENT_MAX: usize = 256;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Life {
    gate: watched::Sender<Gate>,
    restarts: watch::Sender<u64>,
    /// When the latest were.
    recent: Mutex<VecDeque<Instant>>,
    children: Mutex<Option<Running>>,
    budget: Mutex<Budget>,
    generation: AtomicU64,
    pub tenancy: Tenancy,
    /// Its operator paused it.
    pub paused: AtomicBool,
    /// The store was once read as a whole in this process.
    pub audited: AtomicBool,
    /// What the next attempt sets the store aside for.
    pub damaged: Mutex<Option<String>>,
    stopping: watch::Sender<bool>,
    /// An operator waits for a supervisor.
    wanted: Notify,
}

impl Life {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            gate: watched::Sender::new(Gate::Idle),
            restarts: watch::Sender::new(0),
            recent: Mutex::default(),
            children: Mutex::default(),
            budget: Mutex::default(),
            generation: AtomicU64::new(0),
            tenancy: Tenancy::default(),
            paused: AtomicBool::new(false),
            audited: AtomicBool::new(false),
            damaged: Mutex::default(),
            stopping: watch::Sender::new(false),
            wanted: Notify::new(),
        })
    }

    pub fn gate(&self) -> watched::Receiver<Gate> {
        self.gate.subscribe()
    }

    pub fn restarts(&self) -> u64 {
        *self.restarts.borrow()
    }

    /// Restarts lately.
    pub fn restarts_within(&self, window: Duration) -> u64 {
        let now = Instant::now();
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().filter(|at| now.saturating_duration_since(**at) <= window).count() as u64
    }

    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// The dataset is on its way out: nothing is started any more.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Resolves once the dataset is on its way out.
    pub async fn stopped(&self) {
        // The sender is here: it can't fail.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Asks for a supervisor before its time.
    pub fn want(&self) {
        self.wanted.notify_one();
    }

    /// Resolves once somebody asked for a supervisor.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    pub fn damaged(&self) -> MutexGuard<'_, Option<String>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no set of children had before.
    pub fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Callers may come.
    pub fn run(&self, running: Running) {
        *self.children() = Some(running.clone());
        self.set_gate(Gate::Running(running));
    }

    pub fn set_gate(&self, gate: Gate) {
        // What was there before is let go of without the gate's lock.
        drop(self.gate.send_replace(gate));
    }

    /// Shuts the gate if it is still that of this child's siblings.
    pub fn child_ended(&self, ended: &ChildEnded) {
        let down = match ended.how {
            Ending::Broken => down(DatasetState::Restarting, &ended.reason()),
            Ending::DiskHangs => down(DatasetState::Failed, &ended.reason()),
            Ending::DiskFull => Gate::Opening,
        };
        self.shut(|gate| matches!(gate, Gate::Running(running) if running.generation == ended.generation), down);
    }

    /// Shuts the gate, whatever the state.
    pub fn supervisor_ended(&self, reason: &str) {
        self.shut(|_| true, down(DatasetState::Restarting, reason));
    }

    fn shut(&self, applies: impl FnOnce(&Gate) -> bool, down: Gate) {
        let mut before = None;
        self.gate.send_if_modified(|gate| {
            let shut = applies(gate);
            if shut {
                before = Some(std::mem::replace(gate, down));
            }
            shut
        });
        drop(before);
    }

    /// Counts a restart: what to call the dataset until then, and how long it waits.
    pub fn spend(&self) -> (DatasetState, Duration) {
        self.restarts.send_modify(|count| *count += 1);
        self.note_restart(Instant::now());
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).spend(Instant::now())
    }

    fn note_restart(&self, now: Instant) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_back(now);
        if recent.len() > RECENT_MAX {
            recent.pop_front();
        }
    }

    /// A new budget.
    pub fn forgive(&self) {
        *self.budget.lock().unwrap_or_else(PoisonError::into_inner) = Budget::default();
    }

    /// Stops what is left of the children.
    pub fn stop_children(&self, gate: Gate) {
        self.set_gate(gate);
        let children = self.children().take();
        if let Some(running) = children {
            running.oplog.do_send(Stop);
            running.clock.do_send(Stop);
            running.confirmation.do_send(Stop);
            running.sync.do_send(Stop);
        }
    }

    fn children(&self) -> MutexGuard<'_, Option<Running>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn down(state: DatasetState, reason: &str) -> Gate {
    Gate::Down { state, reason: reason.to_owned(), retry_after: RETRY }
}
