//! Keys and small values in a dataset's store. Frozen with format version 1; `docs/storage.md` is the reference.
//!
//! | prefix | key | value |
//! |---|---|---|
//! | `m` | name | one fact about the store |
//! | `l` | arrival (u64), part (u16) | a part of a log record |
//! | `s` | peer, epoch, seq (u64) | arrival of that commit |
//! | `f` | peer, epoch, seq (u64), first 8 bytes of the hash that both commits follow | the proof of a fork |
//! | `v` | peer, epoch | the writer's newest commit |
//! | `t` | collection | live rows and fingerprint |
//! | `r` | collection, 0, key | first part of a row |
//! | `p` | collection, 0, key, 0, part (u16) | a further part of a row |
//! | `e` | peer | when its `Hello` was first accepted, or when it was enrolled or demoted by hand (u64, milliseconds); 1 behind it: demoted |
//! | `w` | hash of an idempotency key (16) | what the write under that key was answered |
//! | `x` | collection, 0, record key prefix (18) | arrival of a commit with records of that collection |
//! | `d` | collection | the floor below which no row is left |
//! | `c` | collection or `*`, 0 | whether it is registered, and what is done about its past |
//! | `c` | collection or `*`, 0, peer, epoch | the writer's commits that are missing there |
//!
//! Integers in keys are big-endian, so that they sort; names hold no byte 0.

use anabranch_protocol::codec;
use anabranch_protocol::commit::{Change, Entry, Fork, Section};
use anabranch_protocol::conflict::{Row, Stamp};
use anabranch_protocol::coverage::{Scope, Span};
use anabranch_protocol::hlc::{Hlc, WallClock};
use anabranch_protocol::id::{Collection, Epoch, Hash, Key, KeyHash, PeerId, ShortHash, WriterId};
use anabranch_protocol::idempotency::Remembered;
use anabranch_protocol::limits::SEQ_MAX;
use anabranch_protocol::replica::Line;
use anabranch_protocol::value::content_hash;
use anabranch_protocol::vector::Head;
use serde::{Deserialize, Serialize};

/// Payload bytes of one part.
pub(super) const PART_BYTES: usize = 7_000;

pub(super) fn meta(name: &str) -> Vec<u8> {
    [b"m", name.as_bytes()].concat()
}

pub(super) fn log_part(arrival: u64, part: u16) -> [u8; 11] {
    let mut key = [b'l'; 11];
    key[1..9].copy_from_slice(&arrival.to_be_bytes());
    key[9..].copy_from_slice(&part.to_be_bytes());
    key
}

/// The arrival number and part of a log key.
pub(super) fn parse_log_part(key: &[u8]) -> Option<(u64, u16)> {
    let key: &[u8; 11] = key.try_into().ok()?;
    let arrival = u64::from_be_bytes(key[1..9].try_into().ok()?);
    Some((arrival, u16::from_be_bytes([key[9], key[10]])))
}

pub(super) fn writer_prefix(prefix: u8, writer: &WriterId) -> Vec<u8> {
    [&[prefix][..], &writer.peer.0, &writer.epoch.0].concat()
}

pub(super) fn seq_index(writer: &WriterId, seq: u64) -> Vec<u8> {
    let mut key = writer_prefix(b's', writer);
    key.extend_from_slice(&seq.to_be_bytes());
    key
}

/// The line and number in a key of the index.
pub(super) fn parse_seq_index(key: &[u8]) -> Option<(WriterId, u64)> {
    let peer = PeerId(key.get(1..33)?.try_into().ok()?);
    let epoch = Epoch(key.get(33..49)?.try_into().ok()?);
    Some((WriterId { peer, epoch }, parse_seq(key)?))
}

/// The number in a key of the index.
pub(super) fn parse_seq(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(49..)?.try_into().ok()?))
}

pub(super) fn fork_key(fork: &Fork) -> Vec<u8> {
    let mut key = writer_prefix(b'f', &fork.writer);
    key.extend_from_slice(&fork.seq.to_be_bytes());
    key.extend_from_slice(&fork.previous.short().0);
    key
}

pub(super) fn line_key(writer: &WriterId) -> Vec<u8> {
    writer_prefix(b'v', writer)
}

