//! While its clock is repaired a dataset is down: its store is written anew and then opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::prelude::*;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::Lineage;
use tokio::sync::oneshot;

use super::{CLOSE_TIMEOUT, DatasetSupervisor, Gate};
use crate::api::{DatasetState, Repaired};
use crate::dataset::ledger::Rebuilt;
use crate::dataset::rebuilding::Rebuilder;

const REASON: &str = "its commits with stamps of a wrong clock are issued again";

/// Writes the dataset's store anew, without stamps that are too far ahead of `now`; callers are told that it restarts.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct RepairClock {
    /// What the wall clock says.
    pub now: WallClock,
    /// How long it may take.
    pub limit: Duration,
    /// What came of it, once the old store or the new one is about to be opened; or why nothing did.
    pub reply: oneshot::Sender<Result<Repaired, String>>,
}

impl DatasetSupervisor {
    fn rebuilder(&self, now: WallClock) -> Rebuilder {
        Rebuilder {
            engine: self.context.node.engine.clone(),
            runtime: self.context.node.runtime.clone(),
            asides: self.context.asides.clone(),
            cache_bytes: self.context.cache_bytes,
            settings: self.replica_settings(Lineage::ZERO),
            lineage: self.context.settings.lineage,
            now,
        }
    }

    /// Once the store is closed; whoever opens it next waits until this is done with it.
    fn repair(&mut self, RepairClock { now, limit, reply }: RepairClock, ctx: &mut Context<Self>) {
        let (attempt, life, rebuilder) = (self.attempt, self.life.clone(), self.rebuilder(now));
        let (abandoned, blocking) = (Arc::new(AtomicBool::new(false)), self.context.blocking());
        let repaired = async move {
            let Ok(lease) = tokio::time::timeout(CLOSE_TIMEOUT, life.tenancy.lease()).await else {
                return Err(format!("its store has not closed for {CLOSE_TIMEOUT:?}"));
            };
            let gone = abandoned.clone();
            let rebuild = move || {
                let rebuilt = rebuilder.run(&|| !gone.load(Ordering::Acquire) && !life.is_stopping());
                drop(lease);
                rebuilt
            };
            match tokio::time::timeout(limit, blocking.run(rebuild)).await {
                Ok(Ok(Ok((Rebuilt { commits, local }, aside)))) => Ok(Repaired { commits, local, aside }),
                Ok(Ok(Err(error))) => Err(error.to_string()),
                Ok(Err(_)) => Err("the repair panicked".to_owned()),
                Err(_) => {
                    abandoned.store(true, Ordering::Release);
                    Err(format!("it was not done within {limit:?} and is broken off"))
                }
            }
        };
        ctx.spawn(repaired.into_actor(self).map(move |repaired, actor, ctx| {
            match &repaired {
                Ok(Repaired { commits, local, .. }) => {
                    tracing::info!(dataset = %actor.context.dataset, commits, local, "the clock was repaired");
                }
                Err(reason) => tracing::error!(dataset = %actor.context.dataset, reason, "the clock was not repaired"),
            }
            // Whoever asked may have gone.
            let _ = reply.send(repaired);
            if actor.is_due(attempt) {
                actor.reopen(Duration::ZERO, REASON.to_owned(), ctx);
            }
        }));
    }
}

impl Handler<RepairClock> for DatasetSupervisor {
    type Result = ();
    fn handle(&mut self, order: RepairClock, ctx: &mut Context<Self>) {
        // Whoever waits hears that nothing came of it.
        if self.life.is_stopping() || self.life.is_paused() || self.store.is_none() {
            return;
        }
        tracing::info!(dataset = %self.context.dataset, "the store is written anew without stamps of a wrong clock");
        self.attempt += 1;
        let retry_after = Duration::from_secs(1);
        self.stop_children(Gate::Down { state: DatasetState::Restarting, reason: REASON.to_owned(), retry_after });
        self.repair(order, ctx);
    }
}
