//! The configuration: one TOML page, environment variables over it, flags over both, parsed once into a valid [`Config`].
//!
//! `page` is what may be written, `load` reads it, and this module judges it: names, addresses, bounds, and settings that
//! contradict each other. What was accepted here needs no further checks downstream.

mod access;
mod dataset_flag;
mod health;
mod limits;
mod load;
mod new_dataset;
mod not_yet;
mod page;
mod quantity;
mod reach;
#[cfg(feature = "cli")]
pub(crate) mod shown;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anabranch_actors::api::LineageSetting;
use anabranch_actors::node::{AccessSettings, DatasetSettings, DisabledDataset, SyncSettings};
use anabranch_protocol::access::Peers;
use anabranch_protocol::id::{Collection, DatasetId, Lineage};
use anabranch_protocol::invite::Invite;
use anabranch_protocol::limits::REGISTRATION_COLLECTIONS_MAX;
use anabranch_protocol::registration::Registration;
use libp2p::Multiaddr;

use crate::swarm::SwarmLimits;

pub use access::STORED_KEY_FILE;
pub(crate) use access::warn_if_shared;
pub use dataset_flag::DatasetFlag;
pub use health::HealthLimits;
pub use new_dataset::NewDataset;
use page::{DatasetPage, EVERYTHING, Page};
#[cfg(feature = "http")]
pub(crate) use reach::is_loopback;
pub use reach::multiaddr;

/// A configuration that is not valid; the text says what to change. Nothing was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// What flags say; each goes over the file and the environment.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub data_dir: Option<PathBuf>,
    pub listen: Vec<String>,
    pub peers: Vec<String>,
    /// Files of network keys.
    pub network_keys: Vec<PathBuf>,
    pub http: Option<String>,
    /// Given: exactly these run.
    pub datasets: Vec<DatasetFlag>,
    /// Listen beyond loopback although anyone may connect.
    pub insecure_open: bool,
    /// Join the node that made it.
    pub join: Option<Invite>,
}

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything of the node is kept.
    pub data_dir: PathBuf,
    /// Where to listen for peers; never empty.
    pub listen: Vec<Multiaddr>,
    /// Whom to dial and keep dialing.
    pub peers: Vec<Multiaddr>,
    /// Who may connect.
    pub access: AccessSettings,
    /// What peers may take of the node.
    pub limits: SwarmLimits,
    /// Look for peers on the local network.
    pub mdns: bool,
    /// Where the network keys were read from.
    pub network_key_files: Vec<PathBuf>,
    /// How far ahead of the wall clock a remote stamp may be; 1 s to 24 h.
    pub max_clock_skew: Duration,
    /// Memory of all datasets' caches together, bytes; at least [`CACHE_BYTES_MIN`] for each.
    pub cache_bytes: u64,
    /// The HTTP API.
    pub http: HttpConfig,
    /// Past what the node calls itself degraded.
    pub health: HealthLimits,
    /// Datasets that run; never empty.
    pub datasets: BTreeMap<DatasetId, DatasetSettings>,
    /// Datasets that are named and don't run.
    pub disabled: BTreeMap<DatasetId, DisabledDataset>,
    /// Off: only `primary` runs.
    pub multi_dataset: bool,
    /// The node to join. Its network key is among those of `access`; the rest is done when the node starts.
    pub join: Option<Invite>,
}

/// Where the HTTP API listens and who may use it.
#[derive(Clone)]
pub struct HttpConfig {
    /// Port 0 takes a free one.
    pub addr: SocketAddr,
    /// What a request's `Authorization: Bearer` must hold; always there beyond loopback.
    pub token: Option<String>,
}

impl std::fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpConfig").field("addr", &self.addr).field("token", &self.token.as_ref().map(|_| "…")).finish()
    }
}

/// Least cache for one dataset: below it sled reads from disk for every lookup.
pub const CACHE_BYTES_MIN: u64 = 1 << 20;
const CLOCK_SKEW_MIN: Duration = Duration::from_secs(1);
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(24 * 60 * 60);
const ANTI_ENTROPY_MIN: Duration = Duration::from_millis(100);
const PEERS_MAX: usize = 1_024;