pub(super) fn enrolled_key(peer: &PeerId) -> Vec<u8> {
    [b"e", &peer.0[..]].concat()
}

/// What is behind the time in the value of a peer that is enrolled no more.
const DEMOTED: u8 = 1;

/// The value of an enrolment.
pub(super) fn encode_enrolment(since: WallClock, demoted: bool) -> Vec<u8> {
    let mut value = since.0.to_be_bytes().to_vec();
    if demoted {
        value.push(DEMOTED);
    }
    sealed(value)
}

/// The peer of an enrolment, and whether it was demoted.
pub(super) fn parse_enrolment(key: &[u8], value: &[u8]) -> Option<(PeerId, bool)> {
    let demoted = match unsealed(value)?.get(8..)? {
        [] => false,
        [DEMOTED] => true,
        _ => return None,
    };
    Some((PeerId(key.get(1..)?.try_into().ok()?), demoted))
}

pub(super) fn tally_key(collection: &Collection) -> Vec<u8> {
    [b"t", collection.as_str().as_bytes()].concat()
}

/// Largest tally or floor.
pub(super) const TALLY_BYTES_MAX: usize = 256;

/// Where it is remembered below which floor no row is left.
pub(super) fn swept_key(collection: &Collection) -> Vec<u8> {
    [b"d", collection.as_str().as_bytes()].concat()
}

pub(super) fn row_prefix(collection: &Collection) -> Vec<u8> {
    [b"r", collection.as_str().as_bytes(), &[0]].concat()
}

pub(super) fn row_key(collection: &Collection, key: &Key) -> Vec<u8> {
    [b"r", collection.as_str().as_bytes(), &[0], key.as_str().as_bytes()].concat()
}

pub(super) fn row_part(collection: &Collection, key: &Key, part: u16) -> Vec<u8> {
    [b"p", collection.as_str().as_bytes(), &[0], key.as_str().as_bytes(), &[0], &part.to_be_bytes()].concat()
}

pub(super) fn record_index_prefix(collection: &Collection) -> Vec<u8> {
    [b"x", collection.as_str().as_bytes(), &[0]].concat()
}

pub(super) fn record_index(collection: &Collection, prefix: &[u8; 18]) -> Vec<u8> {
    [b"x", collection.as_str().as_bytes(), &[0], prefix].concat()
}

pub(super) fn coverage_key(scope: &Scope) -> Vec<u8> {
    [b"c", scope.to_string().as_bytes(), &[0]].concat()
}

pub(super) fn span_key(scope: &Scope, writer: &WriterId) -> Vec<u8> {
    [&coverage_key(scope)[..], &writer.peer.0, &writer.epoch.0].concat()
}

/// The scope of a coverage row, and the writer if it is a span's.
pub(super) fn parse_coverage_key(key: &[u8]) -> Option<(Scope, Option<WriterId>)> {
    let end = key.iter().position(|byte| *byte == 0)?;
    let scope = match std::str::from_utf8(key.get(1..end)?).ok()? {
        "*" => Scope::All,
        name => Scope::One(Collection::new(name).ok()?),
    };
    let writer = match &key[end + 1..] {
        [] => None,
        rest => {
            let (peer, epoch) = rest.split_at_checked(32)?;
            Some(WriterId { peer: PeerId(peer.try_into().ok()?), epoch: Epoch(epoch.try_into().ok()?) })
        }
    };
    Some((scope, writer))
}

/// What a coverage row says, besides its spans.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CoverageHead {
    #[serde(rename = "r")]
    pub registered: bool,
    #[serde(rename = "k")]
    pub configured: bool,
    #[serde(rename = "i")]
    pub issuing: bool,
    /// How many spans there were when this was written: fewer are damage.
    #[serde(rename = "n")]
    pub spans: u64,
}

impl CoverageHead {
    pub(super) fn encode(&self) -> Vec<u8> {
        sealed(codec::encode(self))
    }
}

pub(super) fn decode_coverage_head(value: &[u8]) -> Option<CoverageHead> {
    codec::decode(unsealed(value)?, 256).ok()
}

