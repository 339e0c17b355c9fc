//! The network key: a secret that all nodes of a private network share, and how a node proves in `Hello` that it has it.
//!
//! A proof is a keyed BLAKE3 hash over both peer ids and both nonces, the prover's first. The order is the role: a proof turned
//! around, or sent back to whoever made it, is another claim and does not verify. The verifier's nonce is one that it chose for
//! this connection and takes once, so a proof that was overheard or kept is worth nothing later or elsewhere.
//!
//! ```text
//! A → B  Hello { nonce a1 }                                     no datasets, no addresses
//! B → A  Hello { nonce b1, proofs of (B, A, b1, a1) }           A verifies B, or leaves
//! A → B  Hello { nonce a2, proofs of (A, B, a2, b1), datasets } B verifies A, or refuses; b1 is spent
//! B → A  Hello { nonce b2, proofs of (B, A, b2, a2), datasets } A verifies again
//! ```
//!
//! While a key is being rotated a node holds the old one and the new one and proves each; one that both sides hold is enough.

use std::fmt;

use crate::id::{DatasetId, Hash, PeerId, Salt};

/// Most keys a node holds at once: as many proofs fit into a `Hello`.
pub const NETWORK_KEYS_MAX: usize = 8;

/// What the text form of a key begins with.
const TEXT_PREFIX: &str = "anabranch-network-key-1:";
const PROOF_CONTEXT: &str = "anabranch 1 network key proof";
const TOPIC_CONTEXT: &str = "anabranch 1 network key topic";

/// 32 secret bytes. They are never shown by `Debug`.
#[derive(Clone)]
pub struct NetworkKey([u8; 32]);

impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkKey(…)")
    }
}

/// Why a text is not a network key. It never quotes the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NetworkKeyError {
    /// It begins with something else.
    #[error("a network key begins with `{TEXT_PREFIX}`")]
    Prefix,
    /// What follows is not 32 bytes in hexadecimal.
    #[error("a network key has 64 hexadecimal digits after `{TEXT_PREFIX}`")]
    Digits,
}

impl NetworkKey {
    /// A key of these bytes, which must be random.
    #[must_use]
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// Reads the text form; white space around it is left out.
    ///
    /// # Errors
    /// [`NetworkKeyError`].
    pub fn from_text(text: &str) -> Result<Self, NetworkKeyError> {
        let digits = text.trim().strip_prefix(TEXT_PREFIX).ok_or(NetworkKeyError::Prefix)?;
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| NetworkKeyError::Digits)?;
        bytes.try_into().map(Self).map_err(|_| NetworkKeyError::Digits)
    }

    /// The secret as it is kept in files and passed on.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{TEXT_PREFIX}{}", data_encoding::HEXLOWER.encode(&self.0))
    }

    /// The secret bytes, for what passes the key on.
    pub(crate) const fn secret(&self) -> &[u8; 32] {
        &self.0
    }

    fn prove(&self, claim: &Claim) -> blake3::Hash {
        let Claim { prover, verifier, prover_nonce, verifier_nonce } = claim;
        let mut hasher = blake3::Hasher::new_keyed(&blake3::derive_key(PROOF_CONTEXT, &self.0));
        // Fixed lengths: no two claims have the same bytes.
        hasher.update(&prover.0).update(&verifier.0).update(&prover_nonce.0).update(&verifier_nonce.0);
        hasher.finalize()
    }

    fn topic(&self, dataset: &DatasetId) -> String {
        let key = blake3::derive_key(TOPIC_CONTEXT, &self.0);
        blake3::keyed_hash(&key, dataset.as_str().as_bytes()).to_hex().to_string()
    }
}

/// What a proof is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Who has the key.
    pub prover: PeerId,
    /// Who is told.
    pub verifier: PeerId,
    /// Chosen by the prover for this proof.
    pub prover_nonce: Salt,
    /// Chosen by the verifier, for one proof on one connection.
    pub verifier_nonce: Salt,
}

/// The network keys of a node; none on an open network.
#[derive(Debug, Clone, Default)]
pub struct Keyring(Vec<NetworkKey>);

