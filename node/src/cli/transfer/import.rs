//! `import`: documents of a file into a collection.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use indicatif::HumanCount;
use serde_json::json;
use ureq::http::Method;

use super::super::client::{Node, segment};
use super::super::documents::DatasetOf;
use super::super::query::print_json;
use super::lines::{OpLines, Shape};
use super::progress::{Progress, rate};
use super::{Format, is_stdio};
use crate::process::Failure;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch import orders orders.ndjson               as export writes it
  anabranch import customers customers.csv --key id   its key is column `id`
  zcat log.ndjson.gz | anabranch import access - --dataset logs

NDJSON: {\"key\", \"value\"} a line. CSV: a cell that is JSON (12, true, [1]) is
that value, any other is text (007 too), an empty one is no field.
Documents that are there already are replaced. A bad record ends the import;
those before it stay.")]
pub struct ImportArgs {
    /// The collection.
    collection: String,
    /// From where; `-` is standard input.
    file: PathBuf,
    /// How documents stand in the file, where its name doesn't say (.ndjson, .jsonl, .csv).
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The field or column that holds a document's key.
    #[arg(long, value_name = "FIELD")]
    key: Option<String>,
    /// Pass over so many records at the beginning, to go on with an import that was cut short.
    #[arg(long, value_name = "RECORDS", default_value_t = 0)]
    skip: u64,
    #[command(flatten)]
    of: DatasetOf,
}

pub fn import(args: &ImportArgs) -> Result<(), Failure> {
    let format = Format::of(args.format, &args.file)?;
    let shape =
        Shape { collection: args.collection.clone(), append: is_append(args)?, key_field: args.key.clone(), skip: args.skip };
    let (source, bytes) = open(args)?;
    let progress = Progress::of_bytes(bytes);
    let sent = Cell::new(0_u64);
    let mut taken = |count| {
        sent.set(sent.get() + count);
        progress.say(format!("{} records", HumanCount(sent.get())));
    };
    let counted = Box::new(Counted { source, progress: &progress });
    let in_file = |reason: &str| format!("{}: {reason}", args.file.display());
    let mut lines = OpLines::new(format, counted, shape, &mut taken).map_err(|reason| Failure::Usage(in_file(&reason)))?;
    let path = format!("/v1/datasets/{}/ingest", segment(&args.of.dataset));
    let node = Node::streaming(&args.of.node)?;
    let answer = node.send_reader(Method::POST, &path, &mut lines)?;
    let failure = lines.failure().map(str::to_owned);
    let took = progress.finish();
    let accepted = answer.body["accepted"].as_u64().unwrap_or_default();
    let go_on = |accepted: u64| match args.skip + accepted {
        0 => "nothing was imported".to_owned(),
        done => format!("{accepted} records were imported and stay; go on with --skip {done}"),
    };
    if !answer.status.is_success() {
        let refused = Node::refused(&answer);
        return Err(Failure::Other(format!("{refused}; {}", go_on(accepted))));
    }
    if let Some(failure) = failure {
        return Err(Failure::Other(format!("{}; {}", in_file(&failure), go_on(accepted))));
    }
    if args.of.json {
        let body = &answer.body;
        return print_json(&json!({
            "imported": accepted, "commits": body["commits"], "token": body["token"], "seconds": took.as_secs_f64(),
        }));
    }
    println!("imported {}", rate(accepted, "document", took));
    Ok(())
}

fn is_append(args: &ImportArgs) -> Result<bool, Failure> {
    let dataset = Node::of(&args.of.node)?.ask(&format!("/v1/datasets/{}", segment(&args.of.dataset)))?;
    let append = dataset["kind"] == "append";
    if append && args.key.is_some() {
        let reason = format!("--key: {} is an append dataset, whose keys the node chooses", args.of.dataset);
        return Err(Failure::Usage(reason));
    }
    Ok(append)
}

fn open(args: &ImportArgs) -> Result<(Box<dyn Read>, Option<u64>), Failure> {
    if is_stdio(&args.file) {
        return Ok((Box::new(std::io::stdin()), None));
    }
    let can_not = |error| Failure::Usage(format!("can't read {}: {error}", args.file.display()));
    let file = File::open(&args.file).map_err(can_not)?;
    let bytes = file.metadata().map_err(can_not)?.len();
    Ok((Box::new(file), Some(bytes)))
}

/// Tells how much was read.
struct Counted<'a> {
    source: Box<dyn Read>,
    progress: &'a Progress,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.progress.advance(count as u64);
        Ok(count)
    }
}