impl Config {
    /// Reads `file` and the environment, and sets `overrides` over both.
    ///
    /// # Errors
    /// One sentence about the first thing that is wrong.
    pub fn load(file: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        let page = load::load(file)?;
        Self::judge(page, overrides)
    }

    /// Reads `file` and sets `overrides` over it; the environment is left to the application that embeds the node.
    ///
    /// # Errors
    /// One sentence about the first thing that is wrong.
    pub fn of_file(file: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        Self::judge(load::load_file(file)?, overrides)
    }

    fn judge(mut page: Page, overrides: Overrides) -> Result<Self, ConfigError> {
        let (insecure_open, join) = (overrides.insecure_open, overrides.join.clone());
        override_page(&mut page, overrides);
        access::take_stored_key(&mut page);
        not_yet::refuse(&page)?;
        let listen = multiaddrs("listen", &page.listen)?;
        if listen.is_empty() {
            return Err(ConfigError("`listen` is empty: name at least one address, such as /ip4/127.0.0.1/tcp/0".to_owned()));
        }
        let mut access = access::access(&page)?;
        if let Some(invite) = &join {
            access::join(&mut access, invite, &page)?;
        }
        let closed = !access.network_keys.is_open() || access.allow != Peers::All;
        reach::check_listen(&listen, closed || insecure_open)?;
        let network_key_files = access::key_files(&page);
        let peers = multiaddrs("peers", &page.peers)?;
        let http = reach::http(&page.http)?;
        let (datasets, disabled) = datasets(&page)?;
        check_range("max_clock_skew", page.max_clock_skew, CLOCK_SKEW_MIN, CLOCK_SKEW_MAX)?;
        let needed = CACHE_BYTES_MIN * datasets.len() as u64;
        if page.cache_bytes.0 < needed {
            return Err(ConfigError(format!(
                "`cache_bytes` is {}, but {} datasets need at least {}",
                page.cache_bytes,
                datasets.len(),
                bytesize::ByteSize(needed)
            )));
        }
        let limits = limits::limits(&page.limits)?;
        let health = health::health(&page.health, limits.connections_max)?;
        Ok(Self {
            data_dir: page.data_dir,
            listen,
            peers,
            access,
            limits,
            mdns: page.mdns,
            network_key_files,
            max_clock_skew: page.max_clock_skew,
            cache_bytes: page.cache_bytes.0,
            http,
            health,
            datasets,
            disabled,
            multi_dataset: page.features.multi_dataset,
            join,
        })
    }
}

/// A page is judged without a panic, and what is accepted holds what the fields promise. Files that it names are not read.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_page(text: &str) {
    let Ok(mut page) = load::fuzz(text) else { return };
    page.network_key_file.clear();
    page.data_dir = PathBuf::from("/nonexistent");
    page.http.token_file = None;
    if let Ok(config) = Config::judge(page, Overrides::default()) {
        assert!(!config.listen.is_empty() && !config.datasets.is_empty());
        assert!(config.cache_bytes >= CACHE_BYTES_MIN * config.datasets.len() as u64);
        assert!(config.http.addr.ip().is_loopback(), "beyond loopback it asks for a token");
    }
}

/// A definition of a dataset that was created at run time: what is accepted is accepted at the next start, as the same.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_definition(bytes: &[u8]) {
    let Ok(definition) = serde_json::from_slice(bytes) else { return };
    let Ok(new) = NewDataset::judge(definition) else { return };
    let written = serde_json::to_vec_pretty(&new.definition).expect("JSON is written");
    let read = serde_json::from_slice(&written).expect("and read");
    let again = NewDataset::judge(read).expect("what was accepted is");
    assert_eq!((&again.dataset, &again.definition), (&new.dataset, &new.definition));
    assert_eq!(format!("{:?}", again.settings), format!("{:?}", new.settings));
    assert!(again.settings.registration.is_valid() && again.settings.collections_max.is_valid());
}

