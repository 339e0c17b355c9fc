//! Answers to peers.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use anabranch_protocol::commit::Commit;
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{PeerId, WriterId};
use anabranch_protocol::replica::Verdict;
use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::{Confirm, Heads, HeadsReply, Pull, Push, Pushed, Refusal, RefusalCode, Request, Response};
use tokio::sync::oneshot;
use tracing::{Instrument as _, Span};

use super::super::clock::PeerHas;
use super::super::confirmation::{StateFor, Stated};
use super::super::counters::Counters;
use super::super::oplog::Received;
use super::super::span;
use super::intake::{self, Opened};
use super::{Inbound, Sync};

/// Where an answer goes, and under which name it counts.
struct Reply {
    sender: oneshot::Sender<Response>,
    kind: &'static str,
    counters: Arc<Counters>,
}

impl Handler<Inbound> for Sync {
    type Result = ();
    fn handle(&mut self, Inbound { peer, request, reply }: Inbound, ctx: &mut Context<Self>) {
        let _session = span::with_peer(peer).entered();
        let counters = self.context.counters.clone();
        let reply = Reply { sender: reply, kind: counters.asked(&request), counters };
        if !self.sessions.contains_key(&peer) {
            let reason = "say Hello for this dataset first";
            return answer(reply, Response::Refused(Refusal::new(RefusalCode::HelloFirst, reason)));
        }
        match request {
            Request::Heads(heads) => answer(reply, self.compare_heads(&heads)),
            Request::Pull(pull) => self.serve(peer, pull, reply, ctx),
            Request::Push(push) => self.take_push(peer, push, reply, ctx),
            Request::Confirm(confirm) => {
                self.take_statements(peer, confirm, ctx);
                answer(reply, Response::Confirmed);
            }
            Request::Hello(_) | Request::Round(_) => answer(reply, refused(RefusalCode::Malformed, "that goes to the node")),
        }
    }
}

impl Sync {
    fn compare_heads(&self, asked: &Heads) -> Response {
        let same = asked.digest == self.vector.digest();
        Response::Heads(HeadsReply {
            dataset: self.dataset().to_wire(),
            heads: (!same).then(|| (*self.vector).clone()),
            held: self.held.values().cloned().collect(),
            // Who has the same lines knows of the same forks.
            forks: if same { Vec::new() } else { self.parted.proofs.to_vec() },
        })
    }

    /// Reads a page off the actor's thread.
    fn serve(&mut self, peer: PeerId, pull: Pull, reply: Reply, ctx: &mut Context<Self>) {
        let Ok(permit) = self.serves.clone().try_acquire_owned() else {
            return answer(reply, refused(RefusalCode::Busy, "too many pages are being read"));
        };
        let tags = pull.registration.tags(self.dataset(), self.lineage());
        let view = self.context.view.clone();
        let bytes_max = usize::try_from(pull.bytes_max).unwrap_or(usize::MAX);
        let session = Span::current();
        let page = self.context.blocking.run(move || {
            let _permit = permit;
            session.in_scope(|| view.page(&pull.wants, &tags, bytes_max))
        });
        let dataset = self.dataset().clone();
        let served = async move {
            match page.await {
                Ok(Ok(page)) => answer(reply, Response::Page(page)),
                Ok(Err(error)) => {
                    tracing::error!(%dataset, %peer, %error, "a page could not be read");
                    answer(reply, refused(RefusalCode::Unavailable, "the log can't be read"));
                }
                Err(_) => answer(reply, refused(RefusalCode::Unavailable, "the dataset is going down")),
            }
        };
        ctx.spawn(served.into_actor(self));
    }