impl Keyring {
    /// The first [`NETWORK_KEYS_MAX`] of these keys.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = NetworkKey>) -> Self {
        Self(keys.into_iter().take(NETWORK_KEYS_MAX).collect())
    }

    /// Whether the network is open: no proof is asked for.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// The key that is passed on to who joins: the first, which is the new one while keys are being rotated.
    #[must_use]
    pub fn first(&self) -> Option<&NetworkKey> {
        self.0.first()
    }

    /// Whether a key is among them.
    #[must_use]
    pub fn contains(&self, key: &NetworkKey) -> bool {
        // `blake3::Hash` compares in constant time.
        let same = |own: &NetworkKey| blake3::Hash::from_bytes(own.0) == blake3::Hash::from_bytes(key.0);
        self.0.iter().fold(false, |found, own| found | same(own))
    }

    /// A proof by each key.
    #[must_use]
    pub fn prove(&self, claim: &Claim) -> Vec<Hash> {
        self.0.iter().map(|key| Hash(*key.prove(claim).as_bytes())).collect()
    }

    /// Whether one of `proofs` proves the claim by one of our keys. Takes the same time whichever it is.
    #[must_use]
    pub fn verify(&self, claim: &Claim, proofs: &[Hash]) -> bool {
        let mut proven = false;
        for key in &self.0 {
            let expected = key.prove(claim);
            for proof in proofs {
                // `blake3::Hash` compares in constant time.
                proven |= expected == blake3::Hash::from_bytes(proof.0);
            }
        }
        proven
    }

    /// What a dataset is called in subscriptions, which everyone who connects gets to see: one name for each key. None on an open
    /// network.
    #[must_use]
    pub fn topics(&self, dataset: &DatasetId) -> Vec<String> {
        self.0.iter().map(|key| key.topic(dataset)).collect()
    }
}

/// The nonce that a peer's next `Hello` on this connection has to answer.
#[derive(Debug, Clone, Default)]
pub struct Challenge(Option<Salt>);

impl Challenge {
    /// We answered a `Hello` with this nonce; an earlier one counts no more.
    pub fn issue(&mut self, nonce: Salt) {
        self.0 = Some(nonce);
    }

    /// Takes the nonce. It is spent, whatever comes of it.
    pub fn spend(&mut self) -> Option<Salt> {
        self.0.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_written_and_never_shown() {
        let key = NetworkKey::new([7; 32]);
        let text = key.to_text();
        assert_eq!(NetworkKey::from_text(&format!(" {text}\n")).unwrap().0, key.0);
        assert!(!format!("{:?}", Keyring::new([key])).contains('7'));
        assert_eq!(NetworkKey::from_text("07070707").unwrap_err(), NetworkKeyError::Prefix);
        for broken in [&text[..text.len() - 1], &text[..text.len() - 2], &format!("{text}00"), &text.replace('7', "x")] {
            assert_eq!(NetworkKey::from_text(broken).unwrap_err(), NetworkKeyError::Digits);
        }
    }

    #[test]
    fn the_bytes_of_a_proof_stay_what_they_are() {
        let claim = Claim {
            prover: PeerId([1; 32]),
            verifier: PeerId([2; 32]),
            prover_nonce: Salt([3; 16]),
            verifier_nonce: Salt([4; 16]),
        };
        let proofs = Keyring::new([NetworkKey::new([5; 32])]).prove(&claim);
        assert_eq!(
            data_encoding::HEXLOWER.encode(&proofs[0].0),
            "a69393c9d3e8ff09418b51f846a9f766fe8fbf6f8407d4570ee3f53376a5cc6f"
        );
    }

    #[test]
    fn a_nonce_serves_once() {
        let mut challenge = Challenge::default();
        assert_eq!(challenge.spend(), None);
        challenge.issue(Salt([1; 16]));
        challenge.issue(Salt([2; 16]));
        assert_eq!((challenge.spend(), challenge.spend()), (Some(Salt([2; 16])), None));
    }

    #[test]
    fn a_datasets_topic_depends_on_the_key() {
        let [one, two] = [[1; 32], [2; 32]].map(|secret| Keyring::new([NetworkKey::new(secret)]));
        assert_ne!(one.topics(&DatasetId::primary()), two.topics(&DatasetId::primary()));
        assert_ne!(one.topics(&DatasetId::primary()), one.topics(&DatasetId::new("logs").unwrap()));
        assert!(Keyring::default().topics(&DatasetId::primary()).is_empty());
    }
}
