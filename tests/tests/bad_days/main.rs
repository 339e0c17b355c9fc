//! Bad days, each on real processes over loopback.

mod addresses;
mod apart;
mod clocks;
mod copies;
mod damage;
mod disks;
mod forks;
mod kills;
mod lines;
mod overload;
mod quic;
mod stalls;
mod strangers;
mod world;
