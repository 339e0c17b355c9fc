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
