//! A set of nodes as bits: a thousand nodes note what they heard of a thousand.

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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_new_once() {
        let mut set = NodeSet::default();
        let news: Vec<bool> = [700, 0, 63, 64, 700, 0].into_iter().map(|node| set.insert(node)).collect();
        assert_eq!(news, [true, true, true, true, false, false]);
    }
}
