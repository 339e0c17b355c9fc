//! An invite: one string that lets another node join. It says where a node listens, who it is, which network key to prove, and
//! which lineages its datasets have.
//!
//! ```text
//! anabranch1 base32(length of shape (u16 BE) ‖ shape (CBOR) ‖ first 4 bytes of BLAKE3 over both)
//! ```
//!
//! Letters count whatever their case, and white space is left out: an invite survives a terminal that wraps it. The length tells
//! one that was cut short from one that was damaged.
//!
//! **It is a secret**: whoever reads it has the network key. The time at which it expires keeps an old one from being used by
//! mistake; it takes nothing back.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::hlc::WallClock;
use crate::id::{DatasetId, Hash, Lineage, PeerId};
use crate::network_key::NetworkKey;

/// What every invite begins with; the digit that follows is its version.
pub const INVITE_PREFIX: &str = "anabranch";
/// Most addresses in an invite.
pub const INVITE_ADDRESSES_MAX: usize = 16;
/// Longest address, bytes.
pub const INVITE_ADDRESS_BYTES_MAX: usize = 256;
/// Most lineages in an invite; `Hello` brings the others.
pub const INVITE_LINEAGES_MAX: usize = 64;
/// How far a clock may be behind that of the node which made the invite, before it can't say whether the invite expired.
pub const INVITE_SKEW_MAX: Duration = Duration::from_secs(5 * 60);

const VERSION: char = '1';
const CHECKSUM_CONTEXT: &str = "anabranch 1 invite checksum";
const CHECKSUM_BYTES: usize = 4;
/// Largest shape, bytes. All bounds above fit in.
const SHAPE_BYTES_MAX: usize = 14 << 10;
/// Characters that hold the length.
const LENGTH_CHARS: usize = 8;

/// See the module documentation.
#[derive(Clone)]
pub struct Invite {
    /// Who invites.
    pub peer: PeerId,
    /// Where to dial it, as multiaddrs without `/p2p/…`.
    pub addresses: Vec<String>,
    /// The key of its network; none where that is open.
    pub network_key: Option<NetworkKey>,
    /// When it was made, by the clock of who made it.
    pub made_at: WallClock,
    /// From when on it is not taken any more.
    pub expires_at: Option<WallClock>,
    /// Lineages of its datasets, those that have one.
    pub lineages: BTreeMap<DatasetId, Lineage>,
}

/// Never shows the key, nor anything that makes an invite whole.
impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invite").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// Why a text is not an invite of this version. It never quotes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// It begins with something else.
    #[error("this is not an invite: they begin with `{INVITE_PREFIX}{VERSION}`")]
    NotAnInvite,
    /// It begins as an invite of another version.
    #[error(
        "this is an invite of version {0}, and this node reads version {VERSION}: upgrade it, or have the invite made by a node of this version"
    )]
    Version(char),
    /// It ends too early.
    #[error("the invite is cut short: {have} of {want} characters are there; copy all of it")]
    CutShort { have: usize, want: usize },
    /// It goes on behind its end.
    #[error("the invite is {extra} characters too long: something was pasted behind it, or it is damaged")]
    TooLong { extra: usize },
    /// A character that no invite has.
    #[error("character {position} is none that an invite has: copy it again")]
    Character { position: usize },
    /// The checksum differs.
    #[error("the invite is damaged (its checksum differs): copy it again")]
    Checksum,
    /// Whole, but not what this version writes.
    #[error("the invite is whole but makes no sense to this version: {0}")]
    Content(#[from] DecodeError),
}

/// Why an invite is not taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untimely {
    /// It expired so long ago, by the clock of who was to join.
    Expired {
        /// How long.
        ago: Duration,
    },
    /// The clock of who was to join is behind the one that made it, so that it can't tell whether the invite expired.
    ClockBehind {
        /// How far.
        by: Duration,
    },
}

/// What is encoded. ❄
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    #[serde(rename = "p")]
    peer: PeerId,
    #[serde(rename = "a")]
    addresses: Vec<String>,
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    network_key: Option<Hash>,
    #[serde(rename = "t")]
    made_at: u64,
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    #[serde(rename = "l", default, skip_serializing_if = "BTreeMap::is_empty")]
    lineages: BTreeMap<DatasetId, Lineage>,
}

