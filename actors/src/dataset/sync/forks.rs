//! Forks: where two commits have one number, the place where they part is looked for, step by step, and proven.
//!
//! A commit's hash covers the one before it: where two lines are equal at a number they are equal below, where they differ they
//! differ above. So the first difference is found by halving, with one commit of the peer's for each step.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use anabranch_protocol::commit::{Commit, ForkProof, FrameError, FrameFault};
use anabranch_protocol::id::{DatasetId, Lineage, PeerId, WriterId};
use anabranch_protocol::plan::Want;
use anabranch_protocol::registration::Registration;
use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::{Pull, Request, Response};
use tokio::sync::oneshot;

use super::super::oplog::Receive;
use super::super::view::View;
use super::{Parted, Sync};
use crate::runtime::Blocking;
use crate::transport::{Class, SharedTransport};

/// Lines that one search looks at.
const LINES_MAX: usize = 16;

/// Writers of which one peer is asked at once.
const SEARCHES_MAX: usize = 4;
/// Writers of which a peer is asked between two rounds of anti-entropy because of what it claims.
const SEARCHED_MAX: usize = 64;
/// How long one search may take.
const SEARCH_TIME: Duration = Duration::from_secs(60);

/// Why a fork is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// A peer says that it has another commit. That costs the writer nothing: anybody can say so.
    Claimed,
    /// The writer signed a commit that contradicts another.
    Signed,
}

/// Looks for the place where a peer's lines part from ours.
struct Search {
    peer: PeerId,
    dataset: DatasetId,
    lineage: Lineage,
    transport: SharedTransport,
    view: Arc<View>,
    blocking: Blocking,
}

impl Sync {
    /// Writers of which we and a peer have different commits with one number.
    pub(super) fn forked_from(&self, theirs: &VersionVector) -> BTreeSet<WriterId> {
        let differs = |(line, head): &(&WriterId, &anabranch_protocol::vector::Head)| {
            self.vector.head(line).is_some_and(|ours| ours.seq == head.seq && ours.hash != head.hash)
        };
        theirs.iter().filter(differs).map(|(line, _)| *line).collect()
    }

