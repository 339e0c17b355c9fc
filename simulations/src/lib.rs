//! Seeded worlds for Anabranch. The multi-node harness comes with an issue of its own; what is here now are the benchmarks
//! (`cargo run --release -p anabranch-simulations -- --help`), which measure real nodes beside a bare loop on the same store.

pub mod bench;
