//! Creating and deleting datasets while the node runs.
//!
//! A created dataset is defined in a file of the data directory before it is started, and runs again at each start until it is
//! deleted; the configuration wins where it names the same dataset. A deletion is decided by a file as well, before anything
//! goes: no crash leaves half of a dataset.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use anabranch_actors::api::{CreateError, DatasetError};
use anabranch_actors::node::{DisabledDataset, NodeHandle};
use anabranch_protocol::id::DatasetId;
use anabranch_protocol::wire::Kind;
use serde_json::Value as Json;

use crate::config::{CACHE_BYTES_MIN, Config, ConfigError, NewDataset};
use crate::process::definitions::Definitions;

/// Why a dataset was not created, or not deleted. Nothing was changed unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum HostingError {
    /// The request is malformed.
    #[error("{0}")]
    Malformed(#[from] ConfigError),
    /// The node runs only `primary`.
    #[error("`features.multi_dataset` is off: this node runs only `primary`")]
    OnlyPrimary,
    /// It could not be started.
    #[error("{0}")]
    Create(#[from] CreateError),
    /// Each dataset needs some of the cache.
    #[error("`cache_bytes` is {cache_bytes} and each dataset needs {CACHE_BYTES_MIN}: raise it, or delete a dataset first")]
    Cache { cache_bytes: u64 },
    /// What is named where no dataset is named can't go.
    #[error("`primary` can't be deleted: it is the dataset of requests and peers that name none")]
    PrimaryStays,
    /// No such dataset.
    #[error("{0}")]
    Dataset(#[from] DatasetError),
    /// A file could not be written. A deletion that was begun is finished at the next start.
    #[error("can't write in the data directory: {0}")]
    Io(#[from] io::Error),
}

/// See the module documentation. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Hosting {
    definitions: Definitions,
    /// Datasets that the configuration names.
    configured: Arc<BTreeSet<DatasetId>>,
    multi_dataset: bool,
    cache_bytes: u64,
    /// One creation or deletion at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Hosting {
    /// Finishes deletions that were begun, and adds the datasets that were created at run time to the configuration.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn start(definitions: Definitions, config: &mut Config) -> io::Result<Self> {
        let configured: BTreeSet<_> = config.datasets.keys().chain(config.disabled.keys()).cloned().collect();
        definitions.resume_deletions()?;
        for (dataset, definition) in definitions.all()? {
            if configured.contains(&dataset) {
                tracing::info!(%dataset, "the configuration names the dataset: what it was created with does not count");
                continue;
            }
            add(config, dataset, definition);
        }
        let removed = definitions.clone();
        // Large directories take a while, and nobody waits for them.
        std::thread::Builder::new().name("remove-deleted".to_owned()).spawn(move || removed.remove_deleted())?;
        Ok(Self {
            definitions,
            configured: Arc::new(configured),
            multi_dataset: config.multi_dataset,
            cache_bytes: config.cache_bytes,
            turn: Arc::default(),
        })
    }

    /// Creates a dataset from the body of `POST /v1/datasets`; it may still be opening when this returns.
    ///
    /// # Errors
    /// [`HostingError`]; nothing is left behind.
    pub async fn create(&self, node: &NodeHandle, body: Json) -> Result<DatasetId, HostingError> {
        let NewDataset { dataset, settings, definition } = NewDataset::judge(body)?;
        let _turn = self.turn.lock().await;
        if !self.multi_dataset && !dataset.is_primary() {
            return Err(HostingError::OnlyPrimary);
        }
        if node.kind(&dataset).is_some() {
            return Err(CreateError::Exists(dataset).into());
        }
        if CACHE_BYTES_MIN * (node.enabled().len() as u64 + 1) > self.cache_bytes {
            return Err(HostingError::Cache { cache_bytes: self.cache_bytes });
        }
        let (name, definitions) = (dataset.clone(), self.definitions.clone());
        blocking(move || {
            definitions.resume_deletions()?;
            definitions.write(&name, &definition)
        })
        .await?;
        if let Err(error) = node.create(dataset.clone(), settings).await {
            let (name, definitions) = (dataset.clone(), self.definitions.clone());
            blocking(move || definitions.remove(&name)).await?;
            return Err(error.into());
        }
        tracing::info!(%dataset, "created");
        Ok(dataset)
    }

    /// Deletes a dataset with all its files; whether the configuration names it, so that the next start begins it anew.
    ///
    /// # Errors
    /// [`HostingError`].
    pub async fn delete(&self, node: &NodeHandle, dataset: &DatasetId) -> Result<bool, HostingError> {
        if dataset.is_primary() {
            return Err(HostingError::PrimaryStays);
        }
        let _turn = self.turn.lock().await;
        if node.kind(dataset).is_none() {
            return Err(DatasetError::Unknown(dataset.clone()).into());
        }
        let (name, definitions) = (dataset.clone(), self.definitions.clone());
        blocking(move || definitions.begin_delete(&name)).await?;
        node.remove(dataset).await?;
        let (name, definitions) = (dataset.clone(), self.definitions.clone());
        blocking(move || definitions.finish_delete(&name)).await?;
        let removed = self.definitions.clone();
        drop(tokio::task::spawn_blocking(move || removed.remove_deleted()));
        let configured = self.configured.contains(dataset);
        tracing::info!(%dataset, configured, "deleted");
        Ok(configured)
    }
}

/// Adds a dataset that was created at run time.
fn add(config: &mut Config, dataset: DatasetId, definition: Result<Json, String>) {
    let judged = definition.and_then(|body| NewDataset::judge(body).map_err(|error| error.0));
    let disabled = |kind, reason: &str| DisabledDataset { kind, reason: reason.to_owned() };
    match judged {
        Ok(new) if config.multi_dataset => drop(config.datasets.insert(dataset, new.settings)),
        Ok(new) => drop(config.disabled.insert(dataset, disabled(new.settings.kind, crate::config::ONLY_PRIMARY))),
        Err(why) => {
            tracing::error!(%dataset, why, "a dataset that was created at run time can't be started");
            // Its kind is part of what can't be read.
            config.disabled.insert(dataset, disabled(Kind::Documents, &format!("its definition can't be used: {why}")));
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
