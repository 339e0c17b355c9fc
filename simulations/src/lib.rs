//! Seeded worlds for Anabranch: the shipped actors under virtual time, with a simulated network and disk, every fault, an oracle and
//! invariants (`docs/simulation.md`); [`scale`], which drives the rules of the protocol for a thousand nodes at once; and benchmarks,
//! which measure real nodes beside a bare loop on the same store.

pub mod bench;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod faults;
pub mod hostile;
pub mod invariants;
pub mod network;
pub mod node;
pub mod options;
pub mod oracle;
mod page;
pub mod report;
pub mod rng;
pub mod scale;
pub mod scenarios;
pub mod shrink;
pub mod sometimes;
pub mod trace;
pub mod workload;
pub mod world;
