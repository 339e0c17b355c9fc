//! Whole nodes as processes, for the tests in `tests/tests/`.

pub mod bad_peer;
pub mod process;
pub mod raw_peer;
