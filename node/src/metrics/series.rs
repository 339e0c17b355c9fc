//! Every series by name: what is not in this table can't be shown, and a test holds the table, docs/metrics.md, the alerts and the
//! dashboard together.

/// What kind of number a series is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the node starts again.
    Counter,
    /// What is now.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

/// A named series.
#[derive(Debug, PartialEq, Eq)]
pub struct Series {
    /// Begins `anabranch_`.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it means, in a sentence.
    pub help: &'static str,
}

macro_rules! series {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: Series =
            Series { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        /// All of them.
        pub const ALL: &[&Series] = &[$(&$constant),*];
    };
}

series! {
    BUILD_INFO = Gauge "anabranch_build_info" ["version", "peer_id"] "Always 1; says which version runs and who the node is.";
    UPTIME = Gauge "anabranch_uptime_seconds" [] "For how long the node has run.";
    HEALTH = Gauge "anabranch_health" ["state"] "1 for the state the node is in, 0 for the others: what GET /healthz says.";
    PEERS_CONNECTED = Gauge "anabranch_peers_connected" [] "Peers that are connected.";
    PEERS_KNOWN = Gauge "anabranch_peers_known" [] "Peers that are connected, were told of, or are in the address book.";
    CONNECTIONS = Gauge "anabranch_connections" [] "Established connections; a peer may have several.";
    STORES_OPEN = Gauge "anabranch_stores_open" [] "Datasets whose store is open.";
    DISK_FREE = Gauge "anabranch_disk_free_bytes" [] "What may still be written on the disk of the data directory.";
    DISK_SIZE = Gauge "anabranch_disk_size_bytes" [] "Size of the disk of the data directory.";

    NETWORK_RECEIVED = Counter "anabranch_network_received_bytes_total" ["kind"] "Bytes of messages read from peers, without the transport's own.";
    NETWORK_SENT = Counter "anabranch_network_sent_bytes_total" ["kind"] "Bytes of messages written to peers, without the transport's own.";
    NETWORK_DROPPED = Counter "anabranch_network_dropped_total" ["reason"] "Messages that were not taken in or did not get out.";
    NETWORK_REQUESTS = Gauge "anabranch_network_requests_in_flight" [] "Requests to peers that are under way.";
    NETWORK_EVENTS = Gauge "anabranch_network_events_waiting" [] "Events of the network that wait for the node.";
    NETWORK_DIALS_FAILED = Counter "anabranch_network_failed_dials_total" [] "Dials that failed.";
    NETWORK_STREAMS = Counter "anabranch_network_bulk_streams_total" [] "Streams for pages that were opened, first time or again.";

    HTTP_REQUESTS = Counter "anabranch_http_requests_total" ["route", "method", "status"] "Requests answered.";
    HTTP_DURATION = Histogram "anabranch_http_request_duration_seconds" ["route", "method"] "From a request's headers until its answer's headers.";
    HTTP_IN_FLIGHT = Gauge "anabranch_http_requests_in_flight" [] "Requests that are being answered.";

    STATE = Gauge "anabranch_dataset_state" ["dataset", "state"] "1 for the state the dataset is in, 0 for the others.";
    ENABLED = Gauge "anabranch_dataset_enabled" ["dataset"] "1 for a dataset that is meant to run, 0 for a disabled one.";
    ANSWERED = Gauge "anabranch_dataset_answered" ["dataset"] "1 where the dataset told what it holds for this scrape, 0 where that is of an earlier one or not known.";
    DOCUMENTS = Gauge "anabranch_dataset_documents" ["dataset"] "Live documents, or records of an append dataset.";
    COMMITS = Gauge "anabranch_dataset_commits" ["dataset"] "Commits in the log.";
    OPLOG_BYTES = Gauge "anabranch_dataset_oplog_bytes" ["dataset"] "Bytes of the log's frames.";
    DISK_BYTES = Gauge "anabranch_dataset_disk_bytes" ["dataset"] "Bytes that the store takes on disk.";
    READ_ONLY = Gauge "anabranch_dataset_read_only" ["dataset"] "1 while the disk is full: it is read, and takes no writes.";
    RESTARTS = Counter "anabranch_dataset_restarts_total" ["dataset"] "How often the dataset was rebuilt from disk.";
    SET_ASIDE = Gauge "anabranch_dataset_set_aside" ["dataset"] "Stores that were set aside and not dropped yet: damaged ones, and those that were written anew.";
    HELD = Gauge "anabranch_dataset_held_writers" ["dataset"] "Writers whose commits wait because their clock is too far ahead.";
    OWN_CLOCK = Gauge "anabranch_dataset_own_clock_suspect" ["dataset"] "1 while most connected peers disagree with this node's clock.";
    FORKED = Gauge "anabranch_dataset_forked_writers" ["dataset"] "Writers whose history forked.";
    UNREADABLE = Gauge "anabranch_dataset_needs_upgrade" ["dataset"] "Writers and peers whose commits only a newer version can read.";
    SOURCELESS = Gauge "anabranch_dataset_without_source" ["dataset"] "Collections and commits that no connected peer can deliver (no_source).";

    WRITTEN_COMMITS = Counter "anabranch_dataset_written_commits_total" ["dataset"] "Commits that local writes became.";
    WRITTEN_ENTRIES = Counter "anabranch_dataset_written_entries_total" ["dataset"] "Entries of those.";
    RECEIVED_COMMITS = Counter "anabranch_dataset_received_commits_total" ["dataset"] "Commits of peers taken in.";
    RECEIVED_ENTRIES = Counter "anabranch_dataset_received_entries_total" ["dataset"] "Entries of those.";
    REFUSED_COMMITS = Counter "anabranch_dataset_refused_commits_total" ["dataset"] "Commits of peers refused.";
    REFUSALS = Counter "anabranch_dataset_refusals_total" ["dataset", "reason"] "Refusals about the dataset, either side's.";
    MESSAGE_RECEIVED = Counter "anabranch_dataset_received_bytes_total" ["dataset", "kind"] "Bytes of messages about the dataset that were read, a request and its answer under one kind.";
    MESSAGE_SENT = Counter "anabranch_dataset_sent_bytes_total" ["dataset", "kind"] "Bytes of messages about the dataset that were written, a request and its answer under one kind.";
    CONFIRMATIONS = Counter "anabranch_dataset_confirmations_total" ["dataset"] "Signed statements of peers about what they have on stable storage.";
    ACKS = Counter "anabranch_dataset_acks_total" ["dataset", "outcome"] "Writes that waited for ?ack=, by whether enough peers confirmed in time.";
    QUEUE = Gauge "anabranch_dataset_queue_depth" ["dataset", "queue"] "What waits.";
    QUEUED_BYTES = Gauge "anabranch_dataset_queued_write_bytes" ["dataset"] "Payload of local writes that wait or are being written; past 32 MiB writes are answered 429.";
    COMMIT_LATENCY = Histogram "anabranch_dataset_commit_latency_seconds" ["dataset"] "From when a local write was accepted until it was durable here.";
    VISIBLE = Histogram "anabranch_dataset_write_to_visible_seconds" ["dataset"] "From a peer's commit, by its writer's clock, until it was applied here, by this node's: off by as much as the two clocks are.";
    STAMPED_AHEAD = Counter "anabranch_dataset_stamped_ahead_total" ["dataset"] "Commits of peers whose stamp was ahead of this node's clock; they count as visible after 0 s.";

    PEER_CONNECTED = Gauge "anabranch_peer_connected" ["peer"] "1 while the peer is connected.";
    PEER_RTT = Gauge "anabranch_peer_rtt_seconds" ["peer"] "Round trip time of the last ping.";
    PEER_STATE = Gauge "anabranch_peer_state" ["dataset", "peer", "state"] "1 for the state the peer's replica is in; the others are left out.";
    PEER_LAG_COMMITS = Gauge "anabranch_peer_lag_commits" ["dataset", "peer"] "Commits that the peer or this node has and the other lacks, as far as known.";
    PEER_LAG = Gauge "anabranch_peer_lag_seconds" ["dataset", "peer"] "How far the two are apart by the stamps of their commits, or for how long if that is more.";
    PEER_APART = Gauge "anabranch_peer_apart_seconds" ["dataset", "peer"] "For how long the peer or this node has lacked what the other had, by this node's clock; never more than it really was.";
    PEERS_OMITTED = Gauge "anabranch_peers_omitted" [] "Peers without series of their own, because there are too many.";
}
