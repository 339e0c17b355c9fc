//! Enrolment: whom `ack=all` waits for. A peer is enrolled once its `Hello` was accepted, until an operator demotes it; from then on
//! it has to be enrolled by hand, however often it comes back.

use std::collections::BTreeSet;

use actix::prelude::*;
use anabranch_protocol::id::PeerId;
use tokio::sync::oneshot;

use super::DatasetHandle;
use super::confirmation::{AskEnrolments, Confirmation};
use super::handle::{NO_ANSWER, STATUS_TIMEOUT, WRITE_PATIENCE};
use crate::api::{DatasetError, DatasetState, EnrolmentError};

/// Who is enrolled in a dataset, and who was demoted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Enrolments {
    /// `ack=all` waits for these.
    pub enrolled: BTreeSet<PeerId>,
    /// These are not enrolled again by themselves.
    pub demoted: BTreeSet<PeerId>,
}

impl Enrolments {
    /// A peer's `Hello` was accepted.
    pub fn accepted(&mut self, peer: PeerId) {
        if !self.demoted.contains(&peer) {
            self.enrolled.insert(peer);
        }
    }

    /// An operator enrols or demotes a peer.
    pub fn set(&mut self, peer: PeerId, enrolled: bool) {
        let (to, from) = if enrolled { (&mut self.enrolled, &mut self.demoted) } else { (&mut self.demoted, &mut self.enrolled) };
        from.remove(&peer);
        to.insert(peer);
    }

    /// Whether a peer is one of either.
    #[must_use]
    pub fn knows(&self, peer: &PeerId) -> bool {
        self.enrolled.contains(peer) || self.demoted.contains(peer)
    }

    /// How many peers are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.enrolled.len() + self.demoted.len()
    }

    /// Whether nobody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An operator enrols or demotes a peer: first on disk, then for those who wait.
#[derive(Message)]
#[rtype(result = "()")]
pub struct SetEnrolled {
    /// Who.
    pub peer: PeerId,
    /// Enrolled, or demoted.
    pub enrolled: bool,
    /// Hears of it once it is durable.
    pub tell: Addr<Confirmation>,
    /// And so does this; `false`: nothing was changed, for as many are remembered as may be.
    pub reply: oneshot::Sender<Result<bool, EnrolmentError>>,
}

impl DatasetHandle {
    /// Enrols a peer or demotes it; durable when this resolves.
    ///
    /// # Errors
    /// [`EnrolmentError`].
    pub async fn set_enrolled(&self, peer: PeerId, enrolled: bool) -> Result<(), EnrolmentError> {
        // Not the rest: a view that is held keeps the store from being opened again.
        let (oplog, tell) = {
            let running = self.running().await?;
            (running.oplog, running.confirmation)
        };
        let (reply, done) = oneshot::channel();
        oplog.do_send(SetEnrolled { peer, enrolled, tell, reply });
        match tokio::time::timeout(WRITE_PATIENCE, done).await {
            Ok(Ok(Ok(true))) => Ok(()),
            Ok(Ok(Ok(false))) => Err(EnrolmentError::TooMany(self.dataset().clone())),
            Ok(Ok(Err(error))) => Err(error),
            Ok(Err(_)) | Err(_) => Err(EnrolmentError::Unknown(self.dataset().clone())),
        }
    }

    /// Who is enrolled and who was demoted; none while it does not run.
    pub async fn enrolments(&self) -> Option<Enrolments> {
        asked(self.running_now()?.confirmation).await
    }

    /// As [`DatasetHandle::enrolments`], and opens the dataset if it is idle.
    ///
    /// # Errors
    /// [`DatasetError::Unavailable`] if it does not run, or does not answer.
    pub async fn enrolments_once_open(&self) -> Result<Enrolments, DatasetError> {
        let confirmation = self.running().await?.confirmation;
        asked(confirmation).await.ok_or_else(|| DatasetError::Unavailable {
            dataset: self.dataset().clone(),
            state: DatasetState::Restarting,
            reason: NO_ANSWER.to_owned(),
            retry_after: STATUS_TIMEOUT,
        })
    }
}

async fn asked(confirmation: Addr<Confirmation>) -> Option<Enrolments> {
    let (reply, asked) = oneshot::channel();
    confirmation.do_send(AskEnrolments(reply));
    tokio::time::timeout(STATUS_TIMEOUT, asked).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_demoted_is_enrolled_by_hand_only() {
        let (one, two) = (PeerId([1; 32]), PeerId([2; 32]));
        let mut enrolments = Enrolments::default();
        enrolments.accepted(one);
        enrolments.accepted(two);
        enrolments.set(one, false);
        enrolments.accepted(one);
        assert_eq!((enrolments.enrolled.contains(&one), enrolments.demoted.contains(&one)), (false, true));
        assert_eq!(enrolments.len(), 2);
        enrolments.set(one, true);
        assert_eq!((enrolments.enrolled.len(), enrolments.demoted.len()), (2, 0));
    }
}
