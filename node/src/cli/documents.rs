//! `get`, `put`, `patch`, `delete` and `list`: documents of a running node.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::Args;
use serde_json::Value as Json;
use ureq::http::{Method, StatusCode};

use super::client::{Answer, Node, NodeArgs, segment};
use super::query::print_json;
use super::tables;
use super::wish::{WriteWish, timeout_ms};
use crate::process::Failure;

/// Documents a page is asked for.
const PAGE: usize = 1_000;

/// Where a document is.
#[derive(Debug, Clone, Args)]
pub struct DatasetOf {
    /// The dataset.
    #[arg(long, short = 'd', value_name = "NAME", default_value = "primary")]
    pub dataset: String,
    #[command(flatten)]
    pub node: NodeArgs,
    /// Print JSON, for scripts.
    #[arg(long)]
    pub json: bool,
}

impl DatasetOf {
    /// The path of a collection's documents.
    pub fn docs(&self, collection: &str) -> String {
        format!("/v1/datasets/{}/collections/{}/docs", segment(&self.dataset), segment(collection))
    }

    fn doc(&self, place: &Place) -> String {
        format!("{}/{}", self.docs(&place.collection), segment(&place.key))
    }
}

#[derive(Debug, Args)]
pub struct Place {
    /// The collection.
    pub collection: String,
    /// The document's key.
    pub key: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch get orders o-1
  anabranch get orders o-1 --json | jq .total
  anabranch get orders o-1 --after TOKEN --timeout 30s

--after: as it is once this node has the write that `put --json` named.")]
pub struct GetArgs {
    #[command(flatten)]
    place: Place,
    /// Wait until the node has the write that this token names.
    #[arg(long, value_name = "TOKEN")]
    after: Option<String>,
    /// For how long to wait [default: 5s].
    #[arg(long, value_name = "T", value_parser = humantime::parse_duration, requires = "after")]
    timeout: Option<Duration>,
    #[command(flatten)]
    of: DatasetOf,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch put orders o-1 '{\"total\": 12}'
  jq .order export.json | anabranch put orders o-1 -
  anabranch patch orders o-1 '{\"paid\": true, \"note\": null}'
  anabranch put orders o-1 '{\"total\": 12}' --ack 1
  anabranch put orders o-1 '{\"total\": 12}' --if-none-match

patch is a JSON merge patch: null removes a field.
--ack 1 is answered when another node has it, too.

Exit code 4: written, but fewer nodes than --ack asks for had it in time.")]
pub struct PutArgs {
    #[command(flatten)]
    place: Place,
    /// The value, as JSON; `-` reads it from standard input.
    #[arg(value_name = "JSON|-", allow_hyphen_values = true)]
    value: String,
    #[command(flatten)]
    wish: WriteWish,
    #[command(flatten)]
    of: DatasetOf,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch delete orders o-1
  anabranch delete orders o-1 --if-match STAMP      only that very version

`put --json` and `list --json` show stamps.")]
pub struct DeleteArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    wish: WriteWish,
    #[command(flatten)]
    of: DatasetOf,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  anabranch list orders --prefix o-2026-
  anabranch list orders --all --json > orders.ndjson
  anabranch list access --dataset logs --from 2026-01-31T12:00:00Z")]
pub struct ListArgs {
    /// The collection.
    collection: String,
    /// Only keys that begin with this.
    #[arg(long)]
    prefix: Option<String>,
    /// Only keys after this one.
    #[arg(long, value_name = "KEY")]
    after: Option<String>,
    /// Wait until the node has the write that this token names, as `put --json` shows it.
    #[arg(long, value_name = "TOKEN")]
    after_token: Option<String>,
    /// For how long to wait [default: 5s].
    #[arg(long, value_name = "T", value_parser = humantime::parse_duration, requires = "after_token")]
    timeout: Option<Duration>,
    /// At most so many.
    #[arg(long, default_value_t = 100, conflicts_with = "all", value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Every one.
    #[arg(long)]
    all: bool,
    /// Records of an append dataset from this time on: 2026-01-31T12:00:00Z, or milliseconds since 1970.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Records of an append dataset before this time.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    #[command(flatten)]
    of: DatasetOf,
}

pub fn get(args: &GetArgs) -> Result<(), Failure> {
    let mut path = args.of.doc(&args.place);
    if let Some(token) = &args.after {
        path += &format!("?after={}{}", segment(token), timeout_ms(args.timeout, '&'));
    }
    let wait = args.timeout.unwrap_or_default();
    let document = Node::patient(&args.of.node, wait)?.ask(&path)?;
    if args.of.json {
        println!("{document}");
        return Ok(());
    }
    print_json(&document)
}

pub fn put(args: &PutArgs) -> Result<(), Failure> {
    write(args, Method::PUT)
}

pub fn patch(args: &PutArgs) -> Result<(), Failure> {
    write(args, Method::PATCH)
}

fn write(args: &PutArgs, method: Method) -> Result<(), Failure> {
    let patches = method == Method::PATCH;
    let node = Node::streaming(&args.of.node)?;
    let (path, headers) = (args.of.doc(&args.place) + &args.wish.query(), args.wish.headers());
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = if args.value == "-" {
        node.send_with(method, &path, &headers, Some(&mut std::io::stdin().lock()))?
    } else {
        node.send_with(method, &path, &headers, Some(&mut args.value.as_bytes()))?
    };
    let word = match (patches, answer.status) {
        (true, _) => "patched",
        (false, StatusCode::CREATED) => "created",
        (false, StatusCode::ACCEPTED) => "wrote",
        (false, _) => "replaced",
    };
    report(&args.of, &args.place, &args.wish, word, answer)
}

pub fn delete(args: &DeleteArgs) -> Result<(), Failure> {
    let (path, headers) = (args.of.doc(&args.place) + &args.wish.query(), args.wish.headers());
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let node = Node::patient(&args.of.node, args.wish.timeout.unwrap_or_default())?;
    let answer = node.send_with(Method::DELETE, &path, &headers, None)?;
    report(&args.of, &args.place, &args.wish, "deleted", answer)
}

fn report(of: &DatasetOf, place: &Place, wish: &WriteWish, word: &str, answer: Answer) -> Result<(), Failure> {
    let unconfirmed = answer.status == StatusCode::ACCEPTED;
    let body = Node::ok(answer)?;
    let confirmed = body["confirmed_by"].as_array().map_or(0, Vec::len);
    if of.json {
        print_json(&body)?;
    }
    if unconfirmed {
        return Err(Failure::Unconfirmed(wish.unconfirmed(word, place, &body, confirmed)));
    }
    if of.json {
        return Ok(());
    }
    let here_only = if body["replicated"].as_bool() == Some(false) {
        " (on this node only: the collection is not registered here)"
    } else {
        ""
    };
    let confirmed = match (&wish.ack, confirmed) {
        (None, _) => String::new(),
        (Some(_), 1) => ", confirmed by 1 other node".to_owned(),
        (Some(_), count) => format!(", confirmed by {count} other nodes"),
    };
    println!("{word} {}/{}{here_only}{confirmed}", place.collection, place.key);
    Ok(())
}

/// Pages of a collection, one request each.
pub struct Pages<'a> {
    node: &'a Node,
    path: String,
    query: Vec<(&'static str, String)>,
    after: Option<String>,
    done: bool,
}

impl<'a> Pages<'a> {
    pub fn new(node: &'a Node, path: String, query: Vec<(&'static str, String)>, after: Option<String>) -> Self {
        Self { node, path, query, after, done: false }
    }

