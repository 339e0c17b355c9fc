//! The lives of Anabranch: what runs, what restarts and what is durable.
//!
//! Reading order: [`store`] is what is trusted, [`dataset`] is one life, [`node`] holds them together, [`transport`] is the seam to
//! the network, [`api`] what callers see, [`typed`] what an application in the same process uses.

pub mod api;
pub mod dataset;
pub mod node;
pub mod probe;
pub mod runtime;
pub mod store;
pub mod transport;
pub mod typed;
pub mod watched;
