//! A dataset of one node. The files are those of the shipped actors, which they mirror rule by rule: `turns` the oplog, `sync`, `push`
//! and `pull` the sync actor, `statements` confirmation, `announce` the clock. Left out is what needs a fault: damaged or held
//! commits, forks, partial registrations, failing disks, stalled pulls.

mod announce;
mod pull;
mod push;
mod session;
mod statements;
mod store;
mod sync;
mod turns;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use anabranch_protocol::access::Peers;
use anabranch_protocol::id::{DatasetId, Incarnation, ShortHash, WriterId};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::replica::{Replica, ReplicaSettings, Saved};
use anabranch_protocol::vector::VersionVector;
use anabranch_protocol::wire::Kind;

use self::announce::Announcing;
use self::session::Session;
use self::statements::Confirming;
use self::store::Store;
use self::turns::Turns;
use super::message::Frame;
use super::outside::Roster;

/// See the module documentation.
pub(super) struct Dataset {
    index: usize,
    me: u32,
    id: DatasetId,
    kind: Kind,
    replica: Replica,
    store: Store,
    turns: Turns,
    /// As it was told last.
    vector: Rc<VersionVector>,
    digest: ShortHash,
    sessions: BTreeMap<u32, Session>,
    sessions_opened: u32,
    claims: BTreeMap<WriterId, u32>,
    pulled_last: Option<u32>,
    recent: VecDeque<Rc<Frame>>,
    recent_bytes: usize,
    pages_being_read: usize,
    announcing: Announcing,
    confirming: Confirming,
}

impl Dataset {
    pub fn new(index: usize, me: u32, incarnation: Incarnation, roster: &Roster) -> Self {
        let (id, kind) = roster.datasets[index].clone();
        let settings = ReplicaSettings {
            dataset: id.clone(),
            lineage: super::outside::LINEAGE,
            kind,
            identity: roster.identities[me as usize].clone(),
            registration: Registration::all(),
            max_clock_skew: Duration::from_secs(5 * 60),
            writers: Peers::All,
        };
        let vector = Rc::new(VersionVector::new());
        Self {
            index,
            me,
            id,
            kind,
            replica: Replica::load(settings, Saved::default()),
            store: Store::default(),
            turns: Turns::default(),
            digest: vector.digest(),
            announcing: Announcing::new(vector.clone()),
            vector,
            sessions: BTreeMap::new(),
            sessions_opened: 0,
            claims: BTreeMap::new(),
            pulled_last: None,
            recent: VecDeque::new(),
            recent_bytes: 0,
            pages_being_read: 0,
            confirming: Confirming::new(incarnation),
        }
    }

    /// Digest of what is here.
    pub fn digest(&self) -> ShortHash {
        self.digest
    }

    /// Equal on nodes with equal rows.
    pub fn fingerprint(&self) -> String {
        self.replica.fingerprint()
    }

    /// Of how many other nodes this one knows that they have exactly what is here.
    pub fn peers_known_equal(&self) -> u32 {
        self.confirming.known_with(self.digest)
    }
}