pub(super) fn encode_span(span: Span) -> Vec<u8> {
    sealed(codec::encode(&(span.next, span.until)))
}

pub(super) fn decode_span(value: &[u8]) -> Option<Span> {
    let (next, until) = codec::decode(unsealed(value)?, 32).ok()?;
    // Past its end a span lies one after the last commit that there can be.
    let bounded = (1..=SEQ_MAX + 1).contains(&next) && until <= SEQ_MAX;
    bounded.then_some(Span { next, until })
}

/// Where it is remembered what a write under an idempotency key was answered.
pub(super) fn remembered_key(key: &KeyHash) -> [u8; 17] {
    let mut place = [b'w'; 17];
    place[1..].copy_from_slice(&key.0);
    place
}

pub(super) fn encode_remembered(remembered: &Remembered) -> Vec<u8> {
    sealed(codec::encode(remembered))
}

pub(super) fn decode_remembered(value: &[u8]) -> Option<Remembered> {
    codec::decode(unsealed(value)?, Remembered::BYTES_MAX).ok()
}

pub(super) fn parse_remembered(key: &[u8], value: &[u8]) -> Option<(KeyHash, Remembered)> {
    Some((KeyHash(key.get(1..)?.try_into().ok()?), decode_remembered(value)?))
}

/// The collection and key of a row.
pub(super) fn parse_row_key(key: &[u8]) -> Option<(Collection, Key)> {
    let end = key.iter().position(|byte| *byte == 0)?;
    let collection = Collection::new(std::str::from_utf8(key.get(1..end)?).ok()?).ok()?;
    Some((collection, Key::new(std::str::from_utf8(&key[end + 1..]).ok()?).ok()?))
}

/// The collection of an index row of records.
pub(super) fn parse_record_index(key: &[u8]) -> Option<Collection> {
    let end = key.iter().position(|byte| *byte == 0)?;
    Collection::new(std::str::from_utf8(key.get(1..end)?).ok()?).ok()
}

/// The first key after all that begin with `prefix`.
pub(super) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // Only a prefix of nothing but 0xff has no end; ours begin with a letter.
    vec![u8::MAX; 16]
}

/// seq, clock, hash, CRC-32.
pub(super) fn encode_line(line: &Line) -> Vec<u8> {
    let mut value = Vec::with_capacity(52);
    value.extend_from_slice(&line.head.seq.to_be_bytes());
    value.extend_from_slice(&line.head.hlc.0.to_be_bytes());
    value.extend_from_slice(&line.hash.0);
    sealed(value)
}

pub(super) fn decode_line(key: &[u8], value: &[u8]) -> Option<(WriterId, Line)> {
    let key: &[u8; 49] = key.try_into().ok()?;
    let value: &[u8; 48] = unsealed(value)?.try_into().ok()?;
    let writer = WriterId { peer: PeerId(key[1..33].try_into().ok()?), epoch: Epoch(key[33..].try_into().ok()?) };
    let hash = Hash(value[16..].try_into().ok()?);
    let seq = u64::from_be_bytes(value[..8].try_into().ok()?);
    let hlc = Hlc(u64::from_be_bytes(value[8..16].try_into().ok()?));
    let short: ShortHash = hash.short();
    (1..=SEQ_MAX).contains(&seq).then_some((writer, Line { head: Head { seq, hlc, hash: short }, hash }))
}

/// Appends a CRC-32 of what is there.
pub(super) fn sealed(mut value: Vec<u8>) -> Vec<u8> {
    value.extend_from_slice(&crc32fast::hash(&value).to_be_bytes());
    value
}

/// What a CRC-32 at the end vouches for.
pub(super) fn unsealed(value: &[u8]) -> Option<&[u8]> {
    let (body, crc) = value.split_at_checked(value.len().checked_sub(4)?)?;
    #[cfg(feature = "planted")]
    if anabranch_protocol::planted::is(anabranch_protocol::planted::Bug::SkipChecksums) {
        return Some(body);
    }
    (crc32fast::hash(body).to_be_bytes() == crc).then_some(body)
}

const ROW_VERSION: u8 = 1;
const ROW_TOMBSTONE: u8 = 1;
const ROW_HEAD_BYTES: usize = 1 + 1 + 8 + 32 + 16 + 4 + 16 + 4;

