//! The configuration page as it is written: every key, its unit by type, its default. Nothing is judged here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::health::HealthLimits;
use crate::swarm::SwarmLimits;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Where a node listens for peers without a word of configuration.
#[cfg(feature = "quic")]
const LISTEN: &[&str] = &["/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/udp/4001/quic-v1"];
#[cfg(not(feature = "quic"))]
const LISTEN: &[&str] = &["/ip4/127.0.0.1/tcp/4001"];

/// The whole page.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Page {
    pub data_dir: PathBuf,
    #[serde(deserialize_with = "words")]
    pub listen: Vec<String>,
    #[serde(deserialize_with = "words")]
    pub peers: Vec<String>,
    pub mdns: bool,
    /// One file, or a list while a key is being rotated.
    #[serde(deserialize_with = "words")]
    pub network_key_file: Vec<String>,
    #[serde(deserialize_with = "span", serialize_with = "as_span")]
    pub max_clock_skew: Duration,
    /// All datasets together.
    pub cache_bytes: ByteSize,
    pub http: HttpPage,
    pub access: AccessPage,
    pub features: FeaturesPage,
    pub limits: LimitsPage,
    pub health: HealthPage,
    pub datasets: BTreeMap<String, DatasetPage>,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./anabranch-data"),
            listen: LISTEN.iter().map(|&address| address.to_owned()).collect(),
            peers: Vec::new(),
            mdns: false,
            network_key_file: Vec::new(),
            max_clock_skew: 5 * MINUTE,
            cache_bytes: ByteSize::mib(128),
            http: HttpPage::default(),
            access: AccessPage::default(),
            features: FeaturesPage::default(),
            limits: LimitsPage::default(),
            health: HealthPage::default(),
            datasets: BTreeMap::new(),
        }
    }
}

/// `[http]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpPage {
    pub addr: String,
    /// Required beyond loopback.
    pub token_file: Option<PathBuf>,
}

impl Default for HttpPage {
    fn default() -> Self {
        Self { addr: "127.0.0.1:7070".to_owned(), token_file: None }
    }
}

/// `[access]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessPage {
    #[serde(deserialize_with = "words")]
    pub allow: Vec<String>,
    #[serde(deserialize_with = "words")]
    pub deny: Vec<String>,
}

/// `[limits]`: what peers may take of the node.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsPage {
    pub connections_max: u32,
    pub connections_per_peer_max: u32,
    /// Of the process; past it no further connection is taken or made.
    pub memory_max: Option<ByteSize>,
    /// Of one peer, per second.
    pub hello_rate_max: u32,
    /// Of one peer, at once.
    pub hello_burst_max: u32,
    /// Of one peer, per second.
    pub request_rate_max: u32,
    /// Of one peer, per second.
    pub announce_rate_max: u32,
    #[serde(deserialize_with = "span", serialize_with = "as_span")]
    pub request_timeout: Duration,
    /// Of one page.
    #[serde(deserialize_with = "span", serialize_with = "as_span")]
    pub transfer_timeout: Duration,
    /// How long a peer that broke the rules is left alone.
    #[serde(deserialize_with = "span", serialize_with = "as_span")]
    pub shut_out_time: Duration,
}

impl Default for LimitsPage {
    fn default() -> Self {
        let limits = SwarmLimits::default();
        Self {
            connections_max: limits.connections_max,
            connections_per_peer_max: limits.connections_per_peer_max,
            memory_max: None,
            hello_rate_max: limits.hello_rate_max.get(),
            hello_burst_max: limits.hello_burst_max.get(),
            request_rate_max: limits.request_rate_max.get(),
            announce_rate_max: limits.announce_rate_max.get(),
            request_timeout: limits.request_timeout,
            transfer_timeout: limits.bulk_timeout,
            shut_out_time: limits.refused_for,
        }
    }
}

/// `[health]`: past what the node calls itself degraded.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthPage {
    /// Of a peer and this node in one dataset.
    pub lag_commits_max: u64,
    #[serde(deserialize_with = "span", serialize_with = "as_span")]
    pub lag_time_max: Duration,
    /// On the disk of the data directory.
    pub disk_free_min: ByteSize,
    /// Of one dataset within an hour.
    pub restarts_max: u64,
    /// Damaged stores of one dataset that were not dropped yet.
    pub set_aside_max: u64,
    /// Peers connected.
    pub peers_min: u64,
}

impl Default for HealthPage {
    fn default() -> Self {
        let limits = HealthLimits::default();
        Self {
            lag_commits_max: limits.lag_commits_max,
            lag_time_max: limits.lag_time_max,
            disk_free_min: ByteSize(limits.disk_free_min),
            restarts_max: limits.restarts_max,
            set_aside_max: limits.set_aside_max,
            peers_min: limits.peers_min,
        }
    }
}

/// `[features]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeaturesPage {
    /// Off: only `primary` runs.
    pub multi_dataset: bool,
}

impl Default for FeaturesPage {
    fn default() -> Self {
        Self { multi_dataset: true }
    }
}

