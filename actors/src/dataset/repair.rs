//! `repair clock`: commits of this node that peers hold back, because its clock was far ahead, are issued again with sane stamps.
//!
//! What may be taken back is a rule ([`anabranch_protocol::clock_repair`]); the children are asked what it needs, then the supervisor
//! has the store written anew.

use std::time::Duration;

use anabranch_protocol::clock_repair::{AheadOfWall, Heard, may_take_back};
use anabranch_protocol::vector::VersionVector;
use tokio::sync::oneshot;

use super::DatasetHandle;
use super::clock::AskHeard;
use super::confirmation::AskStated;
use super::handle::STATUS_TIMEOUT;
use super::oplog::chores::AskAhead;
use super::supervisor::{CLOSE_TIMEOUT, RepairClock, Running};
use crate::api::{DatasetError, DatasetState, RepairError, Repaired};

/// How long a small store may take to be written anew.
const REPAIR_LIMIT: Duration = Duration::from_secs(120);
/// Bytes on disk that may take one more second.
const BYTES_PER_SECOND: u64 = 1 << 20;

impl DatasetHandle {
    /// Issues the commits of this node whose stamps lie too far ahead of its wall clock again, with sane ones; resolves once the dataset
    /// runs again. Nothing was done where there are none.
    ///
    /// # Errors
    /// [`RepairError`].
    pub async fn repair_clock(&self) -> Result<Repaired, RepairError> {
        let running = self.running().await?;
        if running.full {
            return Err(RepairError::Failed { dataset: self.dataset().clone(), reason: "no space left on the disk".to_owned() });
        }
        let (ahead, heard) = self.evidence(&running).await?;
        may_take_back(&ahead, &heard).map_err(|refusal| RepairError::Refused(self.dataset().clone(), refusal))?;
        if !ahead.clock {
            return Ok(Repaired::default());
        }
        let limit = REPAIR_LIMIT + Duration::from_secs(running.view.size_bytes() / BYTES_PER_SECOND);
        // Held on to, it would keep the store from being closed.
        drop(running);
        let failed = |reason: &str| RepairError::Failed { dataset: self.dataset().clone(), reason: reason.to_owned() };
        let (reply, repaired) = oneshot::channel();
        self.supervisor().do_send(RepairClock { now: self.context.node.clock.now(), limit, reply });
        let repaired = match tokio::time::timeout(limit + 2 * CLOSE_TIMEOUT, repaired).await {
            Ok(Ok(repaired)) => repaired.map_err(|reason| failed(&reason))?,
            Ok(Err(_)) => return Err(failed("it went down before anything was done")),
            Err(_) => return Err(failed("it did not answer in time; look at the dataset again")),
        };
        // Whether it runs its status says.
        let _ = self.running().await;
        Ok(repaired)
    }

    async fn evidence(&self, running: &Running) -> Result<(AheadOfWall, Heard), DatasetError> {
        let (ahead, asked) = oneshot::channel();
        running.oplog.do_send(AskAhead(ahead));
        let ahead = self.told(asked).await?;
        let (heard, asked) = oneshot::channel();
        running.clock.do_send(AskHeard(heard));
        let mut heard = self.told(asked).await?;
        let (stated, asked) = oneshot::channel();
        running.confirmation.do_send(AskStated(stated));
        let (stated, enrolled) = self.told(asked).await?;
        heard.enrolled = enrolled;
        for (peer, vector) in stated {
            heard.has.entry(peer).or_insert_with(VersionVector::new).join(&vector);
        }
        Ok((ahead, heard))
    }

    async fn told<T>(&self, asked: oneshot::Receiver<T>) -> Result<T, DatasetError> {
        let busy = || DatasetError::Unavailable {
            dataset: self.dataset().clone(),
            state: DatasetState::Running,
            reason: "it is busy and did not answer in time; nothing was changed".to_owned(),
            retry_after: Duration::from_secs(1),
        };
        tokio::time::timeout(STATUS_TIMEOUT, asked).await.map_err(|_| busy())?.map_err(|_| self.not_begun())
    }
}