/// A row cut into parts: the first with its head, sealed by a CRC-32; the others are vouched for by the content hash.
pub(super) fn encode_row(row: &Row) -> (Vec<u8>, Vec<&[u8]>) {
    let value = row.value.as_deref().unwrap_or_default();
    let (first, rest) = value.split_at(value.len().min(PART_BYTES - ROW_HEAD_BYTES));
    let mut head = Vec::with_capacity(ROW_HEAD_BYTES + first.len() + 4);
    head.push(ROW_VERSION);
    head.push(if row.value.is_none() { ROW_TOMBSTONE } else { 0 });
    head.extend_from_slice(&row.stamp.hlc.0.to_be_bytes());
    head.extend_from_slice(&row.stamp.writer.peer.0);
    head.extend_from_slice(&row.stamp.writer.epoch.0);
    head.extend_from_slice(&row.stamp.index.to_be_bytes());
    head.extend_from_slice(&row.content);
    head.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    head.extend_from_slice(first);
    (sealed(head), rest.chunks(PART_BYTES).collect())
}

/// The head of a row: its state without the parts that follow, and how many bytes of value those hold.
pub(super) fn decode_row_head(head: &[u8]) -> Option<(Row, usize)> {
    let head = unsealed(head)?;
    let (fixed, first) = head.split_at_checked(ROW_HEAD_BYTES)?;
    if fixed[0] != ROW_VERSION {
        return None;
    }
    let writer = WriterId { peer: PeerId(fixed[10..42].try_into().ok()?), epoch: Epoch(fixed[42..58].try_into().ok()?) };
    let stamp = Stamp {
        hlc: Hlc(u64::from_be_bytes(fixed[2..10].try_into().ok()?)),
        writer,
        index: u32::from_be_bytes(fixed[58..62].try_into().ok()?),
    };
    let content = fixed[62..78].try_into().ok()?;
    let total = u32::from_be_bytes(fixed[78..82].try_into().ok()?) as usize;
    let value = (fixed[1] & ROW_TOMBSTONE == 0).then(|| first.to_vec());
    Some((Row { stamp, value, content }, total.checked_sub(first.len())?))
}

/// Whether a row's value is what its content hash says.
pub(super) fn row_is_whole(row: &Row) -> bool {
    #[cfg(feature = "planted")]
    if anabranch_protocol::planted::is(anabranch_protocol::planted::Bug::SkipChecksums) {
        return true;
    }
    row.value.as_deref().is_none_or(|value| content_hash(value) == row.content)
}

/// Entries of collections that don't replicate, in the shape of sections.
pub(super) fn local_sections(entries: &[(Collection, Entry)]) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for (collection, entry) in entries {
        match sections.iter_mut().find(|section| section.collection == *collection) {
            Some(section) => section.entries.push(entry.clone()),
            None => sections.push(Section {
                salt: anabranch_protocol::id::Salt::ZERO,
                collection: collection.clone(),
                entries: vec![entry.clone()],
            }),
        }
    }
    sections
}

/// Whether an entry is a record of an append dataset.
pub(super) fn is_record(entry: &Entry) -> bool {
    matches!(entry.change, Change::Append { .. })
}

#[cfg(test)]
mod tests {
    use anabranch_protocol::commit::{Change, Draft, Entry, Identity};
    use anabranch_protocol::id::{DatasetId, Lineage, RequestHash, Salt};
    use anabranch_protocol::replica::{Effects, LocalBatch, Record, Written};
    use anabranch_protocol::token::Token;
    use data_encoding::HEXLOWER;

    use super::*;
    use crate::store::{MemoryEngine, StoreEngine};

    fn collection() -> Collection {
        Collection::new("orders").unwrap()
    }

    fn stamp() -> Stamp {
        Stamp { hlc: Hlc(0x0102_0304), writer: WriterId { peer: PeerId([0xaa; 32]), epoch: Epoch([0xbb; 16]) }, index: 7 }
    }

