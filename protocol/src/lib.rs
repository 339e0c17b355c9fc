//! The rules of Anabranch: what a commit is, who wins, who pulls what from whom, and what may be said on the wire.
//!
//! Everything here is pure. Time, randomness, rows and peers come in as arguments; what comes out are values and typed
//! refusals. Nothing starts a thread, reads a clock or a file, or awaits, so every rule can be tested on its own and the same
//! rules run under virtual time.
//!
//! Reading order: [`id`] and [`hlc`] name things, [`commit`] is the one immutable frame from disk to disk, [`conflict`] decides
//! between two states of a row, [`replica`] turns inputs into commits and commits into state, [`plan`] says who pulls what, and
//! [`wire`] is what two nodes say to each other.

pub mod access;
pub mod audit;
pub mod clock_repair;
pub mod codec;
pub mod commit;
pub mod confirmation;
pub mod conflict;
pub mod coverage;
pub mod fence;
pub mod fingerprint;
pub mod floor;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod handshake;
pub mod hlc;
pub mod id;
pub mod idempotency;
pub mod invite;
pub mod limits;
pub mod network_key;
pub mod plan;
#[cfg(feature = "planted")]
#[doc(hidden)]
pub mod planted;
pub mod registration;
pub mod replica;
pub mod round;
pub mod token;
pub mod value;
pub mod vector;
pub mod wire;
