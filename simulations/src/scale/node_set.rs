//! A set of nodes as bits, in ascending order: a thousand nodes note what they heard of a thousand.

/// See the module documentation.
#[derive(Debug, Clone, Default)]
pub(super) struct NodeSet(Vec<u64>);

impl NodeSet {
    /// Adds a node; whether it was not in the set.
    pub fn insert(&mut self, node: u32) -> bool {
        let (word, bit) = (node as usize / 64, 1 << (node % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    pub fn contains(&self, node: u32) -> bool {
        self.0.get(node as usize / 64).is_some_and(|word| word & (1 << (node % 64)) != 0)
    }

    /// The nodes, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        (0_u32..).step_by(64).zip(&self.0).flat_map(|(base, word)| {
            // Each step leaves the lowest bit out.
            let left = std::iter::successors(Some(*word), |rest| Some(rest & rest.wrapping_sub(1)));
            left.take_while(|rest| *rest != 0).map(move |rest| base + rest.trailing_zeros())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_out_ascending_and_once() {
        let mut set = NodeSet::default();
        let news: Vec<bool> = [700, 0, 63, 64, 700].into_iter().map(|node| set.insert(node)).collect();
        assert_eq!(news, [true, true, true, true, false]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 700]);
        assert!(set.contains(64) && !set.contains(65) && !set.contains(9_000));
    }
}
