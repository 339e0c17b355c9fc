//! Keeps a supervisor alive: one that panics is followed by another, within the budget that it left.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{mpsc, watch};

use super::death_watch::Probed;
use super::life::Life;
use super::supervisor::{DatasetSupervisor, Gate, SupervisorContext};
use crate::probe::{Moment, ProbedActor, Role};
use crate::runtime::Place;

const PANICKED: &str = "its supervisor panicked";

/// The supervisor of the moment. It changes when one panicked.
pub(super) type CurrentSupervisor = watch::Receiver<Addr<DatasetSupervisor>>;

/// A supervisor's last field. Whatever ends the supervisor drops it: callers find the gate shut, and the keeper hears of it.
#[derive(Debug)]
pub(super) struct SupervisorWatch {
    life: Arc<Life>,
    ended: mpsc::UnboundedSender<()>,
    pub probed: Probed,
}

impl SupervisorWatch {
    pub fn stopping(&self) {
        self.probed.0.at(Moment::Stopping);
    }
}

impl Drop for SupervisorWatch {
    fn drop(&mut self) {
        if !self.life.is_stopping() {
            self.life.supervisor_ended(PANICKED);
        }
        // The keeper ends with the dataset's arbiter.
        let _ = self.ended.send(());
    }
}

/// Starts a supervisor, and another one whenever it ends, at `place`.
pub(super) fn keep(context: SupervisorContext, life: Arc<Life>, place: &Place) -> CurrentSupervisor {
    // One message for each supervisor that ends, and the budget bounds those.
    let (ended, ends) = mpsc::unbounded_channel();
    let keeper = Keeper { context, life, ended };
    let first = place.start(keeper.supervisor());
    let (current, supervisor) = watch::channel(first);
    place.spawn(keeper.run(ends, current));
    supervisor
}

struct Keeper {
    context: SupervisorContext,
    life: Arc<Life>,
    ended: mpsc::UnboundedSender<()>,
}

impl Keeper {
    fn supervisor(&self) -> DatasetSupervisor {
        let probed = ProbedActor::new(self.context.node.probe.clone(), self.context.dataset.clone(), Role::Supervisor);
        let watch = SupervisorWatch { life: self.life.clone(), ended: self.ended.clone(), probed: Probed(probed) };
        DatasetSupervisor::new(self.context.clone(), self.life.clone(), watch)
    }

    async fn run(self, mut ends: mpsc::UnboundedReceiver<()>, current: watch::Sender<Addr<DatasetSupervisor>>) {
        while ends.recv().await.is_some() && !self.life.is_stopping() {
            let (state, delay) = self.life.spend();
            tracing::error!(dataset = %self.context.dataset, ?delay, state = state.as_str(), "{PANICKED}");
            let retry_after = delay.max(Duration::from_secs(1));
            self.life.stop_children(Gate::Down { state, reason: PANICKED.to_owned(), retry_after });
            tokio::select! {
                biased;
                () = self.life.stopped() => return,
                () = self.life.wanted() => {}
                () = tokio::time::sleep(delay) => {}
            }
            current.send_replace(self.supervisor().start());
        }
    }
}
