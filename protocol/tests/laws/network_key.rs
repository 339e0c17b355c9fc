//! A proof of the network key convinces exactly the peer it was made for, of exactly the peer that made it, once.

use anabranch_protocol::id::{PeerId, Salt};
use anabranch_protocol::network_key::{Claim, Keyring, NetworkKey};
use proptest::prelude::*;

fn claims() -> impl Strategy<Value = Claim> {
    let bytes = (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; 16]>(), any::<[u8; 16]>());
    bytes.prop_map(|(prover, verifier, ours, theirs)| Claim {
        prover: PeerId(prover),
        verifier: PeerId(verifier),
        prover_nonce: Salt(ours),
        verifier_nonce: Salt(theirs),
    })
}

fn keyring(secrets: &[u8]) -> Keyring {
    Keyring::new(secrets.iter().map(|secret| NetworkKey::new([*secret; 32])))
}

proptest! {
    #[test]
    fn one_shared_key_is_enough_and_none_is_not(claim in claims(), ours in prop::collection::vec(0..6_u8, 0..4), theirs in prop::collection::vec(0..6_u8, 0..4)) {
        let shared = ours.iter().any(|key| theirs.contains(key));
        prop_assert_eq!(keyring(&ours).verify(&claim, &keyring(&theirs).prove(&claim)), shared);
        prop_assert_eq!(keyring(&theirs).verify(&claim, &keyring(&ours).prove(&claim)), shared);
    }

    #[test]
    fn a_proof_of_another_claim_proves_nothing(claim in claims(), other in claims()) {
        prop_assume!(claim != other);
        let keys = keyring(&[1]);
        prop_assert!(!keys.verify(&claim, &keys.prove(&other)));
        // Another connection chose other nonces; other peers are other peers: one difference is enough.
        for changed in [
            Claim { prover: other.prover, ..claim },
            Claim { verifier: other.verifier, ..claim },
            Claim { prover_nonce: other.prover_nonce, ..claim },
            Claim { verifier_nonce: other.verifier_nonce, ..claim },
        ] {
            prop_assert!(changed == claim || !keys.verify(&claim, &keys.prove(&changed)));
        }
    }

    #[test]
    fn a_proof_sent_back_or_turned_around_proves_nothing(claim in claims()) {
        let keys = keyring(&[1]);
        let Claim { prover, verifier, prover_nonce, verifier_nonce } = claim;
        let reflected = Claim { prover: verifier, verifier: prover, prover_nonce, verifier_nonce };
        let swapped = Claim { prover: verifier, verifier: prover, prover_nonce: verifier_nonce, verifier_nonce: prover_nonce };
        prop_assume!(prover != verifier);
        prop_assert!(!keys.verify(&reflected, &keys.prove(&claim)));
        prop_assert!(!keys.verify(&swapped, &keys.prove(&claim)));
    }

    #[test]
    fn what_is_no_proof_proves_nothing(claim in claims(), noise in any::<[u8; 32]>()) {
        let keys = keyring(&[1, 2]);
        prop_assert!(!keys.verify(&claim, &[]));
        prop_assert!(!keys.verify(&claim, &[anabranch_protocol::id::Hash(noise)]));
        let mut bent = keys.prove(&claim)[0];
        bent.0[31] ^= 1;
        prop_assert!(!keys.verify(&claim, &[bent]));
        prop_assert!(!keyring(&[]).verify(&claim, &keyring(&[]).prove(&claim)));
    }
}