/// What a flag says can be said again.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_dataset_flag(text: &str) {
    if let Ok(flag) = text.parse::<DatasetFlag>() {
        let kind = flag.kind.map_or_else(String::new, |kind| format!(":{kind}"));
        let collections = flag.collections.as_ref().map_or_else(String::new, |names| format!("={}", names.join(",")));
        assert_eq!(format!("{}{kind}{collections}", flag.dataset).parse(), Ok(flag));
    }
}

/// An address that is accepted is accepted as it is shown.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_multiaddr(text: &str) {
    if let Ok(address) = multiaddr(text) {
        assert_eq!(multiaddr(&address.to_string()), Ok(address));
    }
    let _ = reach::http(&page::HttpPage { addr: text.to_owned(), token_file: None });
}

fn override_page(page: &mut Page, overrides: Overrides) {
    if let Some(data_dir) = overrides.data_dir {
        page.data_dir = data_dir;
    }
    if !overrides.listen.is_empty() {
        page.listen = overrides.listen;
    }
    if !overrides.peers.is_empty() {
        page.peers = overrides.peers;
    }
    if !overrides.network_keys.is_empty() {
        page.network_key_file = overrides.network_keys.iter().map(|file| file.display().to_string()).collect();
    }
    if let Some(addr) = overrides.http {
        page.http.addr = addr;
    }
    if !overrides.datasets.is_empty() {
        let configured = std::mem::take(&mut page.datasets);
        for flag in overrides.datasets {
            let mut dataset = configured.get(flag.dataset.as_str()).cloned().unwrap_or_default();
            dataset.enabled = true;
            if let Some(kind) = flag.kind {
                dataset.kind = kind.to_string();
            }
            if let Some(collections) = flag.collections {
                dataset.collections = collections;
            }
            page.datasets.insert(flag.dataset.to_string(), dataset);
        }
    } else if page.datasets.is_empty() {
        // The only default that registers anything: a first try replicates without a word of configuration.
        let everything = DatasetPage { collections: vec![EVERYTHING.to_owned()], ..DatasetPage::default() };
        page.datasets.insert(DatasetId::primary().to_string(), everything);
    }
}

fn multiaddrs(key: &str, texts: &[String]) -> Result<Vec<Multiaddr>, ConfigError> {
    texts.iter().map(|text| reach::multiaddr(text).map_err(|why| ConfigError(format!("`{key}`: {text}: {why}")))).collect()
}

/// Why a dataset does not run where `features.multi_dataset` is off.
pub const ONLY_PRIMARY: &str = "disabled: `features.multi_dataset` is off, so only `primary` runs";

type Judged = (BTreeMap<DatasetId, DatasetSettings>, BTreeMap<DatasetId, DisabledDataset>);

/// The datasets that run, and those that don't. What a disabled one says must be valid, too: it is enabled by a restart.
fn datasets(page: &Page) -> Result<Judged, ConfigError> {
    let (mut datasets, mut disabled) = Judged::default();
    for (name, dataset) in &page.datasets {
        let id = DatasetId::new(name).map_err(|error| ConfigError(format!("`datasets.{name}`: {error}")))?;
        let settings = dataset_settings(&format!("datasets.{name}."), dataset)?;
        let why = match dataset.enabled {
            false => Some(format!("disabled: `datasets.{name}.enabled` is false in the configuration")),
            true if !page.features.multi_dataset && !id.is_primary() => Some(ONLY_PRIMARY.to_owned()),
            true => None,
        };
        match why {
            None => drop(datasets.insert(id, settings)),
            Some(reason) => drop(disabled.insert(id, DisabledDataset { kind: settings.kind, reason })),
        }
    }
    if datasets.is_empty() {
        let why = if page.features.multi_dataset { "" } else { "; `features.multi_dataset` is off, so only `primary` would" };
        return Err(ConfigError(format!("no dataset runs: enable one, or name one with --dataset{why}")));
    }
    Ok((datasets, disabled))
}

