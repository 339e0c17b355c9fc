//! Seeded worlds for Anabranch. The multi-node harness comes with an issue of its own; what is here now are the benchmarks
//! (`anabranch-bench --help`), which measure real nodes beside a bare loop on the same store, and [`scale`], which drives the rules
//! of the protocol for a thousand nodes at once.

pub mod bench;
pub mod scale;
