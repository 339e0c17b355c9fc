//! Tokens name a write. They are opaque to users, and versioned.

use std::fmt;
use std::str::FromStr;

use crate::id::{Epoch, Hash, PeerId, WriterId};
use crate::limits::SEQ_MAX;

/// Names a write: its writer, number, and four bytes of its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Who wrote.
    pub writer: WriterId,
    /// Which commit.
    pub seq: u64,
    /// The first bytes of its hash: a token of a fork or another dataset is noticed.
    pub hash: [u8; 4],
}

/// Text that is not a token of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a token of this node's version")]
pub struct TokenError;

const VERSION: u8 = 1;

impl Token {
    /// The token of a commit.
    #[must_use]
    pub fn new(writer: WriterId, seq: u64, hash: Hash) -> Self {
        Self { writer, seq, hash: [hash.0[0], hash.0[1], hash.0[2], hash.0[3]] }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(61);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.writer.peer.0);
        bytes.extend_from_slice(&self.writer.epoch.0);
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.hash);
        f.write_str(&data_encoding::BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for Token {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bytes = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| TokenError)?;
        let (version, rest) = bytes.split_first().ok_or(TokenError)?;
        let rest: &[u8; 60] = rest.try_into().map_err(|_| TokenError)?;
        if *version != VERSION {
            return Err(TokenError);
        }
        let mut peer = [0; 32];
        let mut epoch = [0; 16];
        let mut seq = [0; 8];
        let mut hash = [0; 4];
        peer.copy_from_slice(&rest[..32]);
        epoch.copy_from_slice(&rest[32..48]);
        seq.copy_from_slice(&rest[48..56]);
        hash.copy_from_slice(&rest[56..]);
        let seq = u64::from_be_bytes(seq);
        let writer = WriterId { peer: PeerId(peer), epoch: Epoch(epoch) };
        if (1..=SEQ_MAX).contains(&seq) { Ok(Self { writer, seq, hash }) } else { Err(TokenError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_as_it_was_written() {
        let token = Token::new(WriterId { peer: PeerId([1; 32]), epoch: Epoch([2; 16]) }, 77, Hash([3; 32]));
        assert_eq!(token.to_string().parse(), Ok(token));
        for bad in ["", "abc", "!", &"A".repeat(82)] {
            assert_eq!(bad.parse::<Token>(), Err(TokenError));
        }
    }
}