/// `table` is what stands before its keys in a sentence.
fn dataset_settings(table: &str, page: &DatasetPage) -> Result<DatasetSettings, ConfigError> {
    let key = |name: &str| format!("{table}{name}");
    let refused = |name: &str, why: String| ConfigError(format!("`{table}{name}`: {why}"));
    let kind = page.kind.parse().map_err(|why| refused("kind", why))?;
    if page.engine != "sled" {
        return Err(refused("engine", format!("{:?} is not a store engine: use `sled`", page.engine)));
    }
    for name in page.policy.keys().filter(|name| *name != "default") {
        Collection::user(name).map_err(|error| refused("policy", error.to_string()))?;
    }
    let sync = &page.sync;
    if sync.max_peers == 0 || sync.max_peers > PEERS_MAX {
        return Err(ConfigError(format!("`{}` is {}: use 1 to {PEERS_MAX}", key("sync.max_peers"), sync.max_peers)));
    }
    check_range(&key("sync.anti_entropy_interval"), sync.anti_entropy_interval, ANTI_ENTROPY_MIN, CLOCK_SKEW_MAX)?;
    check_range(&key("sync.maintenance_interval"), sync.maintenance_interval, ANTI_ENTROPY_MIN, CLOCK_SKEW_MAX)?;
    if sync.announce_interval > sync.anti_entropy_interval {
        return Err(ConfigError(format!(
            "`{}` ({}) is longer than `sync.anti_entropy_interval` ({}): peers would hear of commits later than they look for them",
            key("sync.announce_interval"),
            humantime::format_duration(sync.announce_interval),
            humantime::format_duration(sync.anti_entropy_interval)
        )));
    }
    Ok(DatasetSettings {
        kind,
        lineage: lineage(page.lineage.as_deref()).map_err(|why| refused("lineage", why))?,
        registration: registration(&page.collections).map_err(|why| refused("collections", why))?,
        collections_max: registration(&page.collections_max).map_err(|why| refused("collections_max", why))?,
        readers: access::peers(&key("readers"), &page.readers)?,
        writers: access::peers(&key("writers"), &page.writers)?,
        sync: SyncSettings {
            announce_interval: sync.announce_interval,
            anti_entropy_interval: sync.anti_entropy_interval,
            max_peers: sync.max_peers,
            maintenance_interval: sync.maintenance_interval,
        },
    })
}

fn lineage(text: Option<&str>) -> Result<LineageSetting, String> {
    match text {
        None => Ok(LineageSetting::Open),
        Some("new") => Ok(LineageSetting::New),
        Some(text) => match text.parse() {
            Ok(Lineage::ZERO) => Err(format!("{} is what a dataset has without one: leave it out", Lineage::ZERO)),
            Ok(lineage) => Ok(LineageSetting::Fixed(lineage)),
            Err(error) => Err(format!("{error}, or `new`")),
        },
    }
}

/// `*` is everything and stands alone; nothing means nothing.
fn registration(names: &[String]) -> Result<Registration, String> {
    match names {
        [only] if only == EVERYTHING => return Ok(Registration::all()),
        names if names.iter().any(|name| name == EVERYTHING) => {
            return Err("`*` registers every collection and stands alone".to_owned());
        }
        names if names.len() > REGISTRATION_COLLECTIONS_MAX => {
            return Err(format!("{} collections: at most {REGISTRATION_COLLECTIONS_MAX}, or `*`", names.len()));
        }
        _ => {}
    }
    let collections: Result<Vec<_>, _> = names.iter().map(|name| Collection::user(name)).collect();
    collections.map(Registration::of).map_err(|error| error.to_string())
}

fn check_range(key: &str, value: Duration, least: Duration, most: Duration) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let [value, least, most] = [value, least, most].map(humantime::format_duration);
    Err(ConfigError(format!("`{key}` is {value}: use {least} to {most}")))
}

#[cfg(test)]
mod tests;