    fn take_push(&mut self, peer: PeerId, push: Push, reply: Reply, ctx: &mut Context<Self>) {
        let intakes = self.intakes.clone();
        #[cfg(feature = "planted")]
        let intakes = match anabranch_protocol::planted::is(anabranch_protocol::planted::Bug::TakeEverything) {
            true => std::sync::Arc::new(tokio::sync::Semaphore::new(1)),
            false => intakes,
        };
        let Ok(permit) = intakes.try_acquire_owned() else {
            return answer(reply, refused(RefusalCode::Busy, "too many commits wait for the disk"));
        };
        let verified = intake::verify(push.frames, self.dataset().clone(), self.lineage(), self.context.blocking.clone())
            .instrument(Span::current());
        ctx.spawn(verified.into_actor(self).map(move |verified, actor, ctx| match verified {
            Ok(Opened { commits, faults }) => {
                actor.note_faults(peer, &faults, ctx);
                let blame = faults.iter().find(|fault| fault.blames_sender()).map(ToString::to_string);
                if blame.is_some() {
                    actor.back_off(peer, Duration::ZERO, ctx);
                }
                let readable = faults.is_empty();
                let summary = intake::summary(&commits);
                actor.sender_has(peer, &commits);
                let received = intake::hand_over(&actor.context.oplog, commits);
                ctx.spawn(intake::verdicts(received).into_actor(actor).map(move |received, actor, ctx| {
                    drop(permit);
                    match (received, blame) {
                        (Ok(received), None) => actor.answer_push(peer, &summary, &received, readable, reply, ctx),
                        (Ok(received), Some(blame)) => {
                            actor.note_verdicts(peer, &summary, &received.verdicts, ctx);
                            answer(reply, refused(RefusalCode::Commit, &blame));
                        }
                        (Err(error), _) => answer(reply, refused(RefusalCode::Unavailable, &error.to_string())),
                    }
                }));
            }
            Err(error) => {
                tracing::debug!(dataset = %actor.dataset(), %peer, %error, "a push was not taken in");
                answer(reply, refused(RefusalCode::Unavailable, &error.to_string()));
            }
        }));
    }

    /// Who pushes a commit has it: it is not pushed back, and the peer does not show as lacking it.
    fn sender_has(&mut self, peer: PeerId, commits: &[Commit]) {
        let heads: VersionVector = commits.iter().map(|commit| (commit.writer(), commit.head())).collect();
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.learn(&heads);
            session.cut(&self.parted);
            self.context.clock.do_send(PeerHas { peer, vector: Arc::new(session.theirs.clone()) });
        }
    }

    fn answer_push(
        &mut self,
        peer: PeerId,
        pushed: &[(WriterId, u64, Hlc)],
        received: &Received,
        readable: bool,
        reply: Reply,
        ctx: &mut Context<Self>,
    ) {
        self.note_verdicts(peer, pushed, &received.verdicts, ctx);
        let taken = |verdict: &Verdict| matches!(verdict, Verdict::Applied | Verdict::Duplicate);
        let complete = readable && received.verdicts.iter().all(taken);
        if !complete {
            self.pull(peer, ctx);
        }
        let (stated, statement) = oneshot::channel();
        self.context.confirmation.do_send(StateFor { peer, vector: received.vector.clone(), reply: stated });
        let (dataset, held) = (self.dataset().to_wire(), self.held.values().cloned().collect());
        let answered = async move {
            if let Ok(confirmation) = statement.await {
                answer(reply, Response::Pushed(Pushed { dataset, confirmation, complete, held }));
            }
        };
        ctx.spawn(answered.into_actor(self));
    }

    fn take_statements(&mut self, peer: PeerId, confirm: Confirm, ctx: &mut Context<Self>) {
        for signed in confirm.statements {
            let (dataset, lineage) = (&self.context.replica.dataset, self.context.replica.lineage);
            match self.checked.open(&peer, &signed, dataset, lineage) {
                Ok(None) => {}
                Ok(Some(statement)) => {
                    let (about, vector) = (statement.peer, statement.vector.clone());
                    self.context.confirmation.do_send(Stated { from: peer, statement, signed });
                    if about == peer {
                        self.learn(peer, &vector, ctx);
                    }
                }
                Err(error) => {
                    tracing::warn!(dataset = %self.dataset(), %peer, %error, "a confirmation was refused");
                    // What comes after it is worth no more signatures to check.
                    return self.context.transport.misbehaved(peer, &error.to_string());
                }
            }
        }
    }
}

fn refused(code: RefusalCode, reason: &str) -> Response {
    Response::Refused(Refusal::new(code, reason))
}

fn answer(reply: Reply, response: Response) {
    reply.counters.answered(reply.kind, &response);
    // A peer that went away needs no answer.
    let _ = reply.sender.send(response);
}
