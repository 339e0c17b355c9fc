//! Pushes, as `actors/src/dataset/sync/push.rs` sends and `serve.rs` takes them.

use std::rc::Rc;

use anabranch_protocol::replica::{ReceiveRefusal, Verdict};
use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::Kind;

use super::Dataset;
use super::turns::Came;
use crate::scale::message::{Body, Frame, Stated};
use crate::scale::outside::Outside;

const PUSH_BYTES_MAX: usize = 1 << 20;
const PUSH_FRAMES_MAX: usize = anabranch_protocol::limits::PAGE_FRAMES_MAX;
const OUTBOX_BYTES_MAX: usize = 8 << 20;
/// Commits kept for peers that are about to catch up, bytes.
const RECENT_BYTES_MAX: usize = 4 << 20;

impl Dataset {
    pub(super) fn remember(&mut self, fresh: &[Rc<Frame>]) {
        for frame in fresh {
            self.recent_bytes += frame.len();
            self.recent.push_back(frame.clone());
        }
        while self.recent_bytes > RECENT_BYTES_MAX {
            let Some(frame) = self.recent.pop_front() else { break };
            self.recent_bytes -= frame.len();
        }
    }

    pub(super) fn offer_to_all(&mut self, fresh: &[Rc<Frame>], outside: &mut Outside) {
        if self.kind == Kind::Documents {
            let peers: Vec<u32> = self.sessions.keys().copied().collect();
            peers.into_iter().for_each(|peer| self.offer(peer, fresh, outside));
        }
    }

    fn offer(&mut self, peer: u32, fresh: &[Rc<Frame>], outside: &mut Outside) {
        for frame in fresh {
            let (writer, head) = {
                let commit = self.open(frame);
                (commit.writer(), commit.head())
            };
            let Some(session) = self.sessions.get_mut(&peer) else { return };
            // Only what continues what the peer has; who is known to have it is left out.
            let continues = session.expected.seq(&writer) + 1 == head.seq;
            if !continues || session.refused.contains(&writer) {
                continue;
            }
            if session.outbox_bytes + frame.len() > OUTBOX_BYTES_MAX {
                return session.forget_pushes();
            }
            session.expected.set(writer, head);
            session.outbox_bytes += frame.len();
            session.outbox.push_back(frame.clone());
        }
        self.push(peer, outside);
    }

    pub(super) fn push_recent(&mut self, peer: u32, outside: &mut Outside) {
        let behind = self.sessions.get(&peer).is_some_and(|session| !session.expected.covers(&self.vector));
        if behind && self.kind == Kind::Documents && outside.roster.rules.push_on {
            let recent: Vec<Rc<Frame>> = self.recent.iter().cloned().collect();
            self.offer(peer, &recent, outside);
        }
    }

    fn push(&mut self, peer: u32, outside: &mut Outside) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        if session.pushing.is_some() || session.outbox.is_empty() {
            return;
        }
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while let Some(frame) = session.outbox.pop_front() {
            if !frames.is_empty() && (bytes + frame.len() > PUSH_BYTES_MAX || frames.len() >= PUSH_FRAMES_MAX) {
                session.outbox.push_front(frame);
                break;
            }
            bytes += frame.len();
            session.outbox_bytes -= frame.len();
            frames.push(frame);
        }
        let heads: VersionVector = frames
            .iter()
            .map(|frame| {
                let commit = self.open(frame);
                (commit.writer(), commit.head())
            })
            .collect();
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.pushing = Some(heads);
        }
        outside.tell(peer, self.index, Body::Push(frames.into()));
    }

    /// A peer pushes.
    pub(super) fn take_push(&mut self, peer: u32, frames: &[Rc<Frame>], outside: &mut Outside) {
        let head = |frame: &Rc<Frame>| {
            let commit = self.open(frame);
            (commit.writer(), commit.head())
        };
        let heads: VersionVector = frames.iter().map(head).collect();
        // Who pushes a commit has it.
        if let Some(session) = self.sessions.get_mut(&peer) {
            session.learn(&heads);
        }
        self.receive(frames.to_vec(), Came::Pushed { by: peer }, outside);
    }

    pub(super) fn answer_push(&mut self, peer: u32, verdicts: &[Verdict], outside: &mut Outside) {
        self.note_verdicts(verdicts);
        let complete = verdicts.iter().all(|verdict| matches!(verdict, Verdict::Applied | Verdict::Duplicate));
        if !complete {
            self.pull(peer, outside);
        }
        let statement = self.state_for(peer, outside);
        outside.tell(peer, self.index, Body::Pushed { statement, complete });
    }

    pub(super) fn note_verdicts(&self, verdicts: &[Verdict]) {
        // Whatever else can be wrong with a commit needs a fault or a clock that is off.
        let expected =
            |verdict: &Verdict| !matches!(verdict, Verdict::Refused(refusal) if !matches!(refusal, ReceiveRefusal::Gap { .. }));
        assert!(verdicts.iter().all(expected), "node {} refused a good commit: {verdicts:?}", self.me);
    }

    /// A push was answered.
    pub(super) fn pushed(&mut self, peer: u32, statement: &Rc<Stated>, complete: bool, outside: &mut Outside) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let heads = session.pushing.take().unwrap_or_default();
        if !complete {
            session.forget_pushes();
            let has = &statement.statement.vector;
            let refused = heads.iter().filter(|(writer, head)| has.seq(writer) < head.seq);
            session.refused.extend(refused.map(|(writer, _)| *writer));
        }
        self.stated(peer, statement, outside);
        self.learn(peer, &statement.statement.vector, outside);
        self.push(peer, outside);
    }
}
