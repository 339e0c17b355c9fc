//! What datasets last answered, for scrapes that find them busy.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use anabranch_actors::api::{DatasetContents, DatasetState, PeerInfo, Peers};
use anabranch_protocol::id::DatasetId;

use crate::seen::Seen;

/// See the module documentation. It holds nothing of datasets that are gone.
#[derive(Debug, Default)]
pub struct Last(Mutex<Answers>);

#[derive(Debug, Default)]
struct Answers {
    contents: BTreeMap<DatasetId, DatasetContents>,
    peers: BTreeMap<DatasetId, Peers>,
    heard: Option<Vec<PeerInfo>>,
}

impl Last {
    /// Keeps what was answered, and fills in what was not; which datasets told what they hold is returned.
    pub fn fill_in(&self, seen: &mut Seen) -> BTreeSet<DatasetId> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = Answers { heard: seen.peers.clone().or_else(|| last.heard.take()), ..Answers::default() };
        seen.peers.clone_from(&kept.heard);
        let mut answered = BTreeSet::new();
        for sample in &mut seen.datasets {
            let dataset = &sample.info.dataset;
            if sample.info.contents.is_some() {
                answered.insert(dataset.clone());
            } else {
                sample.info.contents = last.contents.remove(dataset);
            }
            // One that is down has no peers, whatever it had.
            let runs = matches!(sample.info.state, DatasetState::Running | DatasetState::Importing);
            if sample.peers.is_none() && runs {
                sample.peers = last.peers.remove(dataset);
            }
            kept.contents.extend(sample.info.contents.clone().map(|contents| (dataset.clone(), contents)));
            kept.peers.extend(sample.peers.clone().map(|peers| (dataset.clone(), peers)));
        }
        *last = kept;
        answered
    }
}
