//! `status`, `peers` and `datasets`: what a running node says over HTTP, as JSON or for people.

use clap::Args;
use serde_json::{Value as Json, json};

use super::client::{Node, NodeArgs};
use super::tables;
use crate::process::Failure;

#[derive(Debug, Args)]
pub struct QueryArgs {
    #[command(flatten)]
    pub(super) node: NodeArgs,
    /// Print JSON, for scripts.
    #[arg(long)]
    pub(super) json: bool,
}

pub fn status(args: &QueryArgs) -> Result<(), Failure> {
    let node = Node::of(&args.node)?;
    let (page, health) = (node.ask("/v1/node")?, node.ask("/healthz")?);
    let (datasets, peers) = (node.ask("/v1/datasets")?, node.ask("/v1/peers")?);
    if args.json {
        return print_json(&json!({ "node": page, "health": health, "datasets": datasets, "peers": peers }));
    }
    println!("{}", super::status::page(&page, &health, &datasets, &peers, tables::width()));
    Ok(())
}

pub fn peers(args: &QueryArgs) -> Result<(), Failure> {
    show(args, "/v1/peers", tables::peers)
}

pub fn datasets(args: &QueryArgs) -> Result<(), Failure> {
    show(args, "/v1/datasets", tables::datasets)
}

fn show(args: &QueryArgs, path: &str, table: fn(&Json, usize) -> String) -> Result<(), Failure> {
    let answer = Node::of(&args.node)?.ask(path)?;
    if args.json {
        return print_json(&answer);
    }
    println!("{}", table(&answer, tables::width()));
    Ok(())
}

pub(super) fn print_json(value: &Json) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::other("can't write JSON", error))?;
    println!("{text}");
    Ok(())
}