    /// The next rows, at most `limit`; none at the end.
    pub fn next(&mut self, limit: usize) -> Result<Option<Vec<Json>>, Failure> {
        if self.done {
            return Ok(None);
        }
        let mut query = vec![("limit", limit.min(PAGE).to_string())];
        query.extend(self.query.iter().cloned());
        query.extend(self.after.clone().map(|after| ("after", after)));
        let query: Vec<_> = query.iter().map(|(name, value)| format!("{name}={}", segment(value))).collect();
        let mut page = self.node.ask(&format!("{}?{}", self.path, query.join("&")))?;
        self.after = page["next"].as_str().map(str::to_owned);
        self.done = self.after.is_none();
        match page["docs"].take() {
            Json::Array(rows) => Ok(Some(rows)),
            _ => Err(Failure::Other(format!("{}: the node answered without `docs`", self.path))),
        }
    }

    /// Where the page after the last one begins.
    pub fn goes_on_after(&self) -> Option<&str> {
        self.after.as_deref()
    }
}

pub fn list(args: &ListArgs) -> Result<(), Failure> {
    let node = Node::patient(&args.of.node, args.timeout.unwrap_or_default())?;
    let timeout = args.timeout.map(|wait| wait.as_millis().to_string());
    let given = [("prefix", &args.prefix), ("from", &args.from), ("to", &args.to)];
    let waits = [("after_token", &args.after_token), ("timeout_ms", &timeout)];
    let query = given.into_iter().chain(waits).filter_map(|(name, value)| Some((name, value.clone()?))).collect();
    let mut pages = Pages::new(&node, args.of.docs(&args.collection), query, args.after.clone());
    let mut left = if args.all { usize::MAX } else { usize::try_from(args.limit).unwrap_or(usize::MAX) };
    let mut shown = 0;
    let mut out = std::io::stdout().lock();
    while left > 0 {
        let Some(rows) = pages.next(left)? else { break };
        left = left.saturating_sub(rows.len());
        shown += rows.len();
        let text = if args.of.json { ndjson(&rows) } else { tables::documents(&rows) };
        match out.write_all(text.as_bytes()) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            other => other.map_err(|error| Failure::other("can't write", error))?,
        }
    }
    if !args.of.json && shown == 0 {
        eprintln!("No documents in {}.", args.collection);
    }
    if let (Some(after), true) = (pages.goes_on_after(), std::io::stderr().is_terminal() && !args.of.json) {
        eprintln!("There are more: --after {after:?}, or --all");
    }
    Ok(())
}

fn ndjson(rows: &[Json]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}
