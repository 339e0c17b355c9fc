//! Confirmations: what a peer says it has on stable storage, signed by itself and relayed as it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::commit::{Identity, signature_holds};
use crate::id::{Collection, DatasetId, Hash, Incarnation, Lineage, PeerId, Signature, WriterId};
use crate::limits::{CONTROL_BYTES_MAX, STATED_PEERS_MAX};
use crate::registration::Registration;
use crate::vector::VersionVector;

/// What a peer states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Absent for `primary`.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetId>,
    /// Who states it.
    #[serde(rename = "p")]
    pub peer: PeerId,
    /// The life of the store it is about.
    #[serde(rename = "i")]
    pub incarnation: Incarnation,
    /// Grows with every statement of one incarnation.
    #[serde(rename = "c")]
    pub counter: u64,
    /// What the peer replicates.
    #[serde(rename = "r")]
    pub registration: Registration,
    /// What is applied and durable there.
    #[serde(rename = "v")]
    pub vector: VersionVector,
}

impl Statement {
    /// Whether this takes the place of `old`, an earlier one of the same peer, now that `from` sent it. Counters begin at a clock
    /// reading, so they order the lives of a store too; a peer whose clock went back since may still speak for its new life
    /// itself, but nobody can replay an old life's statement for it.
    #[must_use]
    pub fn replaces(&self, old: &Self, from: &PeerId) -> bool {
        self.mark().replaces(&old.mark(), *from == self.peer)
    }

    fn mark(&self) -> Mark {
        Mark { incarnation: self.incarnation, counter: self.counter }
    }
}

/// Which of a peer's statements one is.
#[derive(Debug, Clone, Copy)]
struct Mark {
    incarnation: Incarnation,
    counter: u64,
}

impl Mark {
    fn replaces(&self, old: &Self, itself: bool) -> bool {
        old.counter < self.counter || (old.incarnation != self.incarnation && itself)
    }
}

/// Which statement of each of at most [`STATED_PEERS_MAX`] peers was the newest whose signature was checked. A node hears of every
/// statement from each of its neighbours, and checks it once.
#[derive(Debug, Clone, Default)]
pub struct Checked(BTreeMap<PeerId, Mark>);

impl Checked {
    /// Opens what `from` sent; nothing where it relays what [`Confirmations`] would not take in any more, whoever signed it.
    ///
    /// # Errors
    /// As [`SignedStatement::verify`].
    pub fn open(
        &mut self,
        from: &PeerId,
        signed: &SignedStatement,
        dataset: &DatasetId,
        lineage: Lineage,
    ) -> Result<Option<Statement>, ConfirmationError> {
        self.admit(from, signed.of_dataset(dataset)?, signed, lineage)
    }

    /// Opens what `from` says of itself; nothing where it is about another peer, of which nothing is noted then.
    ///
    /// # Errors
    /// As [`SignedStatement::verify`].
    pub fn open_own(
        &mut self,
        from: &PeerId,
        signed: &SignedStatement,
        dataset: &DatasetId,
        lineage: Lineage,
    ) -> Result<Option<Statement>, ConfirmationError> {
        let statement = signed.of_dataset(dataset)?;
        if statement.peer == *from { self.admit(from, statement, signed, lineage) } else { Ok(None) }
    }

    fn admit(
        &mut self,
        from: &PeerId,
        statement: Statement,
        signed: &SignedStatement,
        lineage: Lineage,
    ) -> Result<Option<Statement>, ConfirmationError> {
        let (mark, itself) = (statement.mark(), *from == statement.peer);
        // Made-up identities cost nothing: past the bound those that are known stay.
        if self.0.len() >= STATED_PEERS_MAX && !self.0.contains_key(&statement.peer) {
            return Ok(None);
        }
        let newer = self.0.get(&statement.peer).is_none_or(|old| mark.replaces(old, itself));
        // What a peer says of itself is heeded by its session too, which may be a new one.
        if !newer && !itself {
            return Ok(None);
        }
        signed.check(&statement, lineage)?;
        if newer {
            self.0.insert(statement.peer, mark);
        }
        Ok(Some(statement))
    }
}

/// A statement and its peer's signature over it; also the shape it travels in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedStatement(#[serde(with = "serde_bytes")] Vec<u8>, Signature);

