//! `load`: sample documents, written at a rate or as fast as the node takes them.

use std::io::Read;
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use ureq::http::Method;

use super::client::{Node, segment};
use super::documents::DatasetOf;
use super::query::print_json;
use super::transfer::{Progress, rate};
use crate::process::Failure;

/// Largest sample, bytes: with its key and its names it stays below what a node takes.
const SIZE_MAX: u64 = 1_000_000;
/// Lines written at once where no rate is asked for.
const BURST: u64 = 512;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch load --rate 50/s --duration 1m
  anabranch load --dataset logs --collection app --max --size 200B

Keys are load-0 … load-N: a second run writes the same documents again.
An append dataset gets new records each time.")]
pub struct LoadArgs {
    /// The collection.
    #[arg(long, value_name = "C", default_value = "load")]
    collection: String,
    /// Documents a second.
    #[arg(long, value_name = "N/s", default_value = "100/s", conflicts_with = "max")]
    rate: Rate,
    /// As fast as the node takes them.
    #[arg(long)]
    max: bool,
    /// For how long, such as 30s or 5m.
    #[arg(long, value_name = "T", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Size of a document's value, about.
    #[arg(long, value_name = "BYTES", default_value = "256B")]
    size: bytesize::ByteSize,
    #[command(flatten)]
    of: DatasetOf,
}

/// Documents a second: `50`, `50/s`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rate(f64);

impl FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix("/s").unwrap_or(text);
        let rate: f64 = number.parse().map_err(|_| format!("{text:?} is not a rate: use 50/s"))?;
        if (1e-4..=1e7).contains(&rate) { Ok(Self(rate)) } else { Err(format!("{text:?}: use 0.0001/s to 10000000/s")) }
    }
}

impl Rate {
    fn interval(self) -> Duration {
        Duration::from_secs_f64(1.0 / self.0).max(Duration::from_nanos(1))
    }
}

/// How often `interval` has passed within `time`.
fn times(time: Duration, interval: Duration) -> u64 {
    u64::try_from(time.as_nanos() / interval.as_nanos()).unwrap_or(u64::MAX)
}

/// The stream of samples: each is due at its time.
struct Samples<'a> {
    append: bool,
    collection: &'a str,
    filler: String,
    /// Between two of them; none: as fast as they are taken.
    interval: Option<Duration>,
    since: Instant,
    lasts: Duration,
    progress: &'a Progress,
    made: u64,
    buffer: Vec<u8>,
    given: usize,
}

pub fn load(args: &LoadArgs) -> Result<(), Failure> {
    let size = args.size.0;
    if size > SIZE_MAX {
        return Err(Failure::Usage(format!("--size {}: at most {}", args.size, bytesize::ByteSize(SIZE_MAX))));
    }
    let dataset = segment(&args.of.dataset);
    let append = Node::of(&args.of.node)?.ask(&format!("/v1/datasets/{dataset}"))?["kind"] == "append";
    let interval = (!args.max).then(|| args.rate.interval());
    // What a rate comes to; how much the node will take without one is what is to be found out.
    let expected = interval.map(|interval| times(args.duration, interval));
    let progress = Progress::of_documents(expected);
    let mut samples = Samples {
        append,
        collection: &args.collection,
        filler: "x".repeat(usize::try_from(size).unwrap_or_default().saturating_sub(FIELDS_BYTES)),
        interval,
        since: Instant::now(),
        lasts: args.duration,
        progress: &progress,
        made: 0,
        buffer: Vec::new(),
        given: 0,
    };
    let path = format!("/v1/datasets/{dataset}/ingest");
    let node = Node::streaming(&args.of.node)?;
    let answer = node.send_reader(Method::POST, &path, &mut samples)?;
    let took = progress.finish();
    let body = Node::ok(answer)?;
    let accepted = body["accepted"].as_u64().unwrap_or_default();
    if args.of.json {
        let (commits, seconds) = (&body["commits"], took.as_secs_f64());
        return print_json(&json!({ "written": accepted, "commits": commits, "seconds": seconds, "token": body["token"] }));
    }
    println!("wrote {}, commits: {}", rate(accepted, "document", took), body["commits"]);
    Ok(())
}

/// What the fields of a sample take beside its filler, bytes, about.
const FIELDS_BYTES: usize = 40;

impl Samples<'_> {
    /// How many more are due now; none once the time is over. Waits for the first.
    fn due(&self) -> u64 {
        loop {
            let elapsed = self.since.elapsed();
            let Some(interval) = self.interval else { return if elapsed < self.lasts { BURST } else { 0 } };
            let due = times(elapsed.min(self.lasts), interval).saturating_sub(self.made);
            if due > 0 || elapsed >= self.lasts {
                return due.min(BURST);
            }
            let next = u32::try_from(self.made + 1).map_or(self.lasts, |number| interval.saturating_mul(number));
            std::thread::sleep(next.min(self.lasts).saturating_sub(elapsed));
        }
    }

    fn make(&mut self, count: u64) {
        self.buffer.clear();
        self.given = 0;
        for number in self.made..self.made + count {
            let value = json!({ "number": number, "filler": self.filler });
            let op = if self.append {
                json!({ "op": "append", "collection": self.collection, "value": value })
            } else {
                json!({ "op": "put", "collection": self.collection, "key": format!("load-{number}"), "value": value })
            };
            self.buffer.extend_from_slice(op.to_string().as_bytes());
            self.buffer.push(b'\n');
        }
        self.made += count;
        self.progress.advance(count);
    }
}

impl Read for Samples<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.given == self.buffer.len() {
            let due = self.due();
            self.make(due);
        }
        let rest = &self.buffer[self.given..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_of_documents_a_second() {
        assert_eq!("50/s".parse(), Ok(Rate(50.0)));
        assert_eq!("0.5".parse(), Ok(Rate(0.5)));
        for wrong in ["", "0", "-1/s", "fast", "NaN", "5/m"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }
}
