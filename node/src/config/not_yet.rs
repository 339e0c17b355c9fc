//! Settings that are understood but have no effect in this version. A value that would silently do nothing is refused: who wrote
//! it counts on it.

use super::ConfigError;
use super::page::{DatasetPage, PEER_LEASE, Page, SyncPage};

/// Refuses the first setting of the page that this version can't honour.
pub fn refuse(page: &Page) -> Result<(), ConfigError> {
    if page.mdns && !cfg!(feature = "mdns") {
        return Err(ConfigError("`mdns`: this build has no mDNS (the cargo feature `mdns` is off): leave it out".to_owned()));
    }
    page.datasets.iter().try_for_each(|(name, dataset)| refuse_in_dataset(name, dataset))
}

/// Refuses the first setting of a dataset that this version can't honour.
pub fn refuse_in_dataset(name: &str, dataset: &DatasetPage) -> Result<(), ConfigError> {
    let default = SyncPage::default();
    let sync = &dataset.sync;
    let settings = [
        ("policy", dataset.policy.values().any(|policy| policy != "lww")),
        ("images_before", !dataset.images_before.is_empty()),
        ("peer_lease", dataset.peer_lease != PEER_LEASE),
        ("retention", dataset.retention.is_some()),
        ("disk_quota", dataset.disk_quota.is_some()),
        ("sync.max_entries_per_cycle", sync.max_entries_per_cycle != default.max_entries_per_cycle),
        ("sync.bandwidth_max", sync.bandwidth_max != default.bandwidth_max),
        ("sync.weight", sync.weight != default.weight),
    ];
    refuse_first(&format!("datasets.{name}."), &settings)
}

fn refuse_first(table: &str, settings: &[(&str, bool)]) -> Result<(), ConfigError> {
    match settings.iter().find(|(_, used)| *used) {
        None => Ok(()),
        Some((key, _)) => Err(ConfigError(format!(
            "`{table}{key}` is not supported by this version yet: leave it out, or wait for a version that honours it"
        ))),
    }
}
