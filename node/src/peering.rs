//! What an operator may do about peers while the node runs: enrol, demote, disable, remove.
//!
//! | | `ack=all` waits for it | it is talked to |
//! |---|---|---|
//! | enrolled | yes | yes |
//! | demoted, in one dataset or all | no | yes |
//! | disabled | as before | no, until it is enrolled again; it is told so |
//! | removed | no | it is disconnected and not dialed any more; it may come back by itself |
//!
//! Who is enrolled is part of each dataset. Who is disabled is a file of the data directory, a peer id a line; a node that can't
//! read it does not start, for it would let in whom it should not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anabranch_actors::api::{DatasetError, EnrolmentError, Enrolments};
use anabranch_actors::node::NodeHandle;
use anabranch_protocol::id::{DatasetId, PeerId};
use tokio::sync::OwnedMutexGuard;

use crate::network::Network;
use crate::process::Failure;
use crate::process::data_dir::write_whole;
use crate::swarm::SwarmError;

const FILE: &str = "disabled-peers";
/// First line of the file.
const VERSION: &str = "anabranch disabled peers 1";
/// Peers that may be disabled; more are for `[access]`.
const DISABLED_MAX: usize = 4_096;

/// Why nothing was done, or not all.
#[derive(Debug, thiserror::Error)]
pub enum PeeringError {
    /// Who is meant is this node.
    #[error("that is this node's own peer id")]
    Myself,
    /// Nothing is known of the peer.
    #[error("no peer {0} is known to this node: `anabranch peers` shows who is")]
    Unknown(PeerId),
    /// No such dataset.
    #[error("{0}")]
    Dataset(DatasetError),
    /// Too many are disabled.
    #[error("{DISABLED_MAX} peers are disabled already: use `access.allow` or a network key instead")]
    TooMany,
    /// The file could not be written: until the next start nothing changes; what holds then is not known.
    #[error("can't write who is disabled in the data directory ({0}): nothing is changed until the next start; say it again")]
    Io(#[from] io::Error),
    /// Some datasets could not be told; the others were.
    #[error("not done in every dataset: {}; say it again once they run", in_words(.failed, .network.as_ref()))]
    Partly {
        /// Why not, there.
        failed: BTreeMap<DatasetId, EnrolmentError>,
        /// Where the network failed as well.
        network: Option<SwarmError>,
    },
    /// The network did not take the order, or may forget it.
    #[error("{0}: say it again")]
    Network(SwarmError),
}

fn in_words(failed: &BTreeMap<DatasetId, EnrolmentError>, network: Option<&SwarmError>) -> String {
    let failed = failed.values().map(ToString::to_string).chain(network.map(ToString::to_string));
    failed.collect::<Vec<_>>().join("; ")
}

/// See the module documentation. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Peering {
    file: Arc<PathBuf>,
    disabled: Arc<RwLock<BTreeSet<PeerId>>>,
    /// One change of who is disabled at a time. Not held while a dataset is waited for: one that is stuck must not keep a peer from
    /// being disabled.
    turn: Arc<tokio::sync::Mutex<Turn>>,
}

#[derive(Debug)]
struct Turn {
    /// The last change came to its end: file, memory and network are alike. A write that failed may have replaced the file all the
    /// same, or have left it so that a crash takes it back: then the next order does everything, whatever it finds in memory.
    settled: bool,
    /// Of whom the network was not told yet what the file says: nobody waited for an order about them to its end.
    untold: BTreeSet<PeerId>,
}

impl Peering {
    /// Reads who is disabled.
    ///
    /// # Errors
    /// [`Failure::Other`] if that can't be read.
    pub fn start(data_dir: &Path) -> Result<Self, Failure> {
        let file = data_dir.join(FILE);
        let disabled = match std::fs::read_to_string(&file) {
            Ok(text) => parse(&text).map_err(|why| Failure::Other(format!("{}: {why}: mend it", file.display())))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(Failure::other(format!("can't read who is disabled, {}", file.display()), error)),
        };
        let turn = tokio::sync::Mutex::new(Turn { settled: true, untold: BTreeSet::new() });
        Ok(Self { file: Arc::new(file), disabled: Arc::new(RwLock::new(disabled)), turn: Arc::new(turn) })
    }

