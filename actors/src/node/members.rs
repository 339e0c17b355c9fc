//! What an operator may do about peers while the node runs.

use std::collections::BTreeMap;

use actix::prelude::*;
use anabranch_protocol::id::{DatasetId, PeerId};

use super::NodeHandle;
use super::router::Node;
use crate::api::{DatasetError, EnrolmentError, Enrolments};

/// Forgets a peer: at once if it is not connected, else when its connection ends.
#[derive(Message)]
#[rtype(result = "()")]
struct Forget(PeerId);

impl NodeHandle {
    /// Enrols a peer in a dataset, or demotes it: `ack=all` waits for it, or no more. Durable when this resolves.
    ///
    /// # Errors
    /// [`EnrolmentError`].
    pub async fn set_enrolled(&self, dataset: &DatasetId, peer: PeerId, enrolled: bool) -> Result<(), EnrolmentError> {
        self.datasets.find(dataset)?.set_enrolled(peer, enrolled).await
    }

    /// Who is enrolled in each dataset that runs, and who was demoted.
    pub async fn enrolments(&self) -> BTreeMap<DatasetId, Enrolments> {
        let handles = self.datasets.all();
        let asked = handles.iter().map(|handle| async { Some((handle.dataset().clone(), handle.enrolments().await?)) });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Who is enrolled in a dataset, and who was demoted; opens it if it is idle.
    ///
    /// # Errors
    /// [`DatasetError`] if it does not run.
    pub async fn enrolments_in(&self, dataset: &DatasetId) -> Result<Enrolments, DatasetError> {
        self.datasets.find(dataset)?.enrolments_once_open().await
    }

    /// Does not show a peer any more, until it connects again.
    pub async fn forget_peer(&self, peer: PeerId) {
        // A node that stopped shows nobody.
        let _ = self.node.send(Forget(peer)).await;
    }
}

impl Handler<Forget> for Node {
    type Result = ();
    fn handle(&mut self, Forget(peer): Forget, _: &mut Context<Self>) {
        match self.peers.get_mut(&peer) {
            Some(session) if session.connected => session.forget_when_gone = true,
            _ => drop(self.peers.remove(&peer)),
        }
    }
}