/// `[datasets.NAME]`. Without `collections` it replicates none.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatasetPage {
    pub kind: String,
    pub engine: String,
    pub enabled: bool,
    /// `new`, or 32 hex digits. Left out: what the store has, or takes on from its peers.
    pub lineage: Option<String>,
    #[serde(deserialize_with = "words")]
    pub collections: Vec<String>,
    #[serde(deserialize_with = "words")]
    pub collections_max: Vec<String>,
    /// Policy by collection; `default` for the others.
    pub policy: BTreeMap<String, String>,
    #[serde(deserialize_with = "words")]
    pub images_before: Vec<String>,
    #[serde(deserialize_with = "words")]
    pub writers: Vec<String>,
    #[serde(deserialize_with = "words")]
    pub readers: Vec<String>,
    #[serde(deserialize_with = "span", serialize_with = "as_span")]
    pub peer_lease: Duration,
    pub retention: Option<RetentionPage>,
    pub disk_quota: Option<ByteSize>,
    pub sync: SyncPage,
}

/// What `writers`, `readers` and `collections_max` are where they are left out: everything.
pub const EVERYTHING: &str = "*";
/// How long a peer that makes no progress holds back pruning.
pub const PEER_LEASE: Duration = Duration::from_secs(30 * DAY.as_secs());

impl Default for DatasetPage {
    fn default() -> Self {
        Self {
            kind: "documents".to_owned(),
            engine: "sled".to_owned(),
            enabled: true,
            lineage: None,
            collections: Vec::new(),
            collections_max: vec![EVERYTHING.to_owned()],
            policy: BTreeMap::new(),
            images_before: Vec::new(),
            writers: vec![EVERYTHING.to_owned()],
            readers: vec![EVERYTHING.to_owned()],
            peer_lease: PEER_LEASE,
            retention: None,
            disk_quota: None,
            sync: SyncPage::default(),
        }
    }
}

/// `retention = { age, bytes }`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionPage {
    #[serde(deserialize_with = "span_if_any", serialize_with = "as_span_if_any")]
    pub age: Option<Duration>,
    pub bytes: Option<ByteSize>,
}

/// `[datasets.NAME.sync]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SyncPage {
    /// Zero announces every commit at once.
    #[serde(deserialize_with = "span", serialize_with = "as_span")]
    pub announce_interval: Duration,
    #[serde(deserialize_with = "span", serialize_with = "as_span")]
    pub anti_entropy_interval: Duration,
    pub max_peers: usize,
    pub max_entries_per_cycle: u64,
    /// Bytes per second, each way.
    pub bandwidth_max: Bandwidth,
    /// Share when datasets compete.
    pub weight: u32,
    /// Between two slices of the audit of rows.
    #[serde(deserialize_with = "span", serialize_with = "as_span")]
    pub maintenance_interval: Duration,
}

impl Default for SyncPage {
    fn default() -> Self {
        Self {
            announce_interval: Duration::ZERO,
            anti_entropy_interval: Duration::from_secs(15),
            max_peers: 8,
            max_entries_per_cycle: 10_000,
            bandwidth_max: Bandwidth(None),
            weight: 8,
            maintenance_interval: MINUTE,
        }
    }
}

/// Bytes per second, or none for `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth(pub Option<ByteSize>);

impl Serialize for Bandwidth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(size) => serializer.collect_str(&size),
            None => serializer.serialize_str("unlimited"),
        }
    }
}

impl<'de> Deserialize<'de> for Bandwidth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Bandwidth;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte size per second such as \"8MiB\", or \"unlimited\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bandwidth, E> {
                if text == "unlimited" {
                    return Ok(Bandwidth(None));
                }
                text.parse().map(|size| Bandwidth(Some(size))).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
            fn visit_u64<E>(self, bytes: u64) -> Result<Bandwidth, E> {
                Ok(Bandwidth(Some(ByteSize(bytes))))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// A length of time such as `5m`.
fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Text;
    impl de::Visitor<'_> for Text {
        type Value = Duration;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a length of time such as \"200ms\", \"15s\" or \"30d\"")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
            humantime::parse_duration(text).map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_any(Text)
}

fn as_span<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*span))
}

// serde hands over the field as it is.
#[allow(clippy::ref_option)]
fn as_span_if_any<S: Serializer>(span: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match span {
        Some(span) => as_span(span, serializer),
        None => serializer.serialize_none(),
    }
}

fn span_if_any<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    span(deserializer).map(Some)
}

/// A list of words, or one text with commas between them: environment variables have no lists.
fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Words;
    impl<'de> de::Visitor<'de> for Words {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of texts")
        }
        fn visit_str<E>(self, text: &str) -> Result<Vec<String>, E> {
            Ok(text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect())
        }
        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
            let mut words = Vec::new();
            while let Some(word) = seq.next_element()? {
                words.push(word);
            }
            Ok(words)
        }
    }
    deserializer.deserialize_any(Words)
}
