//! Golden bytes: every commit and message shape, as `tests/fixtures/` at the root of the repository freezes it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anabranch_protocol::codec;
use anabranch_protocol::commit::{Change, Commit, Draft, Entry, Frame, Parent};
use anabranch_protocol::confirmation::{SignedStatement, Statement};
use anabranch_protocol::conflict::Stamp;
use anabranch_protocol::fingerprint::Tally;
use anabranch_protocol::floor::Floor;
use anabranch_protocol::hlc::{Hlc, WallClock};
use anabranch_protocol::id::{
    DatasetId, Epoch, Hash, Incarnation, KeyHash, Lineage, RequestHash, Salt, ShortHash, Tag, WriterId,
};
use anabranch_protocol::idempotency::Remembered;
use anabranch_protocol::plan::Want;
use anabranch_protocol::registration::Registration;
use anabranch_protocol::replica::{Effects, Written};
use anabranch_protocol::token::Token;
use anabranch_protocol::vector::{Head, VersionVector};
use anabranch_protocol::wire::{
    Announce, Confirm, DatasetHello, DatasetReply, Heads, HeadsReply, Held, Hello, HelloReply, Incomplete, Kind, Page,
    PolicyScope, Pull, Push, Pushed, Refusal, RefusalCode, Request, Response, Round,
};
use serde_bytes::ByteBuf;

use crate::frames::{commit, entry, identity, orders_only, primary_commit};
use crate::world::{collection, json};

const LINEAGE: Lineage = Lineage([0x11; 16]);

fn writer(n: u8) -> WriterId {
    WriterId { peer: identity().peer(), epoch: Epoch([n; 16]) }
}

fn vector() -> VersionVector {
    let head = |seq| Head { seq, hlc: Hlc(0x019f_0000_0000_0000 + seq), hash: ShortHash([0xab; 8]) };
    [(writer(1), head(3)), (writer(2), head(300))].into_iter().collect()
}

/// One commit of each shape, with the dataset and lineage it verifies under.
fn commits() -> Vec<(&'static str, Vec<u8>, DatasetId, Lineage)> {
    let (primary, telemetry) = (DatasetId::primary(), DatasetId::new("telemetry").unwrap());
    let draft = |dataset, seq, previous, parent, sections| Draft {
        dataset,
        lineage: LINEAGE,
        epoch: Epoch([3; 16]),
        seq,
        previous,
        parent,
        hlc: Hlc(0x019f_0000_0001_0002),
        sections,
    };
    let puts = || vec![(collection(0), Salt([4; 16]), vec![entry(0, 1, "{\"a\":1}")])];
    let parent = Some(Parent(Epoch([2; 16]), 41, Hash([6; 32])));
    let record = |index, text| Entry { index, change: Change::Append { value: json(text).encode() } };
    let records = vec![(collection(3), Salt([5; 16]), vec![record(0, "{\"t\":20.5}"), record(1, "\"line\"")])];
    // One section each: a drop between puts, and a truncation alone.
    let drops = vec![
        (collection(0), Salt([4; 16]), vec![entry(0, 1, "1"), Entry { index: 1, change: Change::Drop }, entry(2, 2, "2")]),
        (collection(1), Salt([5; 16]), vec![Entry { index: 3, change: Change::Truncate }]),
    ];
    let dropping = draft(&primary, 8, Hash([8; 32]), None, drops).seal(&identity());
    let first = draft(&telemetry, 1, Hash::ZERO, None, puts()).seal(&identity());
    let child = draft(&telemetry, 1, Hash::ZERO, parent, puts()).seal(&identity());
    let append = draft(&telemetry, 7, Hash([8; 32]), None, records).seal(&identity());
    vec![
        ("primary", primary_commit().to_bytes(), primary.clone(), Lineage::ZERO),
        ("primary-section-left-out", primary_commit().bytes_for(&orders_only()), primary, Lineage::ZERO),
        ("primary-drop", dropping.to_bytes(), DatasetId::primary(), LINEAGE),
        ("dataset", commit(&telemetry, LINEAGE).to_bytes(), telemetry.clone(), LINEAGE),
        ("dataset-first", first.to_bytes(), telemetry.clone(), LINEAGE),
        ("dataset-first-with-parent", child.to_bytes(), telemetry.clone(), LINEAGE),
        ("dataset-append", append.to_bytes(), telemetry, LINEAGE),
    ]
}

