//! The datasets of a node. They come and go while it runs, so whoever needs one asks here each time.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anabranch_protocol::id::DatasetId;
use anabranch_protocol::wire::Kind;

use crate::api::{DatasetError, DatasetInfo, DatasetState};
use crate::dataset::DatasetHandle;
use crate::dataset::counters::Counts;
use crate::dataset::supervisor::Running;

/// What callers of a disabled dataset are told to wait: only a restart of the node changes its configuration.
const DISABLED_RETRY: Duration = Duration::from_secs(60);

/// A dataset that this node knows and does not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisabledDataset {
    /// What it holds.
    pub kind: Kind,
    /// Why it does not run, in words.
    pub reason: String,
}

impl DisabledDataset {
    fn info(&self, dataset: &DatasetId) -> DatasetInfo {
        DatasetInfo {
            dataset: dataset.clone(),
            kind: self.kind,
            enabled: false,
            state: DatasetState::Paused,
            reason: Some(self.reason.clone()),
            restarts: 0,
            contents: None,
            counts: Counts::default(),
            set_aside: Vec::new(),
        }
    }
}

/// See the module documentation. Cheap to clone; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Datasets(Arc<RwLock<Hosted>>);

#[derive(Debug, Default)]
struct Hosted {
    enabled: BTreeMap<DatasetId, Arc<DatasetHandle>>,
    disabled: BTreeMap<DatasetId, DisabledDataset>,
}

impl Datasets {
    pub fn new(disabled: BTreeMap<DatasetId, DisabledDataset>) -> Self {
        Self(Arc::new(RwLock::new(Hosted { enabled: BTreeMap::new(), disabled })))
    }

    fn read<T>(&self, look: impl FnOnce(&Hosted) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Hosted) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// One that is meant to run.
    pub fn get(&self, dataset: &DatasetId) -> Option<Arc<DatasetHandle>> {
        self.read(|hosted| hosted.enabled.get(dataset).cloned())
    }

    /// One that is meant to run, or why there is none.
    pub fn find(&self, dataset: &DatasetId) -> Result<Arc<DatasetHandle>, DatasetError> {
        let disabled = |disabled: &DisabledDataset| DatasetError::Unavailable {
            dataset: dataset.clone(),
            state: DatasetState::Paused,
            reason: disabled.reason.clone(),
            retry_after: DISABLED_RETRY,
        };
        self.read(|hosted| match (hosted.enabled.get(dataset), hosted.disabled.get(dataset)) {
            (Some(handle), _) => Ok(handle.clone()),
            (None, Some(known)) => Err(disabled(known)),
            (None, None) => Err(DatasetError::Unknown(dataset.clone())),
        })
    }

    /// The children of one, if it runs now; opens nothing.
    pub fn running_now(&self, dataset: &DatasetId) -> Option<Running> {
        self.get(dataset)?.running_now()
    }

    /// Why there is none, as a peer is told.
    pub fn absence(&self, dataset: &DatasetId) -> Option<String> {
        match self.find(dataset) {
            Ok(_) => None,
            Err(DatasetError::Unknown(_)) => Some(format!("no dataset {dataset} on this node")),
            Err(_) => Some(format!("dataset {dataset} is disabled on this node")),
        }
    }

    /// What one holds, whether it is meant to run or not.
    pub fn kind(&self, dataset: &DatasetId) -> Option<Kind> {
        self.read(|hosted| {
            let enabled = hosted.enabled.get(dataset).map(|handle| handle.kind());
            enabled.or_else(|| hosted.disabled.get(dataset).map(|known| known.kind))
        })
    }

    /// All that are meant to run.
    pub fn all(&self) -> Vec<Arc<DatasetHandle>> {
        self.read(|hosted| hosted.enabled.values().cloned().collect())
    }

    /// The names of all that are meant to run.
    pub fn names(&self) -> Vec<DatasetId> {
        self.read(|hosted| hosted.enabled.keys().cloned().collect())
    }

    /// The disabled ones, as status pages show them.
    pub fn disabled(&self) -> Vec<DatasetInfo> {
        self.read(|hosted| hosted.disabled.iter().map(|(dataset, known)| known.info(dataset)).collect())
    }

    /// One of the disabled ones, as status pages show it.
    pub fn disabled_info(&self, dataset: &DatasetId) -> Option<DatasetInfo> {
        self.read(|hosted| hosted.disabled.get(dataset).map(|known| known.info(dataset)))
    }

    /// How many there are, disabled ones too.
    pub fn count(&self) -> usize {
        self.read(|hosted| hosted.enabled.len() + hosted.disabled.len())
    }

    pub fn insert(&self, handle: DatasetHandle) {
        self.change(|hosted| hosted.enabled.insert(handle.dataset().clone(), Arc::new(handle)));
    }

    /// Takes one out, disabled or not: from now on it is unknown here. What has to be stopped is returned.
    pub fn remove(&self, dataset: &DatasetId) -> Option<Arc<DatasetHandle>> {
        self.change(|hosted| {
            hosted.disabled.remove(dataset);
            hosted.enabled.remove(dataset)
        })
    }
}
