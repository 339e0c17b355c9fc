//! Who may do what: lists of peers, as configuration writes them.

use std::collections::BTreeSet;
use std::str::FromStr as _;

use crate::id::{NameError, PeerId};

/// Everybody, or these peers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Peers {
    /// Whoever may connect.
    #[default]
    All,
    /// Nobody else.
    Only(BTreeSet<PeerId>),
}

/// Why words are not a list of peers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeersError {
    /// `*` beside peer ids.
    #[error("`*` is everybody and stands alone")]
    NotAlone,
    /// A word that is no peer id.
    #[error(transparent)]
    Peer(#[from] NameError),
}

impl Peers {
    /// Reads `*`, which stands alone, or peer ids. No word means nobody.
    ///
    /// # Errors
    /// [`PeersError`].
    pub fn parse(words: &[String]) -> Result<Self, PeersError> {
        match words {
            [only] if only == "*" => Ok(Self::All),
            words if words.iter().any(|word| word == "*") => Err(PeersError::NotAlone),
            words => Ok(Self::Only(words.iter().map(|word| PeerId::from_str(word)).collect::<Result<_, _>>()?)),
        }
    }

    /// Whether the peer is among them.
    #[must_use]
    pub fn contains(&self, peer: &PeerId) -> bool {
        match self {
            Self::All => true,
            Self::Only(peers) => peers.contains(peer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_spelled_out_and_no_word_means_nobody() {
        let (one, two) = (PeerId([1; 32]), PeerId([2; 32]));
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert!(Peers::parse(&words(&["*"])).unwrap().contains(&one));
        let only = Peers::parse(&words(&[&one.to_string()])).unwrap();
        assert!(only.contains(&one) && !only.contains(&two));
        assert!(!Peers::parse(&[]).unwrap().contains(&one));
        assert_eq!(Peers::parse(&words(&["*", &one.to_string()])), Err(PeersError::NotAlone));
        assert!(matches!(Peers::parse(&words(&["bob"])), Err(PeersError::Peer(_))));
    }
}
