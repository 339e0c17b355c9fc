//! Bad days, each on real processes over loopback.

mod addresses;
mod apart;
mod clocks;
mod copies;
mod damage;
mod disks;
mod hosting;
mod kills;
mod lineage;
mod lines;
mod old_peer;
mod overload;
mod refusals;
mod strangers;
mod world;
