//! The effective configuration, each value with where it came from.

use std::path::Path;

use serde_json::{Map, Value as Json, json};

use super::load::{ENV_LEVEL, ENV_PREFIX, layers};
use super::page::Page;
use super::{ConfigError, Overrides, access, load, override_page};

/// One value.
#[derive(Debug)]
pub struct Setting {
    /// The tables it is in, and its own key.
    pub path: Vec<String>,
    /// What it is.
    pub value: Json,
    /// Who says so.
    pub source: String,
}

/// Every value of a configuration, in the order of its page.
///
/// # Errors
/// As [`super::Config::load`].
pub fn settings(file: Option<&Path>) -> Result<Vec<Setting>, ConfigError> {
    let mut page: Page = load::load(file)?;
    override_page(&mut page, Overrides::default());
    let configured = !page.network_key_file.is_empty();
    access::take_stored_key(&mut page);
    let stored = !configured && !page.network_key_file.is_empty();
    let tree = serde_json::to_value(&page).map_err(|error| ConfigError(format!("the configuration can't be shown: {error}")))?;
    let layers = layers(file)?;
    let source = |path: &[String]| {
        if stored && path == ["network_key_file"] {
            return "kept by --join".to_owned();
        }
        let Some(metadata) = layers.find_metadata(&path.join(".")) else { return "default".to_owned() };
        match file {
            Some(file) if !metadata.name.contains("environment") => file.display().to_string(),
            _ => format!("{ENV_PREFIX}{}", path.join(ENV_LEVEL).to_uppercase()),
        }
    };
    let mut settings = Vec::new();
    gather(&tree, &mut Vec::new(), &mut |path, value| {
        settings.push(Setting { path: path.to_vec(), value: value.clone(), source: source(path) });
    });
    Ok(settings)
}

/// Maps that are values of one key, not tables.
const INLINE: [&str; 2] = ["policy", "retention"];

fn gather(value: &Json, path: &mut Vec<String>, take: &mut dyn FnMut(&[String], &Json)) {
    match value {
        Json::Object(table) if path.last().is_none_or(|last| !INLINE.contains(&last.as_str()) || path.len() != 3) => {
            // A table's own keys come before the tables in it.
            for (key, value) in
                table.iter().filter(|(_, value)| !value.is_object()).chain(table.iter().filter(|(_, value)| value.is_object()))
            {
                path.push(key.clone());
                gather(value, path, take);
                path.pop();
            }
        }
        Json::Null => {}
        value => take(path, value),
    }
}

/// As a TOML file with the source behind each value.
#[must_use]
pub fn toml(settings: &[Setting]) -> String {
    let (mut text, mut table) = (String::new(), &[][..]);
    for Setting { path, value, source } in settings {
        let (key, tables) = path.split_last().map_or(("", &[][..]), |(key, tables)| (key.as_str(), tables));
        if tables != table {
            let names: Vec<_> = tables.iter().map(|name| bare(name)).collect();
            text += &format!("\n[{}]\n", names.join("."));
            table = tables;
        }
        text += &format!("{:<40} # {source}\n", format!("{} = {}", bare(key), inline(value)));
    }
    text
}

/// As JSON: `{"key.of.it": {"value", "source"}}`.
#[must_use]
pub fn json(settings: &[Setting]) -> Json {
    let entry = |setting: &Setting| (setting.path.join("."), json!({ "value": setting.value, "source": setting.source }));
    Json::Object(settings.iter().map(entry).collect::<Map<_, _>>())
}

fn bare(key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if plain { key.to_owned() } else { Json::from(key).to_string() }
}

fn inline(value: &Json) -> String {
    match value {
        Json::Object(map) => {
            let fields: Vec<_> = map
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| format!("{} = {}", bare(key), inline(value)))
                .collect();
            format!("{{ {} }}", fields.join(", ")).replace("{  }", "{}")
        }
        Json::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_a_configuration_that_comes_to_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        let written = "max_clock_skew = '2m'\n[health]\nlag_time_max = '2h'\ndisk_free_min = '1GiB'\n[datasets.'a.b']\ncollections = ['orders']\npolicy = { default = 'lww' }\n[datasets.'a.b'.sync]\nannounce_interval = '1s'\n";
        std::fs::write(&file, written).unwrap();
        let first = settings(Some(&file)).unwrap();
        let skew = first.iter().find(|setting| setting.path == ["max_clock_skew"]).unwrap();
        assert_eq!((skew.value.as_str(), skew.source.as_str()), (Some("2m"), file.to_str().unwrap()));
        let of_health = |key: &str| first.iter().find(|setting| setting.path == ["health", key]).unwrap();
        assert_eq!(of_health("lag_time_max").source, file.to_str().unwrap());
        assert_eq!((of_health("peers_min").value.as_u64(), of_health("peers_min").source.as_str()), (Some(0), "default"));
        assert_eq!(first.iter().find(|setting| setting.path == ["http", "addr"]).unwrap().source, "default");
        let again = dir.path().join("b.toml");
        std::fs::write(&again, toml(&first)).unwrap();
        let second = settings(Some(&again)).unwrap();
        let plain = |settings: &[Setting]| settings.iter().map(|s| (s.path.clone(), s.value.clone())).collect::<Vec<_>>();
        assert_eq!(plain(&first), plain(&second), "{}", toml(&first));
    }
}
