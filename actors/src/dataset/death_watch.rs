//! Notices a dead child: actix's own supervisor does not survive a panic and keeps the old struct.
//!
//! The watch is a field of the child. Whatever ends the child drops it, a panic too. The drop shuts the gate, so that whoever comes
//! next on any thread finds the dataset down, and sends the supervisor one message. Nothing else happens in `Drop`: a second panic
//! there would abort the process.

use std::sync::Arc;

use actix::prelude::*;

use super::life::Life;
use crate::probe::{Moment, ProbedActor};

/// A child of this generation ended.
#[derive(Message, Debug, Clone)]
#[rtype(result = "()")]
pub struct ChildEnded {
    /// Which set of children it belonged to.
    pub generation: u64,
    /// Which child.
    pub child: &'static str,
    /// Why, if it could tell; a panic can't.
    pub reason: Option<String>,
    /// What callers are to expect.
    pub how: Ending,
}

/// What comes after the end of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Something broke: everything is rebuilt, soon.
    Broken,
    /// The disk hangs: nobody knows for how long, and nobody waits for it.
    DiskHangs,
    /// The disk is full. Nothing is broken: it is opened again at once, to be read, and callers wait for that.
    DiskFull,
}

impl ChildEnded {
    pub(super) fn reason(&self) -> String {
        self.reason.clone().unwrap_or_else(|| format!("its {} actor panicked", self.child))
    }
}

/// See the module documentation.
#[derive(Debug)]
pub struct DeathWatch {
    life: Arc<Life>,
    supervisor: Recipient<ChildEnded>,
    ended: ChildEnded,
    probed: Probed,
}

impl DeathWatch {
    pub(super) fn new(life: Arc<Life>, supervisor: Recipient<ChildEnded>, generation: u64, probed: ProbedActor) -> Self {
        let ended = ChildEnded { generation, child: probed.role().as_str(), reason: None, how: Ending::Broken };
        Self { life, supervisor, ended, probed: Probed(probed) }
    }

    /// Leaves word why the child is about to stop.
    pub(super) fn because(&mut self, reason: String) {
        self.ended.reason = Some(reason);
    }

    /// Leaves word that the disk is full.
    pub(super) fn because_full(&mut self) {
        self.ended.how = Ending::DiskFull;
        self.because("no space left on the disk".to_owned());
    }

    /// Leaves word that the disk hangs.
    pub(super) fn because_it_hangs(&mut self, reason: String) {
        self.ended.how = Ending::DiskHangs;
        self.because(reason);
    }

    /// The child starts.
    pub(super) fn started<A: Actor<Context = Context<A>>>(&self, ctx: &mut Context<A>) {
        look_at(&self.probed.0, ctx);
    }

    /// The child stops.
    pub(super) fn stopping(&self) {
        self.probed.0.at(Moment::Stopping);
    }
}

impl Drop for DeathWatch {
    fn drop(&mut self) {
        self.life.child_ended(&self.ended);
        self.supervisor.do_send(self.ended.clone());
    }
}

/// Lets a probe look at the start of an actor, and from then on at its timers and futures.
pub(super) fn look_at<A: Actor<Context = Context<A>>>(probed: &ProbedActor, ctx: &mut Context<A>) {
    probed.at(Moment::Started);
    let Some(interval) = probed.interval() else { return };
    let timer = probed.clone();
    ctx.run_interval(interval, move |_, _| timer.at(Moment::Timer));
    let future = probed.clone();
    let looks = async move {
        loop {
            tokio::time::sleep(interval).await;
            future.at(Moment::Future);
        }
    };
    ctx.spawn(actix::fut::wrap_future(looks));
}

/// Lets a probe look at the end of an actor: a field, so that it is dropped after whatever its owner does in `Drop`.
#[derive(Debug)]
pub(super) struct Probed(pub ProbedActor);

impl Drop for Probed {
    fn drop(&mut self) {
        self.0.at(Moment::Dropped);
    }
}
