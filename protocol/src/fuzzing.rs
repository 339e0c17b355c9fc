//! What fuzzers feed: every decoder of this crate, with what must hold of whatever it accepts.
//!
//! A target panics where a rule is broken: bytes that decode encode again to the very same bytes, and what was accepted is within
//! its limits. `tests/fuzz` runs the targets under libFuzzer, which also bounds memory and time; its corpora are replayed by this
//! module's tests.

use crate::codec::{self, DecodeError};
use crate::commit::{Change, Commit, Draft, ForkProof, Forks, Frame, FrameError, Header, Identity, Section};
use crate::confirmation::SignedStatement;
use crate::conflict::Stamp;
use crate::fence::Fence;
use crate::fingerprint::Tally;
use crate::handshake;
use crate::hlc::Hlc;
use crate::id::{Collection, DatasetId, Epoch, Hash, Key, Lineage, PeerId, WriterId};
use crate::invite::Invite;
use crate::limits::{
    COMMIT_ENTRIES_MAX, CONTROL_BYTES_MAX, FORK_PROOF_BYTES_MAX, FORKS_MAX, HELLO_DATASETS_MAX, REASON_BYTES_MAX, SEQ_MAX,
    VALUE_BYTES_MAX, VECTOR_WRITERS_MAX,
};
use crate::network_key::NetworkKey;
use crate::registration::Registration;
use crate::replica::{Effects, parse_record_key};
use crate::token::Token;
use crate::value::{self, Value};
use crate::vector::VersionVector;
use crate::wire::{Announce, Hello, Kind, Request, Response};

