//! Reads the page: a TOML file, and environment variables over it. An unknown key is an error that names the nearest known one.

use std::path::Path;

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Env, Format as _, Toml};

use super::ConfigError;
use super::page::Page;

/// Variables of the environment that configure: `ANABRANCH_HTTP__ADDR` is `addr` of `[http]`.
pub(super) const ENV_PREFIX: &str = "ANABRANCH_";
/// Between the levels of a key in a variable's name.
pub(super) const ENV_LEVEL: &str = "__";

/// Reads `file` if there is one, and the environment over it.
pub fn load(file: Option<&Path>) -> Result<Page, ConfigError> {
    layers(file)?.extract().map_err(|error: figment::Error| {
        let from_environment = error.metadata.as_ref().is_some_and(|metadata| metadata.name.contains("environment"));
        match file {
            Some(file) if !from_environment => sentence(error, &file.display().to_string()),
            _ => sentence(error, &format!("environment variables {ENV_PREFIX}…")),
        }
    })
}

/// Reads `file` if there is one, and no environment: that belongs to the application that embeds the node.
pub fn load_file(file: Option<&Path>) -> Result<Page, ConfigError> {
    let source = file.map_or_else(String::new, |file| file.display().to_string());
    written(file)?.extract().map_err(|error| sentence(error, &source))
}

/// `file` and the environment over it, unread.
pub(super) fn layers(file: Option<&Path>) -> Result<Figment, ConfigError> {
    Ok(written(file)?.merge(Env::prefixed(ENV_PREFIX).split(ENV_LEVEL)))
}

fn written(file: Option<&Path>) -> Result<Figment, ConfigError> {
    let text = match file {
        None => String::new(),
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| ConfigError(format!("can't read the configuration {}: {error}", file.display())))?,
    };
    Ok(Figment::from(Toml::string(&text)))
}

/// Reads a page from text alone, as a file is read.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn fuzz(text: &str) -> Result<Page, ConfigError> {
    Figment::from(Toml::string(text)).extract().map_err(|error| sentence(error, "the text"))
}

/// One sentence about the first thing that is wrong in `source`.
pub fn sentence(error: figment::Error, source: &str) -> ConfigError {
    let Some(error) = error.into_iter().next() else { return ConfigError(format!("{source} can't be read")) };
    let path = error.path.join(".");
    ConfigError(match &error.kind {
        Kind::UnknownField(key, known) => {
            let (table, key) = path.rsplit_once('.').map_or((path.as_str(), key.as_str()), |(table, last)| {
                if last == key { (table, key.as_str()) } else { (path.as_str(), key.as_str()) }
            });
            let table = if table == key { "" } else { table };
            unknown_key(table, key, known, source)
        }
        kind if path.is_empty() => format!("{source}: {kind}"),
        kind => format!("{source}: `{path}`: {kind}"),
    })
}

fn unknown_key(table: &str, key: &str, known: &[&str], source: &str) -> String {
    let name = |key: &str| if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
    match nearest(key, known) {
        Some(near) => format!("{source}: unknown key `{}`: did you mean `{}`?", name(key), name(near)),
        None => format!("{source}: unknown key `{}`", name(key)),
    }
}

/// The known key that looks most like `key`.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    known.iter().copied().max_by(|a, b| strsim::jaro_winkler(key, a).total_cmp(&strsim::jaro_winkler(key, b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(toml: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("anabranch.toml");
        std::fs::write(&file, toml).unwrap();
        load(Some(&file)).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        assert!(refused("data_dri = 'x'").ends_with("unknown key `data_dri`: did you mean `data_dir`?"));
        let health = refused("[health]\nlag_commit_max = 1");
        assert!(health.ends_with("unknown key `health.lag_commit_max`: did you mean `health.lag_commits_max`?"), "{health}");
        assert!(refused("[http]\nadr = 'x'").ends_with("unknown key `http.adr`: did you mean `http.addr`?"));
        let deep = refused("[datasets.logs.sync]\nanounce_interval = '1s'");
        let key = "datasets.logs.sync.anounce_interval`: did you mean `datasets.logs.sync.announce_interval`?";
        assert!(deep.ends_with(key), "{deep}");
    }

    #[test]
    fn a_value_of_the_wrong_shape_names_its_key() {
        let message = refused("max_clock_skew = 'soon'");
        assert!(message.contains("max_clock_skew") && message.contains("soon"), "{message}");
        assert!(refused("listen = 5").contains("listen"));
        assert!(refused("listen = [").contains("anabranch.toml"));
    }

    #[test]
    fn a_missing_file_is_an_error() {
        assert!(load(Some(Path::new("/nonexistent/anabranch.toml"))).is_err());
    }
}
