//! Benchmarks of real nodes over loopback, each beside the limit it is measured against, in one run.

pub mod bare;
pub mod nodes;
pub mod scenarios;