fn statement(dataset: Option<DatasetId>) -> SignedStatement {
    let lineage = if dataset.is_some() { LINEAGE } else { Lineage::ZERO };
    let statement = Statement {
        dataset,
        peer: identity().peer(),
        incarnation: Incarnation([0x22; 16]),
        counter: 25,
        registration: Registration { number: 2, ..Registration::of([collection(0), collection(1)]) },
        vector: vector(),
    };
    SignedStatement::sign(&statement, lineage, &identity())
}

fn hello(dataset: Option<DatasetId>) -> Hello {
    let datasets = vec![DatasetHello {
        lineage: if dataset.is_some() { LINEAGE } else { Lineage::ZERO },
        kind: if dataset.is_some() { Kind::Append } else { Kind::Documents },
        registration: if dataset.is_some() { Registration::of([collection(3)]) } else { Registration::all() },
        policies: BTreeMap::from([(PolicyScope(None), "lww".into()), (PolicyScope(Some(collection(2))), "merge".into())]),
        heads: vector(),
        dataset: dataset.clone(),
    }];
    // An open network has no proofs, a node behind NAT no addresses: one shape with, one without.
    let proofs = if dataset.is_some() { vec![Hash([0x33; 32])] } else { vec![] };
    let listen = if dataset.is_some() { vec!["/ip4/127.0.0.1/tcp/4001".into()] } else { vec![] };
    let (nonce, incarnation) = (Salt([0x44; 16]), Incarnation([0x22; 16]));
    Hello { versions: vec![1], nonce, proofs, incarnation, listen, datasets, withdrawn: Vec::new() }
}

/// A `Hello` that takes a dataset back.
fn withdrawing(dataset: Option<DatasetId>) -> Hello {
    let refusal = Refusal::new(RefusalCode::UnknownDataset, "deleted");
    let withdrawn = vec![DatasetReply { dataset, refusal }];
    Hello { datasets: Vec::new(), withdrawn, ..hello(None) }
}

fn requests(d: Option<DatasetId>) -> Vec<(&'static str, Request)> {
    let wants = vec![Want { writer: writer(1), from_seq: 4 }, Want { writer: writer(2), from_seq: 301 }];
    let registration = Registration::of([collection(0)]);
    vec![
        ("hello", Request::Hello(hello(d.clone()))),
        ("hello-withdrawn", Request::Hello(withdrawing(d.clone()))),
        ("heads", Request::Heads(Heads { dataset: d.clone(), digest: vector().digest() })),
        ("round", Request::Round(Round { digest: vector().digest() })),
        ("pull", Request::Pull(Pull { dataset: d.clone(), registration, wants, bytes_max: 65_536 })),
        ("push", Request::Push(Push { dataset: d.clone(), frames: vec![ByteBuf::from(primary_commit().to_bytes())] })),
        ("confirm", Request::Confirm(Confirm { statements: vec![statement(d.clone())], dataset: d })),
    ]
}

fn responses(d: Option<DatasetId>) -> Vec<(&'static str, Response)> {
    let held = vec![Held { writer: writer(2), seq: 301, hlc: Hlc(0x02ff_0000_0000_0000) }];
    let refusal = Refusal::new(RefusalCode::Lineage, "another lineage");
    let refused = vec![DatasetReply { dataset: d.clone(), refusal: refusal.clone() }];
    let incomplete = vec![Incomplete { writer: writer(1), from_seq: 4, tags: vec![Tag([0x55; 8])] }];
    let frames = vec![ByteBuf::from(primary_commit().to_bytes())];
    let heads = |heads, held| Response::Heads(HeadsReply { dataset: d.clone(), heads, held, forks: vec![] });
    let forks = vec![crate::forks::proof()];
    let forked = Response::Heads(HeadsReply { dataset: d.clone(), heads: Some(vector()), held: vec![], forks });
    let page = |frames, more, incomplete| Response::Page(Page { dataset: d.clone(), frames, more, incomplete });
    let pushed =
        |complete, held| Response::Pushed(Pushed { dataset: d.clone(), confirmation: statement(d.clone()), complete, held });
    vec![
        ("hello-reply", Response::Hello(HelloReply { hello: hello(d.clone()), refused: vec![] })),
        ("hello-reply-refused", Response::Hello(HelloReply { hello: hello(d.clone()), refused })),
        ("heads-reply", heads(Some(vector()), vec![])),
        ("heads-reply-equal", heads(None, vec![])),
        ("heads-reply-held", heads(Some(vector()), held.clone())),
        ("heads-reply-forked", forked),
        ("page", page(frames, true, vec![])),
        ("page-incomplete", page(vec![], false, incomplete)),
        ("pushed", pushed(true, vec![])),
        ("pushed-held", pushed(false, held)),
        ("round-reply", Response::Round(Round { digest: vector().digest() })),
        ("confirmed", Response::Confirmed),
        ("refused", Response::Refused(refusal)),
    ]
}

