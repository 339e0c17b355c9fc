//! The laws of the protocol, one module per law. Everything is seeded and pure; `PROPTEST_CASES` widens the search.

#[path = "laws/audit.rs"]
mod audit;
#[path = "laws/clock_repair.rs"]
mod clock_repair;
#[path = "laws/convergence.rs"]
mod convergence;
#[path = "laws/coverage.rs"]
mod coverage;
#[path = "laws/decide.rs"]
mod decide;
#[path = "laws/decoders.rs"]
mod decoders;
#[path = "laws/epochs.rs"]
mod epochs;
#[path = "laws/fences.rs"]
mod fences;
#[path = "laws/floors.rs"]
mod floors;
#[path = "laws/forks.rs"]
mod forks;
#[path = "laws/frames.rs"]
mod frames;
#[path = "laws/golden.rs"]
mod golden;
#[path = "laws/idempotency.rs"]
mod idempotency;
#[path = "laws/lattice.rs"]
mod lattice;
#[path = "laws/network_key.rs"]
mod network_key;
#[path = "laws/places.rs"]
mod places;
#[path = "laws/planning.rs"]
mod planning;
#[path = "laws/values.rs"]
mod values;
#[path = "laws/widening.rs"]
mod widening;
#[path = "laws/world.rs"]
mod world;
