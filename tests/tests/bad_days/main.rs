//! Bad days, each on real processes over loopback.

mod addresses;
mod apart;
mod clocks;
mod collections;
mod copies;
mod damage;
mod disks;
mod kills;
mod lines;
mod overload;
mod strangers;
mod world;
