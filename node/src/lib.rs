//! The world of Anabranch: process, configuration, command line, libp2p swarm and HTTP API.
//!
//! The binary `anabranch` is [`cli::main`]. An application that embeds a node starts one with
//! [`NodeBuilder`](builder::NodeBuilder) inside its actix system. Rules live in `anabranch_protocol`, lives in
//! `anabranch_actors`; here is only what touches files, sockets, signals and people.

pub mod builder;
pub mod cli;
pub mod config;
pub mod demo;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod hosting;
pub mod http;
pub mod joining;
pub mod network;
pub mod peering;
pub mod process;
pub mod run;
pub mod swarm;
