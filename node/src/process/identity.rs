//! The node's identity on disk: an ed25519 secret key in libp2p's protobuf encoding (68 bytes), so that libp2p's own tools read
//! it. A file of the bare 32 secret bytes is read as well.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anabranch_protocol::commit::Identity;
use libp2p::identity::Keypair;

use super::Failure;
use super::data_dir::write_whole;

/// File of the identity in a data directory.
pub const IDENTITY_FILE: &str = "identity.key";

/// A node's secret key.
#[derive(Clone)]
pub struct NodeKey {
    secret: [u8; 32],
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeKey({})", self.identity().peer())
    }
}

impl NodeKey {
    /// A new key from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self { secret: rand::random() }
    }

    /// The key in `dir`, made on first use.
    ///
    /// # Errors
    /// [`Failure::Other`] if the file can't be read, written, or is not a key.
    pub fn in_dir(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join(IDENTITY_FILE);
        match fs::read(&path) {
            Ok(bytes) => {
                let key = Self::decode(&bytes).ok_or_else(|| {
                    Failure::Other(format!(
                        "{} is not an ed25519 identity: restore it from a backup, or move it away",
                        path.display()
                    ))
                })?;
                close_to_others(&path)?;
                Ok(key)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let key = Self::generate();
                write_whole(&path, &key.encode())
                    .map_err(|error| Failure::other(format!("can't write {}", path.display()), error))?;
                Ok(key)
            }
            Err(error) => Err(Failure::other(format!("can't read {}", path.display()), error)),
        }
    }

    /// What signs commits.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity::from_secret(&self.secret)
    }

    /// What libp2p proves itself with; the same key.
    #[must_use]
    pub fn keypair(&self) -> Keypair {
        Keypair::ed25519_from_bytes(self.secret).expect("32 bytes are an ed25519 secret")
    }

    /// As it is kept on disk.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.keypair().to_protobuf_encoding().expect("an ed25519 key has an encoding")
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        if let Ok(secret) = bytes.try_into() {
            return Some(Self { secret });
        }
        let keypair = Keypair::from_protobuf_encoding(bytes).ok()?.try_into_ed25519().ok()?;
        keypair.secret().as_ref().try_into().ok().map(|secret| Self { secret })
    }
}

/// A key that is read is written as one that reads the same.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Some(key) = NodeKey::decode(bytes) {
        let again = NodeKey::decode(&key.encode()).expect("a key is written as one");
        assert_eq!(again.secret, key.secret);
    }
}

/// A key that others can read is closed to them; that it was open is said, for it may be known by now.
fn close_to_others(path: &Path) -> Result<(), Failure> {
    let refused = |error| Failure::other(format!("can't protect {}", path.display()), error);
    let mode = fs::metadata(path).map_err(refused)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "the identity was readable by other users; its mode is 0600 now");
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(refused)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = NodeKey::in_dir(dir.path()).unwrap();
        let path = dir.path().join(IDENTITY_FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let again = NodeKey::in_dir(dir.path()).unwrap();
        assert_eq!(first.secret, again.secret);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(first.keypair().public().to_peer_id().to_string(), first.identity().peer().to_string());
    }

    #[test]
    fn bare_secrets_are_read_and_rubbish_is_not() {
        assert_eq!(NodeKey::decode(&[7; 32]).unwrap().secret, [7; 32]);
        assert!(NodeKey::decode(b"").is_none());
        assert!(NodeKey::decode(&[7; 68]).is_none());
    }
}
