//! Pulls, as `actors/src/dataset/sync/pull.rs` sends and `serve.rs` answers them: while a page is made durable the next one is on its
//! way.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use anabranch_protocol::id::WriterId;
use anabranch_protocol::plan::{Want, plan_pull};
use anabranch_protocol::replica::Verdict;

use super::Dataset;
use super::turns::Came;
use crate::scale::message::{Body, Direct, Frame};
use crate::scale::outside::{Effect, Outside, Timer};

pub(super) const PAGE_BYTES_MIN: usize = 64 << 10;
const PAGE_BYTES_MAX: usize = anabranch_protocol::limits::PAGE_BYTES_MAX;
const PAGE_FRAMES_MAX: usize = anabranch_protocol::limits::PAGE_FRAMES_MAX;
/// A page should add about this much to the queue of the link, microseconds.
const PAGE_TIME: u64 = 10_000;
/// Peers that are pulled from at once: `sync.max_peers` as it comes.
const PULLED_FROM_MAX: usize = 8;
/// Pages that are read from the store for peers at once.
const SERVES_MAX: usize = 4;
/// What reading a page takes, microseconds.
const READING: u64 = 1_000;

/// A pull that is under way.
#[derive(Debug)]
pub(super) struct Puller {
    wants: Vec<Want>,
    asked_at: u64,
    applied: usize,
    /// A page is being made durable.
    in_flight: bool,
    /// The page before was not worth going on.
    fruitless: bool,
    /// A page that came while the one before was not durable yet.
    arrived: Option<(Vec<Rc<Frame>>, bool)>,
    /// No further page was asked for.
    last: bool,
}

enum Outcome {
    Done,
    Refused,
}

impl Dataset {
    pub(super) fn pull(&mut self, peer: u32, outside: &mut Outside) {
        let under_way = self.sessions.values().filter(|session| session.pull.is_some()).count();
        let Some(session) = self.sessions.get(&peer) else { return };
        if under_way >= PULLED_FROM_MAX || session.pull.is_some() || session.waiting {
            return;
        }
        let left_alone: BTreeSet<WriterId> = self.claims.keys().copied().collect();
        let wants = plan_pull(&self.vector, &session.theirs, &left_alone);
        if !wants.is_empty() {
            self.claims.extend(wants.iter().map(|want| (want.writer, peer)));
            let puller =
                Puller { wants, asked_at: 0, applied: 0, in_flight: false, fruitless: false, arrived: None, last: false };
            if let Some(session) = self.sessions.get_mut(&peer) {
                session.pull = Some(puller);
            }
            self.ask_for_page(peer, outside);
        }
    }

    /// One after whose pull ended last comes first.
    pub(super) fn pull_from_anyone(&mut self, outside: &mut Outside) {
        let later = |peer: &u32| self.pulled_last.is_none_or(|last| *peer > last);
        let (mut peers, rest): (Vec<u32>, Vec<u32>) = self.sessions.keys().copied().partition(later);
        peers.extend(rest);
        peers.into_iter().for_each(|peer| self.pull(peer, outside));
    }