impl Invite {
    /// The string. What is over a bound is left out: the last addresses and lineages.
    #[must_use]
    pub fn to_text(&self) -> String {
        let fits = |address: &&String| address.len() <= INVITE_ADDRESS_BYTES_MAX;
        let shape = codec::encode(&Shape {
            peer: self.peer,
            addresses: self.addresses.iter().filter(fits).take(INVITE_ADDRESSES_MAX).cloned().collect(),
            network_key: self.network_key.as_ref().map(|key| Hash(*key.secret())),
            made_at: self.made_at.0,
            expires_at: self.expires_at.map(|at| at.0),
            lineages: self.lineages.iter().take(INVITE_LINEAGES_MAX).map(|(dataset, at)| (dataset.clone(), *at)).collect(),
        });
        let length = u16::try_from(shape.len()).expect("the bounds keep it below 14 KiB");
        let mut bytes = [&length.to_be_bytes()[..], &shape].concat();
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        format!("{INVITE_PREFIX}{VERSION}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }

    /// Whether a text is meant to be an invite, of whatever version.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        let rest = strip_prefix(text.trim_start());
        rest.and_then(|rest| rest.chars().next()).is_some_and(|version| version.is_ascii_digit())
    }

    /// Reads the string, strictly.
    ///
    /// # Errors
    /// [`InviteError`].
    pub fn from_text(text: &str) -> Result<Self, InviteError> {
        // Checked before anything is copied: no invite is that long.
        let chars: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).take(CHARS_MAX + 1).collect();
        let text: String = chars.iter().map(char::to_ascii_uppercase).collect();
        let rest = strip_prefix(&text).ok_or(InviteError::NotAnInvite)?;
        let body = match rest.chars().next() {
            Some(VERSION) => &rest[1..],
            Some(version) if version.is_ascii_digit() => return Err(InviteError::Version(version)),
            _ => return Err(InviteError::NotAnInvite),
        };
        let shape: Shape = codec::decode(&unwrap(body)?, SHAPE_BYTES_MAX)?;
        if shape.addresses.len() > INVITE_ADDRESSES_MAX || shape.lineages.len() > INVITE_LINEAGES_MAX {
            return Err(DecodeError::OutOfBounds("addresses or lineages").into());
        }
        if shape.addresses.iter().any(|address| address.len() > INVITE_ADDRESS_BYTES_MAX) {
            return Err(DecodeError::OutOfBounds("length of an address").into());
        }
        Ok(Self {
            peer: shape.peer,
            addresses: shape.addresses,
            network_key: shape.network_key.map(|secret| NetworkKey::new(secret.0)),
            made_at: WallClock(shape.made_at),
            expires_at: shape.expires_at.map(WallClock),
            lineages: shape.lineages,
        })
    }

    /// Whether it is still to be taken, by the clock of who joins.
    ///
    /// # Errors
    /// [`Untimely`].
    pub fn check_time(&self, now: WallClock) -> Result<(), Untimely> {
        let Some(expires_at) = self.expires_at else { return Ok(()) };
        let behind = Duration::from_millis(self.made_at.0.saturating_sub(now.0));
        if behind > INVITE_SKEW_MAX {
            return Err(Untimely::ClockBehind { by: behind });
        }
        match now.0.checked_sub(expires_at.0) {
            None => Ok(()),
            Some(ago) => Err(Untimely::Expired { ago: Duration::from_millis(ago) }),
        }
    }
}

const CHARS_MAX: usize = INVITE_PREFIX.len() + 1 + (2 + SHAPE_BYTES_MAX + CHECKSUM_BYTES).div_ceil(5) * 8;

fn strip_prefix(text: &str) -> Option<&str> {
    let (prefix, rest) = text.split_at_checked(INVITE_PREFIX.len())?;
    prefix.eq_ignore_ascii_case(INVITE_PREFIX).then_some(rest)
}

