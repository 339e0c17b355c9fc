//! Collections of a dataset as the rest of the node sees them: registered, unregistered, and how far each is.

use std::collections::BTreeMap;

use anabranch_protocol::coverage::{Coverages, RegistrationRefusal, Scope, Standing};
use anabranch_protocol::id::Collection;
use tokio::sync::oneshot;

use super::DatasetHandle;
use super::handle::{WRITE_PATIENCE, ledger_status, standings};
use super::oplog::chores::Register;
use crate::api::{CollectionInfo, DatasetError, RegistrationError};

impl DatasetHandle {
    /// Registers a collection; whether it was not.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub async fn register(&self, collection: Collection) -> Result<bool, RegistrationError> {
        let registered = self.running().await?.view.registered().now().registration.contains(&collection);
        let beyond = !self.context.settings.collections_max.contains(&collection);
        if beyond && !registered && !collection.is_reserved() {
            return Err(RegistrationRefusal::BeyondMax(collection).into());
        }
        self.change(collection, true).await
    }

    /// Unregisters a collection; whether it was registered.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub async fn unregister(&self, collection: Collection) -> Result<bool, RegistrationError> {
        self.change(collection, false).await
    }

    async fn change(&self, collection: Collection, registered: bool) -> Result<bool, RegistrationError> {
        // Not the rest: a view that is held keeps the store from being opened again.
        let oplog = self.running().await?.oplog;
        let (reply, changed) = oneshot::channel();
        oplog.do_send(Register { collection, registered, reply });
        match tokio::time::timeout(WRITE_PATIENCE, changed).await {
            Ok(Ok(changed)) => Ok(changed?),
            Ok(Err(_)) | Err(_) => Err(RegistrationError::Unknown(self.dataset().clone())),
        }
    }

    /// Collections that are registered, were registered, or hold something.
    ///
    /// # Errors
    /// [`DatasetError`].
    pub async fn collections(&self) -> Result<Vec<CollectionInfo>, DatasetError> {
        let running = self.running().await?;
        let status = ledger_status(&running).await.ok_or_else(|| self.not_begun())?;
        let sourceless = standings(&running).await.unwrap_or_default().sourceless;
        let now = running.view.registered().now();
        let mut found: BTreeMap<Collection, u64> = status.tallies.into_iter().collect();
        // What nodes tell each other there is no collection of a user's.
        found.retain(|collection, _| !collection.is_reserved());
        for scope in now.coverages.scopes.keys() {
            if let Scope::One(collection) = scope {
                found.entry(collection.clone()).or_insert(0);
            }
        }
        let info = |(collection, documents): (Collection, u64)| {
            let coverage = now.coverages.standing(&collection);
            let scope = if now.registration.all { Scope::All } else { Scope::One(collection.clone()) };
            CollectionInfo {
                registered: now.registration.contains(&collection),
                documents,
                coverage,
                reason: reason(coverage, sourceless.get(&scope)),
                collection,
            }
        };
        Ok(found.into_iter().map(info).collect())
    }
}

/// Why a collection is not complete.
fn reason(coverage: Standing, sourceless: Option<&String>) -> Option<String> {
    match coverage {
        Standing::Complete => None,
        Standing::Importing { missing } => {
            let remaining = format!("{missing} commits remain to be pulled");
            Some(sourceless.map_or(remaining.clone(), |why| format!("{why}; {remaining}")))
        }
        Standing::Frozen => Some("it was unregistered: what was here stays, nothing of it leaves or enters".to_owned()),
        Standing::Absent => Some("it is not registered: what is written here stays here".to_owned()),
    }
}

/// What a dataset still imports, in words; nothing where all is complete.
pub(super) fn importing(coverages: &Coverages, sourceless: &BTreeMap<Scope, String>) -> Option<String> {
    let mut parts: Vec<String> = sourceless.values().cloned().collect();
    let scopes = coverages.importing().map(|(scope, missing)| format!("{scope} is imported, {missing} commits remain"));
    let before = parts.len();
    parts.extend(scopes);
    (parts.len() > before).then(|| parts.join("; "))
}
