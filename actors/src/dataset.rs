//! One dataset: a supervisor and its children on an arbiter of their own, over a store on a thread of its own.
//!
//! ```text
//! DatasetSupervisor
//! ├─ Oplog          the only writer: decide → commit (durable) → evolve → tell
//! ├─ Clock          our vector and peers'; announcements; skew
//! ├─ Confirmation   signed statements of what is on stable storage
//! └─ Sync           pushes, pulls, answers
//! ```

pub mod aside;
mod budget;
pub mod clock;
mod collections;
pub mod confirmation;
pub mod counters;
mod damage;
pub mod death_watch;
pub mod enrolment;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod handle;
pub mod histogram;
mod identity;
mod keeper;
mod layout;
pub mod ledger;
mod life;
pub mod lineage;
mod log;
pub mod measures;
mod opener;
pub mod oplog;
mod overlay;
mod rebuilding;
mod receipts;
pub mod registered;
mod repair;
mod room;
pub mod sample;
mod span;
pub mod store_thread;
pub mod supervisor;
pub mod sync;
mod tenancy;
pub mod ticket;
pub mod view;

pub use handle::DatasetHandle;
pub(crate) use room::has_room;