    /// Searches a peer's lines of `writer` for the place where they part from ours.
    pub(super) fn search_fork(&mut self, peer: PeerId, writer: WriterId, why: Suspicion, ctx: &mut Context<Self>) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let busy = session.searching.len() >= SEARCHES_MAX || session.searching.contains(&writer);
        let known = session.searched.len() >= SEARCHED_MAX || session.searched.contains(&writer);
        if busy || (why == Suspicion::Claimed && known) {
            return;
        }
        session.searching.insert(writer);
        session.searched.insert(writer);
        let (number, theirs) = (session.number, session.theirs.clone());
        let of_writer = |line: &WriterId| *line == writer || (line.peer == writer.peer && line.epoch.is_branch());
        let shared = self.vector.iter().filter(|(line, _)| of_writer(line));
        let shared = shared.map(|(line, head)| (*line, theirs.seq(line).min(head.seq))).filter(|(_, seq)| *seq > 0);
        let lines: Vec<(WriterId, u64)> = shared.take(LINES_MAX).collect();
        tracing::info!(dataset = %self.dataset(), %peer, %writer, "looking for a fork");
        let search = Search {
            peer,
            dataset: self.dataset().clone(),
            lineage: self.lineage(),
            transport: self.context.transport.clone(),
            view: self.context.view.clone(),
            blocking: self.context.blocking.clone(),
        };
        let search = async move { tokio::time::timeout(SEARCH_TIME, search.proofs(lines)).await.unwrap_or_default() };
        ctx.spawn(search.into_actor(self).map(move |proofs, actor, ctx| {
            if let Some(session) = actor.sessions.get_mut(&peer).filter(|session| session.number == number) {
                session.searching.remove(&writer);
            }
            if !proofs.is_empty() {
                return actor.take_proofs(peer, proofs, ctx);
            }
            if why == Suspicion::Signed {
                actor.stop_writer(writer, ctx);
            }
            // The peer may know of it already: then it says so when vectors are compared.
            actor.compare(peer, None, ctx);
        }));
    }

    /// Hands proofs that are not known to the oplog.
    pub(super) fn take_proofs(&mut self, peer: PeerId, mut proofs: Vec<ForkProof>, ctx: &mut Context<Self>) {
        proofs.retain(|proof| !self.parted.proofs.contains(proof));
        if proofs.is_empty() {
            return;
        }
        let (reply, received) = oneshot::channel();
        self.context.oplog.do_send(Receive { commits: Vec::new(), proofs, reply });
        ctx.spawn(received.into_actor(self).map(move |received, actor, _| {
            if let Ok(Ok(received)) = received
                && let Some(error) = received.bad_proof
            {
                tracing::warn!(dataset = %actor.dataset(), %peer, %error, "the peer sent a proof of a fork that proves nothing");
                let error = FrameError::Inconsistent("a fork has to be proven by two signed headers");
                actor.blame(peer, &FrameFault::Unproven { claimed: None, error });
            }
        }));
    }

    /// Takes in what the oplog says of forks.
    pub(super) fn note_forks(&mut self, parted: &Arc<Parted>, ctx: &mut Context<Self>) {
        if self.parted == *parted {
            return;
        }
        let known = std::mem::replace(&mut self.parted, parted.clone());
        for (writer, seq) in parted.lowest.iter().filter(|fork| !known.lowest.contains(fork)) {
            let dataset = self.dataset();
            tracing::error!(%dataset, %writer, seq, "diverged: the writer's history forked; each branch is kept as a line of its own");
        }
        for session in self.sessions.values_mut() {
            session.cut(parted);
        }
        if known.proofs != parted.proofs {
            // What broke its chain may be understood now.
            self.stopped.retain(|writer| parted.lowest.iter().all(|(forked, _)| forked != writer));
            self.pull_from_anyone(ctx);
        }
    }
}

impl Search {
    async fn proofs(self, lines: Vec<(WriterId, u64)>) -> Vec<ForkProof> {
        let mut proofs = Vec::new();
        for (line, shared) in lines {
            proofs.extend(self.proof(line, shared).await);
        }
        proofs
    }

    /// The proof of the fork in a line of which both have commits up to `shared`.
    async fn proof(&self, line: WriterId, shared: u64) -> Option<ForkProof> {
        let (mut equal, mut differs) = (0, shared);
        let mut pair = self.pair(line, shared).await.filter(|(ours, theirs)| ours.hash() != theirs.hash())?;
        while differs - equal > 1 {
            let middle = equal + (differs - equal) / 2;
            match self.pair(line, middle).await {
                Some(found) if found.0.hash() != found.1.hash() => (differs, pair) = (middle, found),
                // A branch begins somewhere: below that there is nothing to compare.
                _ => equal = middle,
            }
        }
        ForkProof::of(&pair.0, &pair.1)
    }

    /// Our commit and the peer's with a number.
    async fn pair(&self, line: WriterId, seq: u64) -> Option<(Commit, Commit)> {
        let view = self.view.clone();
        let ours = self.blocking.run(move || view.commit(&line, seq)).await.ok()?.ok()??;
        // Headers are all that matters: no section is asked for, so a peer with any registration can answer.
        let request = Request::Pull(Pull {
            dataset: self.dataset.to_wire(),
            registration: Registration::of([]),
            wants: vec![Want { writer: line, from_seq: seq }],
            bytes_max: 1,
        });
        let Ok(Response::Page(page)) = self.transport.request(self.peer, Class::Bulk, request).await else { return None };
        let theirs = Commit::open(page.frames.first()?, &self.dataset, self.lineage).ok()?;
        (theirs.writer() == ours.writer() && theirs.header().seq == seq).then_some((ours, theirs))
    }
}
