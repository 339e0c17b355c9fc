//! Settings that are understood but have no effect in this version. A value that would silently do nothing is refused: who wrote
//! it counts on it.

use super::ConfigError;
use super::page::{DatasetPage, PEER_LEASE, Page, SyncPage};
use super::quantity::size_text;

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
    let other = dataset.policy.iter().find(|(_, policy)| *policy != "lww");
    let policy = other.map(|(collection, _)| format!("policy.{collection}"));
    let settings = [
        (policy.as_deref().unwrap_or("policy"), other.map(|(_, policy)| format!("{policy:?}"))),
        ("images_before", (!dataset.images_before.is_empty()).then(|| format!("{:?}", dataset.images_before))),
        ("peer_lease", (dataset.peer_lease != PEER_LEASE).then(|| humantime::format_duration(dataset.peer_lease).to_string())),
        ("retention", dataset.retention.as_ref().map(shown)),
        ("disk_quota", dataset.disk_quota.map(size_text)),
        ("sync.max_entries_per_cycle", other_than(&default.max_entries_per_cycle, &sync.max_entries_per_cycle)),
        ("sync.bandwidth_max", (sync.bandwidth_max != default.bandwidth_max).then(|| shown(&sync.bandwidth_max))),
        ("sync.weight", other_than(&default.weight, &sync.weight)),
    ];
    match settings.iter().find_map(|(key, value)| Some((key, value.as_ref()?))) {
        None => Ok(()),
        Some((key, value)) => Err(ConfigError(format!(
            "`datasets.{name}.{key}` = {value} is not supported by this version yet: leave it out, or wait for a version that \
             honours it"
        ))),
    }
}

fn other_than<T: PartialEq + ToString>(default: &T, value: &T) -> Option<String> {
    (value != default).then(|| value.to_string())
}

fn shown(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("a page's values are JSON")
}
