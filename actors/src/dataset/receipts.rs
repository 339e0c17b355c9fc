//! Waits: until a write is durable elsewhere, or has arrived here.

use std::time::Duration;

use actix::Addr;
use anabranch_protocol::id::Collection;
use anabranch_protocol::token::Token;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::DatasetHandle;
use super::confirmation::{AskConfirmed, AwaitConfirmed, Confirmation};
use super::supervisor::Running;
use crate::api::{Ack, AfterError, Confirmed};

/// How long who has a write is asked for once the wait is over.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

impl DatasetHandle {
    /// Waits until a write is durable elsewhere, at most `patience`. The write stands whatever comes of it.
    pub async fn confirmed(&self, token: Token, collections: Vec<Collection>, ack: Ack, patience: Duration) -> Confirmed {
        let deadline = Instant::now() + patience;
        // Not the rest: a view that is held keeps the store from being opened again.
        while let Ok(Ok(Running { confirmation, .. })) = timeout_at(deadline, self.running()).await {
            let (reply, confirmed) = oneshot::channel();
            let wait = AwaitConfirmed { token, collections: collections.clone(), ack, reply };
            confirmation.do_send(wait);
            match timeout_at(deadline, confirmed).await {
                Ok(Ok(by)) => return Confirmed { by, enough: true },
                Err(_) => return Confirmed { by: ask(&confirmation, token, collections).await, enough: false },
                // The dataset went down meanwhile, or too many wait: asked again, without haste.
                Ok(Err(_)) => tokio::time::sleep(RETRY).await,
            }
        }
        Confirmed { by: Vec::new(), enough: false }
    }

    /// Waits until a write of any node to `collection` has arrived here, at most `patience`.
    ///
    /// # Errors
    /// [`AfterError`]; nothing was read.
    pub async fn arrived(&self, collection: &Collection, token: Token, patience: Duration) -> Result<(), AfterError> {
        let deadline = Instant::now() + patience;
        let mut have = 0;
        loop {
            // As above.
            let Running { view, mut vector, .. } = self.running().await?;
            let registered = view.registered().now();
            drop(view);
            if !registered.registration.contains(collection) {
                return Err(AfterError::NotRegistered(collection.clone()));
            }
            let there = timeout_at(deadline, vector.wait_for(|vector| vector.seq(&token.writer) >= token.seq)).await;
            // What was waited for locks the oplog out as long as it is looked at.
            match there.map(|seen| seen.is_ok()) {
                // The commit is here, but its section of this collection may not be yet.
                Ok(true) if registered.is_importing(collection) => {
                    if Instant::now() >= deadline {
                        return Err(AfterError::Importing(collection.clone()));
                    }
                    tokio::time::sleep(RETRY).await;
                }
                Ok(true) => break,
                Ok(false) if Instant::now() < deadline => tokio::time::sleep(RETRY).await,
                Ok(false) => return Err(AfterError::Late { have, want: token.seq, waited: patience }),
                Err(_) => {
                    have = have.max(vector.borrow().seq(&token.writer));
                    return Err(AfterError::Late { have, want: token.seq, waited: patience });
                }
            }
        }
        let hash = self.read(move |view| view.token_hash(&token.writer, token.seq)).await?;
        // Where the commit is no more, pruned say, its number has to do.
        if hash.is_none_or(|hash| hash == token.hash) { Ok(()) } else { Err(AfterError::OtherHistory) }
    }
}

/// Between two tries while the dataset is rebuilt.
const RETRY: Duration = Duration::from_millis(50);

async fn ask(
    confirmation: &Addr<Confirmation>,
    token: Token,
    collections: Vec<Collection>,
) -> Vec<anabranch_protocol::id::PeerId> {
    let (reply, confirmed) = oneshot::channel();
    confirmation.do_send(AskConfirmed { token, collections, reply });
    tokio::time::timeout(ASK_TIMEOUT, confirmed).await.ok().and_then(Result::ok).unwrap_or_default()
}
