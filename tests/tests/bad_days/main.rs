//! Bad days, each on real processes over loopback.

mod addresses;
mod apart;
mod clocks;
mod collections;
mod copies;
mod damage;
mod disks;
mod fences;
mod forks;
mod hostile;
mod hosting;
mod invites;
mod kills;
mod lineage;
mod lines;
mod members;
mod metrics;
mod old_peer;
mod overload;
mod quic;
mod receipts;
mod refusals;
mod stalls;
mod strangers;
mod supervision;
mod world;
