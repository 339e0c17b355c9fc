//! Turns, as `actors/src/dataset/oplog.rs` takes them: decide, make durable, take in, tell; one at a time.

use std::collections::VecDeque;
use std::rc::Rc;

use anabranch_protocol::commit::Commit;
use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::replica::{Line, Turn, Verdict, WriteRequest};
use rand::Rng as _;

use super::Dataset;
use crate::scale::message::Frame;
use crate::scale::outside::{Effect, LINEAGE, Outside, Timer};

/// What a barrier takes, microseconds: a lone commit with its fsync on a fast disk.
const BARRIER: u64 = 1_000;

/// What waits for the disk.
#[derive(Debug, Default)]
pub(super) struct Turns {
    writes: VecDeque<WriteRequest>,
    received: VecDeque<Received>,
    under_way: Option<UnderWay>,
    wrote_last: bool,
}

/// Frames of a peer.
#[derive(Debug)]
pub(super) struct Received {
    pub frames: Vec<Rc<Frame>>,
    pub came: Came,
}

/// How frames came.
#[derive(Debug, Clone, Copy)]
pub(super) enum Came {
    Pushed { by: u32 },
    Pulled { from: u32, session: u32 },
}

#[derive(Debug)]
struct UnderWay {
    turn: Turn,
    fresh: Vec<Rc<Frame>>,
    came: Option<(Came, Vec<Verdict>)>,
}

impl Dataset {
    /// A client writes.
    pub fn write(&mut self, request: WriteRequest, outside: &mut Outside) {
        self.turns.writes.push_back(request);
        self.next_turn(outside);
    }

    /// Hands over what a peer sent.
    pub(super) fn receive(&mut self, frames: Vec<Rc<Frame>>, came: Came, outside: &mut Outside) {
        self.turns.received.push_back(Received { frames, came });
        self.next_turn(outside);
    }

    fn next_turn(&mut self, outside: &mut Outside) {
        while self.turns.under_way.is_none() {
            let write = !self.turns.writes.is_empty() && (!self.turns.wrote_last || self.turns.received.is_empty());
            let turn = if write {
                self.decide(outside)
            } else {
                let Some(received) = self.turns.received.pop_front() else { return };
                self.judge(outside.wall(), received)
            };
            self.turns.wrote_last = write;
            if turn.turn.is_empty() {
                // Nothing to make durable.
                self.finish(turn, outside);
            } else {
                self.turns.under_way = Some(turn);
                outside.later(BARRIER, Timer::Durable(self.index));
            }
        }
    }

    fn decide(&mut self, outside: &mut Outside) -> UnderWay {
        let requests: Vec<WriteRequest> = self.turns.writes.drain(..).collect();
        let wall = outside.wall();
        let mut entropy = |bytes: &mut [u8]| outside.rng.fill_bytes(bytes);
        let Ok((turn, outcomes)) = self.replica.decide(wall, &requests, &self.store, &mut entropy);
        self.turns.writes.extend(requests.into_iter().skip(outcomes.len()));
        let fresh = turn.records.iter().filter_map(|record| record.commit.as_ref()).map(Frame::of).collect();
        UnderWay { turn, fresh, came: None }
    }

    fn judge(&self, wall: WallClock, Received { frames, came }: Received) -> UnderWay {
        let commits: Vec<Commit> = frames.iter().map(|frame| self.open(frame).clone()).collect();
        let Ok((turn, verdicts)) = self.replica.receive(wall, commits, &self.store);
        let applied = |(frame, verdict): (Rc<Frame>, &Verdict)| matches!(verdict, Verdict::Applied).then_some(frame);
        let fresh = frames.into_iter().zip(&verdicts).filter_map(applied).collect();
        UnderWay { turn, fresh, came: Some((came, verdicts)) }
    }

    /// Nobody forges here: a bad frame would be a mistake of the simulation.
    pub(super) fn open<'a>(&self, frame: &'a Frame) -> &'a Commit {
        frame.open(&self.id, LINEAGE).expect("frames of honest writers")
    }

    /// A turn is durable.
    pub fn durable(&mut self, outside: &mut Outside) {
        if let Some(turn) = self.turns.under_way.take() {
            self.finish(turn, outside);
            self.next_turn(outside);
        }
    }

    fn finish(&mut self, UnderWay { turn, fresh, came }: UnderWay, outside: &mut Outside) {
        self.replica.evolve(&turn);
        self.store.write(&turn.rows);
        for frame in &fresh {
            let commit = self.open(frame);
            self.store.keep(commit.writer(), Line::of(commit), frame.clone());
        }
        if !fresh.is_empty() {
            let own = came.is_none();
            self.vector = Rc::new(self.replica.vector().clone());
            self.digest = self.vector.digest();
            outside.effects.push(Effect::Has { dataset: self.index, commits: self.vector.commits() });
            self.tell_committed(&fresh, own, outside);
        }
        match came {
            Some((Came::Pushed { by }, verdicts)) => self.answer_push(by, &verdicts, outside),
            Some((Came::Pulled { from, session }, verdicts)) => self.page_taken(from, session, &verdicts, outside),
            None => {}
        }
    }

    /// The order of the shipped actors: sync, confirmation, clock.
    fn tell_committed(&mut self, fresh: &[Rc<Frame>], own: bool, outside: &mut Outside) {
        self.remember(fresh);
        if own || outside.roster.rules.push_on {
            self.offer_to_all(fresh, outside);
        }
        self.state_soon(outside);
        self.announce_soon(outside);
    }
}
