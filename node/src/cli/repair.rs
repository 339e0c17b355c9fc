//! `repair clock`: commits that peers hold back, because this node's clock was far ahead, are issued again with sane stamps.

use std::time::Duration;

use anabranch_protocol::id::DatasetId;
use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};
use ureq::http::Method;

use super::client::Node;
use super::query::{QueryArgs, print_json};
use crate::process::Failure;

/// How long the node may take for a dataset: all of its store is written anew.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RepairArgs {
    #[command(subcommand)]
    what: What,
}

const EXAMPLES: &str = "\
Example:
  anabranch repair clock                     once the clock is right again";

#[derive(Debug, Subcommand)]
enum What {
    /// Issue commits of this node again that peers hold back, because its clock was far ahead. Set the clock right before.
    ///
    /// The dataset's store is written anew without the wrong stamps, and the old one is kept beside it. Documents stay as they are
    /// here. Nothing is done where there is nothing to repair, or where a peer may have the commits already.
    #[command(after_help = "Examples:
  anabranch repair clock                     every dataset of the node
  anabranch repair clock --dataset logs
  anabranch repair clock --node http://127.0.0.1:7071 --json")]
    Clock(ClockArgs),
}

#[derive(Debug, Args)]
struct ClockArgs {
    /// Only this dataset [default: all that are enabled].
    #[arg(long, short = 'd', value_name = "NAME")]
    dataset: Option<String>,
    #[command(flatten)]
    query: QueryArgs,
}

pub fn repair(args: &RepairArgs) -> Result<(), Failure> {
    let What::Clock(args) = &args.what;
    let node = Node::patient(&args.query.node, PATIENCE)?;
    let datasets = match &args.dataset {
        Some(name) => vec![DatasetId::new(name).map_err(|error| Failure::Usage(format!("--dataset: {error}")))?.to_string()],
        None => enabled(&node.ask("/v1/datasets")?),
    };
    let (mut answers, mut failed) = (Vec::new(), Vec::new());
    for dataset in datasets {
        let answer = node.send_empty(Method::POST, &format!("/v1/datasets/{dataset}/repair-clock"))?;
        let done = answer.status.is_success();
        if !args.query.json {
            match done {
                true => println!("{}", in_words(&answer.body)),
                false => eprintln!("{}", Node::refused(&answer)),
            }
        }
        if !done {
            failed.push(dataset.clone());
        }
        answers.push(if done { answer.body } else { json!({ "dataset_id": dataset, "problem": answer.body }) });
    }
    if args.query.json {
        print_json(&Json::Array(answers))?;
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::Other(format!("not repaired: {}", failed.join(", ")))) }
}

fn enabled(datasets: &Json) -> Vec<String> {
    let all = datasets.as_array().into_iter().flatten().filter(|dataset| dataset["enabled"].as_bool() != Some(false));
    all.filter_map(|dataset| dataset["dataset_id"].as_str().map(str::to_owned)).collect()
}

fn in_words(answer: &Json) -> String {
    let dataset = answer["dataset_id"].as_str().unwrap_or_default();
    let [commits, local] = ["repaired_commits", "restamped_local"].map(|field| answer[field].as_u64().unwrap_or_default());
    let counted = |count: u64, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
    let Some(aside) = answer["set_aside"].as_str() else {
        return format!("nothing to repair in dataset {dataset}: no stamp here is too far ahead of the clock");
    };
    let local = if local > 0 { format!(", and {} that stay here", counted(local, "write")) } else { String::new() };
    format!(
        "repaired {} in dataset {dataset}{local}: issued again with stamps of now; the store as it was is kept as {aside}",
        counted(commits, "commit")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_said_with_numbers() {
        let answer = |commits: u64, local: u64, aside: Json| {
            in_words(
                &json!({ "dataset_id": "primary", "repaired_commits": commits, "restamped_local": local, "set_aside": aside }),
            )
        };
        assert!(answer(12, 0, json!("x")).starts_with("repaired 12 commits in dataset primary: issued again"));
        assert!(answer(1, 2, json!("x")).starts_with("repaired 1 commit in dataset primary, and 2 writes that stay here: "));
        assert!(answer(0, 0, Json::Null).starts_with("nothing to repair in dataset primary"));
    }

    #[test]
    fn disabled_datasets_are_left_out() {
        let datasets = json!([{ "dataset_id": "a", "enabled": true }, { "dataset_id": "b", "enabled": false }]);
        assert_eq!(enabled(&datasets), ["a"]);
    }
}
