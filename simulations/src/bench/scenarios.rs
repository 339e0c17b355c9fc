//! What is measured.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anabranch_protocol::wire::Kind;

use super::bare;
use super::nodes::{BenchNode, wait_for};

pub(super) const LIMIT: Duration = Duration::from_secs(600);

/// `count` documents of about 250 bytes of JSON.
#[must_use]
pub fn documents(count: usize) -> Vec<(String, String)> {
    let document = |n: usize| {
        let filler = format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).repeat(8);
        let json = format!(
            r#"{{"id":{n},"customer":"customer-{:05}","total":{}.5,"paid":{},"note":"{:.150}"}}"#,
            n % 50_000,
            n % 1_000,
            n.is_multiple_of(2),
            filler + &"lorem ipsum dolor sit amet ".repeat(6)
        );
        (format!("item-{n:08}"), json)
    };
    (0..count).map(document).collect()
}

pub(super) fn ndjson(kind: Kind, documents: &[(String, String)]) -> Vec<u8> {
    let mut body = String::with_capacity(documents.len() * 330);
    for (key, json) in documents {
        // Writing into a string does not fail.
        let _ = match kind {
            Kind::Documents => writeln!(body, r#"{{"op":"put","collection":"items","key":"{key}","value":{json}}}"#),
            Kind::Append => writeln!(body, r#"{{"op":"append","collection":"items","value":{json}}}"#),
        };
    }
    body.into_bytes()
}

fn report(name: &str, count: usize, took: Duration, bare: Duration, wanted: f64, more: &str) {
    let rate = |took: Duration| count as f64 / took.as_secs_f64();
    let ratio = rate(took) / rate(bare);
    let verdict = if ratio >= wanted { "ok" } else { "MISSED" };
    println!(
        "{name:<28} {:>8.0}/s  bare {:>8.0}/s  ratio {ratio:.2} (wanted {wanted:.2}) {verdict}  {more}",
        rate(took),
        rate(bare)
    );
}

/// Ingest on one node.
pub fn ingest(kind: Kind, count: usize, wanted: f64) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let documents = documents(count);
    let body = ndjson(kind, &documents);
    let node = BenchNode::start(&place.path().join("a"), &[&format!("primary:{kind}=*")], &[]);
    let started = Instant::now();
    let answer = node.ingest("primary", &body);
    let took = started.elapsed();
    let commits = usize::try_from(answer["commits"].as_u64().unwrap_or(1)).unwrap_or(1).max(1);
    assert_eq!(node.documents("primary"), count as u64);
    let memory = node.peak_memory_mib();
    drop(node);
    let per_commit = count.div_ceil(commits);
    let bare = bare::run(kind, &documents, per_commit);
    report(&format!("ingest {kind}"), count, took, bare, wanted, &format!("{per_commit} a commit, {memory} MiB"));
}

/// Ingest on one node until everything is readable on a connected second one.
pub fn replicate(count: usize, wanted: f64) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let documents = documents(count);
    let body = ndjson(Kind::Documents, &documents);
    let a = BenchNode::start(&place.path().join("a"), &["primary=*"], &[]);
    let b = BenchNode::start(&place.path().join("b"), &["primary=*"], &a.listen);
    a.put("first", "1");
    wait_for(LIMIT, || b.has("first").then_some(()));
    let started = Instant::now();
    let answer = a.ingest("primary", &body);
    wait_for(LIMIT, || (b.documents("primary") == count as u64 + 1).then_some(()));
    let took = started.elapsed();
    let commits = usize::try_from(answer["commits"].as_u64().unwrap_or(1)).unwrap_or(1).max(1);
    let memory = (a.peak_memory_mib(), b.peak_memory_mib());
    drop((a, b));
    let bare = bare::run(Kind::Documents, &documents, count.div_ceil(commits));
    report("replicate to a second node", count, took, bare, wanted, &format!("{} and {} MiB", memory.0, memory.1));
}

/// A second node that starts empty beside a full one.
pub fn catch_up(count: usize, wanted: f64) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let documents = documents(count);
    let a = BenchNode::start(&place.path().join("a"), &["primary=*"], &[]);
    let answer = a.ingest("primary", &ndjson(Kind::Documents, &documents));
    let commits = usize::try_from(answer["commits"].as_u64().unwrap_or(1)).unwrap_or(1).max(1);
    let started = Instant::now();
    let b = BenchNode::start(&place.path().join("b"), &["primary=*"], &a.listen);
    wait_for(LIMIT, || (b.documents("primary") == count as u64).then_some(()));
    let took = started.elapsed();
    let memory = (a.peak_memory_mib(), b.peak_memory_mib());
    drop((a, b));
    let bare = bare::run(Kind::Documents, &documents, count.div_ceil(commits));
    report("cold catch-up", count, took, bare, wanted, &format!("{} and {} MiB (wanted 300 at most)", memory.0, memory.1));
}

/// One write every 20 ms: written here to visible on the peer.
pub fn latency(count: usize) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let documents = documents(count);
    let a = BenchNode::start(&place.path().join("a"), &["primary=*"], &[]);
    let b = BenchNode::start(&place.path().join("b"), &["primary=*"], &a.listen);
    a.put("first", "1");
    wait_for(LIMIT, || b.has("first").then_some(()));
    let mut took = Vec::new();
    for (key, json) in &documents {
        let started = Instant::now();
        a.put(key, json);
        while !b.has(key) {
            std::hint::spin_loop();
        }
        took.push(started.elapsed());
        std::thread::sleep(Duration::from_millis(20).saturating_sub(started.elapsed()));
    }
    drop((a, b));
    let bare = percentile(&mut bare::lone_fsyncs(&documents), 0.5);
    let (p50, p95) = (percentile(&mut took, 0.5), percentile(&mut took, 0.95));
    let wanted = bare * 2 + Duration::from_millis(2);
    let verdict = if p50 <= wanted { "ok" } else { "MISSED" };
    println!(
        "written to visible on peer   p50 {p50:.2?} p95 {p95:.2?}  bare fsync p50 {bare:.2?}  (wanted p50 <= {wanted:.2?}) {verdict}"
    );
}

pub(super) fn percentile(samples: &mut [Duration], share: f64) -> Duration {
    samples.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length is an index")]
    let at = ((samples.len() - 1) as f64 * share) as usize;
    samples[at]
}
