//! Turns of the oplog that are neither local writes nor fresh commits: a collection is registered or unregistered, old commits
//! come again with more sections, local rows are issued, rows are audited. They wait in a queue of their own and take turns with the others.

use actix::prelude::*;
use anabranch_protocol::clock_repair::AheadOfWall;
use anabranch_protocol::commit::Commit;
use anabranch_protocol::coverage::RegistrationRefusal;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::Collection;
use anabranch_protocol::replica::Verdict;
use tokio::sync::oneshot;

use super::{Oplog, Received};
use crate::dataset::ledger::{Committed, Ledger, Widened};
use crate::store::StoreError;

/// What is left to do once those downstream were told.
pub(super) type Afterwards = Box<dyn FnOnce() + Send>;
pub(super) type Job = Box<dyn FnOnce(&mut Ledger, WallClock) -> Result<(Committed, Afterwards), StoreError> + Send>;

/// One such turn.
pub(super) struct Chore(Job);

/// Registers or unregisters a collection.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Register {
    /// Which.
    pub collection: Collection,
    /// Whether it shall be registered.
    pub registered: bool,
    /// Whether it was not so before; after the barrier, and after those downstream know.
    pub reply: oneshot::Sender<Result<bool, RegistrationRefusal>>,
}

/// Asks what lies too far ahead of the wall clock. Dropped where the store can't tell.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AskAhead(pub oneshot::Sender<AheadOfWall>);

/// Verified copies of commits that are here, for the sections they bring.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Widen {
    /// In seq order per writer.
    pub commits: Vec<Commit>,
    /// What became of those before them, which had turns of their own.
    pub before: (Vec<Verdict>, usize),
    /// Where verdicts go, after the last barrier.
    pub reply: oneshot::Sender<Result<Received, StoreError>>,
}

/// The next batch of what is done in the background.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
enum Background {
    /// Local rows are issued.
    Issue,
    /// What lacks nothing is not imported.
    Skim,
    /// Rows that were dropped are removed.
    Sweep,
}

impl Oplog {
    pub(super) fn start_chore(&mut self, Chore(job): Chore, ctx: &mut Context<Self>) -> bool {
        self.in_flight = true;
        let (store, now) = (self.store.clone(), self.clock.now());
        let turn = async move { store.run(move |ledger: &mut Ledger| job(ledger, now)).await };
        ctx.spawn(turn.into_actor(self).map(move |done, actor, ctx| match done {
            Ok(Ok((committed, afterwards))) => {
                actor.finish_turn(committed, ctx);
                afterwards();
            }
            Ok(Err(error)) => actor.store_failed(&error, ctx),
            Err(error) => actor.thread_failed(error, ctx),
        }));
        true
    }

    pub(super) fn later(&mut self, job: Job, ctx: &mut Context<Self>) {
        self.chores.push_back(Chore(job));
        self.next_turn(ctx);
    }

    /// Begins, or goes on with, what follows from registering: batch by batch, until nothing is left to do.
    pub(super) fn catch_up(&mut self, ctx: &mut Context<Self>) {
        self.background(Background::Skim, ctx);
        self.background(Background::Issue, ctx);
    }

    /// Begins to remove rows that were dropped, batch by batch, until none is left.
    pub(super) fn sweep(&mut self, ctx: &mut Context<Self>) {
        self.background(Background::Sweep, ctx);
    }

    fn background(&mut self, what: Background, ctx: &mut Context<Self>) {
        let (myself, runtime) = (ctx.address(), self.store.runtime().clone());
        let job = move |ledger: &mut Ledger, now| {
            let (committed, more) = match what {
                Background::Issue => ledger.issue(now, &mut |bytes| runtime.fill_random(bytes))?,
                Background::Skim => ledger.skim()?,
                Background::Sweep => ledger.sweep()?,
            };
            let again: Afterwards = Box::new(move || {
                if more {
                    myself.do_send(what);
                }
            });
            Ok((committed, again))
        };
        self.later(Box::new(job), ctx);
    }
}

impl Handler<Background> for Oplog {
    type Result = ();
    fn handle(&mut self, what: Background, ctx: &mut Context<Self>) {
        self.background(what, ctx);
    }
}

impl Handler<Register> for Oplog {
    type Result = ();
    fn handle(&mut self, Register { collection, registered, reply }: Register, ctx: &mut Context<Self>) {
        let job = move |ledger: &mut Ledger, _| {
            let (changed, committed) = if registered { ledger.register(&collection)? } else { ledger.unregister(&collection)? };
            // Whoever asked may have gone; what was done stays done.
            let answer: Afterwards = Box::new(move || drop(reply.send(changed)));
            Ok((committed, answer))
        };
        self.later(Box::new(job), ctx);
        if registered {
            self.catch_up(ctx);
        }
    }
}

impl Handler<AskAhead> for Oplog {
    type Result = ();
    fn handle(&mut self, AskAhead(reply): AskAhead, ctx: &mut Context<Self>) {
        let job = move |ledger: &mut Ledger, now| {
            let ahead = ledger.ahead_of(now)?;
            // Whoever asked may have gone.
            let answer: Afterwards = Box::new(move || drop(reply.send(ahead)));
            Ok((ledger.nothing_committed(), answer))
        };
        self.later(Box::new(job), ctx);
    }
}

impl Handler<Widen> for Oplog {
    type Result = ();
    fn handle(&mut self, Widen { commits, before, reply }: Widen, ctx: &mut Context<Self>) {
        let myself = ctx.address();
        let job = move |ledger: &mut Ledger, _| {
            let Widened { verdicts: decided, got_on, rest, committed } = match ledger.weigh(&commits)? {
                true => ledger.widen(commits)?,
                // What their drops leave is still being counted.
                false => Widened::not_yet(commits, ledger.nothing_committed()),
            };
            let (mut verdicts, got_on) = (before.0, before.1 + got_on);
            verdicts.extend(decided);
            let vector = committed.vector.clone();
            let afterwards: Afterwards = Box::new(move || {
                if rest.is_empty() {
                    // Whoever asked may have gone.
                    let _ = reply.send(Ok(Received { verdicts, vector, bad_proof: None, got_on }));
                } else {
                    myself.do_send(Widen { commits: rest, before: (verdicts, got_on), reply });
                }
            });
            Ok((committed, afterwards))
        };
        self.later(Box::new(job), ctx);
    }
}
