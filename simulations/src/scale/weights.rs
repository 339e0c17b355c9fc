//! What single messages weigh where every node writes: vectors then name every node.

use std::collections::BTreeMap;

use anabranch_protocol::codec;
use anabranch_protocol::commit::Identity;
use anabranch_protocol::confirmation::{SignedStatement, Statement};
use anabranch_protocol::hlc::Hlc;
use anabranch_protocol::id::{DatasetId, Epoch, Incarnation, Lineage, PeerId, Salt, ShortHash, WriterId};
use anabranch_protocol::registration::Registration;
use anabranch_protocol::round;
use anabranch_protocol::vector::{Head, VersionVector};
use anabranch_protocol::wire::{DatasetHello, HeadsReply, Hello, Kind, PolicyScope, Request, Response, Round, VERSION};
use serde::Serialize;

/// Bytes of encoded messages, with as many writers as nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Weights {
    /// How many nodes write.
    pub writers: u32,
    /// One `round`, whatever there is.
    pub round: usize,
    /// A `Hello` with all datasets.
    pub hello: usize,
    /// The answer to `heads` that differ, of one dataset.
    pub heads: usize,
    /// One signed statement, of one dataset.
    pub statement: usize,
}

/// Weighs messages of a network in which all of `writers` nodes wrote.
#[must_use]
pub fn weigh(writers: u32, datasets: u32) -> Weights {
    let vector: VersionVector = (0..writers).map(head).collect();
    let names =
        (0..datasets).map(|index| (index > 0).then(|| DatasetId::new(&format!("dataset-{index}")).expect("a valid name")));
    let named = names.map(|dataset| DatasetHello {
        dataset,
        lineage: Lineage::ZERO,
        kind: Kind::Documents,
        registration: Registration::all(),
        policies: BTreeMap::from([(PolicyScope(None), "lww".to_owned())]),
        heads: vector.clone(),
    });
    let hello = Hello {
        versions: vec![VERSION],
        nonce: Salt::ZERO,
        proofs: Vec::new(),
        incarnation: Incarnation::ZERO,
        listen: Vec::new(),
        datasets: named.collect(),
        withdrawn: Vec::new(),
    };
    let round = Round { digest: round::of_all(&BTreeMap::new()) };
    let heads = HeadsReply { dataset: None, heads: Some(vector.clone()), held: Vec::new(), forks: Vec::new() };
    Weights {
        writers,
        round: codec::encoded_len(&Request::Round(round)),
        hello: codec::encoded_len(&Request::Hello(hello)),
        heads: codec::encoded_len(&Response::Heads(heads)),
        statement: statement(vector),
    }
}

fn statement(vector: VersionVector) -> usize {
    let identity = Identity::from_secret(&[1; 32]);
    let (dataset, incarnation, counter) = (None, Incarnation::ZERO, CLOCK >> 8);
    let statement = Statement { dataset, peer: identity.peer(), incarnation, counter, registration: Registration::all(), vector };
    codec::encoded_len(&SignedStatement::sign(&statement, Lineage::ZERO, &identity))
}

/// A clock reading of our time: what is small is encoded smaller.
const CLOCK: u64 = 1_790_000_000_000 << 16;

fn head(n: u32) -> (WriterId, Head) {
    let mut peer = [0xa5; 32];
    peer[..4].copy_from_slice(&n.to_be_bytes());
    let writer = WriterId { peer: PeerId(peer), epoch: Epoch::new(CLOCK >> 16, [0x5a; 10]) };
    (writer, Head { seq: 1_000, hlc: Hlc(CLOCK), hash: ShortHash([0xc3; 8]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_round_weighs_the_same_however_many_write() {
        let (few, many) = (weigh(8, 3), weigh(1_024, 3));
        assert_eq!(few.round, many.round);
        for (few, many) in [(few.hello, many.hello), (few.heads, many.heads), (few.statement, many.statement)] {
            assert!(many > few * 20, "{few} and {many} bytes");
        }
    }
}
