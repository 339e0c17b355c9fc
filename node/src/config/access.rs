//! Who gets in: network keys from their files, and the lists of `[access]`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anabranch_actors::node::AccessSettings;
use anabranch_protocol::access::Peers;
use anabranch_protocol::invite::Invite;
use anabranch_protocol::network_key::{Keyring, NETWORK_KEYS_MAX, NetworkKey};

use super::ConfigError;
use super::page::Page;

/// Judges `network_key_file` and `[access]`.
pub fn access(page: &Page) -> Result<AccessSettings, ConfigError> {
    let files = &page.network_key_file;
    if files.len() > NETWORK_KEYS_MAX {
        return Err(ConfigError(format!("`network_key_file` names {} files: at most {NETWORK_KEYS_MAX}", files.len())));
    }
    let keys: Vec<NetworkKey> = files.iter().map(|file| read_key(Path::new(file))).collect::<Result<_, _>>()?;
    let allow = if page.access.allow.is_empty() { Peers::All } else { peers("access.allow", &page.access.allow)? };
    let deny = match peers("access.deny", &page.access.deny)? {
        Peers::Only(peers) => peers,
        Peers::All => return Err(ConfigError("`access.deny` is `*`: no peer could ever connect; name peer ids".to_owned())),
    };
    if let Peers::Only(allowed) = &allow
        && let Some(both) = allowed.intersection(&deny).next()
    {
        return Err(ConfigError(format!("{both} is in `access.allow` and in `access.deny`: take it out of one")));
    }
    Ok(AccessSettings { network_keys: Keyring::new(keys), allow, deny })
}

/// Where a node that joined by an invite keeps its network key, in its data directory.
pub const STORED_KEY_FILE: &str = "network.key";

/// Takes the key that an invite brought, where no other is configured.
pub fn take_stored_key(page: &mut Page) {
    let stored = page.data_dir.join(STORED_KEY_FILE);
    if page.network_key_file.is_empty() && stored.is_file() {
        page.network_key_file = vec![stored.display().to_string()];
    }
}

/// Adds the network key of an invite, unless the node is in another network already.
pub fn join(access: &mut AccessSettings, invite: &Invite, page: &Page) -> Result<(), ConfigError> {
    let own = || page.network_key_file.join(", ");
    let keys = &access.network_keys;
    let why = match &invite.network_key {
        Some(key) if keys.is_open() => {
            access.network_keys = Keyring::new([key.clone()]);
            return Ok(());
        }
        Some(key) if keys.contains(key) => return Ok(()),
        None if keys.is_open() => return Ok(()),
        Some(_) => format!("the invite is for another network: this node has another network key, in {}", own()),
        None => format!("the invite is for a network without a key, and this node has one, in {}", own()),
    };
    Err(ConfigError(format!(
        "--join: {why}. Nothing was changed: join with a data directory of its own (--data-dir), or rotate the key first"
    )))
}

/// A list of peer ids, or `*`.
pub fn peers(key: &str, words: &[String]) -> Result<Peers, ConfigError> {
    Peers::parse(words).map_err(|error| ConfigError(format!("`{key}`: {error}")))
}

/// The files of network keys.
pub fn key_files(page: &Page) -> Vec<PathBuf> {
    page.network_key_file.iter().map(PathBuf::from).collect()
}

/// Says that other users of the machine can read a secret. Its file may be shared on purpose, so its mode is not ours to change.
pub fn warn_if_shared(file: &Path, secret: &str) {
    // A file that is gone since it was read is no secret to warn of.
    let shared = std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0);
    if shared {
        tracing::warn!(file = %file.display(), "{secret} is readable by other users: chmod 600, and replace it if they read it");
    }
}

fn read_key(file: &Path) -> Result<NetworkKey, ConfigError> {
    let refused = |why: String| ConfigError(format!("`network_key_file`: {}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| refused(format!("can't be read: {error}")))?;
    warn_if_shared(file, "the network key");
    NetworkKey::from_text(&text).map_err(|error| refused(error.to_string()))
}
