//! Benchmarks of real nodes over loopback, each beside the limit it is measured against, in one run.

pub mod bare;
pub mod clients;
pub mod many;
pub mod nodes;
pub mod relay;
pub mod scenarios;
