//! Series of the node as a whole, and of its network.

use std::sync::atomic::{AtomicU64, Ordering};

use anabranch_actors::api::DatasetState;

use super::page::Page;
use super::series as s;
use crate::health::{Condition, Health};
use crate::http::Api;
use crate::seen::Seen;
use crate::swarm::{Counters, MessageKind};

pub fn add(page: &mut Page, api: &Api, seen: &Seen, health: &Health) {
    let me = api.node.peer_id().to_string();
    page.set(&s::BUILD_INFO, &[env!("CARGO_PKG_VERSION"), &me], 1);
    page.set(&s::UPTIME, &[], api.started.elapsed());
    page.set_one_of(&s::HEALTH, &[], Condition::ALL.map(Condition::as_str), health.condition.as_str());
    if let Some(connected) = seen.connected() {
        page.set(&s::PEERS_CONNECTED, &[], connected as u64);
    }
    page.set(&s::PEERS_KNOWN, &[], api.network.peers().len() as u64);
    let open = |state| matches!(state, DatasetState::Running | DatasetState::Importing);
    page.set(&s::STORES_OPEN, &[], seen.datasets.iter().filter(|sample| open(sample.info.state)).count() as u64);
    if let Some(disk) = seen.disk {
        page.set(&s::DISK_FREE, &[], disk.free);
        page.set(&s::DISK_SIZE, &[], disk.size);
    }
    if let Some(counters) = api.network.counters() {
        network(page, &counters);
    }
}

fn network(page: &mut Page, counters: &Counters) {
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    for kind in MessageKind::ALL {
        page.set(&s::NETWORK_RECEIVED, &[kind.name()], counters.bytes_in(kind));
        page.set(&s::NETWORK_SENT, &[kind.name()], counters.bytes_out(kind));
    }
    for (reason, counter) in [
        ("malformed", &counters.malformed),
        ("busy", &counters.refused_busy),
        ("announcement_behind", &counters.announcements_dropped),
        ("announcement_unheard", &counters.announcements_unheard),
        ("announcement_queue_full", &counters.announcements_queue_full),
    ] {
        page.set(&s::NETWORK_DROPPED, &[reason], load(counter));
    }
    page.set(&s::CONNECTIONS, &[], load(&counters.connections));
    page.set(&s::NETWORK_REQUESTS, &[], load(&counters.requests_in_flight));
    page.set(&s::NETWORK_EVENTS, &[], load(&counters.events_waiting));
    page.set(&s::NETWORK_DIALS_FAILED, &[], load(&counters.dials_failed));
    page.set(&s::NETWORK_STREAMS, &[], load(&counters.bulk_streams_opened));
}
