//! Bad days, each on real processes over loopback.

mod addresses;
mod apart;
mod clocks;
mod collections;
mod copies;
mod damage;
mod disks;
mod fences;
mod floors;
mod forks;
mod hostile;
mod hosting;
mod kills;
mod lineage;
mod lines;
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
