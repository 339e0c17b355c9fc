//! What an operator may do to a dataset while the node runs.

use anabranch_protocol::id::DatasetId;

use super::NodeHandle;
use crate::api::{DatasetError, DropAsideError, Order, RepairError, Repaired, SetAside};

impl NodeHandle {
    /// Restarts, pauses or resumes a dataset; resolves once callers see it.
    ///
    /// # Errors
    /// [`DatasetError::Unknown`].
    pub async fn order(&self, dataset: &DatasetId, order: Order) -> Result<(), DatasetError> {
        self.actors(dataset)?.order(order).await;
        Ok(())
    }

    /// Issues a dataset's commits of this node whose stamps lie too far ahead of its clock again, with sane ones.
    ///
    /// # Errors
    /// [`RepairError`].
    pub async fn repair_clock(&self, dataset: &DatasetId) -> Result<Repaired, RepairError> {
        self.actors(dataset)?.repair_clock().await
    }

    /// Damaged stores of a dataset that were set aside.
    ///
    /// # Errors
    /// [`DatasetError::Unknown`].
    pub fn set_aside(&self, dataset: &DatasetId) -> Result<Vec<SetAside>, DatasetError> {
        Ok(self.actors(dataset)?.set_aside())
    }

    /// Deletes for ever what was set aside under a name.
    ///
    /// # Errors
    /// [`DatasetError::Unknown`]; inside, why it could not be deleted.
    pub async fn drop_aside(&self, dataset: &DatasetId, name: String) -> Result<Result<(), DropAsideError>, DatasetError> {
        Ok(self.actors(dataset)?.drop_aside(name).await)
    }
}
