//! What a world begins with.

use std::collections::BTreeSet;

use anabranch_protocol::commit::Identity;
use anabranch_protocol::id::DatasetId;
use anabranch_protocol::wire::Kind;

use crate::node::DatasetPlan;
use crate::options::Options;
use crate::rng::Rng;
use crate::workload;

/// The datasets of a world: `primary`, then others; every third is for appends.
pub(super) fn datasets(options: &Options) -> Vec<DatasetPlan> {
    let name = |n: usize| if n == 0 { DatasetId::primary() } else { DatasetId::new(&format!("dataset-{n}")).expect("a name") };
    let plan = |n: usize| {
        let append = n % 3 == 2;
        let mut registered: Vec<_> = workload::SHARED.iter().map(|name| workload::collection(name)).collect();
        registered.push(workload::collection(workload::SOMETIMES));
        DatasetPlan { id: name(n), kind: if append { Kind::Append } else { Kind::Documents }, registered }
    };
    (0..options.datasets).map(plan).collect()
}

pub(crate) fn identity(rng: &mut Rng) -> Identity {
    let mut secret = [0; 32];
    rng.fill(&mut secret);
    Identity::from_secret(&secret)
}

/// A ring, and `degree` random chords of each node; who comes later dials.
pub(super) fn topology(options: &Options, rng: &mut Rng) -> Vec<(usize, usize)> {
    let count = options.nodes;
    let mut pairs = BTreeSet::new();
    for node in 0..count {
        let chords: Vec<usize> = (0..options.degree).map(|_| rng.below(count)).collect();
        for other in std::iter::once((node + 1) % count).chain(chords) {
            if other != node {
                pairs.insert((node.max(other), node.min(other)));
            }
        }
    }
    pairs.into_iter().collect()
}
