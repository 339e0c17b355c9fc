//! The lives of Anabranch.
pub mod api;
pub mod node;
pub mod store;
pub mod transport;