/// The shape's bytes out of the characters behind the version: length, alphabet and checksum are checked.
fn unwrap(body: &str) -> Result<Vec<u8>, InviteError> {
    let skipped = INVITE_PREFIX.len() + 1;
    let decode = |part: &str| {
        let refused = |error: data_encoding::DecodeError| InviteError::Character { position: skipped + error.position + 1 };
        BASE32_NOPAD.decode(part.as_bytes()).map_err(refused)
    };
    if let Some(wrong) = body.chars().position(|c| !matches!(c, 'A'..='Z' | '2'..='7')) {
        return Err(InviteError::Character { position: skipped + wrong + 1 });
    }
    let have = skipped + body.len();
    let Some(head) = body.get(..LENGTH_CHARS) else {
        return Err(InviteError::CutShort { have, want: skipped + LENGTH_CHARS });
    };
    let head = decode(head)?;
    let length = usize::from(u16::from_be_bytes([head[0], head[1]]));
    let want = skipped + ((2 + length + CHECKSUM_BYTES) * 8).div_ceil(5);
    if have < want {
        return Err(InviteError::CutShort { have, want });
    }
    if have > want {
        return Err(InviteError::TooLong { extra: have - want });
    }
    let bytes = decode(body)?;
    let (content, sum) = bytes.split_at(2 + length);
    if sum != checksum(content) {
        return Err(InviteError::Checksum);
    }
    Ok(content[2..].to_vec())
}

