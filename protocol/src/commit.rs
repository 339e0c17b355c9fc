//! Commits: one immutable frame from disk to disk.
//!
//! A commit is encoded once, by its writer, and the same bytes are stored, hashed, signed, sent and relayed everywhere:
//!
//! ```text
//! frame   = [ header bytes, signature (64), [ section bytes or null, … ] ]
//! header  = { v, d?, p, e, n, h, t, o?, s: [ [tag (8), entry count, section digest (32)], … ] }
//! section = [ salt (16), collection, [ [index, op, key, value bytes], … ] ]
//! hash    = BLAKE3-derive-key("anabranch 1 commit", lineage || length of header as u64 LE || header)
//! ```
//!
//! A section can be left out (null) for a peer that did not register its collection; header, hash and signature still verify.

mod fault;
mod fork;
mod frame;
mod header;
mod section;

pub use fault::FrameFault;
pub use fork::{Fork, ForkError, ForkProof, Forks, SignedHeader, branch};
pub use frame::{Body, Commit, Draft, Frame};
pub use header::{Header, Parent, SectionRef};
pub use section::{Change, Entry, Section};

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

use crate::codec::DecodeError;
use crate::id::{Hash, Lineage, PeerId, Signature};

/// Why bytes are not a commit that counts. Nothing of it was applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not a frame, header or section of ours.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// A version or an operation that this node doesn't know yet: the writer is held, nothing is skipped.
    #[error("{what} {number} needs a newer version of this node")]
    NeedsUpgrade { what: &'static str, number: u64 },
    /// A field contradicts another or breaks a rule of the format.
    #[error("inconsistent: {0}")]
    Inconsistent(&'static str),
    /// A section's bytes are not what the header signs.
    #[error("a section does not match its digest")]
    SectionDigest,
    /// The signature is not the writer's over this header.
    #[error("the signature does not verify")]
    Signature,
    /// The commit belongs to another dataset.
    #[error("the commit belongs to another dataset")]
    OtherDataset,
}

/// A node's signing key.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
    peer: PeerId,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.peer)
    }
}

impl Identity {
    /// The identity of an ed25519 secret key.
    #[must_use]
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(secret);
        let peer = PeerId(key.verifying_key().to_bytes());
        Self { key, peer }
    }

    /// The peer id of this identity.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Signs a hash.
    #[must_use]
    pub fn sign(&self, hash: &Hash) -> Signature {
        Signature(self.key.sign(&hash.0).to_bytes())
    }
}

/// Whether `signature` is `peer`'s over `hash`, by the strict rules (no small-order keys, no malleable encodings).
#[must_use]
pub fn signature_holds(peer: &PeerId, hash: &Hash, signature: &Signature) -> bool {
    #[cfg(feature = "planted")]
    if crate::planted::is(crate::planted::Bug::SkipSignature) {
        return true;
    }
    if !REMEMBERS.get() {
        return verifies(peer, hash, signature);
    }
    let triple = *blake3::hash(&[&peer.0[..], &hash.0, &signature.0].concat()).as_bytes();
    if REMEMBERED.with_borrow(|remembered| remembered.contains(&triple)) {
        return true;
    }
    let holds = verifies(peer, hash, signature);
    if holds {
        REMEMBERED.with_borrow_mut(|remembered| remembered.insert(triple));
    }
    holds
}

fn verifies(peer: &PeerId, hash: &Hash, signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    VerifyingKey::from_bytes(&peer.0).is_ok_and(|key| key.verify_strict(&hash.0, &signature).is_ok())
}

thread_local! {
    static REMEMBERS: Cell<bool> = const { Cell::new(false) };
    static REMEMBERED: RefCell<BTreeSet<[u8; 32]>> = const { RefCell::new(BTreeSet::new()) };
}

/// Whether this thread remembers, without a bound, which signatures held, from nothing on. For simulations: a world runs all its
/// nodes on one thread, and each of them checks what the others checked. A node never does.
pub fn remember_signatures(remembers: bool) {
    REMEMBERS.set(remembers);
    REMEMBERED.take();
}

fn commit_hash(lineage: Lineage, header: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 commit");
    hasher.update(&lineage.0);
    hasher.update(&(header.len() as u64).to_le_bytes());
    hasher.update(header);
    Hash(*hasher.finalize().as_bytes())
}