    /// Who is disabled now.
    #[must_use]
    pub fn disabled(&self) -> BTreeSet<PeerId> {
        self.disabled.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets a peer in again that was disabled, and enrols it: in one dataset, or again wherever it was demoted.
    ///
    /// # Errors
    /// [`PeeringError`].
    pub async fn enrol(
        &self,
        node: &NodeHandle,
        network: &dyn Network,
        peer: PeerId,
        dataset: Option<DatasetId>,
    ) -> Result<(), PeeringError> {
        check(node, peer, dataset.as_ref())?;
        let let_in = self.set_disabled(network, peer, false).await?;
        if let Some(dataset) = dataset {
            return outcome(set_enrolled(node, peer, vec![dataset], true).await);
        }
        let asked = Asked::all(node).await;
        if !let_in {
            self.check_known(node, network, peer, &asked).await?;
        }
        let demoted = asked.enrolments.into_iter().filter(|(_, enrolments)| enrolments.demoted.contains(&peer));
        let mut failed = set_enrolled(node, peer, demoted.map(|(dataset, _)| dataset).collect(), true).await;
        // Where it can't be seen whether the peer is demoted, it may be.
        failed.extend(asked.silent);
        outcome(failed)
    }

    /// `ack=all` does not wait for a peer any more: in one dataset, or in all.
    ///
    /// # Errors
    /// [`PeeringError`].
    pub async fn demote(
        &self,
        node: &NodeHandle,
        network: &dyn Network,
        peer: PeerId,
        dataset: Option<DatasetId>,
    ) -> Result<(), PeeringError> {
        check(node, peer, dataset.as_ref())?;
        if dataset.is_none() {
            self.check_known(node, network, peer, &Asked::all(node).await).await?;
        }
        let datasets = dataset.map_or_else(|| node.enabled(), |dataset| vec![dataset]);
        outcome(set_enrolled(node, peer, datasets, false).await)
    }

    /// Refuses to talk to a peer until it is enrolled again. It need not be known yet.
    ///
    /// # Errors
    /// [`PeeringError`].
    pub async fn disable(&self, node: &NodeHandle, network: &dyn Network, peer: PeerId) -> Result<(), PeeringError> {
        check(node, peer, None)?;
        self.set_disabled(network, peer, true).await?;
        Ok(())
    }

    /// Demotes a peer everywhere, disconnects it and forgets where it is.
    ///
    /// # Errors
    /// [`PeeringError`].
    pub async fn remove(&self, node: &NodeHandle, network: &dyn Network, peer: PeerId) -> Result<(), PeeringError> {
        check(node, peer, None)?;
        self.check_known(node, network, peer, &Asked::all(node).await).await?;
        let failed = set_enrolled(node, peer, node.enabled(), false).await;
        // First those who show it, or they would learn of the end of its connection before they are to forget it.
        node.forget_peer(peer).await;
        match network.forget(peer).await {
            Ok(()) => outcome(failed),
            Err(error) if failed.is_empty() => Err(PeeringError::Network(error)),
            Err(error) => Err(PeeringError::Partly { failed, network: Some(error) }),
        }
    }

    /// A slip in an id must neither leave marks in every dataset nor look as if something had been done.
    async fn check_known(
        &self,
        node: &NodeHandle,
        network: &dyn Network,
        peer: PeerId,
        asked: &Asked,
    ) -> Result<(), PeeringError> {
        let known = network.peers().contains_key(&peer)
            || self.disabled().contains(&peer)
            || asked.enrolments.values().any(|enrolments| enrolments.knows(&peer))
            || node.peers().await.iter().any(|info| info.peer == peer);
        match known {
            true => Ok(()),
            false if asked.silent.is_empty() => Err(PeeringError::Unknown(peer)),
            // One of those may know it.
            false => Err(PeeringError::Partly { failed: asked.silent.clone(), network: None }),
        }
    }

    /// Durable when this resolves, and the network knows; whether it was different.
    async fn set_disabled(&self, network: &dyn Network, peer: PeerId, disabled: bool) -> Result<bool, PeeringError> {
        let mut turn = self.turn.clone().lock_owned().await;
        let mut peers = self.disabled();
        let changed = if disabled { peers.insert(peer) } else { peers.remove(&peer) };
        if !changed && turn.settled {
            return Ok(false);
        }
        if disabled && peers.len() > DISABLED_MAX {
            return Err(PeeringError::TooMany);
        }
        turn.untold.insert(peer);
        let this = self.clone();
        let written = tokio::task::spawn_blocking(move || this.write(turn, peers)).await;
        let mut turn = written.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        let now = self.disabled();
        std::mem::take(&mut turn.untold).into_iter().for_each(|peer| network.set_disabled(peer, now.contains(&peer)));
        turn.settled = true;
        Ok(changed)
    }

    /// Goes to its end also where nobody waits for it any more: the file is not replaced without memory, nor by two at once.
    fn write(&self, mut turn: OwnedMutexGuard<Turn>, peers: BTreeSet<PeerId>) -> io::Result<OwnedMutexGuard<Turn>> {
        turn.settled = false;
        write_whole(&self.file, page(&peers).as_bytes())?;
        *self.disabled.write().unwrap_or_else(PoisonError::into_inner) = peers;
        Ok(turn)
    }
}

/// Whether the order means another peer, and a dataset of this node.
fn check(node: &NodeHandle, peer: PeerId, dataset: Option<&DatasetId>) -> Result<(), PeeringError> {
    if peer == node.peer_id() {
        return Err(PeeringError::Myself);
    }
    match dataset.filter(|dataset| node.kind(dataset).is_none()) {
        Some(dataset) => Err(PeeringError::Dataset(DatasetError::Unknown(dataset.clone()))),
        None => Ok(()),
    }
}

/// Who is enrolled where, as far as datasets tell.
struct Asked {
    enrolments: BTreeMap<DatasetId, Enrolments>,
    /// Why the others don't tell.
    silent: BTreeMap<DatasetId, EnrolmentError>,
}

impl Asked {
    async fn all(node: &NodeHandle) -> Self {
        let ask = |dataset: DatasetId| async move {
            let answer = node.enrolments_in(&dataset).await;
            (dataset, answer)
        };
        let (mut enrolments, mut silent) = (BTreeMap::new(), BTreeMap::new());
        for (dataset, answer) in futures::future::join_all(node.enabled().into_iter().map(ask)).await {
            match answer {
                Ok(of) => drop(enrolments.insert(dataset, of)),
                // Deleted meanwhile.
                Err(DatasetError::Unknown(_)) => {}
                Err(error) => drop(silent.insert(dataset, error.into())),
            }
        }
        Self { enrolments, silent }
    }
}

/// Why not, for each dataset in which it was not done.
async fn set_enrolled(
    node: &NodeHandle,
    peer: PeerId,
    datasets: Vec<DatasetId>,
    enrolled: bool,
) -> BTreeMap<DatasetId, EnrolmentError> {
    let asked = datasets.into_iter().map(|dataset| async move {
        let failed = node.set_enrolled(&dataset, peer, enrolled).await.err()?;
        Some((dataset, failed))
    });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

fn outcome(failed: BTreeMap<DatasetId, EnrolmentError>) -> Result<(), PeeringError> {
    if failed.is_empty() { Ok(()) } else { Err(PeeringError::Partly { failed, network: None }) }
}

fn page(peers: &BTreeSet<PeerId>) -> String {
    let lines: Vec<_> = std::iter::once(VERSION.to_owned()).chain(peers.iter().map(ToString::to_string)).collect();
    lines.join("\n") + "\n"
}

fn parse(text: &str) -> Result<BTreeSet<PeerId>, String> {
    let mut lines = text.lines();
    if lines.next() != Some(VERSION) {
        return Err(format!("it does not begin with `{VERSION}`"));
    }
    lines.map(|line| line.parse().map_err(|error| format!("{error}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Isolated;

    /// What a network was told of whom last.
    #[derive(Debug, Default)]
    struct Told(std::sync::Mutex<BTreeMap<PeerId, bool>>);

    impl Network for Told {
        fn transport(&self) -> anabranch_actors::transport::SharedTransport {
            Isolated.transport()
        }
        fn listen_addresses(&self) -> Vec<String> {
            Vec::new()
        }
        fn dial(&self, address: &libp2p::Multiaddr) -> Result<(), String> {
            Isolated.dial(address)
        }
        fn peers(&self) -> BTreeMap<PeerId, Vec<String>> {
            BTreeMap::new()
        }
        fn forget(&self, peer: PeerId) -> futures::future::BoxFuture<'static, Result<(), crate::swarm::SwarmError>> {
            Isolated.forget(peer)
        }
        fn set_disabled(&self, peer: PeerId, disabled: bool) {
            self.0.lock().unwrap().insert(peer, disabled);
        }
        fn shutdown(&self) -> futures::future::BoxFuture<'static, ()> {
            Isolated.shutdown()
        }
    }

    fn on_disk(dir: &Path) -> BTreeSet<PeerId> {
        Peering::start(dir).unwrap().disabled()
    }

    /// A write that fails may have replaced the file before it failed; the next order must not trust memory then.
    #[tokio::test]
    async fn after_a_write_that_failed_the_next_order_writes_whatever_memory_says() {
        let place = tempfile::tempdir().unwrap();
        let (dir, away) = (place.path().join("data"), place.path().join("away"));
        std::fs::create_dir(&dir).unwrap();
        let peering = Peering::start(&dir).unwrap();
        let peer = PeerId([1; 32]);
        std::fs::rename(&dir, &away).unwrap();
        let failed = peering.set_disabled(&Isolated, peer, true).await;
        assert!(matches!(failed, Err(PeeringError::Io(_))) && peering.disabled().is_empty(), "{failed:?}");
        std::fs::rename(&away, &dir).unwrap();
        // As if the rename had been done and the sync of the directory had failed.
        std::fs::write(dir.join(FILE), page(&BTreeSet::from([peer]))).unwrap();
        assert_eq!(on_disk(&dir), BTreeSet::from([peer]));
        peering.set_disabled(&Isolated, peer, false).await.unwrap();
        assert_eq!(on_disk(&dir), BTreeSet::new(), "it would be disabled again after a restart");
    }

    /// A client that goes away takes its order's future along.
    #[tokio::test]
    async fn an_order_that_nobody_waits_for_leaves_memory_file_and_network_alike() {
        let dir = tempfile::tempdir().unwrap();
        let (peering, network) = (Peering::start(dir.path()).unwrap(), Told::default());
        for round in 0..20 {
            let (peer, other) = (PeerId([1; 32]), PeerId([2; 32]));
            // Polled once, so the write is under way, and dropped.
            let _ = futures::FutureExt::now_or_never(peering.set_disabled(&network, peer, round % 2 == 0));
            // Comes after it.
            peering.set_disabled(&network, other, round % 2 == 0).await.unwrap();
            assert_eq!(*network.0.lock().unwrap(), BTreeMap::from([peer, other].map(|peer| (peer, round % 2 == 0))));
            assert_eq!(peering.disabled(), on_disk(dir.path()));
            assert_eq!(peering.disabled().len(), if round % 2 == 0 { 2 } else { 0 });
        }
    }

    #[tokio::test]
    async fn a_peer_is_let_in_again_however_many_are_disabled() {
        let dir = tempfile::tempdir().unwrap();
        let peer = |n: usize| PeerId(std::array::from_fn(|at| n.to_be_bytes().get(at).copied().unwrap_or_default()));
        let too_many: BTreeSet<_> = (0..DISABLED_MAX + 2).map(peer).collect();
        std::fs::write(dir.path().join(FILE), page(&too_many)).unwrap();
        let peering = Peering::start(dir.path()).unwrap();
        assert!(peering.set_disabled(&Isolated, peer(0), false).await.unwrap());
        assert!(matches!(peering.set_disabled(&Isolated, peer(0), true).await, Err(PeeringError::TooMany)));
        assert_eq!(on_disk(dir.path()).len(), DISABLED_MAX + 1);
    }

    #[test]
    fn who_is_disabled_is_read_as_it_was_written_and_damage_stops_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let disabled = |dir: &Path| Peering::start(dir).map(|peering| peering.disabled()).map_err(|failure| failure.to_string());
        assert_eq!(disabled(dir.path()), Ok(BTreeSet::new()));
        let peers = BTreeSet::from([PeerId([1; 32]), PeerId([2; 32])]);
        std::fs::write(dir.path().join(FILE), page(&peers)).unwrap();
        assert_eq!(disabled(dir.path()), Ok(peers));
        for damaged in ["", "anabranch disabled peers 2\n", &format!("{VERSION}\nbob\n")] {
            std::fs::write(dir.path().join(FILE), damaged).unwrap();
            assert!(disabled(dir.path()).unwrap_err().contains("mend it"));
        }
    }
}
