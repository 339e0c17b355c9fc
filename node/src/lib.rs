//! The world of Anabranch: process, configuration, command line, libp2p swarm and HTTP API.
//!
//! The binary `anabranch` is [`cli::main`]. An application that embeds a node starts one inside its actix system:
//!
//! ```no_run
//! use anabranch_node::{Failure, Node};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Order {
//!     id: String,
//!     total: u32,
//! }
//!
//! # async fn shop() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::builder()
//!     .data_dir("./shop-data")
//!     .dataset("primary=orders,customers")
//!     .peer("/ip4/192.0.2.1/tcp/4001")
//!     .start()
//!     .await?;
//! let orders = node.dataset("primary")?.watch_collection::<Order>("orders", |order| order.id.clone()).await?;
//! orders.put(&Order { id: "o-1".into(), total: 42 }).await?;
//! node.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! Cargo features, all on by default: `cli` (the binary and its commands), `http` (the HTTP API), `quic`, `mdns`. An embedded
//! node needs none of them. Rules live in `anabranch_protocol`, lives in `anabranch_actors`; here is only what touches files,
//! sockets, signals and people.

pub mod builder;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
#[cfg(feature = "cli")]
pub mod demo;
#[cfg(feature = "http")]
mod disk;
#[cfg(any(all(test, feature = "cli"), feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "http")]
pub mod health;
pub mod hosting;
#[cfg(feature = "http")]
pub mod http;
pub mod joining;
#[cfg(feature = "http")]
pub mod metrics;
pub mod network;
mod node;
pub mod peering;
pub mod process;
#[cfg(feature = "cli")]
pub mod run;
#[cfg(feature = "http")]
mod seen;
pub mod swarm;
mod wall_time;

pub use builder::{NodeBuilder, SystemClock};
pub use node::{Node, NodePage};
pub use process::Failure;