    fn ask_for_page(&mut self, peer: u32, outside: &mut Outside) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let Some(puller) = &mut session.pull else { return };
        puller.asked_at = outside.now;
        let body = Body::Pull { wants: puller.wants.clone(), bytes_max: session.page_bytes as u64 };
        outside.tell(peer, self.index, body);
    }

    /// A peer pulls.
    pub(super) fn serve(&mut self, peer: u32, wants: &[Want], bytes_max: u64, outside: &mut Outside) {
        if self.pages_being_read >= SERVES_MAX {
            return outside.tell(peer, self.index, Body::Busy);
        }
        self.pages_being_read += 1;
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let (frames, more) = self.store.page(wants, bytes_max, PAGE_FRAMES_MAX);
        outside.later(READING, Timer::PageRead(self.index));
        let message = Direct::About(self.index, Body::Page { frames, more });
        outside.effects.push(Effect::Send { to: peer, after: READING, message });
    }

    pub fn page_read(&mut self) {
        self.pages_being_read -= 1;
    }

    /// A page came.
    pub(super) fn page(&mut self, peer: u32, frames: Vec<Rc<Frame>>, more: bool, outside: &mut Outside) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let Some(puller) = &mut session.pull else { return };
        let (bytes, took) = (frames.iter().map(|frame| frame.len()).sum::<usize>(), outside.now - puller.asked_at);
        session.page_bytes = next_page_bytes(session.page_bytes, bytes, took);
        if puller.in_flight {
            puller.arrived = Some((frames, more));
        } else if puller.fruitless {
            self.pull_ended(peer, &Outcome::Done, outside);
        } else {
            self.take_page(peer, frames, more, outside);
        }
    }

    fn take_page(&mut self, peer: u32, frames: Vec<Rc<Frame>>, more: bool, outside: &mut Outside) {
        let heads = |frame: &Rc<Frame>| {
            let commit = self.open(frame);
            (commit.writer(), commit.header().seq)
        };
        let got: BTreeMap<WriterId, u64> = frames.iter().map(heads).collect();
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let Some(puller) = &mut session.pull else { return };
        for want in &mut puller.wants {
            want.from_seq = got.get(&want.writer).map_or(want.from_seq, |seq| seq + 1);
        }
        (puller.in_flight, puller.last) = (true, !more || frames.is_empty());
        let (last, session) = (puller.last, session.number);
        self.receive(frames, Came::Pulled { from: peer, session }, outside);
        if !last {
            self.ask_for_page(peer, outside);
        }
    }

    /// A page is durable, or was nothing new.
    pub(super) fn page_taken(&mut self, peer: u32, number: u32, verdicts: &[Verdict], outside: &mut Outside) {
        self.note_verdicts(verdicts);
        let Some(session) = self.sessions.get_mut(&peer).filter(|session| session.number == number) else { return };
        let Some(puller) = &mut session.pull else { return };
        let applied = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Applied)).count();
        let whole = verdicts.iter().all(|verdict| matches!(verdict, Verdict::Applied | Verdict::Duplicate));
        puller.applied += applied;
        puller.in_flight = false;
        puller.fruitless = !whole || applied == 0;
        if puller.last {
            self.pull_ended(peer, &Outcome::Done, outside);
        } else if let Some((frames, more)) = puller.arrived.take() {
            if puller.fruitless {
                self.pull_ended(peer, &Outcome::Done, outside);
            } else {
                self.take_page(peer, frames, more, outside);
            }
        }
    }

    pub(super) fn pull_refused(&mut self, peer: u32, outside: &mut Outside) {
        self.pull_ended(peer, &Outcome::Refused, outside);
    }

    fn pull_ended(&mut self, peer: u32, outcome: &Outcome, outside: &mut Outside) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let Some(puller) = session.pull.take() else { return };
        self.claims.retain(|_, from| *from != peer);
        self.pulled_last = Some(peer);
        // Nothing came of what the peer says it has, or it came from elsewhere meanwhile.
        let failed = matches!(outcome, Outcome::Refused) || puller.applied == 0;
        if failed {
            session.waiting = true;
            let (session, after) = (session.number, session.next_delay(outside.rng));
            outside.later(after, Timer::Waited { dataset: self.index, peer, session });
        } else {
            session.pull_succeeded();
        }
        self.pull_from_anyone(outside);
    }

    pub fn waited(&mut self, peer: u32, number: u32, outside: &mut Outside) {
        if let Some(session) = self.sessions.get_mut(&peer).filter(|session| session.number == number) {
            session.waiting = false;
        }
        self.pull_from_anyone(outside);
    }
}

fn next_page_bytes(now: usize, came: usize, took: u64) -> usize {
    if took > PAGE_TIME * 2 {
        (now / 2).max(PAGE_BYTES_MIN)
    } else if came * 2 >= now {
        (now * 2).min(PAGE_BYTES_MAX)
    } else {
        now
    }
}
