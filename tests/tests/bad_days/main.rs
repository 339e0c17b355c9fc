//! Bad days, each on real processes over loopback.

mod addresses;
mod apart;
mod clocks;
mod copies;
mod damage;
mod disks;
mod fences;
mod hostile;
mod kills;
mod lines;
mod overload;
mod strangers;
mod world;