/// Why a confirmation doesn't count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmationError {
    /// Not a statement.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// Of another dataset.
    #[error("the confirmation belongs to another dataset")]
    OtherDataset,
    /// Not signed by the peer it names.
    #[error("the confirmation's signature does not verify")]
    Signature,
}

impl SignedStatement {
    /// What it says, whoever signed it.
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn unverified(&self) -> Result<Statement, DecodeError> {
        codec::decode(&self.0, CONTROL_BYTES_MAX)
    }

    /// Signs a statement.
    #[must_use]
    pub fn sign(statement: &Statement, lineage: Lineage, identity: &Identity) -> Self {
        let bytes = codec::encode(statement);
        let signature = identity.sign(&statement_hash(lineage, &bytes));
        Self(bytes, signature)
    }

    /// The statement, if it is of this dataset and its peer signed it.
    ///
    /// # Errors
    /// [`ConfirmationError`].
    pub fn verify(&self, dataset: &DatasetId, lineage: Lineage) -> Result<Statement, ConfirmationError> {
        let statement = self.of_dataset(dataset)?;
        self.check(&statement, lineage)?;
        Ok(statement)
    }

    fn of_dataset(&self, dataset: &DatasetId) -> Result<Statement, ConfirmationError> {
        let statement = self.unverified()?;
        if DatasetId::from_wire(statement.dataset.as_ref()).as_ref() != Some(dataset) {
            return Err(ConfirmationError::OtherDataset);
        }
        if !statement.registration.is_valid() {
            return Err(DecodeError::OutOfBounds("registration").into());
        }
        Ok(statement)
    }

    fn check(&self, statement: &Statement, lineage: Lineage) -> Result<(), ConfirmationError> {
        let holds = signature_holds(&statement.peer, &statement_hash(lineage, &self.0), &self.1);
        if holds { Ok(()) } else { Err(ConfirmationError::Signature) }
    }
}

fn statement_hash(lineage: Lineage, bytes: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 confirmation");
    hasher.update(&lineage.0);
    hasher.update(bytes);
    Hash(*hasher.finalize().as_bytes())
}

/// The newest statement of each peer.
#[derive(Debug, Clone, Default)]
pub struct Confirmations(BTreeMap<PeerId, (Statement, SignedStatement)>);

impl Confirmations {
    /// Takes a verified statement in, which `from` sent; `false` where a newer one is known ([`Statement::replaces`]).
    pub fn insert(&mut self, from: &PeerId, statement: Statement, signed: SignedStatement) -> bool {
        let known = self.0.get(&statement.peer);
        let newer = known.is_none_or(|(old, _)| statement.replaces(old, from));
        if newer {
            self.0.insert(statement.peer, (statement, signed));
        }
        newer
    }

    /// The newest statement of `peer`.
    #[must_use]
    pub fn of(&self, peer: &PeerId) -> Option<&Statement> {
        self.0.get(peer).map(|(statement, _)| statement)
    }

    /// Peers that state to have commit `seq` of `writer` on stable storage, with every one of `collections`.
    pub fn covering<'a>(
        &'a self,
        writer: &'a WriterId,
        seq: u64,
        collections: &'a [Collection],
    ) -> impl Iterator<Item = PeerId> + 'a {
        #[cfg(feature = "planted")]
        let seq = if crate::planted::is(crate::planted::Bug::ReceiptTooSoon) { 1 } else { seq };
        let covers = move |statement: &Statement| {
            statement.vector.seq(writer) >= seq && collections.iter().all(|c| statement.registration.contains(c))
        };
        self.0.iter().filter(move |(_, (statement, _))| covers(statement)).map(|(peer, _)| *peer)
    }

    /// All newest statements, to be relayed as they are.
    pub fn signed(&self) -> impl Iterator<Item = (&PeerId, &SignedStatement)> {
        self.0.iter().map(|(peer, (_, signed))| (peer, signed))
    }

    /// Per writer, what every one of `members` has: nothing where one of them never confirmed.
    #[must_use]
    pub fn frontier(&self, members: impl IntoIterator<Item = PeerId>, own: &VersionVector) -> VersionVector {
        members.into_iter().fold(own.clone(), |frontier, member| {
            self.of(&member).map_or_else(VersionVector::new, |statement| frontier.meet(&statement.vector))
        })
    }
}
