pub mod transport;
pub mod store;