    /// The bytes of format version 1. They are on people's disks: a change here needs a new version and an upgrade.
    #[test]
    fn rows_and_lines_have_these_bytes() {
        let document = Row::new(stamp(), Some(vec![0x63, b'a', b'b', b'c']));
        let deleted = Row::new(stamp(), None);
        let (row, parts) = encode_row(&document);
        assert!(parts.is_empty());
        assert_eq!(HEXLOWER.encode(&row), ROW);
        let (tombstone, _) = encode_row(&deleted);
        assert_eq!(HEXLOWER.encode(&tombstone), TOMBSTONE);
        assert_eq!(decode_row_head(&row).unwrap().0, document);
        let head = Head { seq: 9, hlc: Hlc(5), hash: ShortHash([0xcc; 8]) };
        let line = Line { head, hash: Hash([0xcc; 32]) };
        assert_eq!(HEXLOWER.encode(&encode_line(&line)), LINE);
        let key = line_key(&stamp().writer);
        assert_eq!(decode_line(&key, &encode_line(&line)), Some((stamp().writer, line)));
    }

    #[test]
    fn keys_have_these_bytes_and_sort_as_they_should() {
        let key = Key::new("k1").unwrap();
        assert_eq!(row_key(&collection(), &key), b"rorders\0k1");
        assert_eq!(row_part(&collection(), &key, 258), b"porders\0k1\0\x01\x02");
        assert_eq!(log_part(1, 2), *b"l\0\0\0\0\0\0\0\x01\0\x02");
        assert_eq!(parse_log_part(&log_part(77, 3)), Some((77, 3)));
        assert_eq!(enrolled_key(&PeerId([7; 32])), [&b"e"[..], &[7; 32]].concat());
        let (key, at) = (enrolled_key(&PeerId([7; 32])), WallClock(0x0102_0304_0506_0708));
        assert_eq!(encode_enrolment(at, false), sealed(vec![1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(encode_enrolment(at, true), sealed(vec![1, 2, 3, 4, 5, 6, 7, 8, 1]));
        for demoted in [false, true] {
            assert_eq!(parse_enrolment(&key, &encode_enrolment(at, demoted)), Some((PeerId([7; 32]), demoted)));
        }
        for other in [vec![0; 7], vec![0; 9], vec![1; 10]] {
            assert_eq!(parse_enrolment(&key, &sealed(other)), None);
        }
        assert_eq!(record_index(&collection(), &[1; 18])[..8], *b"xorders\0");
        assert!(log_part(255, 9) < log_part(256, 0));
        assert_eq!(after_prefix(b"ra\xff"), b"rb");
    }

    #[test]
    fn coverage_rows_and_stubs_have_these_bytes() {
        let (all, orders) = (Scope::All, Scope::One(collection()));
        assert_eq!(coverage_key(&all), b"c*\0");
        assert_eq!(parse_coverage_key(b"corders\0"), Some((orders.clone(), None)));
        let span = span_key(&orders, &stamp().writer);
        assert_eq!((span.len(), &span[..9]), (8 + 48, &b"corders\0\xaa"[..]));
        assert_eq!(parse_coverage_key(&span), Some((orders, Some(stamp().writer))));
        assert_eq!(parse_coverage_key(b"corders\0short"), None);
        let head = CoverageHead { registered: true, configured: false, issuing: true, spans: 2 };
        assert_eq!(HEXLOWER.encode(&codec::encode(&head)), "a46172f5616bf46169f5616e02");
        let span = encode_span(Span { next: 3, until: 300 });
        assert_eq!(HEXLOWER.encode(&span[..span.len() - 4]), "820319012c");
        assert_eq!(decode_span(&span), Some(Span { next: 3, until: 300 }));
        let store = MemoryEngine::default().open(std::path::Path::new("/layout"), 0).unwrap();
        super::super::log::move_record(&*store, 4, 258).unwrap();
        let stub = store.get(&log_part(4, 0)).unwrap().unwrap();
        assert_eq!((HEXLOWER.encode(&stub[..10]), stub.len()), ("01040000000000000102".to_owned(), 14));
        assert!(matches!(super::super::log::read(&*store, 4), Ok(super::super::log::Found::Moved(258))));
        store.put(&log_part(4, 0), &[&stub[..13], &[stub[13] ^ 1]].concat()).unwrap();
        assert!(matches!(super::super::log::read(&*store, 4), Ok(super::super::log::Found::Broken)));
    }

    #[test]
    fn what_is_remembered_of_keys_has_these_bytes() {
        let key = KeyHash([5; 16]);
        assert_eq!(remembered_key(&key), [&b"w"[..], &[5; 16]].concat()[..]);
        let token = Token { writer: stamp().writer, seq: 9, hash: [0xab, 0xcd, 0xef, 1] };
        let written =
            Written { token: Some(token), stamp: Some(stamp()), key: Key::new("k1").ok(), created: true, replicated: true };
        let remembered = Remembered { request: RequestHash([6; 16]), until: WallClock(0x0102_0304_0506), written };
        let row = encode_remembered(&remembered);
        assert_eq!(HEXLOWER.encode(&row), REMEMBERED);
        assert_eq!(parse_remembered(&remembered_key(&key), &row), Some((key, remembered.clone())));
        assert_eq!(parse_remembered(&remembered_key(&key)[..16], &row), None);
        let bad = Token { seq: 0, ..token };
        let bad = Remembered { written: Written { token: Some(bad), ..remembered.written.clone() }, ..remembered.clone() };
        assert_eq!(decode_remembered(&encode_remembered(&bad)), None);
        // The longest key there is fits.
        let longest = Written { key: Key::new(&"k".repeat(1_024)).ok(), ..remembered.written.clone() };
        let longest = Remembered { until: WallClock(u64::MAX), written: longest, ..remembered };
        assert_eq!(decode_remembered(&encode_remembered(&longest)), Some(longest));
    }

    #[test]
    fn a_log_record_has_these_bytes() {
        let dataset = DatasetId::primary();
        let put = Change::Put { key: Key::new("k").unwrap(), value: vec![1] };
        let draft = Draft {
            dataset: &dataset,
            lineage: Lineage::ZERO,
            epoch: Epoch([0xbb; 16]),
            seq: 1,
            previous: Hash::ZERO,
            parent: None,
            hlc: Hlc(5),
            sections: vec![(collection(), Salt([3; 16]), vec![Entry { index: 0, change: put.clone() }])],
        };
        let local =
            LocalBatch { hlc: Hlc(5), entries: vec![(Collection::new("drafts").unwrap(), Entry { index: 1, change: put })] };
        let effects = Effects { clock: Hlc(5), tallies: Vec::new(), epoch: Some(Epoch([0xbb; 16])), ..Effects::default() };
        let record = Record { commit: Some(draft.seal(&Identity::from_secret(&[1; 32]))), local: Some(local), effects };
        let store = MemoryEngine::default().open(std::path::Path::new("/layout"), 0).unwrap();
        super::super::log::write(&*store, 4, 3, &record).unwrap();
        let stored = store.get(&log_part(4, 0)).unwrap().unwrap();
        assert_eq!(HEXLOWER.encode(blake3::hash(&stored).as_bytes()), RECORD_DIGEST, "{}", HEXLOWER.encode(&stored));
        let super::super::log::Found::Record(read) = super::super::log::read(&*store, 4).unwrap() else { panic!("whole") };
        assert_eq!((read.durable(), read.is_whole()), (3, true));
        let decoded = read.decode(Lineage::ZERO).unwrap();
        assert_eq!((decoded.commit, decoded.local, decoded.effects), (record.commit, record.local, record.effects));
    }

    const ROW: &str = "01000000000001020304aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb00000007d48eda5494aadc6c503f9dc74c76e6a40000000463616263f86578ad";
    const TOMBSTONE: &str = "01010000000001020304aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb000000070000000000000000000000000000000000000000dd16c3b6";
    const LINE: &str = "00000000000000090000000000000005cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc080d0b7f";
    const REMEMBERED: &str = "8750060606060606060606060606060606061b000001020304050683825820aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa50bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb091aabcdef01831a01020304825820aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa50bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb07626b31f5f5fb718f4d";
    const RECORD_DIGEST: &str = "cf3fb1bf812c8aa6a49fac480733c0d37bb063da58091bd589b76b154e4b7cfa";
}