fn announce(dataset: Option<DatasetId>) -> Announce {
    Announce { dataset, digest: vector().digest(), heads: vector() }
}

fn effects() -> Effects {
    let mut tally = Tally::default();
    tally.add(u128::MAX - 5);
    tally.add(9);
    Effects {
        clock: Hlc(0x019f_0000_0001_0002),
        tallies: vec![(collection(0), tally)],
        epoch: Some(Epoch([3; 16])),
        ..Effects::default()
    }
}

/// Those of a commit that dropped a collection.
fn effects_with_floor() -> Effects {
    let mut effects = effects();
    let stamp = Stamp { hlc: Hlc(0x019f_0000_0001_0002), writer: writer(3), index: 1 };
    effects.tallies[0].1.floor = Some(Floor { stamp, dropped: true });
    effects
}

/// Those of a commit of which two writes came under idempotency keys: one that made a document, and one that found nothing to do.
fn effects_with_keys() -> Effects {
    let stamp = Stamp { hlc: Hlc(0x019f_0000_0001_0002), writer: writer(3), index: 1 };
    let token = Token { writer: writer(3), seq: 300, hash: [0xab, 0xcd, 0xef, 1] };
    let key = Some(crate::world::key(1));
    let made = Written { token: Some(token), stamp: Some(stamp), key, created: true, replicated: true };
    let nothing = Written { token: None, stamp: None, key: None, created: false, replicated: true };
    let remembered =
        |n, written| (KeyHash([n; 16]), Remembered::new(RequestHash([n + 1; 16]), WallClock(1_790_000_000_000), written));
    Effects { remembered: vec![remembered(0x21, made), remembered(0x31, nothing)], ..effects() }
}

