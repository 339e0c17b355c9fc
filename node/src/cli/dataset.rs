//! `dataset pause|resume|restart NAME`: what an operator may do to a dataset of a running node.

use anabranch_protocol::id::DatasetId;
use clap::{Args, Subcommand};

use super::client::Node;
use super::query::QueryArgs;
use crate::process::Failure;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  anabranch dataset restart logs --node http://127.0.0.1:7071")]
pub struct DatasetArgs {
    #[command(subcommand)]
    order: Order,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Close a dataset's store and answer nobody, until it is resumed or the node starts again.
    Pause(Named),
    /// End a pause.
    Resume(Named),
    /// Rebuild a dataset from its store; also one that failed too often, and one that is paused.
    Restart(Named),
}

#[derive(Debug, Args)]
struct Named {
    /// The dataset.
    #[arg(value_name = "NAME")]
    dataset: String,
    #[command(flatten)]
    query: QueryArgs,
}

pub fn dataset(args: &DatasetArgs) -> Result<(), Failure> {
    let (word, named) = match &args.order {
        Order::Pause(named) => ("pause", named),
        Order::Resume(named) => ("resume", named),
        Order::Restart(named) => ("restart", named),
    };
    // Checked here, so that no name leads to another path.
    let dataset = DatasetId::new(&named.dataset).map_err(|error| Failure::Usage(format!("NAME: {error}")))?;
    let answer = Node::of(&named.query.node)?.tell(&format!("/v1/datasets/{dataset}/{word}"))?;
    if named.query.json {
        println!("{answer}");
    } else {
        println!("{dataset} is {}", answer["now"].as_str().unwrap_or("told"));
    }
    Ok(())
}
