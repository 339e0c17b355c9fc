//! Rounds: one digest per pair of peers tells whether anything has to be compared, whatever the number of datasets.
//!
//! Each side sends what it has of all datasets that both sync. Where the two are equal, or what they were at the end of the last
//! completed round, there is nothing to do; else the heads of each dataset are compared. Now and then they are in any case: what a
//! digest can't show, such as an answer that was lost, heals then.

use std::collections::BTreeMap;

use crate::codec;
use crate::id::{DatasetId, ShortHash};
use crate::vector::VersionVector;
use crate::wire::Held;

/// Of so many rounds one compares every dataset, whatever the digests say.
pub const WHOLE_EVERY: u32 = 20;

/// What a node has of one dataset, and whom it holds back, which its writers must hear.
#[must_use]
pub fn state(vector: &VersionVector, held: &[Held]) -> ShortHash {
    if held.is_empty() { vector.digest() } else { digest(held.iter().map(codec::encode).chain([vector.digest().0.to_vec()])) }
}

/// What a node has of several datasets.
#[must_use]
pub fn of_all(states: &BTreeMap<DatasetId, ShortHash>) -> ShortHash {
    digest(states.iter().map(|(dataset, state)| [dataset.as_str().as_bytes(), b"\0", &state.0].concat()))
}

fn digest(parts: impl Iterator<Item = Vec<u8>>) -> ShortHash {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 round digest");
    parts.for_each(|part| {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(&part);
    });
    let mut digest = [0; 8];
    hasher.finalize_xof().fill(&mut digest);
    ShortHash(digest)
}

/// The rounds with one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rounds {
    /// Both digests as they were when every dataset was compared last.
    compared: Option<(ShortHash, ShortHash)>,
    since: u32,
}

impl Rounds {
    /// Whether each dataset has to be compared, now that both digests are known.
    pub fn must_compare(&mut self, mine: ShortHash, theirs: ShortHash) -> bool {
        self.since += 1;
        self.since >= WHOLE_EVERY || (mine != theirs && self.compared != Some((mine, theirs)))
    }

    /// Every dataset was compared, and these were the digests before.
    pub fn compared(&mut self, mine: ShortHash, theirs: ShortHash) {
        *self = Self { compared: Some((mine, theirs)), since: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: ShortHash = ShortHash([1; 8]);
    const TWO: ShortHash = ShortHash([2; 8]);

    #[test]
    fn what_is_equal_or_was_compared_as_it_is_needs_no_comparison() {
        let mut rounds = Rounds::default();
        assert!(!rounds.must_compare(ONE, ONE));
        assert!(rounds.must_compare(ONE, TWO));
        assert!(rounds.must_compare(ONE, TWO), "the comparison did not come to an end");
        rounds.compared(ONE, TWO);
        assert!(!rounds.must_compare(ONE, TWO));
        assert!(rounds.must_compare(TWO, ONE), "both changed");
    }

    #[test]
    fn now_and_then_all_is_compared() {
        let mut rounds = Rounds::default();
        let asked = (0..2 * WHOLE_EVERY).map(|_| {
            let compare = rounds.must_compare(ONE, ONE);
            if compare {
                rounds.compared(ONE, ONE);
            }
            u32::from(compare)
        });
        assert_eq!(asked.sum::<u32>(), 2);
    }

    #[test]
    fn datasets_count_by_name_and_by_state() {
        let [a, b] = ["a", "b"].map(|name| DatasetId::new(name).unwrap());
        let of = |states: &[(&DatasetId, ShortHash)]| of_all(&states.iter().map(|(id, state)| ((*id).clone(), *state)).collect());
        let all = [
            of(&[]),
            of(&[(&a, ONE)]),
            of(&[(&b, ONE)]),
            of(&[(&a, TWO)]),
            of(&[(&a, ONE), (&b, TWO)]),
            of(&[(&a, TWO), (&b, ONE)]),
        ];
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
    }
}