fn checksum(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key(CHECKSUM_CONTEXT, content);
    hash[..CHECKSUM_BYTES].try_into().expect("a hash is longer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> Invite {
        Invite {
            peer: PeerId([1; 32]),
            addresses: vec!["/ip4/192.0.2.1/tcp/4001".to_owned()],
            network_key: Some(NetworkKey::new([2; 32])),
            made_at: WallClock(1_000_000_000_000),
            expires_at: Some(WallClock(1_000_003_600_000)),
            lineages: BTreeMap::from([(DatasetId::new("logs").unwrap(), Lineage([3; 16]))]),
        }
    }

    fn open() -> Invite {
        Invite { network_key: None, expires_at: None, lineages: BTreeMap::new(), ..invite() }
    }

    const WHOLE: &str = "anabranch1acj2mylqlaqacaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcalbmgaxol3joa2c6mjzgixdalrsfyys65ddoaxtimbqgfqwwwbaaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibgc5a3aaaab2guuuiaaylydmaaaahi2tn75adbnsqwi3dpm5zvaaydambqgaydambqgaydambqga5xarv3m";
    const OPEN: &str = "anabranch1abf2gylqlaqacaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcaibaeaqcalbmgaxol3joa2c6mjzgixdalrsfyys65ddoaxtimbqgfqxigyaaaaorvffcaaof46rm4";

    #[test]
    fn the_bytes_of_an_invite_stay_what_they_are() {
        assert_eq!(invite().to_text(), WHOLE);
        assert_eq!(open().to_text(), OPEN);
        for text in [WHOLE, OPEN] {
            assert_eq!(Invite::from_text(text).unwrap().to_text(), text);
        }
        let read = Invite::from_text(WHOLE).unwrap();
        assert_eq!((read.peer, read.addresses, read.lineages), (invite().peer, invite().addresses, invite().lineages));
        assert_eq!(read.network_key.unwrap().secret(), &[2; 32]);
        assert_eq!((read.made_at, read.expires_at), (invite().made_at, invite().expires_at));
    }

    #[test]
    fn case_and_wrapping_do_not_matter() {
        let wrapped: Vec<&str> = [&WHOLE[..40], &WHOLE[40..]].to_vec();
        let text = format!("  {}\r\n", wrapped.join("\n  ").to_uppercase());
        assert_eq!(Invite::from_text(&text).unwrap().to_text(), WHOLE);
        assert!(Invite::is_meant(&text) && Invite::is_meant("anabranch2x") && !Invite::is_meant("anabranch-data/invite"));
    }

    #[test]
    fn what_is_no_whole_invite_is_refused_in_words_that_do_not_quote_it() {
        let refused = |text: &str| Invite::from_text(text).unwrap_err();
        for text in ["", "anabranch", "anabranch-network-key-1:00", "/ip4/192.0.2.1/tcp/4001", "äöü1xyzzyxyzzy"] {
            assert_eq!(refused(text), InviteError::NotAnInvite, "{text}");
        }
        assert_eq!(refused(&WHOLE.replacen('1', "2", 1)), InviteError::Version('2'));
        for end in INVITE_PREFIX.len() + 1..WHOLE.len() {
            let cut = refused(&WHOLE[..end]);
            assert!(matches!(cut, InviteError::CutShort { have, .. } if have == end), "{end}: {cut}");
        }
        assert_eq!(refused(&format!("{WHOLE}aaa")), InviteError::TooLong { extra: 3 });
        assert_eq!(refused(&format!("{}8{}", &WHOLE[..50], &WHOLE[51..])), InviteError::Character { position: 51 });
    }

    /// A single wrong character never goes through.
    #[test]
    fn every_single_wrong_character_is_found() {
        for at in INVITE_PREFIX.len() + 1..WHOLE.len() {
            for other in ['a', 'q', '7'] {
                if WHOLE[at..].starts_with(other) {
                    continue;
                }
                let text = format!("{}{other}{}", &WHOLE[..at], &WHOLE[at + 1..]);
                assert!(Invite::from_text(&text).is_err(), "{at} {other}");
            }
        }
    }

    fn forged(shape: &[u8]) -> String {
        let mut bytes = [&u16::try_from(shape.len()).unwrap().to_be_bytes()[..], shape].concat();
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        format!("anabranch1{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }

    #[test]
    fn what_is_whole_but_not_of_this_shape_or_out_of_bounds_is_refused() {
        let shape = |addresses: Vec<String>| {
            codec::encode(&Shape {
                peer: PeerId([1; 32]),
                addresses,
                network_key: None,
                made_at: 1,
                expires_at: None,
                lineages: BTreeMap::new(),
            })
        };
        assert!(Invite::from_text(&forged(&shape(vec!["a".into()]))).is_ok());
        let trailing = [shape(vec![]), vec![0]].concat();
        for bad in [shape(vec!["a".into(); 17]), shape(vec!["a".repeat(257)]), trailing, vec![0xa0], vec![]] {
            assert!(matches!(Invite::from_text(&forged(&bad)), Err(InviteError::Content(_))));
        }
        let many = Invite { addresses: vec!["/ip4/192.0.2.1/tcp/4001".into(); 40], ..invite() };
        assert_eq!(Invite::from_text(&many.to_text()).unwrap().addresses.len(), INVITE_ADDRESSES_MAX);
    }

    /// All bounds reached at once still make an invite.
    #[test]
    fn the_largest_invite_is_read_again() {
        let lineages = (0..200).map(|n| (DatasetId::new(&format!("{n:0>63}")).unwrap(), Lineage([9; 16]))).collect();
        let large = Invite { addresses: vec!["x".repeat(256); 16], lineages, ..invite() };
        let read = Invite::from_text(&large.to_text()).unwrap();
        assert_eq!((read.addresses.len(), read.lineages.len()), (16, INVITE_LINEAGES_MAX));
    }

    #[test]
    fn it_expires_by_the_clock_of_who_joins() {
        let made = invite().made_at.0;
        let check = |invite: &Invite, now: u64| invite.check_time(WallClock(now));
        assert_eq!(check(&invite(), made), Ok(()));
        assert_eq!(check(&invite(), made + 3_599_999), Ok(()));
        let ago = |millis| Err(Untimely::Expired { ago: Duration::from_millis(millis) });
        assert_eq!([check(&invite(), made + 3_600_000), check(&invite(), made + 3_602_000)], [ago(0), ago(2_000)]);
        assert_eq!(check(&invite(), made - 300_000), Ok(()), "clocks differ a little");
        assert_eq!(check(&invite(), made - 300_001), Err(Untimely::ClockBehind { by: Duration::from_millis(300_001) }));
        assert_eq!([check(&open(), 0), check(&open(), u64::MAX)], [Ok(()), Ok(())]);
    }

    #[test]
    fn it_is_never_shown() {
        let shown = format!("{:?}", invite());
        assert!(!shown.contains("192.0.2.1") && !shown.contains("ey"), "{shown}");
    }
}