/// A decoder under test: what its corpus is called, and what is run.
pub type Target = (&'static str, fn(&[u8]));

/// Every decoder of this crate.
pub const TARGETS: &[Target] = &[
    ("protocol-announce", announce),
    ("protocol-commit", commit),
    ("protocol-effects", effects),
    ("protocol-fence", fence),
    ("protocol-fork", fork),
    ("protocol-frame", frame),
    ("protocol-header", header),
    ("protocol-ids", ids),
    ("protocol-invite", invite),
    ("protocol-merge-patch", merge_patch),
    ("protocol-network-key", network_key),
    ("protocol-registration", registration),
    ("protocol-request", request),
    ("protocol-response", response),
    ("protocol-section", section),
    ("protocol-stamp", stamp),
    ("protocol-statement", statement),
    ("protocol-token", token),
    ("protocol-value-cbor", value_cbor),
    ("protocol-value-json", value_json),
    ("protocol-vector", vector),
];

fn request(data: &[u8]) {
    if let Ok(request) = Request::decode(data) {
        assert_eq!(request.encode(), data);
        let _ = request.dataset();
        match &request {
            Request::Hello(hello) => check_hello(hello),
            Request::Confirm(confirm) => confirm.statements.iter().for_each(verify),
            Request::Push(push) => push.frames.iter().for_each(|bytes| frame(bytes)),
            _ => {}
        }
    }
}

fn response(data: &[u8]) {
    if let Ok(response) = Response::decode(data) {
        assert_eq!(response.encode(), data);
        match &response {
            Response::Hello(reply) => check_hello(&reply.hello),
            Response::Heads(reply) => {
                assert!(reply.forks.len() <= FORKS_MAX);
                reply.forks.iter().for_each(|proof| fork(&codec::encode(proof)));
            }
            Response::Page(page) => page.frames.iter().for_each(|bytes| frame(bytes)),
            Response::Pushed(pushed) => verify(&pushed.confirmation),
            _ => {}
        }
    }
}

/// Each dataset fits itself, and two fit each other on both sides or on none.
fn check_hello(hello: &Hello) {
    assert!(hello.datasets.len() <= HELLO_DATASETS_MAX && hello.withdrawn.len() <= HELLO_DATASETS_MAX);
    assert!(hello.withdrawn.iter().all(|reply| reply.refusal.reason.len() <= REASON_BYTES_MAX));
    for (one, other) in hello.datasets.iter().zip(hello.datasets.iter().cycle().skip(1)) {
        assert_eq!(handshake::judge(one, one), Ok(()));
        assert_eq!(handshake::judge(one, other).is_ok(), handshake::judge(other, one).is_ok());
    }
}

fn announce(data: &[u8]) {
    if let Ok(announce) = Announce::decode(data) {
        assert_eq!(announce.encode(), data);
        assert!(announce.heads.len() <= VECTOR_WRITERS_MAX);
    }
}

fn frame(data: &[u8]) {
    let Ok(frame) = Frame::decode(data) else { return };
    let stored = crate::commit::Commit::from_verified(data, Lineage::ZERO).expect("it decoded once");
    assert_eq!(stored.to_bytes(), data);
    let dataset = frame.header().dataset();
    if let Ok(commit) = frame.verify(&dataset, Lineage::ZERO) {
        assert_eq!(commit.to_bytes(), data);
    }
}

/// A document of the reserved collection, its key and value apart by a zero.
fn fence(data: &[u8]) {
    let Some(at) = data.iter().position(|byte| *byte == 0) else { return };
    if let Some((removed, by)) =
        text(&data[..at]).and_then(|key| Key::new(key).ok()).and_then(|key| crate::fence::parse_key(&key))
    {
        assert_eq!(crate::fence::key(&removed, &by).as_str().as_bytes(), &data[..at], "one spelling");
    }
    if let Some(fence) = value::decode(&data[at + 1..]).ok().and_then(|value| Fence::from_value(&value)) {
        assert_eq!(fence.to_value().encode(), data[at + 1..]);
        assert!(fence.0.len() <= VECTOR_WRITERS_MAX);
    }
}

/// A proof; and what two commits around sections prove, as no fuzzer signs.
fn fork(data: &[u8]) {
    if let Ok(proof) = ForkProof::decode(data) {
        assert_eq!(codec::encode(&proof), data, "as it is stored");
        if let Ok(fork) = proof.clone().verify(&DatasetId::primary(), Lineage::ZERO) {
            assert!((1..=SEQ_MAX).contains(&fork.seq) && *fork.proof() == proof);
        }
    }
    let Some((length, rest)) = data.split_first() else { return };
    let (one, other) = rest.split_at(usize::from(*length).min(rest.len()));
    let (Some(one), Some(other)) = (commit_of(one), commit_of(other)) else { return };
    let Some(proof) = ForkProof::of(&one, &other) else { return assert_eq!(one.hash(), other.hash()) };
    assert_eq!(ForkProof::of(&other, &one).as_ref(), Some(&proof), "in one order");
    let bytes = codec::encode(&proof);
    assert!(bytes.len() <= FORK_PROOF_BYTES_MAX);
    assert_eq!(ForkProof::decode(&bytes).as_ref(), Ok(&proof));
    assert!(proof.clone().verify(&DatasetId::primary(), Lineage([1; 16])).is_err(), "another lineage");
    let fork = proof.verify(&DatasetId::primary(), Lineage::ZERO).expect("two commits follow one");
    let mut forks = Forks::default();
    assert!(forks.insert(fork.clone()) && !forks.insert(fork), "once");
}

fn header(data: &[u8]) {
    match Header::decode(data) {
        Ok(header) => {
            assert_eq!(codec::encode(&header), data);
            assert!(header.entries() <= COMMIT_ENTRIES_MAX as u64);
        }
        // What a newer version is, this one cannot say more about.
        Err(FrameError::NeedsUpgrade { number, .. }) => assert!(number > 1),
        Err(_) => {}
    }
}

fn section(data: &[u8]) {
    if let Ok(section) = Section::decode(data) {
        assert_eq!(section.encode(), data);
        check_entries(&section);
    }
}

fn check_entries(section: &Section) {
    assert!(section.entries.len() <= COMMIT_ENTRIES_MAX);
    for entry in &section.entries {
        if let Change::Put { value: bytes, .. } | Change::Append { value: bytes } = &entry.change {
            assert!(bytes.len() <= VALUE_BYTES_MAX);
            value_cbor(bytes);
        }
    }
}

/// What the digests in a header keep a fuzzer from: sections that decode, in a commit around them that verifies.
fn commit(data: &[u8]) {
    let Some(sealed) = commit_of(data) else { return };
    let dataset = DatasetId::primary();
    let bytes = sealed.to_bytes();
    let read = Frame::decode(&bytes).expect("a sealed frame decodes").verify(&dataset, Lineage::ZERO).expect("and verifies");
    assert_eq!(read, sealed);
    assert!(Frame::decode(&bytes).expect("as before").verify(&dataset, Lineage([1; 16])).is_err(), "another lineage");
    let without = sealed.keep_only(&crate::registration::TagSet::Some(std::collections::BTreeSet::new())).to_bytes();
    Frame::decode(&without).expect("without its section").verify(&dataset, Lineage::ZERO).expect("it still verifies");
}

/// A first commit with this section.
fn commit_of(data: &[u8]) -> Option<Commit> {
    let section = Section::decode(data).ok().filter(|section| !section.entries.is_empty())?;
    let dataset = DatasetId::primary();
    let draft = Draft {
        dataset: &dataset,
        lineage: Lineage::ZERO,
        epoch: Epoch([1; 16]),
        seq: 1,
        previous: Hash::ZERO,
        parent: None,
        hlc: Hlc(1),
        sections: vec![(section.collection.clone(), section.salt, section.entries)],
    };
    Some(draft.seal(&Identity::from_secret(&[7; 32])))
}

fn vector(data: &[u8]) {
    if let Some(vector) = canonical::<VersionVector>(data) {
        assert!(vector.len() <= VECTOR_WRITERS_MAX);
        let _ = (vector.digest(), vector.commits());
        assert!(vector.covers(&vector) && vector.missing(&vector) == 0);
    }
}

fn registration(data: &[u8]) {
    if let Some(registration) = canonical::<Registration>(data).filter(Registration::is_valid) {
        let _ = registration.tags(&DatasetId::primary(), Lineage::ZERO);
    }
}

fn effects(data: &[u8]) {
    canonical::<Effects>(data);
    canonical::<Tally>(data);
}

fn canonical<T: serde::de::DeserializeOwned + serde::Serialize>(data: &[u8]) -> Option<T> {
    let decoded: Result<T, DecodeError> = codec::decode(data, CONTROL_BYTES_MAX);
    decoded.ok().inspect(|value| assert_eq!(codec::encode(value), data))
}

fn statement(data: &[u8]) {
    if let Some(signed) = canonical::<SignedStatement>(data) {
        verify(&signed);
    }
    canonical::<crate::confirmation::Statement>(data);
}

fn verify(signed: &SignedStatement) {
    if let Ok(statement) = signed.verify(&DatasetId::primary(), Lineage::ZERO) {
        assert!(statement.registration.is_valid() && statement.dataset.is_none());
    }
}

fn value_cbor(data: &[u8]) {
    let decoded = value::decode(data);
    assert_eq!(decoded.as_ref().err(), value::validate(data).as_ref().err(), "both readers agree");
    if let Ok(decoded) = decoded {
        assert_eq!(decoded.encode(), data);
        json_keeps(&decoded);
    }
}

fn value_json(data: &[u8]) {
    if let Ok(value) = Value::from_json(data) {
        let bytes = value.encode();
        value::validate(&bytes).expect("what JSON says has deterministic bytes");
        assert_eq!(value::decode(&bytes).expect("as before").encode(), bytes);
        json_keeps(&value);
    }
}

fn json_keeps(value: &Value) {
    let again = Value::from_json(value.to_json().as_bytes()).expect("a value's JSON is a value");
    // By bytes: -0.0 equals 0.0.
    assert_eq!(again.encode(), value.encode());
}

/// RFC 7396: applying a patch twice changes nothing more, and leaves a value that every replica takes.
fn merge_patch(data: &[u8]) {
    let Some(at) = data.iter().position(|byte| *byte == 0) else { return };
    let (Ok(target), Ok(patch)) = (Value::from_json(&data[..at]), Value::from_json(&data[at + 1..])) else { return };
    let once = target.merge_patch(patch.clone());
    let bytes = once.encode();
    value::validate(&bytes).expect("a merged value is within the limits of both");
    assert_eq!(once.merge_patch(patch).encode(), bytes);
}

fn token(data: &[u8]) {
    if let Some(token) = text(data).and_then(|text| text.parse::<Token>().ok()) {
        assert_eq!(token.to_string().as_bytes(), data, "one spelling");
    }
}

/// What `If-Match` holds.
fn stamp(data: &[u8]) {
    if let Some(stamp) = text(data).and_then(|text| text.parse::<Stamp>().ok()) {
        assert_eq!(stamp.to_string().as_bytes(), data, "one spelling");
    }
}

fn ids(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let same = |shown: String| assert_eq!(shown, text, "one spelling");
    text.parse::<PeerId>().into_iter().for_each(|peer| same(peer.to_string()));
    text.parse::<Lineage>().into_iter().for_each(|lineage| same(lineage.to_string()));
    text.parse::<Kind>().into_iter().for_each(|kind| same(kind.to_string()));
    text.parse::<Epoch>().into_iter().for_each(|epoch| same(epoch.to_string()));
    text.parse::<WriterId>().into_iter().for_each(|writer| same(writer.to_string()));
    DatasetId::new(text).into_iter().for_each(|dataset| same(dataset.to_string()));
    Collection::new(text).into_iter().for_each(|collection| {
        let _ = collection.tag(&DatasetId::primary(), Lineage::ZERO);
        same(collection.to_string());
    });
    let Ok(key) = Key::new(text) else { return };
    if let Some((prefix, index)) = parse_record_key(&key) {
        let mut bytes = prefix.to_vec();
        bytes.extend_from_slice(&u16::try_from(index).expect("two bytes").to_be_bytes());
        same(data_encoding::BASE32HEX_NOPAD.encode(&bytes).to_ascii_lowercase());
    }
    canonical::<Collection>(data);
    let _ = PeerId::from_multihash(data).map(|peer| assert_eq!(peer.to_multihash(), data));
}

fn invite(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(invite) = Invite::from_text(text) {
        let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        assert_eq!(invite.to_text(), plain.to_ascii_lowercase(), "one spelling but for case and white space");
    }
}

fn network_key(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(key) = NetworkKey::from_text(text) {
        assert_eq!(key.to_text(), text.trim().to_ascii_lowercase());
        assert_eq!(format!("{key:?}"), "NetworkKey(…)");
    }
}

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Inputs that fuzzers found worth keeping, and every one that once broke a rule.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test reads its inputs; no rule does")]
    fn the_corpora_are_replayed() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        for (name, run) in super::TARGETS {
            let inputs = std::fs::read_dir(corpus.join(name)).unwrap_or_else(|error| panic!("{name} has a corpus: {error}"));
            let mut count = 0;
            for input in inputs {
                run(&std::fs::read(input.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 0, "{name} has inputs");
        }
    }
}
