//! Pulls: missing commits, verbatim, paged by bytes. While a page is being made durable the next one is on its way.

use std::collections::BTreeMap;
use std::time::Duration;

use actix::prelude::*;
use anabranch_protocol::commit::FrameFault;
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{DatasetId, Lineage, PeerId, Tag, WriterId};
use anabranch_protocol::plan::{Want, plan_pull};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::replica::Verdict;
use anabranch_protocol::wire::{Pull, Refusal, Request, Response};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Instrument as _;

use super::super::oplog::{Oplog, Received};
use super::super::span;
use super::Sync;
use super::faults::BadFrames;
use super::intake::{self, IntakeError, Opened};
use super::past::Past;
use super::stall::PageArrived;
use crate::runtime::Blocking;
use crate::store::StoreError;
use crate::transport::{Class, SharedTransport, TransportError};

/// Smallest page asked for, bytes.
pub(super) const PAGE_BYTES_MIN: usize = 64 << 10;
/// Largest page asked for, bytes.
const PAGE_BYTES_MAX: usize = anabranch_protocol::limits::PAGE_BYTES_MAX;
/// A page should add about this much to the queue of the link.
const PAGE_TIME: Duration = Duration::from_millis(10);

/// Why a pull ended early.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Intake(#[from] IntakeError),
    #[error("the peer refused: {0}")]
    Refused(Refusal),
    #[error("the peer answered with another message")]
    OtherMessage,
    #[error("nothing new came of what the peer says it has")]
    Nothing,
}

/// A page is durable here, or what was wrong with its commits.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct PageTaken {
    peer: PeerId,
    commits: Vec<(WriterId, u64, Hlc)>,
    verdicts: Vec<Verdict>,
}

/// A pull ended. A message, so that it comes after those about the pull's pages.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct PullEnded {
    peer: PeerId,
    session: u64,
    outcome: Result<(), PullError>,
    page_bytes: usize,
    lacking: BTreeMap<WriterId, (u64, Vec<Tag>)>,
    past: Option<Past>,
}

/// One pull: everything a peer had when it began, page after page; or some pages of the past of collections that are imported.
struct Puller {
    peer: PeerId,
    session: u64,
    transport: SharedTransport,
    blocking: Blocking,
    oplog: Addr<Oplog>,
    sync: Addr<Sync>,
    dataset: DatasetId,
    lineage: Lineage,
    registration: Registration,
    page_bytes: usize,
    /// Writers that the peer could not serve whole enough, from where on, and what it lacks.
    lacking: BTreeMap<WriterId, (u64, Vec<Tag>)>,
    /// Commits that were new here, or by which a collection that is imported got on.
    applied: usize,
    /// Frames of a wanted writer can't be read by this version, or no writer made them.
    faulty: bool,
    /// What of the past is pulled; `None`: fresh commits.
    past: Option<Past>,
}

/// A page that the oplog is making durable.
struct InFlight {
    commits: Vec<(WriterId, u64, Hlc)>,
    received: oneshot::Receiver<Result<Received, StoreError>>,
}

impl Sync {
    /// Pulls what `peer` has and we lack, unless a pull from it is under way.
    pub(super) fn pull(&mut self, peer: PeerId, ctx: &mut Context<Self>) {
        #[cfg(feature = "planted")]
        if anabranch_protocol::planted::is(anabranch_protocol::planted::Bug::NeverPull) {
            return;
        }
        let under_way = self.sessions.values().filter(|session| session.pulling && !session.stalled).count();
        if under_way >= self.context.sync.max_peers || self.stalls.left_alone(&peer, Instant::now()) {
            // The end of any pull begins the next one, and so does the end of being left alone.
            return;
        }
        let mut left_alone = self.left_alone();
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        if session.pulling || session.waiting {
            return;
        }
        left_alone.extend(session.lacking.iter().chain(&session.newer));
        // What would be refused is not asked for; the clock shows whose it is. Nor does it take a place among what is.
        let admitted = |writer: &WriterId| {
            let next = self.vector.seq(writer) + 1;
            self.fences.admits(&self.context.replica.writers, writer, next)
        };
        left_alone.extend(session.theirs.iter().map(|(writer, _)| *writer).filter(|writer| !admitted(writer)));
        let wants = plan_pull(&self.vector, &session.theirs, &left_alone);
        // Fresh commits first; but where they never end, the past gets its turns too.
        let past_first = wants.is_empty() || session.past_next;
        if let Some((past, wants)) = past_first.then(|| self.past_to_pull(peer)).flatten() {
            let registration = past.registration();
            return self.start_pull(peer, registration, wants, Some(past), ctx);
        }
        if !wants.is_empty() {
            self.claims.extend(wants.iter().map(|want| (want.writer, peer)));
            let registration = self.context.view.registered().now().registration.clone();
            self.start_pull(peer, registration, wants, None, ctx);
        }
    }

