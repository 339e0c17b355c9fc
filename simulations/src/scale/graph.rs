//! Who is connected to whom: a random graph in which everybody has about as many neighbours.
//!
//! Random circles through all nodes, laid over each other: connected by construction, near-regular, and with a diameter that grows
//! with log n, as random regular graphs have (Bollobás and Fernandez de la Vega, *The diameter of random regular graphs*, 1982).

use std::collections::{BTreeSet, VecDeque};

use rand::RngExt as _;
use rand_pcg::Pcg64;

/// The neighbours of each node, ascending. `degree` is even: each circle brings two. Where two circles share an edge, or there are
/// fewer nodes than neighbours wanted, a node has fewer.
pub(super) fn random(nodes: u32, degree: u32, rng: &mut Pcg64) -> Vec<BTreeSet<u32>> {
    let mut neighbours = vec![BTreeSet::new(); nodes as usize];
    let mut circle: Vec<u32> = (0..nodes).collect();
    for _ in 0..degree / 2 {
        shuffle(&mut circle, rng);
        for (index, from) in circle.iter().enumerate() {
            let to = circle[(index + 1) % circle.len()];
            if *from != to {
                neighbours[*from as usize].insert(to);
                neighbours[to as usize].insert(*from);
            }
        }
    }
    neighbours
}

/// Fisher and Yates.
pub(super) fn shuffle(items: &mut [u32], rng: &mut Pcg64) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.random_range(0..=last));
    }
}

/// How many hops the farthest two nodes are apart; `None` where the graph falls into parts.
pub(super) fn diameter(neighbours: &[BTreeSet<u32>]) -> Option<u32> {
    let count = u32::try_from(neighbours.len()).ok()?;
    (0..count).map(|from| eccentricity(neighbours, from)).try_fold(0, |most, one| one.map(|one| most.max(one)))
}

fn eccentricity(neighbours: &[BTreeSet<u32>], from: u32) -> Option<u32> {
    let mut hops: Vec<Option<u32>> = vec![None; neighbours.len()];
    hops[from as usize] = Some(0);
    let mut next = VecDeque::from([(from, 0)]);
    while let Some((at, distance)) = next.pop_front() {
        for to in &neighbours[at as usize] {
            if hops[*to as usize].is_none() {
                hops[*to as usize] = Some(distance + 1);
                next.push_back((*to, distance + 1));
            }
        }
    }
    hops.into_iter().try_fold(0, |most, one| one.map(|one| most.max(one)))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn graphs_are_connected_near_regular_and_shallow() {
        for nodes in [2, 3, 8, 9, 64, 1_024] {
            let graph = random(nodes, 8, &mut Pcg64::seed_from_u64(u64::from(nodes)));
            let far = diameter(&graph).expect("connected");
            assert!(far <= 6, "{nodes} nodes are {far} hops apart");
            for (node, neighbours) in graph.iter().enumerate() {
                assert!(neighbours.len() <= 8 && neighbours.iter().all(|to| *to as usize != node));
                assert!(nodes < 64 || neighbours.len() >= 6);
            }
        }
        assert_eq!(diameter(&[BTreeSet::new(), BTreeSet::new()]), None);
    }
}
