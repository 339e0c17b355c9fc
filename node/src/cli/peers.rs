//! `peers`, and `peers enrol|demote|disable|remove PEER`: with whom a node syncs, and whom it counts on.

use anabranch_protocol::id::PeerId;
use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};
use ureq::http::Method;

use super::client::Node;
use super::query::{self, QueryArgs};
use crate::process::Failure;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct PeersArgs {
    #[command(flatten)]
    query: QueryArgs,
    #[command(subcommand)]
    order: Option<Order>,
}

const EXAMPLES: &str = "\
Examples:
  anabranch peers
  anabranch peers demote 12D3Koo…    writes with --ack all don't wait for it
  anabranch peers demote 12D3Koo… --dataset logs
  anabranch peers disable 12D3Koo…   it is not talked to, until:
  anabranch peers enrol 12D3Koo…
  anabranch peers remove 12D3Koo…    it is gone; if disabled before, for good";

#[derive(Debug, Subcommand)]
enum Order {
    /// Count on a peer again: let it in if it was disabled, and wait for it on writes with --ack all.
    #[command(after_help = "Examples:
  anabranch peers enrol 12D3Koo…     in every dataset in which it was demoted
  anabranch peers enrol 12D3Koo… --dataset logs")]
    Enrol(InDataset),
    /// Don't wait for a peer on writes with --ack all; it goes on syncing.
    #[command(after_help = "Examples:\n  anabranch peers demote 12D3Koo…\n  anabranch peers demote 12D3Koo… --dataset logs")]
    Demote(InDataset),
    /// Refuse to talk to a peer until it is enrolled again, also after a restart.
    #[command(after_help = "Example:\n  anabranch peers disable 12D3Koo…")]
    Disable(Named),
    /// Demote a peer everywhere, disconnect it and forget its addresses. It may come back by itself unless it is disabled.
    #[command(after_help = "Example:\n  anabranch peers remove 12D3Koo…")]
    Remove(Named),
}

#[derive(Debug, Args)]
struct InDataset {
    #[command(flatten)]
    named: Named,
    /// Only in this dataset.
    #[arg(long, short = 'd', value_name = "NAME")]
    dataset: Option<String>,
}

#[derive(Debug, Args)]
struct Named {
    /// The peer's id.
    #[arg(value_name = "PEER")]
    peer: PeerId,
    #[command(flatten)]
    query: QueryArgs,
}

pub fn peers(args: &PeersArgs) -> Result<(), Failure> {
    match &args.order {
        None => query::peers(&args.query),
        Some(Order::Enrol(of)) => tell(&of.named, Method::POST, "/enrol", of.dataset.as_deref()),
        Some(Order::Demote(of)) => tell(&of.named, Method::POST, "/demote", of.dataset.as_deref()),
        Some(Order::Disable(named)) => tell(named, Method::POST, "/disable", None),
        Some(Order::Remove(named)) => tell(named, Method::DELETE, "", None),
    }
}

fn tell(named: &Named, method: Method, order: &str, dataset: Option<&str>) -> Result<(), Failure> {
    let body = dataset.map(|dataset| json!({ "dataset": dataset }).to_string()).unwrap_or_default();
    let node = Node::of(&named.query.node)?;
    let removed = method == Method::DELETE;
    let path = format!("/v1/peers/{}{order}", named.peer);
    let answer = if removed { node.send_empty(method, &path)? } else { node.send_reader(method, &path, &mut body.as_bytes())? };
    let answer = Node::ok(answer)?;
    if named.query.json {
        println!("{answer}");
    } else {
        println!("{}", in_words(&answer, removed));
    }
    Ok(())
}

fn in_words(answer: &Json, removed: bool) -> String {
    let peer = answer["peer_id"].as_str().unwrap_or_default();
    let names = |field: &str| {
        let names: Vec<_> = answer[field].as_array().into_iter().flatten().filter_map(Json::as_str).collect();
        names.join(", ")
    };
    let (enrolled, demoted) = (names("enrolled"), names("demoted"));
    let mut parts = Vec::new();
    if removed {
        parts.push("removed".to_owned());
    }
    if answer["disabled"].as_bool() == Some(true) {
        parts.push("disabled: not talked to".to_owned());
    }
    parts.push(if enrolled.is_empty() { "enrolled nowhere".to_owned() } else { format!("enrolled in {enrolled}") });
    if !demoted.is_empty() {
        parts.push(format!("demoted in {demoted}"));
    }
    format!("{peer} is {}", parts.join("; "))
}