    fn start_pull(
        &mut self,
        peer: PeerId,
        registration: Registration,
        wants: Vec<Want>,
        past: Option<Past>,
        ctx: &mut Context<Self>,
    ) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        session.pulling = true;
        session.stalled = false;
        session.pulls += 1;
        session.past_next = past.is_none();
        if past.is_some() {
            self.past_pulled_from = Some(peer);
        }
        let mut puller = Puller {
            peer,
            session: session.number,
            transport: self.context.transport.clone(),
            blocking: self.context.blocking.clone(),
            oplog: self.context.oplog.clone(),
            sync: ctx.address(),
            dataset: self.context.replica.dataset.clone(),
            lineage: self.context.replica.lineage,
            registration,
            page_bytes: session.page_bytes,
            lacking: BTreeMap::new(),
            applied: 0,
            faulty: false,
            past,
        };
        tracing::debug!(dataset = %self.dataset(), %peer, writers = wants.len(), "pulling");
        let pull = async move {
            let outcome = puller.run(wants).await;
            let Puller { peer, session, page_bytes, lacking, sync, past, .. } = puller;
            sync.do_send(PullEnded { peer, session, outcome, page_bytes, lacking, past });
        };
        ctx.spawn(pull.instrument(span::with_peer(peer)).into_actor(self));
        self.watch_pull(peer, ctx);
    }

    fn pull_failed(&mut self, peer: PeerId, error: &PullError, ctx: &mut Context<Self>) {
        tracing::info!(dataset = %self.dataset(), %peer, %error, "a pull failed; it is tried again");
        match error {
            PullError::Refused(refusal) => self.heed(peer, refusal),
            PullError::Transport(TransportError::Malformed(_)) | PullError::OtherMessage => {
                self.context.transport.misbehaved(peer, &error.to_string());
            }
            // Bad commits were counted where they were noted.
            PullError::Transport(_) | PullError::Intake(_) | PullError::Nothing => {}
        }
        let stalled = matches!(error, PullError::Transport(TransportError::Timeout));
        let at_least = if stalled { self.stalls.note(peer, Instant::now()) } else { Duration::ZERO };
        self.back_off(peer, at_least, ctx);
    }

    /// Asks a peer for nothing for a while, longer each time, and at least for `at_least`.
    pub(super) fn back_off(&mut self, peer: PeerId, at_least: Duration, ctx: &mut Context<Self>) {
        let Some(session) = self.sessions.get_mut(&peer).filter(|session| !session.waiting) else { return };
        let (number, delay) = (session.number, session.next_delay().max(at_least));
        session.waiting = true;
        tracing::info!(dataset = %self.context.replica.dataset, %peer, ?delay, "the peer is not pulled from for a while");
        ctx.run_later(delay, move |actor, ctx| {
            #[cfg(feature = "planted")]
            if anabranch_protocol::planted::is(anabranch_protocol::planted::Bug::GiveUp) {
                return;
            }
            if let Some(session) = actor.sessions.get_mut(&peer).filter(|session| session.number == number) {
                session.waiting = false;
            }
            actor.pull_from_anyone(ctx);
        });
    }

    /// What one peer did not deliver, another may. The one after whose pull ended last comes first: with more peers than turns
    /// each gets one.
    pub(super) fn pull_from_anyone(&mut self, ctx: &mut Context<Self>) {
        let later = |peer: &PeerId| self.pulled_last.is_none_or(|last| *peer > last);
        let (mut peers, rest): (Vec<_>, Vec<_>) = self.sessions.keys().copied().partition(later);
        peers.extend(rest);
        peers.into_iter().for_each(|peer| self.pull(peer, ctx));
    }
}

impl Handler<PageTaken> for Sync {
    type Result = ();
    fn handle(&mut self, page: PageTaken, ctx: &mut Context<Self>) {
        self.note_verdicts(page.peer, &page.commits, &page.verdicts, ctx);
    }
}

impl Handler<PullEnded> for Sync {
    type Result = ();
    fn handle(&mut self, ended: PullEnded, ctx: &mut Context<Self>) {
        let PullEnded { peer, session: number, outcome, page_bytes, lacking, past } = ended;
        let replica = &self.context.replica;
        let Some(session) = self.sessions.get_mut(&peer).filter(|session| session.number == number) else { return };
        self.claims.retain(|_, from| *from != peer);
        self.pulled_last = Some(peer);
        session.pulling = false;
        session.page_bytes = page_bytes;
        match past {
            Some(past) => {
                // One that stalled has given its turn to another.
                self.past_pulled_from = self.past_pulled_from.filter(|from| *from != peer);
                session.delivered_past(&past, past.lacked(&lacking, &replica.dataset, replica.lineage));
            }
            None => {
                session.lacking.extend(lacking.keys());
                session.lacks.extend(lacking);
            }
        }
        match outcome {
            Ok(()) => {
                session.pull_succeeded();
                self.stalls.forget(&peer);
            }
            Err(error) => self.pull_failed(peer, &error, ctx),
        }
        self.pull_from_anyone(ctx);
        self.look_for_sources();
    }
}

