//! `export`: every document of a collection into a file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value as Json, json};

use super::super::client::{Node, segment};
use super::super::documents::{DatasetOf, Pages};
use super::super::query::print_json;
use super::progress::{Progress, rate};
use super::{Format, cells, is_stdio, partial};
use crate::process::Failure;

/// Documents asked for at once.
const PAGE: usize = 1_000;
/// The column of the key.
pub(super) const KEY: &str = "key";
/// The column of a value that is no object.
pub(super) const VALUE: &str = "value";

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch export orders orders.ndjson
  anabranch export customers customers.csv
  anabranch export orders - | jq .value.total

NDJSON: {\"key\", \"value\"} a line. CSV: a column `key` and one for each field
that a document has; nested values are JSON. The file appears under its name
once it is whole. Documents that change meanwhile are in it as they were or as
they are.")]
pub struct ExportArgs {
    /// The collection.
    collection: String,
    /// Where to; `-` is standard output.
    file: PathBuf,
    /// How documents stand in the file, where its name doesn't say (.ndjson, .jsonl, .csv).
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Put the file in place of one that is there.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    of: DatasetOf,
}

pub fn export(args: &ExportArgs) -> Result<(), Failure> {
    let format = Format::of(args.format, &args.file)?;
    let node = Node::of(&args.of.node)?;
    let total = documents(&node, args)?;
    let progress = Progress::of_documents(total);
    let count = if is_stdio(&args.file) {
        write(&node, args, format, &progress, &mut std::io::stdout().lock())?
    } else {
        to_file(&node, args, format, &progress)?
    };
    let took = progress.finish();
    if args.of.json && !is_stdio(&args.file) {
        return print_json(&json!({ "exported": count, "file": args.file, "seconds": took.as_secs_f64() }));
    }
    eprintln!("exported {}", rate(count, "document", took));
    Ok(())
}

/// How many documents there are, if the node says so.
fn documents(node: &Node, args: &ExportArgs) -> Result<Option<u64>, Failure> {
    let collections = node.ask(&format!("/v1/datasets/{}/collections", segment(&args.of.dataset)))?;
    let rows = collections.as_array().map_or(&[][..], Vec::as_slice);
    let row = rows.iter().find(|row| row["collection"] == *args.collection);
    if row.is_none() {
        let named: Vec<_> = rows.iter().filter_map(|row| row["collection"].as_str()).collect();
        let there = if named.is_empty() { "it has none".to_owned() } else { format!("it has {}", named.join(", ")) };
        return Err(Failure::Other(format!("dataset {} has no collection {:?}: {there}", args.of.dataset, args.collection)));
    }
    Ok(row.and_then(|row| row["documents"].as_u64()))
}

fn to_file(node: &Node, args: &ExportArgs, format: Format, progress: &Progress) -> Result<u64, Failure> {
    let file = &args.file;
    if file.exists() && !args.force {
        return Err(Failure::Usage(format!("{} is there already: --force puts the export in its place", file.display())));
    }
    let partial = partial(file);
    let failed = |error| Failure::other(format!("can't write {}", partial.display()), error);
    let mut out = BufWriter::new(File::create(&partial).map_err(failed)?);
    let count = write(node, args, format, progress, &mut out)?;
    let out = out.into_inner().map_err(|error| failed(error.into_error()))?;
    out.sync_all().map_err(failed)?;
    std::fs::rename(&partial, file).map_err(|error| Failure::other(format!("can't write {}", file.display()), error))?;
    Ok(count)
}

fn write(node: &Node, args: &ExportArgs, format: Format, progress: &Progress, out: &mut dyn Write) -> Result<u64, Failure> {
    match format {
        Format::Ndjson => {
            each(node, args, progress, &mut |row| writeln!(out, "{}", json!({ "key": row["key"], "value": row["value"] })))
        }
        Format::Csv => {
            let columns = columns(node, args)?;
            let mut csv = csv::Writer::from_writer(out);
            csv.write_record(&columns).map_err(|error| Failure::other("can't write", error))?;
            let count =
                each(node, args, progress, &mut |row| csv.write_record(record(row, &columns)).map_err(std::io::Error::other))?;
            csv.flush().map_err(|error| Failure::other("can't write", error))?;
            Ok(count)
        }
    }
}

/// Calls `take` with each row.
fn each(
    node: &Node,
    args: &ExportArgs,
    progress: &Progress,
    take: &mut dyn FnMut(&Json) -> std::io::Result<()>,
) -> Result<u64, Failure> {
    let mut pages = Pages::new(node, args.of.docs(&args.collection), Vec::new(), None);
    let mut count = 0;
    while let Some(rows) = pages.next(PAGE)? {
        for row in &rows {
            take(row).map_err(|error| Failure::other("can't write", error))?;
        }
        count += rows.len() as u64;
        progress.advance(rows.len() as u64);
    }
    Ok(count)
}

/// The columns that the documents need. A file names its columns first, so everything is read once for them.
fn columns(node: &Node, args: &ExportArgs) -> Result<Vec<String>, Failure> {
    let (mut fields, mut bare) = (BTreeSet::new(), false);
    let silent = Progress::of_documents(None);
    each(node, args, &silent, &mut |row| {
        match &row["value"] {
            Json::Object(object) => {
                fields.extend(object.keys().filter(|name| !fields.contains(*name)).cloned().collect::<Vec<_>>())
            }
            _ => bare = true,
        }
        Ok(())
    })?;
    silent.finish();
    if fields.contains(KEY) || (bare && fields.contains(VALUE)) {
        let reason = "documents have a field `key` or `value`, which are columns of their own: export as NDJSON";
        return Err(Failure::Other(reason.to_owned()));
    }
    let bare = bare.then(|| VALUE.to_owned());
    Ok(std::iter::once(KEY.to_owned()).chain(fields).chain(bare).collect())
}

fn record(row: &Json, columns: &[String]) -> Vec<String> {
    let value = &row["value"];
    let of = |column: &String| match (column.as_str(), value) {
        (KEY, _) => row["key"].as_str().unwrap_or_default().to_owned(),
        (name, Json::Object(object)) => cells::cell(object.get(name)),
        (VALUE, value) => cells::cell(Some(value)),
        _ => String::new(),
    };
    columns.iter().map(of).collect()
}
