//! Bad days, each on real processes over loopback.

mod apart;
mod clocks;
mod copies;
mod disks;
mod kills;
mod lines;
mod overload;
mod strangers;
mod world;