impl Puller {
    /// Pulls until the peer has no more; an error too if nothing came of it, or it would be tried again without a pause.
    async fn run(&mut self, wants: Vec<Want>) -> Result<(), PullError> {
        self.pages(wants).await?;
        if self.applied == 0 && self.lacking.is_empty() && !self.faulty { Err(PullError::Nothing) } else { Ok(()) }
    }

    async fn pages(&mut self, mut wants: Vec<Want>) -> Result<(), PullError> {
        let mut in_flight: Option<InFlight> = None;
        loop {
            let (Opened { commits, faults }, more) = self.page(&wants).await?;
            if let Some(page) = in_flight.take()
                && !self.settle(page).await?
            {
                return Ok(());
            }
            let summary = intake::summary(&commits);
            // A page of a branch does not say how far into it the page got: the next pull asks for the rest.
            let branches = wants.iter().any(|want| want.writer.epoch.is_branch());
            let more = more && !summary.is_empty() && faults.is_empty() && !branches;
            wants = advance(wants, &summary);
            let ended = self.past.as_mut().is_some_and(|past| past.page_came(&mut wants));
            let hand_over = if self.past.is_some() { intake::hand_over_past } else { intake::hand_over };
            in_flight = Some(InFlight { commits: summary, received: hand_over(&self.oplog, commits) });
            if !more || ended {
                let about =
                    |fault: &FrameFault| fault.writer().is_some_and(|writer| wants.iter().any(|want| want.writer == writer));
                // Of what was asked for: that is not asked for again at once.
                self.faulty = faults.iter().any(about);
                return self.last_page(in_flight, faults).await;
            }
        }
    }

    /// Waits for the last page. What was wrong with it is said first, so that nobody asks for it again at once.
    async fn last_page(&mut self, page: Option<InFlight>, faults: Vec<FrameFault>) -> Result<(), PullError> {
        let blame = faults.iter().find(|fault| fault.blames_sender()).cloned();
        if !faults.is_empty() {
            self.sync.do_send(BadFrames { peer: self.peer, session: self.session, faults });
        }
        if let Some(page) = page {
            self.settle(page).await?;
        }
        blame.map_or(Ok(()), |fault| Err(IntakeError::Frame(fault).into()))
    }

    async fn page(&mut self, wants: &[Want]) -> Result<(Opened, bool), PullError> {
        let request = Request::Pull(Pull {
            dataset: self.dataset.to_wire(),
            registration: self.registration.clone(),
            wants: wants.to_vec(),
            bytes_max: self.page_bytes as u64,
        });
        let started = Instant::now();
        let page = match self.transport.request(self.peer, Class::Bulk, request).await? {
            Response::Page(page) => page,
            Response::Refused(refusal) => return Err(PullError::Refused(refusal)),
            _ => return Err(PullError::OtherMessage),
        };
        self.sync.do_send(PageArrived { peer: self.peer, session: self.session });
        self.adapt(page.frames.iter().map(|frame| frame.len()).sum(), started.elapsed());
        for incomplete in &page.incomplete {
            let writer = incomplete.writer;
            tracing::debug!(dataset = %self.dataset, peer = %self.peer, %writer, "the peer lacks sections that are registered here");
            if wants.iter().any(|want| want.writer == writer) {
                self.lacking.insert(writer, (incomplete.from_seq, incomplete.tags.clone()));
            }
        }
        let opened = intake::verify(page.frames, self.dataset.clone(), self.lineage, self.blocking.clone()).await?;
        Ok((opened, page.more))
    }

    /// Sizes the next page so that it adds about [`PAGE_TIME`] of queue, whatever the link.
    fn adapt(&mut self, bytes: usize, elapsed: Duration) {
        let full = bytes * 2 >= self.page_bytes;
        if elapsed > PAGE_TIME * 2 {
            self.page_bytes = (self.page_bytes / 2).max(PAGE_BYTES_MIN);
        } else if full {
            self.page_bytes = (self.page_bytes * 2).min(PAGE_BYTES_MAX);
        }
    }

    /// Waits until a page is durable; whether all of it was taken in and something of it was new, so that going on makes sense.
    async fn settle(&mut self, page: InFlight) -> Result<bool, PullError> {
        let received = intake::verdicts(page.received).await?;
        let applied = match self.past {
            Some(_) => received.got_on,
            None => received.verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Applied)).count(),
        };
        let whole = received.verdicts.iter().all(|verdict| matches!(verdict, Verdict::Applied | Verdict::Duplicate));
        self.applied += applied;
        self.sync.do_send(PageTaken { peer: self.peer, commits: page.commits, verdicts: received.verdicts });
        Ok(whole && applied > 0)
    }
}

/// What is still wanted after a page.
fn advance(wants: Vec<Want>, page: &[(WriterId, u64, Hlc)]) -> Vec<Want> {
    let last: BTreeMap<WriterId, u64> = page.iter().map(|(writer, seq, _)| (*writer, *seq)).collect();
    let next = |want: Want| last.get(&want.writer).map_or(want, |seq| Want { from_seq: seq + 1, ..want });
    wants.into_iter().map(next).collect()
}