/// Every shape: the file that freezes it, and its bytes.
pub fn shapes() -> Vec<(String, Vec<u8>)> {
    let mut shapes: Vec<_> = commits().into_iter().map(|(name, bytes, ..)| (format!("commit/{name}"), bytes)).collect();
    for (prefix, dataset) in [("primary", None), ("dataset", Some(DatasetId::new("telemetry").unwrap()))] {
        let of = |name: &str| format!("wire/{name}-{prefix}");
        shapes.extend(requests(dataset.clone()).into_iter().map(|(name, m)| (of(&format!("request-{name}")), m.encode())));
        shapes.extend(responses(dataset.clone()).into_iter().map(|(name, m)| (of(&format!("response-{name}")), m.encode())));
        shapes.push((of("announce"), announce(dataset.clone()).encode()));
        shapes.push((of("statement"), codec::encode(&statement(dataset))));
    }
    shapes.push(("commit/log-effects".into(), codec::encode(&effects())));
    shapes.push(("commit/log-effects-branch".into(), codec::encode(&Effects { branch: Some(writer(9)), ..effects() })));
    shapes.push(("commit/log-effects-floor".into(), codec::encode(&effects_with_floor())));
    shapes.push(("commit/fork-proof".into(), codec::encode(&crate::forks::proof())));
    shapes.push(("commit/log-effects-closed".into(), codec::encode(&Effects { epoch: None, ..effects() })));
    shapes.push(("commit/log-effects-widens".into(), codec::encode(&Effects { widens: Some(41), ..effects() })));
    shapes.push(("commit/log-effects-issues".into(), codec::encode(&Effects { issues: Some(42), ..effects() })));
    shapes.push(("commit/log-effects-keys".into(), codec::encode(&effects_with_keys())));
    shapes
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn read(name: &str) -> Vec<u8> {
    let path = fixtures().join(format!("{name}.hex"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digits: String = text.split_whitespace().collect();
    data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `ANABRANCH_WRITE_FIXTURES=new` writes what is missing. Nothing rewrites a file that exists: what was released is frozen.
#[test]
#[expect(clippy::disallowed_methods, reason = "the rules read no environment; this test does, to write new fixtures")]
fn shapes_encode_to_their_frozen_bytes() {
    if std::env::var("ANABRANCH_WRITE_FIXTURES").is_ok_and(|mode| mode == "new") {
        write_missing();
    }
    for (name, bytes) in shapes() {
        let frozen = read(&name);
        assert_eq!(data_encoding::HEXLOWER.encode(&bytes), data_encoding::HEXLOWER.encode(&frozen), "{name} changed");
    }
    for (_, request) in requests(None) {
        assert_eq!(codec::encoded_len(&request), request.encode().len());
    }
}

#[expect(clippy::disallowed_methods, reason = "fixtures are files")]
fn write_missing() {
    for (name, bytes) in shapes() {
        let path = fixtures().join(format!("{name}.hex"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let digits = data_encoding::HEXLOWER.encode(&bytes);
        let lines: Vec<&str> = digits.as_bytes().chunks(96).map(|line| std::str::from_utf8(line).unwrap()).collect();
        if !path.exists() {
            std::fs::write(path, lines.join("\n") + "\n").unwrap();
        }
    }
}

#[test]
fn frozen_bytes_decode_to_their_values() {
    for (name, _, dataset, lineage) in commits() {
        let bytes = read(&format!("commit/{name}"));
        let commit: Commit =
            Frame::decode(&bytes).unwrap().verify(&dataset, lineage).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(commit.to_bytes(), bytes, "{name}");
    }
    for (prefix, dataset) in [("primary", None), ("dataset", Some(DatasetId::new("telemetry").unwrap()))] {
        for (name, request) in requests(dataset.clone()) {
            assert_eq!(Request::decode(&read(&format!("wire/request-{name}-{prefix}"))), Ok(request));
        }
        for (name, response) in responses(dataset.clone()) {
            assert_eq!(Response::decode(&read(&format!("wire/response-{name}-{prefix}"))), Ok(response));
        }
        assert_eq!(Announce::decode(&read(&format!("wire/announce-{prefix}"))), Ok(announce(dataset.clone())));
        let signed: SignedStatement = codec::decode(&read(&format!("wire/statement-{prefix}")), 1 << 20).unwrap();
        let (id, lineage) = match &dataset {
            Some(id) => (id.clone(), LINEAGE),
            None => (DatasetId::primary(), Lineage::ZERO),
        };
        assert_eq!(signed.verify(&id, lineage).unwrap().counter, 25);
    }
    let frozen = |name: &str| codec::decode::<Effects>(&read(name), 1 << 20);
    assert_eq!(frozen("commit/log-effects"), Ok(effects()));
    assert_eq!(frozen("commit/log-effects-floor"), Ok(effects_with_floor()));
    assert_eq!(frozen("commit/log-effects-widens"), Ok(Effects { widens: Some(41), ..effects() }));
    assert_eq!(frozen("commit/log-effects-keys"), Ok(effects_with_keys()));
    assert_eq!(frozen("commit/log-effects-issues"), Ok(Effects { issues: Some(42), ..effects() }));
}

#[test]
fn every_fixture_belongs_to_a_shape() {
    let names: std::collections::BTreeSet<String> = shapes().into_iter().map(|(name, _)| name).collect();
    for folder in ["commit", "wire"] {
        for file in std::fs::read_dir(fixtures().join(folder)).unwrap() {
            let name = format!("{folder}/{}", file.unwrap().path().file_stem().unwrap().to_str().unwrap());
            assert!(names.contains(&name), "{name} is frozen but no longer checked");
        }
    }
}
