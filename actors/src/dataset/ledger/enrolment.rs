//! Who is enrolled, on disk.

use anabranch_protocol::hlc::WallClock;
use anabranch_protocol::id::PeerId;

use super::{Ledger, META_ACCEPTED};
use crate::dataset::enrolment::Enrolments;
use crate::dataset::layout;
use crate::store::{Store, StoreError};

/// Peers that are remembered as enrolled or demoted: who may connect may be anybody.
pub(super) const PEERS_MAX: usize = 8_192;

impl Ledger {
    /// Records that a peer was accepted: from now on a restart needs a peer's word to go on with its epoch, and the peer is
    /// enrolled, unless it was demoted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn peer_accepted(&mut self, peer: PeerId, now: WallClock) -> Result<(), StoreError> {
        let new = self.enrolments.len() < PEERS_MAX && !self.enrolments.knows(&peer);
        if self.accepted && !new {
            return Ok(());
        }
        self.store.put(&layout::meta(META_ACCEPTED), &[1])?;
        if new {
            let since = self.enrolled_at(now);
            self.store.put(&layout::enrolled_key(&peer), &layout::encode_enrolment(since, false))?;
        }
        self.store.barrier()?;
        self.accepted = true;
        self.look_at_few()?;
        if new {
            self.enrolments.accepted(peer);
        }
        Ok(())
    }

    /// Enrols or demotes a peer by hand. `false`: as many are remembered as may be, and nothing was changed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set_enrolled(&mut self, peer: PeerId, enrolled: bool, now: WallClock) -> Result<bool, StoreError> {
        if self.enrolments.len() >= PEERS_MAX && !self.enrolments.knows(&peer) {
            return Ok(false);
        }
        let since = self.enrolled_at(now);
        self.store.put(&layout::enrolled_key(&peer), &layout::encode_enrolment(since, !enrolled))?;
        self.store.barrier()?;
        self.look_at_few()?;
        self.enrolments.set(peer, enrolled);
        Ok(true)
    }

    /// Who is enrolled, and who was demoted.
    #[must_use]
    pub fn enrolments(&self) -> &Enrolments {
        &self.enrolments
    }
}

pub(super) fn stored(store: &dyn Store) -> Result<Enrolments, StoreError> {
    let (mut enrolments, mut whole) = (Enrolments::default(), true);
    store.scan(b"e", b"f", &mut |key, value| {
        match layout::parse_enrolment(key, value) {
            Some((peer, demoted)) => enrolments.set(peer, !demoted),
            None => whole = false,
        }
        std::ops::ControlFlow::Continue(())
    })?;
    if whole { Ok(enrolments) } else { Err(StoreError::Corrupt("an enrolment fails its checksum".into())) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anabranch_protocol::wire::Kind;

    use super::super::tests::{entropy, now, settings};
    use super::*;
    use crate::store::{MemoryEngine, StoreEngine};

    fn open(engine: &dyn StoreEngine, directory: &Path, seed: u8) -> Ledger {
        Ledger::open(engine, directory, 0, settings(Kind::Documents), &mut entropy(&mut seed.clone())).unwrap()
    }

    /// What is done, and who is enrolled and who is demoted after it.
    type Step<'a> = (&'a dyn Fn(&mut Ledger), &'a [PeerId], &'a [PeerId]);

    /// The machine crashes after each step, and keeps nothing that had not passed a barrier.
    #[test]
    fn who_is_enrolled_and_who_was_demoted_is_durable_at_once() {
        let (engine, directory) = (MemoryEngine::default(), Path::new("/enrolment"));
        let (one, two) = (PeerId([1; 32]), PeerId([2; 32]));
        let steps: [Step; 6] = [
            (&|ledger| ledger.peer_accepted(one, now(1)).unwrap(), &[one], &[]),
            (&|ledger| ledger.peer_accepted(two, now(2)).unwrap(), &[one, two], &[]),
            (&|ledger| assert!(ledger.set_enrolled(one, false, now(3)).unwrap()), &[two], &[one]),
            // It comes back, and stays demoted.
            (&|ledger| ledger.peer_accepted(one, now(4)).unwrap(), &[two], &[one]),
            (&|ledger| assert!(ledger.set_enrolled(one, true, now(5)).unwrap()), &[one, two], &[]),
            (&|ledger| assert!(ledger.set_enrolled(two, false, now(6)).unwrap()), &[one], &[two]),
        ];
        for (at, (step, enrolled, demoted)) in (1..).zip(steps) {
            let mut ledger = open(&engine, directory, at);
            step(&mut ledger);
            drop(ledger);
            engine.crash(directory, || false);
            let ledger = open(&engine, directory, at + 100);
            let known = Enrolments { enrolled: enrolled.iter().copied().collect(), demoted: demoted.iter().copied().collect() };
            assert_eq!(*ledger.enrolments(), known, "after step {at}");
        }
    }
}
